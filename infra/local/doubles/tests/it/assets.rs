//! Static lists as assets, and folders.

use ::http::Method;
use doubles::marketo::Settings;
use serde_json::json;

use crate::rig::{Rig, code, encoded, ids};

const FOLDER_12: &str = "folder=%7B%22id%22%3A12%2C%22type%22%3A%22Folder%22%7D";
const CREATE: &str = "/rest/asset/v1/staticLists.json";

#[test]
fn a_new_list_gets_the_next_id_and_odd_dates() {
    let mut rig = Rig::plain();
    let answer = rig.form(CREATE, &format!("{FOLDER_12}&name=Cart%20%22abandoners%22&description=sync%201"));
    let row = &answer["result"][0];
    assert_eq!(
        (&row["id"], &row["name"], &row["description"]),
        (&json!(1006), &json!("Cart \"abandoners\""), &json!("sync 1"))
    );
    assert_eq!(row["createdAt"], "2026-11-20T00:00:00Z+0000");
    assert_eq!(row["folder"], json!({"id": 12, "type": "Folder"}));
    assert_eq!(rig.members(1006), [0; 0]);
    assert_eq!(rig.add(1006, &[1]), ["added"]);
}

#[test]
fn an_id_is_never_given_twice() {
    let mut rig = Rig::plain();
    rig.form(CREATE, &format!("{FOLDER_12}&name=One"));
    assert_eq!(ids(&rig.form("/rest/asset/v1/staticList/1006/delete.json", "")), [1006]);
    assert_eq!(ids(&rig.form(CREATE, &format!("{FOLDER_12}&name=Two"))), [1007]);
}

#[test]
fn a_taken_name_is_709_and_a_wrong_folder_710_or_711() {
    let mut rig = Rig::plain();
    let mut create = |form: &str| code(&rig.form(CREATE, form));
    assert_eq!(create(&format!("{FOLDER_12}&name=VIP")), "709");
    assert_eq!(create("folder=%7B%22id%22%3A99%2C%22type%22%3A%22Folder%22%7D&name=New"), "710");
    assert_eq!(create("folder=%7B%22id%22%3A41%2C%22type%22%3A%22Folder%22%7D&name=New"), "711");
    assert_eq!(create(&format!("{FOLDER_12}&name=")), "701");
    assert_eq!(create("name=New"), "701");
    let body = format!("{FOLDER_12}&name=New");
    let (_, answer) = rig.call(Method::POST, CREATE, Some("application/json"), &body);
    assert_eq!(code(&answer), "612");
}

#[test]
fn nothing_found_is_a_success_without_a_result() {
    let mut rig = Rig::plain();
    for path in
        ["staticList/byName.json?name=Nobody", "staticList/7.json", "staticLists.json?offset=50", "folder/7.json"]
    {
        let answer = rig.get(&format!("/rest/asset/v1/{path}"));
        assert_eq!(code(&answer), "", "{path}");
        assert!(answer.get("result").is_none(), "{path}");
        assert_eq!(answer["warnings"], json!(["No assets found for the given search criteria."]), "{path}");
    }
}

#[test]
fn by_name_is_exact_and_never_finds_a_comma() {
    let mut rig = Rig::plain();
    assert_eq!(ids(&rig.get("/rest/asset/v1/staticList/byName.json?name=VIP")), [1001]);
    rig.form(CREATE, &format!("{FOLDER_12}&name=a%2Cb"));
    assert!(rig.get("/rest/asset/v1/staticList/byName.json?name=a%2Cb").get("result").is_none());
}

#[test]
fn browsing_pages_by_offset() {
    let mut rig = Rig::plain();
    for n in 0..24 {
        rig.form(CREATE, &format!("{FOLDER_12}&name=L{n}"));
    }
    let browse = format!("{CREATE}?{FOLDER_12}");
    assert_eq!(ids(&rig.get(&browse)).len(), 20);
    assert_eq!(ids(&rig.get(&format!("{browse}&maxReturn=200"))).len(), 26);
    assert_eq!(ids(&rig.get(&format!("{browse}&offset=25&maxReturn=20"))), [1029]);
    assert!(rig.get(&browse.replace("12", "31")).get("result").is_none());
    assert_eq!(ids(&rig.get(&format!("{CREATE}?earliestUpdatedAt=2026-11-19T00:00:00Z&maxReturn=200"))).len(), 24);
}

#[test]
fn a_list_is_renamed_and_deleted() {
    let mut rig = Rig::plain();
    let answer = rig.form("/rest/asset/v1/staticList/1001.json", "name=Best&description=d");
    assert_eq!(answer["result"][0]["name"], "Best");
    assert_eq!(rig.core.lists()[&1001].description, "d");
    assert_eq!(code(&rig.form("/rest/asset/v1/staticList/1001.json", "name=Newsletter")), "709");
    assert_eq!(ids(&rig.form("/rest/asset/v1/staticList/1001/delete.json", "")), [1001]);
    assert_eq!(code(&rig.get("/rest/v1/lists/1001/leads.json")), "1013");
}

#[test]
fn folders_are_browsed_by_root_and_depth() {
    let mut rig = Rig::plain();
    let folder = rig.get("/rest/asset/v1/folder/byName.json?name=Group%20Lists");
    assert_eq!(folder["result"][0]["folderId"], json!({"id": 12, "type": "Folder"}));
    assert_eq!(folder["result"][0]["folderType"], "List");
    assert_eq!(ids(&rig.get("/rest/asset/v1/folder/12.json?type=Folder")), [12]);
    let root = "root=%7B%22id%22%3A12%2C%22type%22%3A%22Folder%22%7D";
    assert_eq!(ids(&rig.get(&format!("/rest/asset/v1/folders.json?{root}&maxDepth=1"))), [12, 31, 32]);
    assert_eq!(ids(&rig.get("/rest/asset/v1/folders.json?maxDepth=5&maxReturn=2&offset=1")), [11, 12]);
}

#[test]
fn lists_of_one_name_are_all_in_the_database_and_one_by_name() {
    let mut rig = Rig::plain();
    let second = rig.core.make_list(rig.now, "VIP", 31, "Default");
    let third = rig.core.make_list(rig.now, "VIP", 99, "EMEA \"1\"");
    assert_eq!((second, third), (1006, 1007));
    assert_eq!(ids(&rig.get("/rest/asset/v1/staticList/byName.json?name=VIP")), [1001], "only one");
    let all = rig.get("/rest/v1/lists.json?name=VIP,Newsletter");
    assert_eq!(ids(&all), [1001, 1005, second, third]);
    let workspaces: Vec<_> = all["result"].as_array().expect("rows").iter().map(|row| &row["workspaceName"]).collect();
    assert_eq!(workspaces, ["Default", "Default", "Default", "EMEA \"1\""]);
    assert_eq!(ids(&rig.get("/rest/v1/lists.json?name=VIP&workspaceName=EMEA%20%221%22")), [third]);
    assert_eq!(ids(&rig.get("/rest/v1/lists.json?name=VIP&id=1005,1006")), [second]);
    assert_eq!(
        ids(&rig.get("/rest/asset/v1/staticLists.json?folder=%7B%22id%22%3A99%2C%22type%22%3A%22Folder%22%7D")),
        [third]
    );
    assert_eq!(rig.get("/rest/asset/v1/staticList/1007.json")["result"][0]["workspace"], "EMEA \"1\"");
    assert_eq!(code(&rig.form(CREATE, &format!("{FOLDER_12}&name=VIP"))), "709");
    rig.form("/rest/asset/v1/staticList/1001/delete.json", "");
    assert_eq!(ids(&rig.get("/rest/asset/v1/staticList/byName.json?name=VIP")), [second]);
    rig.form(&format!("/rest/asset/v1/staticList/{second}.json"), "name=Other");
    assert_eq!(ids(&rig.get("/rest/v1/lists.json?name=VIP")), [third]);
    assert_eq!(ids(&rig.get("/rest/v1/lists.json?name=Other")), [second]);
}

#[test]
fn a_taken_name_may_be_1017() {
    let mut rig = Rig::new(Settings { taken_name_code: 1017, ..Settings::default() });
    assert_eq!(code(&rig.form(CREATE, &format!("{FOLDER_12}&name=VIP"))), "1017");
}

#[test]
fn a_name_with_a_comma_is_found_by_browsing_its_folder_only() {
    let mut rig = Rig::plain();
    let list = rig.core.make_list(rig.now, "Cart, abandoned", 31, "Default");
    let name = "Cart%2C%20abandoned";
    assert!(rig.get(&format!("/rest/asset/v1/staticList/byName.json?name={name}")).get("result").is_none());
    assert_eq!(ids(&rig.get(&format!("/rest/v1/lists.json?name={name}"))), [0; 0]);
    let browse = format!("{CREATE}?{}", FOLDER_12.replace("12", "31"));
    assert_eq!(ids(&rig.get(&browse)), [list]);
    assert_eq!(code(&rig.form(CREATE, &format!("{FOLDER_12}&name={name}"))), "709", "its name is taken");
}

#[test]
fn twenty_thousand_lists_are_read_page_by_page() {
    let mut rig = Rig::new(Settings { limits: false, ..Settings::default() });
    for n in 0..20_000 {
        rig.core.make_list(rig.now, &format!("List {n}"), 31, "Default");
    }
    let browse = format!("{CREATE}?{}&maxReturn=200", FOLDER_12.replace("12", "31"));
    let mut seen = std::collections::BTreeSet::new();
    for page in 0..100 {
        seen.extend(ids(&rig.get(&format!("{browse}&offset={}", page * 200))));
    }
    assert_eq!(seen.len(), 20_000);
    assert!(rig.get(&format!("{browse}&offset=20000")).get("result").is_none());
    let mut next = String::new();
    let mut pages = 0;
    loop {
        let page = rig.get(&format!("/rest/v1/lists.json?{next}"));
        seen.extend(ids(&page));
        pages += 1;
        if page.get("nextPageToken").is_none() {
            break;
        }
        next = format!("nextPageToken={}", encoded(&page["nextPageToken"]));
    }
    assert_eq!((pages, seen.len()), (67, 20_002));
}

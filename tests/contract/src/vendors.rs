//! What Marketo's and Adobe's doubles answer, by whatever way they are asked.

use http::{Method, Request};
use ports::Http;
use serde_json::{Value, json};

/// What came: status, content type and body; or how the call failed.
pub type Came = Result<(u16, String, Vec<u8>), String>;

/// What was asked, and what came.
pub type Answers = Vec<(String, Came)>;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
/// Time for an answer, in ms.
const TIMEOUT_MS: u64 = 20_000;

struct Asking<'a> {
    http: &'a dyn Http,
    base: &'a str,
    token: String,
    answers: Answers,
}

impl Asking<'_> {
    async fn ask(&mut self, method: Method, path: &str, content: (&str, &str)) -> Value {
        let mut request = Request::builder().method(&method).uri(format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in [
            ("content-type", content.0),
            ("x-api-key", "sample-client"),
            ("x-gw-ims-org-id", "0123456789ABCDEF01234567@AdobeOrg"),
            ("x-sandbox-name", "prod"),
        ] {
            request = request.header(name, value);
        }
        let request = request.body(content.1.as_bytes().to_vec()).expect("a request");
        let answer = self.http.send(request, TIMEOUT_MS).await;
        let said = answer.as_ref().ok().and_then(|answer| serde_json::from_slice(answer.body()).ok());
        let answer = answer.map_err(|error| error.to_string().split(':').next().unwrap_or_default().to_owned());
        let answer = answer.map(|answer| {
            let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            (answer.status().as_u16(), kind.to_owned(), answer.body().clone())
        });
        self.answers.push((format!("{method} {path}"), answer));
        said.unwrap_or_default()
    }

    async fn get(&mut self, path: &str) -> Value {
        self.ask(Method::GET, path, ("", "")).await
    }

    async fn log_in(&mut self, path: &str) {
        let form = "grant_type=client_credentials&client_id=sample-client&client_secret=sample-secret&scope=openid";
        let given = self.ask(Method::POST, path, (FORM, form)).await;
        given["access_token"].as_str().unwrap_or_default().clone_into(&mut self.token);
    }
}

/// Asks Marketo for everything that our client asks it for, rightly and wrongly, and in the end more often than its window
/// allows. The world has a list 1001 with the leads 1 and 2, of five.
pub async fn marketo_answers(http: &dyn Http, base: &str) -> Answers {
    let mut asking = Asking { http, base, token: String::new(), answers: Vec::new() };
    asking.get("/rest/v1/lists.json").await;
    asking.ask(Method::POST, "/identity/oauth/token", (FORM, "grant_type=none")).await;
    asking.log_in("/identity/oauth/token").await;
    asking.get("/rest/v1/lists.json?batchSize=1").await;
    for path in [
        "/rest/v1/lists.json?batchSize=300&name=VIP",
        "/rest/asset/v1/staticList/1001.json",
        "/rest/asset/v1/staticList/9.json",
        "/rest/asset/v1/staticList/byName.json?name=VIP",
        "/rest/asset/v1/folders.json?maxReturn=200",
        "/rest/v1/lists/1001/leads.json?batchSize=1&fields=id,email,cookies,ecids",
        "/rest/v1/lists/1001/leads/ismember.json?id=1,3,9",
        "/rest/v1/stats/usage.json",
        "/rest/v1/nothing.json",
        "/rest/v1/activities.json?nextPageToken=wrong&activityTypeIds=12",
    ] {
        asking.get(path).await;
    }
    let form = "filterType=id&filterValues=1%2C2%2C9&fields=id%2Cemail%2Ccookies&batchSize=300";
    asking.ask(Method::POST, "/rest/v1/leads.json?_method=GET", (FORM, form)).await;
    let people = json!({"input": [{"id": 3}, {"id": 1}, {"id": 9}]}).to_string();
    asking.ask(Method::POST, "/rest/v1/lists/1001/leads.json", (JSON, &people)).await;
    asking.ask(Method::POST, "/rest/v1/lists/1001/leads.json", (JSON, "{")).await;
    asking.ask(Method::DELETE, "/rest/v1/lists/1001/leads.json?id=2,4,9", ("", "")).await;
    let folder = "folder=%7B%22id%22%3A12%2C%22type%22%3A%22Folder%22%7D&name=New&description=d";
    asking.ask(Method::POST, "/rest/asset/v1/staticLists.json", (FORM, folder)).await;
    asking.ask(Method::POST, "/rest/asset/v1/staticLists.json", (FORM, folder)).await;
    let since = asking.get("/rest/v1/activities/pagingtoken.json?sinceDatetime=2026-11-01T00:00:00Z").await;
    let token = since["nextPageToken"].as_str().unwrap_or_default().to_owned();
    asking.get(&format!("/rest/v1/activities.json?nextPageToken={token}&activityTypeIds=12,24,25,32,37")).await;
    let job = json!({"fields": ["id", "email"], "format": "CSV", "filter": {"staticListId": 1001}}).to_string();
    let made = asking.ask(Method::POST, "/bulk/v1/leads/export/create.json", (JSON, &job)).await;
    let id = made["result"][0]["exportId"].as_str().unwrap_or("none").to_owned();
    asking.ask(Method::POST, &format!("/bulk/v1/leads/export/{id}/enqueue.json"), ("", "")).await;
    asking.get(&format!("/bulk/v1/leads/export/{id}/status.json")).await;
    asking.get(&format!("/bulk/v1/leads/export/{id}/file.json")).await;
    // More than the window allows.
    for _ in 0..100 {
        asking.get("/rest/v1/stats/usage.json").await;
    }
    asking.answers
}

/// Asks Adobe for everything that our client asks it for, rightly and wrongly. The world has a folder 1 with the segment 101.
pub async fn adobe_answers(http: &dyn Http, base: &str) -> Answers {
    let mut asking = Asking { http, base, token: String::new(), answers: Vec::new() };
    asking.get("/v1/segments/").await;
    asking.ask(Method::POST, "/ims/token/v3", (FORM, "grant_type=client_credentials")).await;
    asking.log_in("/ims/token/v3").await;
    for path in [
        "/v1/segments/",
        "/v1/segments/?page=0&pageSize=1",
        "/v1/segments/101",
        "/v1/segments/9",
        "/v1/folders/segments/",
        "/data/core/ups/audiences?start=0&limit=1&sort=updateTime:desc",
        "/data/core/ups/audiences/11111111-2222-3333-4444-555555555555",
        "/unifiedfolders/folders/segment/root/subfolders",
        "/unifiedfolders/folders/segment/none/subfolders",
        "/nothing",
    ] {
        asking.get(path).await;
    }
    asking.answers
}

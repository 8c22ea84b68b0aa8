//! The messages that Adobe's double streams.

use doubles::adobe::{Adobe, Algorithm, HttpApi, Key, Message, RealTime, Settings, Signature, Stream};
use serde_json::{Value, json};

use crate::platform::{audiences, uuid};
use crate::rig::{START, ecid};

/// 2026-01-02T03:04:05Z
const TIME: u64 = 1_767_323_045_000;
const DAY: u64 = 86_400_000;

fn adobe() -> Adobe {
    Adobe::new(Settings::default(), audiences(3), TIME - DAY)
}

fn bodies(messages: &[Message]) -> Vec<Value> {
    messages.iter().map(|message| serde_json::from_slice(&message.body).expect("JSON")).collect()
}

fn real_time(core: &mut Adobe, time_ms: u64, stream: &RealTime) -> Vec<Value> {
    bodies(&core.events(time_ms, &Stream::AudienceManager(stream.clone())))
}

fn http(core: &mut Adobe, time_ms: u64, stream: &HttpApi) -> Vec<Value> {
    bodies(&core.events(time_ms, &Stream::Platform(stream.clone())))
}

#[test]
fn a_real_time_message_lists_all_segments_of_who_changed() {
    let mut core = adobe();
    let stream = RealTime::default();
    assert!(core.set_member_at(TIME - DAY, 101, &ecid(1), true));
    assert_eq!(real_time(&mut core, TIME - DAY, &stream).len(), 1);
    assert!(core.set_member_at(TIME - 1_000, 102, &ecid(1), true));
    assert!(core.set_member_at(TIME - 1_000, 103, &ecid(2), true) && core.set_member_at(TIME, 103, &ecid(2), false));
    let messages = real_time(&mut core, TIME + 1_000, &stream);
    let mut message = messages[0].clone();
    let other = message["Users"][0]["DataPartner_UUID"].take();
    message["Users"][1]["DataPartner_UUID"].take();
    assert_eq!(other.as_str().map(str::len), Some(38));
    let segment = |sid: &str, status: &str, time: &str| json!({"Segment_ID": sid, "Status": status, "DateTime": time});
    assert_eq!(
        message,
        json!({
            "ProcessTime": "Fri Jan 02 03:04:06 UTC 2026", "User_DPID": "111", "Client_ID": "222",
            "AAM_Destination_Id": "333", "User_count": "2",
            "Users": [
                {"AAM_UUID": ecid(1), "DataPartner_UUID": null, "AAM_Regions": ["9"], "Segments": [
                    segment("101", "1", "Thu Jan 01 03:04:05 UTC 2026"), segment("102", "1", "Fri Jan 02 03:04:04 UTC 2026")]},
                {"AAM_UUID": ecid(2), "DataPartner_UUID": null, "AAM_Regions": ["9"], "Segments": [
                    segment("103", "0", "Fri Jan 02 03:04:05 UTC 2026")]},
            ]
        })
    );
    assert_eq!((messages.len(), real_time(&mut core, TIME + 2_000, &stream).len()), (1, 0));
}

#[test]
fn real_time_messages_come_in_every_documented_spelling() {
    let mut core = adobe();
    for n in 1..=12 {
        assert!(core.set_member_at(TIME, 101, &ecid(n), true) && core.set_member_at(TIME, 102, &ecid(n), true));
    }
    let stream = |name: &str| RealTime { destination: name.to_owned(), ..RealTime::default() };
    let messages = real_time(&mut core, TIME, &stream("7"));
    assert_eq!(messages.iter().map(|m| m["Users"].as_array().map(Vec::len)).collect::<Vec<_>>(), [Some(10), Some(2)]);

    let odd = RealTime {
        users: 99,
        numbers: true,
        upper_id: true,
        regions: false,
        key: Key::Uuid,
        mapped: Some([102].into()),
        ..stream("8")
    };
    let messages = real_time(&mut core, TIME, &odd);
    let (message, user) = (&messages[1], &messages[1]["Users"][0]);
    assert_eq!((&message["AAM_Destination_ID"], &message["User_count"]), (&json!(8), &json!(2)));
    assert!(message["AAM_Destination_Id"].is_null() && user["AAM_Regions"].is_null());
    assert_eq!(user["Segments"][0]["Segment_ID"], 102);
    assert_eq!((&user["Segments"][0]["Status"], user["Segments"].as_array().map(Vec::len)), (&json!(1), Some(1)));
    assert_eq!(user["DataPartner_UUID"], json!(ecid(11)));
    assert!(core.set_member_at(TIME, 101, &ecid(1), false));
    assert!(real_time(&mut core, TIME, &odd).is_empty(), "the segment is not mapped");

    core.skip("9");
    assert!(core.set_member_at(TIME, 103, &ecid(2), true));
    let batch = RealTime { batch: true, ..stream("9") };
    let messages = real_time(&mut core, TIME, &batch);
    assert_eq!(messages[0]["Users"].as_array().map(Vec::len), Some(1));
    let segments: Vec<_> = messages[0]["Users"][0]["Segments"].as_array().expect("segments").iter().collect();
    assert_eq!(segments.len(), 1, "a batch has the changes alone");
    assert_eq!(segments[0]["Segment_ID"], "103");
}

#[test]
fn signatures_are_those_of_adobes_vectors() {
    let of = |algorithm, body: &str| {
        let key = "sample_partner_private_key".to_owned();
        Signature { header: "X-Signature".to_owned(), key, algorithm }.of(body.as_bytes())
    };
    assert_eq!(of(Algorithm::Sha1, "POST message content"), "+wFdR/afZNoVqtGl8/e1KJ4ykPU=");
    assert_eq!(of(Algorithm::Sha256, "POST message content"), "WJzevEtYmeOolVtcXGrcA3KKiTQMTZUfKzCw/ZNz9YU=");
    assert_eq!(of(Algorithm::Sha1, "/from-aam-s2s?sids=1,2,3"), "EKanieP0BLD3/hlkM+ELPiKoZ2E=");
    assert_eq!(of(Algorithm::Md5, "POST message content").len(), 24);

    let mut core = adobe();
    assert!(core.set_member(101, &ecid(1), true));
    let signature = Signature { header: "X-Signature".to_owned(), key: "key".to_owned(), algorithm: Algorithm::Md5 };
    assert!(!format!("{signature:?}").contains("\"key\""));
    let stream = RealTime { signature: Some(signature.clone()), ..RealTime::default() };
    let messages = core.events(TIME, &Stream::AudienceManager(stream));
    let header =
        |name: &str| messages[0].headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str());
    assert_eq!(header("x-signature"), Some(&*signature.of(&messages[0].body)));
    assert_eq!(header("user-agent"), Some("Adobe Audience Manager Iris"));
}

#[test]
fn a_profiles_message_has_all_its_ecids_and_memberships() {
    let mut core = adobe();
    let stream = HttpApi { audiences: Some([uuid(1), uuid(2)].into()), ..HttpApi::default() };
    for n in [1, 2] {
        assert!(core.add_ecid(TIME - DAY, 5, &ecid(n)));
    }
    for n in [1, 3] {
        assert!(core.set_profile(TIME - DAY, 5, &uuid(n), true));
    }
    assert_eq!(http(&mut core, TIME - DAY, &stream).len(), 1);
    assert!(core.set_profile(TIME, 5, &uuid(2), true));
    let messages = http(&mut core, TIME + 60_000, &stream);
    assert_eq!(messages[0]["identityMap"]["ecid"], json!([{"id": ecid(1)}, {"id": ecid(2)}]));
    assert_eq!(
        messages[0]["segmentMembership"]["ups"],
        json!({
            uuid(1): {"lastQualificationTime": "2026-01-01T03:04:05Z", "status": "realized"},
            uuid(2): {"lastQualificationTime": "2026-01-02T03:04:05Z", "status": "realized"},
        })
    );
    assert!(http(&mut core, TIME + 60_000, &stream).is_empty());

    // Unlike an export, a stream tells a new ECID of an old member, and any write of an attribute.
    assert!(core.add_ecid(TIME, 5, &ecid(3)));
    assert_eq!(http(&mut core, TIME, &stream)[0]["identityMap"]["ecid"].as_array().map(Vec::len), Some(3));
    core.touch(5);
    assert_eq!(http(&mut core, TIME, &stream).len(), 1);
    // An audience that is not mapped is no reason for a message.
    assert!(core.set_profile(TIME, 5, &uuid(3), false));
    assert!(http(&mut core, TIME, &stream).is_empty());
}

#[test]
fn who_left_is_repeated_for_thirty_days() {
    let mut core = adobe();
    let stream = HttpApi::default();
    assert!(core.add_ecid(TIME, 5, &ecid(1)) && core.set_profile(TIME, 5, &uuid(1), true));
    assert!(core.set_profile(TIME, 5, &uuid(2), true) && core.set_profile(TIME + 1_000, 5, &uuid(1), false));
    let shown = |core: &mut Adobe, time| {
        core.touch(5);
        http(core, time, &stream)[0]["segmentMembership"]["ups"][uuid(1)].clone()
    };
    let exited = json!({"lastQualificationTime": "2026-01-02T03:04:06Z", "status": "exited"});
    assert_eq!(shown(&mut core, TIME + 1_000), exited);
    assert_eq!(shown(&mut core, TIME + 30 * DAY), exited);
    assert_eq!(shown(&mut core, TIME + 30 * DAY + 1_000), Value::Null);
}

#[test]
fn profiles_messages_come_in_every_documented_spelling() {
    let mut core = adobe();
    for n in 1..=12 {
        assert!(core.add_ecid(TIME, n, &ecid(n)) && core.set_profile(TIME, n, &uuid(1), true));
        assert!(core.set_profile(TIME, n, &uuid(3), true));
    }
    assert_eq!(http(&mut core, TIME, &HttpApi::default()).len(), 12, "an object each");
    let odd = HttpApi {
        destination: "odd".to_owned(),
        audiences: Some([uuid(1)].into()),
        unmapped: true,
        array: true,
        upper_namespace: true,
        offset: true,
        existing: true,
        names: true,
        timestamps: true,
        token: Some("secret".to_owned()),
        ..HttpApi::default()
    };
    let messages = core.events(TIME, &Stream::Platform(odd.clone()));
    assert!(messages[0].headers.contains(&("authorization".to_owned(), "Bearer secret".to_owned())));
    let messages = bodies(&messages);
    assert_eq!(messages.iter().map(|m| m.as_array().map(Vec::len)).collect::<Vec<_>>(), [Some(10), Some(2)]);
    let profile = &messages[1][0];
    assert_eq!(profile["identityMap"]["ECID"], json!([{"id": ecid(11)}]));
    let memberships = &profile["segmentMembership"]["ups"];
    assert_eq!(
        memberships[uuid(1)],
        json!({"lastQualificationTime": "2026-01-02T03:04:05+0000", "status": "realized", "name": "Audience 1",
            "createdAt": TIME, "updatedAt": TIME, "mappingCreatedAt": TIME - DAY, "mappingUpdatedAt": TIME - DAY})
    );
    // Not mapped, and so without name and mapping.
    let unmapped = json!({"lastQualificationTime": "2026-01-02T03:04:05+0000", "status": "realized",
        "createdAt": TIME, "updatedAt": TIME});
    assert_eq!(memberships[uuid(3)], unmapped);
    core.touch(4);
    let messages = http(&mut core, TIME, &odd);
    assert_eq!(messages[0][0]["segmentMembership"]["ups"][uuid(1)]["status"], "existing");
}

#[test]
fn a_stream_begins_where_it_is_told_to() {
    let mut core = Adobe::new(Settings::default(), audiences(1), START);
    let stream = HttpApi::default();
    assert!(core.add_ecid(START, 1, &ecid(1)) && core.set_profile(START, 1, &uuid(1), true));
    core.skip(&stream.destination);
    assert!(http(&mut core, START, &stream).is_empty());
    assert!(core.set_profile(START, 1, &uuid(1), false));
    assert_eq!(http(&mut core, START, &stream).len(), 1);
}

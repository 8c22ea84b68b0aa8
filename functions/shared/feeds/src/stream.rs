//! The messages of both streams. Each of their entries is one timed fact; what is absent from a message says nothing.

use std::collections::BTreeSet;

use domain::fact::Streamed;
use domain::said::Saying;
use domain::sayings::{
    PROFILE_NO_OBJECT, STREAM_MEMBERSHIP_STATUS, STREAM_MEMBERSHIP_TIME, STREAM_NO_ECID, STREAM_NO_SEGMENTS,
    STREAM_SEGMENT_ID, STREAM_STATUS, STREAM_TIME, STREAM_TOO_MANY, STREAM_USER_NO_ECID,
};
use domain::{AudienceId, Ecid, Said};
use serde_json::Value;

use crate::aam::{ecid_of, segment, without_mark};
use crate::date::{rfc3339, spelled};
use crate::profile::{self, ENTRIES_MAX, member};

/// What a stream said about one ECID and one audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The audience.
    pub audience: AudienceId,
    /// Whom it is about.
    pub ecid: Ecid,
    /// In or out, and when. No time is later than the message was received.
    pub said: Streamed,
}

/// What a message says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// What can be taken. The same may stand there twice.
    pub entries: Vec<Entry>,
    /// Entries about audiences that are not mapped to the destination, each counted once, however many ECIDs a profile has.
    pub ignored: u64,
    /// What cannot be taken: the number of the user or profile in the message, from 1, and the reason.
    pub rejected: Vec<(u64, Said)>,
}

fn json(body: &[u8]) -> Result<Value, String> {
    // The library's own text may repeat what stood there.
    serde_json::from_slice(without_mark(body))
        .map_err(|error| format!("not JSON at line {} column {}", error.line(), error.column()))
}

/// A number, or a text of digits, as text.
fn digits(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Reads a message of Audience Manager's real-time destination. `ecid_field` is the field of a user that carries the ECID,
/// `AAM_UUID` or `DataPartner_UUID`; `received_at` in ms. Numbers may be texts. Only what is used must be there: `Users`, and
/// of each user that field and `Segments`.
///
/// # Errors
/// Not JSON, or without `Users`: the message as a whole cannot be understood.
pub fn aam(body: &[u8], ecid_field: &str, received_at: u64) -> Result<Message, String> {
    let value = json(body)?;
    let users = member(&value, "Users").and_then(Value::as_array).ok_or("Users: expected a list of users")?;
    let mut message = Message::default();
    for (place, user) in (1..).zip(users) {
        if let Err(reason) = of_user(user, ecid_field, received_at, place, &mut message) {
            message.rejected.push((place, reason));
        }
    }
    Ok(message)
}

fn of_user(user: &Value, ecid_field: &str, received_at: u64, place: u64, message: &mut Message) -> Result<(), Said> {
    let ecid = match member(user, ecid_field) {
        Some(Value::String(text)) => ecid_of(text.trim().as_bytes()),
        _ => None,
    };
    let ecid = ecid.ok_or_else(|| STREAM_USER_NO_ECID.with([("field", ecid_field.into())]))?;
    let segments = member(user, "Segments").and_then(Value::as_array).ok_or(STREAM_NO_SEGMENTS.plain())?;
    for entry in segments {
        match of_segment(entry, received_at) {
            Ok((audience, said)) => message.entries.push(Entry { audience, ecid, said }),
            Err(reason) => message.rejected.push((place, reason.plain())),
        }
    }
    Ok(())
}

fn of_segment(entry: &Value, received_at: u64) -> Result<(AudienceId, Streamed), Saying> {
    let text = |name: &str| member(entry, name).and_then(digits).unwrap_or_default();
    let sid = segment(text("Segment_ID").as_bytes()).ok_or(STREAM_SEGMENT_ID)?;
    let inside = match text("Status").as_str() {
        "1" => true,
        "0" => false,
        _ => return Err(STREAM_STATUS),
    };
    let time = member(entry, "DateTime").and_then(Value::as_str).and_then(spelled);
    let time = time.ok_or(STREAM_TIME)?.min(received_at);
    // Audience Manager does not say until when it was so.
    Ok((AudienceId::aam(sid), Streamed { changed: time, as_of: time, inside }))
}

/// Reads a message of Experience Platform's HTTP API destination: a profile or a list of profiles. `audiences` are those that
/// are declared to be mapped to the destination; entries of others count where they bear `name` or `mappingCreatedAt`, which
/// Adobe gives to mapped ones only. `received_at` in ms: a message vouches for all memberships of its profiles.
///
/// # Errors
/// Not JSON, or neither an object nor a list: the message as a whole cannot be understood.
pub fn aep(body: &[u8], audiences: &BTreeSet<AudienceId>, received_at: u64) -> Result<Message, String> {
    let value = json(body)?;
    let profiles = match &value {
        Value::Array(profiles) => profiles.as_slice(),
        Value::Object(_) => std::slice::from_ref(&value),
        _ => return Err("expected a profile or a list of profiles".to_owned()),
    };
    let mut message = Message::default();
    for (place, profile) in (1..).zip(profiles) {
        if let Err(reason) = of_profile(profile, audiences, received_at, place, &mut message) {
            message.rejected.push((place, reason.plain()));
        }
    }
    Ok(message)
}

fn of_profile(
    profile: &Value,
    audiences: &BTreeSet<AudienceId>,
    received_at: u64,
    place: u64,
    message: &mut Message,
) -> Result<(), Saying> {
    if !profile.is_object() {
        return Err(PROFILE_NO_OBJECT);
    }
    let mut memberships = Vec::new();
    for (id, entry) in profile::memberships(profile).unwrap_or(Ok(Vec::new()))? {
        match AudienceId::aep(id).filter(|audience| audiences.contains(audience) || is_mapped(entry)) {
            None => message.ignored += 1,
            Some(audience) => match of_membership(entry, received_at) {
                Ok(said) => memberships.push((audience, said)),
                Err(reason) => message.rejected.push((place, reason.plain())),
            },
        }
    }
    let found = profile::of_map(profile);
    if found.is_empty() {
        return Err(STREAM_NO_ECID);
    }
    let ecids: Vec<Ecid> = found
        .into_iter()
        .filter_map(|ecid| ecid.map_err(|reason| message.rejected.push((place, reason.plain()))).ok())
        .collect();
    if ecids.len().saturating_mul(memberships.len()) > ENTRIES_MAX - message.entries.len() {
        return Err(STREAM_TOO_MANY);
    }
    for (audience, said) in memberships {
        message.entries.extend(ecids.iter().map(|&ecid| Entry { audience: audience.clone(), ecid, said }));
    }
    Ok(())
}

/// Whether an entry bears what only mapped audiences do.
fn is_mapped(entry: &Value) -> bool {
    ["name", "mappingCreatedAt"].iter().any(|name| entry.get(name).is_some_and(|value| !value.is_null()))
}

fn of_membership(entry: &Value, received_at: u64) -> Result<Streamed, Saying> {
    let text = |name: &str| member(entry, name).and_then(Value::as_str).unwrap_or_default().trim();
    let status = text("status");
    let is = |literal: &str| status.eq_ignore_ascii_case(literal);
    let inside = match () {
        () if is("realized") || is("existing") => true,
        () if is("exited") => false,
        () => return Err(STREAM_MEMBERSHIP_STATUS),
    };
    let changed = rfc3339(text("lastQualificationTime")).ok_or(STREAM_MEMBERSHIP_TIME)?;
    Ok(Streamed { changed: changed.min(received_at), as_of: received_at, inside })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ONE: &str = "12345678901234567890123456789012345678";
    const TWO: &str = "98765432109876543210987654321098765432";
    /// 2026-01-02T03:04:05Z.
    const TIME: u64 = 1_767_323_045_000;
    const NOW: u64 = TIME + 60_000;

    /// Adobe's sample.
    const AAM: &str = r#"{"ProcessTime":"Fri Jan 02 03:04:06 UTC 2026","User_DPID":"111","Client_ID":"222","AAM_Destination_Id":"333","User_count":"2",
 "Users":[{"AAM_UUID":"12345678901234567890123456789012345678","DataPartner_UUID":"123456","AAM_Regions":["9"],
   "Segments":[{"Segment_ID":"101","Status":"1","DateTime":"Fri Jan 02 03:04:05 UTC 2026"},{"Segment_ID":"102","Status":"0","DateTime":"Fri Jan 02 03:04:05 UTC 2026"}]}]}"#;

    /// Adobe's sample.
    const AEP: &str = r#"{"person":{"birthDate":"YYYY-MM-DD","name":{"firstName":"x","lastName":"y"}},"personalEmail":{"address":"a@example.com"},
 "segmentMembership":{"ups":{
   "11111111-2222-3333-4444-555555555555":{"lastQualificationTime":"2026-01-02T03:04:05Z","status":"exited"},
   "66666666-7777-8888-9999-000000000000":{"lastQualificationTime":"2026-01-02T03:04:05Z","status":"realized"}}},
 "identityMap":{"ecid":[{"id":"12345678901234567890123456789012345678"},{"id":"98765432109876543210987654321098765432"}],
                "email_lc_sha256":[{"id":"z"}]}}"#;
    const FIRST: &str = "11111111-2222-3333-4444-555555555555";
    const SECOND: &str = "66666666-7777-8888-9999-000000000000";

    fn ids(ids: &[&str]) -> BTreeSet<AudienceId> {
        ids.iter().map(|id| AudienceId::aep(id).unwrap()).collect()
    }

    /// Audience, ECID, changed, as of, in or out.
    fn told(message: &Message) -> Vec<(String, String, u64, u64, bool)> {
        let told = |Entry { audience, ecid, said }: &Entry| {
            (audience.to_string(), ecid.text(), said.changed, said.as_of, said.inside)
        };
        message.entries.iter().map(told).collect()
    }

    fn read_aam(body: &str) -> Message {
        aam(body.as_bytes(), "AAM_UUID", NOW).unwrap()
    }

    #[test]
    fn audience_manager_s_sample_is_two_facts() {
        let message = read_aam(AAM);
        let fact = |sid: &str, inside| (format!("aam:{sid}"), ONE.to_owned(), TIME, TIME, inside);
        assert_eq!(told(&message), [fact("101", true), fact("102", false)]);
        assert_eq!((message.ignored, message.rejected.len()), (0, 0));
    }

    #[test]
    fn numbers_may_be_numbers_and_what_is_not_used_may_be_missing() {
        let numbers =
            AAM.replace("\"101\"", "101").replace("\"102\"", "102").replace("\"1\"", "1").replace("\"0\"", "0");
        assert_eq!(read_aam(&numbers), read_aam(AAM));
        assert_eq!(read_aam(&AAM.replace("AAM_Destination_Id", "AAM_Destination_ID")), read_aam(AAM));
        assert_eq!(read_aam(&AAM.replace("Fri Jan 02 03:04:05", "Mon Jan 2 03:04:05")), read_aam(AAM));
        let users = serde_json::from_str::<Value>(AAM).unwrap()["Users"].clone();
        let bare = json!({"Users": [{"AAM_UUID": users[0]["AAM_UUID"], "Segments": users[0]["Segments"]}]});
        assert_eq!(read_aam(&bare.to_string()), read_aam(AAM));
        assert_eq!(read_aam(r#"{"Users":[]}"#), Message::default());
    }

    #[test]
    fn a_setting_says_which_field_carries_the_ecid() {
        let message = aam(AAM.as_bytes(), "DataPartner_UUID", NOW).unwrap();
        assert_eq!((message.entries.len(), message.rejected.len()), (0, 1));
        assert!(
            message.rejected[0].1.sentence.starts_with("DataPartner_UUID: ")
                && message.rejected[0].1.sentence.contains("ecid_field")
        );
        let swapped = AAM
            .replace("AAM_UUID", "x")
            .replace("DataPartner_UUID", "AAM_UUID")
            .replace("\"x\"", "\"DataPartner_UUID\"");
        assert_eq!(aam(swapped.as_bytes(), "DataPartner_UUID", NOW).unwrap(), read_aam(AAM));
        // The sample's 43 digits, in the field that we do not look at, are no matter of ours.
        let long = AAM.replace("\"123456\"", "\"1234567890123456789012345678901234567890123\"");
        assert_eq!(read_aam(&long), read_aam(AAM));
    }

    #[test]
    fn a_client_s_time_is_never_later_than_ours() {
        let message = aam(AAM.as_bytes(), "AAM_UUID", TIME - 5).unwrap();
        assert!(message.entries.iter().all(|entry| (entry.said.changed, entry.said.as_of) == (TIME - 5, TIME - 5)));
        let message = aep(AEP.as_bytes(), &ids(&[FIRST]), TIME - 5).unwrap();
        assert!(message.entries.iter().all(|entry| (entry.said.changed, entry.said.as_of) == (TIME - 5, TIME - 5)));
    }

    #[test]
    fn bad_entries_are_rejected_beside_good_ones() {
        let entry =
            |sid: Value, status: Value, time: Value| json!({"Segment_ID": sid, "Status": status, "DateTime": time});
        let time = || json!("Fri Jan 02 03:04:05 UTC 2026");
        let body = json!({"Users": [
            {"AAM_UUID": ONE, "Segments": [
                entry(json!("Jane's segment"), json!("1"), time()),
                entry(json!("7"), json!("2"), time()),
                entry(json!("7"), json!(true), time()),
                entry(json!("7"), json!("1"), json!("2026-01-02T03:04:05Z")),
                entry(json!("7"), json!("1"), Value::Null),
                json!("jane"),
                entry(json!(7.5), json!(1), time()),
                entry(json!("7"), json!(1), time()),
            ]},
            {"AAM_UUID": 12_345_678_901_234_567_890u64, "Segments": []},
            {"Segments": []},
            {"AAM_UUID": TWO},
            "jane",
            {"AAM_UUID": TWO, "Segments": [entry(json!("8"), json!("0"), time())]},
        ]});
        let message = read_aam(&body.to_string());
        assert_eq!(
            told(&message),
            [("aam:7".into(), ONE.into(), TIME, TIME, true), ("aam:8".into(), TWO.into(), TIME, TIME, false)]
        );
        let fields: Vec<(u64, &str)> = message
            .rejected
            .iter()
            .map(|(place, reason)| (*place, reason.sentence.split(':').next().unwrap()))
            .collect();
        assert_eq!(
            fields,
            [
                (1, "Segment_ID"),
                (1, "Status"),
                (1, "Status"),
                (1, "DateTime"),
                (1, "DateTime"),
                (1, "Segment_ID"),
                (1, "Segment_ID"),
                (2, "AAM_UUID"),
                (3, "AAM_UUID"),
                (4, "Segments"),
                (5, "AAM_UUID"),
            ]
        );
        assert!(message.rejected.iter().all(|(_, reason)| !reason.sentence.to_lowercase().contains("jane")));
        assert!(message.rejected[0].1.sentence.contains("map segments by their id"));
    }

    #[test]
    fn bodies_that_cannot_be_understood_say_so_and_do_not_repeat_them() {
        for body in ["", "jane", "{}", "[]", r#"{"Users":"jane"}"#, "{\"jane\":", "\u{feff}{}"] {
            let why = aam(body.as_bytes(), "AAM_UUID", NOW).unwrap_err();
            assert!(!why.contains("jane"), "{why}");
        }
        for body in ["", "jane", "7", "\"jane\"", "[\"jane\"", "\u{ff}"] {
            let why = aep(body.as_bytes(), &BTreeSet::new(), NOW).unwrap_err();
            assert!(!why.contains("jane"), "{why}");
        }
        assert!(aam(&b"[".repeat(100_000), "AAM_UUID", NOW).is_err());
        assert!(aep(&b"\xff".repeat(10), &BTreeSet::new(), NOW).is_err());
    }

    #[test]
    fn experience_platform_s_sample_is_each_ecid_in_each_mapped_audience() {
        let message = aep(AEP.as_bytes(), &ids(&[FIRST, SECOND]), NOW).unwrap();
        let fact = |id: &str, ecid: &str, inside| (format!("aep:{id}"), ecid.to_owned(), TIME, NOW, inside);
        assert_eq!(
            told(&message),
            [fact(FIRST, ONE, false), fact(FIRST, TWO, false), fact(SECOND, ONE, true), fact(SECOND, TWO, true)]
        );
        assert_eq!((message.ignored, message.rejected.len()), (0, 0));
        let list = format!("[{AEP},{AEP}]");
        assert_eq!(aep(list.as_bytes(), &ids(&[FIRST, SECOND]), NOW).unwrap().entries.len(), 8);
    }

    #[test]
    fn audiences_that_are_not_mapped_are_counted_and_left_out() {
        let message = aep(AEP.as_bytes(), &ids(&[SECOND]), NOW).unwrap();
        assert_eq!((message.entries.len(), message.ignored), (2, 1));
        for mark in [r#""name":"Audience A","#, r#""mappingCreatedAt":1767323045000,"#] {
            let marked = AEP.replacen("{\"lastQ", &format!("{{{mark}\"lastQ"), 1);
            let message = aep(marked.as_bytes(), &BTreeSet::new(), NOW).unwrap();
            assert_eq!((message.entries.len(), message.ignored), (2, 1), "{marked}");
            assert!(message.entries.iter().all(|entry| entry.audience.uuid() == Some(FIRST)));
        }
        // Timestamps of the audience itself mark nothing, and ids of other platforms are not ours.
        let other = AEP.replace("{\"lastQ", "{\"createdAt\":1,\"lastQ").replace(SECOND, "12345");
        let message = aep(other.as_bytes(), &BTreeSet::new(), NOW).unwrap();
        assert_eq!((message.entries.len(), message.ignored, message.rejected.len()), (0, 2, 0));
    }

    #[test]
    fn namespaces_and_dates_come_in_several_spellings() {
        let mapped = ids(&[FIRST, SECOND]);
        let expected = aep(AEP.as_bytes(), &mapped, NOW).unwrap();
        for (from, to) in [
            ("\"ecid\"", "\"ECID\""),
            ("05Z", "05+0000"),
            ("03:04:05Z", "04:04:05+0100"),
            ("realized", "existing"),
            ("\"ups\"", "\"another\""),
            ("11111111-2222-3333-4444-555555555555", "11111111-2222-3333-4444-555555555555"),
        ] {
            assert_eq!(aep(AEP.replace(from, to).as_bytes(), &mapped, NOW).unwrap(), expected, "{to}");
        }
        let upper = AEP.replace(FIRST, "ABCDEFAB-2222-3333-4444-555555555555");
        let message = aep(upper.as_bytes(), &ids(&["abcdefab-2222-3333-4444-555555555555"]), NOW).unwrap();
        assert_eq!((message.entries.len(), message.ignored), (2, 1));
    }

    #[test]
    fn what_is_wrong_in_a_profile_does_not_touch_the_rest() {
        let mapped = ids(&[FIRST, SECOND]);
        let reasons = |body: &str| {
            let message = aep(body.as_bytes(), &mapped, NOW).unwrap();
            (message.entries.len(), message.rejected)
        };
        let (entries, rejected) = reasons(&AEP.replace("exited", "jane"));
        assert_eq!(entries, 2);
        assert_eq!(rejected, [(1, STREAM_MEMBERSHIP_STATUS.plain())]);
        let (entries, rejected) = reasons(&AEP.replacen("2026-01-02T03:04:05Z", "jane", 1));
        assert_eq!((entries, rejected.len()), (2, 1));
        assert!(rejected[0].1.sentence.starts_with("segmentMembership: lastQualificationTime: expected"));
        let (entries, rejected) = reasons(&AEP.replacen("\"lastQualificationTime\":\"2026-01-02T03:04:05Z\",", "", 1));
        assert_eq!((entries, rejected.len()), (2, 1));
        let (entries, rejected) = reasons(&AEP.replace(TWO, "1234"));
        assert_eq!((entries, rejected.len()), (2, 1));
        let (entries, rejected) = reasons(&AEP.replace(&format!("\"{ONE}\""), ONE));
        assert_eq!((entries, rejected.len()), (2, 1));
        assert!(rejected[0].1.sentence.contains("as a string"));
        let (entries, rejected) = reasons(&format!("[{},7,{AEP}]", AEP.replace("\"ecid\"", "\"email\"")));
        assert_eq!(entries, 4);
        assert_eq!(rejected.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1, 2]);
        // An attribute alone has changed.
        let none = json!({"identityMap": {"ecid": [{"id": ONE}]}}).to_string();
        assert_eq!(reasons(&none), (0, vec![]));
    }

    #[test]
    fn a_message_cannot_multiply_without_bound() {
        let ecids: Vec<Value> = (0..1000).map(|number| json!({"id": format!("{number:038}")})).collect();
        let entries: serde_json::Map<String, Value> = (0..1000)
            .map(|number| {
                let entry = json!({"status": "realized", "lastQualificationTime": "2026-01-02T03:04:05Z", "name": "x"});
                (format!("11111111-2222-3333-4444-{number:012}"), entry)
            })
            .collect();
        let profile = json!({"identityMap": {"ecid": ecids}, "segmentMembership": {"ups": entries}});
        let message = aep(profile.to_string().as_bytes(), &BTreeSet::new(), NOW).unwrap();
        assert_eq!((message.entries.len(), message.rejected), (0, vec![(1, STREAM_TOO_MANY.plain())]));
    }

    /// An object's text with its members in this order.
    fn object(members: &[(&str, String)], order: &[usize]) -> String {
        let members: Vec<String> = order.iter().map(|&at| format!("\"{}\":{}", members[at].0, members[at].1)).collect();
        format!("{{{}}}", members.join(","))
    }

    proptest! {
        #[test]
        fn the_order_of_members_does_not_matter(
            outer in Just(vec![0, 1, 2]).prop_shuffle(),
            inner in Just(vec![0, 1, 2]).prop_shuffle(),
        ) {
            let segment = object(&[
                ("Segment_ID", "\"101\"".into()),
                ("Status", "1".into()),
                ("DateTime", "\"Fri Jan 02 03:04:05 UTC 2026\"".into()),
            ], &inner);
            let user = object(&[
                ("AAM_UUID", format!("\"{ONE}\"")),
                ("Segments", format!("[{segment}]")),
                ("AAM_Regions", "[9]".into()),
            ], &outer);
            let body = object(&[("Users", format!("[{user}]")), ("User_count", "1".into()), ("Client_ID", "2".into())], &inner);
            prop_assert_eq!(told(&read_aam(&body)), [("aam:101".to_owned(), ONE.to_owned(), TIME, TIME, true)]);

            let entry = object(&[
                ("status", "\"exited\"".into()),
                ("lastQualificationTime", "\"2026-01-02T03:04:05+0000\"".into()),
                ("name", "\"x\"".into()),
            ], &inner);
            let body = object(&[
                ("identityMap", format!("{{\"ECID\":[{{\"id\":\"{ONE}\"}}]}}")),
                ("segmentMembership", format!("{{\"ups\":{{\"{FIRST}\":{entry}}}}}")),
                ("person", "{}".into()),
            ], &outer);
            let message = aep(body.as_bytes(), &BTreeSet::new(), NOW).unwrap();
            prop_assert_eq!(told(&message), [(format!("aep:{FIRST}"), ONE.to_owned(), TIME, NOW, false)]);
        }
    }
}

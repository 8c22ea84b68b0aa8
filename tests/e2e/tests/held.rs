//! A mass change that is held, what the event bus hears of it, and a sync that only reports, with the real functions.

use serde_json::{Value, json};

use crate::run::{Data, eventually, get, post};
use crate::streams::{ANNA, BEN, CARLA, CARLAS, KEY, Stack, VIP, signature, user};

impl Stack {
    /// A POST that must succeed.
    async fn order(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = post(&format!("{}{path}", self.api), body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// Carla enters or leaves the audience.
    async fn carla(&self, status: u8, second: u8) {
        let body = user(CARLAS, status, second);
        assert_eq!(self.signed(&signature(KEY, &body), &body).await, 200);
    }

    /// Waits for an event of this kind of which that is true; its detail.
    async fn event(&self, kind: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let look = || async {
            let all = self.data.text(".state/stack/events.jsonl");
            let events = all.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
            let mut mine = events.filter(|event| event["detail-type"] == kind && event["source"] == "audience-sync");
            mine.find_map(|event| is_it(&event["detail"]).then(|| event["detail"].clone()))
        };
        eventually(kind, look).await
    }

    /// Waits until the newest size of a sync is of so many people; the sizes.
    async fn sizes(&self, sync: &str, people: u64) -> Vec<Value> {
        let look = || async {
            let history = get(&format!("{}/syncs/{sync}/history", self.api)).await;
            let rows = history.as_array().expect("rows").clone();
            rows.last().is_some_and(|row| row["people"] == people).then_some(rows)
        };
        eventually("the size", look).await
    }
}

#[tokio::test]
async fn a_mass_change_is_held_told_and_applied_and_a_report_only_sync_keeps_its_sizes() {
    let stack = Stack::begin(Data::tiny()).await;
    let syncs = get(&format!("{}/syncs", stack.api)).await;
    let syncs = syncs.as_array().expect("syncs");
    let vip = syncs.iter().find(|sync| sync["list"]["id"] == VIP).expect("the sync")["id"].as_str().expect("an id");
    stack.event("Run finished", |run| run["list_id"] == VIP).await;

    let wanted = json!({"audience_id": "aam:101", "list": {"name": "Only a report"}, "start": "report_only"});
    let reports = stack.order("/syncs", &wanted).await;
    let reports = reports["id"].as_str().expect("an id");
    stack.sizes(reports, 1).await;

    stack.declare("web", json!({"kind": "aam-stream", "ecid_field": "DataPartner_UUID"})).await;
    let enter = user(CARLAS, 1, 1);
    // Perhaps its process has read the feeds just before this one was declared.
    eventually("the feed", async || (stack.signed(&signature(KEY, &enter), &enter).await == 200).then_some(())).await;
    stack.until("Carla in the list", VIP, &[ANNA, BEN, CARLA]).await;
    stack.order(&format!("/syncs/{reports}/run"), &json!({})).await;
    for size in stack.sizes(reports, 2).await {
        assert_eq!((&size["in_list"], &size["members"]), (&Value::Null, &Value::Null), "it writes no list: {size}");
    }

    // From now on whoever leaves is a mass of people.
    let guard = json!({"removals_percent": 0, "removals_at_least": 1, "additions_at_least": 5_000});
    stack.order(&format!("/syncs/{vip}/guard"), &guard).await;
    stack.carla(0, 2).await;
    let look = || async {
        let held = get(&format!("{}/syncs/{vip}", stack.api)).await["held"].clone();
        held.is_object().then_some(held)
    };
    let held = eventually("a change that is held", look).await;
    assert_eq!((&held["removals"], &held["additions"]), (&json!(1), &json!(0)), "{held}");
    let list = VIP.to_string();
    let of_it = |detail: &Value| detail["kind"] == "change_held" && detail["subject"] == list.as_str();
    let began = stack.event("Incident began", of_it).await;
    assert_eq!(began["values"]["held"], held["id"], "{began}");
    let alerts = get(&format!("{}/alerts", stack.api)).await;
    let incidents = alerts["incidents"].as_array().expect("incidents");
    assert!(incidents.iter().any(|one| of_it(one) && one["ended_at"].is_null()), "{alerts}");
    // Nobody has left meanwhile.
    stack.until("Carla still in the list", VIP, &[ANNA, BEN, CARLA]).await;

    stack.order(&format!("/syncs/{vip}/held"), &json!({"held": held["id"], "decision": "apply"})).await;
    stack.until("Carla out of the list", VIP, &[ANNA, BEN]).await;
    stack.event("Incident ended", of_it).await;
    assert_eq!(get(&format!("{}/syncs/{vip}", stack.api)).await["held"], Value::Null);
    stack.running.interrupt().await;
    stack.data.assert_logs_tell_nothing();
}

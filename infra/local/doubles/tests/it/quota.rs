//! What other tools take of the shared limits, and the days that they are counted by.

use doubles::marketo::{QuotaDay, Settings};
use serde_json::json;

use crate::rig::{Rig, START, ms};

const DAY: u64 = 86_400_000;

#[test]
fn usage_and_errors_tell_ours_and_theirs() {
    let mut rig = Rig::new(Settings { daily_quota: 4, ..Settings::default() });
    assert!(rig.core.other_call(rig.now, 0) && rig.core.other_call(rig.now, 0));
    assert_eq!(rig.probe(), "");
    let usage = rig.get("/rest/v1/stats/usage.json")["result"].clone();
    let users = json!([{"userId": "api@example.com", "count": 1}, {"userId": "other@example.com", "count": 2}]);
    assert_eq!(usage, json!([{"date": "2026-11-19", "total": 3, "users": users}]));
    assert_eq!(rig.core.used_today(), 4);
    assert_eq!(rig.probe(), "607");
    assert!(!rig.core.other_call(rig.now, 0), "the quota is everybody's");
    assert_eq!(rig.core.used_today(), 4, "607 does not count");
    assert_eq!(rig.core.calls().len(), 4, "the log is ours: the token, a call, usage, 607");
    rig.now += DAY;
    rig.sign_in();
    assert_eq!(
        rig.get("/rest/v1/stats/errors.json")["result"],
        json!([{"date": "2026-11-20", "total": 0, "errors": []}])
    );
    let errors = rig.get("/rest/v1/stats/errors/last7days.json")["result"].clone();
    let yesterday = json!({"date": "2026-11-19", "total": 2, "errors": [{"errorCode": "607", "count": 2}]});
    assert_eq!(errors[1], yesterday);
    let usage = rig.get("/rest/v1/stats/usage/last7days.json")["result"].clone();
    assert_eq!((usage[0]["total"].as_u64(), usage[1]["total"].as_u64()), (Some(2), Some(4)));
    rig.now += 6 * DAY;
    rig.sign_in();
    let usage = rig.get("/rest/v1/stats/usage/last7days.json")["result"].clone();
    let dates: Vec<_> = usage.as_array().expect("rows").iter().map(|day| day["date"].clone()).collect();
    assert_eq!(dates, ["2026-11-26", "2026-11-20"]);
}

#[test]
fn other_tools_take_places_in_the_window_and_in_flight() {
    let mut rig = Rig::plain();
    for _ in 0..10 {
        assert!(rig.core.other_call(rig.now, 450));
    }
    assert!(!rig.core.other_call(rig.now, 450), "615 for the eleventh");
    assert_eq!(rig.probe(), "615");
    rig.now += 450;
    assert!(rig.core.other_call(rig.now, 1_000));
    assert_eq!(rig.probe(), "");
    assert_eq!(rig.core.calls().last().map(|call| call.in_flight), Some(2), "theirs is in flight beside ours");
    for _ in 0..88 {
        assert!(rig.core.other_call(rig.now, 0));
    }
    assert!(!rig.core.other_call(rig.now, 0), "606 for the hundred and first");
    assert_eq!(rig.probe(), "606");
    rig.now = START + 20_000;
    assert_eq!(rig.probe(), "", "the first ten have left the window");
    let errors = rig.get("/rest/v1/stats/errors.json")["result"][0]["errors"].clone();
    assert_eq!(errors, json!([{"errorCode": "606", "count": 2}, {"errorCode": "615", "count": 2}]));
}

#[test]
fn without_limits_other_tools_are_never_refused_and_still_counted() {
    let mut rig = Rig::new(Settings { limits: false, daily_quota: 1, ..Settings::default() });
    assert!((0..200).all(|_| rig.core.other_call(START, 0)));
    rig.now += 1;
    assert_eq!((rig.probe().as_str(), rig.core.used_today()), ("", 201));
}

/// The quota is used up just before `midnight` and whole at it.
fn midnight(kind: QuotaDay, midnight: &str) {
    let settings = Settings { daily_quota: 1, quota_day: kind, ..Settings::default() };
    let midnight = ms(midnight);
    let before = jiff::Timestamp::from_millisecond(i64::try_from(midnight - 1).expect("small")).expect("a time");
    let mut rig = Rig::at(settings, &before.to_string());
    assert_eq!((rig.probe().as_str(), rig.probe().as_str()), ("", "607"));
    rig.now = midnight;
    assert_eq!((rig.probe().as_str(), rig.probe().as_str()), ("", "607"), "{kind:?}: a new day at {midnight}");
}

#[test]
fn the_quotas_day_follows_daylight_saving_in_chicago() {
    // In winter, before and after the day of 23 hours, and in summer.
    for at in ["2026-01-15T06:00:00Z", "2026-03-08T06:00:00Z", "2026-03-09T05:00:00Z", "2026-07-01T05:00:00Z"] {
        midnight(QuotaDay::Central, at);
    }
    // Before and after the day of 25 hours.
    for at in ["2026-11-01T05:00:00Z", "2026-11-02T06:00:00Z"] {
        midnight(QuotaDay::Central, at);
    }
}

#[test]
fn the_quotas_day_may_be_fixed_at_six_hours() {
    for at in ["2026-03-08T06:00:00Z", "2026-03-09T06:00:00Z", "2026-07-01T06:00:00Z", "2026-11-02T06:00:00Z"] {
        midnight(QuotaDay::FixedCst, at);
    }
    let settings = Settings { daily_quota: 1, quota_day: QuotaDay::FixedCst, ..Settings::default() };
    let mut rig = Rig::at(settings, "2026-07-01T04:59:59Z");
    assert_eq!(rig.probe(), "");
    rig.now += 60_000;
    assert_eq!(rig.probe(), "607", "midnight in Chicago has passed, and the fixed one has not");
}

//! Whom to tell that something is wrong.

use serde_json::json;

use crate::support::World;

#[test]
fn a_webhook_is_kept_and_what_is_secret_in_it_is_not_shown() {
    let world = World::new();
    let (status, empty) = world.get("/alerts");
    assert_eq!((status, &empty), (200, &json!({"webhooks": {}, "deviation_percent": 20, "incidents": []})));

    let url = "https://hooks.slack.test/services/T0/B0/canary";
    let hook = json!({"url": url, "form": "slack", "headers": {"Authorization": "canary"}});
    let (status, shown) = world.put("/alerts", &json!({"webhooks": {"team": hook}, "deviation_percent": 35}));
    let expected = json!({
        "webhooks": {"team": {"form": "slack", "host": "hooks.slack.test", "headers": ["authorization"]}},
        "deviation_percent": 35,
    });
    assert_eq!((status, &shown), (200, &expected));
    assert!(!world.get("/alerts").1.to_string().contains("canary"));

    // What is not said again stays, for it cannot be read back.
    let (status, shown) = world.put("/alerts", &json!({"webhooks": {"team": {"form": "json"}}}));
    assert_eq!(status, 200);
    assert_eq!(
        shown["webhooks"]["team"],
        json!({"form": "json", "host": "hooks.slack.test", "headers": ["authorization"]})
    );
    let (_, none) = world.put("/alerts", &json!({}));
    assert_eq!(none["webhooks"], json!({}));
}

#[test]
fn each_wrong_setting_is_named() {
    let world = World::new();
    for (body, pointer) in [
        (json!({"webhooks": []}), "/webhooks"),
        (json!({"webhooks": {"bus": {"url": "https://a.test"}}}), "/webhooks"),
        (json!({"webhooks": {"a b": {"url": "https://a.test"}}}), "/webhooks"),
        (json!({"webhooks": {"a": "https://a.test"}}), "/webhooks/a"),
        (json!({"webhooks": {"a": {}}}), "/webhooks/a/url"),
        (json!({"webhooks": {"a": {"url": "http://a.test/"}}}), "/webhooks/a/url"),
        (json!({"webhooks": {"a": {"url": "https://user@a.test/"}}}), "/webhooks/a/url"),
        (json!({"webhooks": {"a": {"url": "https://a.test", "form": "fax"}}}), "/webhooks/a/form"),
        (json!({"webhooks": {"a": {"url": "https://a.test", "headers": {"host": "b"}}}}), "/webhooks/a/headers"),
        (json!({"webhooks": {"a": {"url": "https://a.test", "headers": {"x": "a\nb"}}}}), "/webhooks/a/headers"),
        (json!({"webhooks": {"a": {"url": "https://a.test", "colour": "red"}}}), "/webhooks/a/colour"),
        (json!({"deviation_percent": 0}), "/deviation_percent"),
        (json!({"mail": "a"}), "/mail"),
    ] {
        let (status, problem) = world.put("/alerts", &body);
        assert_eq!((status, &problem["errors"][0]["pointer"]), (400, &json!(pointer)), "{body}: {problem}");
    }
    assert_eq!(world.get("/alerts").1["webhooks"], json!({}));
}

//! The world's feeds: how they are declared, and how Adobe's double streams to them.

use doubles::adobe::Adobe;
use serde_json::{Map, Value, json};
use world::World;
use world::types::Streamed;

/// What the senders of streams show. It guards nothing.
const KEY: &str = "sample-secret-key";
const OLD_KEY: &str = "sample-secret-old-key";
const TOKEN: &str = "sample-secret-token";

/// Bodies of `PUT /feeds/{id}`, by id.
pub(crate) fn declared(world: &World) -> Vec<(String, Value)> {
    if world.feeds.is_empty() {
        return vec![("default".to_owned(), json!({"snapshots": true, "completeness": "single-file"}))];
    }
    world.feeds.iter().map(|(id, body)| (id.clone(), body.clone())).collect()
}

/// The feeds that are streams, and whether one comes from Experience Platform.
fn streamed(world: &World) -> impl Iterator<Item = (&str, &Value, bool)> {
    world.feeds.iter().filter_map(|(id, body)| match body["kind"].as_str() {
        Some("aam-stream") => Some((id.as_str(), body, false)),
        Some("aep-stream") => Some((id.as_str(), body, true)),
        _ => None,
    })
}

/// The ids of the feeds that are streams: Adobe's double knows them as destinations.
pub(crate) fn destinations(world: &World) -> Vec<String> {
    streamed(world).map(|(id, ..)| id.to_owned()).collect()
}

/// The secret of all streams, those of the world and two for whoever plays, as the receiver reads it.
pub(crate) fn secrets(world: &World, client_id: &str, client_secret: &str) -> String {
    let clients = json!([{"client_id": client_id, "client_secret": client_secret}]);
    let keys = json!({"keys": [KEY, OLD_KEY]});
    let tokens = json!({"tokens": [TOKEN], "clients": clients});
    let mut feeds = Map::from_iter([("web".to_owned(), keys.clone()), ("live".to_owned(), tokens.clone())]);
    feeds.extend(
        streamed(world).map(|(id, _, platform)| (id.to_owned(), (if platform { &tokens } else { &keys }).clone())),
    );
    json!({"feeds": feeds}).to_string()
}

/// Bodies of `POST /_control/streams` of Adobe's double, for a receiver at `url`.
pub(crate) fn streams(world: &World, url: &str) -> Vec<Value> {
    let body = |(id, feed, platform): (&str, &Value, bool)| {
        let stream = if platform {
            json!({"platform": {"destination": id, "names": true, "token": TOKEN}})
        } else {
            let key = if feed["ecid_field"] == "AAM_UUID" { "ecid" } else { "uuid" };
            let header = feed["signature_header"].as_str().unwrap_or("x-signature");
            let algorithm = feed["signature"].as_str().unwrap_or("sha256");
            let signature = json!({"header": header, "key": KEY, "algorithm": algorithm});
            json!({"audience_manager": {"destination": id, "key": key, "signature": signature}})
        };
        json!({"url": format!("{url}/feeds/{id}/events"), "stream": stream})
    };
    streamed(world).map(body).collect()
}

/// An audience changes in Adobe's world. It is made the opposite first: a world's files may have said what the double
/// does not know, and what is no change is not streamed. `false`: there is no such audience.
pub(crate) fn happen(adobe: &mut Adobe, now_ms: u64, said: &Streamed) -> bool {
    let Streamed { audience, ecid, member } = said;
    match audience.split_once(':') {
        Some(("aam", sid)) => sid.parse().is_ok_and(|sid| {
            [!*member, *member].into_iter().all(|member| adobe.set_member_at(now_ms, sid, ecid, member))
        }),
        Some((_, id)) => {
            let profile = adobe.profiles_of(ecid).first().copied().unwrap_or_else(|| adobe.new_profile());
            adobe.add_ecid(now_ms, profile, ecid)
                && [!*member, *member].into_iter().all(|member| adobe.set_profile(now_ms, profile, id, member))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(feeds: Value) -> World {
        let mut world = world::sample::sized(1, 200, 100, 32).world;
        world.feeds = feeds.as_object().expect("an object").clone().into_iter().collect();
        world
    }

    #[test]
    fn without_feeds_there_is_the_one_of_full_files() {
        let world = world(json!({}));
        assert_eq!(
            declared(&world),
            [("default".to_owned(), json!({"snapshots": true, "completeness": "single-file"}))]
        );
        assert!(streams(&world, "http://127.0.0.1:1").is_empty() && destinations(&world).is_empty());
    }

    #[test]
    fn who_leaves_is_streamed_though_the_double_never_saw_them_come() {
        use doubles::adobe::{RealTime, Settings, Stream};
        let world = world(json!({}));
        let mut adobe = Adobe::new(Settings::default(), world.library, 1);
        adobe.skip(&RealTime::default().destination);
        let mut said = Streamed { audience: "aam:101".to_owned(), ecid: format!("{:038}", 1), member: false };
        assert!(happen(&mut adobe, 2, &said));
        let messages = adobe.events(3, &Stream::AudienceManager(RealTime::default()));
        let body: Value = serde_json::from_slice(&messages[0].body).expect("JSON");
        assert_eq!(body["Users"][0]["Segments"][0]["Status"], "0");
        said.audience = "aam:999".to_owned();
        assert!(!happen(&mut adobe, 4, &said));
    }

    #[test]
    fn a_stream_shows_what_its_receiver_knows() {
        let feeds = json!({
            "files": {"kind": "aam-files"},
            "now": {"kind": "aam-stream", "ecid_field": "DataPartner_UUID", "signature": "sha1"},
            "people": {"kind": "aep-stream"},
        });
        let world = world(feeds);
        assert_eq!(declared(&world).len(), 3);
        assert_eq!(destinations(&world), ["now", "people"]);
        let known: Value = serde_json::from_str(&secrets(&world, "id", "secret")).expect("JSON");
        let streams = streams(&world, "http://127.0.0.1:1");
        assert_eq!(streams[0]["url"], "http://127.0.0.1:1/feeds/now/events");
        let first = &streams[0]["stream"]["audience_manager"];
        assert_eq!((&first["key"], &first["signature"]["algorithm"]), (&json!("uuid"), &json!("sha1")));
        assert_eq!(first["signature"]["key"], known["feeds"]["now"]["keys"][0]);
        assert_eq!(streams[1]["stream"]["platform"]["token"], known["feeds"]["people"]["tokens"][0]);
    }
}

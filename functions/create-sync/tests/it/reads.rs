//! What answers that show many syncs read of the tables.

use std::sync::atomic::Ordering;

use domain::AudienceId;
use futures::executor::block_on;
use ports::Table;
use serde_json::json;
use state::audience::{BaseRef, Head, head_key};
use state::lists::{OpenList, head_key as list_head_key};
use state::syncs::sync_key;

use crate::support::{START, World, munchkin};

/// Reads that an answer costs whatever it shows, at most: subscriptions, syncs, feeds, the budget, look-ups and matches.
const COMMON: u64 = 8;
/// Reads of a sync that is in step: its audience and that one's doorbell, who is wanted, its list and that one's doorbell,
/// its report.
const EACH: u64 = 6;

/// A world with so many syncs, each of an audience of its own, which two feeds name, onto a list of its own.
fn world(syncs: u64) -> World {
    let world = World::new();
    let (status, made) = world.post("/syncs", &json!({"audience_id": "aam:101", "list": {"id": 1001}}));
    assert_eq!(status, 201, "{made}");
    assert_eq!(world.put("/feeds/live", &json!({"kind": "aam-stream", "ecid_field": "AAM_UUID"})).0, 200);
    assert_eq!(world.put("/feeds/daily", &json!({"snapshots": false})).0, 200);
    let one = world.row(made["id"].as_str().expect("an id")).expect("a sync");
    for n in 1..syncs {
        let (sid, list) = (1_000 + n, 2_000 + n);
        let mut sync = one.clone();
        (sync.id, sync.audience, sync.list.id) = (format!("{n:016x}"), AudienceId::aam(sid), Some(list));
        world.store(Table::Syncs, sync_key(&munchkin(), &sync.id), &sync);
        let mut head = Head::new(sync.audience.clone(), START);
        head.base = Some(BaseRef { key: "base".into(), count: 7, as_of: START });
        head.feeds.extend([("live".into(), START), ("daily".into(), START)]);
        world.store(Table::Audiences, head_key(&munchkin(), &sync.audience), &head);
        world.want(sid, &[1, 2], 1);
        let open = block_on(OpenList::open(&world.deps, &munchkin(), list)).expect("a head");
        world.store(Table::Lists, list_head_key(&munchkin(), list), &open.head);
        world.report(&sync.id);
    }
    world.outside.page.store(1_000, Ordering::Relaxed);
    world
}

fn reads(world: &World, path: &str) -> u64 {
    let before = world.outside.table_reads.load(Ordering::Relaxed);
    assert_eq!(world.get(path).0, 200);
    world.outside.table_reads.load(Ordering::Relaxed) - before
}

#[test]
fn each_further_sync_of_an_answer_costs_only_what_is_its_own() {
    for syncs in [2, 10, 50] {
        let world = world(syncs);
        let read = reads(&world, "/syncs");
        assert!(read <= COMMON + EACH * syncs, "{read} for {syncs}");
        // The runner of the local stack asks for it again and again.
        let read = reads(&world, "/status");
        assert!(read <= 2 * COMMON + EACH * syncs, "{read} for {syncs}");
    }
}

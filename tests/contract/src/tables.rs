//! The contract of [`Tables`].

use ports::{Due, Expect, Item, Key, Read, Table, Tables};
use serde_json::{Value, json};

/// Runs the whole contract of [`Tables`]. The store needs all of [`Table::ALL`].
///
/// # Panics
/// With the sentence that does not hold.
pub async fn tables(store: &dyn Tables) {
    reads_what_was_written(store).await;
    documents_survive(store).await;
    writes_depend_on_their_condition(store).await;
    deletes_depend_on_their_condition(store).await;
    one_of_two_writers_wins(store).await;
    tables_and_keys_are_apart(store).await;
    batches_have_any_size(store).await;
    partitions_are_ordered_by_bytes(store).await;
    queries_page(store).await;
    due_items_come_by_time(store).await;
}

fn item(pk: &str, sk: &str, rev: u64, doc: Value) -> Item {
    Item { key: Key::new(pk, sk), rev, doc, due: None, expires_at: None }
}

async fn put(store: &dyn Tables, table: Table, item: Item, expect: Expect) -> bool {
    store.put(table, item, expect).await.expect("put")
}

async fn get(store: &dyn Tables, table: Table, pk: &str, sk: &str) -> Option<Item> {
    store.get(table, &Key::new(pk, sk), Read::Consistent).await.expect("get")
}

async fn reads_what_was_written(store: &dyn Tables) {
    let pk = "contract/read";
    assert_eq!(get(store, Table::Syncs, pk, "a").await, None, "what is not there is None");

    let full = Item {
        due: Some(Due { pk: "contract/read-due".to_owned(), at: 1_700_000_000_123 }),
        // Far ahead, so that no store's broom takes it.
        expires_at: Some(9_999_999_999),
        ..item(pk, "a", 1, json!({"v": 1}))
    };
    assert!(put(store, Table::Syncs, full.clone(), Expect::Anything).await);
    assert_eq!(get(store, Table::Syncs, pk, "a").await, Some(full), "every part of an item is kept");

    let bare = item(pk, "a", 2, json!({"w": 2}));
    assert!(put(store, Table::Syncs, bare.clone(), Expect::Anything).await);
    assert_eq!(get(store, Table::Syncs, pk, "a").await, Some(bare), "a put replaces the item whole");

    // The largest numbers that the type allows.
    let large = item(pk, "large", u64::MAX, json!({}));
    assert!(put(store, Table::Syncs, large.clone(), Expect::Absent).await);
    assert_eq!(get(store, Table::Syncs, pk, "large").await, Some(large));
}

async fn documents_survive(store: &dyn Tables) {
    let doc = json!({
        "null": null,
        "flags": [true, false],
        "naturals": [0, 1, u64::MAX],
        "integers": [-1, i64::MIN],
        "floats": [0.1, -2.5, 1.0, 1e-7, 1e300, 0.0],
        "texts": ["", "ä\u{1F600}\u{0}", "1", "{\"a\":1}"],
        "empty": [{}, []],
        "nested": {"a": {"b": {"c": [[{"-": 1}]]}}},
        "ecid": "01234567890123456789012345678901234567",
    });
    let written = item("contract/doc", "a", 1, doc);
    assert!(put(store, Table::Identity, written.clone(), Expect::Absent).await);
    let read = get(store, Table::Identity, "contract/doc", "a").await.expect("the item");
    assert_eq!(read.doc, written.doc, "a document comes back as it was, numbers with their kind");
    let batch = store
        .batch_get(Table::Identity, std::slice::from_ref(&written.key), Read::Consistent)
        .await
        .expect("batch_get");
    assert_eq!(batch, std::slice::from_ref(&written), "a batch reads the same");
    store.put_all(Table::Identity, vec![Item { rev: 2, ..written.clone() }]).await.expect("put_all");
    let again = get(store, Table::Identity, "contract/doc", "a").await.expect("the item");
    assert_eq!(again, Item { rev: 2, ..written }, "a batch writes the same");
}

async fn writes_depend_on_their_condition(store: &dyn Tables) {
    let (table, pk) = (Table::Lists, "contract/put");
    let make = |rev: u64| item(pk, "a", rev, json!({"rev": rev}));
    let stored = async || get(store, table, pk, "a").await.map(|item| item.rev);

    assert!(!put(store, table, make(9), Expect::Rev(1)).await, "Rev does not hold where nothing is");
    assert_eq!(stored().await, None, "a write that was refused leaves nothing");
    assert!(put(store, table, make(1), Expect::Absent).await, "Absent holds where nothing is");
    assert!(!put(store, table, make(9), Expect::Absent).await, "Absent does not hold where something is");
    assert_eq!(stored().await, Some(1), "a write that was refused changes nothing");
    assert!(put(store, table, make(2), Expect::Rev(1)).await, "Rev holds at the same rev");
    assert!(!put(store, table, make(9), Expect::Rev(1)).await, "Rev does not hold at an older rev");
    assert!(!put(store, table, make(9), Expect::Rev(3)).await, "Rev does not hold at a newer rev");
    assert_eq!(stored().await, Some(2));
    assert!(put(store, table, make(7), Expect::Anything).await, "Anything always holds");
    assert!(put(store, table, make(8), Expect::Rev(7)).await, "the rev is the one that the caller set");
    assert_eq!(stored().await, Some(8));
}

async fn deletes_depend_on_their_condition(store: &dyn Tables) {
    let (table, pk) = (Table::Lists, "contract/delete");
    let key = Key::new(pk, "a");
    let delete = async |expect| store.delete(table, &key, expect).await.expect("delete");

    assert!(delete(Expect::Anything).await, "deleting what is not there with Anything is true");
    assert!(delete(Expect::Absent).await, "Absent holds where nothing is");
    assert!(!delete(Expect::Rev(1)).await, "Rev does not hold where nothing is");
    assert!(put(store, table, item(pk, "a", 1, json!({})), Expect::Absent).await);
    assert!(!delete(Expect::Rev(2)).await, "Rev does not hold at another rev");
    assert!(!delete(Expect::Absent).await, "Absent does not hold where something is");
    assert!(get(store, table, pk, "a").await.is_some(), "a delete that was refused changes nothing");
    assert!(delete(Expect::Rev(1)).await, "Rev holds at the same rev");
    assert_eq!(get(store, table, pk, "a").await, None);
    assert!(put(store, table, item(pk, "a", 1, json!({})), Expect::Absent).await, "a deleted key is absent");
    assert!(delete(Expect::Anything).await);
    assert_eq!(get(store, table, pk, "a").await, None);
}

async fn one_of_two_writers_wins(store: &dyn Tables) {
    let (table, pk) = (Table::Doorbells, "contract/race");
    assert!(put(store, table, item(pk, "a", 1, json!({})), Expect::Absent).await);
    let (one, two) = (item(pk, "a", 2, json!({"by": 1})), item(pk, "a", 2, json!({"by": 2})));
    let won = [put(store, table, one, Expect::Rev(1)).await, put(store, table, two, Expect::Rev(1)).await];
    assert_eq!(won, [true, false], "of two writes on one rev the first wins");
    let read = get(store, table, pk, "a").await.expect("the item");
    assert_eq!(read.doc, json!({"by": 1}));
}

async fn tables_and_keys_are_apart(store: &dyn Tables) {
    for (number, table) in Table::ALL.into_iter().enumerate() {
        assert!(put(store, table, item("contract/apart", "a", 1, json!({"n": number})), Expect::Absent).await);
    }
    for (number, table) in Table::ALL.into_iter().enumerate() {
        let read = get(store, table, "contract/apart", "a").await.expect("the item");
        assert_eq!(read.doc, json!({"n": number}), "each table holds its own");
    }
    // Parts of a key are not glued together.
    assert!(put(store, Table::Syncs, item("contract/ab", "c", 1, json!({})), Expect::Absent).await);
    assert!(put(store, Table::Syncs, item("contract/a", "bc", 1, json!({})), Expect::Absent).await);
}

async fn batches_have_any_size(store: &dyn Tables) {
    let (table, pk) = (Table::Audiences, "contract/batch");
    store.put_all(table, Vec::new()).await.expect("an empty batch is none");
    assert_eq!(store.batch_get(table, &[], Read::Consistent).await.expect("batch_get"), []);

    // More than one BatchWriteItem (25) and one BatchGetItem (100), and no multiple of either.
    const COUNT: usize = 333;
    let items: Vec<Item> = (0..COUNT).map(|n| item(pk, &format!("{n:04}"), 1, json!({"n": n}))).collect();
    store.put_all(table, items.clone()).await.expect("put_all");

    let mut keys: Vec<Key> = items.iter().map(|item| item.key.clone()).collect();
    keys.extend((0..10).map(|n| Key::new(pk, format!("missing-{n}"))));
    keys.extend(items.iter().take(120).map(|item| item.key.clone()));
    for read in [Read::Consistent, Read::Eventual] {
        let mut found = store.batch_get(table, &keys, read).await.expect("batch_get");
        found.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(found.len(), COUNT, "those that exist, each once though its key was given twice");
        assert!(found == items, "a batch finds what a batch wrote");
    }

    let twice = vec![item(pk, "0000", 2, json!({"n": "old"})), item(pk, "0000", 3, json!({"n": "new"}))];
    store.put_all(table, twice).await.expect("put_all with one key twice");
    let read = get(store, table, pk, "0000").await.expect("the item");
    assert_eq!(
        (read.rev, read.doc),
        (3, json!({"n": "new"})),
        "a batch writes without a condition, the later item stands"
    );
}

async fn partitions_are_ordered_by_bytes(store: &dyn Tables) {
    let (table, pk) = (Table::Syncs, "contract/order");
    // In the order of their UTF-8 bytes, which is not that of UTF-16 (U+FFFD before U+1F600) nor of any language.
    let order = ["!", "0", "10", "2", "A", "B", "Z", "a", "aa", "b", "~", "é", "\u{FFFD}", "\u{1F600}"];
    let items = order.iter().rev().map(|sk| item(pk, sk, 1, json!({}))).collect();
    store.put_all(table, items).await.expect("put_all");
    store.put_all(table, vec![item("contract/order2", "A", 1, json!({}))]).await.expect("put_all");
    let page = store.query(table, pk, "", None, 100, Read::Consistent).await.expect("query");
    let keys: Vec<&str> = page.items.iter().map(|item| item.key.sk.as_str()).collect();
    assert_eq!(keys, order, "one partition, ordered by the sort key's bytes");
    assert!(page.items.iter().all(|item| item.key.pk == pk));
}

/// All of a query's keys, page by page.
async fn pages(store: &dyn Tables, pk: &str, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let mut keys = Vec::new();
    let mut after = after.map(str::to_owned);
    loop {
        let page =
            store.query(Table::Identity, pk, prefix, after.as_deref(), limit, Read::Consistent).await.expect("query");
        assert!(page.items.len() <= limit, "a page holds at most its limit");
        keys.extend(page.items.into_iter().map(|item| item.key.sk));
        let Some(next) = page.next else { return keys };
        assert!(after.as_ref().is_none_or(|after| *after < next), "each page goes on where the last one ended");
        after = Some(next);
    }
}

async fn queries_page(store: &dyn Tables) {
    let pk = "contract/pages";
    let keys: Vec<String> = ["a#", "b", "c#"]
        .into_iter()
        .chain(["z"])
        .map(str::to_owned)
        .chain((0..30).map(|n| format!("b#{n:02}")))
        .collect();
    store.put_all(Table::Identity, keys.iter().map(|sk| item(pk, sk, 1, json!({}))).collect()).await.expect("put_all");
    let all: Vec<String> = {
        let mut keys = keys;
        keys.sort_unstable();
        keys
    };
    let with = |prefix: &str, after: &str| -> Vec<String> {
        all.iter().filter(|sk| sk.starts_with(prefix) && sk.as_str() > after).cloned().collect()
    };

    for limit in [1, 7, 30, 100] {
        assert_eq!(pages(store, pk, "", None, limit).await, all, "all of a partition, {limit} at a time");
        assert_eq!(pages(store, pk, "b#", None, limit).await, with("b#", ""), "those with a prefix");
        for after in ["a", "a#", "b", "b#", "b#11", "b#11x", "b#29", "b#~", "c", "zz"] {
            assert_eq!(pages(store, pk, "b#", Some(after), limit).await, with("b#", after), "after {after}");
            assert_eq!(pages(store, pk, "", Some(after), limit).await, with("", after), "after {after}");
        }
    }
    assert_eq!(pages(store, pk, "nothing", None, 5).await, Vec::<String>::new());
    assert_eq!(pages(store, "contract/no-such-partition", "", None, 5).await, Vec::<String>::new());

    let eventual = store.query(Table::Identity, pk, "b#", Some("b#27"), 10, Read::Eventual).await.expect("query");
    assert!(eventual.items.len() <= 2, "an eventual read finds nothing more");
}

/// Asks the index, which may lag, until it answers `want`; the last answer after many tries.
async fn due_until(store: &dyn Tables, pk: &str, until: u64, limit: usize, want: &[&str]) {
    const TRIES: usize = 1000;
    let mut found = Vec::new();
    for _ in 0..TRIES {
        let items = store.due(Table::Doorbells, pk, until, limit).await.expect("due");
        found = items.into_iter().map(|item| item.key.sk).collect();
        if found == want {
            return;
        }
    }
    assert_eq!(found, want, "due in {pk} until {until}, at most {limit}");
}

async fn due_items_come_by_time(store: &dyn Tables) {
    let (table, pk, due_pk) = (Table::Doorbells, "contract/due", "contract/due-index");
    let rung =
        |sk: &str, at: u64| Item { due: Some(Due { pk: due_pk.to_owned(), at }), ..item(pk, sk, 1, json!({"sk": sk})) };
    // Written in another order than that of their times; 9 comes before 10 as a number, not as a text.
    for (sk, at) in [("c", 1_000), ("a", 10), ("b", 9), ("d", 20_000_000_000_000)] {
        assert!(put(store, table, rung(sk, at), Expect::Absent).await);
    }
    assert!(put(store, table, item(pk, "never", 1, json!({})), Expect::Absent).await);
    let elsewhere =
        Item { due: Some(Due { pk: "contract/due-else".to_owned(), at: 1 }), ..item(pk, "x", 1, json!({})) };
    assert!(put(store, table, elsewhere, Expect::Absent).await);

    due_until(store, due_pk, u64::MAX, 10, &["b", "a", "c", "d"]).await;
    due_until(store, due_pk, 1_000, 10, &["b", "a", "c"]).await;
    due_until(store, due_pk, 999, 10, &["b", "a"]).await;
    due_until(store, due_pk, 8, 10, &[]).await;
    due_until(store, due_pk, u64::MAX, 2, &["b", "a"]).await;
    due_until(store, "contract/due-else", u64::MAX, 2, &["x"]).await;
    let whole = store.due(table, due_pk, 9, 1).await.expect("due");
    assert_eq!(whole, [rung("b", 9)], "the index gives the whole item");

    // A write moves the item in the index, takes it out, or moves it to another partition; a delete takes it out.
    assert!(put(store, table, Item { rev: 2, ..rung("b", 5_000) }, Expect::Rev(1)).await);
    due_until(store, due_pk, u64::MAX, 10, &["a", "c", "b", "d"]).await;
    assert!(put(store, table, Item { rev: 2, due: None, ..rung("a", 0) }, Expect::Rev(1)).await);
    due_until(store, due_pk, u64::MAX, 10, &["c", "b", "d"]).await;
    let moved = Due { pk: "contract/due-else".to_owned(), at: 2 };
    assert!(put(store, table, Item { rev: 2, due: Some(moved), ..rung("c", 0) }, Expect::Rev(1)).await);
    due_until(store, due_pk, u64::MAX, 10, &["b", "d"]).await;
    due_until(store, "contract/due-else", u64::MAX, 10, &["x", "c"]).await;
    assert!(store.delete(table, &Key::new(pk, "b"), Expect::Rev(2)).await.expect("delete"));
    due_until(store, due_pk, u64::MAX, 10, &["d"]).await;

    // A batch write serves the index too, and many items come in the order of their times.
    let many = "contract/due-many";
    let items = (0..60u64).map(|n| Item {
        due: Some(Due { pk: many.to_owned(), at: (n * 37) % 60 }),
        ..item("contract/due-many-items", &format!("{:02}", (n * 37) % 60), 1, json!({}))
    });
    store.put_all(table, items.collect()).await.expect("put_all");
    let names: Vec<String> = (0..60).map(|n| format!("{n:02}")).collect();
    let want: Vec<&str> = names.iter().map(String::as_str).collect();
    due_until(store, many, u64::MAX, 100, &want).await;
    due_until(store, many, 40, 30, &want[..30]).await;
}

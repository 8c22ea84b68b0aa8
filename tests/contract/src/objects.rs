//! The contract of [`Objects`].

use bytes::Bytes;
use ports::Objects;

/// Runs the whole contract of [`Objects`].
///
/// # Panics
/// With the sentence that does not hold.
pub async fn objects(store: &dyn Objects) {
    reads_what_was_put(store).await;
    ranges_end_with_the_object(store).await;
    ranges_of_a_tag_end_with_the_object_that_has_it(store).await;
    listings_are_ordered_and_page(store).await;
    parts_make_one_object(store).await;
}

/// The part of the contract about addresses. `fetch` reads one as a browser does, without credentials: status, headers as
/// they came, body.
///
/// # Panics
/// With the sentence that does not hold.
pub async fn addresses(store: &dyn Objects, fetch: impl AsyncFn(&str) -> (u16, String, Vec<u8>)) {
    put(store, "contract/sign/a b=+.csv", b"\"1\"\r\n").await;
    let address = store.sign("contract/sign/a b=+.csv", 900, "people-2026_1.csv").await.expect("sign");
    let (status, headers, body) = fetch(&address).await;
    assert_eq!((status, body.as_slice()), (200, &b"\"1\"\r\n"[..]), "whoever has the address reads the object");
    let headers = headers.to_ascii_lowercase();
    assert!(headers.contains("content-type: text/csv"), "{headers}");
    assert!(headers.contains("content-disposition: attachment; filename=\"people-2026_1.csv\""), "{headers}");
    let (status, _, _) = fetch(&address.replace("people-2026_1", "people-2026_2")).await;
    assert_eq!(status, 403, "and nothing else");
    let none = store.sign("contract/sign/none.csv", 900, "none.csv").await.expect("nobody looks whether it is there");
    assert_eq!(fetch(&none).await.0, 404);
}

async fn parts_make_one_object(store: &dyn Objects) {
    let key = "contract/parts/large.csv";
    let part = |byte: u8, size: usize| Bytes::from(vec![byte; size]);
    let upload = store.begin_parts(key).await.expect("begin");
    let first = store.put_part(key, &upload, 1, part(b'x', 5 << 20)).await.expect("a part");
    let again = store.put_part(key, &upload, 1, part(b'a', 5 << 20)).await.expect("a part");
    assert_ne!(first, again, "another content has another tag");
    let last = store.put_part(key, &upload, 2, part(b'b', 3)).await.expect("the last part, which may be small");
    assert_eq!(store.get(key).await.expect("get"), None, "nothing is there before the end");
    let tags = [again, last];
    store.end_parts(key, &upload, &tags).await.expect("end");
    let whole = store.get(key).await.expect("get").expect("the object");
    assert_eq!(whole.len(), (5 << 20) + 3);
    assert!(whole.ends_with(b"aabbb") && whole.starts_with(b"aa"), "the same number again replaces");
    store.end_parts(key, &upload, &tags).await.expect("ending once more changes nothing");
    assert_eq!(store.get(key).await.expect("get").map(|body| body.len()), Some(whole.len()));
    store.put_part(key, &upload, 3, part(b'c', 3)).await.expect_err("an upload that has ended");
}

async fn put(store: &dyn Objects, key: &str, body: &[u8]) {
    store.put(key, Bytes::copy_from_slice(body)).await.expect("put");
}

async fn reads_what_was_put(store: &dyn Objects) {
    let key = "contract/read/a";
    assert_eq!(store.get(key).await.expect("get"), None, "what is not there is None");
    store.delete(key).await.expect("deleting what is not there is no error");

    put(store, key, b"one").await;
    assert_eq!(store.get(key).await.expect("get").as_deref(), Some(&b"one"[..]));
    put(store, key, b"another").await;
    assert_eq!(store.get(key).await.expect("get").as_deref(), Some(&b"another"[..]), "a put replaces");

    put(store, "contract/read/empty", b"").await;
    assert_eq!(store.get("contract/read/empty").await.expect("get").as_deref(), Some(&b""[..]), "empty is not absent");

    // Every byte value, and more than one network packet.
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    put(store, "contract/read/large", &large).await;
    let read = store.get("contract/read/large").await.expect("get").expect("the object");
    assert!(read == large, "a large object comes back byte for byte");

    // Names as feeds and our own objects bear them.
    let odd = "contract/read/x=1 y+z/segment_101_full_1700000000000-1.sync.gz";
    put(store, odd, b"odd").await;
    assert_eq!(store.get(odd).await.expect("get").as_deref(), Some(&b"odd"[..]));

    store.delete(key).await.expect("delete");
    assert_eq!(store.get(key).await.expect("get"), None, "what was deleted is gone");
}

async fn ranges_end_with_the_object(store: &dyn Objects) {
    let key = "contract/range";
    put(store, key, b"0123456789").await;
    let read = async |from, len| store.get_range(key, from, len).await.expect("get_range").map(|body| body.to_vec());
    let some = |body: &[u8]| Some(body.to_vec());
    assert_eq!(read(0, 10).await, some(b"0123456789"), "all of it");
    assert_eq!(read(0, 1).await, some(b"0"));
    assert_eq!(read(3, 4).await, some(b"3456"));
    assert_eq!(read(9, 1).await, some(b"9"), "the last byte");
    assert_eq!(read(8, 10).await, some(b"89"), "fewer at the end");
    assert_eq!(read(0, u64::MAX).await, some(b"0123456789"), "a length beyond the end");
    assert_eq!(read(10, 1).await, some(b""), "none behind the end");
    assert_eq!(read(1_000, 5).await, some(b""), "none far behind the end");
    assert_eq!(read(3, 0).await, some(b""), "no bytes asked for");
    assert_eq!(store.get_range("contract/range-missing", 0, 1).await.expect("get_range"), None, "no such object");
    assert_eq!(store.get_range("contract/range-missing", 0, 0).await.expect("get_range"), None, "no such object");
}

async fn ranges_of_a_tag_end_with_the_object_that_has_it(store: &dyn Objects) {
    let key = "contract/tagged";
    put(store, key, b"0123456789").await;
    let listed = store.list(key, None).await.expect("list");
    let [object] = &listed[..] else { panic!("{} objects", listed.len()) };
    let read = async |etag: &str, from, len| {
        store.get_range_of(key, etag, from, len).await.expect("get_range_of").map(|body| body.to_vec())
    };
    let some = |body: &[u8]| Some(body.to_vec());
    assert_eq!(read(&object.etag, 3, 4).await, some(b"3456"), "as it was listed");
    assert_eq!(read(&object.etag, 8, 10).await, some(b"89"), "fewer at the end");
    assert_eq!(read(&object.etag, 10, 1).await, some(b""), "none behind the end");
    assert_eq!(read(&object.etag, 3, 0).await, some(b""), "no bytes asked for");
    // What takes its place is another object, be it longer or shorter.
    for body in [&b"abcdefghijklm"[..], b"abc", b""] {
        put(store, key, body).await;
        for (from, len) in [(0, 1), (3, 4), (10, 1), (3, 0)] {
            assert_eq!(read(&object.etag, from, len).await, None, "{} bytes, from {from}", body.len());
        }
    }
    store.delete(key).await.expect("delete");
    assert_eq!(read(&object.etag, 0, 1).await, None, "no such object");
    assert_eq!(read(&object.etag, 10, 1).await, None, "no such object");
}

async fn listings_are_ordered_and_page(store: &dyn Objects) {
    let keys = async |prefix: &str, after: Option<&str>| -> Vec<String> {
        store.list(prefix, after).await.expect("list").into_iter().map(|object| object.key).collect()
    };
    assert_eq!(keys("contract/list/", None).await, Vec::<String>::new());

    let order = ["contract/list/A", "contract/list/a-1", "contract/list/a/1", "contract/list/a/2", "contract/list/b"];
    for key in order.iter().rev() {
        put(store, key, key.as_bytes()).await;
    }
    put(store, "contract/list2", b"").await;
    assert_eq!(keys("contract/list/", None).await, order, "in the order of their keys' bytes, through folders");
    assert_eq!(keys("contract/list/a/", None).await, ["contract/list/a/1", "contract/list/a/2"]);
    assert_eq!(keys("contract/list/a", None).await, order[1..4], "a prefix need not end at a slash");
    assert_eq!(keys("contract/list/", Some("contract/list/a-1")).await, order[2..], "after a key");
    assert_eq!(keys("contract/list/", Some("contract/list/a0")).await, order[4..], "after a key that is not there");
    assert_eq!(keys("contract/list/", Some("contract/list/b")).await, Vec::<String>::new());

    let listed = store.list("contract/list/", None).await.expect("list");
    for object in &listed {
        assert_eq!(object.size, object.key.len() as u64, "the size in bytes");
        assert!(!object.etag.is_empty() && !object.etag.contains('"'), "a tag without quotes: {}", object.etag);
    }
    assert_ne!(listed[0].etag, listed[1].etag, "another content has another tag");
    put(store, "contract/list/A", b"changed").await;
    let changed = store.list("contract/list/A", None).await.expect("list");
    assert_ne!(changed[0].etag, listed[0].etag, "a changed object has another tag");

    store.delete("contract/list/A").await.expect("delete");
    assert_eq!(keys("contract/list/", None).await, order[1..], "what was deleted is not listed");

    // More than one listing holds.
    const COUNT: usize = 1_005;
    let many: Vec<String> = (0..COUNT).map(|n| format!("contract/many/{n:05}")).collect();
    for key in &many {
        put(store, key, b"x").await;
    }
    let first = keys("contract/many/", None).await;
    assert_eq!(first, many[..1_000], "at most 1,000, and as many as there are up to that");
    let rest = keys("contract/many/", first.last().map(String::as_str)).await;
    assert_eq!(rest, many[1_000..], "the last key of one listing continues it");
}

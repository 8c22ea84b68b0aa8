//! What must hold of the readers of what we store ourselves: sorted objects, sets of leads, rows of tables, messages of
//! queues. A reader of another version must refuse what it does not know, and nothing that is cut or altered may be taken for
//! whole.

use std::collections::BTreeSet;

use cookie_ingest::Message;
use domain::base::{Base, mix, unmix};
use domain::edges::Edge;
use domain::identity::{LeadRecord, TokenRecord};
use domain::origin::OriginPattern;
use domain::rows::{self, Check, Encoder, HEADER, Row, TRAILER, fences_at, trailer_at};
use domain::said::Said;
use domain::{AudienceId, Ecid, LeadSet, MunchkinId, OrgId, Token, list};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use state::bell::Ring;
use state::feeds::Events;

use crate::text;

/// CRC-32 (IEEE), bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// Whether an object of rows of this size is whole, by its layout: sixteen bytes of header, rows, fences, and a trailer of
/// count, CRC and end.
fn is_whole<R: Row>(bytes: &[u8]) -> bool {
    let (Some(head), Some(tail)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) else { return false };
    let count = u128::from(u64::from_be_bytes(*tail.first_chunk().expect("eight bytes")));
    let (rows, fences) = (count * u128::from(R::SIZE), if R::FENCED { count.div_ceil(256) * 16 } else { 0 });
    if head[..4] != R::MAGIC || head[4..8] != [0; 4] || bytes.len() as u128 != 32 + rows + fences {
        return false;
    }
    let rows = &bytes[16..16 + usize::try_from(rows).expect("no more than there are bytes")];
    tail[8..12] == crc(rows).to_be_bytes() && tail[12..] == R::END
}

fn rows_of<R: Row + PartialEq + std::fmt::Debug>(data: &[u8]) {
    // As it is.
    let read = rows::decode::<R>(data);
    assert_eq!(read.is_some(), is_whole::<R>(data), "it is taken for whole if and only if it is");
    // Made of rows, cut into them by the input.
    let size = usize::try_from(R::SIZE).expect("a size");
    let mut made = Vec::new();
    R::take(&data[..data.len() / size * size], &mut made);
    let (as_of, mut bytes) = (data.len() as u64, Vec::new());
    let mut encoder = Encoder::begin(as_of, &mut bytes);
    made.chunks(3).for_each(|part| encoder.rows(part, &mut bytes));
    assert_eq!(encoder.end(&mut bytes), made.len() as u64);
    let again = rows::decode::<R>(&bytes).expect("what was written is read");
    assert_eq!((&again.0, again.1), (&made, as_of));
    let (count, plain) = (made.len() as u64, data.len() / size * size);
    assert_eq!(bytes[16..16 + plain], data[..plain], "a row is read and written byte for byte");
    let (from, length) = trailer_at::<R>(count).expect("a trailer");
    assert_eq!((from + length, length), (bytes.len() as u64, TRAILER as u64));
    // By pieces of any number of rows it is what it is whole.
    let piece = size * (1 + data.first().map_or(0, |byte| usize::from(*byte) % 7));
    let (mut check, mut pieces) = (Check::<R>::new(count), Vec::new());
    bytes[16..16 + plain].chunks(piece).for_each(|piece| {
        check.look(piece);
        R::take(piece, &mut pieces);
    });
    assert_eq!(pieces, made);
    assert!(check.is_whole(&bytes[bytes.len() - TRAILER..]));
    // Cut or altered anywhere but in the time and in the fences, for which no CRC answers, it is refused.
    let (fences, fences_length) = fences_at::<R>(count).expect("fences");
    let unsaid = |at: usize| {
        let at = at as u64;
        (8..HEADER).contains(&at) || (fences..fences + fences_length).contains(&at)
    };
    let at = data.iter().fold(0_usize, |at, byte| at.wrapping_mul(257).wrapping_add(usize::from(*byte))) % bytes.len();
    let mut altered = bytes.clone();
    altered[at] ^= 1 + data.last().map_or(0, |byte| byte & 0x7f);
    assert_eq!(rows::decode::<R>(&altered).is_some(), unsaid(at), "altered at {at}");
    assert_eq!(rows::decode::<R>(&bytes[..at]), None, "cut at {at}");
}

/// Objects of rows: bases, runs of facts and edges.
pub fn rows(data: &[u8]) {
    rows_of::<u128>(data);
    rows_of::<Edge>(data);
    for chunk in data.chunks_exact(16) {
        let row = u128::from_be_bytes(chunk.try_into().expect("sixteen bytes"));
        match unmix(row) {
            Some(ecid) => assert_eq!(mix(ecid), row),
            None => assert!(Ecid::from_number(row).is_none_or(|ecid| mix(ecid) != row)),
        }
    }
    assert_eq!(Base::decode(data).is_some(), is_whole::<u128>(data));
}

/// A set of leads: what is read is a set, and it reads again from its own bytes and from its JSON.
pub fn lead_set(data: &[u8]) {
    if let Some(set) = LeadSet::from_bytes(data) {
        // A set may say of a few bytes that it holds whole ranges of 65,536.
        if set.len() < 1 << 20 {
            let leads: Vec<u64> = set.iter().collect();
            assert!(leads.is_sorted_by(|one, next| one < next), "ascending, none twice");
            assert_eq!(set.len(), leads.len() as u64);
            assert!(leads.iter().all(|lead| set.contains(*lead)));
            assert_eq!(leads.iter().copied().collect::<LeadSet>(), set);
        }
        let bytes = set.to_bytes();
        assert_eq!(LeadSet::from_bytes(&bytes).as_ref(), Some(&set));
        for end in [bytes.len() / 2, bytes.len() - 1] {
            assert_eq!(LeadSet::from_bytes(&bytes[..end]), None, "cut after {end} of {} bytes", bytes.len());
        }
        let json = serde_json::to_string(&set).expect("JSON");
        assert_eq!(serde_json::from_str::<LeadSet>(&json).ok(), Some(set));
    }
    let leads: BTreeSet<u64> =
        data.chunks_exact(4).map(|four| four.iter().fold(0, |n, b| n << 9 | u64::from(*b))).collect();
    let set: LeadSet = leads.iter().copied().collect();
    assert_eq!(LeadSet::from_bytes(&set.to_bytes()).expect("a set").iter().collect::<BTreeSet<_>>(), leads);
}

/// What is read of a JSON text is written again, and read again as the same.
fn again<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(data).ok()?;
    let written = serde_json::to_string(&read).expect("JSON");
    assert_eq!(serde_json::from_str::<T>(&written).expect("what was written is read"), read);
    Some(read)
}

/// Whether a number with a fraction stands in it, or one that is too large: none of ours is, and as text it may change its
/// last digit.
fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(fields) => fields.values().any(has_fraction),
        _ => false,
    }
}

/// Rows of tables, those of earlier versions among them.
pub fn stored(data: &[u8]) {
    if serde_json::from_slice::<Value>(data).is_ok_and(|said| has_fraction(&said)) {
        return;
    }
    again::<TokenRecord>(data);
    again::<LeadRecord>(data);
    again::<list::State>(data);
    again::<Said>(data);
    again::<state::feeds::Feed>(data);
    again::<state::syncs::Subscription>(data);
}

/// Messages of queues: read only in version 1, whatever else they hold; ECIDs are texts; and they survive being written.
pub fn queue_message(data: &[u8]) {
    let rung = again::<Ring>(data).is_some();
    let events = again::<Events>(data);
    let seen = serde_json::from_slice::<Message>(data).ok();
    let Ok(said) = serde_json::from_slice::<Value>(data) else {
        assert!(!rung && events.is_none() && seen.is_none(), "what is no JSON is no message");
        return;
    };
    if rung || events.is_some() || seen.is_some() {
        // Without a name for each field, in their order, it would be another message after the next change.
        if let Value::Object(said) = &said {
            assert_eq!(said["v"], 1, "a message of another version");
        }
    }
    if let (Some(Message::Match(seen)), Value::Object(said)) = (&seen, &said) {
        assert_eq!(said["ecid"].as_str(), Some(seen.ecid.text().as_str()));
        assert_eq!(said["token"].as_str(), Some(seen.token.as_str()));
    }
    if let (Some(events), Value::Object(said)) = (&events, &said) {
        for (entry, said) in events.entries.iter().zip(said["entries"].as_array().into_iter().flatten()) {
            if said.is_object() {
                assert_eq!(said["ecid"].as_str(), Some(entry.ecid.text().as_str()));
            }
        }
    }
}

/// Ids and patterns of origins: read exactly where the contract's expression matches.
pub fn ids(data: &[u8]) {
    use std::sync::LazyLock;

    use regex::bytes::Regex;
    static FORMS: LazyLock<[Regex; 5]> = LazyLock::new(|| {
        [
            r"^[0-9]{38}\z",
            r"^[0-9]{3}-[A-Z]{3}-[0-9]{3}\z",
            r"^[0-9A-Za-z]{24}@AdobeOrg\z",
            r"^_mch-[0-9A-Za-z._-]+-(?:[0-9]{13}-[0-9]{1,5}|[0-9a-f]{30,32})\z",
            r"^(?:aam:[1-9][0-9]{0,17}|aep:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\z",
        ]
        .map(crate::regex)
    });
    let said = text(data);
    let fits = |form: usize| FORMS[form].is_match(said.as_bytes());
    let ecid = Ecid::parse(&said);
    assert_eq!(ecid.is_some(), fits(0));
    assert!(ecid.is_none_or(|ecid| ecid.text() == said && unmix(mix(ecid)) == Some(ecid)));
    assert_eq!(MunchkinId::parse(&said).is_some(), fits(1));
    assert_eq!(OrgId::parse(&said).is_some(), fits(2));
    assert_eq!(Token::parse(&said).is_some(), fits(3) && said.len() <= domain::cookie::MAX_TOKEN);
    if let Some(audience) = AudienceId::parse(&said) {
        assert!(fits(4), "{said}");
        assert_eq!(AudienceId::parse(audience.as_str()), Some(audience));
    }
    if let Some(pattern) = OriginPattern::parse(&said) {
        let exact = said.replacen("*.", "a.", 1);
        assert!(pattern.allows(&exact), "{said} allows {exact}");
        for other in ["https://evil.test", "null", ""] {
            assert!(!pattern.allows(other) || said == other, "{said} allows {other}");
        }
        let beside = exact.replacen("://", "://evil", 1);
        assert!(said.contains("*.") || !pattern.allows(&beside), "{said} allows {beside}");
    }
}

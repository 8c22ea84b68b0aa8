//! Takes in one arrived file: facts into overlays, whole snapshots into bases.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};

use bytes::Bytes;
use domain::base::Base;
use domain::fact::{Fact, RANK_FILE};
use domain::feed::{FileName, Mode, Row, parse_line, segments};
use domain::limits::REJECTS_KEPT;
use domain::{AudienceId, Ecid, MunchkinId};
use ports::{Failure, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use state::audience::{BaseRef, Head, Said, add_todo, head_key, take_said, want_pass};
use state::bell::BellKey;
use state::feeds::{Completeness, Feed, Import, ImportStatus, Reject, feed_key, import_key};
use state::syncs::{Subscription, followed};
use state::{Deps, Step, bell, load, syncs, update};

/// The folder of arriving files.
const INCOMING: &str = "incoming/";
/// The listing of arriving files, for lost notifications, is done at most this often, in ms.
const BACKSTOP_MS: u64 = 15 * 60_000;

/// A file that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Object key.
    pub key: String,
    /// Entity tag: the same name with another content is another import.
    pub etag: String,
}

/// Reads a notification of the bucket; a test event holds no arrival. `None`: the body is something else.
#[must_use]
pub fn arrivals(body: &Value) -> Option<Vec<Arrival>> {
    if body["Event"] == "s3:TestEvent" {
        return Some(Vec::new());
    }
    let records = body["Records"].as_array()?;
    records
        .iter()
        .map(|record| {
            let object = &record["s3"]["object"];
            let key = object["key"].as_str()?.replace('+', " ");
            let key = percent_encoding::percent_decode_str(&key).decode_utf8().ok()?.into_owned();
            Some(Arrival { key, etag: object["eTag"].as_str().unwrap_or_default().trim_matches('"').to_owned() })
        })
        .collect()
}

/// When arriving files were last listed. DynamoDB keeps objects only, so not the bare number.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Listed {
    v: u8,
    /// In ms.
    at: u64,
}

/// Takes in files that have no record, because their notification was lost.
pub async fn backstop(deps: &Deps, deadline: u64) -> Step<()> {
    let now = deps.now();
    let every = deps.settings.scaled(BACKSTOP_MS);
    let key = ports::Key::new("backstop", "incoming");
    let due = update(
        deps,
        Table::Syncs,
        &key,
        |last: Option<Listed>| {
            let fresh = last.is_some_and(|last| now < last.at + every);
            Ok(if fresh { (None, false) } else { (Some(Listed { v: 1, at: now }), true) })
        },
        |_| None,
    )
    .await?;
    if !due {
        return Ok(());
    }
    let mut after: Option<String> = None;
    loop {
        let objects = deps.ports.objects.list(INCOMING, after.as_deref()).await?;
        let Some(last) = objects.last() else { return Ok(()) };
        after = Some(last.key.clone());
        for object in objects {
            arrived(deps, &Arrival { key: object.key, etag: object.etag }, deadline).await?;
        }
    }
}

/// Takes in one file. A second time it changes nothing.
pub async fn arrived(deps: &Deps, arrival: &Arrival, deadline: u64) -> Step<()> {
    let Some((subscription, name)) = owner(deps, &arrival.key).await? else { return Ok(()) };
    let munchkin = &subscription.munchkin_id;
    let id = format!("{name}.{}", arrival.etag);
    let key = import_key(munchkin, &id);
    let known: Option<state::Doc<Import>> = load(deps, Table::Syncs, &key).await?;
    if known.is_some_and(|known| known.value.status != ImportStatus::Running) {
        return Ok(());
    }
    let mut record = Import {
        v: 1,
        id,
        key: arrival.key.clone(),
        status: ImportStatus::Running,
        why: None,
        started_at: deps.now(),
        ended_at: None,
        rows: 0,
        rejected: 0,
        rejects: Vec::new(),
        taken: BTreeMap::new(),
        feed: "default".to_owned(),
        delivery: None,
        rejected_by: BTreeMap::new(),
        not_named: Vec::new(),
    };
    store(deps, &key, &record).await?;
    let refused = match subscription.refused() {
        Some(why) => Some(why.to_owned()),
        None => take_in(deps, munchkin, arrival, &name, &mut record, deadline).await?,
    };
    record.status = if refused.is_some() { ImportStatus::Refused } else { ImportStatus::Done };
    record.why = refused.or(record.why);
    record.ended_at = Some(deps.now());
    store(deps, &key, &record).await
}

async fn store(deps: &Deps, key: &ports::Key, record: &Import) -> Step<()> {
    update(deps, Table::Syncs, key, |_: Option<Import>| Ok((Some(record.clone()), ())), |_| None).await
}

/// The subscription that a file is for, and the file's name: with one subscription every file is its own; with
/// several, files lie in `incoming/<munchkin id>/`.
async fn owner(deps: &Deps, key: &str) -> Step<Option<(Subscription, String)>> {
    let Some(path) = key.strip_prefix(INCOMING).filter(|path| !path.is_empty() && !path.ends_with('/')) else {
        return Ok(None);
    };
    let mut subscriptions = syncs::subscriptions(deps).await?;
    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    if let [only] = subscriptions.as_slice() {
        return Ok(Some((only.clone(), name)));
    }
    let folder = path.split('/').next().unwrap_or_default();
    subscriptions.retain(|subscription| subscription.munchkin_id.as_str() == folder);
    if subscriptions.is_empty() {
        // Kept in the bucket, and found by the backstop once its subscription exists.
        tracing::warn!("a file arrived that is for no subscription");
    }
    Ok(subscriptions.pop().map(|subscription| (subscription, name)))
}

/// What a file says, by audience.
#[derive(Default)]
struct Content {
    inside: BTreeMap<AudienceId, Vec<Ecid>>,
    outside: BTreeMap<AudienceId, Vec<Ecid>>,
    cut: bool,
}

/// Returns why the file was refused, if it was.
async fn take_in(
    deps: &Deps,
    munchkin: &MunchkinId,
    arrival: &Arrival,
    name: &str,
    record: &mut Import,
    deadline: u64,
) -> Step<Option<String>> {
    let file = match FileName::parse(name) {
        Ok(file) => file,
        Err(expected) => return Ok(Some(format!("not a file for us: {expected}"))),
    };
    let Some(bytes) = deps.ports.objects.get(&arrival.key).await? else {
        return Ok(Some("the file was gone before it was read".to_owned()));
    };
    let library: BTreeSet<u64> = adobe::segments(deps).await?.into_iter().map(|segment| segment.sid).collect();
    let content = if FileName::is_gzip(name) {
        read(flate2::read::MultiGzDecoder::new(&bytes[..]), file.mode, &library, record)
    } else {
        read(&bytes[..], file.mode, &library, record)
    };
    if record.rows == 0 {
        let why =
            if content.cut { "the file is not whole: its compressed data end too early" } else { "the file is empty" };
        return Ok(Some(why.to_owned()));
    }
    for (audience, ecids) in &content.inside {
        *record.taken.entry(audience.clone()).or_default() += ecids.len() as u64;
    }
    for (audience, ecids) in &content.outside {
        *record.taken.entry(audience.clone()).or_default() += ecids.len() as u64;
    }
    let feed: Option<Feed> = load(deps, Table::Syncs, &feed_key(munchkin, "default")).await?.map(|doc| doc.value);
    let declared = feed.is_some_and(|feed| feed.snapshots && feed.completeness == Completeness::SingleFile);
    if declared && file.mode == Mode::Full && file.split.is_none() && !content.cut {
        take_snapshots(deps, munchkin, file.time, content).await?;
    } else {
        if content.cut {
            record.why = Some("the file is not whole: its rows were taken, and nobody left on its account".to_owned());
        }
        take_facts(deps, munchkin, file.time, content, deadline).await?;
    }
    Ok(None)
}

fn read(source: impl Read, mode: Mode, library: &BTreeSet<u64>, record: &mut Import) -> Content {
    let mut content = Content::default();
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        match source.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => {
                content.cut = true;
                reject(record, number, "the file is not whole: its compressed data end too early");
                break;
            }
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            continue;
        }
        record.rows += 1;
        match std::str::from_utf8(text).map_err(|_| "expected UTF-8 text").and_then(parse_line) {
            Ok(row) => take_row(&mut content, row, mode, library, record, number),
            Err(reason) => reject(record, number, reason),
        }
    }
    content
}

fn take_row(content: &mut Content, row: Row<'_>, mode: Mode, library: &BTreeSet<u64>, record: &mut Import, line: u64) {
    let mut take = |column: &str, side: &mut BTreeMap<AudienceId, Vec<Ecid>>| {
        for entry in segments(column) {
            match entry {
                Ok(sid) if library.contains(&sid) => side.entry(AudienceId::aam(sid)).or_default().push(row.ecid),
                Ok(_) => reject(record, line, "a segment that the audience library does not hold"),
                Err(reason) => reject(record, line, reason),
            }
        }
    };
    take(row.segments, &mut content.inside);
    // A full file lists what each user is in; its removed column is to be ignored.
    if mode == Mode::Iter {
        take(row.removed, &mut content.outside);
    }
}

fn reject(record: &mut Import, line: u64, reason: &str) {
    record.rejected += 1;
    if record.rejects.len() < REJECTS_KEPT {
        record.rejects.push(Reject { line, reason: reason.to_owned() });
    }
}

/// Each audience that a snapshot names is replaced whole; one that it does not name is left as it is.
async fn take_snapshots(deps: &Deps, munchkin: &MunchkinId, time: u64, content: Content) -> Step<()> {
    let mut replaced_audiences = Vec::new();
    for (audience, ecids) in content.inside {
        let base = Base::new(ecids, time);
        let key = format!("sets/base/{}", deps.fresh_id());
        deps.ports.objects.put(&key, Bytes::from(base.encode())).await?;
        let pointer = BaseRef { key, count: base.len() as u64, as_of: time };
        let now = deps.now();
        let replaced = update(
            deps,
            Table::Audiences,
            &head_key(munchkin, &audience),
            |head: Option<Head>| {
                let mut head = head.unwrap_or_else(|| Head::new(audience.clone(), now));
                if head.base.as_ref().is_some_and(|base| base.as_of > time) {
                    return Ok((None, None));
                }
                head.delivered_at = now;
                let old = head.base.replace(pointer.clone());
                let busy = head.pass.as_ref().map_or(head.pass_done, |pass| pass.number);
                head.pass_wanted = head.pass_wanted.max(busy + 1);
                Ok((Some(head), Some(old)))
            },
            |_| None,
        )
        .await?;
        match replaced {
            // An older snapshot than the one that counts.
            None => deps.ports.objects.delete(&pointer.key).await?,
            Some(old) => {
                if let Some(old) = old {
                    deps.ports.objects.delete(&old.key).await?;
                }
                replaced_audiences.push(audience);
            }
        }
    }
    // Read after the heads were written: a sync that is created meanwhile sees either the head, or is seen here.
    let followed = followed(deps, munchkin).await?;
    for audience in replaced_audiences.iter().filter(|audience| followed.contains(audience)) {
        bell::mark(deps, &BellKey::audience(munchkin, audience)).await?;
    }
    Ok(())
}

/// Every row is a fact of its own; absence says nothing.
async fn take_facts(deps: &Deps, munchkin: &MunchkinId, time: u64, content: Content, deadline: u64) -> Step<()> {
    let audiences: BTreeSet<AudienceId> = content.inside.keys().chain(content.outside.keys()).cloned().collect();
    for audience in audiences {
        let now = deps.now();
        // First the head: whoever reads it from here on looks at the overlay.
        update(
            deps,
            Table::Audiences,
            &head_key(munchkin, &audience),
            |head: Option<Head>| {
                let mut head = head.unwrap_or_else(|| Head::new(audience.clone(), now));
                head.delivered_at = now;
                head.has_overlay = true;
                Ok((Some(head), ()))
            },
            |_| None,
        )
        .await?;
        let mut changed = BTreeSet::new();
        for (side, inside) in [(&content.inside, true), (&content.outside, false)] {
            for &ecid in side.get(&audience).into_iter().flatten() {
                let fact = Fact { time, rank: RANK_FILE, inside };
                take_said(deps, munchkin, &audience, ecid, Said::File(fact)).await?;
                // Rung even if the fact is old: an earlier attempt may have died before it rang.
                changed.insert(ecid);
                if deps.now() > deadline {
                    return Err(Failure::retry("an import takes longer than one invocation"));
                }
            }
        }
        if !followed(deps, munchkin).await?.contains(&audience) {
            continue;
        }
        if changed.len() > deps.settings.pass_above {
            want_pass(deps, munchkin, &audience).await?;
        } else {
            for ecid in changed {
                add_todo(deps, munchkin, &audience, ecid, &BTreeSet::new()).await?;
            }
        }
        bell::mark(deps, &BellKey::audience(munchkin, &audience)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_are_read_and_test_events_hold_nothing() {
        let body = r#"{"Records":[{"s3":{"object":{"key":"incoming/a+b%3Dc.sync","eTag":"\"e\""}}}]}"#;
        let arrivals = |body: &str| arrivals(&serde_json::from_str(body).unwrap());
        assert_eq!(arrivals(body), Some(vec![Arrival { key: "incoming/a b=c.sync".into(), etag: "e".into() }]));
        assert_eq!(arrivals(r#"{"Event":"s3:TestEvent","Bucket":"b"}"#), Some(vec![]));
        assert_eq!(arrivals("{}"), None);
    }
}

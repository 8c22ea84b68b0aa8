//! Takes in arriving files: each is a part of a delivery, or says what belongs to one.

mod apply;
mod content;
mod counted;
mod delivery;
mod files;
mod ids;

use std::collections::{BTreeMap, HashMap};

use domain::feed::Control;
use domain::said::Saying;
use domain::sayings::{FILE_GONE, FILE_NAME_AAM, FILE_NAME_AEP, FILE_NAME_CONTROL, FILE_OF_STREAM};
use domain::{AudienceId, Said};
use futures::future::BoxFuture;
use ports::{Read, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use state::feeds::{
    DEFAULT_FEED, Delivery, Feed, Import, ImportStatus, Kind, Part, change_delivery, delivery_key, import_key,
    index_import, save_import,
};
use state::syncs::Subscription;
use state::{Deps, Step, doc, load, syncs, update};

pub(crate) use delivery::due;

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
    let known = Known::read(deps).await?;
    let (mut after, mut failed) = (None::<String>, None);
    loop {
        let objects = deps.ports.objects.list(INCOMING, after.as_deref()).await?;
        let Some(last) = objects.last() else { return failed.map_or(Ok(()), Err) };
        after = Some(last.key.clone());
        let arrivals = objects.into_iter().map(|object| Arrival { key: object.key, etag: object.etag });
        for arrival in open(deps, &known, arrivals.collect()).await? {
            if deps.now() > deadline {
                return Ok(());
            }
            // One that cannot be taken in does not hinder those after it.
            if let Err(failure) = arrived(deps, &arrival, deadline).await {
                failed.get_or_insert(failure);
            }
        }
    }
}

/// Those of the files that have no record, or one that is not over. Files stay for weeks: most were taken in long ago, and
/// cost half a read each.
async fn open(deps: &Deps, known: &Known, arrivals: Vec<Arrival>) -> Step<Vec<Arrival>> {
    let mut keys: HashMap<ports::Key, Arrival> = HashMap::new();
    for arrival in arrivals {
        if let Some(place) = known.place(&arrival.key) {
            let id = place.import(&arrival);
            keys.insert(import_key(&place.subscription.munchkin_id, &id), arrival);
        }
    }
    let wanted: Vec<ports::Key> = keys.keys().cloned().collect();
    for item in deps.ports.tables.batch_get(Table::Syncs, &wanted, Read::Eventual).await? {
        let key = item.key.clone();
        let record: Import = doc::read(item)?.value;
        if !matches!(record.status, ImportStatus::Running | ImportStatus::Waiting) {
            keys.remove(&key);
        }
    }
    let mut open: Vec<Arrival> = keys.into_values().collect();
    open.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(open)
}

/// Takes in one file. A second time it changes nothing. Boxed as [`crate::handle`] is.
pub fn arrived<'a>(deps: &'a Deps, arrival: &'a Arrival, deadline: u64) -> BoxFuture<'a, Step<()>> {
    Box::pin(taken(deps, arrival, deadline))
}

async fn taken(deps: &Deps, arrival: &Arrival, deadline: u64) -> Step<()> {
    let Some(place) = Known::read(deps).await?.place(&arrival.key) else { return Ok(()) };
    let id = place.import(arrival);
    let Place { subscription, feed, path } = &place;
    let munchkin = &subscription.munchkin_id;
    let key = import_key(munchkin, &id);
    let known: Option<state::Doc<Import>> = load(deps, Table::Syncs, &key).await?;
    if let Some(known) = &known {
        match (known.value.status, &known.value.delivery) {
            (ImportStatus::Waiting | ImportStatus::Held, Some(delivery)) => {
                return delivery::settle(deps, &delivery_key(munchkin, &feed.id, delivery), deadline).await;
            }
            (ImportStatus::Running, _) => {}
            _ => return Ok(()),
        }
    }
    let is_new = known.is_none();
    let mut record = Import {
        v: 1,
        id: id.clone(),
        key: arrival.key.clone(),
        feed: feed.id.clone(),
        delivery: None,
        status: ImportStatus::Running,
        why: None,
        started_at: known.map_or_else(|| deps.now(), |known| known.value.started_at),
        ended_at: None,
        rows: 0,
        rejected: 0,
        rejects: Vec::new(),
        taken: BTreeMap::new(),
        rejected_by: BTreeMap::new(),
        not_named: Vec::new(),
    };
    if is_new {
        index_import(deps, munchkin, record.started_at, &id).await?;
    }
    save_import(deps, munchkin, &record).await?;
    let comes = match subscription.refused() {
        Some(why) => Comes::Refused(why.plain()),
        None => what(deps, feed, arrival, path).await?,
    };
    let now = deps.now();
    match comes {
        Comes::Refused(why) => delivery::finish(deps, munchkin, record, ImportStatus::Refused, Some(why)).await,
        Comes::Control(controls) => {
            for (id, control) in controls {
                let key = delivery_key(munchkin, &feed.id, &id);
                change_delivery(deps, &key, |found| {
                    let delivery = found.get_or_insert_with(|| Delivery::new(munchkin, &feed.id, &id, now));
                    let new = delivery.control.as_ref() != Some(&control);
                    if new {
                        delivery.control = Some(control.clone());
                        delivery.came(now);
                        delivery::begin(deps, delivery, deadline);
                    }
                    (new, ())
                })
                .await?;
                delivery::settle(deps, &key, deadline).await?;
            }
            delivery::finish(deps, munchkin, record, ImportStatus::Done, None).await
        }
        Comes::Part { delivery, time, full, number } => {
            record.delivery = Some(delivery.clone());
            save_import(deps, munchkin, &record).await?;
            let part = Part { key: arrival.key.clone(), etag: arrival.etag.clone(), number, import: id };
            let name = name_of(path);
            let key = delivery_key(munchkin, &feed.id, &delivery);
            let mut replaced = None;
            loop {
                let other = change_delivery(deps, &key, |found| {
                    let delivery = found.get_or_insert_with(|| Delivery::new(munchkin, &feed.id, &delivery, now));
                    let stands = delivery.parts.get(name);
                    let other = stands.filter(|stands| stands.key == part.key && stands.import != part.import);
                    if other.is_some() && other != replaced.as_ref() {
                        return (false, other.cloned());
                    }
                    let new = stands != Some(&part);
                    if new {
                        delivery.time = time;
                        delivery.full = full;
                        delivery.parts.insert(name.to_owned(), part.clone());
                        delivery.came(now);
                    }
                    // Where it is not new, whoever took it in has died.
                    delivery::begin(deps, delivery, deadline);
                    (true, None)
                })
                .await?;
                let Some(other) = other else { break };
                // Of two contents of one name that counts which stands there, in whichever order their notices come.
                if !stands(deps, &part).await? {
                    let gone = Some(FILE_GONE.plain());
                    return delivery::finish(deps, munchkin, record, ImportStatus::Refused, gone).await;
                }
                delivery::replaced(deps, munchkin, &other).await?;
                replaced = Some(other);
            }
            delivery::settle(deps, &key, deadline).await
        }
    }
}

/// Where a file belongs.
struct Place {
    subscription: Subscription,
    feed: Feed,
    /// Below the folder of its subscription.
    path: String,
}

impl Place {
    /// The id of an arrival's record.
    fn import(&self, arrival: &Arrival) -> String {
        format!("{}.{}", self.path, arrival.etag)
    }
}

/// Every subscription with its declared feeds.
struct Known(Vec<(Subscription, Vec<Feed>)>);

impl Known {
    async fn read(deps: &Deps) -> Step<Self> {
        let mut known = Vec::new();
        for subscription in syncs::subscriptions(deps).await? {
            let feeds = state::feeds::feeds(deps, &subscription.munchkin_id).await?;
            known.push((subscription, feeds));
        }
        Ok(Self(known))
    }

    /// The subscription and the feed that a file is for. With one subscription every file is its own; with several, files
    /// lie in `incoming/<munchkin id>/`. Below that, the first folder says the feed, if one of its name was declared.
    fn place(&self, key: &str) -> Option<Place> {
        let path = key.strip_prefix(INCOMING).filter(|path| !path.is_empty() && !path.ends_with('/'))?;
        let (first, rest) = path.split_once('/').unwrap_or(("", path));
        let named = self.0.iter().find(|(subscription, _)| subscription.munchkin_id.as_str() == first);
        let ((subscription, feeds), path) = match (named, self.0.as_slice()) {
            (Some(named), _) => (named, rest),
            (None, [only]) => (only, path),
            (None, _) => {
                // Kept in the bucket, and found by the backstop once its subscription exists.
                tracing::warn!("a file arrived that is for no subscription");
                return None;
            }
        };
        let declared = |id: &str| feeds.iter().find(|feed| feed.id == id);
        let folder = path.split_once('/').map(|(folder, _)| folder);
        let feed = folder.and_then(declared).or_else(|| declared(DEFAULT_FEED)).cloned();
        let feed = feed.unwrap_or_else(|| Feed::new(DEFAULT_FEED, Kind::AamFiles));
        Some(Place { subscription: subscription.clone(), feed, path: path.to_owned() })
    }
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What a file is.
enum Comes {
    /// Nothing for us, and why.
    Refused(Said),
    /// It says what belongs to these deliveries.
    Control(Vec<(String, Control)>),
    /// A part of a delivery.
    Part { delivery: String, time: Option<u64>, full: bool, number: Option<u64> },
}

async fn what(deps: &Deps, feed: &Feed, arrival: &Arrival, path: &str) -> Step<Comes> {
    let name = name_of(path);
    let refused = |saying: Saying| Ok(Comes::Refused(saying.with([("feed", feed.id.as_str().into())])));
    match feed.kind {
        Kind::AamStream | Kind::AepStream => refused(FILE_OF_STREAM),
        Kind::AamFiles if feeds::aam::FileName::is_control(name) => {
            if feeds::aam::FileName::parse_control(name).is_none() {
                return refused(FILE_NAME_CONTROL);
            }
            let Some(bytes) = deps.ports.objects.get(&arrival.key).await? else { return Ok(gone()) };
            Ok(match feeds::info::parse(&bytes) {
                Ok(control) => Comes::Control(vec![(aam_delivery(name), control)]),
                Err(why) => Comes::Refused(why),
            })
        }
        Kind::AamFiles => match feeds::aam::FileName::parse(name) {
            Some(file) => Ok(Comes::Part {
                delivery: aam_delivery(name),
                time: Some(file.time),
                full: file.mode == domain::feed::Mode::Full,
                number: file.split,
            }),
            None => refused(FILE_NAME_AAM),
        },
        Kind::AepFiles if feeds::manifest::is_manifest(name) => {
            let Some(bytes) = deps.ports.objects.get(&arrival.key).await? else { return Ok(gone()) };
            Ok(match feeds::manifest::parse(&bytes) {
                Ok(control) => Comes::Control(by_export(feed, path, &control)),
                Err(why) => Comes::Refused(why),
            })
        }
        Kind::AepFiles => match feeds::aep::FileName::parse(below(feed, path)) {
            Some(file) => {
                Ok(Comes::Part { delivery: file.stem, time: file.time, full: feed.full, number: Some(file.part) })
            }
            None => refused(FILE_NAME_AEP),
        },
    }
}

/// Whether a part is there as it was when it came. A notice without a tag is about whatever stands there.
async fn stands(deps: &Deps, part: &Part) -> Step<bool> {
    let Part { key, etag, .. } = part;
    Ok(etag.is_empty() || deps.ports.objects.get_range_of(key, etag, 0, 1).await?.is_some())
}

fn gone() -> Comes {
    Comes::Refused(FILE_GONE.plain())
}

/// A delivery of Audience Manager: what the names of all its parts and of its control file begin with. The case of the
/// sync type differs between Adobe's pages.
fn aam_delivery(name: &str) -> String {
    feeds::aam::FileName::root(name).unwrap_or(name).to_ascii_lowercase()
}

/// The path of a file below the folder of its feed.
fn below<'a>(feed: &Feed, path: &'a str) -> &'a str {
    path.strip_prefix(&feed.id).and_then(|path| path.strip_prefix('/')).unwrap_or(path)
}

/// A manifest names the files of all exports of a run; each export is a delivery. It lies in their folder.
fn by_export(feed: &Feed, path: &str, control: &Control) -> Vec<(String, Control)> {
    let folder = below(feed, path).rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let mut exports: BTreeMap<String, Control> = BTreeMap::new();
    for (name, size) in &control.files {
        let Some(file) = feeds::aep::FileName::parse(&format!("{folder}{name}")) else { continue };
        let export = exports.entry(file.stem);
        let export = export.or_insert_with(|| Control { time: control.time, ..Control::default() });
        export.files.insert(name.clone(), *size);
    }
    exports.into_iter().collect()
}

/// The audience that a path tells, for files that do not: a folder or a name with its id, or the only one that the feed
/// names.
fn audience_of(feed: &Feed, path: &str) -> Option<AudienceId> {
    let told = feeds::aep::FileName::parse(path).and_then(|file| file.audience);
    told.or_else(|| feed.audiences.first().filter(|_| feed.audiences.len() == 1).cloned())
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

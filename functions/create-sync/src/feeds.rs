//! Feeds as they are declared, what they brought, and files that wait for an operator.

use std::collections::BTreeMap;

use domain::said::Said;
use domain::{AudienceId, MunchkinId};
use ports::Table;
use serde_json::{Map, Value, json};
use state::feeds::{
    Completeness, DEFAULT_FEED, Delivery, Feed, FeedState, FullDelivery, Import, Kind, change_delivery, delivery_key,
    feed_key, feed_state, feeds as declared, import_key,
};
use state::{Deps, load, time, update};

use crate::deliveries::{UnderWay, under_way};
use crate::paging::Paging;
use crate::problem::{Answer, Problem, Wrong, one_of, true_or_false, whole_number};
use crate::routes::{Request, Response};
use crate::said;

/// Longest name of a feed, in bytes. Ours.
const FEED_BYTES: usize = 64;
/// Longest name of a column or a header, and longest word of a status column, in characters. Ours.
const NAME_CHARACTERS: usize = 255;
/// Words of a status column. Ours.
const WORDS: usize = 20;
/// Audiences of one feed. Ours: an item of `DynamoDB` has at most 400 KB.
const AUDIENCES: usize = 1_000;
/// Minutes of a day, and of a week.
const DAY: u64 = 24 * 60;
const WEEK: u64 = 7 * DAY;
/// Hours of the longest rhythm: 31 days.
const MONTH_HOURS: u64 = 31 * 24;

const KINDS: &[Kind] = &[Kind::AamFiles, Kind::AepFiles, Kind::AamStream, Kind::AepStream];
const FILES: &[Kind] = &[Kind::AamFiles, Kind::AepFiles];

/// Every setting, and the kinds of feeds that have it.
const SETTINGS: [(&str, &[Kind]); 14] = [
    ("snapshots", FILES),
    ("completeness", FILES),
    ("quiet_minutes", FILES),
    ("lag_minutes", FILES),
    ("every_hours", FILES),
    ("full", &[Kind::AepFiles]),
    ("audiences", &[Kind::AepFiles, Kind::AepStream]),
    ("ecid_column", &[Kind::AepFiles]),
    ("status_column", &[Kind::AepFiles]),
    ("status_inside", &[Kind::AepFiles]),
    ("status_outside", &[Kind::AepFiles]),
    ("ecid_field", &[Kind::AamStream]),
    ("signature_header", &[Kind::AamStream]),
    ("signature", &[Kind::AamStream]),
];

/// The word for a kind, or for another choice, as settings write it.
fn word<T: serde::Serialize>(choice: T) -> String {
    json!(choice).as_str().unwrap_or_default().to_owned()
}

fn settings(kind: Kind) -> Vec<&'static str> {
    SETTINGS.iter().filter(|(_, kinds)| kinds.contains(&kind)).map(|(name, _)| *name).collect()
}

/// Reads settings one by one, and keeps what is wrong with each.
struct Reader<'a> {
    body: &'a Value,
    errors: Vec<Wrong>,
}

impl<'a> Reader<'a> {
    fn wrong(&mut self, field: &str, said: Said) {
        self.errors.push((format!("/{field}"), said));
    }

    /// What was said about a setting; absent and null leave it to its default.
    fn said(&self, field: &str) -> Option<&'a Value> {
        Some(&self.body[field]).filter(|value| !value.is_null())
    }

    fn flag(&mut self, field: &str, setting: &mut bool) {
        match self.said(field) {
            None => {}
            Some(Value::Bool(flag)) => *setting = *flag,
            Some(_) => self.wrong(field, true_or_false()),
        }
    }

    fn number(&mut self, field: &str, least: u64, most: u64, setting: &mut u64) {
        match self.said(field).map(|value| value.as_u64().filter(|number| (least..=most).contains(number))) {
            None => {}
            Some(Some(number)) => *setting = number,
            Some(None) => self.wrong(field, whole_number(least, most)),
        }
    }

    /// One of several words.
    fn choice<T: serde::Serialize + Copy>(&mut self, field: &str, choices: &[T], setting: &mut T) {
        let Some(value) = self.said(field) else { return };
        match choices.iter().find(|choice| json!(choice) == *value) {
            Some(choice) => *setting = *choice,
            None => {
                let words: Vec<String> = choices.iter().map(word).collect();
                self.wrong(field, one_of(&words.iter().map(String::as_str).collect::<Vec<_>>()));
            }
        }
    }

    fn name(&mut self, field: &str, setting: &mut Option<String>) {
        let Some(value) = self.said(field) else { return };
        match value.as_str().filter(|text| is_name(text)) {
            Some(text) => *setting = Some(text.to_owned()),
            None => {
                let detail = format!(
                    "expected the name of a column: 1 to {NAME_CHARACTERS} characters, without control characters"
                );
                self.wrong(field, Said::new("expected_column", detail).with("most", NAME_CHARACTERS));
            }
        }
    }

    fn words(&mut self, field: &str, setting: &mut Vec<String>) {
        let Some(value) = self.said(field) else { return };
        let word = |value: &Value| value.as_str().filter(|text| is_name(text)).map(str::to_owned);
        let words = value.as_array().and_then(|words| words.iter().map(word).collect::<Option<Vec<String>>>());
        match words.filter(|words| (1..=WORDS).contains(&words.len())) {
            Some(words) => *setting = words,
            None => {
                let detail = format!("expected a list of 1 to {WORDS} words such as [\"realized\"]");
                self.wrong(field, Said::new("expected_words", detail).with("most", WORDS));
            }
        }
    }

    fn audiences(&mut self, feed: &mut Feed) {
        let Some(value) = self.said("audiences") else { return };
        let audience = |value: &Value| value.as_str().and_then(AudienceId::parse).filter(|id| id.uuid().is_some());
        match value.as_array().and_then(|ids| ids.iter().map(audience).collect::<Option<_>>()) {
            Some(ids) => feed.audiences = ids,
            None => {
                let example = "[\"aep:11111111-2222-3333-4444-555555555555\"]";
                let detail = format!("expected a list of Experience Platform's audiences such as {example}");
                self.wrong("audiences", Said::new("expected_platform_audiences", detail));
            }
        }
        if feed.audiences.len() > AUDIENCES {
            let detail = format!("expected at most {AUDIENCES} audiences: declare a second feed");
            self.wrong("audiences", Said::new("too_many_audiences", detail).with("most", AUDIENCES));
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().count() <= NAME_CHARACTERS && !text.chars().any(char::is_control)
}

/// A feed as a body declares it. What is not said is left to its default, save what a feed of its kind must say.
fn read(id: &str, body: &Value) -> Answer<Feed> {
    let mut reader = Reader { body, errors: Vec::new() };
    let mut kind = Kind::default();
    reader.choice("kind", KINDS, &mut kind);
    if !reader.errors.is_empty() {
        // Which settings there may be is not known without it.
        return Err(Problem::fields(reader.errors));
    }
    let mut feed = Feed::new(id, kind);
    let mine = settings(kind);
    for field in body.as_object().into_iter().flat_map(Map::keys).filter(|field| *field != "kind") {
        if mine.contains(&field.as_str()) {
            continue;
        }
        let known = format!("kind, {}", mine.join(", "));
        let ours = format!("the settings of {} are {known}", word(kind));
        match SETTINGS.iter().find(|(name, _)| name == field) {
            Some((_, kinds)) => {
                let kinds: Vec<String> = kinds.iter().map(|kind| word(*kind)).collect();
                let detail = format!("this is a setting of {} alone; {ours}", kinds.join(" and "));
                reader.wrong(field, Said::new("setting_of_others", detail).with("known", known));
            }
            None => {
                let detail = format!("there is no such setting; {ours}");
                reader.wrong(field, Said::new("setting_unknown", detail).with("known", known));
            }
        }
    }
    if !kind.is_stream() {
        files(&mut reader, &mut feed);
    }
    match kind {
        Kind::AamFiles => {}
        Kind::AepFiles => platform_files(&mut reader, &mut feed),
        Kind::AamStream => signed_stream(&mut reader, &mut feed),
        Kind::AepStream => reader.audiences(&mut feed),
    }
    if reader.errors.is_empty() { Ok(feed) } else { Err(Problem::fields(reader.errors)) }
}

fn files(reader: &mut Reader<'_>, feed: &mut Feed) {
    if reader.said("snapshots").is_none() {
        let detail = "expected true or false: whether whoever is absent from a full delivery has left";
        reader.wrong("snapshots", Said::new("expected_snapshots", detail));
    }
    reader.flag("snapshots", &mut feed.snapshots);
    let control = if feed.kind == Kind::AamFiles { Completeness::Info } else { Completeness::Manifest };
    let choices = [Completeness::SingleFile, control, Completeness::QuietPeriod];
    reader.choice("completeness", &choices, &mut feed.completeness);
    reader.number("quiet_minutes", 1, DAY, &mut feed.quiet_minutes);
    reader.number("lag_minutes", 0, WEEK, &mut feed.lag_minutes);
    reader.number("every_hours", 1, MONTH_HOURS, &mut feed.every_hours);
}

fn platform_files(reader: &mut Reader<'_>, feed: &mut Feed) {
    reader.flag("full", &mut feed.full);
    if feed.snapshots && !feed.full {
        let detail = "a snapshot is a full export: say \"full\": true too, or \"snapshots\": false";
        reader.wrong("snapshots", Said::new("snapshots_need_full", detail));
    }
    reader.audiences(feed);
    reader.name("ecid_column", &mut feed.ecid_column);
    reader.name("status_column", &mut feed.status_column);
    reader.words("status_inside", &mut feed.status_inside);
    reader.words("status_outside", &mut feed.status_outside);
    let lower = |words: &[String]| words.iter().map(|word| word.to_lowercase()).collect::<Vec<_>>();
    let outside = lower(&feed.status_outside);
    if let Some(both) = lower(&feed.status_inside).iter().find(|word| outside.contains(word)) {
        let detail = format!("\"{both}\" stands in status_inside too: it can mean only one of both");
        reader.wrong("status_outside", Said::new("word_in_both", detail).with("word", both.clone()));
    }
}

fn signed_stream(reader: &mut Reader<'_>, feed: &mut Feed) {
    let fields = ["AAM_UUID", "DataPartner_UUID"];
    let mut field = "";
    if reader.said("ecid_field").is_none() {
        let detail = "expected \"AAM_UUID\" or \"DataPartner_UUID\": in which field of a user the destination sends the \
             ECID; ask whoever set it up at Adobe";
        reader.wrong("ecid_field", Said::new("expected_ecid_field", detail));
    }
    reader.choice("ecid_field", &fields, &mut field);
    feed.ecid_field = Some(field.to_owned());
    if let Some(header) = reader.said("signature_header") {
        let is_token = |text: &&str| {
            (1..=FEED_BYTES).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        match header.as_str().filter(is_token) {
            Some(header) => feed.signature_header = header.to_ascii_lowercase(),
            None => {
                let detail = "expected the name of a header such as \"x-signature\"";
                reader.wrong("signature_header", Said::new("expected_header", detail));
            }
        }
    }
    let signatures = [state::feeds::Signature::Sha256, state::feeds::Signature::Sha1, state::feeds::Signature::Md5];
    reader.choice("signature", &signatures, &mut feed.signature);
}

/// `GET /feeds`. The feed of files that lie in no declared folder is shown too as soon as it has brought something.
pub(crate) async fn feeds(deps: &Deps, munchkin: &MunchkinId, request: &Request) -> Answer<Response> {
    let paging = Paging::read(request)?;
    let mut rows = Vec::new();
    let found = declared(deps, munchkin).await?;
    let under_way = under_way(deps, munchkin).await?;
    if found.iter().all(|feed| feed.id != DEFAULT_FEED) {
        let state = feed_state(deps, munchkin, DEFAULT_FEED).await?;
        if state != FeedState::default() {
            let mut row = shown(&Feed::new(DEFAULT_FEED, Kind::AamFiles), &state, &under_way);
            row["declared"] = json!(false);
            rows.push(row);
        }
    }
    for feed in found {
        let state = feed_state(deps, munchkin, &feed.id).await?;
        rows.push(shown(&feed, &state, &under_way));
    }
    let id = |row: &Value| row["id"].as_str().unwrap_or_default().to_owned();
    rows.sort_by_key(id);
    let (rows, next) = paging.of(rows, id);
    Ok(paging.answer(request, rows, next))
}

/// A feed as a body declares it, if it may be declared so.
pub(crate) fn checked(id: &str, body: &Value) -> Answer<Feed> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > FEED_BYTES || !id.bytes().all(plain) {
        let detail = format!("a feed's id takes 1 to {FEED_BYTES} letters, digits, dots, hyphens and underscores");
        return Err(Problem::new(400, Said::new("feed_id", detail).with("most", FEED_BYTES)));
    }
    read(id, body)
}

/// The body of `PUT /feeds/{id}` that declares a feed again.
pub(crate) fn declaration(feed: &Feed) -> Value {
    let all = json!(feed);
    let settings = settings(feed.kind).into_iter().map(|name| (name.to_owned(), all[name].clone()));
    settings.chain([("kind".to_owned(), json!(feed.kind))]).collect()
}

/// `PUT /feeds/{id}`.
pub(crate) async fn put(deps: &Deps, munchkin: &MunchkinId, id: &str, request: &Request) -> Answer<Value> {
    let feed = checked(id, &request.json()?)?;
    let before = update(
        deps,
        Table::Syncs,
        &feed_key(munchkin, id),
        |found: Option<Feed>| match found.map(|found| found.kind) {
            Some(kind) if kind != feed.kind => Ok((None, kind)),
            _ => Ok((Some(feed.clone()), feed.kind)),
        },
        |_| None,
    )
    .await?;
    if before != feed.kind {
        let detail = format!(
            "the feed \"{id}\" was declared as {}, and what it brought was understood so: give a feed of {} another id",
            word(before),
            word(feed.kind)
        );
        return Err(Problem::at(409, "/kind", Said::new("feed_kind_kept", detail).with("feed", id)));
    }
    Ok(shown(&feed, &feed_state(deps, munchkin, id).await?, &under_way(deps, munchkin).await?))
}

/// A feed with its settings, what it brought, and what is being taken in.
fn shown(feed: &Feed, state: &FeedState, under_way: &[UnderWay]) -> Value {
    let all = json!(feed);
    let mut row = json!({"id": feed.id, "kind": feed.kind, "declared": true});
    for name in settings(feed.kind) {
        row[name] = all[name].clone();
    }
    row["lateness"] = json!(feed.lateness());
    let FeedState { named, met_at, heard_at, taken, ignored, rejected, rejects, .. } = state;
    if feed.kind.is_stream() {
        let hint = (*ignored > 0).then_some(
            "some entries were about audiences of which nobody said that they are mapped to the destination: list these \
             audiences in `audiences`, or switch on Include Segment Names at the destination",
        );
        row["came"] = json!({
            "heard_at": heard_at.map(time),
            "taken": taken,
            "ignored": ignored,
            "rejected": rejected,
            "rejects": rejects.iter().map(said::rejected).collect::<Vec<_>>(),
            "met_at": met_at.map(time),
            "hint": hint.filter(|_| feed.kind == Kind::AepStream),
        });
    } else {
        let named: BTreeMap<&AudienceId, String> = named.iter().map(|(id, at)| (id, time(*at))).collect();
        row["came"] = json!({"named": named, "met_at": met_at.map(time)});
        row["would_have_left"] = would_have_left(feed, &state.full);
        let own = under_way.iter().filter(|one| one.feed == feed.id);
        row["under_way"] = own.map(UnderWay::json).collect();
    }
    row
}

/// What a setting's truth is worth: who is absent from the last full deliveries.
fn would_have_left(feed: &Feed, full: &[FullDelivery]) -> Value {
    let total = |counts: &BTreeMap<AudienceId, u64>| counts.values().sum::<u64>();
    let rows: Vec<Value> = full
        .iter()
        .rev()
        .map(|delivery| {
            let (held, absent) = (total(&delivery.held), total(&delivery.absent));
            json!({
                "delivery": delivery.delivery,
                "time": time(delivery.time),
                "snapshot": delivery.snapshot,
                "held": delivery.held,
                "absent": delivery.absent,
                "held_total": held,
                "absent_total": absent,
                "sentence": sentence(delivery, held, absent),
            })
        })
        .collect();
    let sentence = match (rows.len(), feed.snapshots) {
        (0, true) => {
            "no full delivery has come by this feed yet: who would leave cannot be shown. Once the next one is taken in, \
             whoever is absent from it leaves"
        }
        (0, false) => "no full delivery has come by this feed yet: who would leave with snapshots cannot be shown",
        (_, true) => "whoever is absent from the next full delivery leaves; for the last ones it was so:",
        (_, false) => "nobody leaves by being absent; with \"snapshots\": true it would have been so:",
    };
    json!({"sentence": sentence, "deliveries": rows})
}

/// Counts are of browsers: a person with several may stay by another one.
fn sentence(delivery: &FullDelivery, held: u64, absent: u64) -> String {
    let what = if delivery.snapshot { "left" } else { "would have left" };
    let by: Vec<String> =
        delivery.absent.iter().filter(|(_, count)| **count > 0).map(|(id, n)| format!("{id}: {n}")).collect();
    let at = time(delivery.time);
    if absent == 0 {
        return format!("the full delivery of {at} held {held} memberships, and nobody was absent from it");
    }
    format!(
        "the full delivery of {at} held {held} memberships; {absent} of before were absent from it ({}), so that at most \
         as many people {what}",
        by.join(", ")
    )
}

/// What came of a decision.
enum Decided {
    Noted,
    NotHeld,
}

/// `POST /imports/decide`: a delivery that waits for an operator is applied or dropped. The tick takes it up. Asked
/// again, it changes nothing.
pub(crate) async fn decide(deps: &Deps, munchkin: &MunchkinId, request: &Request) -> Answer<Value> {
    let body = request.json()?;
    let mut errors = crate::orders::unknown(&body, &["import", "decision"], "");
    let apply = match body["decision"].as_str() {
        Some("apply") => Some(true),
        Some("drop") => Some(false),
        _ => None,
    };
    if apply.is_none() {
        errors.push(("/decision".into(), one_of(&["apply", "drop"])));
    }
    if !body["import"].is_string() {
        let detail = "expected the id of an import that GET /imports shows as held";
        errors.push(("/import".into(), Said::new("expected_import", detail)));
    }
    let (Some(import), Some(apply), []) = (body["import"].as_str(), apply, errors.as_slice()) else {
        return Err(Problem::fields(errors));
    };
    let found = load::<Import>(deps, Table::Syncs, &import_key(munchkin, import)).await?;
    let Some(found) = found.map(|found| found.value) else {
        let detail = "there is no import with this id; GET /imports lists them";
        return Err(Problem::at(404, "/import", Said::new("import_unknown", detail)));
    };
    let detail = "this import does not wait for a decision: GET /imports says how it stands";
    let not_held = || Problem::at(409, "/import", Said::new("import_not_held", detail));
    let delivery = found.delivery.as_ref().ok_or_else(not_held)?;
    let now = deps.now();
    let key = delivery_key(munchkin, &found.feed, delivery);
    let decided = change_delivery(deps, &key, |row: &mut Option<Delivery>| match row {
        Some(row) if row.held.is_some() => {
            row.decided = Some(apply);
            row.look_at = Some(now);
            (true, Decided::Noted)
        }
        _ => (false, Decided::NotHeld),
    })
    .await?;
    match decided {
        Decided::Noted => {
            Ok(json!({"import": import, "delivery": delivery, "feed": found.feed, "decision": body["decision"]}))
        }
        Decided::NotHeld => Err(not_held()),
    }
}

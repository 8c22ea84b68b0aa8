//! CSV files of millions of lines, made in slices: what they are made of is frozen in one object, and each request of whoever
//! waits for the file writes some parts of it. A part is made of the frozen object and of its place alone, so that whoever
//! dies, or asks twice at once, writes the same bytes once more.

use std::collections::BTreeMap;

use domain::limits::{DAY_MS, HOUR_MS};
use domain::{LeadId, LeadSet};
use ports::{Expect, Failure, Key, PortError, Table};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state::{Deps, Step, doc, time};

use crate::csv;

/// A part has at least so many bytes, but for the last one: above S3's 5 MiB. Ours: one stands in memory.
const PART_BYTES: usize = 8 << 20;
/// More than a line has, in bytes.
const LINE_BYTES: usize = 1_024;
/// Parts of one request: 250,000 to 500,000 lines. Ours: within seconds at the function's share of a processor.
const PARTS_AT_ONCE: usize = 4;
/// An address is good for so many seconds.
const ADDRESS_SECONDS: u64 = 15 * 60;
/// What is under `downloads/` expires after a day (`infra/template.yaml`): nobody is sent there after this time, in ms.
pub(crate) const KEPT_MS: u64 = DAY_MS - HOUR_MS;

/// What a sheet is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rows {
    pub(crate) v: u8,
    /// Names of the columns; the first one is of the people's ids.
    pub(crate) columns: Vec<String>,
    pub(crate) blocks: Vec<Block>,
}

/// Lines that differ by their person, and by a time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Block {
    /// The cells after the person's id.
    pub(crate) cells: Vec<String>,
    pub(crate) leads: LeadSet,
    /// A last cell with a time (ms): empty where it is not known.
    pub(crate) timed: bool,
    pub(crate) since: Option<u64>,
    pub(crate) each: BTreeMap<LeadId, u64>,
}

/// How far a sheet is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sheet {
    /// Object key of its [`Rows`].
    rows: String,
    /// Object key of the file.
    file: String,
    /// Lines without the first one.
    pub(crate) lines: u64,
    /// The upload, once it has more than one part.
    upload: Option<String>,
    /// Tags of its parts so far.
    tags: Vec<String>,
    /// The block that is written, and how many of its lines are.
    block: usize,
    line: u64,
    pub(crate) is_written: bool,
}

/// Freezes what a sheet is made of.
pub(crate) async fn begin(deps: &Deps, id: &str, rows: &Rows) -> Step<Sheet> {
    let key = format!("downloads/{id}.rows-{}", deps.fresh_id());
    let bytes = serde_json::to_vec(rows).map_err(|_| Failure::fail("a sheet cannot be written as JSON"))?;
    deps.ports.objects.put(&key, bytes.into()).await?;
    Ok(Sheet {
        rows: key,
        file: format!("downloads/{id}.csv"),
        lines: rows.blocks.iter().map(|block| block.leads.len()).sum(),
        upload: None,
        tags: Vec::new(),
        block: 0,
        line: 0,
        is_written: false,
    })
}

/// Writes some parts.
pub(crate) async fn go_on(deps: &Deps, sheet: &mut Sheet) -> Step<()> {
    if sheet.is_written {
        return Ok(());
    }
    let objects = &deps.ports.objects;
    let bytes = objects.get(&sheet.rows).await?.ok_or_else(|| Failure::fail("what a sheet is made of is gone"))?;
    let rows: Rows = serde_json::from_slice(&bytes).map_err(|_| Failure::fail("a sheet is damaged"))?;
    drop(bytes);
    for _ in 0..PARTS_AT_ONCE {
        let body = part(sheet, &rows);
        let is_last = sheet.block == rows.blocks.len();
        if is_last && sheet.tags.is_empty() {
            objects.put(&sheet.file, body.into()).await?;
            sheet.is_written = true;
            return Ok(());
        }
        let upload = match &sheet.upload {
            Some(upload) => upload.clone(),
            None => sheet.upload.insert(objects.begin_parts(&sheet.file).await?).clone(),
        };
        let number = u16::try_from(sheet.tags.len() + 1).map_err(|_| Failure::fail("a sheet of too many parts"))?;
        match objects.put_part(&sheet.file, &upload, number, body.into()).await {
            Ok(tag) => sheet.tags.push(tag),
            Err(error) => return not_taken(deps, sheet, error).await,
        }
        if is_last {
            objects.end_parts(&sheet.file, &upload, &sheet.tags).await?;
            sheet.is_written = true;
            return Ok(());
        }
    }
    Ok(())
}

/// A part was not taken. Whoever ended the upload may have died before that was noted: then the file is there, whole. An
/// upload that has taken parts and is refused now was forgotten: the file begins anew.
async fn not_taken(deps: &Deps, sheet: &mut Sheet, error: PortError) -> Step<()> {
    if deps.ports.objects.get_range(&sheet.file, 0, 1).await?.is_some() {
        sheet.is_written = true;
        return Ok(());
    }
    // One that has just begun is refused for another reason, and would be again.
    if !matches!(error, PortError::Refused { .. }) || sheet.tags.is_empty() {
        return Err(error.into());
    }
    sheet.upload = None;
    sheet.tags.clear();
    (sheet.block, sheet.line) = (0, 0);
    Ok(())
}

/// The next part: lines until there are enough bytes, or no more lines.
fn part(sheet: &mut Sheet, rows: &Rows) -> String {
    // Not grown by doubling: it stands in memory beside the sets.
    let mut text = String::with_capacity(PART_BYTES + LINE_BYTES);
    if sheet.tags.is_empty() {
        let columns: Vec<&str> = rows.columns.iter().map(String::as_str).collect();
        text.push_str(&csv::line(&columns));
    }
    while let Some(block) = rows.blocks.get(sheet.block) {
        let all_since = block.since.map(time);
        for lead in block.leads.iter().skip(usize::try_from(sheet.line).unwrap_or(usize::MAX)) {
            if text.len() >= PART_BYTES {
                return text;
            }
            let id = lead.to_string();
            let since = block.each.get(&lead).copied().map(time).or_else(|| all_since.clone()).unwrap_or_default();
            let mut cells = vec![id.as_str()];
            cells.extend(block.cells.iter().map(String::as_str));
            if block.timed {
                cells.push(&since);
            }
            text.push_str(&csv::line(&cells));
            sheet.line += 1;
        }
        sheet.block += 1;
        sheet.line = 0;
    }
    text.shrink_to_fit();
    text
}

/// `url` and `url_until`: an address of the file for a quarter of an hour, anew with each request; null where it is not
/// written yet, or expires. `made_at`: when the job began, in ms.
pub(crate) async fn address(deps: &Deps, sheet: &Sheet, made_at: u64, filename: &str) -> Step<(Value, Value)> {
    let now = deps.now();
    if !sheet.is_written || now >= made_at + KEPT_MS {
        return Ok((Value::Null, Value::Null));
    }
    let url = deps.ports.objects.sign(&sheet.file, ADDRESS_SECONDS, filename).await?;
    Ok((json!(url), json!(time(now + ADDRESS_SECONDS * 1_000))))
}

/// Writes a job's row, which the table forgets by itself after `until` (ms). `false`: somebody was faster, and has done
/// the same.
pub(crate) async fn save<T: Serialize>(deps: &Deps, key: Key, value: &T, rev: Option<u64>, until: u64) -> Step<bool> {
    let mut item = doc::item(key, value, rev, None)?;
    item.expires_at = Some(until / 1_000);
    Ok(deps.ports.tables.put(Table::Syncs, item, rev.map_or(Expect::Absent, Expect::Rev)).await?)
}

/// A job's row with its revision; `None`: there is none, or it is to be forgotten.
pub(crate) async fn find<T: DeserializeOwned>(
    deps: &Deps,
    key: &Key,
    until: impl Fn(&T) -> u64,
) -> Step<Option<state::Doc<T>>> {
    let found: Option<state::Doc<T>> = state::load(deps, Table::Syncs, key).await?;
    Ok(found.filter(|found| deps.now() < until(&found.value)))
}

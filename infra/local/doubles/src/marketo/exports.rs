//! Bulk lead extract.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::leads::{Field, joined};
use super::{Answer, LeadState, Marketo, Outcome, Refusal};
use crate::wire::{iso, parse_time, push_json};

/// Exports that run at once.
const RUNNING: usize = 2;
/// Exports that wait.
const QUEUED: usize = 10;
/// Bytes a day, over all exports.
const BYTES_A_DAY: u64 = 500 * 1024 * 1024;
/// Longest range of a filter.
const RANGE_MS: u64 = 31 * 86_400_000;
/// A file is kept for seven days; here the job goes with it (Marketo shows its status for 30).
const KEPT_MS: u64 = 7 * 86_400_000;
/// A status changes no faster than this, so asking more often is against the rules. Before scaling.
const POLL_MS: u64 = 60_000;
const ID: &str = "ce45a7a1-f19d-4ce2-882c-";

/// An export job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    fields: Vec<String>,
    headers: Vec<String>,
    filter: Filter,
    created_ms: u64,
    /// When it was put into the queue, begins and ends.
    run: Option<Run>,
    polled_ms: Option<u64>,
    cancelled: bool,
    /// Present once it has ended.
    file: Option<String>,
    records: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    queued_ms: u64,
    start_ms: u64,
    finish_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Filter {
    Created { from_ms: u64, to_ms: u64 },
    List(u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    fields: Vec<String>,
    format: Option<String>,
    #[serde(default)]
    column_header_names: std::collections::BTreeMap<String, String>,
    filter: serde_json::Map<String, serde_json::Value>,
}

/// The number in an export's id.
pub(super) fn number_of(id: &str) -> Option<u64> {
    u64::from_str_radix(id.strip_prefix(ID)?, 16).ok()
}

impl Export {
    fn status(&self, now: u64) -> &'static str {
        match (&self.run, self.cancelled) {
            (_, true) => "Cancelled",
            (None, _) => "Created",
            (Some(_), _) if self.file.is_some() => "Completed",
            (Some(run), _) if now < run.start_ms => "Queued",
            (Some(_), _) => "Processing",
        }
    }

    fn row(&self, id: u64, now: u64) -> String {
        let status = self.status(now);
        let mut out = format!(r#"{{"exportId":"{ID}{id:012x}","format":"CSV","status":"{status}""#);
        let mut date = |name: &str, at: u64| out.push_str(&format!(r#","{name}":"{}""#, iso(at)));
        date("createdAt", self.created_ms);
        if let Some(run) = &self.run {
            date("queuedAt", run.queued_ms);
            if now >= run.start_ms {
                date("startedAt", run.start_ms);
            }
            if self.file.is_some() {
                date("finishedAt", run.finish_ms);
            }
        }
        if let Some(file) = &self.file {
            let checksum = Sha256::digest(file.as_bytes()).iter().map(|b| format!("{b:02x}")).collect::<String>();
            let (records, size) = (self.records, file.len());
            out.push_str(&format!(
                r#","numberOfRecords":{records},"fileSize":{size},"fileChecksum":"sha256:{checksum}""#
            ));
        }
        out.push('}');
        out
    }
}

impl Marketo {
    pub(super) fn export_create(&mut self, now: u64, body: &[u8]) -> Outcome {
        let create: Create = serde_json::from_slice(body).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Refusal::new(1001, "Invalid value in the request"),
            _ => Refusal::new(609, "Invalid JSON"),
        })?;
        if create.fields.is_empty() {
            return Err(Refusal::missing("fields"));
        }
        if create.format.as_deref().is_some_and(|format| !format.eq_ignore_ascii_case("csv")) {
            return Err(Refusal::new(1003, "Invalid value for 'format'"));
        }
        for name in &create.fields {
            self.field(name)?;
        }
        let filter = self.filter_of(&create.filter)?;
        let headers =
            create.fields.iter().map(|name| create.column_header_names.get(name).unwrap_or(name).clone()).collect();
        let id = self.state.next_export;
        self.state.next_export += 1;
        let export = Export {
            fields: create.fields,
            headers,
            filter,
            created_ms: now,
            run: None,
            polled_ms: None,
            cancelled: false,
            file: None,
            records: 0,
        };
        let row = export.row(id, now);
        self.state.exports.insert(id, export);
        Ok(self.success(&format!("\"result\":[{row}]")))
    }

    /// Two exports run at once; one that has to wait starts when the second last before it has ended.
    pub(super) fn export_enqueue(&mut self, now: u64, id: u64) -> Outcome {
        let export = self.state.exports.get(&id).ok_or_else(|| no_export(id))?;
        if export.run.is_some() || export.cancelled {
            return Err(Refusal::new(1029, "Export job already queued"));
        }
        if self.state.exported_bytes >= BYTES_A_DAY {
            return Err(Refusal::new(1029, "Export daily quota exceeded"));
        }
        let active = self.state.exports.values().filter(|export| export.file.is_none() && !export.cancelled);
        let runs: Vec<Run> = active.filter_map(|export| export.run).collect();
        if runs.iter().filter(|run| run.start_ms > now).count() >= QUEUED {
            return Err(Refusal::new(1029, "Too many jobs in queue"));
        }
        let whole = self.scaled(self.settings.export_ms);
        let mut ends: Vec<u64> = runs.iter().map(|run| run.finish_ms).collect();
        ends.sort_unstable();
        let free = if ends.len() < RUNNING { now } else { ends[ends.len() - RUNNING] };
        let start_ms = free.max(now + whole / 4);
        let run = Run { queued_ms: now, start_ms, finish_ms: start_ms + (whole - whole / 4) };
        let answer = self.answer_with(now, id, |export| export.run = Some(run));
        self.plan_jobs();
        answer
    }

    pub(super) fn export_status(&mut self, now: u64, id: u64) -> Outcome {
        let patience = self.scaled(POLL_MS);
        let mut early_poll = false;
        let answer = self.answer_with(now, id, |export| {
            early_poll = export.polled_ms.is_some_and(|before| now < before + patience);
            export.polled_ms = Some(now);
        })?;
        Ok(Answer { early_poll, ..answer })
    }

    pub(super) fn export_cancel(&mut self, now: u64, id: u64) -> Outcome {
        let answer = self.answer_with(now, id, |export| export.cancelled |= export.file.is_none());
        self.plan_jobs();
        answer
    }

    /// The file, or the part of it that a range asks for.
    pub(super) fn export_file(&mut self, now: u64, id: u64, range: Option<&str>) -> Outcome {
        let export = self.state.exports.get(&id).ok_or_else(|| no_export(id))?;
        let Some(file) = &export.file else {
            return Err(Refusal(1003, format!("Export job is in status {}", export.status(now))));
        };
        let csv = Answer { content_type: "text/csv;charset=UTF-8", ..Answer::json(String::new()) };
        match range {
            None => Ok(Answer { body: file.clone().into_bytes(), ..csv }),
            Some(range) => match part_of(file.as_bytes(), range) {
                Some(part) => Ok(Answer { status: 206, body: part.to_vec(), ..csv }),
                None => Ok(Answer::plain(416, "Requested range not satisfiable")),
            },
        }
    }

    /// The export that ends next.
    pub(super) fn next_finished_export(&self) -> Option<(u64, u64)> {
        let open = self.state.exports.iter().filter(|(_, export)| export.file.is_none() && !export.cancelled);
        open.filter_map(|(id, export)| export.run.map(|run| (run.finish_ms, *id))).min()
    }

    /// Writes the file with what the database holds at its end.
    pub(super) fn finish_export(&mut self, now: u64, id: u64) {
        let Some(export) = self.state.exports.get(&id) else { return };
        let mut writer = csv::Writer::from_writer(Vec::new());
        let mut records = 0;
        // Writing to memory cannot fail; a file cut short would be noticed by its checksum.
        let mut complete = writer.write_record(&export.headers).is_ok();
        let fields: Vec<Field> = export.fields.iter().map(|name| self.field(name).unwrap_or(Field::Null)).collect();
        let leads = &self.state.leads;
        let chosen: Box<dyn Iterator<Item = (&u64, &LeadState)>> = match export.filter {
            Filter::Created { from_ms, to_ms } => {
                Box::new(leads.iter().filter(move |(_, lead)| (from_ms..=to_ms).contains(&lead.created_ms)))
            }
            Filter::List(list) => {
                let members = self.state.lists.get(&list).into_iter().flat_map(|list| &list.members);
                Box::new(members.filter_map(|id| leads.get_key_value(id)))
            }
        };
        for (id, lead) in chosen {
            records += 1;
            let cells = fields.iter().map(|field| {
                let cell = match field {
                    Field::Id => Some(id.to_string()),
                    Field::Email => lead.email.clone(),
                    Field::Cookies => joined(&lead.cookies),
                    Field::Ecids => joined(&lead.ecids),
                    Field::CreatedAt => Some(iso(lead.created_ms)),
                    Field::UpdatedAt => Some(iso(lead.updated_ms)),
                    Field::Null => None,
                };
                cell.unwrap_or_else(|| "null".to_owned())
            });
            complete &= writer.write_record(cells).is_ok();
        }
        let file = writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        debug_assert!(complete && now >= export.created_ms, "a file in memory can always be written");
        self.state.exported_bytes += file.len() as u64;
        if let Some(export) = self.state.exports.get_mut(&id) {
            export.records = records;
            export.file = Some(file);
        }
    }

    /// Drops the jobs whose time is over.
    pub(super) fn forget_old_exports(&mut self, now: u64) {
        self.state.exports.retain(|_, export| export.created_ms + KEPT_MS > now);
    }

    fn answer_with(&mut self, now: u64, id: u64, change: impl FnOnce(&mut Export)) -> Outcome {
        let export = self.state.exports.get_mut(&id).ok_or_else(|| no_export(id))?;
        change(export);
        let row = export.row(id, now);
        Ok(self.success(&format!("\"result\":[{row}]")))
    }

    /// Exactly one filter; dates without milliseconds; at most 31 days.
    fn filter_of(&self, filter: &serde_json::Map<String, serde_json::Value>) -> Result<Filter, Refusal> {
        let mut filters = filter.iter();
        let (Some((name, value)), None) = (filters.next(), filters.next()) else {
            return Err(Refusal::new(1003, "Exactly one filter is required"));
        };
        match name.as_str() {
            "createdAt" => {
                let time = |name: &str| {
                    let text = value.get(name).and_then(serde_json::Value::as_str);
                    let text = text.ok_or_else(|| Refusal::missing(name))?;
                    let bad = || {
                        let mut message = "Invalid value for ".to_owned();
                        push_json(&mut message, name);
                        Refusal(1003, message)
                    };
                    if text.contains('.') { Err(bad()) } else { parse_time(text).ok_or_else(bad) }
                };
                let (from_ms, to_ms) = (time("startAt")?, time("endAt")?);
                if from_ms > to_ms || to_ms - from_ms > RANGE_MS {
                    return Err(Refusal::new(1003, "Date range must be between 0 and 31 days"));
                }
                // Dates have no milliseconds: the last second counts whole.
                Ok(Filter::Created { from_ms, to_ms: to_ms + 999 })
            }
            "staticListId" => {
                let list = value.as_u64().ok_or_else(|| Refusal::new(1001, "Invalid value for 'staticListId'"))?;
                if !self.state.lists.contains_key(&list) {
                    return Err(Refusal::no_list(list));
                }
                Ok(Filter::List(list))
            }
            _ => Err(Refusal::new(1035, "Unsupported filter type for the target subscription")),
        }
    }
}

fn no_export(id: u64) -> Refusal {
    Refusal(1013, format!("Export job '{ID}{id:012x}' not found"))
}

/// `bytes=a-b`, `bytes=a-`.
fn part_of<'f>(file: &'f [u8], range: &str) -> Option<&'f [u8]> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = if to.is_empty() { usize::MAX } else { to.parse().ok()? };
    file.get(from..to.saturating_add(1).min(file.len())).filter(|part| !part.is_empty())
}

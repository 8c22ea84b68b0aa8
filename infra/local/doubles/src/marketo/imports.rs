//! Bulk lead import, as far as it fills lists: `lookupField=id` only, and the values of other columns are checked
//! but not stored.

use http::Request;
use serde::{Deserialize, Serialize};

use super::faults::message_of;
use super::{Answer, Marketo, Outcome, Refusal};
use crate::wire::{Params, form_parts, push_json};

/// Imports that run at once.
const RUNNING: usize = 2;
/// Imports that wait.
const QUEUED: usize = 10;
/// A batch can be asked about for seven days.
const KEPT_MS: u64 = 7 * 86_400_000;
/// A status is to be asked no more often than this. Before scaling.
const POLL_MS: u64 = 5_000;

/// An import job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    list: Option<u64>,
    delimiter: u8,
    /// Empty once it has ended.
    file: String,
    created_ms: u64,
    start_ms: u64,
    finish_ms: u64,
    polled_ms: Option<u64>,
    end: Option<End>,
}

/// What came of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    /// `false`: the list is gone.
    complete: bool,
    imported: usize,
    members: usize,
    failed: usize,
    warned: usize,
    /// Files in the import's format, with a column for the reason.
    failures: String,
    warnings: String,
}

impl Import {
    fn row(&self, id: u64, now: u64) -> String {
        let nothing = End::default();
        let (status, end) = match &self.end {
            Some(end) if end.complete => ("Complete", end),
            Some(end) => ("Failed", end),
            None if now < self.start_ms => ("Queued", &nothing),
            None => ("Importing", &nothing),
        };
        let End { imported, members, failed, warned, .. } = end;
        let message = match (status, failed) {
            ("Complete", 0) => format!("Import succeeded, {imported} records imported ({members} members)"),
            ("Complete", _) => {
                format!(
                    "Import completed with errors, {imported} records imported ({members} members), {failed} failed"
                )
            }
            ("Failed", _) => "Import failed: the list does not exist".to_owned(),
            _ => String::new(),
        };
        let mut out = format!(
            r#"{{"batchId":{id},"importId":"{id}","status":"{status}","numOfLeadsProcessed":{imported},"numOfRowsFailed":{failed},"numOfRowsWithWarning":{warned},"message":"#
        );
        push_json(&mut out, &message);
        out.push('}');
        out
    }
}

impl Marketo {
    /// Two imports run at once; one that has to wait starts when the second last before it has ended.
    pub(super) fn import_create(&mut self, now: u64, params: &Params<'_>, request: &Request<Vec<u8>>) -> Outcome {
        super::content_type(request, "multipart/form-data")?;
        let content_type = request.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let parts = form_parts(content_type.unwrap_or_default(), request.body());
        let parts = parts.ok_or_else(|| Refusal::new(613, message_of(613)))?;
        let file = parts.iter().find(|(name, _)| name == "file").ok_or_else(|| Refusal::missing("file"))?.1;
        let file = std::str::from_utf8(file).map_err(|_| Refusal::new(1003, "The file is not UTF-8"))?;
        let delimiter = match params.filled("format").ok_or_else(|| Refusal::missing("format"))? {
            "csv" => b',',
            "tsv" => b'\t',
            "ssv" => b';',
            _ => return Err(Refusal::new(1003, "Invalid value for parameter 'format'")),
        };
        if params.filled("lookupField") != Some("id") {
            return Err(Refusal::new(1003, "Invalid value for parameter 'lookupField'"));
        }
        let mut reader = reader(file, delimiter);
        let header = reader.headers().map_err(|_| Refusal::new(1003, "The file has no header"))?.clone();
        for name in &header {
            self.field(name.trim())?;
        }
        if !header.iter().any(|name| name.trim() == "id") {
            return Err(Refusal::new(1003, "The file has no column 'id'"));
        }
        let rows = reader.records().count();
        if rows == 0 {
            return Err(Refusal::new(1003, "The file has no rows"));
        }
        let list = params.filled("listId").map(str::parse::<u64>).transpose();
        let list = list.map_err(|_| Refusal::new(1001, "Invalid value for parameter 'listId'"))?;
        if let Some(list) = list.filter(|list| !self.state.lists.contains_key(list)) {
            return Err(Refusal::no_list(list));
        }
        let open = || self.state.imports.values().filter(|import| import.end.is_none());
        if list.is_some() && open().any(|import| import.list == list) {
            return Err(Refusal::new(1019, "The list is already being imported to"));
        }
        if open().filter(|import| import.start_ms > now).count() >= QUEUED {
            return Err(Refusal::new(1016, "Too many imports in the queue"));
        }
        let mut ends: Vec<u64> = open().map(|import| import.finish_ms).collect();
        ends.sort_unstable();
        let start_ms = if ends.len() < RUNNING { now } else { ends[ends.len() - RUNNING].max(now) };
        let id = self.state.next_import;
        self.state.next_import += 1;
        let import = Import {
            list,
            delimiter,
            file: file.to_owned(),
            created_ms: now,
            start_ms,
            finish_ms: start_ms + self.scaled(self.settings.import_ms),
            polled_ms: None,
            end: None,
        };
        self.state.imports.insert(id, import);
        self.plan_jobs();
        let row = format!(r#""result":[{{"batchId":{id},"importId":"{id}","status":"Queued"}}]"#);
        Ok(self.success(&row).with_ids(rows))
    }

    pub(super) fn import_status(&mut self, now: u64, id: u64) -> Outcome {
        let patience = self.scaled(POLL_MS);
        let import = self.state.imports.get_mut(&id).ok_or_else(|| no_import(id))?;
        let before = import.polled_ms.replace(now);
        let row = import.row(id, now);
        let early_poll = before.is_some_and(|before| now < before + patience);
        Ok(Answer { early_poll, ..self.success(&format!("\"result\":[{row}]")) })
    }

    pub(super) fn import_failures(&mut self, id: u64) -> Outcome {
        self.import_file(id, |end| &end.failures)
    }

    pub(super) fn import_warnings(&mut self, id: u64) -> Outcome {
        self.import_file(id, |end| &end.warnings)
    }

    fn import_file(&self, id: u64, of: impl Fn(&End) -> &String) -> Outcome {
        let import = self.state.imports.get(&id).ok_or_else(|| no_import(id))?;
        let end = import.end.as_ref().ok_or_else(|| Refusal::new(1003, "The import has not ended"))?;
        Ok(Answer { content_type: "text/csv;charset=UTF-8", ..Answer::json(of(end).clone()) })
    }

    /// The import that ends next.
    pub(super) fn next_finished_import(&self) -> Option<(u64, u64)> {
        let open = self.state.imports.iter().filter(|(_, import)| import.end.is_none());
        open.map(|(id, import)| (import.finish_ms, *id)).min()
    }

    /// Judges each row by what the database holds now, and fills the list.
    pub(super) fn finish_import(&mut self, now: u64, id: u64) {
        let Some(import) = self.state.imports.get_mut(&id) else { return };
        let (list, delimiter, file) = (import.list, import.delimiter, std::mem::take(&mut import.file));
        let mut end = End { complete: list.is_none_or(|list| self.state.lists.contains_key(&list)), ..End::default() };
        if end.complete {
            let joined = self.judge_rows(list, delimiter, &file, &mut end);
            if let Some(list) = list {
                self.moved(now, super::activities::ADD_TO_LIST, list, &joined);
            }
        }
        if let Some(import) = self.state.imports.get_mut(&id) {
            import.end = Some(end);
        }
    }

    /// Returns those who were not in the list before.
    fn judge_rows(&mut self, list: Option<u64>, delimiter: u8, file: &str, end: &mut End) -> Vec<u64> {
        let mut reader = reader(file, delimiter);
        // The header was read when the file came.
        let header = reader.headers().cloned().unwrap_or_default();
        let column = |wanted: &str| header.iter().position(|name| name.trim() == wanted);
        let (id_at, email_at) = (column("id").unwrap_or_default(), column("email"));
        let id_only = header.len() == 1;
        let mut failures = Reasons::new(delimiter, &header, "Import Failure Reason");
        let mut warnings = Reasons::new(delimiter, &header, "Import Warning Reason");
        let mut members = list.and_then(|list| self.state.lists.get_mut(&list)).map(|list| &mut list.members);
        let mut joined = Vec::new();
        for row in reader.records().filter_map(Result::ok) {
            let lead = row.get(id_at).and_then(|id| id.trim().parse::<u64>().ok());
            let lead = match lead {
                None => Err("Invalid value for field 'id'"),
                Some(_) if id_only && !self.settings.id_only_import => Err("No field to update"),
                Some(id) if !self.state.leads.contains_key(&id) => Err(message_of(1004)),
                Some(id) => self.refused.get(&id).map_or(Ok(id), |code| Err(message_of(*code))),
            };
            let lead = match lead {
                Ok(lead) => lead,
                Err(reason) => {
                    failures.push(&row, reason);
                    continue;
                }
            };
            if email_at.and_then(|at| row.get(at)).is_some_and(|email| !email.is_empty() && !email.contains('@')) {
                warnings.push(&row, "Invalid email address");
            }
            end.imported += 1;
            if let Some(members) = &mut members {
                end.members += 1;
                if members.insert(lead) {
                    joined.push(lead);
                }
            }
        }
        (end.failed, end.failures) = failures.done();
        (end.warned, end.warnings) = warnings.done();
        joined
    }

    /// Drops the batches whose time is over.
    pub(super) fn forget_old_imports(&mut self, now: u64) {
        self.state.imports.retain(|_, import| import.end.is_none() || import.created_ms + KEPT_MS > now);
    }
}

/// A file of rows with a reason.
struct Reasons {
    writer: csv::Writer<Vec<u8>>,
    rows: usize,
}

impl Reasons {
    fn new(delimiter: u8, header: &csv::StringRecord, column: &str) -> Self {
        let mut reasons = Self {
            writer: csv::WriterBuilder::new().delimiter(delimiter).flexible(true).from_writer(Vec::new()),
            rows: 0,
        };
        reasons.write(header, column);
        reasons
    }

    fn push(&mut self, row: &csv::StringRecord, reason: &str) {
        self.rows += 1;
        self.write(row, reason);
    }

    fn write(&mut self, row: &csv::StringRecord, last: &str) {
        // Writing to memory cannot fail.
        self.writer.write_record(row.iter().chain([last])).unwrap_or_default();
    }

    fn done(self) -> (usize, String) {
        let file = self.writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok());
        (self.rows, file.unwrap_or_default())
    }
}

fn reader(file: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(file.as_bytes())
}

fn no_import(id: u64) -> Refusal {
    Refusal(1013, format!("Batch {id} not found"))
}

//! Bulk lead import: many people into one list by one file of ids.
//!
//! What Marketo does with a file that holds nothing but ids is not confirmed, so the use of this is a setting.

use domain::{LeadId, LeadSet, ListId};
use http::Method;
use serde_json::Value;

use crate::answer::{number, read_file, text};
use crate::class::Class;
use crate::{Call, CallError, Effect, Marketo, Slot};

/// Marketo's number of an import (`batchId`), good for seven days.
pub type ImportId = u64;

/// Longest file, in bytes (Marketo, "bulk lead import": below 10 MB, read here as the smaller ten million).
const IMPORT_BYTES: usize = 10_000_000;
/// What stands around the ids, in bytes, generously.
const AROUND: usize = 1_000;
/// Digits of the longest id, and the end of its line.
const LINE: usize = 21;
/// People of one import: as many of the longest ids as the file holds.
pub const IMPORT_LEADS: usize = (IMPORT_BYTES - AROUND) / LINE;
/// The file holds digits alone, so that no boundary can stand in it.
const BOUNDARY: &str = "audience-sync-file";

/// Where an import stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportState {
    /// Queued or being read: some may be in the list already.
    Running,
    /// Done; who failed stands in a file.
    Complete,
    /// Failed as a whole: some may be in the list all the same.
    Failed,
}

/// How an import went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Import {
    /// Where it stands.
    pub state: ImportState,
    /// Rows read so far.
    pub processed: u64,
    /// Rows that failed.
    pub failed: u64,
    /// Rows with a warning.
    pub warned: u64,
}

impl Import {
    fn read(row: &Value) -> Self {
        let count = |name: &str| number(&row[name]).unwrap_or(0);
        let state = match text(&row["status"]).unwrap_or_default().to_ascii_lowercase().as_str() {
            "complete" | "completed" => ImportState::Complete,
            "failed" => ImportState::Failed,
            _ => ImportState::Running,
        };
        Self {
            state,
            processed: count("numOfLeadsProcessed"),
            failed: count("numOfRowsFailed"),
            warned: count("numOfRowsWithWarning"),
        }
    }
}

impl Marketo<'_> {
    /// Begins to add people to a list, at most [`IMPORT_LEADS`]. It is an update: it makes no leads, and repeating it
    /// does no harm. Two run and ten wait at once, over all lists; above it nothing may be sent for 5 minutes (1016),
    /// nor while another import into this list runs (1019).
    pub async fn start_import(&self, slot: Slot, list: ListId, leads: &LeadSet) -> Result<ImportId, CallError> {
        debug_assert!(leads.len() <= IMPORT_LEADS as u64, "too many for one file");
        let path = format!("/bulk/v1/leads.json?format=csv&listId={list}&lookupField=id");
        let call = Call {
            effect: Effect::Writes,
            method: Method::POST,
            path_and_query: &path,
            body: Some((CONTENT_TYPE, form_of(leads).into_bytes())),
        };
        let answer = self.call(slot, call).await?;
        let id = answer.result.first().and_then(|job| number(&job["batchId"]).or_else(|| number(&job["importId"])));
        id.ok_or_else(|| CallError::Unknown("an import without an id".to_owned()))
    }

    /// How an import goes. Ask no more often than each 30 s (Marketo: 5 to 30 s).
    pub async fn import_status(&self, slot: Slot, id: ImportId) -> Result<Import, CallError> {
        let answer = self.get(slot, &format!("/bulk/v1/leads/batch/{id}.json")).await?;
        let row = answer.result.first();
        row.map(Import::read).ok_or_else(|| ports::Failure::retry("an import without a status").into())
    }

    /// Who failed in an import, with Marketo's reason.
    pub async fn import_failures(&self, slot: Slot, id: ImportId) -> Result<Vec<(LeadId, String)>, CallError> {
        self.import_file(slot, &format!("/bulk/v1/leads/batch/{id}/failures.json")).await
    }

    /// Who was imported with a warning, with Marketo's reason.
    pub async fn import_warnings(&self, slot: Slot, id: ImportId) -> Result<Vec<(LeadId, String)>, CallError> {
        self.import_file(slot, &format!("/bulk/v1/leads/batch/{id}/warnings.json")).await
    }

    async fn import_file(&self, slot: Slot, path: &str) -> Result<Vec<(LeadId, String)>, CallError> {
        match self.resting(self.fetch(slot, &Call::get(path), read_file).await) {
            Ok(file) => Ok(parse(&file)),
            Err(error) if error.class() == Some(Class::NothingFound) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

const CONTENT_TYPE: &str = "multipart/form-data; boundary=audience-sync-file";

/// One file part: a column of ids under its name.
fn form_of(leads: &LeadSet) -> String {
    let mut form = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"ids.csv\"\r\n\
         Content-Type: text/csv\r\n\r\nid\n"
    );
    for lead in leads.iter() {
        form.push_str(&lead.to_string());
        form.push('\n');
    }
    form.push_str("\r\n--");
    form.push_str(BOUNDARY);
    form.push_str("--\r\n");
    form
}

/// Rows in the form of the import with the reason as a last column; rows without an id are left out.
fn parse(file: &[u8]) -> Vec<(LeadId, String)> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let Ok(headers) = reader.headers().cloned() else { return Vec::new() };
    let Some(id) = headers.iter().position(|header| header.trim().eq_ignore_ascii_case("id")) else {
        return Vec::new();
    };
    let row = |record: csv::StringRecord| {
        let lead = record.get(id)?.trim().parse().ok()?;
        let reason = if record.len() > 1 { record.get(record.len() - 1).unwrap_or_default() } else { "" };
        Some((lead, reason.trim().to_owned()))
    };
    reader.records().flatten().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_of_the_longest_ids_fits() {
        let some: LeadSet = (0..1_000).map(|n| u64::MAX - n).collect();
        let form = form_of(&some);
        let around = form.len() - 1_000 * LINE;
        assert!(around < AROUND && around + IMPORT_LEADS * LINE < IMPORT_BYTES, "{around}");
        assert!(CONTENT_TYPE.ends_with(BOUNDARY));
    }

    #[test]
    fn the_form_holds_one_file_with_a_column_of_ids() {
        let form = form_of(&[100_002, 100_001].into_iter().collect());
        let (head, rest) = form.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("--audience-sync-file\r\n") && head.contains("name=\"file\""), "{head}");
        assert_eq!(rest, "id\n100001\n100002\n\r\n--audience-sync-file--\r\n");
    }

    #[test]
    fn a_status_is_read_in_any_letter_case_and_an_unknown_one_is_still_running() {
        let read = |status: &str| Import::read(&json!({"batchId": 1, "status": status})).state;
        assert_eq!(["Queued", "Importing", "?"].map(read), [ImportState::Running; 3]);
        assert_eq!((read("Complete"), read("COMPLETE"), read("Failed")), {
            (ImportState::Complete, ImportState::Complete, ImportState::Failed)
        });
        let row =
            json!({"status": "Complete", "numOfLeadsProcessed": 2, "numOfRowsFailed": "1", "numOfRowsWithWarning": 0});
        let counts = Import::read(&row);
        assert_eq!((counts.processed, counts.failed, counts.warned), (2, 1, 0));
    }

    #[test]
    fn failures_are_read_back_to_people() {
        let file = b"id,Import Failure Reason\n100001,\"Lead not found, or merged\"\nx,why\n100002,\n100003\n";
        let rows = parse(file);
        let some = |lead, reason: &str| (lead, reason.to_owned());
        assert_eq!(rows, [some(100_001, "Lead not found, or merged"), some(100_002, ""), some(100_003, "")]);
        assert_eq!(parse(b""), []);
        assert_eq!(parse(b"email,Reason\na,b\n"), []);
    }
}

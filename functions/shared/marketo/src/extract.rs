//! Bulk lead extract: the ECIDs that Marketo itself has stored.

use domain::ListId;
use http::Method;
use jiff::Timestamp;
use ports::Failure;
use serde_json::{Value, json};

use crate::answer::{read_file, text};
use crate::class::Class;
use crate::{Answer, Call, CallError, Effect, JSON, LeadRow, Marketo, Slot};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtractStatus {
    /// Created, and not in Marketo's queue.
    Created,
    /// Queued or being made.
    Pending,
    /// The file is ready.
    Completed {
        /// How long it is, if Marketo says so.
        bytes: Option<u64>,
    },
    /// Failed or cancelled.
    Failed,
}

fn rfc3339(ms: u64) -> String {
    let time = Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(0)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Marketo<'_> {
    /// Creates a job over the leads created in a window (ms, at most 31 days). Returns its id.
    pub async fn create_extract(&self, slot: Slot, from: u64, upto: u64) -> Result<String, CallError> {
        let body = json!({
            "fields": ["id", "email", "cookies", "ecids"],
            "format": "CSV",
            "filter": {"createdAt": {"startAt": rfc3339(from), "endAt": rfc3339(upto)}},
        });
        self.new_extract(slot, &body).await
    }

    /// Creates a job over the members of a list, their ids alone. Returns its id.
    pub async fn create_list_extract(&self, slot: Slot, list: ListId) -> Result<String, CallError> {
        let body = json!({"fields": ["id"], "format": "CSV", "filter": {"staticListId": list}});
        self.new_extract(slot, &body).await
    }

    async fn new_extract(&self, slot: Slot, body: &Value) -> Result<String, CallError> {
        let call = Call {
            // A job that was created and not shown is never enqueued, and costs nothing.
            effect: Effect::Reads,
            method: Method::POST,
            path_and_query: "/bulk/v1/leads/export/create.json",
            body: Some((JSON, body.to_string().into_bytes())),
        };
        let answer = self.call(slot, call).await?;
        let id = answer.result.first().and_then(|job| text(&job["exportId"]));
        id.ok_or_else(|| Failure::retry("an extract without an id").into())
    }

    /// Puts a job into Marketo's queue. Code 1029 says that it is there already, or that the queue or the day's
    /// quota is full: its status tells which.
    pub async fn enqueue_extract(&self, slot: Slot, id: &str) -> Result<(), CallError> {
        let path = format!("/bulk/v1/leads/export/{id}/enqueue.json");
        let call = Call { effect: Effect::Reads, method: Method::POST, path_and_query: &path, body: None };
        match self.fetch(slot, &call, Answer::read).await {
            Ok(_) => Ok(()),
            Err(error) if error.class() == Some(Class::Later) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Where a job stands.
    pub async fn extract_status(&self, slot: Slot, id: &str) -> Result<ExtractStatus, CallError> {
        let answer = self.get(slot, &format!("/bulk/v1/leads/export/{id}/status.json")).await?;
        let status = answer.result.first().and_then(|job| text(&job["status"])).unwrap_or_default();
        Ok(match status.as_str() {
            "Created" => ExtractStatus::Created,
            "Completed" => ExtractStatus::Completed {
                bytes: answer.result.first().and_then(|job| text(&job["fileSize"])?.parse().ok()),
            },
            "Failed" | "Canceled" | "Cancelled" => ExtractStatus::Failed,
            _ => ExtractStatus::Pending,
        })
    }

    /// The file of a completed job, of at least as many bytes as its status has said. One that is cut is read again later: whoever
    /// is missing from it would be taken for somebody without ECIDs.
    pub async fn extract_file(&self, slot: Slot, id: &str, bytes: Option<u64>) -> Result<Vec<u8>, CallError> {
        let path = format!("/bulk/v1/leads/export/{id}/file.json");
        let file = self.resting(self.fetch(slot, &Call::get(&path), read_file).await)?;
        if bytes.is_some_and(|bytes| bytes > file.len() as u64) {
            return Err(Failure::retry("an extract's file came cut").into());
        }
        Ok(file)
    }
}

/// Reads the rows of an extract's file; `null` is Marketo's word for a missing value. Rows without an id are
/// left out.
#[must_use]
pub fn parse_extract(file: &[u8]) -> Vec<LeadRow> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let Ok(headers) = reader.headers().cloned() else { return Vec::new() };
    let column = |name: &str| headers.iter().position(|header| header == name);
    let (id, email, cookies, ecids) = (column("id"), column("email"), column("cookies"), column("ecids"));
    let mut rows = Vec::new();
    for record in reader.records().flatten() {
        let field = |column: Option<usize>| {
            let value = column.and_then(|column| record.get(column)).unwrap_or_default().trim();
            if value == "null" { "" } else { value }
        };
        if let Ok(id) = field(id).parse() {
            rows.push(LeadRow {
                id,
                known: !field(email).is_empty(),
                cookies: LeadRow::split_cookies(field(cookies)),
                ecids: LeadRow::split_ecids(field(ecids)),
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_missing_and_quoted_fields_are_split() {
        let (one, two) = ("1".repeat(38), "2".repeat(38));
        let file = format!(
            "id,email,cookies,ecids\n1,a@example.com,null,\"{one},{two}\"\n2,null,null,{one}\nx,,,\n3,c@example.com\n"
        );
        let rows = parse_extract(file.as_bytes());
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].known, rows[0].ecids.len()), (true, 2));
        assert_eq!((rows[1].known, rows[1].ecids.len()), (false, 1));
        assert!(rows[2].known && rows[2].ecids.is_empty());
    }
}

//! The embedded EventBridge: takes what `PutEvents` takes, and keeps it for whoever looks.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::calls::{Calls, signed_by};
use crate::{ACCOUNT, REGION, now_ms};

/// The bus that every account has.
pub const DEFAULT: &str = "default";
/// The operation, as the protocol (AWS JSON 1.1) names it.
const PUT_EVENTS: &str = "AWSEvents.PutEvents";
/// Entries of a request: the service's limit.
const ENTRIES: usize = 10;
/// Bytes of all entries of a request: the service's limit since January 2026; before, it was 256 KB.
const BYTES: usize = 1_024 * 1_024;
/// What a time counts for where an entry has one, in bytes.
const TIME_BYTES: usize = 14;
/// What an entry must have.
const REQUIRED: [&str; 3] = ["Source", "DetailType", "Detail"];
/// Sources of AWS's own services.
const RESERVED: &str = "aws.";

/// The buses of the account, and what has come by them.
#[derive(Clone)]
pub struct Buses {
    names: Arc<Vec<String>>,
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

/// The code and the message of a refusal.
type Refusal = (&'static str, String);

impl Buses {
    /// The default bus and `other`, where it is another one. Events are appended to the file at `path`, one a line, in the
    /// form in which rules and targets get them.
    pub fn open(path: &Path, other: Option<&str>) -> anyhow::Result<Self> {
        let cannot = || format!("cannot write {}", path.display());
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path).with_context(cannot)?;
        // Whoever wrote last may have died within a line: the next one is a line of its own.
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(0)).with_context(cannot)? > 0 {
            file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).with_context(cannot)?;
        }
        if last != *b"\n" {
            file.write_all(b"\n").with_context(cannot)?;
        }
        let names = [DEFAULT].into_iter().chain(other).map(str::to_owned).collect();
        Ok(Self { names: Arc::new(names), path: path.to_owned(), file: Arc::new(Mutex::new(file)) })
    }

    /// Everything that has come, the oldest first. A line that was not written to its end is left out.
    pub fn events(&self) -> anyhow::Result<Vec<Value>> {
        let bytes = std::fs::read(&self.path).context("the events of the bus")?;
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Serves the protocol until the task is aborted.
    pub async fn serve(self, listener: TcpListener, calls: Calls) {
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let buses = self.clone();
            // Whichever bus it is: the template names one.
            if let Some(caller) = signed_by(request.headers(), request.uri()) {
                calls.seen(caller, "events:PutEvents", "event-bus");
            }
            async move { Ok::<_, Infallible>(buses.handle(request).await) }
        });
        crate::http_server::serve(listener, service).await;
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let target = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok()).map(str::to_owned);
        // A request that breaks off gets no answer that anybody reads.
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let (status, answer) = match self.put(target.as_deref(), &body, now_ms()) {
            Ok(answer) => (StatusCode::OK, answer),
            Err((code, message)) => (StatusCode::BAD_REQUEST, json!({"__type": code, "message": message})),
        };
        let mut response = Response::new(Full::new(answer.to_string().into()));
        *response.status_mut() = status;
        let kind = http::HeaderValue::from_static("application/x-amz-json-1.1");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        response
    }

    /// Answers a request; each entry by itself.
    fn put(&self, target: Option<&str>, body: &[u8], now: u64) -> Result<Value, Refusal> {
        if target != Some(PUT_EVENTS) {
            return Err(("UnknownOperationException", "only PutEvents is here".to_owned()));
        }
        let request: Value = serde_json::from_slice(body)
            .map_err(|error| ("SerializationException", format!("the body is no JSON: {error}")))?;
        let invalid = |message: String| Err(("ValidationException", message));
        let Some(entries) = request["Entries"].as_array().filter(|entries| !entries.is_empty()) else {
            return invalid("Value at 'entries' failed to satisfy constraint: Member must not be empty".to_owned());
        };
        if entries.len() > ENTRIES {
            return invalid(format!(
                "Value at 'entries' failed to satisfy constraint: Member must have length less than or equal to {ENTRIES}"
            ));
        }
        if entries.iter().map(size).sum::<usize>() > BYTES {
            return invalid("Total size of the entries in the request is over the limit.".to_owned());
        }
        let answers: Vec<Result<String, Refusal>> = entries.iter().map(|entry| self.take(entry, now)).collect();
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        let shown = answers.into_iter().map(|answer| match answer {
            Ok(id) => json!({"EventId": id}),
            Err((code, message)) => json!({"ErrorCode": code, "ErrorMessage": message}),
        });
        Ok(json!({"FailedEntryCount": failed, "Entries": shown.collect::<Vec<_>>()}))
    }

    /// Keeps an entry; its id, or why it is not taken.
    fn take(&self, entry: &Value, now: u64) -> Result<String, Refusal> {
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        for name in REQUIRED {
            if text(name).is_empty() {
                let message = format!("Parameter {name} is not valid. Reason: {name} is a required argument.");
                return Err(("InvalidArgument", message));
            }
        }
        if text("Source").starts_with(RESERVED) {
            return Err(("NotAuthorizedForSourceException", "Not authorized for the source.".to_owned()));
        }
        let detail: Value = serde_json::from_str(text("Detail")).unwrap_or_default();
        if !detail.is_object() {
            return Err(("MalformedDetail", "Detail is malformed.".to_owned()));
        }
        let bus = Some(text("EventBusName")).filter(|name| !name.is_empty()).unwrap_or(DEFAULT);
        // A name or an ARN.
        let bus = bus.rsplit_once(":event-bus/").map_or(bus, |(_, name)| name);
        if !self.names.iter().any(|name| name == bus) {
            return Err(("InvalidArgument", format!("Event bus {bus} does not exist.")));
        }
        let id = uuid::Uuid::new_v4().to_string();
        // The bus of an event does not stand in it; here it says where it came.
        let event = json!({
            "version": "0",
            "id": id,
            "detail-type": text("DetailType"),
            "source": text("Source"),
            "account": ACCOUNT,
            "time": crate::s3::iso(now),
            "region": REGION,
            "resources": entry["Resources"].as_array().cloned().unwrap_or_default(),
            "detail": detail,
            "event-bus-name": bus,
        });
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write a line: whoever reads meanwhile sees whole lines.
        let written = file.write_all(format!("{event}\n").as_bytes());
        written.map_err(|error| ("InternalFailure", format!("the event cannot be kept: {error}")))?;
        Ok(id)
    }
}

/// What an entry counts for, in bytes, as EventBridge reckons it.
fn size(entry: &Value) -> usize {
    let time = if entry["Time"].is_null() { 0 } else { TIME_BYTES };
    let resources = entry["Resources"].as_array().into_iter().flatten();
    let texts = REQUIRED.iter().map(|name| &entry[*name]).chain(resources);
    time + texts.filter_map(Value::as_str).map(str::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_793_491_200_000;

    fn entry(detail: &str) -> Value {
        json!({"Source": "audience-sync", "DetailType": "Run finished", "Detail": detail})
    }

    fn without(name: &str) -> Value {
        let mut entry = entry("{}");
        entry.as_object_mut().expect("an object").remove(name);
        entry
    }

    fn with(name: &str, value: &str) -> Value {
        let mut entry = entry("{}");
        entry[name] = json!(value);
        entry
    }

    fn put(buses: &Buses, entries: &[Value]) -> Result<Value, Refusal> {
        buses.put(Some(PUT_EVENTS), json!({"Entries": entries}).to_string().as_bytes(), NOW)
    }

    #[test]
    fn events_are_kept_by_their_bus_and_outlive_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let buses = Buses::open(&path, Some("ours")).expect("buses");
        let arn = format!("arn:aws:events:{REGION}:{ACCOUNT}:event-bus/ours");
        let answer = put(&buses, &[entry(r#"{"n":1}"#), with("EventBusName", "ours"), with("EventBusName", &arn)]);
        assert_eq!(answer.expect("taken")["FailedEntryCount"], 0);
        drop(buses);
        let events = Buses::open(&path, None).expect("buses").events().expect("events");
        assert_eq!(
            (&events[0]["detail-type"], &events[0]["source"]),
            (&json!("Run finished"), &json!("audience-sync"))
        );
        assert_eq!((&events[0]["detail"], &events[0]["time"]), (&json!({"n": 1}), &json!("2026-11-01T00:00:00.000Z")));
        let names: Vec<&Value> = events.iter().map(|event| &event["event-bus-name"]).collect();
        assert_eq!(names, ["default", "ours", "ours"]);
    }

    #[test]
    fn a_line_that_was_not_written_to_its_end_takes_no_other_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        put(&Buses::open(&path, None).expect("buses"), &[entry(r#"{"n":1}"#)]).expect("taken");
        let mut torn = OpenOptions::new().append(true).open(&path).expect("the file");
        // Within a character, too.
        torn.write_all(b"{\"detail\":\"\xc3").expect("written");
        for n in 2..4 {
            let buses = Buses::open(&path, None).expect("buses");
            put(&buses, &[entry(&json!({"n": n}).to_string())]).expect("taken");
            let told: Vec<Value> =
                buses.events().expect("events").iter().map(|event| event["detail"]["n"].clone()).collect();
            assert_eq!(told, (1..=n).map(Value::from).collect::<Vec<_>>());
        }
        // No line is left empty where the last one was whole.
        assert_eq!(std::fs::read(&path).expect("bytes").split(|byte| *byte == b'\n').count(), 5);
    }

    #[test]
    fn each_entry_is_answered_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let buses = Buses::open(&folder.path().join("events.jsonl"), None).expect("buses");
        let refused = [
            (without("Source"), "InvalidArgument"),
            (without("DetailType"), "InvalidArgument"),
            (without("Detail"), "InvalidArgument"),
            (entry("{"), "MalformedDetail"),
            (entry("[]"), "MalformedDetail"),
            (with("Source", "aws.ec2"), "NotAuthorizedForSourceException"),
            (with("EventBusName", "nobody's"), "InvalidArgument"),
        ];
        let mut entries: Vec<Value> = refused.iter().map(|(entry, _)| entry.clone()).collect();
        entries.push(entry("{}"));
        let answer = put(&buses, &entries).expect("an answer");
        assert_eq!(answer["FailedEntryCount"], refused.len());
        for ((entry, code), answer) in refused.iter().zip(answer["Entries"].as_array().expect("entries")) {
            assert_eq!(answer["ErrorCode"], *code, "{entry}");
        }
        assert!(answer["Entries"][refused.len()]["EventId"].is_string());
        assert_eq!(buses.events().expect("events").len(), 1);
    }

    #[test]
    fn a_request_over_a_limit_is_refused_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let buses = Buses::open(&folder.path().join("events.jsonl"), None).expect("buses");
        let full = |bytes: usize| {
            let rest = size(&entry(r#"{"t":""}"#));
            entry(&json!({"t": "x".repeat(bytes - rest)}).to_string())
        };
        for entries in [vec![], vec![entry("{}"); ENTRIES + 1], vec![full(BYTES + 1)], vec![full(BYTES / 2 + 1); 2]] {
            assert_eq!(put(&buses, &entries).expect_err("refused").0, "ValidationException", "{}", entries.len());
        }
        assert_eq!(buses.put(None, b"{}", NOW).expect_err("refused").0, "UnknownOperationException");
        assert_eq!(buses.put(Some(PUT_EVENTS), b"{", NOW).expect_err("refused").0, "SerializationException");
        assert!(buses.events().expect("events").is_empty());
        put(&buses, &[full(BYTES)]).expect("it just fits");
        put(&buses, &vec![entry("{}"); ENTRIES]).expect("they just fit");
        assert_eq!(buses.events().expect("events").len(), 1 + ENTRIES);
    }
}

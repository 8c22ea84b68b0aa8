//! The embedded DynamoDB, and the meter in front of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use dynoxide::Database;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::calls::Calls;
use crate::template::Table;
use crate::usage::Meter;

/// How often expired items are swept. AWS promises days; a minute lets tests and users see it happen.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Opens the database file and makes the tables that are not there yet.
pub fn open(file: &Path, tables: &[Table]) -> anyhow::Result<Database> {
    let path = file.to_str().context("the data folder's path must be UTF-8")?;
    let database = Database::new(path).map_err(|error| anyhow!("DynamoDB file {path}: {error}"))?;
    // Without fsync the file survives the death of the process, not of the machine, like the queues' journal. With it
    // each item of a batch costs a write to the disk.
    database.enable_bulk_loading().map_err(|error| anyhow!("DynamoDB file {path}: {error}"))?;
    let names = database.list_tables(serde_json::from_value(json!({}))?).map_err(|error| anyhow!("{error}"))?;
    let names = serde_json::to_value(names)?;
    for table in tables {
        if names["TableNames"].as_array().is_some_and(|names| names.contains(&json!(table.name))) {
            continue;
        }
        let request = serde_json::from_value(table.create.clone()).with_context(|| format!("table {}", table.name))?;
        database.create_table(request).map_err(|error| anyhow!("table {}: {error}", table.name))?;
        if let Some(attribute) = &table.ttl {
            let request = json!({
                "TableName": table.name,
                "TimeToLiveSpecification": { "AttributeName": attribute, "Enabled": true },
            });
            database
                .update_time_to_live(serde_json::from_value(request)?)
                .map_err(|error| anyhow!("table {}: {error}", table.name))?;
        }
    }
    Ok(database)
}

/// Serves the DynamoDB protocol behind the meter until the task is aborted.
pub async fn serve(listener: TcpListener, front: Front) {
    let service = hyper::service::service_fn(move |request| {
        let front = front.clone();
        async move { front.handle(request).await }
    });
    crate::http_server::serve(listener, service).await;
}

/// Serves the DynamoDB protocol itself until the task is aborted.
pub async fn serve_unmetered(listener: TcpListener, database: Database) {
    dynoxide::server::serve_on(listener, database).await;
}

/// DynamoDB's limit of a request's unit of write, in bytes.
const WRITE_UNIT: usize = 1_024;

/// Operations whose answers can say what they consumed; `true`: they write.
const METERED: [(&str, bool); 8] = [
    ("GetItem", false),
    ("BatchGetItem", false),
    ("Query", false),
    ("Scan", false),
    ("PutItem", true),
    ("UpdateItem", true),
    ("DeleteItem", true),
    ("BatchWriteItem", true),
];

/// What a request begins with so that the answer says what it consumed, indexes included.
const ASK: &[u8] = br#"{"ReturnConsumedCapacity":"TOTAL","#;
const ASKED: &[u8] = b"\"ReturnConsumedCapacity\"";
const TOLD: &str = "ConsumedCapacity";

/// Hands each request on to DynamoDB, asks it what the request consumed, and counts that.
#[derive(Clone)]
pub struct Front {
    behind: SocketAddr,
    idle: Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>,
    meter: Meter,
}

/// Writes down which tables and indexes a request is about.
fn note_call(calls: &Calls, caller: &str, operation: &str, body: &[u8]) {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Asked {
        table_name: Option<String>,
        index_name: Option<String>,
        #[serde(default)]
        request_items: BTreeMap<String, IgnoredAny>,
    }
    let Ok(asked) = serde_json::from_slice::<Asked>(body) else { return };
    let action = format!("dynamodb:{operation}");
    for table in asked.table_name.iter().chain(asked.request_items.keys()) {
        match &asked.index_name {
            Some(index) => calls.seen(caller, &action, &format!("{table}/index/{index}")),
            None => calls.seen(caller, &action, table),
        }
    }
}

/// What DynamoDB says that a request consumed.
#[derive(Deserialize)]
#[serde(untagged)]
enum Told {
    One(Consumed),
    Many(Vec<Consumed>),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Consumed {
    table_name: String,
    capacity_units: f64,
}

impl Front {
    /// A meter in front of the server at `behind`.
    pub fn new(behind: SocketAddr, meter: Meter) -> Self {
        Self { behind, idle: Arc::default(), meter }
    }

    async fn handle(&self, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
        let (mut head, body) = request.into_parts();
        let body = body.collect().await.context("a request to DynamoDB")?.to_bytes();
        let caller = crate::caller_of(head.uri.path()).to_owned();
        let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        if self.meter.calls().are_kept() {
            note_call(self.meter.calls(), &caller, &operation, &body);
        }
        let writes = METERED.iter().find(|(name, _)| *name == operation).map(|(_, writes)| *writes);
        let ask = writes.is_some() && !contains(&body, ASKED);
        let sent = if ask { asking(&body) } else { body.clone() };
        head.uri = Uri::from_static("/");
        head.headers.remove(header::CONTENT_LENGTH);
        head.headers.remove(header::TRANSFER_ENCODING);
        let (mut head, answer) = self.send(Request::from_parts(head, Full::new(sent))).await?;
        let Some(writes) = writes else { return Ok(Response::from_parts(head, Full::new(answer))) };
        if head.status != StatusCode::OK {
            self.count_failure(&caller, &operation, &body, &answer);
            return Ok(Response::from_parts(head, Full::new(answer)));
        }
        let mut fields: BTreeMap<&str, &RawValue> = serde_json::from_slice(&answer).context("an answer of DynamoDB")?;
        let told = if ask { fields.remove(TOLD) } else { fields.get(TOLD).copied() };
        let told = told.map(|told| serde_json::from_str(told.get())).transpose().context("consumed capacity")?;
        let told = match told {
            None => vec![],
            Some(Told::One(one)) => vec![one],
            Some(Told::Many(many)) => many,
        };
        for one in told {
            self.meter.table(&caller, &one.table_name, |usage| {
                usage.requests += 1;
                if writes {
                    usage.write_units += one.capacity_units;
                } else {
                    usage.read_units += one.capacity_units;
                }
            });
        }
        if !ask {
            return Ok(Response::from_parts(head, Full::new(answer)));
        }
        let answer = Bytes::from(serde_json::to_vec(&fields).context("an answer of DynamoDB")?);
        head.headers.insert(header::CONTENT_LENGTH, answer.len().into());
        // It was of the answer as it came.
        head.headers.remove("x-amz-crc32");
        Ok(Response::from_parts(head, Full::new(answer)))
    }

    /// A write whose condition does not hold is billed too, and the answer does not say how much.
    fn count_failure(&self, caller: &str, operation: &str, body: &[u8], answer: &[u8]) {
        if !contains(answer, b"ConditionalCheckFailedException") {
            return;
        }
        let Ok(request) = serde_json::from_slice::<Value>(body) else { return };
        let Some(table) = request["TableName"].as_str() else { return };
        let size = if operation == "PutItem" { size_of(&request["Item"]) } else { 0 };
        self.meter.table(caller, table, |usage| {
            usage.requests += 1;
            usage.write_units += size.div_ceil(WRITE_UNIT).max(1) as f64;
        });
    }

    /// One exchange with the server behind, over a connection of its own.
    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(http::response::Parts, Bytes)> {
        let mut connection = self.connection().await?;
        let (head, body) = connection.send_request(request).await.context("DynamoDB did not answer")?.into_parts();
        let body = body.collect().await.context("DynamoDB did not finish its answer")?.to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok((head, body))
    }

    async fn connection(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut idle) = idle else { break };
            if idle.ready().await.is_ok() {
                return Ok(idle);
            }
        }
        let stream = TcpStream::connect(self.behind).await.context("DynamoDB is not there")?;
        stream.set_nodelay(true).context("DynamoDB's connection")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("DynamoDB's connection")?;
        tokio::spawn(async move {
            // Whoever sends over it hears of its end.
            connection.await.ok();
        });
        Ok(sender)
    }
}

/// The request with the question what it consumes.
fn asking(body: &[u8]) -> Bytes {
    let rest = body.trim_ascii_start().strip_prefix(b"{").unwrap_or(body);
    if rest.trim_ascii_start().starts_with(b"}") {
        // Malformed: DynamoDB says so better.
        return Bytes::copy_from_slice(body);
    }
    [ASK, rest].concat().into()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Size of an item by AWS's rules: names and values; numbers are about half a byte a digit and one more; 3 bytes a
/// list or map and 1 for each of its elements.
fn size_of(item: &Value) -> usize {
    item.as_object().into_iter().flatten().map(|(name, value)| name.len() + size_of_value(value)).sum()
}

fn size_of_value(value: &Value) -> usize {
    let Some((kind, value)) = value.as_object().and_then(|object| object.iter().next()) else { return 0 };
    let text = |value: &Value| value.as_str().map_or(0, str::len);
    let all = |of: &dyn Fn(&Value) -> usize| value.as_array().into_iter().flatten().map(of).sum::<usize>();
    let number = |value: &Value| text(value).div_ceil(2) + 1;
    let binary = |value: &Value| text(value) / 4 * 3;
    match kind.as_str() {
        "S" => text(value),
        "N" => number(value),
        "B" => binary(value),
        "SS" => all(&text),
        "NS" => all(&number),
        "BS" => all(&binary),
        "L" => 3 + all(&|one| 1 + size_of_value(one)),
        "M" => {
            let entries = value.as_object().into_iter().flatten();
            3 + entries.map(|(name, one)| 1 + name.len() + size_of_value(one)).sum::<usize>()
        }
        _ => 1,
    }
}

/// Sweeps expired items until the task is aborted; dynoxide does not by itself.
pub async fn sweep(database: Database) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let database = database.clone();
        match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "expired items were not swept"),
            Err(error) => tracing::warn!(%error, "expired items were not swept"),
        }
    }
}

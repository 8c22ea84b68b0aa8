//! The embedded SQS, with a journal of what was accepted.
//!
//! rustack keeps messages in memory only. Each message that a send accepted is written to a journal before the
//! answer, and each deletion too; a restart sends again whatever was not deleted. Receive counts and the time to
//! stay hidden begin anew, and a dead letter returns to the queue it came from: at least once, as SQS promises.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rustack_sqs_core::config::SqsConfig;
use rustack_sqs_core::handler::RustackSqsHandler;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::body::SqsResponseBody;
use rustack_sqs_http::dispatch::SqsHandler;
use rustack_sqs_http::response::json_response;
use rustack_sqs_http::service::{SqsHttpConfig, SqsHttpService};
use rustack_sqs_model::error::SqsError;
use rustack_sqs_model::input::{
    CreateQueueInput, DeleteMessageBatchInput, DeleteMessageInput, GetQueueAttributesInput, ReceiveMessageInput,
    SendMessageBatchInput, SendMessageInput,
};
use rustack_sqs_model::operations::SqsOperation;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::poller::{Received, Source};
use crate::template::Queue;
use crate::usage::{MAPPING, Meter, OUTSIDE, chunks};
use crate::{ACCOUNT, Pause, QueueDepth, REGION};

/// An empty journal that has grown beyond this many bytes begins anew.
const JOURNAL_RESET_BYTES: u64 = 8 * 1024 * 1024;

/// The queues of the stack.
#[derive(Clone)]
pub struct Sqs {
    provider: Arc<RustackSqs>,
    journal: Arc<Mutex<Journal>>,
    endpoint: String,
    queues: Arc<Vec<Queue>>,
    /// Held by whoever receives for a mapping, or keeps it from receiving.
    gates: Arc<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    meter: Meter,
}

impl Sqs {
    /// Makes the queues, with visibility time-outs of `visibility_s(queue)`, and sends again what the journal holds.
    pub async fn open(
        journal: &Path,
        port: u16,
        queues: Vec<Queue>,
        meter: Meter,
        visibility_s: impl Fn(&Queue) -> u64,
    ) -> anyhow::Result<Self> {
        let config = SqsConfig {
            skip_signature_validation: true,
            default_region: REGION.to_owned(),
            account_id: ACCOUNT.to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
        };
        let provider = Arc::new(RustackSqs::new(config));
        for queue in &queues {
            let mut attributes: HashMap<String, String> = queue.attributes.clone().into_iter().collect();
            attributes.insert("VisibilityTimeout".into(), visibility_s(queue).to_string());
            if queue.fifo {
                attributes.insert("FifoQueue".into(), "true".into());
            }
            if let Some((dead, most)) = &queue.redrive {
                let arn = format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{dead}");
                let policy = json!({ "deadLetterTargetArn": arn, "maxReceiveCount": most });
                attributes.insert("RedrivePolicy".into(), policy.to_string());
            }
            let input = CreateQueueInput { queue_name: queue.name.clone(), attributes, ..CreateQueueInput::default() };
            provider.create_queue(input).await.map_err(|e| anyhow!("queue {}: {}", queue.name, e.message))?;
        }
        let endpoint = format!("http://127.0.0.1:{port}");
        let left = Journal::read(journal)?;
        let next = journal.with_extension("next");
        let mut fresh = Journal::create(&next)?;
        let mut deduplication_ids = HashSet::new();
        for mut message in left {
            if !queues.iter().any(|queue| queue.name == message.queue) {
                continue;
            }
            message.input.queue_url = format!("{endpoint}/{ACCOUNT}/{}", message.queue);
            let mut input = message.input.clone();
            // Two messages may rightly bear the same id when they were sent more than five minutes apart.
            if let Some(id) = &input.message_deduplication_id
                && !deduplication_ids.insert((message.queue.clone(), input.message_group_id.clone(), id.clone()))
            {
                input.message_deduplication_id = Some(uuid::Uuid::new_v4().to_string());
            }
            let sent = provider.send_message(input).await.map_err(|e| anyhow!("replay: {}", e.message))?;
            fresh.sent(&sent.message_id.unwrap_or_default(), &message.queue, &message.input)?;
        }
        std::fs::rename(&next, journal).context("replacing the journal of the queues")?;
        fresh.path = journal.to_owned();
        let gates = queues.iter().map(|queue| (queue.name.clone(), Arc::default())).collect();
        let journal = Arc::new(Mutex::new(fresh));
        Ok(Self { provider, journal, endpoint, queues: Arc::new(queues), gates: Arc::new(gates), meter })
    }

    /// Serves the SQS protocol until the task is aborted. A request whose path begins with one of `callers` is theirs.
    pub async fn serve(self, listener: TcpListener, callers: Vec<String>) {
        let service = |caller: &str| {
            let config = SqsHttpConfig { region: REGION.to_owned(), ..SqsHttpConfig::default() };
            SqsHttpService::new(Arc::new(Handler::new(self.clone(), caller)), config)
        };
        let outside = service(OUTSIDE);
        let services: HashMap<String, _> = callers.iter().map(|caller| (caller.clone(), service(caller))).collect();
        let services = Arc::new(services);
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let service = services.get(crate::caller_of(request.uri().path())).unwrap_or(&outside);
            hyper::service::Service::call(service, request)
        });
        crate::http_server::serve(listener, service).await;
    }

    /// Keeps the queue's mapping from receiving; waits until a receive that runs has ended.
    pub async fn pause(&self, queue: &str) -> Pause {
        let gate = self.gates.get(queue).cloned().unwrap_or_default();
        Pause { _gate: gate.lock_owned().await }
    }

    /// The queue's URL.
    #[must_use]
    pub fn url(&self, queue: &str) -> String {
        format!("{}/{ACCOUNT}/{queue}", self.endpoint)
    }

    /// Sends one message to a standard queue, as another AWS service does.
    pub async fn send(&self, queue: &str, body: String) -> anyhow::Result<()> {
        let input = SendMessageInput { queue_url: self.url(queue), message_body: body, ..SendMessageInput::default() };
        self.send_message(input).await.map_err(|e| anyhow!("{queue}: {}", e.message))?;
        Ok(())
    }

    /// Sends one message to a FIFO queue.
    pub async fn send_to_group(&self, queue: &str, body: String, group: &str, dedup: &str) -> anyhow::Result<()> {
        let input = SendMessageInput {
            queue_url: self.url(queue),
            message_body: body,
            message_group_id: Some(group.to_owned()),
            message_deduplication_id: Some(dedup.to_owned()),
            ..SendMessageInput::default()
        };
        self.send_message(input).await.map_err(|e| anyhow!("{queue}: {}", e.message))?;
        Ok(())
    }

    async fn send_message(
        &self,
        input: SendMessageInput,
    ) -> Result<rustack_sqs_model::output::SendMessageOutput, SqsError> {
        let output = self.provider.send_message(input.clone()).await?;
        let queue = queue_of_url(&input.queue_url);
        self.journal().sent(output.message_id.as_deref().unwrap_or_default(), queue, &input).map_err(journal_error)?;
        Ok(output)
    }

    fn deleted<'a>(&self, receipts: impl Iterator<Item = &'a str>) -> Result<(), SqsError> {
        let mut journal = self.journal();
        for receipt in receipts {
            if let Some(id) = message_id_of_receipt(receipt) {
                journal.deleted(&id).map_err(journal_error)?;
            }
        }
        Ok(())
    }

    fn journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many messages each queue holds.
    pub async fn depths(&self) -> Vec<QueueDepth> {
        let mut depths = vec![];
        for queue in self.queues.iter() {
            let input =
                GetQueueAttributesInput { queue_url: self.url(&queue.name), attribute_names: vec!["All".to_owned()] };
            let attributes = self.provider.get_queue_attributes(input).await.map(|o| o.attributes).unwrap_or_default();
            let number = |key: &str| attributes.get(key).and_then(|text| text.parse().ok()).unwrap_or(0);
            depths.push(QueueDepth {
                name: queue.name.clone(),
                visible: number("ApproximateNumberOfMessages") + number("ApproximateNumberOfMessagesDelayed"),
                in_flight: number("ApproximateNumberOfMessagesNotVisible"),
                dead: queue.dead,
            });
        }
        depths
    }

    /// The poller's view of one queue.
    #[must_use]
    pub fn source(&self, queue: &str) -> Arc<dyn Source> {
        Arc::new(QueueSource { sqs: self.clone(), queue: queue.to_owned() })
    }
}

fn queue_of_url(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}

/// rustack's receipt handles are `base64(message id:time:nonce)`.
fn message_id_of_receipt(receipt: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(receipt).ok()?).ok()?;
    text.split_once(':').map(|(id, _)| id.to_owned())
}

fn journal_error(error: std::io::Error) -> SqsError {
    SqsError::internal_error(format!("the journal of the queues cannot be written: {error}"))
}

/// One line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Sent { id: String, message: Box<Journaled> },
    Deleted { id: String },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Journaled {
    queue: String,
    input: SendMessageInput,
}

/// Append-only; written without fsync, so it survives the death of the process, not of the machine.
struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    live: HashSet<String>,
    /// Deleted by a quick consumer before the sender got to write its line.
    early: HashSet<String>,
    /// FIFO messages of this run: a deduplicated send answers with an id that was journaled before.
    seen: HashSet<String>,
}

impl Journal {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes: 0,
            live: HashSet::new(),
            early: HashSet::new(),
            seen: HashSet::new(),
        })
    }

    /// Messages that were sent and not deleted, in the order of sending.
    fn read(path: &Path) -> anyhow::Result<Vec<Journaled>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(error).context("cannot read the journal of the queues"),
        };
        let mut sent: Vec<(String, Journaled)> = vec![];
        let mut deleted = HashSet::new();
        for line in BufReader::new(file).lines() {
            // A torn last line was never answered, so nobody counts on it.
            match serde_json::from_str(&line.context("cannot read the journal of the queues")?) {
                Ok(Line::Sent { id, message }) => sent.push((id, *message)),
                Ok(Line::Deleted { id }) => {
                    deleted.insert(id);
                }
                Err(_) => {}
            }
        }
        Ok(sent.into_iter().filter(|(id, _)| !deleted.contains(id)).map(|(_, message)| message).collect())
    }

    fn sent(&mut self, id: &str, queue: &str, input: &SendMessageInput) -> std::io::Result<()> {
        if (input.message_group_id.is_some() && !self.seen.insert(id.to_owned())) || self.early.remove(id) {
            return Ok(());
        }
        self.live.insert(id.to_owned());
        let message = Box::new(Journaled { queue: queue.to_owned(), input: input.clone() });
        self.append(&Line::Sent { id: id.to_owned(), message })
    }

    fn deleted(&mut self, id: &str) -> std::io::Result<()> {
        if !self.live.remove(id) {
            self.early.insert(id.to_owned());
            return Ok(());
        }
        if self.live.is_empty() && self.bytes > JOURNAL_RESET_BYTES {
            self.file = OpenOptions::new().write(true).truncate(true).open(&self.path)?;
            self.bytes = 0;
            return Ok(());
        }
        self.append(&Line::Deleted { id: id.to_owned() })
    }

    fn append(&mut self, line: &Line) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.bytes += text.len() as u64;
        self.file.write_all(&text)
    }
}

/// rustack's handler with our journal and our meter in front.
struct Handler {
    inner: RustackSqsHandler,
    sqs: Sqs,
    caller: String,
}

impl Handler {
    fn new(sqs: Sqs, caller: &str) -> Self {
        Self { inner: RustackSqsHandler::new(Arc::clone(&sqs.provider)), sqs, caller: caller.to_owned() }
    }

    fn count(&self, operation: &SqsOperation, body: &[u8]) {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Asked {
            #[serde(default)]
            queue_url: String,
        }
        // Without a queue's URL it is about no queue, and is counted under the empty name.
        let queue = serde_json::from_slice::<Asked>(body).map(|asked| asked.queue_url).unwrap_or_default();
        // The body is a little more than what SQS bills by: bodies and attributes of the messages.
        let requests = chunks(body.len());
        let queue = queue_of_url(&queue);
        // A batch needs the permission of its single action.
        let action = operation.as_str().trim_end_matches("Batch");
        self.sqs.meter.calls().seen(&self.caller, &format!("sqs:{action}"), queue);
        self.sqs.meter.queue(&self.caller, queue, |usage| match operation {
            SqsOperation::SendMessage | SqsOperation::SendMessageBatch => usage.sends += requests,
            SqsOperation::ReceiveMessage => usage.receives += requests,
            SqsOperation::DeleteMessage | SqsOperation::DeleteMessageBatch => usage.deletes += requests,
            _ => usage.others += requests,
        });
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<SqsResponseBody>, SqsError>> + Send>>;

impl SqsHandler for Handler {
    fn handle_operation(&self, operation: SqsOperation, body: Bytes) -> Answer {
        self.count(&operation, &body);
        let sqs = self.sqs.clone();
        match operation {
            SqsOperation::SendMessage => Box::pin(async move { answer(&sqs.send_message(parse(&body)?).await?) }),
            SqsOperation::SendMessageBatch => Box::pin(async move {
                let input: SendMessageBatchInput = parse(&body)?;
                let entries = input.entries.clone();
                let queue = queue_of_url(&input.queue_url).to_owned();
                let url = input.queue_url.clone();
                let output = sqs.provider.send_message_batch(input).await?;
                let mut journal = sqs.journal();
                for done in &output.successful {
                    let Some(entry) = entries.iter().find(|entry| entry.id == done.id) else { continue };
                    let single = SendMessageInput {
                        queue_url: url.clone(),
                        message_body: entry.message_body.clone(),
                        delay_seconds: entry.delay_seconds,
                        message_deduplication_id: entry.message_deduplication_id.clone(),
                        message_group_id: entry.message_group_id.clone(),
                        message_attributes: entry.message_attributes.clone(),
                        message_system_attributes: entry.message_system_attributes.clone(),
                    };
                    journal.sent(&done.message_id, &queue, &single).map_err(journal_error)?;
                }
                answer(&output)
            }),
            SqsOperation::DeleteMessage => Box::pin(async move {
                let input: DeleteMessageInput = parse(&body)?;
                let receipt = input.receipt_handle.clone();
                let output = sqs.provider.delete_message(input).await?;
                sqs.deleted(std::iter::once(receipt.as_str()))?;
                answer(&output)
            }),
            SqsOperation::DeleteMessageBatch => Box::pin(async move {
                let input: DeleteMessageBatchInput = parse(&body)?;
                let receipts: Vec<_> = input.entries.iter().map(|entry| entry.receipt_handle.clone()).collect();
                let output = sqs.provider.delete_message_batch(input).await?;
                sqs.deleted(receipts.iter().map(String::as_str))?;
                answer(&output)
            }),
            // A purge would have to reach the journal; nobody here needs one.
            SqsOperation::PurgeQueue | SqsOperation::DeleteQueue => Box::pin(async move {
                Err(SqsError::new(
                    rustack_sqs_model::error::SqsErrorCode::UnsupportedOperation,
                    "the local stack keeps its queues",
                ))
            }),
            _ => self.inner.handle_operation(operation, body),
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, SqsError> {
    serde_json::from_slice(body)
        .map_err(|error| SqsError::invalid_parameter_value(format!("malformed request: {error}")))
}

fn answer(output: &impl Serialize) -> Result<http::Response<SqsResponseBody>, SqsError> {
    let body = serde_json::to_vec(output).map_err(|error| SqsError::internal_error(error.to_string()))?;
    Ok(json_response(body, &uuid::Uuid::new_v4().to_string()))
}

struct QueueSource {
    sqs: Sqs,
    queue: String,
}

#[async_trait]
impl Source for QueueSource {
    async fn receive(&self, most: usize, wait: Duration) -> anyhow::Result<Vec<Received>> {
        let gate = self.sqs.gates.get(&self.queue).cloned().unwrap_or_default();
        let _open = gate.lock().await;
        let input = ReceiveMessageInput {
            queue_url: self.sqs.url(&self.queue),
            max_number_of_messages: Some(i32::try_from(most.clamp(1, 10))?),
            wait_time_seconds: Some(i32::try_from(wait.as_secs().min(20))?),
            message_system_attribute_names: vec!["All".to_owned()],
            message_attribute_names: vec!["All".to_owned()],
            ..ReceiveMessageInput::default()
        };
        let output =
            self.sqs.provider.receive_message(input).await.map_err(|e| anyhow!("{}: {}", self.queue, e.message))?;
        let received: Vec<Received> =
            output.messages.into_iter().map(|message| received(message, &self.queue)).collect();
        let bytes: usize = received.iter().map(|one| one.record["body"].as_str().map_or(0, str::len)).sum();
        self.sqs.meter.queue(MAPPING, &self.queue, |usage| {
            if received.is_empty() {
                usage.empty_receives += 1;
            } else {
                usage.receives += chunks(bytes);
            }
        });
        Ok(received)
    }

    async fn delete(&self, receipts: &[String]) -> anyhow::Result<()> {
        // As AWS's own poller: in batches of ten.
        self.sqs.meter.queue(MAPPING, &self.queue, |usage| usage.deletes += receipts.len().div_ceil(10) as u64);
        for receipt in receipts {
            let input = DeleteMessageInput { queue_url: self.sqs.url(&self.queue), receipt_handle: receipt.clone() };
            self.sqs.provider.delete_message(input).await.map_err(|e| anyhow!("{}: {}", self.queue, e.message))?;
        }
        self.sqs.deleted(receipts.iter().map(String::as_str)).map_err(|e| anyhow!(e.message))
    }
}

/// The message in the shape in which Lambda shows it to a function.
fn received(message: rustack_sqs_model::types::Message, queue: &str) -> Received {
    let attributes: serde_json::Map<String, Value> = message
        .message_attributes
        .into_iter()
        .map(|(name, value)| {
            let binary = value.binary_value.map(|bytes| STANDARD.encode(bytes));
            let mut shown = json!({ "dataType": value.data_type, "stringListValues": [], "binaryListValues": [] });
            if let Some(text) = value.string_value {
                shown["stringValue"] = json!(text);
            }
            if let Some(binary) = binary {
                shown["binaryValue"] = json!(binary);
            }
            (name, shown)
        })
        .collect();
    let group = message.attributes.get("MessageGroupId").cloned();
    let message_id = message.message_id.unwrap_or_default();
    let receipt = message.receipt_handle.unwrap_or_default();
    let record = json!({
        "messageId": message_id,
        "receiptHandle": receipt,
        "body": message.body.unwrap_or_default(),
        "attributes": message.attributes,
        "messageAttributes": attributes,
        "md5OfBody": message.md5_of_body.unwrap_or_default(),
        "eventSource": "aws:sqs",
        "eventSourceARN": format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}"),
        "awsRegion": REGION,
    });
    Received { message_id, receipt, group, record }
}

//! The ports over AWS: DynamoDB, S3, SQS, EventBridge and Secrets Manager through the SDK, HTTP through reqwest, the machine's clock and
//! randomness. Nothing here decides anything about audiences or lists.

mod absent;
mod bus;
mod connect;
mod dynamo;
mod errors;
mod http;
mod s3;
#[cfg(test)]
mod scripted;
mod sdk;
mod secrets;
mod sqs;
mod system;

pub use bus::{EventBridge, SOURCE};
pub use connect::{Names, Parts, Wiring, bus_client, connect, dynamo_client, s3_client, secrets_client, sqs_client};
pub use dynamo::DynamoTables;
pub use http::ReqwestHttp;
pub use s3::S3Objects;
pub use sdk::sdk_config;
pub use secrets::{KeptSecrets, Source};
pub use sqs::{BYTES_PER_BATCH, ENTRIES_PER_BATCH, SqsQueues};
pub use system::{SystemClock, SystemRandom};

//! The vendors' credentials and the secrets of streams, from Secrets Manager or from the environment.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use ports::{Credentials, PortError, PortResult, Secrets, StreamSecrets, Vendor};
use serde_json::Value;

use crate::errors::port_error;

const SERVICE: &str = "secretsmanager";

/// Where a vendor's credentials are kept, or the secrets of streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source<T = Credentials> {
    /// A secret of Secrets Manager, by its ARN: a JSON object, with `client_id` and `client_secret` or as
    /// [`StreamSecrets::parse`] reads it.
    SecretsManager(String),
    /// They stood in the environment, and stay as they are.
    Environment(T),
}

/// The port [`Secrets`].
#[derive(Debug, Clone)]
pub struct KeptSecrets {
    client: Client,
    sources: BTreeMap<Vendor, Source>,
    streams: Option<Source<StreamSecrets>>,
}

impl KeptSecrets {
    /// Credentials of these vendors, and secrets of streams; others are refused.
    #[must_use]
    pub const fn new(
        client: Client,
        sources: BTreeMap<Vendor, Source>,
        streams: Option<Source<StreamSecrets>>,
    ) -> Self {
        Self { client, sources, streams }
    }

    /// The text of a secret; empty if it is no text.
    async fn text(&self, arn: &str) -> PortResult<String> {
        let answer = self.client.get_secret_value().secret_id(arn).send().await;
        let answer = answer.map_err(|error| port_error(SERVICE, "GetSecretValue", &error))?;
        Ok(answer.secret_string().unwrap_or_default().to_owned())
    }
}

#[async_trait]
impl Secrets for KeptSecrets {
    async fn read(&self, vendor: Vendor) -> PortResult<Credentials> {
        match self.sources.get(&vendor) {
            None => Err(refused(vendor, "the function is given none")),
            Some(Source::Environment(credentials)) => Ok(credentials.clone()),
            Some(Source::SecretsManager(arn)) => parse(vendor, &self.text(arn).await?),
        }
    }

    async fn streams(&self) -> PortResult<StreamSecrets> {
        let refused = |why| PortError::Refused { service: SERVICE, reason: format!("secrets of streams: {why}") };
        match &self.streams {
            None => Err(refused("the function is given none".to_owned())),
            Some(Source::Environment(secrets)) => Ok(secrets.clone()),
            Some(Source::SecretsManager(arn)) => StreamSecrets::parse(&self.text(arn).await?).map_err(refused),
        }
    }
}

/// Reads a secret's text. Errors name what is wrong, never what stands there.
fn parse(vendor: Vendor, text: &str) -> PortResult<Credentials> {
    let secret = match serde_json::from_str(text) {
        Ok(Value::Object(secret)) => secret,
        _ => return Err(refused(vendor, "the secret is not a JSON object")),
    };
    let field = |name: &str| match secret.get(name).and_then(Value::as_str) {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(refused(vendor, &format!("the secret has no text `{name}`"))),
    };
    Ok(Credentials::new(field("client_id")?, field("client_secret")?))
}

fn refused(vendor: Vendor, why: &str) -> PortError {
    PortError::Refused { service: SERVICE, reason: format!("{} credentials: {why}", vendor.name()) }
}

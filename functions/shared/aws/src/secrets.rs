//! The vendors' credentials, from Secrets Manager or from the environment.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use ports::{Credentials, PortError, PortResult, Secrets, Vendor};
use serde_json::Value;

use crate::errors::port_error;

const SERVICE: &str = "secretsmanager";

/// Where a vendor's credentials are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A secret of Secrets Manager, by its ARN: a JSON object with `client_id` and `client_secret`.
    SecretsManager(String),
    /// They stood in the environment, and stay as they are.
    Environment(Credentials),
}

/// The port [`Secrets`].
#[derive(Debug, Clone)]
pub struct KeptSecrets {
    client: Client,
    sources: BTreeMap<Vendor, Source>,
}

impl KeptSecrets {
    /// Credentials of these vendors; those of others are refused.
    #[must_use]
    pub const fn new(client: Client, sources: BTreeMap<Vendor, Source>) -> Self {
        Self { client, sources }
    }
}

#[async_trait]
impl Secrets for KeptSecrets {
    async fn read(&self, vendor: Vendor) -> PortResult<Credentials> {
        match self.sources.get(&vendor) {
            None => Err(refused(vendor, "the function is given none")),
            Some(Source::Environment(credentials)) => Ok(credentials.clone()),
            Some(Source::SecretsManager(arn)) => {
                let answer = self.client.get_secret_value().secret_id(arn).send().await;
                let answer = answer.map_err(|error| port_error(SERVICE, "GetSecretValue", &error))?;
                parse(vendor, answer.secret_string().unwrap_or_default())
            }
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

//! How a message fails: each fallible step on a message path says which.

use crate::PortError;

/// Why a message was not handled.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Try this message again, after a while.
    #[error("to be tried again: {reason}")]
    Retry {
        /// Our own words; never the payload.
        reason: String,
        /// How long to wait, in ms; `None`: the runner's default of a few seconds.
        after_ms: Option<u64>,
    },
    /// No retry will mend it: it ends in the dead-letter queue.
    #[error("failed for good: {reason}")]
    Fail {
        /// Our own words; never the payload.
        reason: String,
    },
    /// A dependency is down or refuses us: the whole invocation fails, so that the poller backs off.
    #[error("a dependency is out: {reason}")]
    Outage {
        /// Our own words; never the payload.
        reason: String,
    },
}

impl Failure {
    /// Try again after the runner's default.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after_ms: None }
    }

    /// Fail for good.
    pub fn fail(reason: impl Into<String>) -> Self {
        Self::Fail { reason: reason.into() }
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Unavailable { .. } | PortError::Unknown { .. } => {
                Self::Retry { reason: error.to_string(), after_ms: None }
            }
            PortError::Refused { .. } => Self::Outage { reason: error.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_error_says_what_becomes_of_the_message() {
        let (service, reason) = ("dynamodb", "Op: why".to_owned());
        let unavailable = Failure::from(PortError::Unavailable { service, reason: reason.clone() });
        assert!(matches!(&unavailable, Failure::Retry { after_ms: None, .. }), "{unavailable}");
        let unknown = Failure::from(PortError::Unknown { service, reason: reason.clone() });
        assert!(matches!(&unknown, Failure::Retry { after_ms: None, .. }), "{unknown}");
        let refused = Failure::from(PortError::Refused { service, reason });
        assert!(matches!(&refused, Failure::Outage { .. }), "{refused}");
        assert!(refused.to_string().contains("dynamodb refused: Op: why"), "{refused}");
    }
}

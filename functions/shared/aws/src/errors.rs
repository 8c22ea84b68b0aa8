//! The one table from what an SDK call can end with to what the ports promise.

use std::error::Error as StdError;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use ports::PortError;

/// What was seen of a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symptom<'a> {
    /// The request could not be built (a missing parameter, no credentials).
    NotBuilt,
    /// No connection came about: nothing was sent.
    NotConnected,
    /// A time-out after the connection stood.
    TimedOut,
    /// The connection broke.
    Dropped,
    /// An answer came that is no answer of the service (cut short, not parseable).
    BadAnswer,
    /// The service answered with an error.
    Answered { status: u16, code: &'a str },
}

/// What a symptom means to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A conditional write's condition did not hold; nothing was written.
    ConditionFailed,
    /// The object is not there.
    NoSuchObject,
    /// The range begins behind the end of the object.
    BehindTheEnd,
    /// Certainly nothing was done; a retry may work.
    Unavailable,
    /// Nobody knows whether it was done.
    Unknown,
    /// A retry does not mend it.
    Refused,
}

/// The table. Codes: the services' API references, "Common errors" and each operation's own list.
pub(crate) fn meaning(symptom: Symptom<'_>) -> Meaning {
    match symptom {
        Symptom::NotBuilt => Meaning::Refused,
        Symptom::NotConnected => Meaning::Unavailable,
        Symptom::TimedOut | Symptom::Dropped | Symptom::BadAnswer => Meaning::Unknown,
        Symptom::Answered { status, code } => match code {
            "ConditionalCheckFailedException" => Meaning::ConditionFailed,
            "NoSuchKey" => Meaning::NoSuchObject,
            "InvalidRange" => Meaning::BehindTheEnd,
            // The services promise that a throttled request was not executed.
            "ProvisionedThroughputExceededException"
            | "ProvisionedThroughputExceeded"
            | "RequestLimitExceeded"
            | "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "KmsThrottled"
            | "SlowDown"
            | "TransactionConflictException"
            | "ReplicatedWriteConflictException" => Meaning::Unavailable,
            // S3 answers 400 `RequestTimeout` when the body did not arrive in time.
            "RequestTimeout" => Meaning::Unknown,
            _ if status == 429 => Meaning::Unavailable,
            // Without a code (a HEAD has no body) the status is all there is.
            "" if status == 404 => Meaning::NoSuchObject,
            "NotFound" if status == 404 => Meaning::NoSuchObject,
            _ if status >= 500 => Meaning::Unknown,
            _ => Meaning::Refused,
        },
    }
}

/// Reads the symptom off an SDK error.
pub(crate) fn symptom<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Symptom<'_> {
    match error {
        SdkError::ConstructionFailure(_) => Symptom::NotBuilt,
        SdkError::TimeoutError(_) => Symptom::TimedOut,
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(connector) if never_connected(connector) => Symptom::NotConnected,
            Some(connector) if connector.is_user() => Symptom::NotBuilt,
            Some(connector) if connector.is_timeout() => Symptom::TimedOut,
            _ => Symptom::Dropped,
        },
        SdkError::ResponseError(_) => Symptom::BadAnswer,
        SdkError::ServiceError(service) => Symptom::Answered {
            status: service.raw().status().as_u16(),
            code: service.err().code().unwrap_or_default(),
        },
        _ => Symptom::BadAnswer,
    }
}

/// Whether the chain says that the connection itself failed (refused, no route, name not resolved, connect
/// time-out). If the HTTP library ever changes its type, the answer is `false`: the careful side.
fn never_connected(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(client) = error.downcast_ref::<reqwest::Error>() {
            return client.is_connect();
        }
        next = error.source();
    }
    false
}

/// A port error for `error`. Its text holds the operation and the error's code, never the service's message,
/// which may quote keys and values.
pub(crate) fn port_error<E: ProvideErrorMetadata>(
    service: &'static str,
    operation: &'static str,
    error: &SdkError<E, HttpResponse>,
) -> PortError {
    from_symptom(service, operation, symptom(error))
}

/// The same, for a symptom.
pub(crate) fn from_symptom(service: &'static str, operation: &'static str, symptom: Symptom<'_>) -> PortError {
    let what = match symptom {
        Symptom::NotBuilt => "the request could not be built".to_owned(),
        Symptom::NotConnected => "no connection".to_owned(),
        Symptom::TimedOut => "time-out".to_owned(),
        Symptom::Dropped => "connection dropped".to_owned(),
        Symptom::BadAnswer => "unreadable answer".to_owned(),
        Symptom::Answered { status, code: "" } => format!("HTTP {status}"),
        Symptom::Answered { status, code } => format!("{code} (HTTP {status})"),
    };
    let reason = format!("{operation}: {what}");
    match meaning(symptom) {
        Meaning::Unavailable => PortError::Unavailable { service, reason },
        Meaning::Unknown => PortError::Unknown { service, reason },
        // The first three are answers, which the adapters take before they come here.
        Meaning::ConditionFailed | Meaning::NoSuchObject | Meaning::BehindTheEnd | Meaning::Refused => {
            PortError::Refused { service, reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_means_one_thing() {
        let answered = |status, code| Symptom::Answered { status, code };
        let table = [
            (Symptom::NotBuilt, Meaning::Refused),
            (Symptom::NotConnected, Meaning::Unavailable),
            (Symptom::TimedOut, Meaning::Unknown),
            (Symptom::Dropped, Meaning::Unknown),
            (Symptom::BadAnswer, Meaning::Unknown),
            (answered(400, "ConditionalCheckFailedException"), Meaning::ConditionFailed),
            (answered(404, "NoSuchKey"), Meaning::NoSuchObject),
            (answered(404, "NotFound"), Meaning::NoSuchObject),
            (answered(404, ""), Meaning::NoSuchObject),
            (answered(416, "InvalidRange"), Meaning::BehindTheEnd),
            (answered(400, "ProvisionedThroughputExceededException"), Meaning::Unavailable),
            (answered(400, "ThrottlingException"), Meaning::Unavailable),
            (answered(400, "RequestLimitExceeded"), Meaning::Unavailable),
            (answered(400, "TransactionConflictException"), Meaning::Unavailable),
            (answered(403, "RequestThrottled"), Meaning::Unavailable),
            (answered(503, "SlowDown"), Meaning::Unavailable),
            (answered(429, "Anything"), Meaning::Unavailable),
            (answered(400, "RequestTimeout"), Meaning::Unknown),
            (answered(500, "InternalServerError"), Meaning::Unknown),
            (answered(503, "ServiceUnavailable"), Meaning::Unknown),
            (answered(502, ""), Meaning::Unknown),
            (answered(400, "ValidationException"), Meaning::Refused),
            (answered(400, "AccessDeniedException"), Meaning::Refused),
            (answered(403, "AccessDenied"), Meaning::Refused),
            (answered(400, "ResourceNotFoundException"), Meaning::Refused),
            (answered(404, "NoSuchBucket"), Meaning::Refused),
            (answered(400, "AWS.SimpleQueueService.NonExistentQueue"), Meaning::Refused),
            (answered(400, "ExpiredTokenException"), Meaning::Refused),
            (answered(400, "UnrecognizedClientException"), Meaning::Refused),
        ];
        for (symptom, want) in table {
            assert_eq!(meaning(symptom), want, "{symptom:?}");
            let error = from_symptom("svc", "Op", symptom);
            let kind = match error {
                PortError::Unavailable { .. } => Meaning::Unavailable,
                PortError::Unknown { .. } => Meaning::Unknown,
                PortError::Refused { .. } => Meaning::Refused,
            };
            assert!(kind == want || kind == Meaning::Refused, "{symptom:?}: {error}");
        }
    }
}

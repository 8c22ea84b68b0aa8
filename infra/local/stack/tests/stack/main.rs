//! The local stack from outside: pollers over a fake and the embedded queue, and whole stacks that drive a real
//! function binary.

mod end_to_end;
mod poller;
mod real_template;
mod usage;

use std::future::Future;
use std::time::Duration;

/// How long anything here may take; a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// The SDK as the stack's functions have it; whoever makes a client says where.
fn sdk() -> aws_types::SdkConfig {
    let variable = |name: &str| match name {
        "AWS_REGION" => Some(stack::REGION.to_owned()),
        "AWS_ACCESS_KEY_ID" => Some(stack::ACCESS_KEY.to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some(stack::SECRET_KEY.to_owned()),
        _ => None,
    };
    aws::sdk_config(variable).expect("a configuration")
}

/// Polls until `what` gives something.
async fn eventually<T, F: Future<Output = Option<T>>>(name: &str, mut what: impl FnMut() -> F) -> T {
    let polled = async {
        loop {
            if let Some(found) = what().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, polled).await {
        Ok(found) => found,
        Err(_) => panic!("did not happen: {name}"),
    }
}

//! Schedules: invoke a function at a rate.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::poller::Target;
use crate::template::Schedule;
use crate::{ACCOUNT, REGION, now_ms};

/// Shortest rate, however small the time scale.
const SHORTEST: Duration = Duration::from_millis(100);

/// A schedule and its function.
#[derive(Clone)]
pub struct Ticker {
    schedule: Schedule,
    every: Duration,
    target: Arc<dyn Target>,
}

impl Ticker {
    /// A schedule whose rate is multiplied by `scale`.
    #[must_use]
    pub fn new(schedule: Schedule, scale: f64, target: Arc<dyn Target>) -> Self {
        let every = Duration::from_secs(schedule.every_s).mul_f64(scale).max(SHORTEST);
        Self { schedule, every, target }
    }

    /// Invokes the function once, and waits for it. A failed tick is not repeated: the next one is near.
    pub async fn fire(&self) {
        // The function's own log line says what failed.
        self.target.invoke(event(&self.schedule)).await.ok();
    }

    /// Ticks until `stop` turns true. A tick that comes while the one before still runs is left out.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(self.every) => {}
            }
            self.fire().await;
        }
    }
}

fn event(schedule: &Schedule) -> Bytes {
    if let Some(input) = &schedule.input {
        return Bytes::from(input.to_string());
    }
    let time = Timestamp::from_millisecond(i64::try_from(now_ms()).unwrap_or_default()).unwrap_or_default();
    let (source, resource, detail) = if schedule.scheduler {
        (
            "aws.scheduler",
            format!("arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/default/{}", schedule.name),
            json!("{}"),
        )
    } else {
        (
            "aws.events",
            format!("arn:aws:events:{REGION}:{ACCOUNT}:rule/{}", schedule.name),
            Value::Object(Default::default()),
        )
    };
    let event = json!({
        "version": "0",
        "id": uuid::Uuid::new_v4().to_string(),
        "detail-type": "Scheduled Event",
        "source": source,
        "account": ACCOUNT,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "region": REGION,
        "resources": [resource],
        "detail": detail,
    });
    Bytes::from(event.to_string())
}

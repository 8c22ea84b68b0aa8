//! [`Bus`] over EventBridge.

use async_trait::async_trait;
use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use ports::{Announcement, Bus, PortError, PortResult};

use crate::errors::port_error;

const SERVICE: &str = "eventbridge";
/// The events' source.
pub const SOURCE: &str = "audience-sync";
/// Entries of one PutEvents: the service's limit.
const ENTRIES: usize = 10;

/// A bus of EventBridge.
#[derive(Debug, Clone)]
pub struct EventBridge {
    client: Client,
    bus: String,
}

impl EventBridge {
    /// `bus`: its name or ARN.
    #[must_use]
    pub fn new(client: Client, bus: String) -> Self {
        Self { client, bus }
    }
}

#[async_trait]
impl Bus for EventBridge {
    async fn announce(&self, announcements: Vec<Announcement>) -> PortResult<()> {
        for some in announcements.chunks(ENTRIES) {
            let entries = some
                .iter()
                .map(|announcement| {
                    PutEventsRequestEntry::builder()
                        .event_bus_name(&self.bus)
                        .source(SOURCE)
                        .detail_type(announcement.kind)
                        .detail(announcement.detail.to_string())
                        .build()
                })
                .collect();
            let answer = self
                .client
                .put_events()
                .set_entries(Some(entries))
                .send()
                .await
                .map_err(|error| port_error(SERVICE, "PutEvents", &error))?;
            // Each entry is answered by itself; a code is not personal, its message might be.
            if let Some(code) = answer.entries().iter().find_map(|entry| entry.error_code()) {
                return Err(PortError::Unavailable { service: SERVICE, reason: format!("PutEvents: {code}") });
            }
        }
        Ok(())
    }
}

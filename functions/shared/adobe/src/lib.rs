//! Adobe's audience library, by REST: Audience Manager's folders and segments, and Experience Platform's folders and
//! audiences. Metadata only; no API lists members.

mod aam;
mod aep;
mod ims;

pub use aam::{Folder, Segment, folders, segment, segments};
pub use aep::{Audience, PlatformFolder, aep_folders, audience, audiences, is_used};

use serde_json::Value;

/// A number, or its digits as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

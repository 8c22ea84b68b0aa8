//! Why work is done: whoever marks a key dirty may say so, and whoever handles it passes it on.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Why there is something to do; the weakest first. Where several come together, the strongest is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Our own clock: look-ups, Marketo's activities, what is tried again.
    Schedule,
    /// A hint from a form, a webhook or a server.
    Hint,
    /// A message of a stream.
    Stream,
    /// A delivery of files.
    File,
    /// An operator.
    ByHand,
}

/// All causes that came together; empty: nobody said.
pub type Causes = BTreeSet<Cause>;

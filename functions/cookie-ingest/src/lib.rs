//! Takes in matches: an ECID seen beside a Munchkin token. It holds no secret and does not know the audiences.

mod answer;
mod beacon;
mod fields;
mod hints;
mod ingest;
mod matches;
mod message;
mod store;
mod tag;
mod warm;

pub use answer::Answer;
pub use ingest::Ingest;
pub use lambda::{Counts, HttpEvent};
pub use message::{Hint, LookAt, Match, Message, Views};
pub use store::store;

/// What the function reads from its environment.
pub const USES: lambda::Uses = lambda::Uses {
    tables: &[ports::Table::Syncs, ports::Table::Identity, ports::Table::Doorbells],
    queues: &[ports::Queue::Matches, ports::Queue::IdentityWork],
    bucket: false,
    matches: true,
    marketo: false,
    adobe: false,
    streams: false,
    access: false,
    alerts: false,
};

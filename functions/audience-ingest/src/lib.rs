//! Receives the streams of Audience Manager and of Experience Platform, verifies them, and makes them durable. It does not
//! know who is in an audience, and calls nobody.

mod answer;
mod events;
mod proof;
mod receiver;
mod token;
mod warm;

pub use answer::Answer;
pub use lambda::{Counts, HttpEvent};
pub use receiver::Receiver;

/// What the function reads from its environment.
pub const USES: lambda::Uses = lambda::Uses {
    tables: &[ports::Table::Syncs],
    queues: &[ports::Queue::Events],
    streams: true,
    ..lambda::Uses::NOTHING
};

//! Takes in matches: an ECID seen beside a Munchkin token. It holds no secret and does not know the audiences.

mod request;
mod store;

pub use request::{Answer, post_matches};
pub use store::{Match, store};

/// What the function reads from its environment.
pub const USES: lambda::Uses = lambda::Uses {
    tables: &[ports::Table::Syncs, ports::Table::Identity, ports::Table::Doorbells],
    queues: &[ports::Queue::Matches, ports::Queue::IdentityWork],
    bucket: false,
    matches: true,
    marketo: false,
    adobe: false,
};

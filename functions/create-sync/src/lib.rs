//! The control plane: browses audiences and lists, makes, shows, pauses, resumes, runs and stops syncs, answers
//! their reports, takes what operators decide about a list, and serves the console. It never writes the members of a list.
//!
//! Everything runs over the ports; a request and a response are plain values, so that Lambda, the local stack, the
//! simulation and the tests call the same [`handle`].

mod access;
mod alerts;
mod audit;
mod compare;
mod console;
mod control;
mod create;
mod csv;
mod deliveries;
mod download;
mod explain;
mod export;
mod feeds;
mod freshness;
mod library;
mod lists;
mod once;
mod orders;
mod paging;
mod people;
mod places;
mod preview;
mod problem;
mod progress;
mod routes;
mod runs;
mod said;
mod setup;
mod sheet;
mod sources;
mod view;

pub use access::{Caller, Needs, Role, SignIn};
pub use create::resume;
pub use routes::{BODY_BYTES, ROUTES, Request, Response, handle};

/// What the function reads from its environment.
pub const USES: lambda::Uses = lambda::Uses {
    tables: &ports::Table::ALL,
    queues: &[ports::Queue::IdentityWork, ports::Queue::AudienceWork, ports::Queue::ListWrites],
    bucket: true,
    matches: false,
    marketo: true,
    adobe: true,
    streams: false,
    access: true,
    alerts: false,
};

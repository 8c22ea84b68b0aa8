//! The ports' contracts as functions: every sentence of their comments, run against any implementation.
//!
//! Each function panics with the sentence that was broken. They use keys of their own (`contract/…`) and may run
//! on a store that holds other things, but only once on the same store.

mod bus;
mod objects;
mod queues;
mod tables;
mod vendors;

pub use bus::bus;
pub use objects::{addresses, objects};
pub use queues::{Handed, Receives, queues, receiving};
pub use tables::tables;
pub use vendors::{Answers, Came, adobe_answers, marketo_answers};

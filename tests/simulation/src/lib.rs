//! The whole system in one thread: the real handlers over in-memory ports on a virtual clock, from one seed.

mod arrivals;
pub mod campaign;
pub mod cloud;
pub mod counted;
pub mod deltas;
pub mod download;
pub mod driver;
pub mod fakes;
pub mod first;
pub mod import;
pub mod kinds;
pub mod lateness;
pub mod logs;
pub mod noted;
pub mod planted;
mod play;
pub mod promise;
mod refusals;
pub mod scenario;
pub mod timed;

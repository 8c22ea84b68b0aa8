//! The whole system in one thread: the real handlers over in-memory ports on a virtual clock, from one seed.

pub mod cloud;
pub mod counted;
pub mod download;
pub mod driver;
pub mod fakes;
pub mod first;
pub mod import;
pub mod promise;
pub mod scenario;
pub mod timed;

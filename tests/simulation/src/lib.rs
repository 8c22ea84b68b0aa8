//! The whole system in one thread: the real handlers over in-memory ports on a virtual clock, from one seed.

pub mod driver;
pub mod fakes;
pub mod scenario;
pub mod timed;

//! The doubles' quirks, one test each, on a virtual clock; and the shell over real HTTP.

mod activities;
mod adobe;
mod assets;
mod deliveries;
mod exports;
mod faults;
mod files;
mod http;
mod imports;
mod leads;
mod limits;
mod lists;
mod platform;
mod quota;
mod rig;
mod streams;
mod world;

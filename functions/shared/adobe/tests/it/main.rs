//! The client of Adobe's library.

mod credentials;
mod library;
mod support;

//! A world to synchronise: what Adobe's library, Marketo's database and the browsers hold, read from a folder
//! or generated from a seed.

pub mod types;

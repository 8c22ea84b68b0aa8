//! The two commands, end to end: the real `local` program, the real functions, the real embedded servers.

mod held;
mod kill;
mod people;
mod run;
mod runbook;
mod streams;
mod tests;
mod vendors;

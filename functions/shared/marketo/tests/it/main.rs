//! The client against the core of Marketo's double, and against answers that are scripted, on a virtual clock.

mod answers;
mod calls;
mod control;
mod support;
mod tokens;
mod wire;

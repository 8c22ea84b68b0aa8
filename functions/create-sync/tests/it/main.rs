//! The control plane over the doubles of Marketo and Adobe.

mod control;
mod create;
mod show;
mod support;

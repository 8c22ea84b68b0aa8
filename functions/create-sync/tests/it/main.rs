//! The control plane over the doubles of Marketo and Adobe.

mod control;
mod create;
mod lists;
mod orders;
mod show;
mod support;

//! The control plane over the doubles of Marketo and Adobe.

mod control;
mod create;
mod lists;
mod orders;
mod people;
mod show;
mod support;

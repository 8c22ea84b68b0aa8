//! The control plane over the doubles of Marketo and Adobe.

mod access;
mod console;
mod control;
mod create;
mod export;
mod feeds;
mod library;
mod lists;
mod orders;
mod people;
mod show;
mod sources;
mod support;

//! The control plane over the doubles of Marketo and Adobe.

mod access;
mod alerts;
mod at_once;
mod audit;
mod compare;
mod console;
mod contract;
mod control;
mod create;
mod download;
mod explain;
mod export;
mod feeds;
mod library;
mod lists;
mod orders;
mod people;
mod preview;
mod progress;
mod reads;
mod runs;
mod setup;
mod show;
mod sources;
mod support;

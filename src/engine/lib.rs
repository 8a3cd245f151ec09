//! Wiring: from a configuration to a running engine, and down again.
//!
//! ```text
//!   registry    declared controllers -> hosted ones
//!   host        one controller's life: kinds, watches, start, stop
//!   watches     one pump and store per kind and selector, shared
//!   route       a change of an object -> the parents to sync
//!   dispatch    the queue's shell: which parent next, on which worker
//!   sync        one sync: read, call the hook, plan; execute: do it
//!   status      conditions of controllers; tell: log lines and events; changes: the words for what children went through
//! ```
//!
//! Never speaks HTTP or Kubernetes by itself, and never decides what core decides.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod changes;
mod clock;
pub mod config;
mod dispatch;
mod execute;
mod host;
mod hosted;
mod metrics;
mod outage;
mod process;
mod registry;
mod route;
mod run;
mod status;
mod sync;
pub mod telemetry;
mod tell;
mod watches;

pub use ringmaster_cluster::Connection;
pub use run::{Engine, Error, Resync};

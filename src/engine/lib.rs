//! Wiring: from a configuration to a running engine, and down again.
//!
//! ```text
//!   registry    declared controllers -> hosted ones
//!   rival       whether Metacontroller runs, which its controllers wait for; cleanup: the finalizers of controllers that go
//!   host        one controller's life: kinds, watches, start, stop; serve: while the table gives it to this member
//!   watches     one collection per kind and scope, shared; streams: its watches; strays, unlabelled: what has no label of ours
//!   verify      what is known of gained shards is brought to where the API server is
//!   route       a change of an object -> the parents to sync
//!   dispatch    the queue's shell: which parent next, on which worker
//!   sync        one sync: read, call the hook, plan; children: what is read and put right before; execute: do it
//!   rollout     a sync of a controller that rolls: the hook for each revision, and the writes of revisions
//!   print       what is said, so that no reader holds anything up; telemetry: the log
//!   status      conditions of controllers; hook_health: how hooks' calls end; units: of one that decorates several kinds; tell: log lines and events; changes: the words for what children went through
//! ```
//!
//! Never speaks HTTP or Kubernetes by itself, and never decides what core decides.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod backend;
mod changes;
mod children;
mod cleanup;
mod clock;
pub mod config;
mod customize;
mod dispatch;
mod execute;
mod fault;
mod finalizer;
mod hook_health;
mod host;
mod hosted;
mod kinds;
mod label_all;
mod labels;
mod member;
mod metrics;
mod outage;
mod parity_metrics;
pub mod print;
mod process;
mod registry;
mod related;
mod ring_metrics;
mod rival;
mod rollout;
mod route;
mod run;
mod serve;
mod stage;
mod status;
mod strays;
mod streams;
mod sync;
pub mod telemetry;
mod tell;
mod units;
mod unlabelled;
mod verify;
mod watches;

pub use member::keeper::End;
pub use ringmaster_cluster::Connection;
pub use run::{Engine, Error, LAST_THREADS, LONGEST_LEAVE, Resync};

//! An in-memory Kubernetes API server: for development without a cluster, and for tests without a network.
//!
//! ```text
//!   http       who asks, encodings, the audit log; body, options: what they send; stream: a watch as lines; service: the
//!              same in process; tls; view: how answers are shown
//!   server     the verbs on objects; scale: those on their replicas; labels, fields: selectors; grace: that of pods
//!   shape      what a write makes of an object: kinds (built-in), schema (CRDs), patch, meta
//!   apply      server-side apply, and who manages which fields; around it: ownership, configuration, options
//!   admission  webhooks that see an object before it is created
//!   store      objects, revisions, history, watches
//!   gc, crd    what follows from a write; saved: objects as a file
//!   discovery, table   how all this is shown
//! ```
//!
//! Never part of `ringmaster run`. What it can't do gets a clear error, never a wrong answer.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod addresses;
mod admission;
pub mod answer;
pub mod apply;
pub mod audit;
pub mod auth;
pub mod body;
pub mod clock;
mod configuration;
mod crd;
mod deadline;
mod deletion;
pub mod discovery;
pub mod error;
pub mod field_error;
pub mod fields;
pub mod gc;
mod grace;
pub mod http;
pub mod kinds;
pub mod labels;
pub mod meta;
mod options;
mod ownership;
pub mod patch;
pub mod read;
pub mod registry;
pub mod request;
pub mod saved;
pub mod scale;
pub mod schema;
pub mod server;
pub mod service;
mod shape;
pub mod store;
mod stream;
pub mod table;
mod terminating;
pub mod tls;
mod view;

#[cfg(test)]
mod tests;

//! Development without a cluster: the embedded API server and the engine in one process, webhooks as processes beside it.
//!
//! ```text
//!   session    `ringmaster dev`: all of it, from start to end
//!   demo/      `ringmaster demo`: the Website example on it, and what is to be seen
//!   local      the API server on loopback: users, kubeconfig, saved objects
//!   objects    calls to it; manifests: files of objects
//!   hooks      webhook processes; sources: the files that they are made of
//! ```
//!
//! Never part of `ringmaster run`, and never listens beyond loopback.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod demo;
mod hooks;
mod local;
mod manifests;
mod objects;
pub mod session;
mod sources;

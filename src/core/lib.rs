//! Ringmaster's decisions, as functions from values to values.
//!
//! ```text
//!   key, object, managed what is known of one thing
//!   cache                what is known of all things of one kind
//!   controller, dialect  what the user declared
//!   queue                which parent is next
//!   related              which objects a parent is synced with that it doesn't own
//!   hook                 what is asked of the webhook, and what it answered
//!   plan                 (parent, children, reply) -> actions
//!   rollout              which state of its parent a child follows, and which child is next
//!   shards, table        who owns which part of the work, and how it changes hands
//!   lease                who lives, and how long one may work oneself
//!   ring                 which external shard has an object, and how it gets to another
//!   endpoints            which of a webhook's replicas is called, and how much at once
//!   watch                what to ask the API server next to stay informed of one kind
//!   condition            what a controller's status says
//!   duration             Go's durations, as users write them
//! ```
//!
//! Absent by design: clocks, randomness, tokio, kube, any I/O. Time and randomness are arguments.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod cache;
pub mod condition;
pub mod controller;
pub mod dialect;
pub mod duration;
pub mod endpoints;
pub mod hash;
pub mod hook;
pub mod key;
pub mod lease;
pub mod managed;
pub mod object;
pub mod plan;
pub mod queue;
pub mod related;
pub mod ring;
pub mod rollout;
pub mod selector;
pub mod shards;
pub mod table;
pub mod watch;

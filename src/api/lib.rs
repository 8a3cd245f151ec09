//! The kinds that we serve: their Rust types, their CRDs, and how their objects become the model that the engine knows.
//!
//! [`composite`], [`decorator`], [`revision`] and [`table`] are our own group's kinds, [`webhook`] what hooks are declared with, [`metacontroller`] the
//! kinds of Metacontroller's group. [`convert`] checks an object and turns it into [`ringmaster_core::controller::Controller`]; [`crds`] writes the YAML in `manifests/crds`.
//!
//! Never talks to an API server and never decides what a controller does.

pub mod composite;
pub mod convert;
pub mod crds;
pub mod decorator;
pub mod metacontroller;
pub mod revision;
mod schema;
pub mod table;
pub mod webhook;

pub use composite::CompositeController;
pub use convert::{Converted, Error};
pub use decorator::DecoratorController;

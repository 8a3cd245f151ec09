//! The kinds that we serve: their Rust types, their CRDs, and how their objects become the model that the engine knows.
//!
//! [`composite`], [`decorator`], [`revision`], [`table`] and [`ring`] are our own group's kinds, [`webhook`] what hooks are declared with, [`metacontroller`] the
//! kinds of Metacontroller's group, [`controller_sharding`] that of controller-sharding's. [`convert`] checks an object and turns it into [`ringmaster_core::controller::Controller`]
//! or [`ringmaster_core::ring::model::Ring`]; [`crds`] writes the YAML in `manifests/crds`.
//!
//! Never talks to an API server and never decides what a controller does.

pub mod composite;
pub mod controller_sharding;
pub mod convert;
pub mod crds;
pub mod decorator;
pub mod metacontroller;
pub mod revision;
pub mod ring;
mod schema;
pub mod table;
pub mod webhook;

pub use composite::CompositeController;
pub use convert::{Converted, Error};
pub use decorator::DecoratorController;

//! What is known of all objects of one kind: the store with its indexes, and the index of selectors.
//!
//! Never waits and never asks: the watch pump and the answers of our own writes feed it.

mod selectors;
mod store;

pub use selectors::SelectorIndex;
pub use store::{Change, FOR_EVER, MAX_TOMBSTONES, Relist, Store};

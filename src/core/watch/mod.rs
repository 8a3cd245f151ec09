//! What to ask the API server next to stay informed of one kind, how its answers read, and what they amount to.
//!
//! ```text
//!   pump        one stream: what to ask next
//!   decode      how the answers read
//!   streams     several streams of one kind, each of some shards: what each covers, how far each shard is known
//!   collection  the objects that they keep known
//! ```
//!
//! Never sends a request: the pump in `cluster` does, and tells [`Pump`] what came of it.

mod collection;
mod decode;
mod pump;
mod streams;
#[cfg(test)]
mod tests;

pub use collection::{Check, Collection, Scope, Selection};
pub use decode::{Error, Line, MAX_LINE_BYTES, Page, decode_line, decode_page};
pub use pump::{Effect, Input, PAGE_LIMIT, Pump, Request, Step};
pub use streams::{MAX_STREAMS, Resumed, StreamId, Streams, Wanted};

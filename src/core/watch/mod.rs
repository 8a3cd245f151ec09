//! What to ask the API server next to stay informed of one kind, and how its answers read.
//!
//! Never sends a request: the pump in `cluster` does, and tells [`Pump`] what came of it.

mod decode;
mod pump;

pub use decode::{Error, Line, MAX_LINE_BYTES, Page, decode_line, decode_page};
pub use pump::{Effect, Input, PAGE_LIMIT, Pump, Request, Step};

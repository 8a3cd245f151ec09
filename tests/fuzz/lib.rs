//! What the fuzzers share.

use std::alloc::System;

/// The system's memory up to a limit: libFuzzer's own limit of one allocation works only with a sanitizer.
pub type Memory = cap::Cap<System>;

/// An input may not need more, in bytes, with all that libFuzzer holds.
const MEMORY_BYTES: usize = 256 << 20;

/// For `#[global_allocator]`.
pub const fn memory() -> Memory {
    Memory::new(System, MEMORY_BYTES)
}

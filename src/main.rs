//! The `ringmaster` binary: the allocator, and the command line.

use std::process::ExitCode;

/// Gives memory back after a list; the system's allocator keeps it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ringmaster_cli::main()
}

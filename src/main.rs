//! The `ringmaster` binary: the allocator, and the command line.

use std::process::ExitCode;

use tikv_jemalloc_ctl::background_thread;

/// Gives memory back after a list; the system's allocator keeps it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // By itself it gives memory back only as more is taken, and who has little to do takes none. Where it can't have a thread
    // for that, it stays so.
    let _ = background_thread::write(true);
    ringmaster_cli::main()
}

//! The black-box suites: what Ringmaster does, seen through an API server and webhooks, never through its code.
//!
//! `cargo test --test suites` runs them; a trial is `<server>::<suite>::<name>`, with `both` for a server where the
//! two are compared, and `alone` where none is needed. No server starts for trials that are filtered out.
//! `cargo test --test suites -- --serve [DIR]` starts the real server for use by hand: it writes `DIR/kubeconfig` and
//! runs until SIGINT or SIGTERM. With `RINGMASTER_KEEP_LOGS=DIR` the logs of all processes stay.

// Helpers are here for all suites; time and tasks are the trials' own.
#![allow(dead_code, clippy::disallowed_methods)]

mod built;
mod child;
mod cluster;
mod faults;
mod faulty;
mod gate;
mod hook;
mod members;
mod objects;
mod process;
mod replicas;
mod rings;
mod scrape;
mod serve;
mod server;
mod suites;
mod trial;
mod usage;
mod wait;
mod website;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use server::ServerKind;
use trial::{Shared, Tally};

/// Trials at one time unless `--test-threads` says otherwise: most wait most of the time.
const TEST_THREADS: usize = 4;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(replicas::WORD) {
        return match replicas::serve::run(std::env::args().skip(2)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("suites {}: {error:#}", replicas::WORD);
                ExitCode::FAILURE
            }
        };
    }
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "--serve") {
        return match serve::run(words.next().map(PathBuf::from)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("suites --serve: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(TEST_THREADS);
    let servers = ServerKind::ALL.map(Shared::new);
    let tally = Arc::new(Tally::default());
    let mut trials: Vec<Trial> = suites::all().iter().flat_map(|case| case.on(&servers, &tally)).collect();
    // One server after the other, so that a reader sees where it is; the first part of a name is the server's.
    trials.sort_by_key(|trial| trial.name().split("::").next().map(str::to_owned));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        tally.lines().iter().for_each(|line| println!("{line}"));
    }
    let mut code = conclusion.exit_code();
    for server in &servers {
        if let Err(error) = server.stop() {
            eprintln!("stop the server: {error:#}");
            code = ExitCode::FAILURE;
        }
    }
    code
}

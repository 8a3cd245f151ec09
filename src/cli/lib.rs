//! The command line: one file per command.
//!
//! Never does a command's work: that is the engine's and the API crate's.

mod crds;
mod demo;
mod dev;
mod rbac;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ringmaster_engine::config::normalize_args;
use ringmaster_engine::print::Printer;

/// Kubernetes controllers whose business logic is a webhook in any language.
#[derive(Parser)]
#[command(name = "ringmaster", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controllers that a cluster declares
    Run(Box<run::Arguments>),
    /// Run with an API server of its own, and webhooks that start again when their source changes: no cluster
    Dev(Box<dev::Arguments>),
    /// Show the Website example with 200 objects and three members, live: no cluster, only Python
    Demo(demo::Arguments),
    /// Write the CRDs of all kinds as YAML
    Crds(crds::Arguments),
    /// Print the rights that ControllerRings need as YAML: Ringmaster's, or their shards'
    Rbac(rbac::Arguments),
}

/// Runs the command that the process was started with. Exit codes: 0 done, 1 failed, 2 wrong arguments or
/// configuration.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(normalize_args(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // A closed pipe leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let log = Log(Printer::start());
    match arguments.command {
        Command::Run(arguments) => run::main(*arguments, &log.0),
        Command::Dev(arguments) => dev::main(*arguments, &log.0),
        Command::Demo(arguments) => demo::main(arguments, &log.0),
        Command::Crds(arguments) => crds::main(&arguments, &log.0),
        Command::Rbac(arguments) => rbac::main(&arguments, &log.0),
    }
}

/// What goes to standard error; the last of it is waited for at every end, a panic included.
struct Log(Printer);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Prints an error with its causes, and gives the exit code back.
fn fail(log: &Printer, code: u8, error: &anyhow::Error) -> ExitCode {
    log.remark(&format!("ringmaster: {error:#}"));
    ExitCode::from(code)
}

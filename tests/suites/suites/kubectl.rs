//! Stock kubectl against both servers: the same commands, the same exit codes, the same words.
//!
//! Never passes because both servers fail alike: each step says whether it has to succeed. A trial is a theme, a theme
//! a table of steps; all steps of a theme run, so that a failure names everything that differs.

mod access;
mod create;
mod custom;
mod delete;
mod describe;
mod discover;
mod edit;
mod events;
mod normal;
mod patch;
mod read;
mod refuse;
mod rollout;
mod run;
mod step;
mod watch;
mod write;

use std::time::Duration;

use crate::cluster::Context;
use crate::trial::Case;
use step::Step;

/// How long one theme may take on both servers.
const THEME: Duration = Duration::from_secs(300);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let theme = |name: &'static str, steps: fn() -> Vec<Step>| {
        let run = move |embedded: Context, real: Context| run::theme(embedded, real, steps());
        Case::both("kubectl", name, run).timeout(THEME)
    };
    vec![
        theme("access", access::steps),
        theme("create", create::steps),
        theme("custom", custom::steps),
        theme("delete", delete::steps),
        theme("describe", describe::steps),
        theme("discover", discover::steps),
        theme("edit", edit::steps),
        theme("events", events::steps),
        theme("patch", patch::steps),
        theme("read", read::steps),
        theme("refuse", refuse::steps),
        theme("rollout", rollout::steps),
        theme("watch", watch::steps),
        theme("write", write::steps),
    ]
}

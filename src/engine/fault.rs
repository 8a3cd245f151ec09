//! Faults of this very process, for tests of what other members do about them.
//!
//! Never does anything unless the environment names an annotation, and then only to a process that syncs an object with
//! it: who may set the variable may as well kill the process.

use ringmaster_core::object::Object;
use tracing::error;

/// The variable that names the annotation.
const VARIABLE: &str = "RINGMASTER_TEST_FAULT_ANNOTATION";

/// What a sync of an annotated parent does to the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault(Option<String>);

impl Fault {
    /// As the environment says.
    pub(crate) fn of_environment() -> Self {
        Self(std::env::var(VARIABLE).ok().filter(|name| !name.is_empty()))
    }

    /// Does what the parent's annotation says: `crash` ends the process at once, `wedge` blocks the thread for ever.
    pub(crate) fn strike(&self, parent: &Object) {
        let Some(name) = &self.0 else { return };
        match parent.annotation(name).as_deref() {
            Some("crash") => {
                error!(parent = %parent.key(), "crashing, as the test wants it");
                std::process::abort();
            }
            Some("wedge") => {
                error!(parent = %parent.key(), "blocking a thread, as the test wants it");
                loop {
                    std::thread::park();
                }
            }
            _ => {}
        }
    }
}

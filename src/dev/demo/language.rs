//! The languages that the example's webhook is there in: its source, and how it is run.
//!
//! Never anything but the example as it lies in the repository: it is part of this program.

use std::time::Duration;

/// A language of the webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// `webhooks-examples/python/website`.
    #[default]
    Python,
    /// `webhooks-examples/go/website`.
    Go,
}

const PYTHON: [(&str, &str); 1] = [("hook.py", include_str!("../../../webhooks-examples/python/website/hook.py"))];
const GO: [(&str, &str); 5] = [
    ("go.mod", include_str!("../../../webhooks-examples/go/website/go.mod")),
    ("main.go", include_str!("../../../webhooks-examples/go/website/main.go")),
    ("website.go", include_str!("../../../webhooks-examples/go/website/website.go")),
    ("themes.go", include_str!("../../../webhooks-examples/go/website/themes.go")),
    ("json.go", include_str!("../../../webhooks-examples/go/website/json.go")),
];

impl Language {
    /// Its name, for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::Go => "Go",
        }
    }

    /// What must be there to run it: the program with an argument that makes it say its version, and how to get it.
    pub(crate) fn needs(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Python => ("python3", "--version", "install Python 3.9 or newer"),
            Self::Go => ("go", "version", "install Go 1.26 or newer"),
        }
    }

    /// How long it may take until it is built, and until it listens.
    pub(crate) fn start(self) -> Duration {
        match self {
            Self::Python => Duration::from_secs(20),
            Self::Go => Duration::from_secs(180),
        }
    }

    /// Its files.
    pub(crate) fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Python => &PYTHON,
            Self::Go => &GO,
        }
    }

    /// The command line that must have run once, in the folder of its files, before the webhook can.
    pub(crate) fn build(self) -> Option<&'static str> {
        match self {
            Self::Python => None,
            Self::Go => Some("go build -o hook ."),
        }
    }

    /// The command line that runs it from the folder of its files.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::Python => "exec python3 ./hook.py",
            Self::Go => "exec ./hook",
        }
    }
}

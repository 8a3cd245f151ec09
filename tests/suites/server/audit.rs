//! The API server's audit log as a count of requests.
//!
//! Never guesses: the log is written in blocking mode, inside the request's handler, so what a client has got its
//! answer to is in the file. (kube-apiserver buffers the end of an answer until the handler has returned.)

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// Only what the suites count is logged: their users, and the admin for comparison.
pub(crate) const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: [ringmaster-suites]
- level: Metadata
  users: [admin]
- level: None
";

/// A point in the log: requests that ended before it aren't counted after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u64);

/// One request that the API server answered (a watch: began to answer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditEntry {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; a lower-case HTTP method for
    /// paths that are no resources.
    pub(crate) verb: String,
    /// The API group, empty for the core group and for paths that are no resources.
    pub(crate) group: String,
    /// The plural, empty for paths that are no resources.
    pub(crate) resource: String,
    /// `status` and the like, or empty.
    pub(crate) subresource: String,
    /// The namespace, or empty.
    pub(crate) namespace: String,
    /// The object's name, or empty (lists, creates by `generateName`).
    pub(crate) name: String,
    /// The path with its query.
    pub(crate) uri: String,
    /// The HTTP code of the answer.
    pub(crate) code: u16,
}

impl AuditEntry {
    /// Whether it is a write to a resource.
    pub(crate) fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }
}

/// The present end of the log.
pub(crate) fn mark(log: &Path) -> anyhow::Result<Mark> {
    // Before the first logged request there is no file.
    Ok(Mark(std::fs::metadata(log).map_or(0, |metadata| metadata.len())))
}

/// The requests of `user` since `mark`, in the order of their ends. A watch counts once, when it begins.
pub(crate) fn read(log: &Path, user: &str, mark: Mark) -> anyhow::Result<Vec<AuditEntry>> {
    let context = || format!("audit log {}", log.display());
    let mut file = match File::open(log) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(context)?,
    };
    file.seek(SeekFrom::Start(mark.0)).with_context(context)?;
    let mut text = String::new();
    BufReader::new(file).read_to_string(&mut text).with_context(context)?;
    // A line that is being written has no end yet.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut entries = Vec::new();
    // Most lines are other users'.
    for line in complete.lines().filter(|line| line.contains(user)) {
        let event: Value = serde_json::from_str(line).with_context(context)?;
        let watch_end = event["verb"] == "watch" && event["stage"] != "ResponseStarted";
        if event["user"]["username"] == user && !watch_end {
            entries.push(entry(&event));
        }
    }
    Ok(entries)
}

fn entry(event: &Value) -> AuditEntry {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    AuditEntry {
        verb: text(&event["verb"]),
        group: text(&object["apiGroup"]),
        resource: text(&object["resource"]),
        subresource: text(&object["subresource"]),
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        uri: text(&event["requestURI"]),
        code: event["responseStatus"]["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
    }
}

//! The audit log: one JSON line for each request, in the shape of the real server's `audit.k8s.io/v1` events.
//!
//! Never buffers: a line is with the operating system when [`Audit::record`] returns, so it is in the file before the
//! answer goes out. Never rotates the file, and never records bodies.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::auth::{self, User};
use crate::error::Error as Answered;
use crate::request::{Request, Verb};

/// Why nothing is recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be opened.
    #[error("audit log {path}: cannot be opened for appending: {source}; name a file in a folder that can be written")]
    Open {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A line can't be written.
    #[error("audit log: a line cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// One request and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Who asked.
    pub user: &'a User,
    /// The HTTP method.
    pub method: &'a Method,
    /// The path with its query, as it was sent.
    pub uri: &'a str,
    /// What was asked for; `None` for paths that aren't about objects.
    pub request: Option<&'a Request>,
    /// `metadata.name` in the body of a create, empty if it has none: the path doesn't name the object.
    pub created: &'a str,
    /// The HTTP code of a success, or the error.
    pub answer: Result<u16, &'a Answered>,
    /// Now, in RFC 3339.
    pub time: &'a str,
}

/// The log.
#[derive(Debug)]
pub struct Audit {
    file: Mutex<File>,
}

impl Audit {
    /// Appends to a file, which is made if it isn't there.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn to_file(path: &Path) -> Result<Self, Error> {
        let open = OpenOptions::new().create(true).append(true).open(path);
        let file = open.map_err(|source| Error::Open { path: path.display().to_string(), source })?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Records a request. Call it when the answer is known and before its first byte is sent: for a watch when it
    /// starts, and then not again.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn record(&self, record: &Record<'_>) -> Result<(), Error> {
        let mut line = event(record).to_string();
        line.push('\n');
        // One write for one line, so that a reader sees whole lines but for the last; a File has no buffer of its own.
        self.file.lock().write_all(line.as_bytes())?;
        Ok(())
    }
}

/// The event of a request.
fn event(record: &Record<'_>) -> Value {
    let watch = record.request.is_some_and(|request| request.verb == Verb::Watch);
    let verb = record.request.map_or_else(|| record.method.as_str().to_lowercase(), |r| r.verb.name().to_owned());
    let status = match record.answer {
        Ok(code) => json!({ "metadata": {}, "code": code }),
        Err(error) => {
            let mut status = error.status();
            if let Some(map) = status.as_object_mut() {
                map.remove("kind");
                map.remove("apiVersion");
            }
            status
        }
    };
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
        "stage": if watch { "ResponseStarted" } else { "ResponseComplete" },
        "requestURI": record.uri, "verb": verb,
        "user": { "username": record.user.name, "groups": record.user.groups },
        "responseStatus": status, "stageTimestamp": record.time,
    });
    if let Some(request) = record.request {
        event["objectRef"] = object(request, record.created);
    }
    event
}

/// What the request was about; empty parts are left out.
fn object(request: &Request, created: &str) -> Value {
    let name = auth::name_of(request);
    let name = if name.is_empty() && request.verb == Verb::Create { created } else { &*name };
    let parts = [
        ("resource", request.plural.as_str()),
        ("namespace", auth::namespace_of(request)),
        ("name", name),
        ("apiGroup", &request.group),
        ("apiVersion", &request.version),
        ("subresource", &request.subresource),
    ];
    let present = parts.into_iter().filter(|(_, value)| !value.is_empty());
    present.map(|(name, value)| (name.to_owned(), Value::from(value))).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::About;

    fn of(method: Method, uri: &str, created: &str, answer: Result<u16, &Answered>) -> Value {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let request = Request::parse(&method, path, query).unwrap();
        let (user, request) = (User::new("admin", &["system:masters"]), request.as_ref());
        let mut event = event(&Record {
            user: &user,
            method: &method,
            uri,
            request,
            created,
            answer,
            time: "2026-01-01T00:00:00Z",
        });
        assert_eq!(event["user"], json!({ "username": "admin", "groups": ["system:masters", "system:authenticated"] }));
        let map = event.as_object_mut().unwrap();
        for field in ["kind", "apiVersion", "level", "user", "stageTimestamp"] {
            map.remove(field).unwrap();
        }
        event
    }

    #[test]
    fn events_look_like_the_real_server_s() {
        let missing = Answered::not_found(About { group: "", plural: "configmaps", kind: "ConfigMap", name: "zz" });
        assert_eq!(
            of(Method::GET, "/api/v1/namespaces/default/configmaps/zz", "", Err(&missing)),
            json!({"stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/configmaps/zz","verb":"get",
                "objectRef":{"resource":"configmaps","namespace":"default","name":"zz","apiVersion":"v1"},
                "responseStatus":{"metadata":{},"status":"Failure","message":"configmaps \"zz\" not found",
                    "reason":"NotFound","details":{"name":"zz","kind":"configmaps"},"code":404}})
        );
        assert_eq!(
            of(Method::GET, "/api/v1/namespaces/n/pods?watch=true&timeoutSeconds=1", "", Ok(200)),
            json!({"stage":"ResponseStarted","requestURI":"/api/v1/namespaces/n/pods?watch=true&timeoutSeconds=1",
                "verb":"watch","objectRef":{"resource":"pods","namespace":"n","apiVersion":"v1"},
                "responseStatus":{"metadata":{},"code":200}})
        );
        assert_eq!(
            of(Method::GET, "/healthz", "", Ok(200)),
            json!({"stage":"ResponseComplete","requestURI":"/healthz","verb":"get",
                "responseStatus":{"metadata":{},"code":200}})
        );
        let object = |method, uri, created| of(method, uri, created, Ok(200))["objectRef"].clone();
        assert_eq!(
            object(Method::POST, "/api/v1/namespaces/default/configmaps", "q"),
            json!({"resource":"configmaps","namespace":"default","name":"q","apiVersion":"v1"})
        );
        assert_eq!(
            object(Method::DELETE, "/apis/apps/v1/namespaces/default/deployments", ""),
            json!({"resource":"deployments","namespace":"default","apiGroup":"apps","apiVersion":"v1"})
        );
        assert_eq!(
            object(Method::GET, "/api/v1/namespaces/default", ""),
            json!({"resource":"namespaces","namespace":"default","name":"default","apiVersion":"v1"})
        );
        assert_eq!(object(Method::POST, "/api/v1/namespaces", ""), json!({"resource":"namespaces","apiVersion":"v1"}));
    }

    #[test]
    fn lines_are_in_the_file_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let user = User::anonymous();
        let (method, answer, time) = (&Method::GET, Ok(200), "2026-01-01T00:00:00Z");
        for lines in 1..3 {
            let audit = Audit::to_file(&path).unwrap();
            let record = Record { user: &user, method, uri: "/version", request: None, created: "", answer, time };
            audit.record(&record).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.ends_with('\n') && text.lines().count() == lines);
        }
        let error = Audit::to_file(&dir.path().join("no/such")).unwrap_err().to_string();
        assert!(error.contains("no/such") && error.contains("cannot be opened"), "{error}");
    }
}

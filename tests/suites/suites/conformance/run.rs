//! Plays a script on one server over raw HTTP, and writes down what came.
//!
//! Never retries a request that was done and that the script doesn't say to repeat, and never stops at a wrong code: the next steps may
//! say more.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::normal::{self, Ordinals};
use super::script::{Script, Step, fill, fill_value};
use crate::cluster::Context;
use crate::wait;

/// How long an event may take to come.
const EVENT_PATIENCE: Duration = Duration::from_secs(8);
/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long an answer may take: the real server holds one back for three seconds that waits for a version.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// Headers that are compared.
const HEADERS: [&str; 4] = ["allow", "content-type", "retry-after", "warning"];
/// Events of one watch that a script reads at most.
const MAX_EVENTS: usize = 1024;

/// What a step came to.
pub(crate) struct Record {
    code: u16,
    headers: Value,
    body: Value,
    /// What isn't as the step says.
    pub(crate) faults: Vec<String>,
}

impl Record {
    /// As it is compared.
    pub(crate) fn shown(&self) -> Value {
        json!({ "code": self.code, "headers": self.headers, "body": self.body })
    }
}

struct Player<'a> {
    context: &'a Context,
    vars: BTreeMap<String, String>,
    clients: HashMap<String, Client>,
    watches: HashMap<String, Watch>,
}

/// An open watch: its body, and what came of a line.
struct Watch {
    body: Body,
    rest: Vec<u8>,
}

/// Plays all steps; the records are normalised.
///
/// # Errors
/// The script is wrong, or the server can't be reached.
pub(crate) async fn play(script: &Script, context: &Context) -> anyhow::Result<Vec<Record>> {
    let given = [("id", &context.id), ("ns", &context.namespace), ("group", &context.group())];
    let mut vars: BTreeMap<String, String> = given.into_iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
    for (name, text) in &script.vars {
        let text = fill(text, &vars)?;
        vars.insert(name.clone(), text);
    }
    let mut player = Player { context, vars, clients: HashMap::new(), watches: HashMap::new() };
    let mut records = Vec::with_capacity(script.steps.len());
    for (index, step) in script.steps.iter().enumerate() {
        let record = player.step(step).await.with_context(|| format!("step {} ({})", index + 1, step.title()))?;
        records.push(record);
    }
    let mut ordinals = Ordinals::default();
    records.iter().for_each(|record| ordinals.see(&record.body));
    for record in &mut records {
        record.body = normal::value(std::mem::take(&mut record.body), context, &mut ordinals);
        record.headers = normal::value(std::mem::take(&mut record.headers), context, &mut ordinals);
    }
    Ok(records)
}

impl Player<'_> {
    async fn step(&mut self, step: &Step) -> anyhow::Result<Record> {
        let mut record = match &step.read {
            Some(name) => self.read(name, step).await?,
            None => self.call(step).await?,
        };
        for (name, pointer) in &step.keep {
            match record.body.pointer(pointer) {
                Some(Value::String(text)) => drop(self.vars.insert(name.clone(), text.clone())),
                Some(other) => drop(self.vars.insert(name.clone(), other.to_string())),
                None => {
                    record.faults.push(format!("nothing at {pointer} for ${name}"));
                    self.vars.entry(name.clone()).or_default();
                }
            }
        }
        for pointer in &step.ignore {
            let names: Vec<&str> = pointer.split('/').skip(1).collect();
            normal::forget(&mut record.body, &names);
        }
        Ok(record)
    }

    async fn call(&mut self, step: &Step) -> anyhow::Result<Record> {
        let want = self.wanted(&step.want)?;
        let Some(until) = &step.until else {
            let response = self.send(step).await?;
            let mut record = match &step.watch {
                Some(name) if response.status() == 200 => {
                    let (code, headers) = head(&response);
                    let watch = Watch { body: response.into_body(), rest: Vec::new() };
                    self.watches.insert(name.clone(), watch);
                    Record { code, headers, body: Value::Null, faults: Vec::new() }
                }
                _ => tokio::time::timeout(ANSWER_PATIENCE, whole(response)).await.unwrap_or_else(|_| Ok(unending()))?,
            };
            record.check(step.code, &want);
            return Ok(record);
        };
        let until = self.wanted(until)?;
        let start = tokio::time::Instant::now();
        loop {
            let response = self.send(step).await?;
            let mut record =
                tokio::time::timeout(ANSWER_PATIENCE, whole(response)).await.unwrap_or_else(|_| Ok(unending()))?;
            record.check(step.code, &until);
            if record.faults.is_empty() || start.elapsed() > PATIENCE {
                record.check(record.code, &want);
                return Ok(record);
            }
            tokio::time::sleep(wait::POLL).await;
        }
    }

    fn wanted(&self, values: &BTreeMap<String, Value>) -> anyhow::Result<BTreeMap<String, Value>> {
        values.iter().map(|(pointer, value)| Ok((pointer.clone(), fill_value(value, &self.vars)?))).collect()
    }

    async fn send(&mut self, step: &Step) -> anyhow::Result<Response<Body>> {
        let call = fill(&step.call, &self.vars)?;
        let (method, path) = call.split_once(' ').context("`do` is a method and a path")?;
        let mut body = match (&step.body, &step.text) {
            (Some(body), None) => serde_json::to_vec(&fill_value(body, &self.vars)?)?,
            (None, Some(text)) => fill(text, &self.vars)?.into_bytes(),
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => anyhow::bail!("a step has a body or a text"),
        };
        body.resize(body.len() + step.pad, b' ');
        let mut request = Request::builder().method(method).uri(path);
        let content_type = step.content_type.as_deref().or_else(|| (!body.is_empty()).then_some("json"));
        if let Some(kind) = content_type.filter(|kind| !kind.is_empty()) {
            request = request.header("content-type", content_type_of(kind));
        }
        request = request.header("accept", accept_of(step.accept.as_deref().unwrap_or("application/json")));
        let client = self.client(&step.who)?;
        let request = request.body(body)?;
        let start = tokio::time::Instant::now();
        loop {
            let answer = client.send(request.clone().map(Body::from));
            let answer = tokio::time::timeout(ANSWER_PATIENCE, answer).await;
            let answer = answer.with_context(|| format!("{call}: no answer"))??;
            // The real server does nothing with custom objects for a moment after their definition has changed.
            if answer.status() != http::StatusCode::TOO_MANY_REQUESTS || start.elapsed() > PATIENCE {
                return Ok(answer);
            }
            tokio::time::sleep(wait::POLL).await;
        }
    }

    fn client(&mut self, who: &str) -> anyhow::Result<Client> {
        if let Some(client) = self.clients.get(who) {
            return Ok(client.clone());
        }
        let server = &self.context.server;
        let client = match who {
            "" | "admin" => server.client(Some(server.token("admin")?)),
            "user" => server.client(Some(server.token(&self.context.user.name)?)),
            "nobody" => server.client(None),
            "stranger" => server.client(Some("no-such-token")),
            other => anyhow::bail!("nobody is called {other}"),
        }?;
        self.clients.insert(who.to_owned(), client.clone());
        Ok(client)
    }

    async fn read(&mut self, name: &str, step: &Step) -> anyhow::Result<Record> {
        let mut record = Record { code: 0, headers: Value::Null, body: Value::Null, faults: Vec::new() };
        let Some(watch) = self.watches.get_mut(name) else {
            record.faults.push(format!("no watch {name} is open"));
            return Ok(record);
        };
        let mut events = Vec::new();
        let most = if step.end { MAX_EVENTS } else { step.events };
        while events.len() < most {
            match tokio::time::timeout(EVENT_PATIENCE, watch.next()).await {
                Ok(Some(event)) => events.push(event?),
                Ok(None) if step.end => break,
                Ok(None) => {
                    record.faults.push(format!("the watch ended after {} events", events.len()));
                    break;
                }
                Err(_) => {
                    record.faults.push(format!("no more after {} events", events.len()));
                    break;
                }
            }
        }
        ensure!(events.len() < MAX_EVENTS, "more than {MAX_EVENTS} events");
        record.body = Value::Array(events);
        let want = self.wanted(&step.want)?;
        record.check(0, &want);
        Ok(record)
    }
}

impl Record {
    fn check(&mut self, code: u16, want: &BTreeMap<String, Value>) {
        if self.code != code {
            let said = self.body["message"].as_str().unwrap_or_default();
            self.faults.push(format!("code {} instead of {code}: {said}", self.code));
        }
        for (pointer, wanted) in want {
            let is = self.body.pointer(pointer).unwrap_or(&Value::Null);
            if is != wanted {
                self.faults.push(format!("{pointer} is {is} instead of {wanted}"));
            }
        }
    }
}

impl Watch {
    async fn next(&mut self) -> Option<anyhow::Result<Value>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).context("a line of a watch"));
            }
            match self.body.frame().await? {
                Ok(frame) => self.rest.extend(frame.into_data().unwrap_or_default()),
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

fn head(response: &Response<Body>) -> (u16, Value) {
    let headers = HEADERS.iter().filter_map(|name| {
        let values: Vec<&str> =
            response.headers().get_all(*name).iter().filter_map(|value| value.to_str().ok()).collect();
        (!values.is_empty()).then(|| ((*name).to_owned(), json!(values)))
    });
    (response.status().as_u16(), Value::Object(headers.collect()))
}

/// For an answer that doesn't end.
fn unending() -> Record {
    Record { code: 0, headers: Value::Null, body: Value::Null, faults: vec!["the answer has no end".to_owned()] }
}

async fn whole(response: Response<Body>) -> anyhow::Result<Record> {
    let (code, headers) = head(&response);
    let bytes = response.into_body().collect_bytes().await?;
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    let yaml = headers["content-type"][0] == "application/yaml";
    let parsed = if yaml { serde_saphyr::from_slice(&bytes).ok() } else { serde_json::from_slice(&bytes).ok() };
    let body = parsed.unwrap_or_else(text);
    Ok(Record { code, headers, body, faults: Vec::new() })
}

fn content_type_of(kind: &str) -> &str {
    match kind {
        "json" => "application/json",
        "yaml" => "application/yaml",
        "merge" => "application/merge-patch+json",
        "strategic" => "application/strategic-merge-patch+json",
        "jsonpatch" => "application/json-patch+json",
        other => other,
    }
}

fn accept_of(kind: &str) -> &str {
    match kind {
        "table" => "application/json;as=Table;v=v1;g=meta.k8s.io",
        "meta" => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "metalist" => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        other => other,
    }
}

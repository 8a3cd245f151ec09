//! What a script is: requests with the codes that they must get, and reads of the watches that they opened.
//!
//! ```yaml
//! vars: { cms: /api/v1/namespaces/$ns/configmaps }   # beside $id, $ns and $group, which the trial gives
//! steps:
//! - do: POST $cms                 # method and path with query
//!   body: { metadata: { name: a } }
//!   code: 201
//!   keep: { uid: /metadata/uid }  # $uid from here on
//! - do: GET $cms?watch=true
//!   watch: w                      # stays open under this name
//!   code: 200
//! - read: w
//!   events: 1                     # or `end: true`: all until the server ends it
//! - do: GET $cms/a
//!   until: { /data/x: y }         # asked again until code and values are so; only the last answer counts
//!   code: 200
//! ```
//!
//! Never holds a server's data; that is the runner's.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

/// A script.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// Texts for `$name`, in terms of those that the trial gives.
    #[serde(default)]
    pub(crate) vars: BTreeMap<String, String>,
    /// What is done, in order.
    pub(crate) steps: Vec<Step>,
}

/// One request, or one look at an open watch.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Step {
    /// Method and path; empty for `read`.
    #[serde(rename = "do")]
    pub(crate) call: String,
    /// `admin` (if not given), `user` (the trial's own), `nobody` (no token) or `stranger` (an unknown token).
    #[serde(rename = "as")]
    pub(crate) who: String,
    /// `Content-Type`; `json`, `merge`, `strategic`, `jsonpatch` and `yaml` are short for the usual ones.
    #[serde(rename = "type")]
    pub(crate) content_type: Option<String>,
    /// `Accept`; `table` and `meta` (and `metalist`) are short for those of meta.k8s.io/v1.
    pub(crate) accept: Option<String>,
    /// A JSON body.
    pub(crate) body: Option<Value>,
    /// A body as it is.
    pub(crate) text: Option<String>,
    /// So many spaces more behind the body.
    pub(crate) pad: usize,
    /// The code that both must answer.
    pub(crate) code: u16,
    /// What both answers must hold, by JSON pointer; null for what must not be there.
    pub(crate) want: BTreeMap<String, Value>,
    /// As `want`, but asked for until it is so.
    pub(crate) until: Option<BTreeMap<String, Value>>,
    /// Variables to take from the answer, by JSON pointer.
    pub(crate) keep: BTreeMap<String, String>,
    /// Parts of the answer that are not compared, by JSON pointer (`*` for every member); say why.
    pub(crate) ignore: Vec<String>,
    /// Leave the answer open under this name.
    pub(crate) watch: Option<String>,
    /// The open watch to read.
    pub(crate) read: Option<String>,
    /// How many events to read.
    pub(crate) events: usize,
    /// Read until the server ends the watch.
    pub(crate) end: bool,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// It isn't one.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        serde_saphyr::from_str(text).context("no script")
    }
}

impl Step {
    /// What it does, for messages.
    pub(crate) fn title(&self) -> String {
        match &self.read {
            Some(name) => format!("read {name}"),
            None => self.call.clone(),
        }
    }
}

/// Puts the values of `$name` into a text. `$$` is a `$`, and so is one without a name behind it.
///
/// # Errors
/// A name has no value.
pub(crate) fn fill(text: &str, vars: &BTreeMap<String, String>) -> anyhow::Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        rest = tail;
        if name.is_empty() {
            out.push('$');
            rest = tail.strip_prefix('$').unwrap_or(tail);
        } else {
            out.push_str(vars.get(name).with_context(|| format!("${name} has no value"))?);
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// [`fill`] for all texts in a value, also the names of its members.
///
/// # Errors
/// As [`fill`].
pub(crate) fn fill_value(value: &Value, vars: &BTreeMap<String, String>) -> anyhow::Result<Value> {
    Ok(match value {
        Value::String(text) => Value::String(fill(text, vars)?),
        Value::Array(list) => list.iter().map(|item| fill_value(item, vars)).collect::<anyhow::Result<_>>()?,
        Value::Object(map) => {
            let filled = map.iter().map(|(name, item)| Ok((fill(name, vars)?, fill_value(item, vars)?)));
            Value::Object(filled.collect::<anyhow::Result<_>>()?)
        }
        other => other.clone(),
    })
}

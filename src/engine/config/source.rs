//! Where values come from: flags, environment and file, each as a map from a setting's name to its value, and the
//! merged map from which the settings are taken.
//!
//! Nothing here knows what a value means. Each value carries, as its origin, what an error calls its place.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ::config::{Config, ConfigError, FileFormat, Map, Source, Value, ValueKind};

use super::flags::{self, ENV_PREFIX, Flags};
use super::{Error, MAX_FILE_BYTES};

/// How much of a bad value an error repeats, in characters.
const MAX_SHOWN_CHARS: usize = 80;

/// One source: a value for each name that it gives. Each value's origin is how an error calls it.
#[derive(Debug, Clone)]
pub(super) struct Layer(pub(super) Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

pub(super) fn from_flags(flags: &Flags) -> Result<Map<String, Value>, Error> {
    let values = Config::try_from(flags)?.collect()?;
    let given = values.into_iter().filter(|(_, value)| value.kind != ValueKind::Nil);
    Ok(given.map(|(name, value)| (name.clone(), Value::new(Some(&format!("--{name}")), value.kind))).collect())
}

/// The values of known variables, and the names of the others. An empty variable counts as absent.
pub(super) fn from_env(
    env: impl Iterator<Item = (String, String)>,
    names: &[String],
) -> (Map<String, Value>, Vec<String>) {
    let mut values = Map::new();
    let mut unknown = Vec::new();
    for (variable, value) in env.filter(|(variable, _)| variable.starts_with(ENV_PREFIX)) {
        match names.iter().find(|name| flags::variable(name) == variable) {
            Some(name) if !value.is_empty() => {
                values.insert(name.clone(), Value::new(Some(&variable), value));
            }
            Some(_) => {}
            None => unknown.push(variable),
        }
    }
    unknown.sort_unstable();
    (values, unknown)
}

/// The values of the file that `named` names.
pub(super) fn from_file(named: &Value, names: &[String]) -> Result<Map<String, Value>, Error> {
    let origin = named.origin().unwrap_or("--config").to_owned();
    let path = PathBuf::from(named.kind.to_string());
    let format = match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => FileFormat::Yaml,
        Some("toml") => FileFormat::Toml,
        _ => return Err(Error::Format { origin, path }),
    };
    let text = match read(&path) {
        Ok(text) if text.len() as u64 > MAX_FILE_BYTES => return Err(Error::Size { origin, path }),
        Ok(text) => text,
        Err(source) => return Err(Error::Read { origin, path, source }),
    };
    let values = match ::config::File::from_str(&text, format).collect() {
        Ok(values) => values,
        Err(error) => return Err(Error::Parse { origin, path, source: Box::new(error) }),
    };
    let mut given = Map::new();
    for (key, value) in values {
        if key == flags::CONFIG || !names.contains(&key) {
            let fix = unknown_key_fix(&key, names);
            return Err(Error::UnknownKey { key: excerpt(&key), path, fix });
        }
        let origin = format!("{key} in {}", path.display());
        given.insert(key, Value::new(Some(&origin), value.kind));
    }
    Ok(given)
}

/// The file's text; cut off past [`MAX_FILE_BYTES`].
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Names the key that was meant if only case, dashes or underscores differ.
fn unknown_key_fix(key: &str, names: &[String]) -> String {
    let plain = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    if key == flags::CONFIG {
        return "a file can't name another one; remove it".to_owned();
    }
    match names.iter().find(|name| plain(name) == plain(key)) {
        Some(name) => format!("write {name}"),
        None => "the names are those of the flags in `ringmaster run --help`".to_owned(),
    }
}

/// The text, or its beginning and dots.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// One given value as text, and what an error calls its place.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) origin: String,
    pub(super) text: String,
}

impl Text {
    pub(super) fn error(&self, fix: impl Into<String>) -> Error {
        Error::Value { origin: self.origin.clone(), value: excerpt(&self.text), fix: fix.into() }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {:?}", self.origin, excerpt(&self.text))
    }
}

/// The merged values, taken out one by one.
#[derive(Debug)]
pub(super) struct Given {
    values: Map<String, Value>,
    /// What was accepted without effect so far.
    pub(super) notices: Vec<String>,
}

impl Given {
    pub(super) fn new(values: Map<String, Value>) -> Given {
        Given { values, notices: Vec::new() }
    }

    /// Whether there is a value that nobody has taken yet.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Takes a value that must be a single one.
    pub(super) fn one(&mut self, name: &str) -> Result<Option<Text>, Error> {
        self.values.remove(name).map(single).transpose()
    }

    /// Takes a single value; an empty one counts as absent.
    pub(super) fn filled(&mut self, name: &str) -> Result<Option<Text>, Error> {
        Ok(self.one(name)?.filter(|given| !given.text.is_empty()))
    }

    /// Takes a single value and reads it.
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let given = self.one(name)?;
        given.map(|given| read(&given.text).map_err(|fix| given.error(fix))).transpose()
    }

    /// Takes a single value and reads it, or returns the default.
    pub(super) fn or<T>(
        &mut self,
        name: &str,
        default: T,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Error> {
        Ok(self.parsed(name, read)?.unwrap_or(default))
    }

    /// Takes a list; a single text is split at its commas, so that a variable can hold one.
    pub(super) fn many(&mut self, name: &str) -> Result<Vec<Text>, Error> {
        let Some(value) = self.values.remove(name) else { return Ok(Vec::new()) };
        let origin = origin(&value);
        let items = match value.kind {
            ValueKind::Array(items) => items,
            other => vec![Value::new(None, other)],
        };
        let mut texts = Vec::new();
        for item in items {
            let given = single(Value::new(Some(&origin), item.kind))?;
            let parts = given.text.split(',').map(str::trim).filter(|part| !part.is_empty());
            texts.extend(parts.map(|part| Text { origin: origin.clone(), text: part.to_owned() }));
        }
        Ok(texts)
    }
}

/// The text of a value; numbers and truth values of a file become text as they would be on a command line.
fn single(value: Value) -> Result<Text, Error> {
    let origin = origin(&value);
    match value.kind {
        ValueKind::Table(_) => Err(Error::Shape { origin, fix: "there are no keys below it" }),
        ValueKind::Array(_) => Err(Error::Shape { origin, fix: "write it without a list" }),
        ValueKind::Nil => Err(Error::Shape { origin, fix: "add a value, or remove the line" }),
        other => Ok(Text { origin, text: other.to_string() }),
    }
}

fn origin(value: &Value) -> String {
    value.origin().unwrap_or("configuration").to_owned()
}

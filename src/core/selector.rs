//! Label selectors: the object form of `LabelSelector`, the text form of flags and queries, and whether labels match.
//!
//! The syntax and the meaning are those of Kubernetes' `apimachinery/pkg/labels`, without its numeric `>` and `<`.
//! Never decides whether a selector may be empty: that is the caller's rule. Never percent-encodes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::BuildHasher;

use serde::Deserialize;
use serde_json::{Map, Value};

mod object;
#[cfg(test)]
mod tests;

/// The most requirements that one selector may hold.
pub const MAX_REQUIREMENTS: usize = 256;
/// The most values that one requirement may hold.
pub const MAX_VALUES: usize = 1024;
/// The longest name part of a label key and the longest label value, in bytes (Kubernetes' limit).
pub const MAX_NAME_BYTES: usize = 63;
/// The longest prefix of a label key, in bytes (Kubernetes' limit: a DNS subdomain).
pub const MAX_PREFIX_BYTES: usize = 253;
/// The longest piece of the input that an error repeats, in characters.
const MAX_EXCERPT_CHARS: usize = 80;

/// Why a selector was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The object form isn't an object, or none of its fields is one of a label selector.
    #[error("a label selector is an object with matchLabels and matchExpressions, not {0}")]
    NotASelector(String),
    /// A field of the object form is wrong.
    #[error("{field}: {problem}")]
    Field {
        /// Path of the field from the selector on, such as `matchExpressions[0].operator`.
        field: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The text form is wrong.
    #[error("label selector, at character {position}: {problem}")]
    Text {
        /// Where, counted in characters from 1.
        position: usize,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// The labels of an object, as a selector needs them.
pub trait Labels {
    /// The value of the label `key`, `None` if there is no such label.
    fn get(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<&str> {
        Self::get(self, key).map(String::as_str)
    }
}

impl<S: BuildHasher> Labels for HashMap<String, String, S> {
    fn get(&self, key: &str) -> Option<&str> {
        Self::get(self, key).map(String::as_str)
    }
}

/// `metadata.labels` as JSON; a value that isn't a string counts as no label.
impl Labels for Map<String, Value> {
    fn get(&self, key: &str) -> Option<&str> {
        Self::get(self, key).and_then(Value::as_str)
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Labels for [(K, V)] {
    fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(name, _)| name.as_ref() == key).map(|(_, value)| value.as_ref())
    }
}

/// Requirements on labels, all of which must hold; none at all means everything.
///
/// It is kept sorted and without repetition, so that equal selectors compare, hash and print equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Requirement {
    key: Box<str>,
    test: Test,
}

/// What is asked of one label. Values are sorted and without repetition; `In` and `NotIn` have at least one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Test {
    In(Vec<Box<str>>),
    /// Also holds where the label is missing.
    NotIn(Vec<Box<str>>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// The selector that every object matches.
    #[must_use]
    pub const fn everything() -> Self {
        Self { requirements: Vec::new() }
    }

    /// Whether it asks for nothing, so that every object matches.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Reads the object form, `{matchLabels, matchExpressions}`. `null` and `{}` are everything.
    ///
    /// Fields that are unknown are ignored, as Kubernetes does, unless no known one stands beside them: a misspelt
    /// `matchLabels` must not select everything.
    ///
    /// # Errors
    /// [`Error::NotASelector`] or [`Error::Field`] for anything that Kubernetes would refuse too, and beyond
    /// [`MAX_REQUIREMENTS`] and [`MAX_VALUES`].
    pub fn from_json(value: &Value) -> Result<Self, Error> {
        LabelSelector::from_json(value)?.to_selector()
    }

    /// Reads the text form of flags and of the `labelSelector` query parameter, such as
    /// `a=b,c!=d,e in (x,y),f notin (z),g,!h`. An empty text is everything. A missing value is the empty value.
    ///
    /// # Errors
    /// [`Error::Text`] names the part, its position and what belongs there.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut scanner = Scanner { text, at: 0 };
        let mut requirements = Vec::new();
        if scanner.peek().is_none() {
            return Ok(Self::everything());
        }
        loop {
            if requirements.len() == MAX_REQUIREMENTS {
                return Err(scanner.error(scanner.at, format!("more than {MAX_REQUIREMENTS} requirements; use fewer")));
            }
            requirements.push(scanner.requirement()?);
            match scanner.peek() {
                None => return Ok(Self::of(requirements)),
                Some(',') => scanner.at += 1,
                Some(_) => return Err(scanner.unexpected("a comma or the end")),
            }
        }
    }

    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_unstable();
        requirements.dedup();
        Self { requirements }
    }

    /// Whether labels meet every requirement.
    #[must_use]
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        self.requirements.iter().all(|requirement| requirement.test.holds(labels.get(&requirement.key)))
    }

    /// The labels that a match must carry with exactly this value, by key: to find candidates in an index. What is
    /// found there must still be matched.
    pub fn exact_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.requirements.iter().filter_map(|requirement| match &requirement.test {
            Test::In(values) if values.len() == 1 => values.first().map(|value| (&*requirement.key, &**value)),
            _ => None,
        })
    }
}

/// The canonical text form: sorted, and read back by [`Selector::parse`] as the same selector. As the `labelSelector`
/// query parameter it must still be percent-encoded; everything is the empty text.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let (operator, values) = match &self.test {
            Test::Exists => return f.write_str(key),
            Test::DoesNotExist => return write!(f, "!{key}"),
            Test::In(values) => (["=", " in "], values),
            Test::NotIn(values) => (["!=", " notin "], values),
        };
        match values.as_slice() {
            [value] => write!(f, "{key}{}{value}", operator[0]),
            values => {
                write!(f, "{key}{}(", operator[1])?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index > 0 { "," } else { "" })?;
                }
                f.write_str(")")
            }
        }
    }
}

impl Test {
    fn is_in(values: Vec<Box<str>>) -> Self {
        Self::In(sorted(values))
    }

    fn not_in(values: Vec<Box<str>>) -> Self {
        Self::NotIn(sorted(values))
    }

    fn holds(&self, label: Option<&str>) -> bool {
        let among = |values: &[Box<str>], label: &str| values.binary_search_by(|value| (**value).cmp(label)).is_ok();
        match self {
            Self::In(values) => label.is_some_and(|label| among(values, label)),
            Self::NotIn(values) => !label.is_some_and(|label| among(values, label)),
            Self::Exists => label.is_some(),
            Self::DoesNotExist => label.is_none(),
        }
    }
}

fn sorted(mut values: Vec<Box<str>>) -> Vec<Box<str>> {
    values.sort_unstable();
    values.dedup();
    values
}

/// The object form as it is on the wire, borrowed from the text where that has no escapes. It is read without any
/// check; [`LabelSelector::to_selector`] checks. `null` fields count as missing, unknown fields are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a label selector object with matchLabels and matchExpressions")]
pub struct LabelSelector<'a> {
    #[serde(borrow, default)]
    match_labels: Option<BTreeMap<Text<'a>, Text<'a>>>,
    #[serde(borrow, default)]
    match_expressions: Option<Vec<Expression<'a>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Expression<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(borrow)]
    operator: Text<'a>,
    #[serde(borrow, default)]
    values: Option<Vec<Text<'a>>>,
}

/// A text that borrows; a bare `Cow` inside a map or a list would be copied by serde.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> LabelSelector<'a> {
    /// Checks it and makes it a [`Selector`].
    ///
    /// # Errors
    /// [`Error::Field`] for an operator that doesn't exist, values that are missing or in excess, a key or a value
    /// that can't be a label's, and beyond [`MAX_REQUIREMENTS`] and [`MAX_VALUES`].
    pub fn to_selector(&self) -> Result<Selector, Error> {
        let (labels, expressions) = (self.match_labels.iter().flatten(), self.match_expressions.iter().flatten());
        let count =
            self.match_labels.as_ref().map_or(0, BTreeMap::len) + self.match_expressions.as_ref().map_or(0, Vec::len);
        if count > MAX_REQUIREMENTS {
            let problem = format!("{count} requirements with matchLabels; use at most {MAX_REQUIREMENTS}");
            return Err(field("matchExpressions", problem));
        }
        let mut requirements = Vec::with_capacity(count);
        for (Text(key), Text(value)) in labels {
            check_key(key).map_err(|problem| field("matchLabels", problem))?;
            check_value(value).map_err(|problem| field(format!("matchLabels[{key:?}]"), problem))?;
            requirements.push(Requirement { key: (&**key).into(), test: Test::In(vec![(&**value).into()]) });
        }
        for (index, expression) in expressions.enumerate() {
            requirements.push(expression.to_requirement(index)?);
        }
        Ok(Selector::of(requirements))
    }

    fn from_json(value: &'a Value) -> Result<Self, Error> {
        let object = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(object) => object,
            other => return Err(Error::NotASelector(kind(other).to_owned())),
        };
        let (labels, expressions) = (object.get("matchLabels"), object.get("matchExpressions"));
        if let (None, None, Some(unknown)) = (labels, expressions, object.keys().next()) {
            return Err(Error::NotASelector(format!("one with the unknown field {}", quoted(unknown))));
        }
        let match_labels = match labels {
            None | Some(Value::Null) => None,
            Some(Value::Object(labels)) => Some(
                labels
                    .iter()
                    .map(|(key, value)| Ok((Text(key.into()), text(value, || label_field(key))?)))
                    .collect::<Result<_, Error>>()?,
            ),
            Some(other) => return Err(field("matchLabels", wanted("an object of strings", other))),
        };
        let match_expressions = match expressions {
            None | Some(Value::Null) => None,
            Some(Value::Array(items)) => Some(items.iter().enumerate().map(expression).collect::<Result<_, Error>>()?),
            Some(other) => return Err(field("matchExpressions", wanted("a list of objects", other))),
        };
        Ok(Self { match_labels, match_expressions })
    }
}

impl Expression<'_> {
    fn to_requirement(&self, index: usize) -> Result<Requirement, Error> {
        let refuse = |name: &str, problem| Err(field(expression_field(index, name), problem));
        let Text(key) = &self.key;
        if let Err(problem) = check_key(key) {
            return refuse("key", problem);
        }
        let given = self.values.as_deref().unwrap_or_default();
        if given.len() > MAX_VALUES {
            return refuse("values", format!("{} values; use at most {MAX_VALUES}", given.len()));
        }
        let mut values = Vec::with_capacity(given.len());
        for (at, Text(value)) in given.iter().enumerate() {
            if let Err(problem) = check_value(value) {
                return refuse(&format!("values[{at}]"), problem);
            }
            values.push((**value).into());
        }
        let operator = &*self.operator.0;
        let test = match (operator, values.is_empty()) {
            ("In", false) => Test::is_in(values),
            ("NotIn", false) => Test::not_in(values),
            ("Exists", true) => Test::Exists,
            ("DoesNotExist", true) => Test::DoesNotExist,
            ("In" | "NotIn", true) => {
                return refuse("values", format!("must not be empty with operator {operator}; name a value"));
            }
            ("Exists" | "DoesNotExist", false) => {
                let problem = format!("must be empty with operator {operator}; remove it or use In or NotIn");
                return refuse("values", problem);
            }
            _ => {
                let problem = format!("{} is unknown; use In, NotIn, Exists or DoesNotExist", quoted(operator));
                return refuse("operator", problem);
            }
        };
        Ok(Requirement { key: (&**key).into(), test })
    }
}

fn expression((index, value): (usize, &Value)) -> Result<Expression<'_>, Error> {
    let Value::Object(object) = value else {
        let problem = wanted("an object with key, operator and values", value);
        return Err(field(format!("matchExpressions[{index}]"), problem));
    };
    let required = |name: &str| {
        let path = || expression_field(index, name);
        object.get(name).map_or_else(|| Err(field(path(), "is missing; add it".to_owned())), |value| text(value, path))
    };
    let values = match object.get("values") {
        None | Some(Value::Null) => None,
        Some(Value::Array(items)) => {
            let path = |at| expression_field(index, &format!("values[{at}]"));
            let items = items.iter().enumerate().map(|(at, item)| text(item, || path(at)));
            Some(items.collect::<Result<_, Error>>()?)
        }
        Some(other) => return Err(field(expression_field(index, "values"), wanted("a list of strings", other))),
    };
    Ok(Expression { key: required("key")?, operator: required("operator")?, values })
}

fn text(value: &Value, path: impl FnOnce() -> String) -> Result<Text<'_>, Error> {
    match value {
        Value::String(text) => Ok(Text(text.into())),
        Value::Number(_) | Value::Bool(_) => {
            Err(field(path(), format!("{}; put it in quotes", wanted("a string", value))))
        }
        other => Err(field(path(), wanted("a string", other))),
    }
}

fn field(field: impl Into<String>, problem: String) -> Error {
    Error::Field { field: field.into(), problem }
}

fn label_field(key: &str) -> String {
    format!("matchLabels[{}]", quoted(key))
}

fn expression_field(index: usize, name: &str) -> String {
    format!("matchExpressions[{index}].{name}")
}

fn wanted(what: &str, found: &Value) -> String {
    format!("must be {what}, not {}", kind(found))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The text in quotes, cut to [`MAX_EXCERPT_CHARS`].
fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_EXCERPT_CHARS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

/// Reads the text form from left to right.
struct Scanner<'a> {
    text: &'a str,
    /// Byte offset of what comes next; always on a character's border.
    at: usize,
}

impl<'a> Scanner<'a> {
    fn requirement(&mut self) -> Result<Requirement, Error> {
        let negated = self.eat("!");
        let (at, key) = self.word();
        if key.is_empty() {
            return Err(self.unexpected("a label key"));
        }
        check_key(key).map_err(|problem| self.error(at, problem))?;
        let test = if negated { Test::DoesNotExist } else { self.test()? };
        Ok(Requirement { key: key.into(), test })
    }

    fn test(&mut self) -> Result<Test, Error> {
        if matches!(self.peek(), None | Some(',')) {
            return Ok(Test::Exists);
        }
        if self.eat("==") || self.eat("=") {
            return Ok(Test::In(vec![self.value()?]));
        }
        if self.eat("!=") {
            return Ok(Test::NotIn(vec![self.value()?]));
        }
        let (at, operator) = self.word();
        match operator {
            "in" => self.values().map(Test::is_in),
            "notin" => self.values().map(Test::not_in),
            _ => {
                self.at = at;
                Err(self.unexpected("one of =, ==, !=, in, notin, a comma or the end"))
            }
        }
    }

    /// A list of values in parentheses. Any of them may be empty, so `()` holds the empty value.
    fn values(&mut self) -> Result<Vec<Box<str>>, Error> {
        if !self.eat("(") {
            return Err(self.unexpected("an opening parenthesis"));
        }
        let mut values = Vec::new();
        loop {
            if values.len() == MAX_VALUES {
                return Err(self.error(self.at, format!("more than {MAX_VALUES} values; use fewer")));
            }
            values.push(self.value()?);
            if self.eat(")") {
                return Ok(values);
            }
            if !self.eat(",") {
                return Err(self.unexpected("a comma or a closing parenthesis"));
            }
        }
    }

    fn value(&mut self) -> Result<Box<str>, Error> {
        let (at, value) = self.word();
        check_value(value).map_err(|problem| self.error(at, problem))?;
        Ok(value.into())
    }

    /// The longest run without space and symbols, possibly empty, and where it starts.
    fn word(&mut self) -> (usize, &'a str) {
        self.skip_space();
        let (at, rest) = (self.at, &self.text[self.at..]);
        let ends = |c: char| is_space(c) || matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += word.len();
        (at, word)
    }

    fn eat(&mut self, symbol: &str) -> bool {
        self.skip_space();
        let found = self.text[self.at..].starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.text[self.at..].chars().next()
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches(is_space).len();
    }

    fn unexpected(&mut self, wanted: &str) -> Error {
        let (at, word) = self.word();
        let problem = match (word, self.peek()) {
            ("", None) => format!("the text ends where {wanted} must follow"),
            ("", Some(symbol @ ('<' | '>'))) => {
                format!("{symbol:?} is not supported; use {wanted}")
            }
            ("", Some(symbol)) => format!("found {symbol:?}, expected {wanted}"),
            (word, _) => format!("found {}, expected {wanted}", quoted(word)),
        };
        self.error(at, problem)
    }

    fn error(&self, at: usize, problem: String) -> Error {
        Error::Text { position: self.text[..at].chars().count() + 1, problem }
    }
}

const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// A label key: a name, or a DNS subdomain, a slash and a name (Kubernetes' qualified name).
pub(crate) fn check_key(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        None => key,
        Some((prefix, name)) => {
            if prefix.len() > MAX_PREFIX_BYTES || !is_subdomain(prefix) {
                return Err(format!(
                    "key {}: the part before the slash must be a DNS subdomain of at most {MAX_PREFIX_BYTES} lower-case \
                     letters, digits, '-' and '.', such as example.com",
                    quoted(key)
                ));
            }
            name
        }
    };
    if is_name(name) {
        return Ok(());
    }
    Err(format!(
        "key {}: the name must be 1 to {MAX_NAME_BYTES} letters, digits, '-', '_' or '.', a letter or digit first and last",
        quoted(key)
    ))
}

/// A label value: empty, or formed like the name of a key.
pub(crate) fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    Err(format!(
        "value {}: must be empty or at most {MAX_NAME_BYTES} letters, digits, '-', '_' or '.', a letter or digit first \
         and last",
        quoted(value)
    ))
}

/// Whether it can be the name in a label's key, and so also a label's value.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= MAX_NAME_BYTES
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_subdomain(text: &str) -> bool {
    let lower = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.split('.').all(|label| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(lower)
            && bytes.last().is_some_and(lower)
            && bytes.iter().all(|byte| lower(byte) || *byte == b'-')
    })
}

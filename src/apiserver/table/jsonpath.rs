//! Kubernetes' dialect of JSONPath, as printer columns use it.
//!
//! The dialect is older than RFC 9535 and differs: fields may hold escaped dots, `$` is optional, and a step that does
//! not fit (an index out of bounds, a filter on an object, a comparison of unlike types) spoils the whole result
//! instead of being skipped. So its grammar, its array steps and its filters are here; runs of plain steps are left to
//! `jsonpath-rust`. The rules are those of client-go's `util/jsonpath`. Not here: `range`, which a printer column has
//! no use for.

use jsonpath_rust::parser::model::{JpQuery, Segment, Selector};
use jsonpath_rust::query::js_path_process;
use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Path {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Fields, wildcards, and descents that end in one of them.
    Plain(JpQuery),
    /// A descent that an array step follows, or nothing.
    Descend,
    Slice(Slice),
    Filter {
        left: Vec<Step>,
        /// The operator and the right side; without them the left side must find something.
        test: Option<(String, Vec<Step>)>,
    },
    Union(Vec<Vec<Step>>),
    Literal(Value),
    /// A bare word: the dialect parses it, and then never finds anything.
    Word,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Slice {
    start: Option<i64>,
    end: Option<i64>,
    /// The end comes from a single index, so that an end of 0 is the end of the list.
    derived: bool,
    stride: Option<i64>,
}

/// The text is not a path of the dialect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError;

impl Path {
    /// Reads a path without its braces, `.spec.replicas`.
    pub(super) fn parse(text: &str) -> Result<Self, SyntaxError> {
        Ok(Self { steps: parse_steps(text)? })
    }

    /// The first value that the path finds.
    pub(super) fn first<'a>(&'a self, root: &'a Value) -> Option<&'a Value> {
        walk(&self.steps, vec![root])?.into_iter().next()
    }
}

// === evaluation: `None` is the dialect's error ===

fn walk<'a>(steps: &'a [Step], mut nodes: Vec<&'a Value>) -> Option<Vec<&'a Value>> {
    for step in steps {
        nodes = match step {
            Step::Plain(query) => {
                let mut found = Vec::new();
                for node in nodes {
                    found.extend(js_path_process(query, node).ok()?.into_iter().map(|hit| hit.val));
                }
                found
            }
            Step::Descend => {
                let mut found = Vec::new();
                nodes.into_iter().for_each(|node| descend(node, &mut found));
                found
            }
            Step::Slice(slice) => {
                let mut found = Vec::new();
                for node in nodes.into_iter().filter(|node| !node.is_null()) {
                    found.extend(slice.of(node.as_array()?)?);
                }
                found
            }
            Step::Filter { left, test } => {
                let mut found = Vec::new();
                for node in nodes {
                    for item in node.as_array()? {
                        if passes(left, test.as_ref(), item)? {
                            found.push(item);
                        }
                    }
                }
                found
            }
            Step::Union(parts) => {
                let mut found = Vec::new();
                for part in parts {
                    found.extend(walk(part, nodes.clone())?);
                }
                found
            }
            Step::Literal(value) => vec![value],
            Step::Word => return None,
        };
    }
    Some(nodes)
}

/// Everything below a value that has something below it, parents first.
fn descend<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            found.push(value);
            items.iter().for_each(|item| descend(item, found));
        }
        Value::Object(fields) if !fields.is_empty() => {
            found.push(value);
            fields.values().for_each(|field| descend(field, found));
        }
        _ => {}
    }
}

impl Slice {
    fn of(self, items: &[Value]) -> Option<impl Iterator<Item = &Value>> {
        let length = i64::try_from(items.len()).ok()?;
        let from_end = |index: i64| index.saturating_add(length);
        let start = self.start.map_or(0, |start| if start < 0 { from_end(start) } else { start });
        let end =
            self.end.map_or(length, |end| if end < 0 || (end == 0 && self.derived) { from_end(end) } else { end });
        let stride = match self.stride {
            None => 1,
            // A stride of a list that gives nothing is never looked at.
            Some(_) if start == end => 1,
            Some(stride) => usize::try_from(stride).ok().filter(|stride| *stride > 0)?,
        };
        let picked = if start == end {
            &[]
        } else {
            if start >= length || start < 0 || end > length {
                return None;
            }
            items.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?
        };
        Some(picked.iter().step_by(stride))
    }
}

fn passes(left: &[Step], test: Option<&(String, Vec<Step>)>, item: &Value) -> Option<bool> {
    let Some((operator, right)) = test else {
        return Some(walk(left, vec![item]).is_some_and(|found| !found.is_empty()));
    };
    let (left, right) = (walk(left, vec![item])?, walk(right, vec![item])?);
    let (left, right) = match (left.as_slice(), right.as_slice()) {
        ([left], [right]) => (*left, *right),
        ([], _) | ([_], []) => return Some(false),
        _ => return None,
    };
    match operator.as_str() {
        "==" => equal(left, right),
        "!=" => equal(left, right).map(|equal| !equal),
        "<" => less(left, right),
        ">=" => less(left, right).map(|less| !less),
        "<=" => Some(less(left, right)? || equal(left, right)?),
        ">" => Some(!(less(left, right)? || equal(left, right)?)),
        _ => None,
    }
}

/// Values compare with their own type only; whole and fractional numbers are different types.
fn equal(left: &Value, right: &Value) -> Option<bool> {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Some(left == right),
        (Value::String(left), Value::String(right)) => Some(left == right),
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left == right),
            (None, None) => Some(left.as_f64()? == right.as_f64()?),
            _ => None,
        },
        _ => None,
    }
}

fn less(left: &Value, right: &Value) -> Option<bool> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left < right),
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left < right),
            (None, None) => Some(left.as_f64()? < right.as_f64()?),
            _ => None,
        },
        _ => None,
    }
}

// === grammar ===

fn parse_steps(text: &str) -> Result<Vec<Step>, SyntaxError> {
    let mut parser = Parser { rest: text, steps: Vec::new(), descending: false };
    parser.run()?;
    parser.end_descent();
    Ok(parser.steps)
}

struct Parser<'a> {
    rest: &'a str,
    steps: Vec<Step>,
    /// A descent was read and its field was not.
    descending: bool,
}

impl<'a> Parser<'a> {
    fn run(&mut self) -> Result<(), SyntaxError> {
        while let Some(first) = self.rest.chars().next() {
            match first {
                // The text stands between braces: one of its own ends the path.
                '}' => break,
                ' ' | '@' | '$' => self.skip(1),
                '[' if self.rest.starts_with("[?(") => self.filter()?,
                '[' => self.array()?,
                '.' if self.rest.starts_with("..") => {
                    if self.descending {
                        return Err(SyntaxError);
                    }
                    self.skip(2);
                    self.descending = true;
                    if self.rest.starts_with(|c: char| c == '_' || c.is_alphanumeric()) {
                        self.field();
                    }
                }
                '.' => {
                    self.skip(1);
                    self.field();
                }
                '"' | '\'' => self.quoted(first)?,
                '+' | '-' => self.number()?,
                c if c.is_numeric() => self.number()?,
                c if c == '_' || c.is_alphabetic() => {
                    let word = self.take_until(is_terminator);
                    self.push(match word {
                        "true" => Step::Literal(Value::Bool(true)),
                        "false" => Step::Literal(Value::Bool(false)),
                        _ => Step::Word,
                    });
                }
                _ => return Err(SyntaxError),
            }
        }
        Ok(())
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn take_until(&mut self, end: impl Fn(char) -> bool) -> &'a str {
        let (taken, rest) = self.rest.split_at(self.rest.find(end).unwrap_or(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn end_descent(&mut self) {
        if std::mem::take(&mut self.descending) {
            self.steps.push(Step::Descend);
        }
    }

    fn push(&mut self, step: Step) {
        self.end_descent();
        self.steps.push(step);
    }

    fn push_plain(&mut self, selector: Selector) {
        let segment = Segment::Selector(selector);
        let descending = std::mem::take(&mut self.descending);
        let segment = if descending { Segment::Descendant(Box::new(segment)) } else { segment };
        match self.steps.last_mut() {
            Some(Step::Plain(query)) => query.segments.push(segment),
            _ => self.steps.push(Step::Plain(JpQuery::new(vec![segment]))),
        }
    }

    /// A name up to a character that a backslash does not guard; backslashes are dropped.
    fn field(&mut self) {
        let mut guarded = false;
        let end = self.rest.find(|c: char| {
            let ends = !guarded && is_terminator(c);
            guarded = !guarded && c == '\\';
            ends
        });
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        self.push_plain(if name == "*" { Selector::Wildcard } else { Selector::Name(name.replace('\\', "")) });
    }

    fn array(&mut self) -> Result<(), SyntaxError> {
        let end = self.rest.find([']', '\n']).filter(|end| self.rest[*end..].starts_with(']')).ok_or(SyntaxError)?;
        let text = &self.rest[1..end];
        self.skip(end + 1);
        if text.contains(',') {
            let parts = text.split(',').map(|part| Self::steps_of_index(part.trim_matches(' ')));
            self.push(Step::Union(parts.collect::<Result<_, _>>()?));
        } else {
            for step in Self::steps_of_index(text)? {
                match step {
                    Step::Plain(query) => query.segments.into_iter().for_each(|segment| {
                        if let Segment::Selector(selector) = segment {
                            self.push_plain(selector);
                        }
                    }),
                    step => self.push(step),
                }
            }
        }
        Ok(())
    }

    /// What stands between brackets, without commas: a quoted path, `*`, an index or a slice.
    fn steps_of_index(text: &str) -> Result<Vec<Step>, SyntaxError> {
        let quoted = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
        if let Some(name) = quoted.filter(|name| !name.contains('\'')) {
            return parse_steps(&format!(".{name}"));
        }
        let parts: Vec<&str> = if text == "*" { vec!["", ""] } else { text.split(':').collect() };
        if parts.len() > 3 {
            return Err(SyntaxError);
        }
        let number = |index: usize| match parts.get(index) {
            None | Some(&"") => Ok(None),
            Some(text) => {
                let digits = text.strip_prefix('-').unwrap_or(text);
                let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                valid.then(|| text.parse::<i64>().ok()).flatten().map(Some).ok_or(SyntaxError)
            }
        };
        let (start, end, stride) = (number(0)?, number(1)?, number(2)?);
        let slice = if parts.len() == 1 {
            Slice { start, end: Some(start.unwrap_or(0).saturating_add(1)), derived: true, stride: None }
        } else {
            Slice { start, end, derived: false, stride }
        };
        Ok(vec![Step::Slice(slice)])
    }

    fn filter(&mut self) -> Result<(), SyntaxError> {
        self.skip("[?(".len());
        let (mut quote, mut closed, mut before) = (None, false, ' ');
        let end = self.rest.find(|c: char| {
            let ends = c == '\n' || (c == ')' && quote.is_some() == closed);
            match (c, quote) {
                ('"' | '\'', None) => quote = Some(c),
                ('"' | '\'', Some(open)) if open == c && before != '\\' => closed = true,
                _ => {}
            }
            before = c;
            ends
        });
        let end = end.filter(|end| self.rest[*end..].starts_with(")]")).ok_or(SyntaxError)?;
        let text = &self.rest[..end];
        self.skip(end + ")]".len());
        let is_operator = |c: char| "!<>=".contains(c);
        let parts = text.find(is_operator).filter(|start| *start > 0).and_then(|start| {
            let (left, rest) = text.split_at(start);
            let length = rest.find(|c| !is_operator(c)).unwrap_or(rest.len());
            // Something must remain for the right side, if need be the operator's own last character.
            let length = if length == rest.len() { length - 1 } else { length };
            (length > 0).then(|| (left, &rest[..length], &rest[length..]))
        });
        let step = match parts {
            None => Step::Filter { left: parse_steps(text)?, test: None },
            Some((left, operator, right)) => {
                Step::Filter { left: parse_steps(left)?, test: Some((operator.to_owned(), parse_steps(right)?)) }
            }
        };
        self.push(step);
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<(), SyntaxError> {
        self.skip(1);
        let mut before = quote;
        let end = self.rest.find(|c: char| {
            let ends = c == '\n' || (c == quote && before != '\\');
            before = c;
            ends
        });
        let end = end.filter(|end| self.rest[*end..].starts_with(quote)).ok_or(SyntaxError)?;
        let text = unescape(&self.rest[..end], quote)?;
        self.skip(end + 1);
        self.push(Step::Literal(Value::String(text)));
        Ok(())
    }

    fn number(&mut self) -> Result<(), SyntaxError> {
        let sign = usize::from(self.rest.starts_with(['+', '-']));
        let body = &self.rest[sign..];
        let length = body.find(|c: char| c != '.' && !c.is_numeric()).unwrap_or(body.len());
        let text = &self.rest[..sign + length];
        self.skip(sign + length);
        let number = match text.parse::<i64>() {
            Ok(whole) => Value::from(whole),
            Err(_) => text.parse::<f64>().map(Value::from).map_err(|_| SyntaxError)?,
        };
        self.push(Step::Literal(number));
        Ok(())
    }
}

fn is_terminator(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}')
}

/// The text of a quoted string, with Go's short escapes.
fn unescape(text: &str, quote: char) -> Result<String, SyntaxError> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        plain.push(match characters.next() {
            Some('a') => '\x07',
            Some('b') => '\x08',
            Some('f') => '\x0c',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\x0b',
            Some('\\') => '\\',
            Some(c) if c == quote => c,
            _ => return Err(SyntaxError),
        });
    }
    Ok(plain)
}

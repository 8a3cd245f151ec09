//! The CEL rules of a schema (`x-kubernetes-validations`): compiled once, run for each value.
//!
//! The parser and the libraries are kube-cel's; the evaluation is `eval`'s, because what the real server does with
//! optionals, field names and the order of lists is not in that crate. A rule that can't be evaluated is an internal
//! error that names it, never a pass.

mod call;
mod check;
mod eval;
mod overloads;
mod place;
mod url;
mod value;

use std::thread;

use kube_cel::cel::{IdedExpr, parser::Parser};
use serde_json::Value;

use self::{
    eval::{Evaluation, Fail, Scope},
    value::Val,
};
use super::{
    compile::Node,
    correlate::{Pair, old_item},
    print,
    structural::text,
};
use crate::field_error::{FieldError, FieldErrorKind, go_quote};

/// Limit of a message that an expression makes, in bytes.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;
/// Limit of an expression, in bytes; the real server has none but that of a request.
const MAX_EXPRESSION_BYTES: usize = 16 * 1024;
/// Limit of how deep brackets may be nested in an expression.
const MAX_BRACKETS: i64 = 60;
/// Limit of how deep the parser goes; cel-go's is the same.
const MAX_RECURSION: u16 = 250;
/// Stack of the thread that parses, in bytes.
const PARSER_STACK_BYTES: usize = 64 << 20;

/// A rule.
#[derive(Debug)]
pub(super) struct Rule {
    rule: String,
    message: String,
    reason: String,
    /// The path of `fieldPath` as field errors write it; empty for none.
    field: String,
    optional_old: bool,
    uses_old: bool,
    /// The rule, or why it isn't one.
    program: Result<IdedExpr, String>,
    /// `messageExpression`.
    message_program: Option<Result<IdedExpr, String>>,
}

impl Rule {
    /// Compiles a rule of a node; `whole` says whether the node is an object with apiVersion, kind and metadata.
    pub(super) fn compile(rule: &Value, node: &Node, whole: bool) -> Self {
        let optional_old = rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false);
        let types = check::Types { node, whole, optional_old };
        let (program, uses_old) = match parse(text(rule, "rule")) {
            Ok(expr) => types.check(text(rule, "rule"), expr, check::Wanted::Bool),
            Err(why) => (Err(why), false),
        };
        let expression = text(rule, "messageExpression");
        let message_program = (!expression.is_empty() && program.is_ok()).then(|| {
            let made = parse(expression).and_then(|expr| types.check(expression, expr, check::Wanted::Text).0);
            made.map_err(
                |why| if why.starts_with("compilation failed") { format!("messageExpression {why}") } else { why },
            )
        });
        Self {
            rule: text(rule, "rule").to_owned(),
            message: text(rule, "message").to_owned(),
            reason: text(rule, "reason").to_owned(),
            field: field_path(text(rule, "fieldPath"), node).unwrap_or_default(),
            optional_old,
            uses_old,
            program,
            message_program,
        }
    }

    /// Why the rule can't be used.
    pub(super) fn refused(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }

    /// Why the expression of the message can't be used.
    pub(super) fn message_refused(&self) -> Option<&str> {
        self.message_program.as_ref()?.as_ref().err().map(String::as_str)
    }

    /// Whether the rule is about a change.
    pub(super) fn uses_old(&self) -> bool {
        self.uses_old
    }

    /// The rule as messages name it.
    fn name(&self) -> &str {
        if self.message.is_empty() { self.rule.trim() } else { self.message.trim() }
    }

    fn default_message(&self) -> String {
        if self.message.is_empty() {
            format!("failed rule: {}", self.rule.trim())
        } else {
            self.message.trim().to_owned()
        }
    }
}

/// Parses an expression. The parser needs much stack for each bracket, more than a server's threads have.
fn parse(text: &str) -> Result<IdedExpr, String> {
    let mut depth = 0_i64;
    let deepest = text.bytes().fold(0, |deepest: i64, b| {
        depth += match b {
            b'(' | b'[' | b'{' => 1,
            b')' | b']' | b'}' => -1,
            _ => 0,
        };
        deepest.max(depth)
    });
    if text.len() > MAX_EXPRESSION_BYTES || deepest > MAX_BRACKETS {
        return Err(format!(
            "compilation failed: the embedded API server takes expressions of at most {MAX_EXPRESSION_BYTES} bytes and {MAX_BRACKETS} nested brackets"
        ));
    }
    let parse = || {
        let parser = Parser::default().enable_optional_syntax(true).max_recursion_depth(MAX_RECURSION);
        parser.parse(text).map_err(|errors| {
            let lines: Vec<String> =
                errors.errors.iter().map(|error| place::located(text, error.pos.0, error.pos.1, &error.msg)).collect();
            format!("compilation failed: {}", lines.join("\n"))
        })
    };
    thread::scope(|scope| {
        let parser = thread::Builder::new().name("cel-parser".to_owned()).stack_size(PARSER_STACK_BYTES);
        let failed = |why: &str| Err(format!("compilation failed: the parser failed: {why}"));
        match parser.spawn_scoped(scope, parse) {
            Ok(running) => running.join().unwrap_or_else(|_| failed("it panicked")),
            Err(error) => failed(&error.to_string()),
        }
    })
}

/// Whether rules of a node can be compiled at all.
pub(super) fn has_type(node: &Node, is_root: bool) -> bool {
    is_root || value::exposed(node)
}

/// Reads a `fieldPath` (`.a.b['c.d']`) into the path of a field error; `None` if the schema has no such field.
pub(super) fn field_path(path: &str, node: &Node) -> Option<String> {
    let mut node = node;
    let mut out = String::new();
    let mut rest = path;
    while !rest.is_empty() {
        let name = if let Some(after) = rest.strip_prefix("['") {
            let (name, after) = quoted(after)?;
            rest = after.strip_prefix(']')?;
            name
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            rest = &after[end..];
            after[..end].to_owned()
        };
        if !node.properties.is_empty() {
            node = node.properties.get(&name)?;
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
        } else {
            node = node.additional.node()?;
            out.push_str(&format!("[{name}]"));
        }
    }
    Some(out)
}

/// A text up to its closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return Some((out, &text[at + 1..])),
            '\\' => out.push(match chars.next()?.1 {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                c @ ('\'' | '\\') => c,
                _ => return None,
            }),
            c => out.push(c),
        }
    }
    None
}

/// Where a value stands, and what it was for the sake of ratcheting.
#[derive(Clone, Copy)]
struct Ratchet<'a> {
    current: Option<Pair<'a>>,
    /// The nearest outer value whose old value is known.
    outer: Option<Pair<'a>>,
}

impl<'a> Ratchet<'a> {
    fn key(self, name: &str) -> Self {
        match self.current {
            None => self,
            // The object's own type was converted: it can't be compared.
            Some(_) if self.outer.is_none() && matches!(name, "apiVersion" | "kind") => {
                Self { current: None, outer: None }
            }
            Some(pair) => Self { current: pair.key(name), outer: Some(pair) },
        }
    }

    fn index(self, i: usize) -> Self {
        self.current.map_or(self, |pair| Self { current: pair.index(i), outer: Some(pair) })
    }

    fn forgives(self) -> bool {
        self.current.or(self.outer).is_some_and(Pair::unchanged)
    }
}

/// Runs the rules of a value and of everything below it; `base` is its path, empty for an object.
///
/// With `ratchet`, rules that aren't about a change are forgiven for what didn't change.
pub(super) fn validate(value: &Value, old: Option<&Value>, node: &Node, base: &str, ratchet: bool) -> Vec<FieldError> {
    let mut run = Run { errors: Vec::new(), over: false };
    let current = old.filter(|_| ratchet).map(|old| Pair { new: value, old, node });
    if node.has_rules {
        run.walk(value, old, node, base, Ratchet { current, outer: None }, base.is_empty() || node.embedded);
    }
    run.errors
}

struct Run {
    errors: Vec<FieldError>,
    /// Set once a rule cost too much: the real server runs no further rules then.
    over: bool,
}

impl Run {
    fn walk<'a>(
        &mut self,
        value: &'a Value,
        old: Option<&'a Value>,
        node: &'a Node,
        path: &str,
        ratchet: Ratchet<'a>,
        whole: bool,
    ) {
        if value.is_null() || self.over || !node.has_rules {
            return;
        }
        if !node.rules.is_empty() {
            self.rules(value, old.filter(|old| !old.is_null()), node, path, ratchet, whole);
        }
        match value {
            Value::Array(items) => {
                let Some(known) = node.items.as_deref() else { return };
                let old = old.and_then(Value::as_array);
                for (i, item) in items.iter().enumerate() {
                    let before = old.and_then(|old| old_item(node, old, item));
                    self.walk(item, before, known, &format!("{path}[{i}]"), ratchet.index(i), known.embedded);
                }
            }
            Value::Object(fields) => {
                let old = old.filter(|_| !node.map_uncorrelatable);
                let before = |name: &str| old.and_then(|old| old.get(name));
                if let Some(known) = node.additional.node() {
                    for (name, value) in fields {
                        let at = format!("{path}[{name}]");
                        self.walk(value, before(name), known, &at, ratchet.key(name), known.embedded);
                    }
                }
                for (name, known) in &node.properties {
                    let Some(value) = fields.get(name) else { continue };
                    let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    self.walk(value, before(name), known, &at, ratchet.key(name), known.embedded);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn rules(
        &mut self,
        value: &Value,
        old: Option<&Value>,
        node: &Node,
        path: &str,
        ratchet: Ratchet<'_>,
        whole: bool,
    ) {
        let new_val = Val::of(value, node, whole);
        let old_val = old.map(|old| Val::of(old, node, whole));
        for rule in &node.rules {
            if self.over {
                return;
            }
            let program = match &rule.program {
                Ok(program) => program,
                Err(why) => {
                    let type_name = go_quote(&node.type_name);
                    self.errors.push(FieldError::invalid(path, type_name, format!("rule compile error: {why}")));
                    continue;
                }
            };
            if rule.uses_old && old_val.is_none() && !rule.optional_old {
                continue;
            }
            let outer = Scope::new("self", new_val.clone(), None);
            let old_self = if rule.optional_old {
                Some(Val::Optional(old_val.clone().map(std::sync::Arc::new)))
            } else {
                old_val.clone()
            };
            let with_old = old_self.map(|old| Scope::new("oldSelf", old, Some(&outer)));
            let scope = with_old.as_ref().unwrap_or(&outer);
            match Evaluation::run(program, scope) {
                Ok(Val::Bool(true)) => {}
                Ok(_) => self.failed(rule, value, old_val.as_ref(), &new_val, node, path, ratchet),
                Err(fail) => self.broken(rule, &fail, node, path),
            }
        }
    }

    /// A rule that has no result.
    fn broken(&mut self, rule: &Rule, fail: &Fail, node: &Node, path: &str) {
        let name = rule.name();
        let type_name = go_quote(&node.type_name);
        self.errors.push(match fail {
            Fail::Data(words) if words == "no such overload" => FieldError::invalid(
                path,
                type_name,
                format!(
                    "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: {name}"
                ),
            ),
            Fail::Data(words) => FieldError::invalid(path, type_name, format!("{words} evaluating rule: {name}")),
            Fail::TooCostly => {
                self.over = true;
                let detail = format!(
                    "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {name}"
                );
                FieldError::invalid(path, type_name, detail)
            }
            Fail::Unsupported(why) => FieldError::internal(
                path,
                format!("the embedded API server can't evaluate this rule: {why}: {}", rule.rule.trim()),
            ),
        });
    }

    /// A rule that isn't fulfilled.
    #[expect(clippy::too_many_arguments, reason = "all of what a rule is run with")]
    fn failed(
        &mut self,
        rule: &Rule,
        value: &Value,
        old: Option<&Val>,
        new: &Val,
        node: &Node,
        path: &str,
        ratchet: Ratchet<'_>,
    ) {
        if !rule.uses_old && ratchet.forgives() {
            return;
        }
        let at = match (path, rule.field.as_str()) {
            (path, "") => path.to_owned(),
            ("", field) => field.to_owned(),
            (path, field) => format!("{path}.{field}"),
        };
        let message = rule.message_program.as_ref().and_then(|program| program.as_ref().ok()).and_then(|program| {
            let outer = Scope::new("self", new.clone(), None);
            let with_old = old.map(|old| Scope::new("oldSelf", old.clone(), Some(&outer)));
            match Evaluation::run(program, with_old.as_ref().unwrap_or(&outer)) {
                Ok(Val::Text(text)) => Some(text.trim().to_owned()),
                _ => None,
            }
        });
        let usable = |text: &String| !text.is_empty() && !text.contains('\n') && text.len() <= MAX_MESSAGE_BYTES;
        let detail = message.filter(usable).unwrap_or_else(|| rule.default_message());
        let shown =
            if matches!(node.type_name.as_str(), "object" | "array") { String::new() } else { print::value(value) };
        self.errors.push(match rule.reason.as_str() {
            "FieldValueForbidden" => FieldError::forbidden(at, detail),
            "FieldValueRequired" => FieldError::required(at, detail),
            "FieldValueDuplicate" => FieldError::duplicate(at, shown),
            _ => FieldError::new(FieldErrorKind::Invalid, at, shown, detail),
        });
    }
}

//! Checks a value against a schema: everything but embedded objects, lists' keys and CEL rules.
//!
//! The order, the wording and the oddities are those of the real server, which also decides by counting successful
//! checks which of several failed alternatives it reports.

use serde_json::{Map, Number, Value};

use super::{
    compile::{Additional, Node},
    correlate::Pair,
    format::Format,
    print,
};
use crate::field_error::{FieldError, FieldErrorKind, go_quote};

/// Beyond this size Go's check for whole numbers says no.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// A fault with the path that the real server keeps apart from its text.
struct Fault {
    /// The path relative to the validated value, or none for faults that Go reports without one.
    path: Option<String>,
    kind: FieldErrorKind,
    value: String,
    detail: String,
    /// Faults with the same text are reported once.
    text: String,
}

/// What came out of a check.
#[derive(Default)]
struct Outcome {
    faults: Vec<Fault>,
    matches: u32,
}

impl Outcome {
    fn add(&mut self, fault: Fault) {
        if !self.faults.iter().any(|known| known.text == fault.text) {
            self.faults.push(fault);
        }
    }

    fn merge(&mut self, other: Self) {
        self.matches += other.matches;
        other.faults.into_iter().for_each(|fault| self.add(fault));
    }

    fn fails(&self) -> bool {
        !self.faults.is_empty()
    }
}

/// Checks a value; `base` is the path of the value in its object, empty for the object.
pub(super) fn validate(value: &Value, old: Option<&Value>, node: &Node, base: &str) -> Vec<FieldError> {
    let pair = old.map(|old| Pair { new: value, old, node });
    let outcome = ratcheted(value, node, pair, "");
    outcome
        .faults
        .into_iter()
        .map(|fault| {
            let field = match fault.path.as_deref().map(|path| path.strip_prefix('.').unwrap_or(path)) {
                None | Some("") => base.to_owned(),
                Some(path) if base.is_empty() => path.to_owned(),
                Some(path) => format!("{base}.{path}"),
            };
            FieldError::new(fault.kind, field, fault.value, fault.detail)
        })
        .collect()
}

/// Checks a value and forgives its faults if it is unchanged.
fn ratcheted(value: &Value, node: &Node, pair: Option<Pair<'_>>, path: &str) -> Outcome {
    let mut outcome = check(value, node, pair, path);
    if outcome.fails() && pair.is_some_and(Pair::unchanged) {
        outcome.faults.clear();
    }
    outcome
}

fn check(value: &Value, node: &Node, pair: Option<Pair<'_>>, path: &str) -> Outcome {
    let mut all = Outcome::default();
    let has_format = node.format.is_checked();
    if value.is_null() {
        all.merge(check_null(node, path));
        all.merge(check_enum(value, node, path));
        return all;
    }
    let mut step = |outcome: Outcome| {
        all.merge(outcome);
        all.matches += 1;
    };
    if node.int_or_string || !node.type_name.is_empty() || has_format {
        step(check_type(value, node, path));
    }
    step(check_alternatives(value, node, pair, path));
    match value {
        Value::String(text) => {
            step(check_text(text, node, path));
            if let Format::Text(fits) = node.format {
                step(check_format(text, node, path, fits));
            }
        }
        Value::Number(number) => step(check_number(number, node, path)),
        Value::Array(items) => step(check_items(items, node, pair, path)),
        Value::Null | Value::Bool(_) | Value::Object(_) => {}
    }
    step(check_enum(value, node, path));
    if let Value::Object(fields) = value {
        step(check_fields(fields, node, pair, path));
    }
    all.matches += 1;
    all
}

/// The types of a node as a message lists them.
fn types(node: &Node) -> &str {
    if node.int_or_string { "integer,string" } else { &node.type_name }
}

fn allows(node: &Node, name: &str) -> bool {
    if node.int_or_string { matches!(name, "integer" | "string") } else { node.type_name == name }
}

/// What Go makes of a JSON value: integers are those without a fraction or exponent that fit 64 bits.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wrong_type(path: &str, wanted: &str, got: &str) -> Fault {
    let text = format!("{path} in body must be of type {wanted}: {}", go_quote(got));
    Fault {
        path: Some(path.to_owned()),
        kind: FieldErrorKind::TypeInvalid,
        value: go_quote(got),
        detail: text.clone(),
        text,
    }
}

fn invalid(path: &str, value: String, detail: String) -> Fault {
    let text = detail.clone();
    Fault { path: Some(path.to_owned()), kind: FieldErrorKind::Invalid, value, detail, text }
}

/// A fault that Go reports as a bare text.
fn bare(detail: String) -> Fault {
    let text = detail.clone();
    Fault { path: None, kind: FieldErrorKind::Invalid, value: "\"\"".to_owned(), detail, text }
}

fn failed(fault: Fault) -> Outcome {
    Outcome { faults: vec![fault], matches: 0 }
}

fn check_null(node: &Node, path: &str) -> Outcome {
    if !types(node).is_empty() && !node.nullable {
        return failed(wrong_type(path, types(node), "null"));
    }
    Outcome { faults: Vec::new(), matches: 1 }
}

fn check_type(value: &Value, node: &Node, path: &str) -> Outcome {
    let passed = Outcome { faults: Vec::new(), matches: 1 };
    let got = type_of(value);
    let whole = matches!(value, Value::Number(number) if got == "number" && is_whole(number.as_f64().unwrap_or(0.5)))
        && allows(node, "integer");
    let int_as_number = got == "integer" && allows(node, "number");
    let fits = allows(node, got) || whole || int_as_number;
    let text_like = matches!(value, Value::String(_) | Value::Array(_));
    if node.format.is_checked() {
        let format = match got {
            "integer" => "int64",
            "number" => "float64",
            _ => "",
        };
        if !text_like && !fits && format != node.format_name {
            return failed(wrong_type(path, &node.format_name, format));
        }
        if text_like && !allows(node, "number") && !allows(node, "integer") {
            return passed;
        }
    }
    if fits { passed } else { failed(wrong_type(path, types(node), got)) }
}

/// Go's IsFloat64AJSONInteger.
fn is_whole(x: f64) -> bool {
    if x.is_nan() || x.is_infinite() || x.abs() > MAX_SAFE_INTEGER {
        return false;
    }
    let floor = x.trunc();
    let difference = (x - floor).abs();
    if x == floor {
        return true;
    }
    let sum = x.abs() + floor.abs();
    if x == 0.0 || floor == 0.0 || difference < f64::MIN_POSITIVE {
        return difference < 1e-9 * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < 1e-9
}

fn check_text(text: &str, node: &Node, path: &str) -> Outcome {
    let length = text.chars().count() as i64;
    if let Some(limit) = node.max_length.filter(|limit| length > *limit) {
        let error = FieldError::too_long("", limit);
        return failed(Fault {
            path: Some(path.to_owned()),
            kind: error.kind,
            value: error.value,
            detail: error.detail,
            text: format!("{path} in body should be at most {limit} chars long"),
        });
    }
    if let Some(limit) = node.min_length.filter(|limit| length < *limit) {
        let detail = format!("{path} in body should be at least {limit} chars long");
        return failed(invalid(path, go_quote(text), detail));
    }
    if let Some(pattern) = &node.pattern {
        let said = match &pattern.regex {
            Ok(regex) if regex.is_match(text) => return Outcome::default(),
            Ok(_) => pattern.text.clone(),
            Err(why) => format!("{}, but pattern is invalid: {why}", pattern.text),
        };
        return failed(invalid(path, go_quote(text), format!("{path} in body should match '{said}'")));
    }
    Outcome::default()
}

fn check_format(text: &str, node: &Node, path: &str, fits: fn(&str) -> bool) -> Outcome {
    if fits(text) { Outcome::default() } else { failed(wrong_type(path, &node.format_name, text)) }
}

/// Whether a number, as Go writes it, fits the type and format of its schema.
fn in_range(number: &Number, node: &Node, what: &str, path: &str) -> Option<Fault> {
    let is_int = !node.int_or_string && node.type_name == "integer";
    let fits = if is_int {
        // A float is written out and read as an integer again, so any fraction fails.
        let int = number.as_i64().or_else(|| print::float_f(number.as_f64().unwrap_or(0.5)).parse().ok());
        match node.format {
            Format::Int32 => int.is_some_and(|int| i32::try_from(int).is_ok()),
            _ => int.is_some(),
        }
    } else {
        !matches!(node.format, Format::Float) || number.as_f64().is_some_and(|x| (x as f32).is_finite())
    };
    if fits {
        return None;
    }
    let name = if node.int_or_string { "" } else { &node.type_name };
    Some(bare(if node.format.is_checked() {
        format!("{what} value must be of type {name} with format {} in {path}", node.format_name)
    } else {
        format!("{what} value must be of type {name} (default format) in {path}")
    }))
}

fn check_number(number: &Number, node: &Node, path: &str) -> Outcome {
    let mut all = Outcome { faults: Vec::new(), matches: 1 };
    let limits = node.numbers;
    in_range(number, node, "Checked", path).into_iter().for_each(|fault| all.add(fault));
    let bound = |limit: f64, what: &str| Number::from_f64(limit).and_then(|limit| in_range(&limit, node, what, path));
    if let Some(factor) = limits.multiple_of {
        let odd = bound(factor, "MultipleOf");
        let native = odd.is_none();
        odd.into_iter().for_each(|fault| all.add(fault));
        check_multiple(number, factor, native, path).into_iter().for_each(|fault| all.add(fault));
    }
    if let Some((limit, exclusive)) = limits.minimum {
        let odd = bound(limit, "Minimum boundary");
        let native = odd.is_none();
        odd.into_iter().for_each(|fault| all.add(fault));
        let order = Bound { limit, exclusive, native, words: ["greater than or equal to", "greater than"], sign: -1.0 };
        check_bound(number, &order, path).into_iter().for_each(|fault| all.add(fault));
    }
    if let Some((limit, exclusive)) = limits.maximum {
        let odd = bound(limit, "Maximum boundary");
        let native = odd.is_none();
        odd.into_iter().for_each(|fault| all.add(fault));
        let order = Bound { limit, exclusive, native, words: ["less than or equal to", "less than"], sign: 1.0 };
        check_bound(number, &order, path).into_iter().for_each(|fault| all.add(fault));
    }
    all
}

/// A minimum (sign -1) or a maximum (sign 1).
struct Bound {
    limit: f64,
    exclusive: bool,
    /// Whether integers are compared as integers, which cuts a fraction of the limit.
    native: bool,
    words: [&'static str; 2],
    sign: f64,
}

fn check_bound(number: &Number, bound: &Bound, path: &str) -> Option<Fault> {
    let (beyond, equal, limit, value) = match number.as_i64().filter(|_| bound.native) {
        Some(int) => {
            let limit = bound.limit as i64;
            let beyond = if bound.sign > 0.0 { int > limit } else { int < limit };
            (beyond, int == limit, limit.to_string(), int.to_string())
        }
        None => {
            let x = number.as_f64().unwrap_or(0.0);
            let beyond = if bound.sign > 0.0 { x > bound.limit } else { x < bound.limit };
            (beyond, x == bound.limit, print::float_g(bound.limit), print::float_g(x))
        }
    };
    (beyond || bound.exclusive && equal).then(|| {
        let words = bound.words[usize::from(bound.exclusive)];
        invalid(path, value, format!("{path} in body should be {words} {limit}"))
    })
}

fn check_multiple(number: &Number, factor: f64, native: bool, path: &str) -> Option<Fault> {
    let must_be_positive = |factor: String| {
        invalid(path, factor.clone(), format!("factor MultipleOf declared for {path} must be positive: {factor}"))
    };
    let (fits, factor, value) = match number.as_i64().filter(|_| native) {
        Some(int) => {
            let factor = factor as i64;
            if factor <= 0 {
                return Some(must_be_positive(factor.to_string()));
            }
            (int % factor == 0, factor.to_string(), int.to_string())
        }
        None => {
            let x = number.as_f64().unwrap_or(0.0);
            if factor <= 0.0 {
                return Some(must_be_positive(print::float_g(factor)));
            }
            let times = if factor < 1.0 { 1.0 / factor * x } else { x / factor };
            (is_whole(times), print::float_g(factor), print::float_g(x))
        }
    };
    (!fits).then(|| invalid(path, value, format!("{path} in body should be a multiple of {factor}")))
}

fn check_items(items: &[Value], node: &Node, pair: Option<Pair<'_>>, path: &str) -> Outcome {
    let mut all = Outcome::default();
    if let Some(known) = &node.items {
        for (i, item) in items.iter().enumerate() {
            all.merge(ratcheted(item, known, pair.and_then(|pair| pair.index(i)), &format!("{path}[{i}]")));
        }
    }
    let size = items.len() as i64;
    if let Some(limit) = node.min_items.filter(|limit| size < *limit) {
        all.add(invalid(path, size.to_string(), format!("{path} in body should have at least {limit} items")));
    }
    if let Some(limit) = node.max_items.filter(|limit| size > *limit) {
        all.add(too_many(path, items.len(), limit, "items"));
    }
    if node.unique_items && items.iter().enumerate().any(|(i, item)| items[..i].contains(item)) {
        all.add(invalid(path, "\"\"".to_owned(), format!("{path} in body shouldn't contain duplicates")));
    }
    all.matches += 1;
    all
}

fn too_many(path: &str, actual: usize, limit: i64, what: &str) -> Fault {
    let error = FieldError::too_many("", actual, limit);
    Fault {
        path: Some(path.to_owned()),
        kind: error.kind,
        value: error.value,
        detail: error.detail,
        text: format!("{path} in body should have at most {limit} {what}"),
    }
}

fn check_enum(value: &Value, node: &Node, path: &str) -> Outcome {
    if node.values.is_empty() || !value.is_null() && node.values.iter().any(|known| same(value, known)) {
        return Outcome::default();
    }
    let texts: Vec<String> =
        node.values.iter().map(|known| known.as_str().map_or_else(|| print::json(known), str::to_owned)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let error = FieldError::not_supported("", print::value(value), &texts);
    failed(Fault {
        path: Some(path.to_owned()),
        kind: error.kind,
        value: error.value,
        detail: error.detail,
        text: format!("{path} in body should be one of {}", texts.join(" ")),
    })
}

/// Whether two values are equal once the first has the type of the second; a float loses its fraction then.
fn same(value: &Value, known: &Value) -> bool {
    match (value, known) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            (None, Some(b)) => a.as_f64().is_some_and(|a| a as i64 == b),
            _ => a.as_f64() == b.as_f64(),
        },
        (Value::Array(a), Value::Array(b)) => a == b,
        (value, known) => value == known,
    }
}

fn check_fields(fields: &Map<String, Value>, node: &Node, pair: Option<Pair<'_>>, path: &str) -> Outcome {
    let mut all = Outcome::default();
    let count = fields.len() as i64;
    if let Some(limit) = node.min_properties.filter(|limit| count < *limit) {
        all.add(invalid(path, count.to_string(), format!("{path} in body should have at least {limit} properties")));
    }
    if let Some(limit) = node.max_properties.filter(|limit| count > *limit) {
        all.add(too_many(path, fields.len(), limit, "properties"));
    }
    // The object's own type can't be ratcheted: both versions were converted to it.
    let below = |name: &str| {
        pair.filter(|_| !(path.is_empty() && matches!(name, "apiVersion" | "kind"))).and_then(|pair| pair.key(name))
    };
    let unknown = fields.iter().filter(|(name, _)| !node.properties.contains_key(*name));
    match &node.additional {
        Additional::Flag(false) => {
            for (name, _) in unknown {
                all.add(invalid(path, go_quote(name), format!("{path}.{name} in body is a forbidden property")));
            }
        }
        Additional::Schema(known) => {
            for (name, value) in unknown {
                all.merge(ratcheted(value, known, below(name), &format!("{path}.{name}")));
            }
        }
        Additional::Unsaid | Additional::Flag(true) => {}
    }
    for (name, known) in &node.properties {
        if let Some(value) = fields.get(name) {
            let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            all.merge(ratcheted(value, known, below(name), &at));
        }
    }
    for name in node.required.iter().filter(|name| !fields.contains_key(*name)) {
        let at = format!("{path}.{name}");
        let text = format!("{at} in body is required");
        let kind = FieldErrorKind::Required;
        all.add(Fault { path: Some(at), kind, value: String::new(), detail: String::new(), text });
    }
    all
}

fn check_alternatives(value: &Value, node: &Node, pair: Option<Pair<'_>>, path: &str) -> Outcome {
    let mut all = Outcome::default();
    if !node.any_of.is_empty() {
        let (passed, outcome) = first_or_best(node.any_of.iter().map(|node| check(value, node, pair, path)), true);
        if passed == 0 {
            all.add(bare(format!("{} must validate at least one schema (anyOf)", go_quote(path))));
        }
        outcome.into_iter().for_each(|outcome| all.merge(outcome));
    }
    if !node.one_of.is_empty() {
        let (passed, outcome) = first_or_best(node.one_of.iter().map(|node| check(value, node, pair, path)), false);
        let said =
            if passed == 0 { "Found none valid".to_owned() } else { format!("Found {passed} valid alternatives") };
        if passed != 1 {
            all.add(bare(format!("{} must validate one and only one schema (oneOf). {said}", go_quote(path))));
        }
        if passed < 2 {
            outcome.into_iter().for_each(|outcome| all.merge(outcome));
        }
    }
    if !node.all_of.is_empty() {
        let mut passed = 0;
        for node in &node.all_of {
            let outcome = check(value, node, pair, path);
            passed += usize::from(!outcome.fails());
            all.merge(outcome);
        }
        if passed != node.all_of.len() {
            let said = if passed == 0 { ". None validated" } else { "" };
            all.add(bare(format!("{} must validate all the schemas (allOf){said}", go_quote(path))));
        }
    }
    if node.not.as_ref().is_some_and(|node| !check(value, node, pair, path).fails()) {
        all.add(bare(format!("{} must not validate the schema (not)", go_quote(path))));
    }
    all.matches += 1;
    all
}

/// How many alternatives passed, and what to report: the first that passed, or the best of those that failed.
fn first_or_best(outcomes: impl Iterator<Item = Outcome>, stop: bool) -> (usize, Option<Outcome>) {
    let mut passed = 0;
    let mut first: Option<Outcome> = None;
    let mut best: Option<Outcome> = None;
    for outcome in outcomes {
        if !outcome.fails() {
            passed += 1;
            first.get_or_insert(outcome);
            if stop {
                break;
            }
        } else if passed == 0 && best.as_ref().is_none_or(|best| outcome.matches > best.matches) {
            best = Some(outcome);
        }
    }
    (passed, if passed > 0 { first } else { best })
}

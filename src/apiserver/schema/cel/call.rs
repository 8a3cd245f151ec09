//! Operators and functions of CEL.
//!
//! The operators, conversions and optionals are here, in cel-go's words; the libraries of Kubernetes are kube-cel's, but for
//! URLs.

use std::{cmp::Ordering, sync::Arc};

use chrono::{DateTime, Datelike as _, FixedOffset, Offset as _, SecondsFormat, TimeDelta, Timelike as _, Utc};
use kube_cel::{
    KubeCelExt as _,
    cel::{
        self, Context, ExecutionError,
        common::ast::{CallExpr, Expr, IdedExpr, operators},
    },
};
use ringmaster_core::duration;

use super::{
    eval::{Eval, Fail, index},
    url::Url,
    value::{self, Key, Val},
};
use crate::schema::pattern;

thread_local! {
    /// The libraries; they hold no state, but can't be shared by threads.
    static LIBRARIES: Context<'static> = Context::default().with_all();
}

fn data<T>(words: impl Into<String>) -> Result<T, Fail> {
    Err(Fail::Data(words.into()))
}

/// Calls an operator or a function; `prefix` is the namespace of a qualified one, as in `sets.contains`.
pub(super) fn call(prefix: Option<&str>, name: &str, receiver: Option<Val>, args: Vec<Val>) -> Eval {
    if prefix.is_none()
        && let Some(result) = operator(name, &args)
    {
        return result;
    }
    if prefix == Some("optional") {
        return make_optional(name, args);
    }
    if prefix.is_none()
        && let Some(result) = function(name, receiver.as_ref(), &args)
    {
        return result;
    }
    library(prefix, name, receiver, args)
}

fn operator(name: &str, args: &[Val]) -> Option<Eval> {
    let bool = |value| Some(Ok(Val::Bool(value)));
    match (name, args) {
        (operators::EQUALS, [a, b]) => bool(a.equal(b)),
        (operators::NOT_EQUALS, [a, b]) => bool(!a.equal(b)),
        (operators::LESS, [a, b]) => Some(ordered(a, b, |order| order == Ordering::Less)),
        (operators::LESS_EQUALS, [a, b]) => Some(ordered(a, b, |order| order != Ordering::Greater)),
        (operators::GREATER, [a, b]) => Some(ordered(a, b, |order| order == Ordering::Greater)),
        (operators::GREATER_EQUALS, [a, b]) => Some(ordered(a, b, |order| order != Ordering::Less)),
        (operators::LOGICAL_NOT, [Val::Bool(value)]) => bool(!value),
        (operators::NEGATE, [Val::Int(int)]) => Some(int.checked_neg().map(Val::Int).ok_or_else(overflow)),
        (operators::NEGATE, [Val::Double(x)]) => Some(Ok(Val::Double(-x))),
        (operators::IN, [item, Val::List(list)]) => bool(list.items.iter().any(|own| own.equal(item))),
        (operators::IN, [key, Val::Map(fields)]) => {
            bool(Key::of(key).is_some_and(|key| fields.entries.contains_key(&key)))
        }
        (operators::INDEX, [Val::Optional(None), _]) => Some(Ok(Val::Optional(None))),
        (operators::INDEX, [Val::Optional(Some(inner)), key]) => {
            Some(Ok(Val::Optional(index(inner, key).ok().map(Arc::new))))
        }
        (operators::INDEX, [operand, key]) => Some(index(operand, key)),
        (
            operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO,
            [a, b],
        ) => Some(arithmetic(name, a, b)),
        (operators::LOGICAL_NOT | operators::NEGATE | operators::IN, _) => Some(Err(Fail::overload())),
        _ => None,
    }
}

fn ordered(a: &Val, b: &Val, fits: fn(Ordering) -> bool) -> Eval {
    match (a, b) {
        // Any comparison with NaN is false.
        (Val::Double(x), _) | (_, Val::Double(x)) if x.is_nan() => Ok(Val::Bool(false)),
        _ => a.compare(b).map(|order| Val::Bool(fits(order))).ok_or_else(Fail::overload),
    }
}

fn overflow() -> Fail {
    Fail::Data("integer overflow".to_owned())
}

/// Arithmetic of two whole numbers of one type; `None` beyond its bounds.
macro_rules! checked {
    ($name:expr, $a:expr, $b:expr) => {
        match $name {
            operators::ADD => $a.checked_add(*$b),
            operators::SUBSTRACT => $a.checked_sub(*$b),
            operators::MULTIPLY => $a.checked_mul(*$b),
            operators::DIVIDE if *$b == 0 => return data("division by zero"),
            operators::DIVIDE => $a.checked_div(*$b),
            _ if *$b == 0 => return data("modulus by zero"),
            _ => $a.checked_rem(*$b),
        }
    };
}

fn arithmetic(name: &str, a: &Val, b: &Val) -> Eval {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => checked!(name, a, b).map(Val::Int).ok_or_else(overflow),
        (Val::Uint(a), Val::Uint(b)) => {
            checked!(name, a, b).map(Val::Uint).ok_or_else(|| Fail::Data("unsigned integer overflow".to_owned()))
        }
        (Val::Double(a), Val::Double(b)) => match name {
            operators::ADD => Ok(Val::Double(a + b)),
            operators::SUBSTRACT => Ok(Val::Double(a - b)),
            operators::MULTIPLY => Ok(Val::Double(a * b)),
            operators::DIVIDE => Ok(Val::Double(a / b)),
            _ => Err(Fail::overload()),
        },
        (a, b) if name == operators::ADD => joined(a, b),
        (a, b) if name == operators::SUBSTRACT => difference(a, b),
        _ => Err(Fail::overload()),
    }
}

fn joined(a: &Val, b: &Val) -> Eval {
    match (a, b) {
        (Val::Text(a), Val::Text(b)) => Ok(Val::text(&format!("{a}{b}"))),
        (Val::Bytes(a), Val::Bytes(b)) => Ok(Val::Bytes([a.as_ref(), b.as_ref()].concat().into())),
        (Val::List(a), Val::List(b)) => Ok(Val::List(Arc::new(a.joined(b)))),
        (Val::Span(a), Val::Span(b)) => {
            a.checked_add(*b).map(Val::Span).ok_or_else(|| Fail::Data("duration overflow".into()))
        }
        (Val::Instant(time), Val::Span(span)) | (Val::Span(span), Val::Instant(time)) => time
            .checked_add_signed(TimeDelta::nanoseconds(*span))
            .map(Val::Instant)
            .ok_or_else(|| Fail::Data("timestamp overflow".into())),
        _ => Err(Fail::overload()),
    }
}

fn difference(a: &Val, b: &Val) -> Eval {
    match (a, b) {
        (Val::Span(a), Val::Span(b)) => {
            a.checked_sub(*b).map(Val::Span).ok_or_else(|| Fail::Data("duration overflow".into()))
        }
        (Val::Instant(a), Val::Instant(b)) => {
            (*a - *b).num_nanoseconds().map(Val::Span).ok_or_else(|| Fail::Data("timestamp overflow".into()))
        }
        (Val::Instant(time), Val::Span(span)) => time
            .checked_sub_signed(TimeDelta::nanoseconds(*span))
            .map(Val::Instant)
            .ok_or_else(|| Fail::Data("timestamp overflow".into())),
        _ => Err(Fail::overload()),
    }
}

fn make_optional(name: &str, mut args: Vec<Val>) -> Eval {
    match (name, args.pop(), args.is_empty()) {
        ("none", None, _) => Ok(Val::Optional(None)),
        ("of", Some(value), true) => Ok(Val::Optional(Some(Arc::new(value)))),
        ("ofNonZeroValue", Some(value), true) => Ok(Val::Optional((!is_zero(&value)).then(|| Arc::new(value)))),
        _ => Err(Fail::overload()),
    }
}

fn is_zero(value: &Val) -> bool {
    match value {
        Val::Null | Val::Optional(None) => true,
        Val::Bool(value) => !value,
        Val::Int(int) => *int == 0,
        Val::Uint(uint) => *uint == 0,
        Val::Double(x) => *x == 0.0,
        Val::Text(text) => text.is_empty(),
        Val::Bytes(bytes) => bytes.is_empty(),
        Val::Span(nanos) => *nanos == 0,
        Val::List(list) => list.items.is_empty(),
        Val::Map(fields) => fields.entries.is_empty(),
        Val::Optional(Some(_)) | Val::Instant(_) | Val::Type(_) | Val::Foreign(_) | Val::Hidden(_) => false,
    }
}

/// The functions that are not left to the libraries; `None` for those that are.
fn function(name: &str, receiver: Option<&Val>, args: &[Val]) -> Option<Eval> {
    match (name, receiver, args) {
        ("size", Some(value), []) | ("size", None, [value]) => Some(size(value)),
        ("contains", Some(Val::Text(text)), [Val::Text(part)]) => Some(Ok(Val::Bool(text.contains(&**part)))),
        ("startsWith", Some(Val::Text(text)), [Val::Text(part)]) => Some(Ok(Val::Bool(text.starts_with(&**part)))),
        ("endsWith", Some(Val::Text(text)), [Val::Text(part)]) => Some(Ok(Val::Bool(text.ends_with(&**part)))),
        ("matches", Some(Val::Text(text)), [Val::Text(regex)])
        | ("matches", None, [Val::Text(text), Val::Text(regex)]) => Some(match pattern::compile(regex) {
            Ok(regex) => Ok(Val::Bool(regex.is_match(text))),
            Err(why) => data(why),
        }),
        ("dyn", None, [value]) => Some(Ok(value.clone())),
        ("type", None, [value]) => Some(Ok(Val::Type(value.type_name()))),
        ("int" | "uint" | "double" | "bool" | "bytes" | "duration" | "timestamp", None, [value]) => {
            Some(convert(name, value))
        }
        ("string", None, [value]) if !matches!(value, Val::Foreign(_)) => Some(convert(name, value)),
        (
            "getDate" | "getDayOfMonth" | "getDayOfWeek" | "getDayOfYear" | "getFullYear" | "getMonth" | "getHours"
            | "getMinutes" | "getSeconds" | "getMilliseconds",
            Some(receiver),
            args,
        ) => Some(time_part(name, receiver, args)),
        ("isURL", None, [Val::Text(text)]) => Some(Ok(Val::Bool(Url::is(text)))),
        ("url", None, [Val::Text(text)]) => Some(match Url::parse(text) {
            Ok(url) => Ok(Val::Foreign(cel::Value::Opaque(Arc::new(url)))),
            Err(why) => data(why),
        }),
        (_, Some(Val::Foreign(cel::Value::Opaque(opaque))), []) => {
            value::from_library(&opaque.downcast_ref::<Url>()?.get(name)?).map(Ok)
        }
        ("hasValue", Some(Val::Optional(inner)), []) => Some(Ok(Val::Bool(inner.is_some()))),
        ("value", Some(Val::Optional(inner)), []) => Some(match inner {
            Some(inner) => Ok((**inner).clone()),
            None => data("optional.none() dereference"),
        }),
        ("or", Some(Val::Optional(inner)), [other]) => {
            Some(Ok(if inner.is_some() { Val::Optional(inner.clone()) } else { other.clone() }))
        }
        ("orValue", Some(Val::Optional(inner)), [other]) => {
            Some(Ok(inner.as_ref().map_or_else(|| other.clone(), |inner| (**inner).clone())))
        }
        ("contains" | "startsWith" | "endsWith" | "matches" | "hasValue" | "value" | "or" | "orValue", ..) => {
            Some(Err(Fail::overload()))
        }
        _ => None,
    }
}

/// `getFullYear()` and the like, in UTC or in the zone that is given as an offset.
fn time_part(name: &str, receiver: &Val, args: &[Val]) -> Eval {
    let time = match (receiver, args) {
        (Val::Span(nanos), []) => {
            let part = match name {
                "getHours" => nanos / 3_600_000_000_000,
                "getMinutes" => nanos / 60_000_000_000,
                "getSeconds" => nanos / 1_000_000_000,
                "getMilliseconds" => nanos / 1_000_000,
                _ => return Err(Fail::overload()),
            };
            return Ok(Val::Int(part));
        }
        (Val::Instant(time), []) => time.to_utc().fixed_offset(),
        (Val::Instant(time), [Val::Text(zone)]) => time.with_timezone(&offset(zone)?),
        _ => return Err(Fail::overload()),
    };
    let part = match name {
        "getFullYear" => i64::from(time.year()),
        "getMonth" => i64::from(time.month0()),
        "getDate" => i64::from(time.day()),
        "getDayOfMonth" => i64::from(time.day0()),
        "getDayOfWeek" => i64::from(time.weekday().num_days_from_sunday()),
        "getDayOfYear" => i64::from(time.ordinal0()),
        "getHours" => i64::from(time.hour()),
        "getMinutes" => i64::from(time.minute()),
        "getSeconds" => i64::from(time.second()),
        _ => i64::from(time.nanosecond() / 1_000_000),
    };
    Ok(Val::Int(part))
}

/// A zone like `+02:00` or `UTC`; the names of places aren't known here.
fn offset(zone: &str) -> Result<FixedOffset, Fail> {
    let unknown = || Fail::Unsupported(format!("the time zone '{zone}' is unknown"));
    if matches!(zone, "" | "UTC") {
        return Ok(Utc.fix());
    }
    let (sign, rest) = match zone.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, zone.strip_prefix('+').unwrap_or(zone)),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(unknown)?;
    let (hours, minutes): (i32, i32) = (hours.parse().map_err(|_| unknown())?, minutes.parse().map_err(|_| unknown())?);
    FixedOffset::east_opt(sign * (hours * 3600 + minutes * 60)).ok_or_else(unknown)
}

fn size(value: &Val) -> Eval {
    let count = match value {
        Val::Text(text) => text.chars().count(),
        Val::Bytes(bytes) => bytes.len(),
        Val::List(list) => list.items.len(),
        Val::Map(fields) => fields.entries.len() + fields.hidden.len(),
        _ => return Err(Fail::overload()),
    };
    Ok(Val::Int(count as i64))
}

/// `int(x)` and the like.
fn convert(to: &str, value: &Val) -> Eval {
    let long = match to {
        "duration" => "google.protobuf.Duration",
        "timestamp" => "google.protobuf.Timestamp",
        other => other,
    };
    let wrong = || Fail::Data(format!("type conversion error from '{}' to '{long}'", value.type_name()));
    let range = || Fail::Data("integer overflow".to_owned());
    match (to, value) {
        ("int", Val::Int(_))
        | ("uint", Val::Uint(_))
        | ("double", Val::Double(_))
        | ("bool", Val::Bool(_))
        | ("string", Val::Text(_))
        | ("bytes", Val::Bytes(_))
        | ("duration", Val::Span(_))
        | ("timestamp", Val::Instant(_)) => Ok(value.clone()),
        ("int", Val::Uint(uint)) => i64::try_from(*uint).map(Val::Int).map_err(|_| range()),
        ("int", Val::Double(x)) if x.is_finite() && x.abs() < 9_223_372_036_854_775_807.0 => Ok(Val::Int(*x as i64)),
        ("int", Val::Double(_)) => Err(range()),
        ("int", Val::Text(text)) => text.parse().map(Val::Int).map_err(|_| wrong()),
        ("int", Val::Instant(time)) => Ok(Val::Int(time.timestamp())),
        ("int", Val::Span(nanos)) => Ok(Val::Int(*nanos)),
        ("uint", Val::Int(int)) => {
            u64::try_from(*int).map(Val::Uint).map_err(|_| Fail::Data("unsigned integer overflow".into()))
        }
        ("uint", Val::Double(x)) if (0.0..18_446_744_073_709_551_615.0).contains(x) => Ok(Val::Uint(*x as u64)),
        ("uint", Val::Double(_)) => Err(Fail::Data("unsigned integer overflow".into())),
        ("uint", Val::Text(text)) => text.parse().map(Val::Uint).map_err(|_| wrong()),
        ("double", Val::Int(int)) => Ok(Val::Double(*int as f64)),
        ("double", Val::Uint(uint)) => Ok(Val::Double(*uint as f64)),
        ("double", Val::Text(text)) => text.parse().map(Val::Double).map_err(|_| wrong()),
        ("bool", Val::Text(text)) => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Val::Bool(false)),
            _ => Err(wrong()),
        },
        ("bytes", Val::Text(text)) => Ok(Val::Bytes(text.as_bytes().into())),
        ("duration", Val::Text(text)) => duration::parse(text).map(Val::Span).map_err(|_| wrong()),
        ("duration", Val::Int(nanos)) => Ok(Val::Span(*nanos)),
        ("timestamp", Val::Text(text)) => DateTime::parse_from_rfc3339(text).map(Val::Instant).map_err(|_| wrong()),
        ("timestamp", Val::Int(seconds)) => {
            DateTime::from_timestamp(*seconds, 0).map(|time| Val::Instant(time.fixed_offset())).ok_or_else(range)
        }
        ("string", _) => as_text(value).map(|text| Val::text(&text)).ok_or_else(wrong),
        _ => Err(if matches!(to, "int" | "uint" | "double" | "bool" | "bytes") { wrong() } else { Fail::overload() }),
    }
}

fn as_text(value: &Val) -> Option<String> {
    Some(match value {
        Val::Bool(value) => value.to_string(),
        Val::Int(int) => int.to_string(),
        Val::Uint(uint) => uint.to_string(),
        Val::Double(x) => value::double_text(*x),
        Val::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        Val::Span(nanos) => span_text(*nanos),
        Val::Instant(time) => {
            let text = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            trim_fraction(&text)
        }
        _ => return None,
    })
}

/// A duration as cel-go writes it: seconds.
fn span_text(nanos: i64) -> String {
    let whole = nanos / 1_000_000_000;
    let rest = (nanos % 1_000_000_000).unsigned_abs();
    let sign = if nanos < 0 && whole == 0 { "-" } else { "" };
    let text = if rest == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest:09}") };
    format!("{}s", if rest == 0 { &text } else { text.trim_end_matches('0') })
}

/// A time without the zeros that end its fraction.
fn trim_fraction(text: &str) -> String {
    let Some((day, rest)) = text.split_once('.') else { return text.to_owned() };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(end);
    match fraction.trim_end_matches('0') {
        "" => format!("{day}{zone}"),
        fraction => format!("{day}.{fraction}{zone}"),
    }
}

/// A key as cel-go shows it in an error.
pub(super) fn shown(value: &Val) -> String {
    match value {
        Val::Text(text) => text.to_string(),
        other => as_text(other).unwrap_or_else(|| other.type_name().to_owned()),
    }
}

/// Leaves a call to the libraries.
fn library(prefix: Option<&str>, name: &str, receiver: Option<Val>, args: Vec<Val>) -> Eval {
    let full = prefix.map_or_else(|| name.to_owned(), |prefix| format!("{prefix}.{name}"));
    let unsupported = |why: &str| Fail::Unsupported(format!("function '{full}' {why}"));
    LIBRARIES.with(|libraries| {
        let mut context = libraries.new_inner_scope();
        let ident = |name: String| IdedExpr { id: 0, expr: Expr::Ident(name) };
        let mut idents = Vec::with_capacity(args.len());
        for (i, arg) in args.iter().enumerate() {
            let arg = value::to_library(arg).ok_or_else(|| unsupported("can't take such a value"))?;
            context.add_variable_from_value(format!("@{i}"), arg);
            idents.push(ident(format!("@{i}")));
        }
        let target = match (prefix, &receiver) {
            (Some(prefix), _) => Some(Box::new(ident(prefix.to_owned()))),
            (None, Some(receiver)) => {
                let value = value::to_library(receiver).ok_or_else(|| unsupported("can't take such a value"))?;
                context.add_variable_from_value("@target", value);
                Some(Box::new(ident("@target".to_owned())))
            }
            (None, None) => None,
        };
        let call = CallExpr { func_name: name.to_owned(), target, args: idents };
        let expr = IdedExpr { id: 0, expr: Expr::Call(call) };
        match cel::Value::resolve(&expr, &context) {
            // An unknown format is null there, and a known one no optional.
            Ok(cel::Value::Null) if full == "format.named" => Ok(Val::Optional(None)),
            Ok(made) => {
                let made = value::from_library(&made).ok_or_else(|| unsupported("gave a value of no known type"))?;
                Ok(if full == "format.named" { Val::Optional(Some(Arc::new(made))) } else { made })
            }
            Err(error) => Err(library_fault(error, &unsupported)),
        }
    })
}

fn library_fault(error: ExecutionError, unsupported: &dyn Fn(&str) -> Fail) -> Fail {
    match error {
        ExecutionError::UndeclaredReference(_) => unsupported("is unknown"),
        ExecutionError::NoSuchKey(key) => Fail::Data(format!("no such key: {key}")),
        ExecutionError::IndexOutOfBounds(cel::Value::Int(i)) => Fail::Data(format!("index out of bounds: {i}")),
        ExecutionError::FunctionError { message, .. } => Fail::Data(message),
        ExecutionError::DivisionByZero(_) => Fail::Data("division by zero".to_owned()),
        ExecutionError::RemainderByZero(_) => Fail::Data("modulus by zero".to_owned()),
        ExecutionError::Overflow(..) => overflow(),
        ExecutionError::NoSuchOverload
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::UnsupportedTargetType { .. }
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::InvalidArgumentCount { .. }
        | ExecutionError::MissingArgumentOrTarget => Fail::overload(),
        other => unsupported(&format!("failed: {other}")),
    }
}

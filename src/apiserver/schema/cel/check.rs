//! Checks the names and types of a CEL expression against the schema, as far as they are certain.
//!
//! Finds unknown fields, variables and functions, operators between types that have none, and a wrong type of the
//! result. What isn't certain has the type `Dyn` and passes here; then the evaluation decides.

use kube_cel::cel::{
    IdedExpr,
    common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators},
};

use super::{
    eval::{MAX_DEPTH, type_named},
    overloads::{self, Call},
    place::{located, occurrences, place, symbol},
    value,
};
use crate::schema::compile::{Additional, Node};

/// What an expression must give.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A rule.
    Bool,
    /// A message.
    Text,
}

/// What the variables of an expression are.
#[derive(Clone, Copy)]
pub(super) struct Types<'a> {
    /// The schema of `self` and `oldSelf`.
    pub node: &'a Node,
    /// Whether it is an object with apiVersion, kind and metadata.
    pub whole: bool,
    /// Whether `oldSelf` is an optional.
    pub optional_old: bool,
}

/// A type.
#[derive(Clone, Debug)]
pub(super) enum Ty<'a> {
    /// Not certain.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Span,
    Instant,
    Type,
    Optional(Box<Ty<'a>>),
    List(Box<Ty<'a>>),
    Map(Box<Ty<'a>>),
    Object(&'a Node, bool),
    /// The metadata of an object.
    Metadata,
    /// A type of a library: how `overloads` calls it, and how messages do.
    Named(&'static str, &'static str),
}

impl<'a> Ty<'a> {
    fn of(node: &'a Node, whole: bool) -> Self {
        if node.int_or_string {
            return Self::Dyn;
        }
        match (node.type_name.as_str(), node.format_name.as_str()) {
            ("object", _) => match &node.additional {
                Additional::Schema(known) if !whole => Self::Map(Box::new(Self::of(known, known.embedded))),
                _ => Self::Object(node, whole),
            },
            ("array", _) => {
                node.items.as_deref().map_or(Self::Dyn, |known| Self::List(Box::new(Self::of(known, known.embedded))))
            }
            ("string", "byte") => Self::Bytes,
            ("string", "duration") => Self::Span,
            ("string", "date" | "date-time") => Self::Instant,
            ("string", _) => Self::Text,
            ("integer", _) => Self::Int,
            ("number", _) => Self::Double,
            ("boolean", _) => Self::Bool,
            _ if whole => Self::Object(node, true),
            _ => Self::Dyn,
        }
    }

    /// The name in a message; `None` if it isn't certain.
    fn name(&self) -> Option<String> {
        Some(match self {
            Self::Dyn | Self::Object(..) | Self::Metadata | Self::Type => return None,
            Self::Named(_, name) => (*name).to_owned(),
            Self::Null => "null".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Uint => "uint".to_owned(),
            Self::Double => "double".to_owned(),
            Self::Text => "string".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Span => "duration".to_owned(),
            Self::Instant => "timestamp".to_owned(),
            Self::Optional(inner) => format!("optional_type({})", inner.name()?),
            Self::List(item) => format!("list({})", item.name()?),
            Self::Map(item) => format!("map(string, {})", item.name()?),
        })
    }

    /// The name in a message, or what comes nearest.
    fn shown(&self) -> String {
        self.name().unwrap_or_else(|| self.class().to_owned())
    }

    /// Whether a value could be of both types.
    fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            // Objects may be compared with null, and their names aren't known here.
            (Self::Dyn, _)
            | (_, Self::Dyn)
            | (Self::Object(..) | Self::Metadata | Self::Type | Self::Span | Self::Instant, Self::Null)
            | (Self::Null, Self::Object(..) | Self::Metadata | Self::Type | Self::Span | Self::Instant) => true,
            (Self::Object(..) | Self::Metadata | Self::Map(_), Self::Object(..) | Self::Metadata | Self::Map(_)) => {
                match (self, other) {
                    (Self::Map(a), Self::Map(b)) => a.fits(b),
                    _ => true,
                }
            }
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => a.fits(b),
            (Self::Named(a, _), Self::Named(b, _)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// How `overloads` calls it.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Dyn => "dyn",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::Text => "string",
            Self::Bytes => "bytes",
            Self::Span => "duration",
            Self::Instant => "timestamp",
            Self::Type => "type",
            Self::Optional(_) => "optional",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Object(..) | Self::Metadata => "object",
            Self::Named(class, _) => class,
        }
    }

    /// The type of what is one or the other.
    pub(super) fn join(self, other: Self) -> Self {
        if self.fits(&other) && !matches!(self, Self::Dyn) && !matches!(other, Self::Dyn) { self } else { Self::Dyn }
    }

    fn item(&self) -> Self {
        match self {
            Self::List(item) => (**item).clone(),
            Self::Map(_) => Self::Text,
            _ => Self::Dyn,
        }
    }

    /// The type of its items or values.
    pub(super) fn value(&self) -> Self {
        match self {
            Self::List(item) | Self::Map(item) => (**item).clone(),
            _ => Self::Dyn,
        }
    }
}

impl<'a> Types<'a> {
    /// Checks an expression; says also whether it uses `oldSelf`.
    pub(super) fn check(self, source: &str, expr: IdedExpr, wanted: Wanted) -> (Result<IdedExpr, String>, bool) {
        let mut checker =
            Checker { types: self, source, faults: Vec::new(), seen: Vec::new(), uses_old: false, at: 0, depth: 0 };
        let ty = checker.infer(&expr, &mut Vec::new());
        let uses_old = checker.uses_old;
        if !checker.faults.is_empty() {
            checker.faults.sort_by_key(|(at, _)| *at);
            let lines: Vec<String> = checker
                .faults
                .iter()
                .map(|(at, message)| {
                    let (line, column) = place(source, *at);
                    located(source, line, column, message)
                })
                .collect();
            return (Err(format!("compilation failed: {}", lines.join("\n"))), uses_old);
        }
        let fits = match wanted {
            Wanted::Bool => matches!(ty, Ty::Bool | Ty::Dyn),
            Wanted::Text => matches!(ty, Ty::Text | Ty::Dyn),
        };
        let refusal = match wanted {
            Wanted::Bool => "cel expression must evaluate to a bool",
            Wanted::Text => "messageExpression must evaluate to a string",
        };
        (if fits { Ok(expr) } else { Err(refusal.to_owned()) }, uses_old)
    }
}

type Locals<'a> = Vec<(String, Ty<'a>)>;

struct Checker<'a, 's> {
    types: Types<'a>,
    source: &'s str,
    faults: Vec<(usize, String)>,
    /// How often each word was met: the parser tells no places, so the n-th use is the n-th occurrence.
    seen: Vec<(String, usize)>,
    uses_old: bool,
    /// The place of the expression that was looked at last.
    at: usize,
    depth: u32,
}

impl<'a> Checker<'a, '_> {
    fn infer(&mut self, expr: &IdedExpr, locals: &mut Locals<'a>) -> Ty<'a> {
        if self.depth >= MAX_DEPTH {
            return Ty::Dyn;
        }
        self.depth += 1;
        let ty = self.infer_inner(expr, locals);
        self.depth -= 1;
        ty
    }

    fn infer_inner(&mut self, expr: &IdedExpr, locals: &mut Locals<'a>) -> Ty<'a> {
        match &expr.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Ty::Bool,
                LiteralValue::Bytes(_) => Ty::Bytes,
                LiteralValue::Double(_) => Ty::Double,
                LiteralValue::Int(_) => Ty::Int,
                LiteralValue::Null => Ty::Null,
                LiteralValue::String(_) => Ty::Text,
                LiteralValue::UInt(_) => Ty::Uint,
            },
            Expr::Ident(name) => self.ident(name, locals),
            Expr::Select(select) => {
                let operand = self.infer(&select.operand, locals);
                let word = if select.test { "has(".to_owned() } else { format!(".{}", select.field) };
                let mut at = self.occurrence(&word);
                if select.test {
                    // The field is met, too, and the place is that of the parenthesis.
                    self.occurrence(&format!(".{}", select.field));
                    at += 3;
                }
                self.at = at;
                let ty = self.field(operand, &select.field, at);
                if select.test { Ty::Bool } else { ty }
            }
            Expr::List(list) => {
                let types: Vec<Ty<'a>> = list.elements.iter().map(|item| self.infer(item, locals)).collect();
                let any_optional = !list.optional_indices.is_empty();
                let item = types.into_iter().reduce(Ty::join).filter(|_| !any_optional).unwrap_or(Ty::Dyn);
                Ty::List(Box::new(item))
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.infer(&entry.key, locals);
                        self.infer(&entry.value, locals);
                    }
                }
                Ty::Map(Box::new(Ty::Dyn))
            }
            Expr::Comprehension(made) => {
                let range = self.infer(&made.iter_range, locals);
                let init = self.infer(&made.accu_init, locals);
                let depth = locals.len();
                // The variables stand in the source before they are used.
                for name in made.iter_var2.iter().chain([&made.iter_var]).filter(|name| !name.starts_with('@')) {
                    self.occurrence(name);
                }
                locals.push((made.accu_var.clone(), init));
                self.infer(&made.loop_cond, locals);
                locals.push((made.iter_var.clone(), range.item()));
                if let Some(name) = &made.iter_var2 {
                    locals.push((name.clone(), range.value()));
                }
                let step = self.infer(&made.loop_step, locals);
                locals.truncate(depth);
                // A list that starts empty has the type of what is added.
                locals.push((made.accu_var.clone(), step));
                let result = self.infer(&made.result, locals);
                locals.truncate(depth);
                result
            }
            Expr::Call(call) => self.call(call, locals),
            Expr::Struct(_) | Expr::Unspecified => Ty::Dyn,
        }
    }

    fn ident(&mut self, name: &str, locals: &Locals<'a>) -> Ty<'a> {
        if let Some((_, ty)) = locals.iter().rev().find(|(known, _)| known == name) {
            let ty = ty.clone();
            if !name.starts_with('@') {
                self.at = self.occurrence(name);
            }
            return ty;
        }
        let at = self.occurrence(name);
        self.at = at;
        let own = || Ty::of(self.types.node, self.types.whole);
        match name {
            "self" => own(),
            "oldSelf" => {
                self.uses_old = true;
                let own = Ty::of(self.types.node, self.types.whole);
                if self.types.optional_old { Ty::Optional(Box::new(own)) } else { own }
            }
            _ if type_named(name).is_some() => Ty::Type,
            _ => {
                self.undeclared(name, at);
                Ty::Dyn
            }
        }
    }

    fn undeclared(&mut self, name: &str, at: usize) {
        self.faults.push((at, format!("undeclared reference to '{name}' (in container '')")));
    }

    fn field(&mut self, operand: Ty<'a>, name: &str, at: usize) -> Ty<'a> {
        match operand {
            Ty::Dyn => Ty::Dyn,
            Ty::Map(item) => *item,
            Ty::Optional(inner) => Ty::Optional(Box::new(self.field(*inner, name, at))),
            Ty::Metadata if matches!(name, "name" | "generateName") => Ty::Text,
            Ty::Object(_, true) if matches!(name, "apiVersion" | "kind") => Ty::Text,
            Ty::Object(_, true) if name == "metadata" => Ty::Metadata,
            Ty::Object(node, _) => {
                let known = node
                    .properties
                    .iter()
                    .find(|(field, known)| value::exposed(known) && value::escape(field).as_deref() == Some(name));
                match known {
                    Some((_, known)) => Ty::of(known, known.embedded),
                    None => {
                        self.faults.push((at, format!("undefined field '{name}'")));
                        Ty::Dyn
                    }
                }
            }
            Ty::Metadata => {
                self.faults.push((at, format!("undefined field '{name}'")));
                Ty::Dyn
            }
            other => {
                if let Some(type_name) = other.name() {
                    self.faults.push((at, format!("type '{type_name}' does not support field selection")));
                }
                Ty::Dyn
            }
        }
    }

    fn call(&mut self, call: &CallExpr, locals: &mut Locals<'a>) -> Ty<'a> {
        let name = call.func_name.as_str();
        if let Some(ty) = self.macro_call(call, locals) {
            return ty;
        }
        if let (operators::OPT_SELECT, [operand, key]) = (name, call.args.as_slice()) {
            let operand = self.infer(operand, locals);
            let Expr::Literal(LiteralValue::String(field)) = &key.expr else { return Ty::Dyn };
            let at = self.occurrence(&format!(".?{}", field.inner()));
            let inner = match operand {
                Ty::Optional(inner) => *inner,
                plain => plain,
            };
            return Ty::Optional(Box::new(self.field(inner, field.inner(), at)));
        }
        if let Some(symbol) = symbol(name)
            && call.target.is_none()
        {
            return self.operator(name, symbol, &call.args, locals);
        }
        // A qualified function: its prefix is no variable.
        if let Some(Expr::Ident(prefix)) = call.target.as_ref().map(|target| &target.expr)
            && overloads::is_qualified(&format!("{prefix}.{name}"))
            && !locals.iter().any(|(known, _)| known == prefix)
        {
            self.occurrence(prefix);
            return self.function(&format!("{prefix}.{name}"), name, None, call, locals);
        }
        let receiver = call.target.as_ref().map(|target| self.infer(target, locals));
        self.function(name, name, receiver, call, locals)
    }

    fn function(
        &mut self,
        full: &str,
        name: &str,
        receiver: Option<Ty<'a>>,
        call: &CallExpr,
        locals: &mut Locals<'a>,
    ) -> Ty<'a> {
        let at = self.occurrence(&format!("{name}(")) + name.len();
        let args: Vec<Ty<'a>> = call.args.iter().map(|arg| self.infer(arg, locals)).collect();
        self.at = at;
        match overloads::resolve(full, receiver.as_ref(), &args) {
            Call::Gives(ty) => return ty,
            Call::Unknown => self.undeclared(full, at),
            // What was undeclared before has no type, and its methods aren't looked for.
            Call::Unfit if matches!(receiver, Some(Ty::Dyn)) => {}
            Call::Unfit => {
                let names: Vec<String> = args.iter().map(Ty::shown).collect();
                let own = receiver.as_ref().map(|ty| format!("{}.", ty.shown())).unwrap_or_default();
                let message =
                    format!("found no matching overload for '{full}' applied to '{own}({})'", names.join(", "));
                self.faults.push((at, message));
            }
        }
        Ty::Dyn
    }

    /// The macros that the parser doesn't expand.
    fn macro_call(&mut self, call: &CallExpr, locals: &mut Locals<'a>) -> Option<Ty<'a>> {
        let target = call.target.as_deref()?;
        let name = call.func_name.as_str();
        let variables = match (name, call.args.len()) {
            ("optMap" | "optFlatMap" | "sortBy", 2) => 1,
            ("all" | "exists" | "existsOne" | "exists_one", 3)
            | ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => 2,
            _ => return None,
        };
        let mut names = Vec::new();
        for arg in &call.args[..variables] {
            let Expr::Ident(variable) = &arg.expr else { return None };
            names.push(variable.clone());
        }
        let range = self.infer(target, locals);
        self.occurrence(&format!("{name}("));
        names.iter().for_each(|name| {
            self.occurrence(name);
        });
        let depth = locals.len();
        match (name, names.as_slice()) {
            ("optMap" | "optFlatMap", [variable]) => {
                let inner = if let Ty::Optional(inner) = &range { (**inner).clone() } else { Ty::Dyn };
                locals.push((variable.clone(), inner));
            }
            (_, [variable]) => locals.push((variable.clone(), range.item())),
            (_, names) => {
                let key = if matches!(range, Ty::List(_)) { Ty::Int } else { range.item() };
                locals.push((names[0].clone(), key));
                locals.push((names[1].clone(), range.value()));
            }
        }
        let mut body = Ty::Dyn;
        for arg in &call.args[variables..] {
            body = self.infer(arg, locals);
        }
        locals.truncate(depth);
        Some(match name {
            "optMap" => Ty::Optional(Box::new(body)),
            "optFlatMap" => body,
            "sortBy" => range,
            "transformList" => Ty::List(Box::new(body)),
            "transformMap" | "transformMapEntry" => Ty::Dyn,
            _ => Ty::Bool,
        })
    }

    fn operator(&mut self, name: &str, symbol: &str, args: &[IdedExpr], locals: &mut Locals<'a>) -> Ty<'a> {
        let first = args.first().map_or(Ty::Dyn, |arg| self.infer(arg, locals));
        self.wants_bool(name, &first);
        let at = if symbol.is_empty() { 0 } else { self.occurrence(symbol) };
        let mut types = vec![first];
        for arg in args.iter().skip(1) {
            let ty = self.infer(arg, locals);
            self.wants_bool(name, &ty);
            types.push(ty);
        }
        self.at = at;
        let made = match (name, types.as_slice()) {
            (operators::CONDITIONAL, [_, yes, no]) => Some(yes.clone().join(no.clone())),
            (operators::NOT_STRICTLY_FALSE | operators::LOGICAL_AND | operators::LOGICAL_OR, _) => Some(Ty::Bool),
            (operators::LOGICAL_NOT, [ty]) => ty.fits(&Ty::Bool).then_some(Ty::Bool),
            (operators::EQUALS | operators::NOT_EQUALS, [a, b]) => a.fits(b).then_some(Ty::Bool),
            (operators::IN, [a, b]) => match b {
                Ty::List(item) => a.fits(item).then_some(Ty::Bool),
                Ty::Map(_) | Ty::Dyn => Some(Ty::Bool),
                _ => None,
            },
            (operators::INDEX, [operand, _]) => match operand {
                Ty::Optional(inner) => Some(Ty::Optional(Box::new(inner.value()))),
                Ty::List(_) | Ty::Map(_) | Ty::Dyn | Ty::Object(..) => Some(operand.value()),
                _ => None,
            },
            (operators::OPT_INDEX, [operand, _]) => Some(Ty::Optional(Box::new(operand.value()))),
            (operators::NEGATE, [ty]) => matches!(ty, Ty::Int | Ty::Double | Ty::Dyn).then(|| ty.clone()),
            (operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS, [a, b]) => {
                let number = |ty: &Ty<'_>| matches!(ty, Ty::Int | Ty::Uint | Ty::Double);
                let ordered = |ty: &Ty<'_>| {
                    number(ty) || matches!(ty, Ty::Bool | Ty::Text | Ty::Bytes | Ty::Span | Ty::Instant | Ty::Dyn)
                };
                (ordered(a) && ordered(b) && (a.fits(b) || number(a) && number(b))).then_some(Ty::Bool)
            }
            (_, [a, b]) => arithmetic(name, a, b),
            _ => Some(Ty::Dyn),
        };
        made.unwrap_or_else(|| {
            let names: Vec<String> = types.iter().map(Ty::shown).collect();
            let message = format!("found no matching overload for '{name}' applied to '({})'", names.join(", "));
            self.faults.push((at, message));
            Ty::Dyn
        })
    }

    /// The sides of `&&` and `||` are checked one by one.
    fn wants_bool(&mut self, name: &str, ty: &Ty<'a>) {
        if matches!(name, operators::LOGICAL_AND | operators::LOGICAL_OR) && !ty.fits(&Ty::Bool) {
            self.faults.push((self.at, format!("expected type 'bool' but found '{}'", ty.shown())));
        }
    }

    /// The place of the next occurrence of a word that wasn't met before, as a byte offset.
    fn occurrence(&mut self, word: &str) -> usize {
        let count = match self.seen.iter_mut().find(|(known, _)| known == word) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                self.seen.push((word.to_owned(), 0));
                0
            }
        };
        let found: Vec<usize> = occurrences(self.source, word);
        found.get(count).or_else(|| found.last()).copied().unwrap_or(0)
    }
}

fn arithmetic<'a>(name: &str, a: &Ty<'a>, b: &Ty<'a>) -> Option<Ty<'a>> {
    match (a, b) {
        (Ty::Dyn, Ty::List(_)) | (Ty::List(_), Ty::Dyn) if name == operators::ADD => Some(Ty::List(Box::new(Ty::Dyn))),
        (Ty::Dyn, _) | (_, Ty::Dyn) => Some(Ty::Dyn),
        (Ty::Int, Ty::Int) => Some(Ty::Int),
        (Ty::Uint, Ty::Uint) => Some(Ty::Uint),
        (Ty::Double, Ty::Double) if name != operators::MODULO => Some(Ty::Double),
        (Ty::Text, Ty::Text) if name == operators::ADD => Some(Ty::Text),
        (Ty::Bytes, Ty::Bytes) if name == operators::ADD => Some(Ty::Bytes),
        (Ty::List(a), Ty::List(b)) if name == operators::ADD => {
            let item = if matches!(**a, Ty::Dyn) { (**b).clone() } else { (**a).clone() };
            a.fits(b).then(|| Ty::List(Box::new(item)))
        }
        (Ty::Span, Ty::Span) if matches!(name, operators::ADD | operators::SUBSTRACT) => Some(Ty::Span),
        (Ty::Instant, Ty::Span) if matches!(name, operators::ADD | operators::SUBSTRACT) => Some(Ty::Instant),
        (Ty::Span, Ty::Instant) if name == operators::ADD => Some(Ty::Instant),
        (Ty::Instant, Ty::Instant) if name == operators::SUBSTRACT => Some(Ty::Span),
        _ => None,
    }
}

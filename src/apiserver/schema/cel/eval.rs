//! Evaluates a parsed CEL expression.
//!
//! Follows cel-go's rules: errors are absorbed by `||` and `&&`, numbers compare across types, optionals stay optional.
//! What only the language's libraries know is left to `call`; what nobody knows is an error, never a value.

use std::{collections::BTreeMap, sync::Arc};

use kube_cel::cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::{
    call,
    value::{Key, Val},
};

/// Limit of the steps of one expression; the real server's limit is a cost of as much.
pub(super) const MAX_STEPS: u64 = 1_000_000;
/// Limit of how deep an expression may be nested.
pub(super) const MAX_DEPTH: u32 = 200;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fail {
    /// The rule failed on this data, in cel-go's words.
    Data(String),
    /// This evaluator can't do it.
    Unsupported(String),
    /// It took too long.
    TooCostly,
}

impl Fail {
    /// There is no such operator or function for these types.
    pub(super) fn overload() -> Self {
        Self::Data("no such overload".to_owned())
    }
}

/// A result.
pub(super) type Eval = Result<Val, Fail>;

/// Variables: the innermost first.
pub(super) struct Scope<'a> {
    name: &'a str,
    /// The value, or why there is none: a loop goes on after an error that its end may absorb.
    value: Eval,
    outer: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    /// A variable within an outer scope.
    pub(super) fn new(name: &'a str, value: Val, outer: Option<&'a Scope<'a>>) -> Self {
        Self { name, value: Ok(value), outer }
    }

    fn find(&self, name: &str) -> Option<&Eval> {
        let mut scope = self;
        loop {
            if scope.name == name {
                return Some(&scope.value);
            }
            scope = scope.outer?;
        }
    }
}

/// One evaluation.
pub(super) struct Evaluation {
    steps: u64,
    depth: u32,
}

impl Evaluation {
    /// Evaluates an expression.
    ///
    /// # Errors
    /// If it has no value.
    pub(super) fn run(expr: &IdedExpr, scope: &Scope<'_>) -> Eval {
        Self { steps: 0, depth: 0 }.eval(expr, scope)
    }

    /// Counts a step.
    pub(super) fn step(&mut self, cost: u64) -> Result<(), Fail> {
        self.steps = self.steps.saturating_add(cost);
        if self.steps > MAX_STEPS { Err(Fail::TooCostly) } else { Ok(()) }
    }

    /// Evaluates a part of an expression.
    pub(super) fn eval(&mut self, expr: &IdedExpr, scope: &Scope<'_>) -> Eval {
        self.step(1)?;
        if self.depth >= MAX_DEPTH {
            return Err(Fail::Unsupported("it is nested too deeply".to_owned()));
        }
        self.depth += 1;
        let result = self.eval_inner(expr, scope);
        self.depth -= 1;
        result
    }

    fn eval_inner(&mut self, expr: &IdedExpr, scope: &Scope<'_>) -> Eval {
        match &expr.expr {
            Expr::Literal(literal) => Ok(literal_value(literal)),
            Expr::Ident(name) => match scope.find(name) {
                Some(value) => value.clone(),
                None => type_named(name).ok_or_else(|| Fail::Unsupported(format!("'{name}' is unknown"))),
            },
            Expr::Select(select) => {
                let operand = self.eval(&select.operand, scope)?;
                if select.test {
                    return has(&operand, &select.field);
                }
                match operand {
                    Val::Optional(None) => Ok(Val::Optional(None)),
                    Val::Optional(Some(inner)) => Ok(Val::Optional(field(&inner, &select.field).ok().map(Arc::new))),
                    operand => field(&operand, &select.field),
                }
            }
            Expr::List(list) => {
                let mut items = Vec::with_capacity(list.elements.len());
                for (i, element) in list.elements.iter().enumerate() {
                    let value = self.eval(element, scope)?;
                    if list.optional_indices.contains(&i) {
                        optional(value)?.into_iter().for_each(|value| items.push((*value).clone()));
                    } else {
                        items.push(value);
                    }
                }
                Ok(Val::list(items))
            }
            Expr::Map(map) => {
                let mut entries = BTreeMap::new();
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { return Err(Fail::overload()) };
                    let key = Key::of(&self.eval(&entry.key, scope)?).ok_or_else(Fail::overload)?;
                    let value = self.eval(&entry.value, scope)?;
                    if !entry.optional {
                        entries.insert(key, value);
                    } else if let Some(value) = optional(value)? {
                        entries.insert(key, (*value).clone());
                    }
                }
                Ok(Val::map(entries))
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, scope),
            Expr::Call(call) => self.call(&call.func_name, call.target.as_deref(), &call.args, scope),
            Expr::Struct(made) => Err(Fail::Unsupported(format!("messages like {} can't be made", made.type_name))),
            Expr::Unspecified => Err(Fail::Unsupported("a part of it is empty".to_owned())),
        }
    }

    fn comprehension(&mut self, made: &ComprehensionExpr, scope: &Scope<'_>) -> Eval {
        let range = self.eval(&made.iter_range, scope)?;
        let mut result = self.eval(&made.accu_init, scope);
        for (key, value) in pairs(&range, made.iter_var2.is_some())? {
            let accumulator = Scope { name: &made.accu_var, value: result, outer: Some(scope) };
            match self.eval(&made.loop_cond, &accumulator)? {
                Val::Bool(true) => {}
                Val::Bool(false) => {
                    result = accumulator.value;
                    break;
                }
                _ => return Err(Fail::overload()),
            }
            let first = Scope::new(&made.iter_var, key, Some(&accumulator));
            let next = match &made.iter_var2 {
                Some(name) => self.eval(&made.loop_step, &Scope::new(name, value, Some(&first))),
                None => self.eval(&made.loop_step, &first),
            };
            match &next {
                Ok(value) => self.step(size_cost(value))?,
                Err(Fail::Data(_)) => {}
                Err(fail) => return Err(fail.clone()),
            }
            result = next;
        }
        self.eval(&made.result, &Scope { name: &made.accu_var, value: result, outer: Some(scope) })
    }

    fn call(&mut self, name: &str, target: Option<&IdedExpr>, args: &[IdedExpr], scope: &Scope<'_>) -> Eval {
        match (name, args) {
            (operators::CONDITIONAL, [condition, yes, no]) => match self.eval(condition, scope)? {
                Val::Bool(true) => self.eval(yes, scope),
                Val::Bool(false) => self.eval(no, scope),
                _ => Err(Fail::overload()),
            },
            (operators::LOGICAL_OR, [left, right]) => self.logical(left, right, true, scope),
            (operators::LOGICAL_AND, [left, right]) => self.logical(left, right, false, scope),
            (operators::NOT_STRICTLY_FALSE, [arg]) => match self.eval(arg, scope) {
                Err(Fail::TooCostly) => Err(Fail::TooCostly),
                Ok(Val::Bool(false)) => Ok(Val::Bool(false)),
                _ => Ok(Val::Bool(true)),
            },
            (operators::OPT_SELECT | operators::OPT_INDEX, [operand, key]) => {
                let operand = self.eval(operand, scope)?;
                let key = self.eval(key, scope)?;
                let inner = match operand {
                    Val::Optional(None) => return Ok(Val::Optional(None)),
                    Val::Optional(Some(inner)) => (*inner).clone(),
                    plain => plain,
                };
                Ok(Val::Optional(index(&inner, &key).ok().map(Arc::new)))
            }
            _ => {
                if let Some(target) = target
                    && let Some(result) = self.macro_call(name, target, args, scope)
                {
                    return result;
                }
                let qualified = target.and_then(|target| match &target.expr {
                    Expr::Ident(prefix) if scope.find(prefix).is_none() => Some(prefix.as_str()),
                    _ => None,
                });
                let receiver = match target {
                    Some(target) if qualified.is_none() => Some(self.eval(target, scope)?),
                    _ => None,
                };
                let args: Vec<Val> = args.iter().map(|arg| self.eval(arg, scope)).collect::<Result<_, _>>()?;
                let cost = receiver.iter().chain(&args).map(size_cost).sum();
                self.step(cost)?;
                call::call(qualified, name, receiver, args)
            }
        }
    }

    /// `||` and `&&`: an error of one side counts only if the other doesn't decide.
    fn logical(&mut self, left: &IdedExpr, right: &IdedExpr, decisive: bool, scope: &Scope<'_>) -> Eval {
        let left = self.eval(left, scope);
        match left {
            Ok(Val::Bool(value)) if value == decisive => return Ok(Val::Bool(decisive)),
            Err(Fail::TooCostly) => return Err(Fail::TooCostly),
            _ => {}
        }
        match (left, self.eval(right, scope)?) {
            (_, Val::Bool(value)) if value == decisive => Ok(Val::Bool(decisive)),
            (Err(fail), _) => Err(fail),
            (Ok(Val::Bool(_)), Val::Bool(value)) => Ok(Val::Bool(value)),
            _ => Err(Fail::overload()),
        }
    }

    /// Macros that the parser leaves alone: those of two variables, of optionals, and sortBy.
    fn macro_call(&mut self, name: &str, target: &IdedExpr, args: &[IdedExpr], scope: &Scope<'_>) -> Option<Eval> {
        let variable = |i: usize| match args.get(i).map(|arg| &arg.expr) {
            Some(Expr::Ident(name)) => Some(name.as_str()),
            _ => None,
        };
        match (name, args) {
            ("optMap" | "optFlatMap", [_, body]) => {
                let variable = variable(0)?;
                Some(self.optional_map(target, variable, body, name == "optFlatMap", scope))
            }
            ("sortBy", [_, body]) => {
                let variable = variable(0)?;
                Some(self.sort_by(target, variable, body, scope))
            }
            ("all" | "exists" | "existsOne" | "exists_one", [_, _, body]) => {
                let names = (variable(0)?, variable(1)?);
                Some(self.quantify(name, target, names, body, scope))
            }
            ("transformList" | "transformMap" | "transformMapEntry", [_, _, rest @ ..])
                if matches!(rest.len(), 1 | 2) =>
            {
                let names = (variable(0)?, variable(1)?);
                let (filter, body) = if let [filter, body] = rest { (Some(filter), body) } else { (None, &rest[0]) };
                Some(self.transform(name, target, names, filter, body, scope))
            }
            _ => None,
        }
    }

    fn optional_map(&mut self, target: &IdedExpr, name: &str, body: &IdedExpr, flat: bool, scope: &Scope<'_>) -> Eval {
        let Some(inner) = optional(self.eval(target, scope)?)? else { return Ok(Val::Optional(None)) };
        let value = self.eval(body, &Scope::new(name, (*inner).clone(), Some(scope)))?;
        Ok(if flat { Val::Optional(optional(value)?) } else { Val::Optional(Some(Arc::new(value))) })
    }

    fn sort_by(&mut self, target: &IdedExpr, name: &str, body: &IdedExpr, scope: &Scope<'_>) -> Eval {
        let Val::List(list) = self.eval(target, scope)? else { return Err(Fail::overload()) };
        let mut keyed = Vec::with_capacity(list.items.len());
        for item in &list.items {
            keyed.push((self.eval(body, &Scope::new(name, item.clone(), Some(scope)))?, item.clone()));
        }
        self.step(keyed.len() as u64)?;
        if keyed.windows(2).any(|pair| pair[0].0.compare(&pair[1].0).is_none()) {
            return Err(Fail::overload());
        }
        keyed.sort_by(|a, b| a.0.compare(&b.0).unwrap_or(std::cmp::Ordering::Equal));
        Ok(Val::list(keyed.into_iter().map(|(_, item)| item).collect()))
    }

    fn quantify(
        &mut self,
        name: &str,
        target: &IdedExpr,
        names: (&str, &str),
        body: &IdedExpr,
        scope: &Scope<'_>,
    ) -> Eval {
        let range = self.eval(target, scope)?;
        let mut found = 0;
        let mut failed = None;
        for (key, value) in pairs(&range, true)? {
            let first = Scope::new(names.0, key, Some(scope));
            match (self.eval(body, &Scope::new(names.1, value, Some(&first))), name) {
                (Ok(Val::Bool(false)), "all") => return Ok(Val::Bool(false)),
                (Ok(Val::Bool(true)), "exists") => return Ok(Val::Bool(true)),
                (Ok(Val::Bool(value)), _) => found += u32::from(value),
                (Err(fail @ Fail::TooCostly), _) => return Err(fail),
                (Err(fail), "all" | "exists") => failed = Some(fail),
                (Err(fail), _) => return Err(fail),
                (Ok(_), _) => failed = Some(Fail::overload()),
            }
        }
        match (failed, name) {
            (Some(fail), _) => Err(fail),
            (None, "all") => Ok(Val::Bool(true)),
            (None, "exists") => Ok(Val::Bool(false)),
            (None, _) => Ok(Val::Bool(found == 1)),
        }
    }

    fn transform(
        &mut self,
        name: &str,
        target: &IdedExpr,
        names: (&str, &str),
        filter: Option<&IdedExpr>,
        body: &IdedExpr,
        scope: &Scope<'_>,
    ) -> Eval {
        let range = self.eval(target, scope)?;
        let mut items = Vec::new();
        let mut entries = BTreeMap::new();
        for (key, value) in pairs(&range, true)? {
            let first = Scope::new(names.0, key.clone(), Some(scope));
            let both = Scope::new(names.1, value, Some(&first));
            if let Some(filter) = filter {
                match self.eval(filter, &both)? {
                    Val::Bool(true) => {}
                    Val::Bool(false) => continue,
                    _ => return Err(Fail::overload()),
                }
            }
            let made = self.eval(body, &both)?;
            match (name, made) {
                ("transformList", made) => items.push(made),
                ("transformMap", made) => {
                    entries.insert(Key::of(&key).ok_or_else(Fail::overload)?, made);
                }
                (_, Val::Map(made)) => {
                    for (key, value) in &made.entries {
                        if entries.insert(key.clone(), value.clone()).is_some() {
                            return Err(Fail::Data(format!("insert failed: key {key:?} already exists")));
                        }
                    }
                }
                _ => return Err(Fail::overload()),
            }
        }
        Ok(if name == "transformList" { Val::list(items) } else { Val::map(entries) })
    }
}

/// What it costs to look through a value.
fn size_cost(value: &Val) -> u64 {
    match value {
        Val::List(list) => list.items.len() as u64 / 10,
        Val::Map(fields) => fields.entries.len() as u64 / 10,
        Val::Text(text) => text.len() as u64 / 10,
        _ => 0,
    }
}

fn literal_value(literal: &LiteralValue) -> Val {
    match literal {
        LiteralValue::Boolean(value) => Val::Bool(*value.inner()),
        LiteralValue::Bytes(bytes) => Val::Bytes(bytes.inner().into()),
        LiteralValue::Double(x) => Val::Double(*x.inner()),
        LiteralValue::Int(int) => Val::Int(*int.inner()),
        LiteralValue::Null => Val::Null,
        LiteralValue::String(text) => Val::text(text.inner()),
        LiteralValue::UInt(uint) => Val::Uint(*uint.inner()),
    }
}

/// The types that have a name in the language.
pub(super) fn type_named(name: &str) -> Option<Val> {
    const NAMES: [&str; 10] = ["null_type", "bool", "int", "uint", "double", "string", "bytes", "list", "map", "type"];
    NAMES.into_iter().find(|known| *known == name).map(Val::Type)
}

/// The items or the keys of a value; with both, each with its place or its value.
fn pairs(range: &Val, both: bool) -> Result<Vec<(Val, Val)>, Fail> {
    match range {
        Val::List(list) if both => {
            Ok(list.items.iter().zip(0..).map(|(item, i)| (Val::Int(i), item.clone())).collect())
        }
        Val::List(list) => Ok(list.items.iter().map(|item| (item.clone(), Val::Null)).collect()),
        Val::Map(fields) => Ok(fields.entries.iter().map(|(key, value)| (key.value(), value.clone())).collect()),
        _ => Err(Fail::overload()),
    }
}

fn optional(value: Val) -> Result<Option<Arc<Val>>, Fail> {
    match value {
        Val::Optional(inner) => Ok(inner),
        _ => Err(Fail::overload()),
    }
}

/// `has(operand.field)`.
fn has(operand: &Val, name: &str) -> Eval {
    match operand {
        Val::Map(fields) => Ok(Val::Bool(fields.entries.contains_key(&Key::Text(name.into())))),
        Val::Optional(None) => Ok(Val::Bool(false)),
        Val::Optional(Some(inner)) => has(inner, name),
        _ => Err(Fail::overload()),
    }
}

/// `operand.field`.
fn field(operand: &Val, name: &str) -> Eval {
    let Val::Map(fields) = operand else { return Err(Fail::overload()) };
    fields.entries.get(&Key::Text(name.into())).cloned().ok_or_else(|| Fail::Data(format!("no such key: {name}")))
}

/// `operand[key]`.
pub(super) fn index(operand: &Val, key: &Val) -> Eval {
    match operand {
        Val::List(list) => {
            let place = match key {
                Val::Int(int) => i128::from(*int),
                Val::Uint(uint) => i128::from(*uint),
                Val::Double(x) if x.fract() == 0.0 => *x as i128,
                _ => return Err(Fail::overload()),
            };
            let item = usize::try_from(place).ok().and_then(|i| list.items.get(i));
            item.cloned().ok_or_else(|| Fail::Data(format!("index out of bounds: {place}")))
        }
        Val::Map(fields) => {
            let found = Key::of(key).ok_or_else(Fail::overload)?;
            fields.entries.get(&found).cloned().ok_or_else(|| Fail::Data(format!("no such key: {}", call::shown(key))))
        }
        _ => Err(Fail::overload()),
    }
}

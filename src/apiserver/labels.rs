//! Label selectors as the real server reads them from a query (k8s.io/apimachinery v0.36.3, pkg/labels), in its words.
//!
//! Never used for the selectors of controllers: those are `ringmaster_core::selector`'s, which says where a fault is.

use std::collections::BTreeSet;

use ringmaster_core::selector::Labels;

use crate::error::Error;
use crate::field_error::{FieldError, NO_FIELD, go_quote};
use crate::kinds::names;

/// A parsed selector: all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Above(i64),
    Below(i64),
}

impl LabelSelector {
    /// Takes the selector's text.
    ///
    /// # Errors
    /// 400 if it isn't one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut parser = Parser { tokens: tokens(text), at: 0 };
        parser.all().map(Self).map_err(Error::bad_request)
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether labels are selected.
    #[must_use]
    pub fn matches(&self, labels: &impl Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &impl Labels) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Above(limit) => number().is_some_and(|number| number > *limit),
            Test::Below(limit) => number().is_some_and(|number| number < *limit),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    End,
    Word(String),
    /// One of the symbols that Go knows, or what it can't read.
    Symbol(String),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::End => "",
            Self::Word(text) | Self::Symbol(text) => text,
        }
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self, Self::Symbol(text) if text == symbol)
    }

    fn starts_requirement(&self) -> bool {
        matches!(self, Self::Word(_)) || self.is("!")
    }
}

const SYMBOLS: [&str; 9] = ["(", ")", ",", "!", "!=", "=", "==", ">", "<"];

fn is_symbol(byte: u8) -> bool {
    matches!(byte, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(|c: char| c.is_ascii() && is_blank(c as u8));
    while let Some(first) = rest.bytes().next().filter(|byte| *byte != 0) {
        let end = if is_symbol(first) {
            // The longest that is known; `=!`, say, is two.
            let run = rest.bytes().take_while(|byte| is_symbol(*byte)).count();
            (1..=run.min(2)).rev().find(|end| SYMBOLS.contains(&&rest[..*end])).unwrap_or(1)
        } else {
            rest.find(|c: char| c == '\0' || (c.is_ascii() && (is_symbol(c as u8) || is_blank(c as u8))))
                .unwrap_or(rest.len())
        };
        let (token, behind) = rest.split_at(end);
        let token = token.to_owned();
        tokens.push(if is_symbol(first) { Token::Symbol(token) } else { Token::Word(token) });
        rest = behind.trim_start_matches(|c: char| c.is_ascii() && is_blank(c as u8));
    }
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Token {
        self.tokens.get(self.at).cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn all(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            let token = self.peek();
            if token == Token::End {
                return Ok(requirements);
            }
            if !token.starts_requirement() {
                return Err(format!("found '{}', expected: !, identifier, or 'end of string'", token.text()));
            }
            requirements.push(self.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?);
            match self.next() {
                Token::End => return Ok(requirements),
                comma if comma.is(",") => {
                    let next = self.peek();
                    if !next.starts_requirement() {
                        return Err(format!("found '{}', expected: identifier after ','", next.text()));
                    }
                }
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let absent = token.is("!");
        if absent {
            token = self.next();
        }
        let Token::Word(key) = token else { return Err(format!("found '{}', expected: identifier", token.text())) };
        checked(NO_FIELD, &key, &names::qualified(&key))?;
        let next = self.peek();
        if absent {
            return Ok(Requirement { key, test: Test::Absent });
        }
        if next == Token::End || next.is(",") {
            return Ok(Requirement { key, test: Test::Exists });
        }
        let operator = self.next();
        let values = match operator.text() {
            "in" | "notin" => self.values()?,
            "=" | "==" | "!=" | ">" | "<" => BTreeSet::from([self.value()?]),
            other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let compares = matches!(operator.text(), ">" | "<");
        let mut number = 0;
        let mut faults = Vec::new();
        for (index, value) in values.iter().enumerate().filter(|_| compares) {
            match value.parse() {
                Ok(parsed) => number = parsed,
                Err(_) => {
                    let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                    faults.extend(checked(&format!("values[{index}]"), value, &[why.to_owned()]).err());
                }
            }
        }
        for (index, value) in values.iter().enumerate() {
            faults.extend(checked(&format!("values[{index}][{key}]"), value, &names::label_value(value)).err());
        }
        match faults.as_slice() {
            [] => {}
            [one] => return Err(one.clone()),
            many => return Err(format!("[{}]", many.join(", "))),
        }
        let test = match operator.text() {
            "in" | "=" | "==" => Test::In(values),
            ">" => Test::Above(number),
            "<" => Test::Below(number),
            _ => Test::NotIn(values),
        };
        Ok(Requirement { key, test })
    }

    fn value(&mut self) -> Result<String, String> {
        let next = self.peek();
        if next == Token::End || next.is(",") {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(value) => Ok(value),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let open = self.next();
        if !open.is("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        let first = self.peek();
        if first.is(")") {
            self.next();
            return Ok(BTreeSet::from([String::new()]));
        }
        if !(matches!(first, Token::Word(_)) || first.is(",")) {
            return Err(format!("found '{}', expected: ',', ')' or identifier", first.text()));
        }
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                Token::Word(value) => {
                    values.insert(value);
                    let next = self.peek();
                    if next.is(")") {
                        break;
                    }
                    if !next.is(",") {
                        return Err(format!("found '{}', expected: ',' or ')'", next.text()));
                    }
                }
                comma if comma.is(",") => {
                    let next = self.peek();
                    if values.is_empty() || next.is(",") || next.is(")") {
                        values.insert(String::new());
                    }
                    if next.is(")") {
                        break;
                    }
                }
                other => return Err(format!("found '{}', expected: ',', or identifier", other.text())),
            }
        }
        self.next();
        Ok(values)
    }
}

fn checked(field: &str, value: &str, faults: &[String]) -> Result<(), String> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(FieldError::invalid(field, go_quote(value), faults.join("; ")).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_longest_that_are_known() {
        let texts = |text: &str| tokens(text).iter().map(|token| token.text().to_owned()).collect::<Vec<_>>();
        assert_eq!(texts("a==b,c!=d"), ["a", "==", "b", ",", "c", "!=", "d"]);
        assert_eq!(texts(" a in (b,,c) "), ["a", "in", "(", "b", ",", ",", "c", ")"]);
        assert_eq!(texts("a=!b"), ["a", "=", "!", "b"]);
    }

    #[test]
    fn faults_are_named_in_the_words_of_apimachinery() {
        let why = |text: &str| LabelSelector::parse(text).unwrap_err().message;
        assert_eq!(why("a b"), "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt");
        assert_eq!(why("a=b=c"), "found '=', expected: ',' or 'end of string'");
        assert_eq!(why("a,"), "found '', expected: identifier after ','");
        assert_eq!(why("a in b"), "unable to parse requirement: found 'b' expected: '('");
        assert!(why("a>b").ends_with("the value must be an integer"));
        assert!(why("a=b!").contains("found '!'"));
    }

    #[test]
    fn values_may_be_empty() {
        let parse = |text: &str| LabelSelector::parse(text).unwrap().0;
        assert_eq!(parse("a in ()"), parse("a="));
        assert_eq!(parse("a notin (x,)")[0].test, Test::NotIn(["".to_owned(), "x".to_owned()].into()));
        assert_eq!(parse("!a, b < 5")[1].test, Test::Below(5));
        assert!(parse("").is_empty());
    }
}

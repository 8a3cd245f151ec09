//! What is wrong with a label selector's text, in the words of apimachinery's parser (`pkg/labels/selector.go`, v0.36.3).
//!
//! Never decides whether a selector is one, and never selects: `core::selector` does both. Asked only after a refusal.

use crate::field_error::{FieldError, go_quote};
use crate::kinds::names;

/// Its binary operators, as it lists them.
const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";
/// Characters that are no part of a word.
const SYMBOLS: [char; 7] = ['=', '!', '(', ')', ',', '>', '<'];

/// What is wrong with a selector; `None` if nothing is.
pub(crate) fn fault(text: &str) -> Option<String> {
    let mut parser = Parser { words: words(text), next: 0 };
    parser.selector().err()
}

/// Symbols and words; the end is an empty one.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_blank);
    while let Some(first) = rest.chars().next() {
        let length = if SYMBOLS.contains(&first) {
            if rest.starts_with("==") || rest.starts_with("!=") { 2 } else { 1 }
        } else {
            rest.find(|c| is_blank(c) || SYMBOLS.contains(&c)).unwrap_or(rest.len())
        };
        let (word, after) = rest.split_at(length);
        words.push(word);
        rest = after.trim_start_matches(is_blank);
    }
    words
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_identifier(word: &str) -> bool {
    !word.is_empty() && !word.starts_with(SYMBOLS)
}

struct Parser<'a> {
    words: Vec<&'a str>,
    next: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a str {
        self.words.get(self.next).copied().unwrap_or_default()
    }

    fn take(&mut self) -> &'a str {
        let word = self.peek();
        self.next += 1;
        word
    }

    fn selector(&mut self) -> Result<(), String> {
        loop {
            match self.peek() {
                "" => return Ok(()),
                word if is_identifier(word) || word == "!" => {
                    self.requirement().map_err(|fault| format!("unable to parse requirement: {fault}"))?;
                    match self.take() {
                        "" => return Ok(()),
                        "," => {
                            let after = self.peek();
                            if !is_identifier(after) && after != "!" {
                                return Err(format!("found '{after}', expected: identifier after ','"));
                            }
                        }
                        other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
                    }
                }
                other => return Err(format!("found '{other}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<(), String> {
        let mut key = self.take();
        let absent = key == "!";
        if absent {
            key = self.take();
        }
        if !is_identifier(key) {
            return Err(format!("found '{key}', expected: identifier"));
        }
        invalid("<nil>", key, &names::qualified(key))?;
        if absent || matches!(self.peek(), "" | ",") {
            return Ok(());
        }
        let operator = self.take();
        let mut values = match operator {
            "in" | "notin" => self.values()?,
            "=" | "==" | "!=" | ">" | "<" => vec![self.exact()?],
            other => return Err(format!("found '{other}', expected: {OPERATORS}")),
        };
        values.sort_unstable();
        values.dedup();
        let mut faults = Vec::new();
        if matches!(operator, ">" | "<") && values[0].parse::<i64>().is_err() {
            let why = "for 'Gt', 'Lt' operators, the value must be an integer";
            faults.push(FieldError::invalid("values[0]", go_quote(values[0]), why).to_string());
        }
        for (index, value) in values.iter().enumerate() {
            faults.extend(invalid(&format!("values[{index}][{key}]"), value, &names::label_value(value)).err());
        }
        match faults.as_slice() {
            [] => Ok(()),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }

    fn exact(&mut self) -> Result<&'a str, String> {
        match self.peek() {
            "" | "," => Ok(""),
            word if is_identifier(word) => Ok(self.take()),
            other => Err(format!("found '{other}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<&'a str>, String> {
        let open = self.take();
        if open != "(" {
            return Err(format!("found '{open}' expected: '('"));
        }
        match self.peek() {
            ")" => {
                self.take();
                return Ok(vec![""]);
            }
            word if is_identifier(word) || word == "," => {}
            other => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
        }
        let mut values = Vec::new();
        loop {
            match self.take() {
                word if is_identifier(word) => {
                    values.push(word);
                    match self.peek() {
                        "," => {}
                        ")" => break,
                        other => return Err(format!("found '{other}', expected: ',' or ')'")),
                    }
                }
                "," => {
                    if values.is_empty() || matches!(self.peek(), ")" | ",") {
                        values.push("");
                    }
                    if self.peek() == ")" {
                        break;
                    }
                }
                other => return Err(format!("found '{other}', expected: ',', or identifier")),
            }
        }
        self.take();
        Ok(values)
    }
}

fn invalid(field: &str, value: &str, faults: &[String]) -> Result<(), String> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(FieldError::invalid(field, go_quote(value), faults.join("; ")).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_worded_as_apimachinery_words_them() {
        let requirement = |said: &str| format!("unable to parse requirement: {said}");
        for (text, wanted) in [
            ("a in b", requirement("found 'b' expected: '('")),
            ("a in (b", requirement("found '', expected: ',' or ')'")),
            ("a=b=c", "found '=', expected: ',' or 'end of string'".to_owned()),
            ("!", requirement("found '', expected: identifier")),
            ("a b", requirement("found 'b', expected: in, notin, =, ==, !=, gt, lt")),
            ("a,,b", "found ',', expected: identifier after ','".to_owned()),
            (
                "a>x",
                requirement("values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer"),
            ),
            ("=a", "found '=', expected: !, identifier, or 'end of string'".to_owned()),
            ("a!", requirement("found '!', expected: in, notin, =, ==, !=, gt, lt")),
            ("a notin", requirement("found '' expected: '('")),
        ] {
            assert_eq!(fault(text), Some(wanted), "{text}");
        }
        let value = fault("a=/").unwrap();
        assert!(value.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"/\": a valid label"));
        let key = fault("/=b").unwrap();
        assert!(
            key.starts_with("unable to parse requirement: <nil>: Invalid value: \"/\": prefix part must be non-empty;")
        );
        for text in ["", "a", "!a", "a=b,c!=d", "a in (b,c)", "a in ()", "a in (b,)", "a>1"] {
            assert_eq!(fault(text), None, "{text}");
        }
    }
}

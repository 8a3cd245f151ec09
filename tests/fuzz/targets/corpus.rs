//! A corpus as text, an input a line, so that a change of it can be read.

use std::fmt::Write as _;

/// An input as a line: ASCII as it is but for control characters and the backslash, all else as `\xNN`.
#[must_use]
pub fn line(input: &[u8]) -> String {
    let mut line = String::with_capacity(input.len());
    for byte in input {
        match byte {
            b' '..=b'~' if *byte != b'\\' => line.push(char::from(*byte)),
            // Writing into a string can't fail.
            byte => drop(write!(line, "\\x{byte:02x}")),
        }
    }
    line
}

/// The input of a line; `None` if [`line()`] didn't write it.
#[must_use]
pub fn input(line: &str) -> Option<Vec<u8>> {
    let mut input = Vec::with_capacity(line.len());
    let mut left = line.as_bytes();
    while let Some((first, rest)) = left.split_first() {
        left = rest;
        if *first == b'\\' {
            let (digits, rest) = rest.strip_prefix(b"x")?.split_at_checked(2)?;
            input.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            left = rest;
        } else {
            input.push(*first);
        }
    }
    Some(input)
}

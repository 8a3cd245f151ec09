//! The header `Authorization` that a hook's calls carry: what was read becomes one, or a problem that names the field.
//!
//! Never shows a credential or a part of one: it is no `Debug`, and a problem only says which field is wrong, and how.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Longest value of the header, in bytes: hardly a server takes more in all its headers together.
const MAX_VALUE_BYTES: usize = 16 << 10;

/// What was read for the header. White space around each part doesn't count: files end in a line end.
pub enum Credential {
    /// What follows a scheme.
    Token {
        /// The scheme, such as `Bearer`.
        scheme: Arc<str>,
        /// As it was read.
        token: Vec<u8>,
    },
    /// For the scheme `Basic` (RFC 7617).
    Basic {
        /// As it was read.
        username: Vec<u8>,
        /// As it was read.
        password: Vec<u8>,
    },
}

impl Credential {
    /// The header's value, or what is wrong with which field.
    fn value(&self) -> Result<HeaderValue, String> {
        let (field, text) = match self {
            Self::Token { scheme, token } => {
                let token = token.trim_ascii();
                if token.is_empty() {
                    return Err("authorization.secretRef: the token is empty; put one there".to_owned());
                }
                ("authorization.secretRef: the token", [scheme.as_bytes(), b" ", token].concat())
            }
            Self::Basic { username, password } => {
                let (username, password) = (username.trim_ascii(), password.trim_ascii());
                if username.contains(&b':') {
                    let text = "basicAuth.secretRef: the user name holds a colon, which Basic can't send; use another";
                    return Err(text.to_owned());
                }
                let text = STANDARD.encode([username, b":", password].concat());
                ("basicAuth.secretRef: the user name with the password", format!("Basic {text}").into_bytes())
            }
        };
        if text.len() > MAX_VALUE_BYTES {
            return Err(format!("{field} is too long: the header would have more than {MAX_VALUE_BYTES} bytes"));
        }
        let mut value = HeaderValue::from_bytes(&text).map_err(|_| {
            format!("{field} holds control characters, such as a line end inside, which no header can have")
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The header of one way to a hook.
pub(crate) struct Auth {
    /// The field that holds what was declared.
    field: Arc<str>,
    state: Mutex<State>,
    /// Told when something was read, or couldn't be.
    told: watch::Sender<()>,
}

enum State {
    /// None was declared.
    Undeclared,
    /// Declared, but not read yet.
    Missing,
    /// The last that could be used, if any, and why a later one can't.
    Own(Option<HeaderValue>, Option<String>),
}

impl Auth {
    /// Unknown until [`Self::set`] tells it, if one was declared in this field.
    pub(crate) fn new(field: Arc<str>, is_declared: bool) -> Self {
        let state = if is_declared { State::Missing } else { State::Undeclared };
        Self { field, state: Mutex::new(state), told: watch::Sender::new(()) }
    }

    /// What the header is made of, from now on. What can't be used changes nothing but what is told. Answers whether calls
    /// carry another header than before.
    pub(crate) fn set(&self, read: Result<Credential, String>) -> bool {
        let made = read.and_then(|read| read.value().map_err(|text| format!("{}.{text}", self.field)));
        let mut state = self.state.lock();
        let known = match &mut *state {
            State::Own(known, _) => known.take(),
            State::Undeclared | State::Missing => None,
        };
        let is_other = made.as_ref().is_ok_and(|made| known.as_ref() != Some(made));
        *state = match made {
            Ok(value) => State::Own(Some(value), None),
            Err(text) => State::Own(known, Some(text)),
        };
        drop(state);
        self.told.send_replace(());
        is_other
    }

    /// Declared, and nothing is known of it yet.
    pub(crate) fn is_unread(&self) -> bool {
        matches!(&*self.state.lock(), State::Missing)
    }

    /// Declared, and there is nothing to send.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(&*self.state.lock(), State::Missing | State::Own(None, _))
    }

    /// Resolves once something is known of it.
    pub(crate) async fn known(&self) {
        let mut told = self.told.subscribe();
        // The sender is this header's.
        while self.is_unread() && told.changed().await.is_ok() {}
    }

    /// The header's value at this moment; `None` if none was declared.
    ///
    /// # Errors
    /// If there is nothing to send: why.
    pub(crate) fn value(&self) -> Result<Option<HeaderValue>, String> {
        match &*self.state.lock() {
            State::Undeclared => Ok(None),
            State::Own(Some(value), _) => Ok(Some(value.clone())),
            state @ (State::Missing | State::Own(None, _)) => Err(state.problem(&self.field).unwrap_or_default()),
        }
    }

    /// What is wrong with it.
    pub(crate) fn problem(&self) -> Option<String> {
        self.state.lock().problem(&self.field)
    }
}

impl State {
    fn problem(&self, field: &str) -> Option<String> {
        match self {
            Self::Missing => Some(format!("what {field}.authorization or {field}.basicAuth names was not read yet")),
            Self::Own(Some(_), Some(text)) => Some(format!("{text}; calls go on with the last that was usable")),
            Self::Own(None, text) => text.clone(),
            Self::Own(_, None) | Self::Undeclared => None,
        }
    }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;

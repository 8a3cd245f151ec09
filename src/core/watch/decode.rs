//! List pages and watch lines, taken apart without parsing the objects in them.

use serde::Deserialize;
use serde::de::Unexpected;
use serde_json::value::RawValue;

/// A watch line, or an object in a list, is at most this large; etcd's own limit for a request is 1.5 MiB.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// Bytes that aren't what the API server is known to send.
#[derive(Debug, thiserror::Error)]
#[error("unexpected answer from the API server: {0}")]
pub struct Error(#[from] serde_json::Error);

/// One page of a list.
#[derive(Debug)]
pub struct Page<'a> {
    /// The list's resource version.
    pub version: String,
    /// The token for the next page; `None` on the last.
    pub next: Option<String>,
    /// The objects' JSON texts.
    pub items: Vec<&'a RawValue>,
}

/// One line of a watch.
#[derive(Debug)]
pub enum Line<'a> {
    /// ADDED or MODIFIED.
    Applied(&'a RawValue),
    /// DELETED, with the last state.
    Deleted(&'a RawValue),
    /// BOOKMARK: all events up to this version were sent.
    Bookmark {
        /// The version.
        version: String,
        /// The initial events of a streaming list are complete.
        initial_end: bool,
    },
    /// ERROR, with the code of its Status.
    Error {
        /// An HTTP code; 410 means that the version is too old.
        code: u16,
        /// The Status's message.
        message: String,
    },
    /// A type of event that we don't know.
    Other,
}

/// Takes a page of a list apart.
///
/// # Errors
/// If it isn't a list.
pub fn decode_page(text: &str) -> Result<Page<'_>, Error> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(default)]
        metadata: ListMeta,
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ListMeta {
        #[serde(default)]
        resource_version: String,
        #[serde(default, rename = "continue")]
        next: String,
    }
    let list: List<'_> = object(text)?;
    Ok(Page {
        version: list.metadata.resource_version,
        next: Some(list.metadata.next).filter(|token| !token.is_empty()),
        items: list.items.unwrap_or_default(),
    })
}

/// Takes a line of a watch apart.
///
/// # Errors
/// If it isn't a watch event.
pub fn decode_line(text: &str) -> Result<Line<'_>, Error> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(rename = "type")]
        kind: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Marked {
        metadata: Mark,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Mark {
        resource_version: String,
        #[serde(default)]
        annotations: Option<std::collections::BTreeMap<String, String>>,
    }
    #[derive(Deserialize)]
    struct Status {
        #[serde(default)]
        code: u16,
        #[serde(default)]
        message: String,
    }
    let event: Event<'_> = object(text)?;
    Ok(match &*event.kind {
        "ADDED" | "MODIFIED" => Line::Applied(event.object),
        "DELETED" => Line::Deleted(event.object),
        "BOOKMARK" => {
            let marked: Marked = object(event.object.get())?;
            let annotations = marked.metadata.annotations.unwrap_or_default();
            Line::Bookmark {
                version: marked.metadata.resource_version,
                initial_end: annotations.get("k8s.io/initial-events-end").is_some_and(|value| value == "true"),
            }
        }
        "ERROR" => {
            let status: Status = object(event.object.get())?;
            Line::Error { code: status.code, message: status.message }
        }
        _ => Line::Other,
    })
}

/// Reads an object's fields. What serde derives would take a list of their values as well.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Error> {
    if text.trim_start().starts_with('[') {
        return Err(Error(serde::de::Error::invalid_type(Unexpected::Seq, &"an object")));
    }
    Ok(serde_json::from_str(text)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pages_come_apart() {
        let text = r#"{"kind":"List","metadata":{"resourceVersion":"9","continue":"t"},"items":[{"a":1},{"b":2}]}"#;
        let page = decode_page(text).unwrap();
        assert_eq!((page.version.as_str(), page.next.as_deref(), page.items.len()), ("9", Some("t"), 2));
        let last = decode_page(r#"{"metadata":{"resourceVersion":"9","continue":""},"items":null}"#).unwrap();
        assert!(last.next.is_none() && last.items.is_empty());
        assert!(decode_page("<html>").is_err() && decode_page(r#"[{"resourceVersion":"9"},[]]"#).is_err());
    }

    #[test]
    fn lines_come_apart() {
        assert!(
            matches!(decode_line(r#"{"type":"ADDED","object":{"a":1}}"#), Ok(Line::Applied(raw)) if raw.get() == r#"{"a":1}"#)
        );
        assert!(matches!(decode_line(r#"{"type":"DELETED","object":{}}"#), Ok(Line::Deleted(_))));
        let end = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"5","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        assert!(matches!(decode_line(end), Ok(Line::Bookmark { initial_end: true, .. })));
        let mark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"5"}}}"#;
        assert!(matches!(decode_line(mark), Ok(Line::Bookmark { initial_end: false, .. })));
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        assert!(matches!(decode_line(gone), Ok(Line::Error { code: 410, .. })));
        assert!(matches!(decode_line(r#"{"type":"NEW","object":{}}"#), Ok(Line::Other)));
        let bookmark = r#"{"type":"BOOKMARK","object":[{"resourceVersion":"5"}]}"#;
        for bad in ["", "{}", r#"{"type":"ADDED"}"#, r#"{"type":"ADDED","object":"#, r#"["ADDED",{"a":1}]"#, bookmark] {
            assert!(decode_line(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Whatever the object is, and however the line is spaced: what comes out is its text.
        #[test]
        fn an_object_keeps_its_text(text in json(), kind in "ADDED|MODIFIED|DELETED|NEW", space in "[ \t\r]{0,2}") {
            let line = format!(r#"{space}{{{space}"object":{space}{text}{space},"type":"{kind}"}}{space}"#);
            match decode_line(&line).unwrap() {
                Line::Applied(raw) => prop_assert!(raw.get() == text && matches!(&*kind, "ADDED" | "MODIFIED")),
                Line::Deleted(raw) => prop_assert!(raw.get() == text && kind == "DELETED"),
                other => prop_assert!(matches!(other, Line::Other) && kind == "NEW", "{other:?}"),
            }
            let page = format!(r#"{{"items":[{text},{space}{text}],"metadata":{{"resourceVersion":"1"}}}}"#);
            prop_assert!(decode_page(&page).unwrap().items.iter().all(|raw| raw.get() == text));
            // What breaks off is never taken for whole.
            let broken = line.trim_end().strip_suffix('}').unwrap();
            prop_assert!(decode_line(broken).is_err());
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*|[\\[\\]{}:,\"0-9a-z]*") {
            let (line, page) = (decode_line(&text), decode_page(&text));
            let object = text.trim_start().starts_with('{');
            prop_assert!(object || line.is_err() && page.is_err());
        }
    }

    /// The text of any small value.
    fn json() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![Just("null".to_owned()), "-?[1-9][0-9]{0,20}", r#""[a-zé {}\[\],:]{0,6}""#];
        scalar.prop_recursive(4, 16, 3, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[ {}]", items.join(",")));
            let object = prop::collection::vec(("[a-z]{0,3}", inner), 0..3);
            let object = object.prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!(r#""{name}": {value}"#)).collect();
                format!("{{{}}}", fields.join(","))
            });
            prop_oneof![list, object]
        })
    }
}

//! What a client may ask for instead of the objects themselves: tables, metadata alone, and in which encoding.
//!
//! Pure: objects in, answers out, with the present as an argument. Nothing here reads the store or checks rights. The
//! rules and the texts are those of kube-apiserver v1.36.3; `tests.rs` holds recorded answers of it.

mod accept;
mod age;
mod builtin;
mod columns;
mod custom;
mod go;
mod jsonpath;
mod metadata;
mod pod;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

pub use accept::{Accepted, Client, EncodeError, Encoding, Endpoint, Form, NotAcceptable, negotiate, wants_aggregated};
pub use age::human_duration;
pub(crate) use builtin::selector;
pub use metadata::{metadata, metadata_list, refusal};

use age::Instant;
use builtin::Printer;
use custom::CustomColumn;

/// The annotation of the bookmark that ends the initial events of a watch.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One column of a built-in kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    description: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    priority: i32,
}

impl Column {
    fn to_json(self) -> Value {
        let Self { name, kind, format, description, priority } = self;
        json!({ "name": name, "type": kind, "format": format, "description": description, "priority": priority })
    }
}

/// Which columns a kind has, and how its objects fill them.
#[derive(Debug)]
pub struct Columns(Rows);

#[derive(Debug)]
enum Rows {
    BuiltIn { printer: Printer, pods: bool },
    Custom(Vec<CustomColumn>),
}

impl Columns {
    /// The columns of a built-in kind, by its group (empty for the core group) and its plural name.
    ///
    /// A kind whose printer is not known here is printed as the real server prints kinds without one: name and creation
    /// time.
    #[must_use]
    pub fn built_in(group: &str, plural: &str) -> Self {
        Self(Rows::BuiltIn { printer: builtin::printer(group, plural), pods: group.is_empty() && plural == "pods" })
    }

    /// The columns of a custom kind, from `additionalPrinterColumns` of the requested version; null if it has none.
    ///
    /// A column whose path cannot be parsed is left out with all after it, as the real server does.
    #[must_use]
    pub fn custom(additional_printer_columns: &Value) -> Self {
        Self(Rows::Custom(custom::read(additional_printer_columns)))
    }

    /// The columns of the subresource `scale`, of a custom kind or of a built-in one.
    #[must_use]
    pub fn scale(custom: bool) -> Self {
        if !custom {
            return Self(Rows::BuiltIn { printer: builtin::scale(), pods: false });
        }
        Self::custom(&json!([
            { "name": "Desired", "type": "integer", "description": "Number of desired replicas",
              "jsonPath": ".spec.replicas" },
            { "name": "Available", "type": "integer", "description": "Number of actual replicas",
              "jsonPath": ".status.replicas" },
            { "name": "Age", "type": "date", "description": columns::AGE_DATE.description,
              "jsonPath": ".metadata.creationTimestamp" },
        ]))
    }

    fn definitions(&self) -> Value {
        match &self.0 {
            Rows::BuiltIn { printer, .. } => printer.columns.iter().map(|column| column.to_json()).collect(),
            Rows::Custom(custom) => std::iter::once(columns::NAME.to_json())
                .chain(custom.iter().map(|column| column.definition().clone()))
                .collect(),
        }
    }

    fn row(&self, object: &Value, now: Instant, options: &TableOptions) -> Value {
        let cells = match &self.0 {
            Rows::BuiltIn { printer, .. } => (printer.cells)(object, now),
            Rows::Custom(custom) => std::iter::once(builtin::text(&object["metadata"]["name"]).into())
                .chain(custom.iter().map(|column| column.cell(object, now)))
                .collect(),
        };
        let ends_initial_events = object["metadata"]["annotations"][INITIAL_EVENTS_END] == "true";
        let shown = match options.include {
            Include::Object => object.clone(),
            Include::None if !ends_initial_events => Value::Null,
            Include::None | Include::Metadata => metadata(object, options.version),
        };
        let conditions = match &self.0 {
            Rows::BuiltIn { pods: true, .. } => pod::row_conditions(object),
            Rows::BuiltIn { .. } | Rows::Custom(_) => None,
        };
        let mut row = json!({ "cells": cells, "object": shown });
        if let Some(conditions) = conditions {
            row["conditions"] = conditions;
        }
        row
    }
}

/// The versions of `meta.k8s.io` that a client may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// `v1`
    #[default]
    V1,
    /// `v1beta1`
    V1Beta1,
}

impl Version {
    fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What a row holds beside its cells: the query parameter `includeObject`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing; but a bookmark that ends the initial events keeps its metadata.
    None,
    /// The object's metadata, the default.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// Reads the query parameter; absent or empty, it is the default.
    ///
    /// # Errors
    /// Another value: the text is the message of the 400 that answers it.
    pub fn parse(parameter: Option<&str>) -> Result<Self, InvalidInclude> {
        match parameter.unwrap_or_default() {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(InvalidInclude(other.to_owned())),
        }
    }
}

/// An unknown value of `includeObject`, a bad request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Unable to convert to Table as requested: includeObject: Invalid value: {0:?}: must be 'Metadata', 'Object', 'None', or empty"
)]
pub struct InvalidInclude(String);

/// How a table is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// The version that was asked for.
    pub version: Version,
    /// What rows hold beside their cells.
    pub include: Include,
    /// Whether the columns are described: in every answer but the second and later events of a watch.
    pub headers: bool,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { version: Version::V1, include: Include::Metadata, headers: true }
    }
}

/// The metadata of a list, or of the one object that is not in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListMeta<'a> {
    /// The list's resource version, or the object's.
    pub resource_version: &'a str,
    /// Where the next page begins, if there is one.
    pub continue_token: Option<&'a str>,
    /// How many items follow this page, if that is known.
    pub remaining_item_count: Option<i64>,
}

impl<'a> ListMeta<'a> {
    /// The metadata of a table that shows one object.
    #[must_use]
    pub fn of(object: &'a Value) -> Self {
        Self { resource_version: builtin::text(&object["metadata"]["resourceVersion"]), ..Self::default() }
    }

    fn to_json(self) -> Value {
        let mut meta = json!({});
        if !self.resource_version.is_empty() {
            meta["resourceVersion"] = self.resource_version.into();
        }
        if let Some(token) = self.continue_token.filter(|token| !token.is_empty()) {
            meta["continue"] = token.into();
        }
        if let Some(count) = self.remaining_item_count {
            meta["remainingItemCount"] = count.into();
        }
        meta
    }
}

/// A table with a row for each object.
///
/// A watch event carries the table of its one object, [`ListMeta::of`] it, with headers in the first event only; a
/// `Status` in an `ERROR` event is never turned into a table. `now_unix_seconds` is what ages are counted to.
pub fn table<'a>(
    columns: &Columns,
    meta: ListMeta<'_>,
    objects: impl IntoIterator<Item = &'a Value>,
    now_unix_seconds: i64,
    options: &TableOptions,
) -> Value {
    let now = Instant::at_unix_seconds(now_unix_seconds);
    let rows: Vec<Value> = objects.into_iter().map(|object| columns.row(object, now, options)).collect();
    json!({
        "kind": "Table",
        "apiVersion": options.version.api_version(),
        "metadata": meta.to_json(),
        "columnDefinitions": if options.headers { columns.definitions() } else { Value::Null },
        "rows": rows,
    })
}

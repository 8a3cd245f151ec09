//! How answers are shown to one client: in which form, in which encoding, with which warnings.
//!
//! Never reads a request, and never decides on objects.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, WARNING};
use serde_json::Value;

use crate::answer::Answer;
use crate::error::Error;
use crate::read::{Listed, full_list};
use crate::registry::{Definition, Source};
use crate::server::Clock;
use crate::table::{
    Accepted, Columns, Encoding, Form, Include, ListMeta, NotAcceptable, TableOptions, metadata, metadata_list,
    refusal as refused_form, table,
};
use crate::{shape, stream};

/// How answers are shown to one client.
pub(crate) struct View {
    pub(crate) accepted: Accepted,
    pub(crate) definition: Arc<Definition>,
    /// Whether it is a Scale that is shown.
    pub(crate) scale: bool,
    pub(crate) include: Include,
    pub(crate) clock: Clock,
}

impl View {
    /// Of a table; most answers are none.
    fn columns(&self) -> Columns {
        columns(&self.definition, self.scale)
    }

    /// Seconds since 1970, for ages in a table.
    fn now(&self) -> i64 {
        unix_seconds(&(self.clock)().time)
    }

    /// What was done is done: the real server, too, sees only then that an answer can't have the form.
    fn check_form(&self, list: bool) -> Result<(), Error> {
        let definition = &self.definition;
        let kind = if list { &*definition.list_kind } else { &*definition.resource.kind };
        let group = definition.is_built_in().then(|| definition.resource.api_version.group());
        match (refused_form(self.accepted.form, group, kind, list), group) {
            (None, _) => Ok(()),
            (Some(_), None) if !list => Err(Error::new(500, "", "content is not a list")),
            (Some(error), _) => Err(not_acceptable(&error)),
        }
    }

    fn one(&self, code: u16, object: &Value, warnings: &[String]) -> Result<Response, Error> {
        if object["kind"] != "Status" {
            self.check_form(false)?;
        }
        let options = |version| TableOptions { version, include: self.include, headers: true };
        let shown = match self.accepted.form {
            // A Status is itself in every form.
            Form::Table(version) if object["kind"] != "Status" => {
                Cow::Owned(table(&self.columns(), ListMeta::of(object), [object], self.now(), &options(version)))
            }
            Form::Metadata(version) | Form::MetadataList(version) if object["kind"] != "Status" => {
                Cow::Owned(metadata(object, version))
            }
            Form::Full | Form::Table(_) | Form::Metadata(_) | Form::MetadataList(_) => Cow::Borrowed(object),
        };
        write(self.accepted.encoding, code, &shown, warnings)
    }

    pub(crate) fn finished(&self, answer: Answer) -> Result<Response, Error> {
        let plain_json =
            matches!((self.accepted.form, self.accepted.encoding), (Form::Full, Encoding::Json { pretty: false }));
        match answer.body.json().filter(|_| plain_json) {
            Some(json) => Ok(warned(plain(answer.code, "application/json", Body::from(json)), &answer.warnings)),
            None => self.one(answer.code, &answer.body.tree(), &answer.warnings),
        }
    }

    pub(crate) fn many(&self, listed: &Listed) -> Result<Response, Error> {
        self.check_form(true)?;
        let version = listed.revision.to_string();
        let meta = ListMeta {
            resource_version: &version,
            continue_token: listed.next.as_deref(),
            remaining_item_count: listed.remaining.and_then(|count| i64::try_from(count).ok()),
        };
        if let (Form::Full, Encoding::Json { pretty: false }) = (self.accepted.form, self.accepted.encoding) {
            // The objects are JSON already.
            return Ok(plain(200, "application/json", Body::from(full_list(listed, &meta))));
        }
        let objects: Vec<Value> =
            listed.objects.iter().map(|object| shape::shown(&listed.definition, object)).collect();
        let shown = match self.accepted.form {
            Form::Full => serde_json::from_slice(&full_list(listed, &meta)).unwrap_or_default(),
            Form::Table(version) => {
                let options = TableOptions { version, include: self.include, headers: true };
                table(&self.columns(), meta, &objects, self.now(), &options)
            }
            Form::Metadata(version) | Form::MetadataList(version) => metadata_list(meta, &objects, version),
        };
        write(self.accepted.encoding, 200, &shown, &[])
    }

    /// How a watch shows an object.
    pub(crate) fn show(self) -> stream::Show {
        let mut headers = true;
        let (columns, now) = (self.columns(), self.now());
        Box::new(move |object: Value| match self.accepted.form {
            Form::Full => object,
            Form::Table(version) => {
                let options = TableOptions { version, include: self.include, headers: std::mem::take(&mut headers) };
                table(&columns, ListMeta::of(&object), [&object], now, &options)
            }
            Form::Metadata(version) | Form::MetadataList(version) => metadata(&object, version),
        })
    }
}

fn columns(definition: &Definition, scale: bool) -> Columns {
    match &definition.source {
        _ if scale => Columns::scale(!definition.is_built_in()),
        Source::BuiltIn(kind) => Columns::built_in(&kind.group, &kind.plural),
        Source::Crd { columns, .. } => Columns::custom(columns),
    }
}

pub(crate) fn not_acceptable(error: &NotAcceptable) -> Error {
    Error { details: error.status()["details"].clone(), ..Error::new(406, "NotAcceptable", error.to_string()) }
}

pub(crate) fn write(encoding: Encoding, code: u16, value: &Value, warnings: &[String]) -> Result<Response, Error> {
    let body = encoding.write(value).map_err(|error| Error::new(500, "InternalError", error.to_string()))?;
    Ok(warned(plain(code, encoding.content_type(), Body::from(body)), warnings))
}

pub(crate) fn warned(mut response: Response, warnings: &[String]) -> Response {
    for warning in warnings {
        let text = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

pub(crate) fn plain(code: u16, kind: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(kind) = HeaderValue::from_str(kind) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

/// RFC 3339 in UTC to the second, as the server's clock gives it.
fn unix_seconds(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second)
}

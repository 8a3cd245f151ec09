//! What the real server checks of the objects of built-in kinds (pkg/apis/*/validation), in its words and order.
//!
//! Of pods' rarer parts (affinity, security contexts, DNS settings, resource claims, volumes of single vendors) nothing is
//! checked. Objects are decoded and have their defaults; types are the decoder's to check.

mod apps;
mod batch;
mod claim;
mod config;
mod definition;
mod net;
mod pod;
mod rbac;
mod volume;
mod webhook;

use serde_json::Value;

use super::names::{self, NameRule};
use super::{Kind, Part, shape};
use crate::field_error::{FieldError, go_quote};

pub(super) use net::cluster_ips;

/// Checks a new object, or an update of `old`. As in the real server, one fault may be named more than once: all are
/// causes of the Status, its message names each once.
#[must_use]
pub fn validate(kind: &Kind, object: &Value, old: Option<&Value>, part: Part) -> Vec<FieldError> {
    let mut check = Check { errors: Vec::new(), kind };
    if let Some(old) = old {
        names::metadata(&mut check.errors, object, kind.namespaced, names::path_segment);
        names::metadata_update(&mut check.errors, object, old);
    }
    match old {
        Some(old) if part == Part::Status => check.status(object, old),
        _ => check.object(object, old),
    }
    check.errors
}

/// The faults of an object of a kind.
struct Check<'a> {
    errors: Vec<FieldError>,
    kind: &'a Kind,
}

impl Check<'_> {
    fn object(&mut self, object: &Value, old: Option<&Value>) {
        match (self.kind.group.as_str(), self.kind.plural.as_str()) {
            ("", "namespaces") => config::namespace(self, object, old),
            ("", "configmaps") => config::config_map(self, object, old),
            ("", "secrets") => config::secret(self, object, old),
            ("", "serviceaccounts") => {
                self.metadata_update(object, old);
                self.metadata(object, names::dns_subdomain);
            }
            ("", "services") => net::service(self, object, old),
            ("", "pods") => pod::pod(self, object, old),
            ("", "events") => config::event(self, object, "reportingComponent"),
            ("", "persistentvolumeclaims") => claim::claim(self, object, old),
            ("apps", "deployments") => apps::deployment(self, object, old),
            ("apps", "replicasets") => apps::replica_set(self, object, old),
            ("apps", "statefulsets") => apps::stateful_set(self, object, old),
            ("apps", "daemonsets") => apps::daemon_set(self, object, old),
            ("apps", "controllerrevisions") => config::revision(self, object, old),
            ("batch", "jobs") => batch::job(self, object, old),
            ("networking.k8s.io", "ingresses") => net::ingress(self, object, old),
            ("discovery.k8s.io", "endpointslices") => net::endpoint_slice(self, object, old),
            ("coordination.k8s.io", "leases") => config::lease(self, object, old),
            ("events.k8s.io", "events") => config::event_of_events(self, object, old),
            ("rbac.authorization.k8s.io", "roles" | "clusterroles") => rbac::role(self, object, old),
            ("rbac.authorization.k8s.io", _) => rbac::binding(self, object, old),
            ("apiextensions.k8s.io", _) => definition::definition(self, object, old),
            ("admissionregistration.k8s.io", _) => webhook::configuration(self, object, old),
            _ => self.metadata(object, names::dns_subdomain),
        }
    }

    fn status(&mut self, object: &Value, old: &Value) {
        match (self.kind.group.as_str(), self.kind.plural.as_str()) {
            ("", "namespaces") => config::namespace_status(self, object, old),
            ("", "pods") => pod::status(self, object, old),
            ("", "services") => net::service_status(self, object, old),
            ("apps", _) => apps::status(self, object, old),
            ("batch", "jobs") => batch::status(self, object, old),
            ("networking.k8s.io", "ingresses") => net::ingress_status(self, object, old),
            _ => self.metadata_update(object, Some(old)),
        }
    }

    fn metadata(&mut self, object: &Value, rule: NameRule) {
        names::metadata(&mut self.errors, object, self.kind.namespaced, rule);
        self.full_finalizers(object);
    }

    fn metadata_update(&mut self, object: &Value, old: Option<&Value>) {
        if let Some(old) = old {
            names::metadata_update(&mut self.errors, object, old);
            self.full_finalizers(object);
        }
    }

    /// Three groups check their metadata by the rules of custom resources.
    fn full_finalizers(&mut self, object: &Value) {
        let groups = ["coordination.k8s.io", "apiextensions.k8s.io", "admissionregistration.k8s.io"];
        if !groups.contains(&self.kind.group.as_str()) {
            names::full_finalizers(&mut self.errors, object);
        }
    }

    fn invalid(&mut self, field: impl Into<String>, value: impl Into<String>, why: impl Into<String>) {
        self.errors.push(FieldError::invalid(field, value, why));
    }

    fn invalid_text(&mut self, field: impl Into<String>, value: &str, why: impl Into<String>) {
        self.invalid(field, go_quote(value), why);
    }

    fn required(&mut self, field: impl Into<String>, why: &str) {
        self.errors.push(FieldError::required(field, why));
    }

    fn forbidden(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.errors.push(FieldError::forbidden(field, why));
    }

    fn duplicate(&mut self, field: impl Into<String>, value: impl Into<String>) {
        self.errors.push(FieldError::duplicate(field, value));
    }

    /// Each fault of a text.
    fn named(&mut self, field: &str, value: &str, faults: Vec<String>) {
        names::check(&mut self.errors, field, value, faults);
    }

    fn one_of(&mut self, field: impl Into<String>, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.errors.push(FieldError::not_supported(field, go_quote(value), supported));
        }
    }

    /// A number, if there is one, that is at least 0.
    fn nonnegative(&mut self, field: impl Into<String>, value: &Value) {
        if let Some(value) = value.as_i64().filter(|value| *value < 0) {
            self.invalid(field, value.to_string(), "must be greater than or equal to 0");
        }
    }

    /// The same for some fields of an object.
    fn all_nonnegative(&mut self, at: &str, object: &Value, fields: &[&str]) {
        for field in fields {
            self.nonnegative(format!("{at}.{field}"), &object[*field]);
        }
    }

    fn port(&mut self, field: &str, port: i64) {
        if !(1..=65_535).contains(&port) {
            self.invalid(field, port.to_string(), "must be between 1 and 65535, inclusive");
        }
    }

    /// A port by number or name.
    fn port_or_name(&mut self, field: &str, port: &Value) {
        match port {
            Value::String(name) => self.named(field, name, names::port_name(name)),
            other => self.port(field, other.as_i64().unwrap_or_default()),
        }
    }

    /// A value as messages print it; `path` leads to it through the kind's type.
    fn print(&self, path: &[&str], value: &Value) -> String {
        match value {
            Value::String(text) => go_quote(text),
            other => shape::go_json(&self.kind.go_type, path, other),
        }
    }

    /// A field that may not change.
    fn immutable(&mut self, path: &[&str], object: &Value, old: &Value) {
        let (new, old) = (value_at(object, path), value_at(old, path));
        if new != old {
            let value = self.print(path, new);
            self.invalid(path.join("."), value, "field is immutable");
        }
    }

    /// A selector that must select the labels of a template.
    fn selects_template(&mut self, spec: &Value) {
        let labels = &spec["template"]["metadata"]["labels"];
        if names::selects(&spec["selector"], labels) == Some(false) {
            let value = self.print(&["spec", "template", "metadata", "labels"], labels);
            self.invalid("spec.template.metadata.labels", value, "`selector` does not match template `labels`");
        }
    }
}

fn value_at<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(object, |value, name| &value[*name])
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object[name].as_array().map_or(&[], Vec::as_slice)
}

fn entries<'a>(object: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object[name].as_object().into_iter().flatten()
}

//! From a method, a path and a query to what is asked for.
//!
//! Never looks at what is served; a path that names an unknown kind is found out later.

use std::collections::BTreeMap;

use http::Method;

use crate::error::Error;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub verb: Verb,
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name.
    pub plural: String,
    /// Namespace; empty for all, or for cluster-scoped kinds.
    pub namespace: String,
    /// Name; empty for collections.
    pub name: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// The query.
    pub query: Query,
    /// Who asks, as the User-Agent names it; empty if it doesn't.
    pub agent: String,
    /// The subresource that a change of the whole object comes through; empty for none.
    pub through: &'static str,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read one.
    Get,
    /// Read many.
    List,
    /// Read many, and what follows.
    Watch,
    /// Make one.
    Create,
    /// Replace one.
    Update,
    /// Change one.
    Patch,
    /// Delete one.
    Delete,
    /// Delete many.
    DeleteCollection,
}

impl Verb {
    /// As RBAC and audit spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// A request that leads nowhere: who may not do it is told that first, as at the real server.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// What it is to the authorizer.
    pub request: Box<Request>,
    /// What it is answered.
    pub error: Error,
}

/// A query's parameters; the first of each name counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Takes a query's text.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut map = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            map.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        Self(map)
    }

    /// One parameter; an empty one counts as missing.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The same with one parameter set.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Whether a parameter is there, be it empty.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A boolean as apimachinery reads it: everything but `0` and `false` is true.
    #[must_use]
    pub fn is_true(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 if it is there and isn't one.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Error> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                let text = crate::field_error::go_quote(text);
                Error::bad_request(format!("strconv.ParseInt: parsing {text}: invalid syntax"))
            })
        };
        self.get(name).map(parse).transpose()
    }
}

impl Request {
    /// Takes a request about objects; `None` if the path is about something else (discovery, health).
    ///
    /// # Errors
    /// If the method doesn't fit the path, or the path is too long.
    pub fn parse(method: &Method, path: &str, query: &str) -> Result<Option<Self>, Refused> {
        let decoded: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Ok(None),
        };
        let mut query = Query::parse(query);
        let rest = match rest {
            // The old way to ask for a watch.
            ["watch", rest @ ..] if !rest.is_empty() => {
                query.0.insert("watch".to_owned(), "true".to_owned());
                rest
            }
            rest => rest,
        };
        let mut error = None;
        let (namespace, plural, name, subresource) = match rest {
            ["namespaces"] => ("", "namespaces", "", ""),
            ["namespaces", name] => ("", "namespaces", *name, ""),
            ["namespaces", name, sub @ ("status" | "finalize")] => ("", "namespaces", *name, *sub),
            ["namespaces", namespace, plural] => (*namespace, *plural, "", ""),
            ["namespaces", namespace, plural, name] => (*namespace, *plural, *name, ""),
            ["namespaces", namespace, plural, name, sub] => (*namespace, *plural, *name, *sub),
            [plural] => ("", *plural, "", ""),
            [plural, name] => ("", *plural, *name, ""),
            [plural, name, sub] => ("", *plural, *name, *sub),
            ["namespaces", namespace, plural, name, sub, ..] => {
                error = Some(Error::no_resource());
                (*namespace, *plural, *name, *sub)
            }
            [plural, name, sub, ..] => {
                error = Some(Error::no_resource());
                ("", *plural, *name, *sub)
            }
            [] => return Ok(None),
        };
        let verb = match (method, name.is_empty()) {
            (&Method::GET, true) if query.is_true("watch") => Verb::Watch,
            (&Method::GET, true) => Verb::List,
            (&Method::GET, false) => Verb::Get,
            (&Method::POST, true) => Verb::Create,
            (&Method::POST, false) if !subresource.is_empty() => Verb::Create,
            (&Method::PUT, false) => Verb::Update,
            (&Method::PATCH, false) => Verb::Patch,
            (&Method::DELETE, false) => Verb::Delete,
            (&Method::DELETE, true) => Verb::DeleteCollection,
            (method, _) => {
                error.get_or_insert_with(Error::method_not_allowed);
                match *method {
                    Method::POST => Verb::Create,
                    Method::PATCH => Verb::Patch,
                    Method::PUT => Verb::Update,
                    _ => Verb::Get,
                }
            }
        };
        let own = str::to_owned;
        let request = Self {
            verb,
            group: own(group),
            version: own(version),
            plural: own(plural),
            namespace: own(namespace),
            name: own(name),
            subresource: own(subresource),
            query,
            agent: String::new(),
            through: "",
        };
        match error {
            None => Ok(Some(request)),
            Some(error) => Err(Refused { request: Box::new(request), error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, path: &str, query: &str) -> Option<Request> {
        Request::parse(&method, path, query).unwrap()
    }

    #[test]
    fn paths_say_what_is_meant() {
        let request = parse(Method::GET, "/api/v1/namespaces/n/pods/a", "").unwrap();
        assert_eq!(
            (request.verb, &*request.namespace, &*request.plural, &*request.name),
            (Verb::Get, "n", "pods", "a")
        );
        let request = parse(Method::PATCH, "/apis/apps/v1/namespaces/n/deployments/a/status", "").unwrap();
        assert_eq!((&*request.group, &*request.subresource, request.verb), ("apps", "status", Verb::Patch));
        let request = parse(Method::GET, "/api/v1/namespaces", "watch=true").unwrap();
        assert_eq!((&*request.plural, request.verb), ("namespaces", Verb::Watch));
        let request = parse(Method::PUT, "/api/v1/namespaces/n/finalize", "").unwrap();
        assert_eq!((&*request.plural, &*request.name, &*request.subresource), ("namespaces", "n", "finalize"));
        let request = parse(Method::DELETE, "/apis/x.y/v1/things", "labelSelector=a%3Db").unwrap();
        assert_eq!((request.verb, request.query.get("labelSelector")), (Verb::DeleteCollection, Some("a=b")));
        let request = parse(Method::GET, "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Aa", "").unwrap();
        assert_eq!(request.name, "system:a");
    }

    #[test]
    fn other_paths_and_methods_are_told_apart() {
        for path in ["/", "/api", "/apis", "/api/v1", "/apis/apps/v1", "/healthz", "/openapi/v3"] {
            assert_eq!(parse(Method::GET, path, ""), None, "{path}");
        }
        assert_eq!(Request::parse(&Method::PUT, "/api/v1/pods", "").unwrap_err().error.code, 405);
        let refused = Request::parse(&Method::GET, "/api/v1/namespaces/n/pods/a/log/more", "").unwrap_err();
        assert_eq!((refused.error.code, &*refused.request.subresource), (404, "log"));
        let request = parse(Method::GET, "/api/v1/watch/namespaces/n/pods", "").unwrap();
        assert_eq!((request.verb, &*request.namespace), (Verb::Watch, "n"));
    }
}

//! Content negotiation: which encoding and which form of an answer the `Accept` header asks for.
//!
//! The order of preference is that of the real server's `goautoneg`, and so is the first gate of built-in kinds, where
//! go-restful takes exact types and `*/*` only. Protobuf and CBOR are not offered; their clauses are passed over, so
//! that a client which also takes JSON gets JSON.

use serde_json::{Value, json};

use super::Version;

/// Clauses of an `Accept` header that are looked at; clients send a handful.
const MAX_CLAUSES: usize = 64;
/// The types that answers can have.
const OFFERED: &str = "application/json, application/yaml";
/// `User-Agent`s of tools that people read with get indented JSON.
const PEOPLE: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];
/// The group, version and kind of aggregated discovery.
const AGGREGATED: Convert<'_> = Convert { kind: "APIGroupDiscoveryList", group: "apidiscovery.k8s.io", version: "v2" };

/// What of a request decides on the encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client<'a> {
    /// The `Accept` header, empty if absent.
    pub accept: &'a str,
    /// The query parameter `pretty`.
    pub pretty: Option<&'a str>,
    /// The `User-Agent` header, empty if absent.
    pub user_agent: &'a str,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Objects of a built-in kind; a collection when no name is given.
    BuiltIn {
        /// Whether the path names a collection.
        collection: bool,
    },
    /// Objects of a custom kind.
    Custom,
    /// `/api`, and `/apis/<group>/<version>` of a built-in group.
    BuiltInDiscovery,
    /// `/apis`, `/apis/<group>`, and `/apis/<group>/<version>` of a custom group.
    Discovery,
    /// `/version`, always indented JSON.
    Version,
    /// An error, or whatever else has one form only: never refused, indented JSON if nothing fits.
    Status,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    Json {
        /// Indented for people.
        pretty: bool,
    },
    /// YAML, not offered for watches.
    Yaml,
}

/// What an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The objects.
    Full,
    /// A `Table`.
    Table(Version),
    /// A `PartialObjectMetadata`.
    Metadata(Version),
    /// A `PartialObjectMetadataList`.
    MetadataList(Version),
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// How to write the answer.
    pub encoding: Encoding,
    /// What it holds.
    pub form: Form,
}

/// Nothing that the client accepts can be given: a 406.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotAcceptable {
    message: String,
    /// go-restful's refusals carry an empty `details`.
    details: bool,
}

impl NotAcceptable {
    pub(super) fn conversion(message: String) -> Self {
        Self { message, details: false }
    }

    /// The body of the 406, to be written as [`Endpoint::Status`] is.
    #[must_use]
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": "NotAcceptable",
            "code": 406,
        });
        if self.details {
            status["details"] = json!({});
        }
        status
    }
}

/// Chooses the encoding and the form of an answer.
///
/// # Errors
/// No clause of the header fits the endpoint. A `watch` cannot be YAML.
pub fn negotiate(client: Client<'_>, endpoint: Endpoint, watch: bool) -> Result<Accepted, NotAcceptable> {
    gate(client.accept, endpoint)?;
    if endpoint == Endpoint::Version {
        return Ok(Accepted { encoding: Encoding::Json { pretty: true }, form: Form::Full });
    }
    let Some(mut accepted) = choose(client.accept, |options| endpoint.form(options)) else {
        if endpoint == Endpoint::Status {
            return Ok(Accepted { encoding: Encoding::Json { pretty: true }, form: Form::Full });
        }
        let message = format!("only the following media types are accepted: {OFFERED}");
        return Err(NotAcceptable { message, details: false });
    };
    if watch && accepted.encoding == Encoding::Yaml {
        let message = "only the following media types are accepted: application/json;stream=watch".to_owned();
        return Err(NotAcceptable { message, details: false });
    }
    if let Encoding::Json { pretty } = &mut accepted.encoding {
        *pretty |= client.wants_pretty();
    }
    Ok(accepted)
}

/// Whether `/api` or `/apis` is asked for aggregated discovery, and in which encoding.
///
/// Its content type is [`Encoding::aggregated_content_type`]. Otherwise the plain documents are negotiated.
#[must_use]
pub fn wants_aggregated(client: Client<'_>) -> Option<Encoding> {
    let aggregated = |options: &Options<'_>| {
        (options.convert == Some(AGGREGATED) && options.server_version.is_empty()).then_some(Form::Full)
    };
    let accepted = if client.accept.is_empty() { None } else { choose(client.accept, aggregated) };
    accepted.map(|accepted| match accepted.encoding {
        Encoding::Json { pretty } => Encoding::Json { pretty: pretty || client.wants_pretty() },
        Encoding::Yaml => Encoding::Yaml,
    })
}

impl Client<'_> {
    fn wants_pretty(&self) -> bool {
        match self.pretty {
            // Go's ParseBool.
            Some(text) if !text.is_empty() => matches!(text, "1" | "t" | "T" | "TRUE" | "true" | "True"),
            _ => PEOPLE.iter().any(|tool| self.user_agent.starts_with(tool)),
        }
    }
}

/// An answer could not be written as YAML.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the answer as {encoding}: {reason}")]
pub struct EncodeError {
    encoding: &'static str,
    reason: String,
}

impl Encoding {
    /// The `Content-Type` of an answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json { .. } => "application/json",
            Self::Yaml => "application/yaml",
        }
    }

    /// The `Content-Type` of aggregated discovery, with what it was converted to.
    #[must_use]
    pub fn aggregated_content_type(self) -> &'static str {
        match self {
            Self::Json { .. } => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::Yaml => "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        }
    }

    /// The body of an answer; compact JSON ends with a newline, as the real server's does.
    ///
    /// # Errors
    /// The encoder refuses the value, which JSON values give no reason for.
    pub fn write(self, answer: &Value) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Json { pretty: true } => serde_json::to_vec_pretty(answer)
                .map_err(|error| EncodeError { encoding: "JSON", reason: error.to_string() }),
            Self::Json { pretty: false } => {
                let mut body = serde_json::to_vec(answer)
                    .map_err(|error| EncodeError { encoding: "JSON", reason: error.to_string() })?;
                body.push(b'\n');
                Ok(body)
            }
            Self::Yaml => serde_saphyr::to_string(answer)
                .map(String::into_bytes)
                .map_err(|error| EncodeError { encoding: "YAML", reason: error.to_string() }),
        }
    }
}

impl Endpoint {
    /// The form that a clause's parameters ask for; `None` if they ask for what is not given here.
    fn form(self, options: &Options<'_>) -> Option<Form> {
        let objects = matches!(self, Self::BuiltIn { .. } | Self::Custom);
        if !(options.server_version.is_empty() || (objects && options.server_version == "v1")) {
            return None;
        }
        let Some(convert) = options.convert else { return Some(Form::Full) };
        let version = match (objects, convert.group, convert.version) {
            (true, "meta.k8s.io", "v1") => Version::V1,
            (true, "meta.k8s.io", "v1beta1") => Version::V1Beta1,
            _ => return None,
        };
        match convert.kind {
            "Table" => Some(Form::Table(version)),
            "PartialObjectMetadata" => Some(Form::Metadata(version)),
            "PartialObjectMetadataList" => Some(Form::MetadataList(version)),
            _ => None,
        }
    }
}

/// The check of go-restful's routes, which looks at types without their parameters.
fn gate(accept: &str, endpoint: Endpoint) -> Result<(), NotAcceptable> {
    let (types, offered): (&[&str], _) = match endpoint {
        Endpoint::Custom | Endpoint::Discovery | Endpoint::Status => return Ok(()),
        Endpoint::Version => (&["application/json"], "application/json".to_owned()),
        Endpoint::BuiltIn { collection: true } => {
            (&["application/json", "application/yaml"], format!("{OFFERED}, application/json;stream=watch"))
        }
        Endpoint::BuiltIn { collection: false } | Endpoint::BuiltInDiscovery => {
            (&["application/json", "application/yaml"], OFFERED.to_owned())
        }
    };
    let passes = |clause: &str| {
        let media_type = clause.split(';').next().unwrap_or_default().trim_matches(' ');
        media_type == "*/*" || types.contains(&media_type)
    };
    if accept.is_empty() || accept.split(',').any(passes) {
        return Ok(());
    }
    let message = format!("406: Not Acceptable\n\nAvailable representations: {offered}");
    Err(NotAcceptable { message, details: true })
}

/// One clause of an `Accept` header.
#[derive(Clone, Debug, PartialEq)]
struct Clause<'a> {
    main: &'a str,
    sub: &'a str,
    quality: f64,
    options: Options<'a>,
}

/// The parameters of a clause that mean something to a Kubernetes server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Options<'a> {
    convert: Option<Convert<'a>>,
    stream: &'a str,
    server_version: &'a str,
    pretty: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Convert<'a> {
    kind: &'a str,
    group: &'a str,
    version: &'a str,
}

/// The first clause and encoding that fit, clauses in their order of preference.
fn choose(header: &str, form: impl Fn(&Options<'_>) -> Option<Form>) -> Option<Accepted> {
    let json = |pretty| Encoding::Json { pretty };
    if header.is_empty() {
        return Some(Accepted { encoding: json(false), form: Form::Full });
    }
    for clause in parse(header) {
        for (sub, encoding) in [("json", json(clause.options.pretty)), ("yaml", Encoding::Yaml)] {
            let fits = (clause.main == "application" && (clause.sub == sub || clause.sub == "*"))
                || (clause.main == "*" && clause.sub == "*");
            let streams = clause.options.stream.is_empty() || (clause.options.stream == "watch" && sub == "json");
            if fits
                && streams
                && let Some(form) = form(&clause.options)
            {
                return Some(Accepted { encoding, form });
            }
        }
    }
    None
}

fn parse(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header.split(',').filter_map(Clause::parse).take(MAX_CLAUSES).collect();
    // The real server's "before" is no order (a wildcard of a high quality and a plain type of a low one are each
    // before the other), so what it sorts to depends on the algorithm: for this many clauses, insertion sort.
    for end in 1..clauses.len() {
        let mut at = end;
        while at > 0 && clauses[at].is_before(&clauses[at - 1]) {
            clauses.swap(at, at - 1);
            at -= 1;
        }
    }
    clauses
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.trim_matches(' ').split(';');
        let (main, sub) = match parts.next().unwrap_or_default().split_once('/') {
            Some((main, sub)) => (main.trim_matches(' '), single(sub, '/')?.trim_matches(' ')),
            None => ("", ""),
        };
        let (main, sub) = match (main, sub) {
            ("", _) if text.split(';').next().is_some_and(|all| all.trim_matches(' ') == "*") => ("*", "*"),
            ("*", "") => ("*", "*"),
            (_, "") => return None,
            both => both,
        };
        let mut clause = Self { main, sub, quality: 1.0, options: Options::default() };
        for part in parts {
            if let Some((name, value)) = part.split_once('=')
                && let Some(value) = single(value, '=').filter(|value| !value.is_empty())
            {
                clause.set(name.trim_matches(' '), value);
            }
        }
        Some(clause)
    }

    fn set(&mut self, name: &str, raw: &'a str) {
        let (value, options) = (raw.trim_matches(' '), &mut self.options);
        match name {
            "q" => self.quality = raw.parse::<f32>().map_or(0.0, f64::from),
            "as" => options.convert.get_or_insert_default().kind = value,
            "g" => options.convert.get_or_insert_default().group = value,
            "v" => options.convert.get_or_insert_default().version = value,
            "stream" => options.stream = value,
            "sv" => options.server_version = value,
            "pretty" => options.pretty = value == "1",
            _ => {}
        }
    }

    fn is_before(&self, other: &Self) -> bool {
        self.quality > other.quality || (self.main != "*" && other.main == "*") || (self.sub != "*" && other.sub == "*")
    }
}

/// The text before its only separator, which may only end it.
fn single(text: &str, separator: char) -> Option<&str> {
    match text.split_once(separator) {
        None => Some(text),
        Some((text, "")) => Some(text),
        Some(_) => None,
    }
}

//! What a hook's way needs to know from the API server: its Service's endpoints, and the Secrets and ConfigMaps that its
//! TLS and its `Authorization` name.
//!
//! Never calls a hook, never reads an object that isn't named, and never tells what a Secret holds: a watch sees one
//! Service, its EndpointSlices, one Secret.

use std::sync::{Arc, OnceLock, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringmaster_core::cache::Change;
use ringmaster_core::controller::{Address, Auth, CaBundle, Entry, Webhook};
use ringmaster_core::endpoints::{Port, is_headless, port_name, ready};
use ringmaster_core::hash::shard;
use ringmaster_core::key::{ApiVersion, ObjectKey, Resource, SyncKey};
use ringmaster_core::object::Object;
use ringmaster_core::queue::Priority;
use ringmaster_core::watch::{Scope, Selection};
use ringmaster_hooks::{Credential, Found, News, Pem, Route};
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::dispatch::Dispatch;
use crate::hosted::Hosted;
use crate::route::running;
use crate::streams::{Shared, State};
use crate::tell::Tell;
use crate::watches::{Listener, Subscription, Watches};

/// The label by which a Service's EndpointSlices name it.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The objects that a hook's way depends on.
pub(crate) struct Backend {
    route: Arc<Route>,
    service: Option<Service>,
    /// If anything was declared of TLS.
    credentials: Option<Credentials>,
    /// If calls carry an `Authorization`.
    auth: Option<Carried>,
    watcher: Arc<Watcher>,
    bell: Arc<Bell>,
}

struct Service {
    key: ObjectKey,
    port: u16,
    object: Watched,
    slices: Watched,
}

/// Where the texts are that TLS needs.
struct Credentials {
    ca: Option<Authorities>,
    client: Option<Certificate>,
}

enum Authorities {
    /// In the controller itself.
    Inline(Vec<u8>),
    /// In an object, under this key.
    In(Source, Arc<str>),
}

/// The certificate and its private key, by their keys in one Secret.
struct Certificate {
    secret: Source,
    certificate: Arc<str>,
    private_key: Arc<str>,
}

/// Where that is of which an `Authorization` is made.
enum Carried {
    /// Under this key, after a scheme.
    Token { scheme: Arc<str>, secret: Source, key: Arc<str> },
    /// By their keys in one Secret.
    Basic { secret: Source, username: Arc<str>, password: Arc<str> },
}

/// An object that holds texts.
struct Source {
    /// The field that names it.
    field: String,
    kind: &'static str,
    key: ObjectKey,
    /// Its texts are in base64.
    encoded: bool,
    watched: Watched,
}

/// What is said of an entry that can't be had.
type Problem = Option<String>;

struct Watched {
    subscription: Subscription,
    state: watch::Receiver<State>,
}

impl Watched {
    fn shared(&self) -> &Arc<Shared> {
        self.subscription.shared()
    }

    fn kind(&self) -> &str {
        &self.shared().resource().kind
    }

    /// Its state, which changes for whoever waits once it does after this moment.
    fn later(&self) -> watch::Receiver<State> {
        let mut state = self.state.clone();
        state.mark_unchanged();
        state
    }

    /// Whether it was seen once, and if not, why it can't be.
    fn seen(&self) -> Result<(), Problem> {
        if self.shared().is_synced() { Ok(()) } else { Err(self.trouble()) }
    }

    /// Why it can't be read now, and what to do.
    fn trouble(&self) -> Problem {
        let State::Troubled(reason, text, _) = &*self.state.borrow() else { return None };
        let plural = &self.shared().resource().plural;
        let namespace = self.shared().namespace();
        let fix = format!("; grant get, list and watch on {plural} in the namespace {namespace}");
        Some(format!("{text}{}", if *reason == "Forbidden" { &fix } else { "" }))
    }
}

/// Rung by every change.
#[derive(Default)]
struct Bell(Notify);

impl Listener for Bell {
    fn changed(&self, _: &Change, _: Option<&SyncKey>) {
        self.0.notify_one();
    }
}

fn kind(api_version: &str, plural: &str, kind: &str) -> Arc<Resource> {
    let api_version = ApiVersion::new(api_version);
    Arc::new(Resource { api_version, plural: plural.into(), kind: kind.into(), namespaced: true, status: false })
}

impl Backend {
    /// Begins to watch what the webhook names.
    pub(crate) fn new(watches: &Watches, webhook: &Webhook, route: Arc<Route>, watcher: Arc<Watcher>) -> Self {
        let bell = Arc::<Bell>::default();
        let watched = |kind: Arc<Resource>, selection: Selection| {
            let listener = Arc::clone(&bell) as Arc<dyn Listener>;
            let subscription = watches.subscribe(kind, Scope::Selected(selection), listener);
            let state = subscription.shared().state();
            Watched { subscription, state }
        };
        let named = |kind: Arc<Resource>, key: &ObjectKey| {
            let (namespace, name) = (key.namespace().to_owned(), key.name().to_owned());
            watched(kind, Selection { namespace, name, labels: String::new() })
        };
        let service = match &webhook.address {
            Address::Service { name, namespace, port, .. } => {
                let key = ObjectKey::new(namespace, name);
                let labels = format!("{SERVICE_LABEL}={name}");
                let slices = Selection { namespace: namespace.to_string(), name: String::new(), labels };
                Some(Service {
                    port: *port,
                    object: named(kind("v1", "services", "Service"), &key),
                    slices: watched(kind("discovery.k8s.io/v1", "endpointslices", "EndpointSlice"), slices),
                    key,
                })
            }
            Address::Url(_) | Address::Urls { .. } => None,
        };
        let field = |name: &str| format!("{}.{name}", webhook.credentials_in);
        let secret = |name: &str, key: &ObjectKey| {
            let watched = named(kind("v1", "secrets", "Secret"), key);
            Source { field: field(name), kind: "Secret", key: key.clone(), encoded: true, watched }
        };
        let config_map = |name: &str, key: &ObjectKey| {
            let watched = named(kind("v1", "configmaps", "ConfigMap"), key);
            Source { field: field(name), kind: "ConfigMap", key: key.clone(), encoded: false, watched }
        };
        let ca = webhook.tls.ca.as_ref().map(|ca| match ca {
            CaBundle::Inline(text) => Authorities::Inline(text.as_bytes().to_vec()),
            CaBundle::Secret(Entry { object, key }) => {
                Authorities::In(secret("caBundle.secretRef", object), Arc::clone(key))
            }
            CaBundle::ConfigMap(Entry { object, key }) => {
                Authorities::In(config_map("caBundle.configMapRef", object), Arc::clone(key))
            }
        });
        let client = webhook.tls.client.as_ref().map(|client| Certificate {
            secret: secret("clientTLS.secretRef", &client.secret),
            certificate: Arc::clone(&client.certificate),
            private_key: Arc::clone(&client.private_key),
        });
        let credentials = (ca.is_some() || client.is_some()).then_some(Credentials { ca, client });
        let auth = webhook.auth.as_ref().map(|auth| match auth {
            Auth::Token { scheme, entry: Entry { object, key } } => Carried::Token {
                scheme: Arc::clone(scheme),
                secret: secret("authorization.secretRef", object),
                key: Arc::clone(key),
            },
            Auth::Basic { secret: object, username, password } => Carried::Basic {
                secret: secret("basicAuth.secretRef", object),
                username: Arc::clone(username),
                password: Arc::clone(password),
            },
        });
        Self { route, service, credentials, auth, watcher, bell }
    }

    /// Keeps the way informed, for as long as it is polled.
    pub(crate) async fn keep(&self) -> std::convert::Infallible {
        loop {
            // Before they are looked at: what changes meanwhile isn't missed.
            let mut states: Vec<_> = self.watched().map(Watched::later).collect();
            self.inform();
            let changes: Vec<_> = states.iter_mut().map(|state| Box::pin(state.changed())).collect();
            let changed = async {
                if changes.is_empty() {
                    std::future::pending::<()>().await;
                }
                // The senders live as long as the subscriptions do.
                let _ = futures::future::select_all(changes).await;
            };
            tokio::select! {
                () = changed => {}
                () = self.bell.0.notified() => {}
            }
        }
    }

    fn watched(&self) -> impl Iterator<Item = &Watched> {
        let service = self.service.iter().flat_map(|service| [&service.object, &service.slices]);
        let auth = self.auth.iter().map(|auth| &auth.secret().watched);
        service.chain(self.credentials.iter().flat_map(Credentials::watched)).chain(auth)
    }

    fn inform(&self) {
        let mut known = self.watched().filter(|watched| watched.shared().is_synced());
        let stale = known.find_map(|watched| Some((watched.kind(), watched.trouble()?)));
        self.route.set_stale(stale.map(|(kind, text)| format!("{kind}: {text}")));
        if let Some(found) = self.service.as_ref().and_then(Service::found) {
            self.route.found(&found);
        }
        match self.credentials.as_ref().map(Credentials::pem) {
            Some(Ok(pem)) => self.route.set_tls(Ok(pem)),
            Some(Err(Some(problem))) => self.route.set_tls(Err(problem)),
            // Nothing was declared, or it was not read yet.
            Some(Err(None)) | None => {}
        }
        match self.auth.as_ref().map(Carried::read) {
            Some(Ok(read)) => self.route.set_auth(Ok(read)),
            Some(Err(Some(problem))) => self.route.set_auth(Err(problem)),
            Some(Err(None)) | None => {}
        }
        self.watcher.informed();
    }
}

impl Credentials {
    fn watched(&self) -> impl Iterator<Item = &Watched> {
        let ca = self.ca.as_ref().and_then(|ca| match ca {
            Authorities::Inline(_) => None,
            Authorities::In(source, _) => Some(&source.watched),
        });
        ca.into_iter().chain(self.client.as_ref().map(|client| &client.secret.watched))
    }

    fn pem(&self) -> Result<Pem, Problem> {
        let ca = self.ca.as_ref().map(|ca| match ca {
            Authorities::Inline(text) => Ok(text.clone()),
            Authorities::In(source, key) => source.text(&source.data()?, key),
        });
        let client = self.client.as_ref().map(|Certificate { secret, certificate, private_key }| {
            // Both of one version: they belong together.
            let data = secret.data()?;
            Ok::<_, Problem>((secret.text(&data, certificate)?, secret.text(&data, private_key)?))
        });
        Ok(Pem { ca: ca.transpose()?, client: client.transpose()? })
    }
}

impl Carried {
    fn secret(&self) -> &Source {
        let (Self::Token { secret, .. } | Self::Basic { secret, .. }) = self;
        secret
    }

    fn read(&self) -> Result<Credential, Problem> {
        let data = self.secret().data()?;
        let text = |key: &str| self.secret().text(&data, key);
        match self {
            Self::Token { scheme, key, .. } => Ok(Credential::Token { scheme: Arc::clone(scheme), token: text(key)? }),
            // Both of one version, as they come.
            Self::Basic { username, password, .. } => {
                Ok(Credential::Basic { username: text(username)?, password: text(password)? })
            }
        }
    }
}

impl Service {
    /// Where its endpoints are; `None` while that isn't known.
    fn found(&self) -> Option<Found> {
        let Self { key, port, object, slices } = self;
        for (watched, what) in [(object, "the Service"), (slices, "its EndpointSlices")] {
            match watched.seen() {
                Ok(()) => {}
                Err(None) => return None,
                Err(Some(text)) => return Some(Found::Name(format!("{what} can't be read: {text}"))),
            }
        }
        let service = object.shared().store().get(key).cloned();
        let Some(service) = service else {
            return Some(Found::Name(format!("there is no Service {key}")));
        };
        if (key.namespace(), key.name()) == ("default", "kubernetes") {
            return Some(Found::Nothing(format!("the Service {key} is the API server's own")));
        }
        let slices: Vec<Arc<Object>> = slices.shared().store().iter().cloned().collect();
        if slices.is_empty() {
            return Some(Found::Name(format!("the Service {key} has no EndpointSlices")));
        }
        let named = match port_name(&service, *port) {
            Some(name) => Port::Named(name),
            // As its name resolves: to its replicas, whatever ports it tells.
            None if is_headless(&service) => Port::Number(*port),
            None => return Some(Found::Nothing(format!("the Service {key} has no port {port} for TCP"))),
        };
        Some(Found::Slices(ready(slices.iter().map(|slice| &**slice), &named)))
    }
}

impl Source {
    fn data(&self) -> Result<Map<String, Value>, Problem> {
        let Self { field, kind, key, watched, .. } = self;
        let told = |text| format!("{field}: the {kind} {key} can't be read: {text}");
        watched.seen().map_err(|problem| problem.map(told))?;
        let found = watched.shared().store().get(key).cloned();
        let found = found.ok_or_else(|| Some(format!("{field}: there is no {kind} {key}")))?;
        Ok(found.section("data").unwrap_or_default())
    }

    fn text(&self, data: &Map<String, Value>, entry: &str) -> Result<Vec<u8>, Problem> {
        let Self { field, kind, key, .. } = self;
        let text = data.get(entry).and_then(Value::as_str);
        let text = text.ok_or_else(|| Some(format!("{field}: the {kind} {key} has no {entry}")))?;
        if !self.encoded {
            return Ok(text.as_bytes().to_vec());
        }
        // As the API server checks it. The error would show a character.
        STANDARD.decode(text).map_err(|_| Some(format!("{field}: {entry} of {key} isn't base64")))
    }
}

/// Tells people of the hooks' endpoints and credentials, and has failed parents synced once a hook can be reached again.
pub(crate) struct Watcher {
    pub(crate) hosted: Arc<OnceLock<Weak<Hosted>>>,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) tell: Tell,
}

impl Watcher {
    /// One of the hooks' ways was told what there is to know of it.
    fn informed(&self) {
        if let Some(hosted) = running(&self.hosted) {
            self.tell.credentials(&hosted);
        }
    }
}

impl ringmaster_hooks::Listener for Watcher {
    fn told(&self, news: News<'_>) {
        let Some(hosted) = running(&self.hosted) else { return };
        let controller = &hosted.model.name;
        match news {
            News::Ejected { endpoint, why } => {
                warn!(%controller, endpoint, "an endpoint of the hook is left out: {why}");
                let note = format!("{endpoint} is left out until it answers again: {why}");
                self.tell.event(hosted.about.clone(), true, "EndpointLeftOut", note);
            }
            News::Returned { endpoint } => {
                info!(%controller, endpoint, "an endpoint of the hook is back");
                let note = format!("{endpoint} answers again");
                self.tell.event(hosted.about.clone(), false, "EndpointBack", note);
            }
            News::Reachable => info!(%controller, "the hook can be reached again"),
            News::Credentials => info!(%controller, "calls of the hook carry another Authorization header"),
            News::Changed => {}
        }
        // What had no room at one endpoint may be another's now.
        self.dispatch.open_all(hosted.id);
        if matches!(news, News::Ejected { .. } | News::Changed) {
            return;
        }
        // What failed for want of an endpoint waits for up to a minute.
        let is_back = |parent: &ObjectKey| match news {
            News::Returned { endpoint } => hosted.routes.lead_to(shard(&hosted.parent, parent), endpoint),
            _ => true,
        };
        let failing = hosted.board.failing_by(crate::status::Cause::Hook);
        let keys: Vec<_> = failing.iter().filter(|parent| is_back(parent)).map(|parent| hosted.key(parent)).collect();
        if !keys.is_empty() {
            self.dispatch.add_all(keys.into_iter(), Priority::Child);
        }
    }
}

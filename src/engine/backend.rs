//! What a hook's way needs to know from the API server: its Service's endpoints, and the Secrets and ConfigMaps that its
//! TLS names.
//!
//! Never calls a hook, and never reads an object that isn't named: a watch sees one Service, its EndpointSlices, one
//! Secret.

use std::sync::{Arc, OnceLock, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringmaster_cluster::Subject;
use ringmaster_core::cache::Change;
use ringmaster_core::controller::{Address, CaBundle, Entry, Webhook};
use ringmaster_core::endpoints::{Port, is_headless, port_name, ready};
use ringmaster_core::key::{ApiVersion, ObjectKey, Resource, SyncKey};
use ringmaster_core::object::Object;
use ringmaster_core::queue::Priority;
use ringmaster_core::watch::{Scope, Selection};
use ringmaster_hooks::{Found, News, Pem, Route};
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
    pem: Vec<Source>,
    bell: Arc<Bell>,
}

struct Service {
    key: ObjectKey,
    port: u16,
    object: Watched,
    slices: Watched,
}

/// Where one PEM text is.
struct Source {
    /// The field that names it.
    field: &'static str,
    what: &'static str,
    entry: Entry,
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

    /// Whether it was seen once, and if not, why it can't be.
    fn seen(&self) -> Result<(), Problem> {
        if self.shared().is_synced() {
            return Ok(());
        }
        match &*self.state.borrow() {
            State::Troubled(_, text, _) => Err(Some(text.clone())),
            State::Starting | State::Synced => Err(None),
        }
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
    pub(crate) fn new(watches: &Watches, webhook: &Webhook, route: Arc<Route>) -> Self {
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
        let secret = || kind("v1", "secrets", "Secret");
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
        let source = |field, what, entry: Entry, encoded, kind| {
            let watched = named(kind, &entry.object);
            Source { field, what, entry, encoded, watched }
        };
        let mut pem = Vec::new();
        match &webhook.tls.ca {
            None | Some(CaBundle::Inline(_)) => {}
            Some(CaBundle::Secret(entry)) => {
                pem.push(source("webhook.caBundle.secretRef", "Secret", entry.clone(), true, secret()));
            }
            Some(CaBundle::ConfigMap(entry)) => {
                let kind = kind("v1", "configmaps", "ConfigMap");
                pem.push(source("webhook.caBundle.configMapRef", "ConfigMap", entry.clone(), false, kind));
            }
        }
        if let Some(client) = &webhook.tls.client {
            for key in [&client.certificate, &client.private_key] {
                let entry = Entry { object: client.secret.clone(), key: Arc::clone(key) };
                pem.push(source("webhook.clientTLS.secretRef", "Secret", entry, true, secret()));
            }
        }
        Self { route, service, pem, bell }
    }

    /// Keeps the way informed, for as long as it is polled.
    pub(crate) async fn keep(&mut self, webhook: &Webhook) -> std::convert::Infallible {
        loop {
            self.inform(webhook);
            let service = self.service.iter_mut().flat_map(|service| [&mut service.object, &mut service.slices]);
            let watched = service.chain(self.pem.iter_mut().map(|source| &mut source.watched));
            let changes: Vec<_> = watched.map(|watched| Box::pin(watched.state.changed())).collect();
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

    fn inform(&self, webhook: &Webhook) {
        if let Some(found) = self.service.as_ref().and_then(Service::found) {
            self.route.found(&found);
        }
        if webhook.tls.ca.is_none() && webhook.tls.client.is_none() {
            return;
        }
        match self.pem(webhook) {
            Ok(pem) => self.route.set_tls(Ok(pem)),
            Err(Some(problem)) => self.route.set_tls(Err(problem)),
            // Not read yet.
            Err(None) => {}
        }
    }

    /// The texts that TLS needs, in the order in which they were subscribed to.
    fn pem(&self, webhook: &Webhook) -> Result<Pem, Problem> {
        let mut texts = self.pem.iter().map(Source::text);
        let mut next = || texts.next().unwrap_or(Err(None));
        let ca = match &webhook.tls.ca {
            None => None,
            Some(CaBundle::Inline(text)) => Some(text.as_bytes().to_vec()),
            Some(CaBundle::Secret(_) | CaBundle::ConfigMap(_)) => Some(next()?),
        };
        let client = match &webhook.tls.client {
            None => None,
            Some(_) => Some((next()?, next()?)),
        };
        Ok(Pem { ca, client })
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
                Err(Some(text)) => {
                    let fix = "grant get, list and watch on services and endpointslices";
                    return Some(Found::Name(format!("{what} can't be read: {text}; {fix}")));
                }
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
    fn text(&self) -> Result<Vec<u8>, Problem> {
        let Self { field, what, entry, encoded, watched } = self;
        let Entry { object, key } = entry;
        watched.seen().map_err(|problem| {
            problem.map(|text| {
                let kind = what.to_lowercase();
                format!("{field}: can't be read: {text}; grant get, list and watch on the {kind} {object}")
            })
        })?;
        let found = watched.shared().store().get(object).cloned();
        let found = found.ok_or_else(|| Some(format!("{field}: there is no {what} {object}")))?;
        let data: Map<String, Value> = found.section("data").unwrap_or_default();
        let text = data.get(&**key).and_then(Value::as_str);
        let text = text.ok_or_else(|| Some(format!("{field}: the {what} {object} has no {key}")))?;
        if !*encoded {
            return Ok(text.as_bytes().to_vec());
        }
        // As the API server checks it.
        STANDARD.decode(text).map_err(|error| Some(format!("{field}: {key} of {object}: {error}")))
    }
}

/// Tells people of a hook's endpoints, and has failed parents synced once it can be reached again.
pub(crate) struct Watcher {
    pub(crate) hosted: Arc<OnceLock<Weak<Hosted>>>,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) tell: Tell,
    pub(crate) subject: Subject,
}

impl ringmaster_hooks::Listener for Watcher {
    fn told(&self, news: News<'_>) {
        let Some(hosted) = running(&self.hosted) else { return };
        let controller = &hosted.model.name;
        match news {
            News::Ejected { endpoint, why } => {
                warn!(%controller, endpoint, "an endpoint of the hook is left out: {why}");
                let note = format!("{endpoint} is left out until it answers again: {why}");
                self.tell.event(self.subject.clone(), true, "EndpointLeftOut", note);
            }
            News::Returned { endpoint } => {
                info!(%controller, endpoint, "an endpoint of the hook is back");
                let note = format!("{endpoint} answers again");
                self.tell.event(self.subject.clone(), false, "EndpointBack", note);
            }
            News::Reachable => info!(%controller, "the hook can be reached again"),
        }
        if !matches!(news, News::Ejected { .. }) {
            // What failed for want of an endpoint waits for up to a minute.
            let failing = hosted.board.failing_by(crate::status::Cause::Hook);
            let keys: Vec<_> = failing.iter().map(|parent| hosted.key(parent)).collect();
            self.dispatch.add_all(keys.into_iter(), Priority::Child);
        }
    }
}

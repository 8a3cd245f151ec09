//! An insert that webhooks want to see: how it waits for them, and goes on with what they made of the object.
//!
//! Asking is all that waits here; the server itself never does. What webhooks change is nobody's field, as at the real
//! server: who manages what is settled before they are asked.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ringmaster_core::key::ObjectKey;
use ringmaster_core::object::Object;
use serde_json::{Value, json};

use super::review::{self, Subject, Verdict};
use super::select::{Place, wants};
use super::{Failure, Webhook, call};
use crate::answer::Answer;
use crate::auth::User;
use crate::body::Written;
use crate::error::Error;
use crate::field_error::go_quote;
use crate::meta;
use crate::patch::json_patch;
use crate::registry::Definition;
use crate::request::Request;
use crate::server::{ApiServer, Clock, NAMESPACES};
use crate::shape::{self, Managers};
use crate::store::{KindKey, Store};

/// Longest time that all webhooks together may take, as at the real server.
const ALL_WEBHOOKS: Duration = Duration::from_secs(34);

const GROUP: &str = "admissionregistration.k8s.io";

static CONFIGURATIONS: LazyLock<KindKey> =
    LazyLock::new(|| KindKey { group: GROUP.into(), plural: "mutatingwebhookconfigurations".into() });

/// The configurations that a new object of a kind may concern, by name.
pub(super) type Webhooks = Vec<Arc<Object>>;

/// What came of a write: an answer, or a creation that webhooks are to be asked about first.
pub(crate) enum Made {
    /// It is done.
    Answer(Answer),
    /// It waits.
    Asks(Box<Creation>),
}

/// The configurations that new objects of a kind wait for. Most servers have none. Configurations themselves aren't shown
/// to webhooks, so that one that is wrong can be put right.
pub(crate) fn waiting(store: &Store, definition: &Definition) -> Webhooks {
    if store.is_empty(&CONFIGURATIONS) || (definition.is_built_in() && definition.resource.api_version.group() == GROUP)
    {
        return Vec::new();
    }
    store.list(&CONFIGURATIONS, None, (None, None), None, |_| true).map(|page| page.objects).unwrap_or_default()
}

/// An object that is to be created once webhooks have seen it.
pub(crate) struct Creation {
    definition: Arc<Definition>,
    request: Request,
    /// As decoded, with its defaults and managers.
    object: Value,
    /// As the client named it.
    name: String,
    warnings: Vec<String>,
    webhooks: Webhooks,
    namespace_labels: Value,
}

impl ApiServer {
    /// Makes an object of a decoded body, or says that webhooks are to be asked first.
    ///
    /// # Errors
    /// As any creation's.
    pub(crate) fn insert(
        &self,
        definition: &Arc<Definition>,
        request: &Request,
        (mut body, warnings): (Value, Vec<String>),
        managers: Managers<'_>,
        webhooks: Webhooks,
    ) -> Result<Made, Error> {
        if webhooks.is_empty() {
            return self.make(definition, request, (body, warnings), managers).map(Made::Answer);
        }
        meta::unmake(&mut body, &request.namespace)?;
        let name = meta::text(&body, "name").to_owned();
        let state = self.state.lock();
        state.check_room(definition, &request.namespace, &name)?;
        let home = state.store.get(&NAMESPACES, &ObjectKey::new("", &request.namespace));
        drop(state);
        let namespace_labels = home.map(|home| home.value()["metadata"]["labels"].take()).unwrap_or_default();
        shape::managed(definition, &mut body, request, &(self.clock)().time, managers);
        let (definition, request) = (Arc::clone(definition), request.clone());
        let creation = Creation { definition, request, object: body, name, warnings, webhooks, namespace_labels };
        Ok(Made::Asks(Box::new(creation)))
    }

    /// Creates what webhooks have seen.
    ///
    /// # Errors
    /// As any creation's.
    pub(crate) fn admitted(&self, creation: Creation) -> Result<Answer, Error> {
        let Creation { request, object, warnings, .. } = creation;
        // The kind may have gone meanwhile.
        let definition = self.definition(&request)?;
        self.make(&definition, &request, (object, warnings), Managers::Applied)
    }
}

impl Creation {
    /// Asks all webhooks that want to see it, one after the other; it is then what they made of it. Stops asking when it
    /// is dropped.
    ///
    /// # Errors
    /// If one denies it, or can't be asked and must be.
    pub(crate) async fn ask(mut self, user: &User, clock: &Clock) -> Result<Self, Error> {
        let asked = tokio::time::timeout(ALL_WEBHOOKS, self.ask_all(user, clock)).await;
        asked.unwrap_or_else(|_| {
            let why = "Timeout: request did not complete within requested timeout - context deadline exceeded";
            Err(Error { details: json!({}), ..Error::new(504, "Timeout", why) })
        })?;
        Ok(self)
    }

    async fn ask_all(&mut self, user: &User, clock: &Clock) -> Result<(), Error> {
        for configuration in std::mem::take(&mut self.webhooks) {
            let configuration = configuration.value();
            for webhook in configuration["webhooks"].as_array().into_iter().flatten().map(Webhook) {
                if !wants(&webhook, &self.place(), &self.object) {
                    continue;
                }
                let uid = meta::uid(clock().random);
                let answered = match self.ask_one(&webhook, &uid, user).await {
                    Ok(verdict) => self.follow(verdict)?,
                    Err(failure) => Err(failure),
                };
                match answered {
                    Ok(()) => {}
                    Err(failure) if webhook.is_ignorable() => {
                        tracing::warn!(webhook = webhook.name(), "created without a webhook: {failure}");
                    }
                    Err(failure) => {
                        return Err(internal(&format!(
                            "failed calling webhook {}: {failure}",
                            go_quote(webhook.name())
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn place(&self) -> Place<'_> {
        let resource = &self.definition.resource;
        Place {
            group: resource.api_version.group(),
            version: resource.api_version.version(),
            plural: &resource.plural,
            namespaced: resource.namespaced,
            namespace_labels: &self.namespace_labels,
        }
    }

    async fn ask_one(&self, webhook: &Webhook<'_>, uid: &str, user: &User) -> Result<Verdict, Failure> {
        if webhook.0["matchConditions"].as_array().is_some_and(|conditions| !conditions.is_empty()) {
            return Err(Failure::Unsupported("the embedded API server doesn't evaluate matchConditions"));
        }
        let mut versions = webhook.0["admissionReviewVersions"].as_array().into_iter().flatten();
        if !versions.any(|version| version == "v1") {
            return Err(Failure::Unsupported("the embedded API server asks with AdmissionReviews of v1 only"));
        }
        let subject = Subject { definition: &self.definition, request: &self.request, user, name: &self.name };
        let answer = call::call(webhook, &review::question(uid, &subject, &self.object)).await?;
        review::answer(webhook.name(), uid, &answer)
    }

    /// Does as a webhook says. The outer error is its denial, or a patch that leads nowhere, which no policy ignores.
    fn follow(&mut self, verdict: Verdict) -> Result<Result<(), Failure>, Error> {
        self.warnings.extend(verdict.warnings);
        if let Some(denied) = verdict.denied {
            return Err(denied);
        }
        if verdict.patch.is_empty() {
            return Ok(Ok(()));
        }
        let patched = match json_patch(self.object.clone(), &verdict.patch) {
            Ok(patched) => patched,
            Err(error) if error.code == 400 => return Ok(Err(Failure::Patch(error.message))),
            Err(error) => return Err(internal(&error.message)),
        };
        let request =
            Request { query: self.request.query.clone().with("fieldValidation", "Ignore"), ..self.request.clone() };
        let kept = self.object["metadata"].get("managedFields").cloned();
        let decoded = shape::decode(&self.definition, Written::of(patched), kept.as_ref(), &request);
        let (mut object, _) =
            decoded.map_err(|error| internal(&error.message))?.map_err(|error| internal(&error.why))?;
        shape::default(&self.definition, &mut object);
        self.object = object;
        Ok(Ok(()))
    }
}

/// 500 as the real server words it.
fn internal(why: &str) -> Error {
    let details = json!({ "causes": [{ "message": why }] });
    Error { details, ..Error::new(500, "InternalError", format!("Internal error occurred: {why}")) }
}

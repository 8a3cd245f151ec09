//! What is on the stage: the Website example as it lies in the repository, many Websites, and where they are.
//!
//! Never another example than the one that users read: its files are part of this program.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::language::Language;
use crate::objects::{self, Objects};

/// The namespace of the Websites.
pub(crate) const NAMESPACE: &str = "demo";
/// Namespace and name of the webhook's Service; see the manifests.
pub(crate) const HOOK_SERVICE: (&str, &str) = ("website", "website-hook");
/// The theme that comes and goes.
pub(crate) const FICKLE: &str = "solarized";
/// Every Website is looked at again this often, so that a theme's coming and going is noticed.
const RESYNC_SECONDS: u64 = 5;

const CRDS: &str = include_str!("../../../webhooks-examples/python/website/manifests/crds.yaml");
const CONTROLLER: &str = include_str!("../../../webhooks-examples/python/website/manifests/controller.yaml");
const HOOK: &str = include_str!("../../../webhooks-examples/python/website/manifests/hook.yaml");
const SAMPLES: &str = include_str!("../../../webhooks-examples/python/website/manifests/samples.yaml");
const GROUP: &str = "/apis/example.ringmaster.dev/v1";

/// Why the scene can't be set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The example's own files are wrong.
    #[error("the example's manifests: {0}")]
    Manifests(String),
    /// The API server refuses an object.
    #[error("setting the scene: {0}")]
    Refused(String),
    /// A file can't be written.
    #[error("writing {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl From<objects::Error> for Error {
    fn from(error: objects::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Path of the Websites.
pub(crate) fn websites() -> String {
    format!("{GROUP}/namespaces/{NAMESPACE}/websites")
}

/// Path of a Website.
pub(crate) fn website(name: &str) -> String {
    format!("{}/{name}", websites())
}

/// Path of the themes.
pub(crate) fn themes() -> String {
    format!("{GROUP}/themes")
}

/// Path of the Websites' ConfigMaps, which hold their pages.
pub(crate) fn pages() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

/// Path of a child; `kind` is `configmaps`, `services` or `deployments`.
pub(crate) fn child(kind: &str, name: &str) -> String {
    let root = if kind == "deployments" { "/apis/apps/v1" } else { "/api/v1" };
    format!("{root}/namespaces/{NAMESPACE}/{kind}/{name}")
}

/// Name of a Website by its number.
pub(crate) fn name(number: usize) -> String {
    format!("site-{:03}", number + 1)
}

/// The webhook, written into a folder.
pub(crate) fn write_hook(language: Language, folder: &Path) -> Result<(), Error> {
    for (name, text) in language.files() {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

/// The file of the themes that the webhook knows.
pub(crate) fn themes_file(folder: &Path) -> PathBuf {
    folder.join("themes.json")
}

/// Gives the webhook the themes that are there now: it can't ask the API server, which is the point of a webhook.
pub(crate) async fn pass_themes(objects: &Objects, folder: &Path) -> Result<(), Error> {
    let known = objects.list(&themes()).await?.into_iter();
    let known: serde_json::Map<String, Value> = known
        .filter_map(|mut theme| Some((theme["metadata"]["name"].as_str()?.to_owned(), theme["spec"].take())))
        .collect();
    let (path, text) = (themes_file(folder), Value::Object(known).to_string());
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    // The webhook shall never read half a file.
    let new = path.with_extension("new");
    let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path));
    written.map_err(|source| Error::Write { path, source })
}

/// Kinds, themes, the webhook's Service, the controller, which is sharded.
pub(crate) async fn set(objects: &Objects) -> Result<(), Error> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    objects.apply(&namespace).await?;
    for object in documents(CRDS)?.iter().chain(&all_themes()?) {
        objects.apply(object).await?;
    }
    // What runs it are processes of ours.
    for object in documents(HOOK)?.iter().filter(|object| object["kind"] != "Deployment") {
        objects.apply(object).await?;
    }
    for mut controller in documents(CONTROLLER)? {
        controller["spec"]["resyncPeriodSeconds"] = RESYNC_SECONDS.into();
        // Divided among all members.
        controller["spec"]["sharding"] = json!({});
        objects.apply(&controller).await?;
    }
    Ok(())
}

/// Makes Websites from number 0 on.
pub(crate) async fn populate(objects: &Objects, count: usize) -> Result<(), Error> {
    let themes = all_themes()?;
    for number in 0..count {
        let theme = &themes[number % themes.len()]["metadata"]["name"];
        let website = json!({
            "apiVersion": "example.ringmaster.dev/v1", "kind": "Website",
            // No kubelet runs here: a Deployment of no replicas is ready without one.
            "metadata": { "name": name(number), "namespace": NAMESPACE, "labels": { "skip-workload": "true" } },
            "spec": { "theme": theme, "title": format!("Site {}", number + 1) },
        });
        objects.apply(&website).await?;
    }
    Ok(())
}

/// The theme that comes and goes, to be applied again.
pub(crate) fn fickle_theme() -> Result<Value, Error> {
    let found = all_themes()?.into_iter().find(|theme| theme["metadata"]["name"] == FICKLE);
    found.ok_or_else(|| Error::Manifests(format!("no theme {FICKLE}")))
}

fn all_themes() -> Result<Vec<Value>, Error> {
    let themes: Vec<Value> = documents(SAMPLES)?.into_iter().filter(|object| object["kind"] == "Theme").collect();
    if themes.is_empty() { Err(Error::Manifests("no themes".to_owned())) } else { Ok(themes) }
}

fn documents(text: &str) -> Result<Vec<Value>, Error> {
    serde_saphyr::from_multiple(text).map_err(|error| Error::Manifests(error.to_string()))
}

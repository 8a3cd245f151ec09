//! Which kinds the API server serves, and under which names.
//!
//! Never lists everything: one group version is asked for at a time, when a controller names it. What isn't served is
//! asked for again, never remembered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_core::key::{ApiVersion, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{Client, Error};

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(default)]
    preferred_version: Option<GroupVersion>,
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
}

type Served = Arc<Vec<Arc<Resource>>>;

/// What is known of the served kinds.
pub struct Discovery {
    client: Client,
    /// An answer counts for this long.
    interval: Duration,
    known: Mutex<HashMap<ApiVersion, (Instant, Served)>>,
}

impl Discovery {
    /// Knows nothing yet; answers count for `interval`.
    #[must_use]
    pub fn new(client: Client, interval: Duration) -> Self {
        Self { client, interval, known: Mutex::default() }
    }

    /// The kind with this plural name; `None` if it isn't served.
    ///
    /// # Errors
    /// If the API server can't be asked.
    pub async fn find(&self, api_version: &ApiVersion, plural: &str) -> Result<Option<Arc<Resource>>, Error> {
        let now = Instant::now();
        let known = self.known.lock().get(api_version).cloned();
        if let Some((at, served)) = known
            && now.duration_since(at) < self.interval
            && let Some(found) = pick(&served, plural)
        {
            return Ok(Some(found));
        }
        let served = self.ask(api_version).await?;
        let found = pick(&served, plural);
        self.known.lock().insert(api_version.clone(), (now, served));
        Ok(found)
    }

    /// The kind with this plural name in whichever version of a group (empty for the core's), the preferred one first;
    /// `None` if none serves it.
    ///
    /// # Errors
    /// If the API server can't be asked.
    pub async fn find_in_group(&self, group: &str, plural: &str) -> Result<Option<Arc<Resource>>, Error> {
        if group.is_empty() {
            return self.find(&ApiVersion::new("v1"), plural).await;
        }
        let Some(Group { preferred_version: preferred, versions }) = self.read(&format!("/apis/{group}")).await? else {
            return Ok(None);
        };
        for version in preferred.iter().chain(versions.iter().filter(|version| preferred.as_ref() != Some(*version))) {
            let found = self.find(&ApiVersion::new(&version.group_version), plural).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Forgets a group version: something that it named didn't answer.
    pub fn forget(&self, api_version: &ApiVersion) {
        self.known.lock().remove(api_version);
    }

    /// What is at a path; `None` if nothing is.
    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Error> {
        let text = match self.client.get_text(path).await {
            Ok(text) => text,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let problem =
            |error: serde_json::Error| Error::Answer { call: format!("GET {path}"), problem: error.to_string() };
        serde_json::from_str(&text).map(Some).map_err(problem)
    }

    async fn ask(&self, api_version: &ApiVersion) -> Result<Served, Error> {
        let root = if api_version.group().is_empty() { "/api" } else { "/apis" };
        let Some(list) = self.read::<ResourceList>(&format!("{root}/{api_version}")).await? else {
            return Ok(Arc::default());
        };
        let has_status = |plural: &str| list.resources.iter().any(|entry| entry.name == format!("{plural}/status"));
        let kinds = list.resources.iter().filter(|entry| !entry.name.contains('/'));
        Ok(Arc::new(
            kinds
                .map(|entry| {
                    Arc::new(Resource {
                        api_version: api_version.clone(),
                        plural: entry.name.as_str().into(),
                        kind: entry.kind.as_str().into(),
                        namespaced: entry.namespaced,
                        status: has_status(&entry.name),
                    })
                })
                .collect(),
        ))
    }
}

fn pick(served: &Served, plural: &str) -> Option<Arc<Resource>> {
    served.iter().find(|resource| &*resource.plural == plural).cloned()
}

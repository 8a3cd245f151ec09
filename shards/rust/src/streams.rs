//! What a controller is triggered by: what changes among the objects that the shard has, once the cache shows it.
//!
//! kube's own streams pass an object of a repeated list on before the cache has any of that list. Its run then sees what
//! was there before, or nothing, and nobody runs again: a drain that came with the list would never be acknowledged. Here a
//! list is passed on when it is complete. Never drops a change of labels.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use kube::{Api, Resource};
use kube_runtime::reflector::store::Writer;
use kube_runtime::reflector::{ObjectRef, Store, reflector};
use kube_runtime::watcher::{self, Event, watcher};
use serde::de::DeserializeOwned;

/// Which changes are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// What was added or changed.
    Applied,
    /// What was deleted too, or isn't the shard's any more.
    Touched,
}

/// Watches, keeps the cache, and passes changes on.
pub(crate) fn changes<K>(
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    passed: Passed,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    let cached = writer.as_reader();
    settled(reflector(writer, watcher(api, config)), cached, passed)
}

/// Passes on what events tell that the cache shows already; those of a list when it is complete.
fn settled<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    cached: Store<K>,
    passed: Passed,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send
where
    K: Resource + Clone + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    let mut settling = Settling { cached, passed, before: Vec::new(), listed: Vec::new() };
    events.flat_map(move |event| {
        let changed: Vec<Result<K, watcher::Error>> = match event {
            Ok(event) => settling.pass(event).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(changed)
    })
}

struct Settling<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    cached: Store<K>,
    passed: Passed,
    /// What the cache had when the list began.
    before: Vec<Arc<K>>,
    /// What the list has named.
    listed: Vec<K>,
}

impl<K> Settling<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    fn pass(&mut self, event: Event<K>) -> Vec<K> {
        match event {
            Event::Apply(object) => vec![object],
            Event::Delete(object) if self.passed == Passed::Touched => vec![object],
            Event::Delete(_) => Vec::new(),
            Event::Init => {
                self.before = if self.passed == Passed::Touched { self.cached.state() } else { Vec::new() };
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.push(object);
                Vec::new()
            }
            Event::InitDone => {
                let mut changed = std::mem::take(&mut self.listed);
                let before = std::mem::take(&mut self.before);
                let gone = before.iter().filter(|object| {
                    let key = ObjectRef::<K>::from_obj_with(object, K::DynamicType::default());
                    self.cached.get(&key).is_none()
                });
                changed.extend(gone.map(|object| K::clone(object)));
                changed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube_runtime::reflector;

    use super::*;

    fn object(name: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.namespace = Some("n".to_owned());
        object.metadata.resource_version = Some(version.to_owned());
        object
    }

    /// What is passed on, and what the cache has of it at that moment.
    async fn passed(passed: Passed) -> Vec<(String, Option<String>)> {
        let (cached, writer) = reflector::store::<ConfigMap>();
        let events = [
            Event::Init,
            Event::InitApply(object("a", "1")),
            Event::InitApply(object("b", "1")),
            Event::InitDone,
            Event::Apply(object("a", "2")),
            Event::Delete(object("b", "3")),
            Event::Init,
            Event::InitApply(object("lost on the way", "4")),
            Event::Init,
            Event::InitApply(object("c", "5")),
            Event::InitApply(object("d", "5")),
            Event::InitDone,
        ];
        let events = stream::iter(events.map(Ok));
        settled(reflector(writer, events), cached.clone(), passed)
            .map(|changed| {
                let name = changed.unwrap().metadata.name.unwrap();
                let now = cached.get(&ObjectRef::new(&name).within("n"));
                (name, now.and_then(|object| object.metadata.resource_version.clone()))
            })
            .collect()
            .await
    }

    fn expected(changes: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
        changes.iter().map(|(name, version)| ((*name).to_owned(), version.map(str::to_owned))).collect()
    }

    #[tokio::test]
    async fn a_list_is_passed_on_when_the_cache_has_it() {
        let all = [("a", Some("1")), ("b", Some("1")), ("a", Some("2")), ("c", Some("5")), ("d", Some("5"))];
        assert_eq!(passed(Passed::Applied).await, expected(&all));
    }

    #[tokio::test]
    async fn what_is_gone_is_passed_on_too_if_it_was_missed() {
        let all = [
            ("a", Some("1")),
            ("b", Some("1")),
            ("a", Some("2")),
            ("b", None),
            ("c", Some("5")),
            ("d", Some("5")),
            ("a", None),
        ];
        assert_eq!(passed(Passed::Touched).await, expected(&all));
    }
}

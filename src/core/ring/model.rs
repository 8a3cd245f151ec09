//! A ring as its user declared it: the one model of the `ControllerRing` objects of each API group.
//!
//! Never knows which shards there are, nor whether a kind is served. Its object was checked when it became this.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::{pace, plan};
use crate::dialect::RingDialect;
use crate::key::Uid;
use crate::selector::{Labels, Selector};

/// The plural name of rings in both groups.
pub const RINGS: &str = "controllerrings";

/// The label that every namespace has, with its name as the value: the API server sees to that.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// One ring: which objects are divided among the shards that name it, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Ring {
    /// Names and times of its API group.
    pub dialect: &'static RingDialect,
    /// Its name: the name part of the keys of its labels, and what the shards' Leases name. At most 63 bytes.
    pub name: Arc<str>,
    /// Its object's uid.
    pub uid: Uid,
    /// Its object's generation.
    pub generation: i64,
    /// The kinds whose objects are divided, each once. Their children's kinds are no main ones.
    pub resources: Vec<MainResource>,
    /// The namespaces whose objects are.
    pub namespaces: Selector,
    /// How an object's shard is found.
    pub hash: Hash,
    /// How a shard is treated that doesn't let an object go.
    pub rules: plan::Rules,
    /// How fast objects are moved.
    pub pace: pace::Settings,
    /// Its object is being deleted: no object is selected any more.
    pub is_deleting: bool,
}

/// A kind whose objects are divided among the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainResource {
    /// The kind.
    pub resource: GroupResource,
    /// The kinds of those that its objects control: they go where their owner goes. Each once; several main kinds may
    /// have the same.
    pub controlled: Vec<GroupResource>,
}

/// A kind in whatever version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupResource {
    /// The group, empty for the core's.
    pub group: Arc<str>,
    /// The plural name, such as `deployments`.
    pub resource: Arc<str>,
}

/// How an object's shard is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// By tokens, exactly as controller-sharding does it ([`super::hash`]).
    Tokens,
    /// By bounded loads ([`super::slots`]).
    BoundedLoad,
}

impl Ring {
    /// Whether objects of the main and controlled kinds are of the ring in the namespace of this name and these labels. An
    /// empty name is that of objects that live in none: they all are, as with admission webhooks. Nothing is while the
    /// ring is being deleted.
    ///
    /// The label [`NAMESPACE_NAME_LABEL`] counts as there, with the namespace's name.
    #[must_use]
    pub fn selects<L: Labels + ?Sized>(&self, namespace: &str, labels: &L) -> bool {
        !self.is_deleting
            && (namespace.is_empty() || self.namespaces.matches(&NamespaceLabels { name: namespace, labels }))
    }

    /// The main kind that this is, if it is one.
    #[must_use]
    pub fn main(&self, resource: &GroupResource) -> Option<&MainResource> {
        self.resources.iter().find(|main| main.resource == *resource)
    }

    /// The main kinds whose objects may control some of this kind.
    pub fn owners<'a>(&'a self, resource: &'a GroupResource) -> impl Iterator<Item = &'a MainResource> {
        self.resources.iter().filter(move |main| main.controlled.contains(resource))
    }

    /// Every kind of the ring once, main and controlled, sorted.
    #[must_use]
    pub fn kinds(&self) -> BTreeSet<&GroupResource> {
        self.resources.iter().flat_map(|main| std::iter::once(&main.resource).chain(&main.controlled)).collect()
    }
}

impl GroupResource {
    /// The kind of this group (empty: the core's) and plural name.
    #[must_use]
    pub fn new(group: &str, resource: &str) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }
}

/// `resource.group`, or `resource` of the core group.
impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

/// A namespace's labels, and its name as one of them.
struct NamespaceLabels<'a, L: ?Sized> {
    name: &'a str,
    labels: &'a L,
}

impl<L: Labels + ?Sized> Labels for NamespaceLabels<'_, L> {
    fn get(&self, key: &str) -> Option<&str> {
        if key == NAMESPACE_NAME_LABEL { Some(self.name) } else { self.labels.get(key) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dialect::RINGMASTER_RING;

    const NONE: &[(&str, &str)] = &[];

    fn ring(namespaces: &str) -> Ring {
        let main = |resource: &str, controlled: &[&str]| MainResource {
            resource: GroupResource::new("shop.example", resource),
            controlled: controlled.iter().map(|resource| GroupResource::new("", resource)).collect(),
        };
        Ring {
            dialect: &RINGMASTER_RING,
            name: "shop".into(),
            uid: Uid::new("u"),
            generation: 1,
            resources: vec![main("sites", &["services", "configmaps"]), main("carts", &["configmaps"])],
            namespaces: Selector::parse(namespaces).unwrap(),
            hash: Hash::BoundedLoad,
            rules: plan::Rules { drain_limit: Duration::from_secs(60), escalates: false },
            pace: pace::Settings::default(),
            is_deleting: false,
        }
    }

    #[test]
    fn namespaces_are_selected_by_labels_and_by_name() {
        let all_but = ring("kubernetes.io/metadata.name notin (kube-system)");
        assert!(all_but.selects("shop", NONE));
        assert!(!all_but.selects("kube-system", NONE));
        assert!(!all_but.selects("kube-system", &[(NAMESPACE_NAME_LABEL, "other")][..]), "its name is what counts");
        let labelled = ring("tier=front");
        assert!(labelled.selects("shop", &[("tier", "front")][..]));
        assert!(!labelled.selects("shop", NONE));
        assert!(labelled.selects("", NONE), "in no namespace");
        assert!(ring("").selects("kube-system", NONE));
    }

    #[test]
    fn a_deleted_ring_selects_nothing() {
        let ring = Ring { is_deleting: true, ..ring("") };
        assert!(!ring.selects("shop", NONE) && !ring.selects("", NONE));
    }

    #[test]
    fn kinds_are_found_by_what_they_are() {
        let ring = ring("");
        let (sites, maps) = (GroupResource::new("shop.example", "sites"), GroupResource::new("", "configmaps"));
        assert_eq!(ring.main(&sites).unwrap().controlled.len(), 2);
        assert_eq!(ring.main(&maps), None);
        assert_eq!(ring.main(&GroupResource::new("", "sites")), None, "of another group");
        assert_eq!((ring.owners(&maps).count(), ring.owners(&sites).count()), (2, 0));
        let kinds: Vec<String> = ring.kinds().into_iter().map(ToString::to_string).collect();
        assert_eq!(kinds, ["configmaps", "services", "carts.shop.example", "sites.shop.example"]);
    }
}

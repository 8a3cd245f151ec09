//! The partition key: what is hashed of an object, so that a controlled object gets its owner's hash.
//!
//! Never an error that denies a request: an object without a key is one that can't be assigned yet, or never.

use crate::dialect::RingDialect;
use crate::key::ApiVersion;
use crate::object::OwnerReference;

/// What the partition key of an object is (contract, 1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// It can be assigned by this.
    Of(Partition),
    /// A main object that the API server is yet to name (`generateName`, at its creation): it is assigned once it is there.
    Unnamed,
    /// An object of a controlled kind that no owner controls: it is never assigned.
    Unowned,
}

/// A partition key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// `group/kind/namespace/name`: no version, an empty group for the core's, an empty namespace where it is
    /// cluster-scoped.
    pub text: String,
    /// Whether it is also the key of a controlled object's owner. Otherwise the two are hashed apart, and the object
    /// doesn't follow its owner. Always true of a main object.
    pub is_owners: bool,
}

/// Whether objects of a kind live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// They do.
    Namespaced,
    /// They don't.
    Cluster,
}

/// The key of a main object. `name` is empty where it hasn't one yet; `namespace` where it is cluster-scoped.
#[must_use]
pub fn of_main(group: &str, kind: &str, namespace: &str, name: &str) -> Key {
    if name.is_empty() {
        return Key::Unnamed;
    }
    Key::Of(Partition { text: text(group, kind, namespace, name), is_owners: true })
}

/// The key of a controlled object in `namespace`, by the owner that controls it, whose kind has `owner_scope`. Its own
/// name isn't part of it, and may lack.
///
/// An owner reference doesn't say whether its owner lives in a namespace, so the caller must know. controller-sharding
/// doesn't: it always takes the child's namespace, so that children of a cluster-scoped owner are hashed apart from it
/// (contract, 1.3). Where [`RingDialect::child_namespace_always`] says so that is kept, since migrating moves nothing.
#[must_use]
pub fn of_controlled(
    owner: Option<&OwnerReference>,
    namespace: &str,
    owner_scope: Scope,
    dialect: &RingDialect,
) -> Key {
    let Some(owner) = owner else { return Key::Unowned };
    let owners_namespace = match owner_scope {
        Scope::Namespaced => namespace,
        Scope::Cluster => "",
    };
    let hashed = if dialect.child_namespace_always { namespace } else { owners_namespace };
    let version = ApiVersion::new(&owner.api_version);
    Key::Of(Partition {
        text: text(version.group(), &owner.kind, hashed, &owner.name),
        is_owners: hashed == owners_namespace,
    })
}

/// The owner that controls an object: the one whose reference says `controller: true`.
#[must_use]
pub fn controller_of(owners: &[OwnerReference]) -> Option<&OwnerReference> {
    owners.iter().find(|owner| owner.controller)
}

fn text(group: &str, kind: &str, namespace: &str, name: &str) -> String {
    [group, "/", kind, "/", namespace, "/", name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{CONTROLLER_SHARDING_RING, RINGMASTER_RING};
    use crate::key::Uid;

    fn owner(api_version: &str, kind: &str, controller: bool) -> OwnerReference {
        OwnerReference {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: "o".to_owned(),
            uid: Uid::new("u"),
            controller,
        }
    }

    fn of(text: &str, is_owners: bool) -> Key {
        Key::Of(Partition { text: text.to_owned(), is_owners })
    }

    #[test]
    fn main_objects_have_their_own_names() {
        assert_eq!(of_main("example.com", "Website", "shop", "front"), of("example.com/Website/shop/front", true));
        assert_eq!(of_main("", "Secret", "shop", "s"), of("/Secret/shop/s", true));
        assert_eq!(of_main("example.com", "Theme", "", "dark"), of("example.com/Theme//dark", true));
        assert_eq!(of_main("example.com", "Website", "shop", ""), Key::Unnamed, "generateName");
    }

    #[test]
    fn controlled_objects_have_their_controlling_owners() {
        let owners = [owner("apps/v1", "Deployment", false), owner("example.com/v2", "Website", true)];
        let key = |dialect, scope| of_controlled(controller_of(&owners), "shop", scope, dialect);
        for dialect in [&RINGMASTER_RING, &CONTROLLER_SHARDING_RING] {
            assert_eq!(key(dialect, Scope::Namespaced), of("example.com/Website/shop/o", true));
            assert_eq!(key(dialect, Scope::Namespaced), of_main("example.com", "Website", "shop", "o"));
            let secret = owner("v1", "Secret", true);
            let child = of_controlled(Some(&secret), "shop", Scope::Namespaced, dialect);
            assert_eq!(child, of("/Secret/shop/o", true));
            let none = of_controlled(controller_of(&owners[..1]), "shop", Scope::Namespaced, dialect);
            assert_eq!(none, Key::Unowned, "an owner that doesn't control it is none");
        }
    }

    #[test]
    fn children_of_cluster_scoped_owners_are_apart_in_the_contract_alone() {
        let theme = owner("example.com/v1", "Theme", true);
        let key = |dialect, namespace| of_controlled(Some(&theme), namespace, Scope::Cluster, dialect);
        assert_eq!(key(&RINGMASTER_RING, "shop"), of("example.com/Theme//o", true));
        assert_eq!(key(&RINGMASTER_RING, "shop"), of_main("example.com", "Theme", "", "o"));
        assert_eq!(key(&CONTROLLER_SHARDING_RING, "shop"), of("example.com/Theme/shop/o", false));
        assert_eq!(key(&CONTROLLER_SHARDING_RING, ""), of("example.com/Theme//o", true), "it has no namespace itself");
    }
}

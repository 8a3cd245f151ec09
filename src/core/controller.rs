//! The one model of a controller that the engine knows; each API group's kind is converted into it.
//!
//! Never names an API group: what differs by group is in its [`Dialect`].

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::dialect::Dialect;
use crate::key::{ApiVersion, ObjectKey, Uid};
use crate::object::Object;
use crate::rollout::FieldPath;
use crate::selector::Selector;

/// A declared controller, checked and with its defaults filled in.
#[derive(Clone, Debug)]
pub struct Controller {
    /// The object's name; the kind is cluster-scoped.
    pub name: Arc<str>,
    /// The object's uid: a controller made anew under the same name is another one.
    pub uid: Uid,
    /// The object's generation, for `observedGeneration`.
    pub generation: i64,
    /// Names and defaults of its API group.
    pub dialect: &'static Dialect,
    /// What it does for its parents.
    pub role: Role,
    /// The whole object as compact JSON, sent with every hook call.
    pub json: Arc<[u8]>,
    /// Whose objects it reconciles.
    pub parent: ParentRule,
    /// What it may make for them.
    pub children: Vec<ChildRule>,
    /// How children are written.
    pub apply: Apply,
    /// Select children by a `controller-uid` label that we add, instead of the parent's `spec.selector`. Never set for a
    /// decorator, which selects nothing.
    pub generate_selector: bool,
    /// Sync every parent this often, changed or not.
    pub resync_period: Option<Duration>,
    /// Its parents are divided among the members by shards; else one member has them all.
    pub sharded: bool,
    /// At most so many parents of one shard are synced at once.
    pub syncs_per_shard: Option<NonZeroUsize>,
    /// Do nothing while set.
    pub paused: bool,
    /// The sync hook.
    pub sync: Hook,
    /// The finalize hook, if there is anything to do before a parent may go.
    pub finalize: Option<Hook>,
    /// The customize hook, if parents are synced with objects that they don't own.
    pub customize: Option<Hook>,
}

impl Controller {
    /// The finalizer that it puts on its parents where it has a finalize hook.
    #[must_use]
    pub fn finalizer(&self) -> String {
        let prefix = match self.role {
            Role::Composite => self.dialect.composite_finalizer,
            Role::Decorator { .. } => self.dialect.decorator_finalizer,
        };
        format!("{prefix}{}", self.name)
    }

    /// Whether it adds to objects of others, instead of making what they stand for.
    #[must_use]
    pub const fn is_decorator(&self) -> bool {
        matches!(self.role, Role::Decorator { .. })
    }

    /// What it is called where controllers of all kinds stand side by side, as in metrics; no name has a slash.
    #[must_use]
    pub fn label(&self) -> Arc<str> {
        match self.role {
            Role::Composite => Arc::clone(&self.name),
            Role::Decorator { .. } => format!("{DECORATORS}/{}", self.name).into(),
        }
    }

    /// The field that declares the parents' kind.
    #[must_use]
    pub fn parent_field(&self) -> String {
        match self.role {
            Role::Composite => "spec.parentResource".to_owned(),
            Role::Decorator { target } => format!("spec.resources[{target}]"),
        }
    }

    /// The field that declares a kind of children.
    #[must_use]
    pub fn child_field(&self, index: usize) -> String {
        format!("{}[{index}]", self.children_field())
    }

    /// The field that declares all kinds of children.
    #[must_use]
    pub const fn children_field(&self) -> &'static str {
        match self.role {
            Role::Composite => "spec.childResources",
            Role::Decorator { .. } => "spec.attachments",
        }
    }

    /// The hooks that are declared.
    pub fn hooks(&self) -> impl Iterator<Item = &Hook> {
        std::iter::once(&self.sync).chain(&self.finalize).chain(&self.customize)
    }

    /// The hook for a parent that is finalized, or not. Without a finalize hook nothing is.
    #[must_use]
    pub fn hook(&self, finalizing: bool) -> &Hook {
        self.finalize.as_ref().filter(|_| finalizing).unwrap_or(&self.sync)
    }

    /// Whether a change of a parent reaches some of its children one by one: see [`crate::rollout`].
    #[must_use]
    pub fn rolls(&self) -> bool {
        self.children.iter().any(|child| child.strategy.is_rolling())
    }
}

/// The plural name of composites in both groups.
pub const COMPOSITES: &str = "compositecontrollers";

/// The plural name of decorators in both groups.
pub const DECORATORS: &str = "decoratorcontrollers";

/// What a controller does for its parents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Makes the children that a parent stands for, and says its status.
    Composite,
    /// Adds labels, annotations, status and attached objects to objects that are somebody else's. One that is declared
    /// for several kinds is as many controllers of one name and uid.
    Decorator {
        /// The place of this one's kind in the declaration.
        target: usize,
    },
}

/// The parents: one kind, and the selectors that they must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRule {
    /// Group and version.
    pub api_version: ApiVersion,
    /// Plural name.
    pub resource: Arc<str>,
    /// Labels that a parent must have.
    pub selector: Selector,
    /// Annotations that a parent must have, by the operators of a label selector; everything for a composite.
    pub annotations: Selector,
    /// A change of status alone doesn't lead to a sync.
    pub ignore_status_changes: bool,
    /// The fields that a revision of a parent keeps, for children that are rolled: what else changes reaches them at once.
    pub revision_fields: Vec<FieldPath>,
}

impl ParentRule {
    /// Whether every object of the kind is a parent.
    #[must_use]
    pub const fn selects_everything(&self) -> bool {
        self.selector.is_everything() && self.annotations.is_everything()
    }

    /// Whether an object has the labels and annotations that are asked for.
    #[must_use]
    pub fn selects(&self, object: &Object) -> bool {
        (self.selector.is_everything() || self.selector.matches(&object.labels()))
            && (self.annotations.is_everything() || self.annotations.matches(&object.annotations()))
    }
}

/// One kind of children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildRule {
    /// Group and version.
    pub api_version: ApiVersion,
    /// Plural name.
    pub resource: Arc<str>,
    /// What happens to a child that differs from what the hook wants.
    pub strategy: UpdateStrategy,
    /// What a rolled child must show before the next one is updated.
    pub status_checks: Vec<StatusCheck>,
}

/// A condition that a child must have in its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusCheck {
    /// The condition's type. A child without it fails the check.
    pub kind: Arc<str>,
    /// The status that it must have; any if there is none here.
    pub status: Option<Arc<str>>,
    /// The reason that it must have; any if there is none here.
    pub reason: Option<Arc<str>>,
}

/// How children are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apply {
    /// As whole objects, merged on our side from what is there, what was last applied and what is wanted.
    Merge,
    /// What is wanted is applied, and the API server keeps whose each field is.
    ServerSide {
        /// Who applies, as `managedFields` shows it.
        manager: Arc<str>,
    },
}

impl Apply {
    /// Who applies; `None` where we merge.
    #[must_use]
    pub fn manager(&self) -> Option<&Arc<str>> {
        match self {
            Self::Merge => None,
            Self::ServerSide { manager } => Some(manager),
        }
    }
}

/// What happens to a child that exists and differs from what the hook wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UpdateStrategy {
    /// Nothing, until somebody deletes it.
    #[default]
    OnDelete,
    /// It is deleted, and made anew.
    Recreate,
    /// It is updated.
    InPlace,
    /// As [`Self::Recreate`], one child after the other: see [`crate::rollout`].
    RollingRecreate,
    /// As [`Self::InPlace`], one child after the other.
    RollingInPlace,
}

impl UpdateStrategy {
    /// Whether children are updated one after the other.
    #[must_use]
    pub fn is_rolling(self) -> bool {
        matches!(self, Self::RollingRecreate | Self::RollingInPlace)
    }

    /// Whether a child that differs is deleted and made anew.
    #[must_use]
    pub fn recreates(self) -> bool {
        matches!(self, Self::Recreate | Self::RollingRecreate)
    }
}

/// One hook and how its JSON looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Shape of requests, and how strictly replies are read by default.
    pub version: HookVersion,
    /// Where and how to call it.
    pub webhook: Webhook,
}

/// The version of a hook's JSON (Metacontroller's v1 and v2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookVersion {
    /// Inner keys are bare names under a namespaced parent.
    V1,
    /// Inner keys are `namespace/name` for namespaced objects, always.
    V2,
}

/// Where and how a hook is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where it is.
    pub address: Address,
    /// Limit for one whole call, at least a millisecond.
    pub timeout: Duration,
    /// Plain http is meant.
    pub insecure: bool,
    /// Unknown or duplicate fields in a reply fail the sync instead of being logged.
    pub strict: bool,
    /// A call that had no answer may be repeated at once at another endpoint.
    pub idempotent: bool,
    /// Whom to trust, and who we are.
    pub tls: Tls,
    /// What each call's `Authorization` says, if anything.
    pub auth: Option<Auth>,
    /// Replies are remembered by their entity tags.
    pub etag: Option<Etag>,
    /// The field that `tls` and `auth` are declared in: `webhook`, or an entry of `spec.endpointConfigs`.
    pub credentials_in: Arc<str>,
}

/// What a webhook's connections need beside what the system has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities that may have signed the webhook's certificate; the system's if there is nothing.
    pub ca: Option<CaBundle>,
    /// The certificate that we show.
    pub client: Option<ClientCertificate>,
}

/// Certificates of authorities, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaBundle {
    /// The text itself.
    Inline(Arc<str>),
    /// An entry of a Secret.
    Secret(Entry),
    /// An entry of a ConfigMap.
    ConfigMap(Entry),
}

/// One entry of an object's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The object.
    pub object: ObjectKey,
    /// The entry's key.
    pub key: Arc<str>,
}

/// How replies are remembered by their entity tags (RFC 9110, 8.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Etag {
    /// For so long each; without end if there is none.
    pub timeout: Option<Duration>,
}

/// What the header `Authorization` of each call is made of (RFC 9110, 11.6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A scheme, and what a Secret holds for it.
    Token {
        /// The scheme, such as `Bearer`; never `Basic`.
        scheme: Arc<str>,
        /// The Secret's entry.
        entry: Entry,
    },
    /// A user name and a password (RFC 7617).
    Basic {
        /// The Secret that holds both.
        secret: ObjectKey,
        /// The key of the user name.
        username: Arc<str>,
        /// The key of the password.
        password: Arc<str>,
    },
}

/// A certificate and its private key, in a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The Secret.
    pub secret: ObjectKey,
    /// The key of the certificate, and what signed it.
    pub certificate: Arc<str>,
    /// The key of the private key.
    pub private_key: Arc<str>,
}

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A whole URL, `http` or `https`.
    Url(Arc<str>),
    /// Several replicas of one webhook.
    Urls {
        /// Scheme, host and port of each; they differ, and there is at least one.
        urls: Vec<Arc<str>>,
        /// Path and query at each, starting with a slash.
        path: Arc<str>,
    },
    /// A Service by name, `name.namespace.svc`: its endpoints, or what cluster DNS says where it has none.
    Service {
        /// The Service's name.
        name: Arc<str>,
        /// The Service's namespace.
        namespace: Arc<str>,
        /// The Service's port.
        port: u16,
        /// Whether to speak TLS.
        tls: bool,
        /// Path and query, starting with a slash.
        path: Arc<str>,
    },
}

impl Address {
    /// The URLs to call: one, or one for each replica.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        match self {
            Self::Url(url) => vec![url.to_string()],
            Self::Urls { urls, path } => urls.iter().map(|url| format!("{url}{path}")).collect(),
            Self::Service { name, namespace, port, tls, path } => {
                let scheme = if *tls { "https" } else { "http" };
                vec![format!("{scheme}://{name}.{namespace}.svc:{port}{path}")]
            }
        }
    }
}

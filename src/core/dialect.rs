//! Names and defaults of each API group that we serve, as data.
//!
//! Never holds behaviour: what differs between groups is a field here, what they share is code elsewhere.

use std::time::Duration;

use crate::controller::HookVersion;

/// Who writes, as `managedFields` shows it, but for what another manager applies.
pub const FIELD_MANAGER: &str = "ringmaster";

/// Who creates a child that is to be applied. A name of its own: what [`FIELD_MANAGER`] wrote besides is another
/// controller's finalizer or label, where the child is somebody's parent too, and not the hook's to drop.
pub const CREATOR: &str = "ringmaster-create";

/// One API group's names and defaults.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The API group of its controllers.
    pub group: &'static str,
    /// The annotation that keeps what was last applied to a child (three-way merge).
    pub last_applied: &'static str,
    /// The annotation that tells from what a child was created that is to be applied, until its fields were handed over
    /// to server-side apply; without one they are as soon as it is created.
    pub created_as: Option<&'static str>,
    /// Who wrote children where they were merged.
    pub mergers: &'static [&'static str],
    /// What keeps a controller with a finalize hook itself, until its own finalizer is off all parents. Without it, who
    /// had the parents takes it off them after the controller, or their kind in its spec, is gone, as far as that can be
    /// done.
    pub controller_finalizer: Option<OwnFinalizer>,
    /// What precedes a composite's name in the finalizer that it puts on parents.
    pub composite_finalizer: &'static str,
    /// What precedes a decorator's name in the finalizer that it puts on objects.
    pub decorator_finalizer: &'static str,
    /// The annotation of an attachment that names the decorator that made it.
    pub decorator_annotation: &'static str,
    /// The labels of a `ControllerRevision` that name its parent's API group, and the plural name of its kind.
    pub revision_labels: [&'static str; 2],
    /// A hook's version where it names none.
    pub hook_version: HookVersion,
    /// `parentResource.ignoreStatusChanges` where it isn't set.
    pub ignore_status_changes: bool,
    /// Whether plain http needs no `insecure: true` anywhere.
    pub plain_http: bool,
    /// Whether its controllers' status can carry conditions; otherwise events alone tell.
    pub conditions: bool,
    /// Whether a 422 reply is final until the parent changes.
    pub terminal_422: bool,
    /// Whether its controllers wait while Metacontroller itself works on them.
    pub waits_for_metacontroller: bool,
    /// Whether a reply may hold `events` and `conditions` for its parent.
    pub reply_extras: bool,
    /// Whether what is counted of its hooks is shown under Metacontroller's names too.
    pub parity_metrics: bool,
    /// Whether a child that stands twice in a reply is no error where replies are read strictly either: the last counts.
    pub repeated_children: bool,
}

/// What a controller with a finalize hook has itself.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnFinalizer {
    /// Its finalizer.
    pub name: &'static str,
    /// The annotation that names the kinds whose objects may have the controller's finalizer, also those that it doesn't
    /// declare any more: each as `resource.group`, sorted, with commas between.
    pub kinds: &'static str,
}

/// Ours.
pub static RINGMASTER: Dialect = Dialect {
    group: "ringmaster.dev",
    last_applied: "ringmaster.dev/last-applied-configuration",
    created_as: Some("ringmaster.dev/created-as"),
    mergers: &[FIELD_MANAGER],
    controller_finalizer: Some(OwnFinalizer { name: "ringmaster.dev/controller", kinds: "ringmaster.dev/finalizes" }),
    composite_finalizer: "ringmaster.dev/compositecontroller-",
    decorator_finalizer: "ringmaster.dev/decoratorcontroller-",
    decorator_annotation: "ringmaster.dev/decorator-controller",
    revision_labels: ["ringmaster.dev/api-group", "ringmaster.dev/resource"],
    hook_version: HookVersion::V2,
    ignore_status_changes: true,
    plain_http: false,
    conditions: true,
    terminal_422: true,
    waits_for_metacontroller: false,
    reply_extras: true,
    parity_metrics: false,
    repeated_children: false,
};

/// Metacontroller's, as its users rely on it.
pub static METACONTROLLER: Dialect = Dialect {
    group: "metacontroller.k8s.io",
    last_applied: "metacontroller.k8s.io/last-applied-configuration",
    created_as: None,
    mergers: &["metacontroller", FIELD_MANAGER],
    controller_finalizer: None,
    composite_finalizer: "metacontroller.io/compositecontroller-",
    decorator_finalizer: "metacontroller.io/decoratorcontroller-",
    decorator_annotation: "metacontroller.k8s.io/decorator-controller",
    revision_labels: ["metacontroller.k8s.io/apiGroup", "metacontroller.k8s.io/resource"],
    hook_version: HookVersion::V1,
    ignore_status_changes: false,
    plain_http: true,
    conditions: false,
    terminal_422: false,
    waits_for_metacontroller: true,
    reply_extras: false,
    parity_metrics: true,
    repeated_children: true,
};

/// One API group's names and times for external rings: what the shards of a ring rely on.
#[derive(Debug, PartialEq, Eq)]
pub struct RingDialect {
    /// The API group of its `ControllerRing` objects.
    pub group: &'static str,
    /// What precedes a ring's name in the key of the label that names an object's shard.
    pub shard_label: &'static str,
    /// What precedes a ring's name in the key of the label that asks an object's shard to let it go.
    pub drain_label: &'static str,
    /// The label of a shard's Lease that names its ring.
    pub lease_ring: &'static str,
    /// The label of a shard's Lease that shows its state. Only shown: never read for a decision.
    pub lease_state: &'static str,
    /// Who holds a Lease that was taken from a silent shard.
    pub taker: &'static str,
    /// What precedes a ring's name in the name of its admission webhook's configuration.
    pub webhook_configuration: &'static str,
    /// The name of the webhook in it.
    pub webhook_name: &'static str,
    /// What precedes a ring's name in the path that its admission webhook is called at.
    pub webhook_path: &'static str,
    /// For how long the API server waits for the webhook, in seconds (1 to 30), before it goes on without.
    pub webhook_timeout_seconds: u32,
    /// Whether the key of a child of a cluster-scoped owner has the child's namespace, so that the two are hashed apart.
    pub child_namespace_always: bool,
    /// The namespaces whose objects aren't a ring's that names none, by their names.
    pub namespaces_left_out: &'static [&'static str],
    /// The reason of the condition `Ready` where it is true.
    pub ready_reason: &'static str,
    /// Its only reason where it is false. Without it, each cause has one.
    pub unready_reason: Option<&'static str>,
    /// Whether its status has a condition for drains that aren't acknowledged in time; otherwise events and metrics alone
    /// tell.
    pub tells_drains: bool,
    /// When a silent shard's Lease is taken, and when a dead one's is deleted.
    pub lease_times: LeaseTimes,
}

/// The times of shards' Leases. D is what a Lease says of its own duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// For how many D a Lease is silent before it is taken: at least 1.
    pub lost_after: u32,
    /// What a taken Lease says of its duration, in D: for so long the shard that returns waits.
    pub taken_for: u32,
    /// For how long a dead shard's Lease is kept beyond its expiry.
    pub kept_for: Duration,
}

/// Our rings. Their object labels have a prefix of their own: under `shard.ringmaster.dev/` are the numbers of the
/// installation's own shards, which hooks' replies and an admission policy keep from everybody but members. A shard of a
/// ring is somebody else's process, takes its labels off itself, and an object may well have both.
pub static RINGMASTER_RING: RingDialect = RingDialect {
    group: "ringmaster.dev",
    shard_label: "ring.ringmaster.dev/",
    drain_label: "drain.ring.ringmaster.dev/",
    lease_ring: "ringmaster.dev/ring",
    lease_state: "ringmaster.dev/ring-state",
    taker: "ringmaster-sharder",
    webhook_configuration: "ringmaster-ring-",
    webhook_name: "ring.ringmaster.dev",
    webhook_path: "/admission/rings/",
    webhook_timeout_seconds: 2,
    child_namespace_always: false,
    namespaces_left_out: &["kube-system"],
    ready_reason: "Reconciled",
    unready_reason: None,
    tells_drains: true,
    lease_times: LeaseTimes { lost_after: 1, taken_for: 2, kept_for: Duration::from_secs(60) },
};

/// controller-sharding's rings, as their shards rely on them (contract, 1.2, 1.3 and 1.5).
/// controller-sharding's rings, as their shards rely on them (contract, 1.3, 1.5 and 1.7).
pub static CONTROLLER_SHARDING_RING: RingDialect = RingDialect {
    group: "sharding.timebertt.dev",
    shard_label: "shard.alpha.sharding.timebertt.dev/",
    drain_label: "drain.alpha.sharding.timebertt.dev/",
    lease_ring: "alpha.sharding.timebertt.dev/controllerring",
    lease_state: "alpha.sharding.timebertt.dev/state",
    taker: "shardlease-controller",
    webhook_configuration: "controllerring-",
    webhook_name: "sharder.sharding.timebertt.dev",
    webhook_path: "/webhooks/sharder/controllerring/",
    webhook_timeout_seconds: 5,
    child_namespace_always: true,
    namespaces_left_out: &["kube-system", "sharding-system"],
    ready_reason: "ReconciliationSucceeded",
    unready_reason: Some("ReconciliationFailed"),
    tells_drains: false,
    lease_times: LeaseTimes { lost_after: 2, taken_for: 2, kept_for: Duration::from_secs(60) },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shards::LABEL_PREFIX;

    #[test]
    fn no_ring_has_labels_of_our_own_shards_or_of_another_ring() {
        let rings = [&RINGMASTER_RING, &CONTROLLER_SHARDING_RING];
        let prefixes: Vec<&str> = rings.iter().flat_map(|ring| [ring.shard_label, ring.drain_label]).collect();
        for (at, prefix) in prefixes.iter().enumerate() {
            assert!(!prefix.starts_with(LABEL_PREFIX) && prefix.ends_with('/'), "{prefix}");
            assert!(prefixes.iter().skip(at + 1).all(|other| other != prefix), "{prefix}");
        }
        assert!(rings.iter().all(|ring| ring.lease_times.lost_after > 0 && ring.lease_times.taken_for > 0));
    }
}

//! The names of each group of rings, as their shards know them: written down once more, since these are what is tested.
//!
//! Never read from Ringmaster.

/// The names that go with an API group.
#[derive(Debug)]
pub(crate) struct Names {
    /// Of rings.
    pub(crate) group: &'static str,
    /// `--dialect` of a shard.
    pub(crate) dialect: &'static str,
    /// What precedes a ring's name in the key of the label that names an object's shard.
    shard: &'static str,
    /// The same of the label that asks for an acknowledgement.
    drain: &'static str,
    /// The label of a Lease that names its ring.
    pub(crate) lease_ring: &'static str,
    /// The label of a Lease that shows its state.
    pub(crate) lease_state: &'static str,
    /// Who holds a Lease that was taken.
    pub(crate) taker: &'static str,
}

/// Ringmaster's own.
pub(crate) static OURS: Names = Names {
    group: "ringmaster.dev",
    dialect: "ringmaster",
    shard: "ring.ringmaster.dev/",
    drain: "drain.ring.ringmaster.dev/",
    lease_ring: "ringmaster.dev/ring",
    lease_state: "ringmaster.dev/ring-state",
    taker: "ringmaster-sharder",
};

/// controller-sharding's.
pub(crate) static THEIRS: Names = Names {
    group: "sharding.timebertt.dev",
    dialect: "controller-sharding",
    shard: "shard.alpha.sharding.timebertt.dev/",
    drain: "drain.alpha.sharding.timebertt.dev/",
    lease_ring: "alpha.sharding.timebertt.dev/controllerring",
    lease_state: "alpha.sharding.timebertt.dev/state",
    taker: "shardlease-controller",
};

impl Names {
    /// The key of the label that names an object's shard.
    pub(crate) fn shard(&self, ring: &str) -> String {
        format!("{}{ring}", self.shard)
    }

    /// The key of the label that asks for an acknowledgement.
    pub(crate) fn drain(&self, ring: &str) -> String {
        format!("{}{ring}", self.drain)
    }
}

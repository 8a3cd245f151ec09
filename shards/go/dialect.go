// The names of each API group's rings, as data, equal to those of src/core/dialect.rs.
// Never holds behaviour.

package shard

// Dialect is one API group's names for what a shard reads and writes.
type Dialect struct {
	// ShardLabel precedes a ring's name in the key of the label that names an object's shard.
	ShardLabel string
	// DrainLabel precedes a ring's name in the key of the label that asks an object's shard to let it go.
	DrainLabel string
	// LeaseRing is the label of a shard's Lease that names its ring.
	LeaseRing string
}

// Ringmaster is the dialect of ringmaster.dev/v1alpha1 rings.
var Ringmaster = Dialect{
	ShardLabel: "ring.ringmaster.dev/",
	DrainLabel: "drain.ring.ringmaster.dev/",
	LeaseRing:  "ringmaster.dev/ring",
}

// ControllerSharding is the dialect of sharding.timebertt.dev/v1alpha1 rings.
var ControllerSharding = Dialect{
	ShardLabel: "shard.alpha.sharding.timebertt.dev/",
	DrainLabel: "drain.alpha.sharding.timebertt.dev/",
	LeaseRing:  "alpha.sharding.timebertt.dev/controllerring",
}

//! What metrics show of external rings: under our names, and under those that controller-sharding's dashboards look for.
//!
//! Never counts: the rings do.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmaster_core::dialect::CONTROLLER_SHARDING_RING;
use ringmaster_rings::admission::counts::Counts;
use ringmaster_rings::{RingStats, Stats};

use crate::metrics::{Sample, count};

type Labels = Vec<(&'static str, String)>;

/// What came of the admission webhook's questions, at a scrape.
pub(crate) fn admissions(counts: &Counts) -> Vec<Sample> {
    let values = counts.all().into_iter().map(|(result, count)| (vec![("result", result.to_owned())], number(count)));
    vec![counter(
        "ringmaster_ring_admissions",
        "Questions to the admission webhook of external rings, by what came of them",
        values.collect(),
    )]
}

/// All of the rings, at a scrape.
pub(crate) fn samples(rings: &RingStats) -> Vec<Sample> {
    let all = rings.all();
    let gauge = |name, help, value: &dyn Fn(&Stats) -> f64| {
        Sample::gauge(name, help, all.iter().map(|(ring, stats)| (of_ring(ring, stats), value(stats))).collect())
    };
    // Their names don't say the group: of two rings of one name that of their group is shown.
    let is_shown = |(ring, stats): &&(Arc<str>, Stats)| {
        stats.group == CONTROLLER_SHARDING_RING.group || all.iter().filter(|(other, _)| other == ring).count() == 1
    };
    let shown: Vec<&(Arc<str>, Stats)> = all.iter().filter(is_shown).collect();
    let theirs = |name, help, value: &dyn Fn(&Stats) -> f64| {
        let labels = |ring: &Arc<str>| vec![("controllerring", ring.to_string())];
        Sample::gauge(name, help, shown.iter().map(|(ring, stats)| (labels(ring), value(stats))).collect())
    };
    let writes = |name, help, at: usize| {
        let of_ring = |(ring, stats): &(Arc<str>, Stats)| {
            let labels = |(group, resource): &(Arc<str>, Arc<str>)| {
                vec![
                    ("controllerring", ring.to_string()),
                    ("group", group.to_string()),
                    ("resource", resource.to_string()),
                ]
            };
            stats.writes.iter().map(|(kind, writes)| (labels(kind), number(writes[at]))).collect::<Vec<_>>()
        };
        counter(name, help, shown.iter().copied().flat_map(of_ring).collect())
    };
    let each = |value: &dyn Fn(&Stats) -> u64| {
        all.iter().map(|(ring, stats)| (of_ring(ring, stats), number(value(stats)))).collect()
    };
    let ready = all.iter().filter_map(|(ring, stats)| {
        let ready = stats.ready?;
        Some((of_ring(ring, stats), f64::from(u8::from(ready))))
    });
    vec![
        Sample::gauge("ringmaster_ring_ready", "Whether an external ring's objects are assigned", ready.collect()),
        Sample::gauge(
            "ringmaster_ring_shards",
            "Shards of an external ring by the state of their Leases",
            states(&all),
        ),
        gauge("ringmaster_ring_unassigned_objects", "Selected objects that no shard has", &|stats| {
            count(stats.unassigned.0)
        }),
        gauge(
            "ringmaster_ring_unassigned_oldest_seconds",
            "For how long the first of the objects that no shard has has waited",
            &|stats| stats.unassigned.1.as_secs_f64(),
        ),
        gauge("ringmaster_ring_moving_objects", "Objects that are on their way", &|stats| count(stats.moves.1)),
        gauge("ringmaster_ring_waiting_objects", "Objects that wait for their turn", &|stats| count(stats.moves.0)),
        gauge("ringmaster_ring_draining_objects", "Objects that their shards are to let go", &|stats| {
            count(stats.draining.0)
        }),
        gauge(
            "ringmaster_ring_drain_oldest_seconds",
            "For how long the first of the objects that shards are to let go has waited",
            &|stats| stats.draining.1.as_secs_f64(),
        ),
        gauge("ringmaster_ring_drains_overdue", "Objects that their shards didn't let go in time", &|stats| {
            count(stats.overdue)
        }),
        counter(
            "ringmaster_ring_escalations",
            "Leases that were taken from shards that didn't let objects go",
            each(&|stats| stats.escalations),
        ),
        counter(
            "ringmaster_ring_conflicts",
            "Writes that met another version of their object than they were decided on",
            each(&|stats| stats.conflicts),
        ),
        writes("controller_sharding_assignments", "Objects that got a shard and had none", 0),
        writes("controller_sharding_movements", "Objects that were given to another shard at once", 1),
        writes("controller_sharding_drains", "Objects whose shards were asked to let them go", 2),
        counter(
            "controller_sharding_ring_calculations",
            "How often keys were hashed to other shards",
            shown
                .iter()
                .map(|(ring, stats)| (vec![("controllerring", ring.to_string())], number(stats.calculations)))
                .collect(),
        ),
        theirs("controller_sharding_controllerring_metadata_generation", "The ring's generation", &|stats| {
            integer(stats.generations.0)
        }),
        theirs(
            "controller_sharding_controllerring_observed_generation",
            "The generation that the ring's status is about",
            &|stats| integer(stats.generations.1),
        ),
        theirs("controller_sharding_controllerring_status_shards", "Shards with a Lease", &|stats| {
            count(stats.shards.0)
        }),
        theirs("controller_sharding_controllerring_status_available_shards", "Shards that are available", &|stats| {
            count(stats.shards.1)
        }),
    ]
}

fn of_ring(ring: &Arc<str>, stats: &Stats) -> Labels {
    vec![("group", stats.group.to_owned()), ("ring", ring.to_string())]
}

fn states(all: &[(Arc<str>, Stats)]) -> Vec<(Labels, f64)> {
    let of_ring = |(ring, stats): &(Arc<str>, Stats)| {
        let mut states: BTreeMap<&'static str, usize> =
            ["ready", "expired", "uncertain", "dead"].into_iter().map(|state| (state, 0)).collect();
        for state in stats.states.values() {
            *states.entry(state).or_default() += 1;
        }
        let labels = of_ring(ring, stats);
        let labelled = |state: &str| labels.iter().cloned().chain([("state", state.to_owned())]).collect();
        states.into_iter().map(|(state, number)| (labelled(state), count(number))).collect::<Vec<_>>()
    };
    all.iter().flat_map(of_ring).collect()
}

fn counter(name: &'static str, help: &'static str, values: Vec<(Labels, f64)>) -> Sample {
    Sample { name, help, counter: true, values }
}

fn number(value: u64) -> f64 {
    count(usize::try_from(value).unwrap_or(usize::MAX))
}

fn integer(value: i64) -> f64 {
    number(u64::try_from(value).unwrap_or_default())
}

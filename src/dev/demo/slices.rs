//! What the EndpointSlice of the webhook's Service says of its replicas, as it would in a cluster.
//!
//! Pure: states and a moment in, an object out.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::scene;

/// A replica that died without a word is named for so long, as a cluster needs some time to notice.
const NOTICED: Duration = Duration::from_secs(2);
/// The port of all replicas; their addresses are nobody's, and `--hook-resolve` says where they really are.
const PORT: u16 = 8080;

/// What a replica is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing: it isn't wanted.
    #[default]
    Off,
    /// Its process doesn't listen yet.
    Starts,
    /// It answers.
    Runs,
    /// It answers still, and is to get no calls.
    Leaving,
    /// Its process has ended, though it is wanted.
    Dead {
        /// When.
        at: Instant,
    },
}

/// A replica that is named, by its number, and whether it is ready.
pub(crate) type Named = (usize, bool);

/// What a replica is called in the EndpointSlice, with its port.
pub(crate) fn address(replica: usize) -> String {
    format!("{}:{PORT}", ip(replica))
}

fn ip(replica: usize) -> String {
    format!("10.77.0.{replica}")
}

/// Those that are to be named.
pub(crate) fn named<'a>(now: Instant, states: impl Iterator<Item = (usize, &'a State)>) -> Vec<Named> {
    let is_ready = |state: &State| match state {
        State::Off | State::Starts => None,
        State::Runs => Some(true),
        State::Leaving => Some(false),
        State::Dead { at } => (now.saturating_duration_since(*at) < NOTICED).then_some(true),
    };
    states.filter_map(|(replica, state)| Some((replica, is_ready(state)?))).collect()
}

/// The EndpointSlice that names these.
pub(crate) fn slice(named: &[Named]) -> Value {
    let endpoint = |(replica, is_ready): &Named| {
        json!({
            "addresses": [ip(*replica)],
            "conditions": { "ready": is_ready, "serving": true, "terminating": !is_ready },
        })
    };
    let endpoints: Vec<Value> = named.iter().map(endpoint).collect();
    let (namespace, service) = scene::HOOK_SERVICE;
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{service}-demo"), "namespace": namespace,
            "labels": { "kubernetes.io/service-name": service },
        },
        // As the Service calls it.
        "ports": [{ "name": "http", "port": PORT, "protocol": "TCP" }],
        "endpoints": endpoints,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_replica_is_named_until_it_is_noticed_and_one_that_leaves_is_not_ready() {
        let start = Instant::now();
        let states = [State::Off, State::Starts, State::Runs, State::Leaving, State::Dead { at: start }];
        let named = |after| named(start + after, states.iter().enumerate());
        assert_eq!(named(NOTICED / 2), [(2, true), (3, false), (4, true)]);
        assert_eq!(named(NOTICED), [(2, true), (3, false)]);
        let slice = slice(&named(NOTICED));
        assert_eq!(slice["endpoints"][0]["addresses"], json!(["10.77.0.2"]));
        assert_eq!(
            slice["endpoints"][1]["conditions"],
            json!({ "ready": false, "serving": true, "terminating": true })
        );
        assert_eq!(address(2), "10.77.0.2:8080");
    }
}

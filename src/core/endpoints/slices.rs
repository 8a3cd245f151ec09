//! What a Service and its EndpointSlices say: where the replicas are that may be called.
//!
//! The rules are those of the EndpointSlice API (discovery.k8s.io/v1) and, for what is called while nothing is ready, of
//! KEP-1669. Never resolves a name.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::object::Object;

/// The addresses of a Service's port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Those that may be called, sorted, each once.
    pub addresses: Vec<SocketAddr>,
    /// How many others there are, which aren't ready.
    pub unready: usize,
    /// Nothing is ready; those that are called are being shut down and still serve.
    pub only_terminating: bool,
}

/// A port of a Service's replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// As EndpointSlices name it.
    Named(String),
    /// Its number, whatever EndpointSlices say.
    Number(u16),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(default)]
    ports: Vec<ServicePort>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
}

#[derive(Deserialize)]
struct ServicePort {
    #[serde(default)]
    name: String,
    port: u16,
    protocol: Option<String>,
}

#[derive(Deserialize)]
struct SlicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// The name by which EndpointSlices know a Service's port, empty if it has none; `None` if the Service has no such port,
/// or not for TCP.
#[must_use]
pub fn port_name(service: &Object, port: u16) -> Option<String> {
    let spec: ServiceSpec = service.section("spec")?;
    let found = spec.ports.into_iter().find(|known| known.port == port && is_tcp(known.protocol.as_deref()))?;
    Some(found.name)
}

/// Whether a Service has no address of its own: its name resolves to its replicas.
#[must_use]
pub fn is_headless(service: &Object) -> bool {
    let spec: Option<ServiceSpec> = service.section("spec");
    spec.and_then(|spec| spec.cluster_ip).as_deref() == Some("None")
}

/// One endpoint of a slice.
struct Found {
    address: SocketAddr,
    ready: bool,
    /// It still answers, although it is being shut down.
    leaving: bool,
}

/// The addresses that slices give for a port. If there are any of IPv4, those of IPv6 are others of the same
/// replicas and don't count.
#[must_use]
pub fn ready<'a>(slices: impl Iterator<Item = &'a Object>, port: &Port) -> Ready {
    let mut found: Vec<Found> = Vec::new();
    for slice in slices {
        let number = match port {
            Port::Number(number) => *number,
            Port::Named(name) => {
                let ports: Vec<SlicePort> = slice.section("ports").unwrap_or_default();
                let is_it = |known: &&SlicePort| {
                    known.name.as_deref().unwrap_or("") == name && is_tcp(known.protocol.as_deref())
                };
                let Some(number) = ports.iter().find(is_it).and_then(|known| known.port) else { continue };
                number
            }
        };
        let endpoints: Vec<Endpoint> = slice.section("endpoints").unwrap_or_default();
        found.extend(endpoints.iter().filter_map(|endpoint| {
            // All addresses of one endpoint are as good as each other, and the first is who it is.
            let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
            let Conditions { ready, serving, terminating } = endpoint.conditions;
            // What isn't said counts as ready, as serving if it is ready, and as not terminating.
            let ready = ready.unwrap_or(true);
            let leaving = serving.unwrap_or(ready) && terminating.unwrap_or(false);
            Some(Found { address: SocketAddr::new(ip, number), ready, leaving })
        }));
    }
    // An endpoint that moves from one slice to another may stand in both for a moment: ready in one is ready.
    found.sort_by_key(|found| (found.address, !found.ready, !found.leaving));
    found.dedup_by_key(|found| found.address);
    let any_v4 = found.iter().any(|found| found.address.is_ipv4());
    found.retain(|found| found.address.is_ipv4() == any_v4);
    let any_ready = found.iter().any(|found| found.ready);
    let is_called = |found: &&Found| if any_ready { found.ready } else { found.leaving };
    let addresses: Vec<SocketAddr> = found.iter().filter(is_called).map(|found| found.address).collect();
    Ready { unready: found.len() - addresses.len(), only_terminating: !any_ready && !addresses.is_empty(), addresses }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::key::{ApiVersion, Resource};

    fn object(kind: &str, value: &Value) -> Object {
        let resource = Resource {
            api_version: ApiVersion::new("v1"),
            plural: kind.to_lowercase().into(),
            kind: kind.into(),
            namespaced: true,
            status: false,
        };
        Object::of(value, &resource).unwrap()
    }

    fn slice(kind: &str, port: &Value, endpoints: &Value) -> Object {
        let meta = json!({ "name": "s", "namespace": "n", "uid": "u", "resourceVersion": "1" });
        let value = json!({ "metadata": meta, "addressType": kind, "ports": [port], "endpoints": endpoints });
        object("EndpointSlice", &value)
    }

    fn addresses(slices: &[Object], port: &str) -> (Vec<String>, usize, bool) {
        let Ready { addresses, unready, only_terminating } = ready(slices.iter(), &Port::Named(port.to_owned()));
        (addresses.iter().map(ToString::to_string).collect(), unready, only_terminating)
    }

    fn http() -> Value {
        json!({ "name": "http", "port": 8080, "protocol": "TCP" })
    }

    #[test]
    fn a_port_has_the_name_that_the_service_gives_it() {
        let service = |ports: Value| {
            let meta = json!({ "name": "s", "namespace": "n", "uid": "u", "resourceVersion": "1" });
            object("Service", &json!({ "metadata": meta, "spec": { "ports": ports } }))
        };
        let two = service(json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 443, "protocol": "TCP" }]));
        assert_eq!((port_name(&two, 443), port_name(&two, 81)), (Some("b".to_owned()), None));
        let one = service(json!([{ "port": 80, "targetPort": "web" }]));
        assert_eq!(port_name(&one, 80), Some(String::new()));
        assert_eq!(port_name(&service(json!([{ "port": 80, "protocol": "UDP" }])), 80), None);
        assert_eq!(port_name(&service(Value::Null), 80), None);
        let meta = json!({ "name": "s", "namespace": "n", "uid": "u", "resourceVersion": "1" });
        let headless = object("Service", &json!({ "metadata": meta, "spec": { "clusterIP": "None" } }));
        assert!(is_headless(&headless) && !is_headless(&one) && port_name(&headless, 80).is_none());
        let slices = [slice("IPv4", &Value::Null, &json!([{ "addresses": ["10.0.0.1"] }]))];
        let found = ready(slices.iter(), &Port::Number(80));
        assert_eq!(found.addresses, ["10.0.0.1:80".parse().unwrap()]);
    }

    #[test]
    fn what_is_ready_is_called_and_what_is_not_said_is_ready() {
        let slices = [
            slice(
                "IPv4",
                &http(),
                &json!([
                    { "addresses": ["10.0.0.3", "10.0.0.9"], "conditions": { "ready": true } },
                    { "addresses": ["10.0.0.2"], "conditions": { "ready": false, "serving": true, "terminating": true } },
                    { "addresses": ["10.0.0.4"], "conditions": { "ready": false } },
                ]),
            ),
            slice("IPv4", &http(), &json!([{ "addresses": ["10.0.0.1"] }, { "addresses": ["10.0.0.3"] }])),
            slice("IPv4", &json!({ "name": "other", "port": 1 }), &json!([{ "addresses": ["10.0.0.7"] }])),
            slice(
                "IPv4",
                &json!({ "name": "http", "port": 53, "protocol": "UDP" }),
                &json!([{ "addresses": ["10.0.0.8"] }]),
            ),
        ];
        assert_eq!(addresses(&slices, "http"), (vec!["10.0.0.1:8080".into(), "10.0.0.3:8080".into()], 2, false));
        assert_eq!(addresses(&slices, ""), (vec![], 0, false));
    }

    #[test]
    fn while_nothing_is_ready_what_still_serves_is_called() {
        let endpoint = |ip: &str, ready: bool, serving: Value, terminating: bool| json!({ "addresses": [ip], "conditions": { "ready": ready, "serving": serving, "terminating": terminating } });
        let leaving = json!([
            endpoint("10.0.0.1", false, json!(true), true),
            endpoint("10.0.0.2", false, json!(false), true),
            endpoint("10.0.0.3", false, json!(null), false),
        ]);
        let slices = [slice("IPv4", &http(), &leaving)];
        assert_eq!(addresses(&slices, "http"), (vec!["10.0.0.1:8080".into()], 2, true));
        assert_eq!(addresses(&[], "http"), (vec![], 0, false));
    }

    #[test]
    fn replicas_with_two_families_count_once() {
        let slices = [
            slice("IPv6", &http(), &json!([{ "addresses": ["fd00::1"] }, { "addresses": ["fd00::2"] }])),
            slice("IPv4", &http(), &json!([{ "addresses": ["10.0.0.1"] }, { "addresses": ["nonsense"] }])),
            slice("FQDN", &http(), &json!([{ "addresses": ["a.example"] }, { "addresses": [] }])),
        ];
        assert_eq!(addresses(&slices, "http").0, ["10.0.0.1:8080"]);
        assert_eq!(addresses(&slices[..1], "http").0, ["[fd00::1]:8080", "[fd00::2]:8080"]);
    }
}

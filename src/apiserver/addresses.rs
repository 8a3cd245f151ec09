//! Addresses for Services: found free by looking at those that there are.
//!
//! Never remembers what it gave: what no Service has is free.

use serde_json::Value;

use crate::store::{KindKey, Store};

/// Addresses that no Service has: cluster IPs of 10.0.0.0/16, node ports of 30000 to 32767. Without a store there are none,
/// for kinds that take none.
pub(crate) struct Free<'a>(pub(crate) Option<&'a Store>);

impl Free<'_> {
    fn store(&self) -> Result<&Store, String> {
        self.0.ok_or_else(|| "only Services have addresses".to_owned())
    }
}

/// Whether a Service has it.
fn is_taken(store: &Store, has: impl Fn(&Value) -> bool) -> bool {
    let services = KindKey { group: "".into(), plural: "services".into() };
    let all = store.list(&services, None, (None, None), None, |object| has(&object.value()["spec"]));
    all.is_ok_and(|page| !page.objects.is_empty())
}

impl crate::kinds::Addresses for Free<'_> {
    fn cluster_ip(&mut self, wanted: Option<&str>) -> Result<String, String> {
        let store = self.store()?;
        let taken = |ip: &str| is_taken(store, |spec| spec["clusterIP"] == ip);
        if let Some(ip) = wanted {
            return if taken(ip) {
                Err(format!("the provided IP ({ip}) is already allocated"))
            } else {
                Ok(ip.to_owned())
            };
        }
        // From where the revision points, so that a fresh one is found at once.
        let start = store.revision();
        let candidates = (0..0xfffe_u64).map(|offset| (start + offset) % 0xfffe + 1);
        let mut ips = candidates.map(|low| format!("10.0.{}.{}", low >> 8, low & 0xff));
        ips.find(|ip| !taken(ip)).ok_or_else(|| "range is full".to_owned())
    }

    fn node_port(&mut self, wanted: Option<i64>) -> Result<i64, String> {
        let store = self.store()?;
        let taken = |port: i64| {
            is_taken(store, |spec| {
                spec["ports"].as_array().into_iter().flatten().any(|entry| entry["nodePort"] == port)
            })
        };
        if let Some(port) = wanted {
            return if taken(port) { Err("provided port is already allocated".to_owned()) } else { Ok(port) };
        }
        (30_000..=32_767).find(|port| !taken(*port)).ok_or_else(|| "range is full".to_owned())
    }
}

//! Addresses for Services: found free by looking at those that there are.
//!
//! Never remembers what it gave: what no Service has is free.

use serde_json::Value;

use crate::store::{KindKey, Store};

/// Addresses that no Service has: cluster IPs of 10.0.0.0/16, node ports of 30000 to 32767.
pub(crate) struct Free<'a>(pub(crate) &'a Store);

impl Free<'_> {
    fn taken(&self, has: impl Fn(&Value) -> bool) -> bool {
        let services = KindKey { group: "".into(), plural: "services".into() };
        let all = self.0.list(&services, None, (None, None), None, |object| has(&object.value()["spec"]));
        all.is_ok_and(|page| !page.objects.is_empty())
    }
}

/// For kinds that have none.
pub(crate) struct Nowhere;

impl crate::kinds::Addresses for Nowhere {
    fn cluster_ip(&mut self, _: Option<&str>) -> Result<String, String> {
        Err("only Services have addresses".to_owned())
    }

    fn node_port(&mut self, _: Option<i64>) -> Result<i64, String> {
        Err("only Services have ports".to_owned())
    }
}

impl crate::kinds::Addresses for Free<'_> {
    fn cluster_ip(&mut self, wanted: Option<&str>) -> Result<String, String> {
        let taken = |ip: &str| self.taken(|spec| spec["clusterIP"] == ip);
        if let Some(ip) = wanted {
            return if taken(ip) {
                Err(format!("the provided IP ({ip}) is already allocated"))
            } else {
                Ok(ip.to_owned())
            };
        }
        // From where the revision points, so that a fresh one is found at once.
        let start = self.0.revision();
        let candidates = (0..0xfffe_u64).map(|offset| (start + offset) % 0xfffe + 1);
        let mut ips = candidates.map(|low| format!("10.0.{}.{}", low >> 8, low & 0xff));
        ips.find(|ip| !taken(ip)).ok_or_else(|| "range is full".to_owned())
    }

    fn node_port(&mut self, wanted: Option<i64>) -> Result<i64, String> {
        let taken = |port: i64| {
            self.taken(|spec| spec["ports"].as_array().into_iter().flatten().any(|entry| entry["nodePort"] == port))
        };
        if let Some(port) = wanted {
            return if taken(port) { Err("provided port is already allocated".to_owned()) } else { Ok(port) };
        }
        (30_000..=32_767).find(|port| !taken(*port)).ok_or_else(|| "range is full".to_owned())
    }
}

//! The cluster IPs and node ports of Services (pkg/registry/core/service), in a cluster of one IP family.
//!
//! Which addresses are free is the server's to know.

use serde_json::{Value, json};

use super::defaults::{at, items, remove};
use crate::field_error::{FieldError, go_quote};

/// Gives addresses to Services. One that no Service has any longer is free again.
pub trait Addresses {
    /// A free cluster IP, or this one.
    ///
    /// # Errors
    /// Why this one can't be had, e.g. `the provided IP (10.0.0.9) is already allocated`; or why there is none.
    fn cluster_ip(&mut self, wanted: Option<&str>) -> Result<String, String>;

    /// A free node port, or this one.
    ///
    /// # Errors
    /// Why it can't be had, e.g. `provided port is already allocated`; or why there is none.
    fn node_port(&mut self, wanted: Option<i64>) -> Result<i64, String>;
}

/// The family of the cluster's IPs.
const FAMILY: &str = "IPv4";

fn text<'a>(spec: &'a Value, name: &str) -> &'a str {
    spec[name].as_str().unwrap_or_default()
}

/// Whether a service has a cluster IP, be it `None`.
pub(super) fn needs_cluster_ip(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName"
}

/// Whether a service is reached without a cluster IP.
pub(super) fn is_headless(spec: &Value) -> bool {
    spec["clusterIPs"].as_array().is_some_and(|ips| ips.len() == 1 && ips[0] == "None")
}

/// Whether a service can be reached from outside.
pub(super) fn externally_accessible(spec: &Value) -> bool {
    matches!(text(spec, "type"), "LoadBalancer" | "NodePort")
        || (text(spec, "type") == "ClusterIP" && spec["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty()))
}

/// Whether a service has a port for health checks.
pub(super) fn needs_health_check(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn needs_node_ports(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

/// Addresses for a new service.
pub(super) fn create(object: &mut Value, addresses: &mut dyn Addresses) -> Result<(), Vec<FieldError>> {
    let spec = at(object, &["spec"]);
    // `clusterIPs` follows `clusterIP` where only the latter is given.
    if !text(spec, "clusterIP").is_empty() && list(spec, "clusterIPs").is_empty() {
        spec["clusterIPs"] = json!([text(spec, "clusterIP")]);
    }
    families(spec, None)?;
    allocate(spec, None, addresses)
}

/// Addresses for an updated service.
pub(super) fn update(object: &mut Value, old: &Value, addresses: &mut dyn Addresses) -> Result<(), Vec<FieldError>> {
    // The status isn't the update's to change.
    object["status"] = old["status"].clone();
    let before = &old["spec"];
    let spec = at(object, &["spec"]);
    drop_dependent(spec, before);
    if text(spec, "type") != "LoadBalancer" {
        at(object, &["status"])["loadBalancer"] = json!({});
    }
    let spec = at(object, &["spec"]);
    take_over(spec, before);
    normalise(spec, before);
    families(spec, Some(before))?;
    allocate(spec, Some(before), addresses)
}

fn list<'a>(spec: &'a Value, name: &str) -> &'a [Value] {
    spec[name].as_array().map_or(&[], Vec::as_slice)
}

/// Fields that the new type has no use for, if they are the old ones (dropTypeDependentFields).
fn drop_dependent(spec: &mut Value, before: &Value) {
    let same = |spec: &Value, name: &str| spec[name] == before[name];
    if needs_cluster_ip(before) && !needs_cluster_ip(spec) {
        let unset = text(spec, "clusterIP").is_empty() && list(spec, "clusterIPs").is_empty();
        if unset || (same(spec, "clusterIP") && same(spec, "clusterIPs")) {
            remove(spec, "clusterIP");
            remove(spec, "clusterIPs");
        }
        for name in ["ipFamilies", "ipFamilyPolicy"] {
            if same(spec, name) {
                remove(spec, name);
            }
        }
    }
    if needs_node_ports(before) && !needs_node_ports(spec) {
        let ports = |spec: &Value| -> Vec<Value> {
            list(spec, "ports").iter().map(|port| port["nodePort"].clone()).filter(|port| !port.is_null()).collect()
        };
        let (new, old) = (ports(spec), ports(before));
        if new.iter().all(|port| old.contains(port)) {
            for port in items(&mut spec["ports"]) {
                remove(port, "nodePort");
            }
        }
    }
    if needs_health_check(before) && !needs_health_check(spec) && same(spec, "healthCheckNodePort") {
        remove(spec, "healthCheckNodePort");
    }
    if text(before, "type") == "LoadBalancer" && text(spec, "type") != "LoadBalancer" {
        for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(spec, name) {
                remove(spec, name);
            }
        }
    }
    if externally_accessible(before) && !externally_accessible(spec) && same(spec, "externalTrafficPolicy") {
        remove(spec, "externalTrafficPolicy");
    }
}

/// What was allocated and isn't given stays (patchAllocatedValues).
fn take_over(spec: &mut Value, before: &Value) {
    if needs_cluster_ip(before) && needs_cluster_ip(spec) {
        if text(spec, "clusterIP").is_empty() && !text(before, "clusterIP").is_empty() {
            spec["clusterIP"] = before["clusterIP"].clone();
        }
        if list(spec, "clusterIPs").is_empty() && !list(before, "clusterIPs").is_empty() {
            // A changed `clusterIP` is for the checks to refuse.
            spec["clusterIPs"] = before["clusterIPs"].clone();
        }
    }
    if needs_node_ports(before) && needs_node_ports(spec) {
        let used: Vec<Value> = list(spec, "ports").iter().map(|port| port["nodePort"].clone()).collect();
        for port in items(&mut spec["ports"]) {
            let old = list(before, "ports").iter().find(|old| text(old, "name") == text(port, "name"));
            let number = old.map(|old| old["nodePort"].clone()).unwrap_or_default();
            if port["nodePort"].as_i64().unwrap_or_default() == 0 && !number.is_null() && !used.contains(&number) {
                port["nodePort"] = number;
            }
        }
    }
    if needs_health_check(before) && needs_health_check(spec) && spec["healthCheckNodePort"].is_null() {
        spec["healthCheckNodePort"] = before["healthCheckNodePort"].clone();
    }
}

/// `clusterIPs` follows a `clusterIP` that was changed alone (normalizeClusterIPs).
fn normalise(spec: &mut Value, before: &Value) {
    let same_ip = text(spec, "clusterIP") == text(before, "clusterIP");
    let same_ips = list(spec, "clusterIPs") == list(before, "clusterIPs");
    if !same_ip && same_ips {
        let ip = text(spec, "clusterIP").to_owned();
        if ip.is_empty() { remove(spec, "clusterIPs") } else { spec["clusterIPs"] = json!([ip]) }
    }
}

/// Policy and families (initIPFamilyFields).
fn families(spec: &mut Value, before: Option<&Value>) -> Result<(), Vec<FieldError>> {
    if !needs_cluster_ip(spec) {
        return Ok(());
    }
    let no_selector = spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    let open = text(spec, "clusterIP") == "None" && no_selector;
    if spec["ipFamilyPolicy"].is_null() {
        let old = before.map(|before| text(before, "ipFamilyPolicy")).filter(|old| !old.is_empty());
        let policy = old.unwrap_or(if open { "RequireDualStack" } else { "SingleStack" }).to_owned();
        spec["ipFamilyPolicy"] = policy.into();
    }
    let mut errors = Vec::new();
    super::validate::cluster_ips(&mut errors, spec, before);
    if !errors.is_empty() {
        return Err(errors);
    }
    let policy = text(spec, "ipFamilyPolicy").to_owned();
    if policy == "SingleStack" {
        for (name, words) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if list(spec, name).len() == 2 {
                let words =
                    format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {words} are specified");
                errors.push(FieldError::invalid("spec.ipFamilyPolicy", go_quote(&policy), words));
            }
        }
    }
    let mut families: Vec<Value> = list(spec, "ipFamilies").to_vec();
    for (i, ip) in list(spec, "clusterIPs").iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        if ip == "None" {
            break;
        }
        if i >= families.len() {
            let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
            if family == FAMILY {
                families.push(family.into());
            } else {
                let value = spec["clusterIPs"].to_string();
                errors.push(FieldError::invalid(
                    format!("spec.clusterIPs[{i}]"),
                    value,
                    format!("{family} is not configured on this cluster"),
                ));
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if !open {
        if policy == "RequireDualStack" {
            let words = "this cluster is not configured for dual-stack services";
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", go_quote(&policy), words));
        }
        for (i, family) in families.iter().enumerate() {
            let family = family.as_str().unwrap_or_default();
            if family != FAMILY {
                errors.push(FieldError::invalid(
                    format!("spec.ipFamilies[{i}]"),
                    go_quote(family),
                    "not configured on this cluster",
                ));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
    }
    if families.is_empty() {
        families.push(FAMILY.into());
    }
    if open && families.len() < 2 && policy != "SingleStack" {
        families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.into());
    }
    spec["ipFamilies"] = families.into();
    Ok(())
}

fn allocate(spec: &mut Value, before: Option<&Value>, addresses: &mut dyn Addresses) -> Result<(), Vec<FieldError>> {
    let had =
        before.filter(|before| needs_cluster_ip(before)).map(|before| text(before, "clusterIP")).unwrap_or_default();
    if needs_cluster_ip(spec) && !is_headless(spec) && text(spec, "clusterIP") != had
        || text(spec, "clusterIP").is_empty() && needs_cluster_ip(spec)
    {
        let wanted = text(spec, "clusterIP").to_owned();
        let wanted = Some(wanted.as_str()).filter(|wanted| !wanted.is_empty());
        // A changed address is for the checks to refuse.
        if had.is_empty() || had == "None" {
            let ip = addresses.cluster_ip(wanted).map_err(|why| {
                let value = spec["clusterIPs"].to_string();
                let why = match wanted {
                    Some(ip) => format!("failed to allocate IP {ip}: {why}"),
                    None => format!("failed to allocate a serviceIP: {why}"),
                };
                vec![FieldError::invalid("spec.clusterIPs", value, why)]
            })?;
            spec["clusterIPs"] = json!([ip]);
            spec["clusterIP"] = ip.into();
        }
    }
    let kept: Vec<i64> = before
        .map_or(&[][..], |before| list(before, "ports"))
        .iter()
        .filter_map(|port| port["nodePort"].as_i64())
        .collect();
    if needs_node_ports(spec) || list(spec, "ports").iter().any(|port| !port["nodePort"].is_null()) {
        let all = needs_node_ports(spec);
        if text(spec, "type") == "NodePort" || text(spec, "type") == "LoadBalancer" {
            for (i, port) in items(&mut spec["ports"]).iter_mut().enumerate() {
                let wanted = port["nodePort"].as_i64().filter(|wanted| *wanted != 0);
                if wanted.is_some_and(|wanted| kept.contains(&wanted)) || (wanted.is_none() && !all) {
                    continue;
                }
                let number = addresses.node_port(wanted).map_err(|why| {
                    let value = wanted.unwrap_or_default().to_string();
                    vec![FieldError::invalid(format!("spec.ports[{i}].nodePort"), value, why)]
                })?;
                port["nodePort"] = number.into();
            }
        }
    }
    if needs_health_check(spec) {
        let wanted = spec["healthCheckNodePort"].as_i64().filter(|wanted| *wanted != 0);
        let had = before.and_then(|before| before["healthCheckNodePort"].as_i64());
        if wanted.is_none() || (wanted != had && before.is_none_or(|before| !needs_health_check(before))) {
            let number = addresses.node_port(wanted).map_err(|why| {
                vec![FieldError::invalid("spec.healthCheckNodePort", wanted.unwrap_or_default().to_string(), why)]
            })?;
            spec["healthCheckNodePort"] = number.into();
        }
    }
    Ok(())
}

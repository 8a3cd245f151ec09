//! Checks of services, ingresses and endpoint slices.

use std::net::IpAddr;

use serde_json::Value;

use super::{Check, list, text};
use crate::field_error::{FieldError, go_quote};
use crate::kinds::names;
use crate::kinds::service::{externally_accessible, is_headless, needs_cluster_ip, needs_health_check};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// Seconds that a client may stick to an endpoint (core.MaxClientIPServiceAffinitySeconds).
const MAX_AFFINITY_SECONDS: i64 = 86_400;
/// Limits of an endpoint slice.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ENDPOINT_ADDRESSES: usize = 100;
const MAX_ENDPOINT_PORTS: usize = 20_000;

pub(super) fn service(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    let spec = &object["spec"];
    match old {
        Some(old) => {
            check.metadata_update(object, Some(old));
            kept_ips(check, spec, &old["spec"]);
            let class =
                |spec: &Value| (text(spec, "type") == "LoadBalancer").then(|| spec["loadBalancerClass"].clone());
            if let (Some(new), Some(had)) = (class(spec), class(&old["spec"]))
                && new != had
            {
                let value = check.print(&["spec", "loadBalancerClass"], &new);
                check.invalid("spec.loadBalancerClass", value, "may not change once set");
            }
            let [new, had] =
                [spec, &old["spec"]].map(|spec| needs_health_check(spec).then(|| &spec["healthCheckNodePort"]));
            if new.is_some() && had.is_some() && new != had {
                check.forbidden("spec.healthCheckNodePort", "field is immutable");
            }
        }
        None => check.metadata(object, names::dns_label),
    }
    service_type(check, spec);
    let mut port_names: Vec<&str> = Vec::new();
    for (i, port) in list(spec, "ports").iter().enumerate() {
        service_port(check, port, &format!("spec.ports[{i}]"), list(spec, "ports").len() > 1, &mut port_names);
    }
    names::labels(&mut check.errors, "spec.selector", &spec["selector"]);
    affinity(check, spec);
    cluster_ips(&mut check.errors, spec, old.map(|old| &old["spec"]));
    for (i, ip) in list(spec, "externalIPs").iter().enumerate() {
        let field = format!("spec.externalIPs[{i}]");
        let ip = ip.as_str().unwrap_or_default();
        if let Some(ip) = address(&mut check.errors, &field, ip) {
            endpoint_address(check, &field, ip);
        }
    }
    check.one_of("spec.type", text(spec, "type"), &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    ports_once(check, spec);
    let kind = text(spec, "type");
    if !list(spec, "loadBalancerSourceRanges").is_empty() && kind != "LoadBalancer" {
        check.forbidden("spec.LoadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'");
    }
    if !spec["allocateLoadBalancerNodePorts"].is_null() && kind != "LoadBalancer" {
        check.forbidden("spec.allocateLoadBalancerNodePorts", "may only be used when `type` is 'LoadBalancer'");
    }
    if !spec["loadBalancerClass"].is_null() && kind != "LoadBalancer" {
        check.forbidden("spec.loadBalancerClass", "may only be used when `type` is 'LoadBalancer'");
    }
    policies(check, spec);
}

fn service_type(check: &mut Check<'_>, spec: &Value) {
    let headless = is_headless(spec);
    let kind = text(spec, "type");
    if list(spec, "ports").is_empty() && !headless && kind != "ExternalName" {
        check.required("spec.ports", "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            check.invalid_text("spec.clusterIPs[0]", "None", format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies"] {
                if !list(spec, name).is_empty() {
                    check.forbidden(format!("spec.{name}"), "may not be set for ExternalName services");
                }
            }
            if !spec["ipFamilyPolicy"].is_null() {
                check.forbidden("spec.ipFamilyPolicy", "may not be set for ExternalName services");
            }
            let name = text(spec, "externalName");
            match name.strip_suffix('.').unwrap_or(name) {
                "" => check.required("spec.externalName", ""),
                name => check.named("spec.externalName", name, names::dns_subdomain(name)),
            }
        }
        _ => {}
    }
}

fn service_port<'a>(check: &mut Check<'_>, port: &'a Value, at: &str, named: bool, seen: &mut Vec<&'a str>) {
    let name = text(port, "name");
    if !name.is_empty() {
        let field = format!("{at}.name");
        check.named(&field, name, names::dns_label(name));
        if seen.contains(&name) {
            check.duplicate(field, go_quote(name));
        }
        seen.push(name);
    } else if named {
        check.required(format!("{at}.name"), "");
    }
    check.port(&format!("{at}.port"), port["port"].as_i64().unwrap_or_default());
    check.one_of(format!("{at}.protocol"), text(port, "protocol"), &PROTOCOLS);
    check.port_or_name(&format!("{at}.targetPort"), &port["targetPort"]);
    if let Some(protocol) = port["appProtocol"].as_str() {
        check.named(&format!("{at}.appProtocol"), protocol, names::qualified(protocol));
    }
}

fn affinity(check: &mut Check<'_>, spec: &Value) {
    let affinity = text(spec, "sessionAffinity");
    check.one_of("spec.sessionAffinity", affinity, &["ClientIP", "None"]);
    if affinity == "ClientIP" {
        let seconds = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].as_i64().unwrap_or_default();
        if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) {
            let why = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
            check.invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds.to_string(), why);
        }
    }
}

fn ports_once(check: &mut Check<'_>, spec: &Value) {
    let ports = list(spec, "ports");
    if text(spec, "type") == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, port)| !port["nodePort"].is_null()) {
            check.forbidden(format!("spec.ports[{i}].nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    for field in ["nodePort", "port"] {
        for (i, port) in ports.iter().enumerate() {
            let same = |other: &Value| other[field] == port[field] && other["protocol"] == port["protocol"];
            if port[field].is_null() || !ports[..i].iter().any(same) {
                continue;
            }
            if field == "nodePort" {
                check.duplicate(format!("spec.ports[{i}].nodePort"), port[field].to_string());
            } else {
                // As Go prints the internal type.
                let value = format!(
                    "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                    port["protocol"], port["port"]
                );
                check.duplicate(format!("spec.ports[{i}]"), value);
            }
        }
    }
}

fn policies(check: &mut Check<'_>, spec: &Value) {
    let external = text(spec, "externalTrafficPolicy");
    if externally_accessible(spec) {
        check.one_of("spec.externalTrafficPolicy", external, &["Cluster", "Local"]);
    } else if !external.is_empty() {
        let why = "may only be set for externally-accessible services";
        check.invalid_text("spec.externalTrafficPolicy", external, why);
    }
    let port = &spec["healthCheckNodePort"];
    if needs_health_check(spec) {
        check.port("spec.healthCheckNodePort", port.as_i64().unwrap_or_default());
    } else if !port.is_null() {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        check.invalid("spec.healthCheckNodePort", port.to_string(), why);
    }
    if let Some(policy) = spec["internalTrafficPolicy"].as_str() {
        check.one_of("spec.internalTrafficPolicy", policy, &["Cluster", "Local"]);
    }
    if let Some(distribution) = spec["trafficDistribution"].as_str() {
        let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        check.one_of("spec.trafficDistribution", distribution, &known);
    }
}

/// The cluster IPs of a service and their families.
pub(in crate::kinds) fn cluster_ips(errors: &mut Vec<FieldError>, spec: &Value, before: Option<&Value>) {
    if !needs_cluster_ip(spec) {
        return;
    }
    let field = "spec.clusterIPs";
    let (ip, ips) = (text(spec, "clusterIP"), list(spec, "clusterIPs"));
    let printed = if ips.is_empty() { "null".to_owned() } else { spec["clusterIPs"].to_string() };
    let mut wrong = |why: &str| errors.push(FieldError::invalid(field, &printed, why));
    match (ip, ips) {
        ("", []) => {}
        ("", _) => wrong("must be empty when `clusterIP` is not specified"),
        (_, []) => errors.push(FieldError::required(field, "")),
        (ip, [first, ..]) if first != ip => wrong("first value must match `clusterIP`"),
        _ => {}
    }
    let families = list(spec, "ipFamilies");
    for (i, family) in families.iter().enumerate() {
        let (at, family_text) = (format!("spec.ipFamilies[{i}]"), family.as_str().unwrap_or_default());
        if !matches!(family_text, "IPv4" | "IPv6") {
            errors.push(FieldError::not_supported(&at, go_quote(family_text), &["IPv4", "IPv6"]));
        }
        if families[..i].contains(family) {
            errors.push(FieldError::duplicate(at, go_quote(family_text)));
        }
    }
    if let Some(policy) = spec["ipFamilyPolicy"].as_str() {
        let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        if !known.contains(&policy) {
            errors.push(FieldError::not_supported("spec.ipFamilyPolicy", go_quote(policy), &known));
        }
    }
    let had = before.map_or(&[][..], |before| list(before, "clusterIPs"));
    let mut all_valid = true;
    for (i, ip) in ips.iter().enumerate() {
        let text = ip.as_str().unwrap_or_default();
        if i == 0 && text == "None" {
            if ips.len() > 1 {
                all_valid = false;
                errors.push(FieldError::invalid(field, &printed, "'None' must be the first and only value"));
            }
        } else if !had.contains(ip) {
            all_valid &= address(errors, &format!("{field}[{i}]"), text).is_some();
        }
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(field, &printed, "may only hold up to 2 values"));
    }
    if !all_valid {
        return;
    }
    let is_v6 = |ip: &Value| ip.as_str().is_some_and(|ip| ip.contains(':'));
    if ips.len() > 1 && ips.iter().all(is_v6) == ips.iter().any(is_v6) {
        errors.push(FieldError::invalid(field, &printed, "may specify no more than one IP for each IP family"));
    }
    if !is_headless(spec) {
        for (i, (ip, family)) in ips.iter().zip(families).enumerate() {
            let family = family.as_str().unwrap_or_default();
            if matches!(family, "IPv4" | "IPv6") && (family == "IPv6") != is_v6(ip) {
                let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
                errors.push(FieldError::invalid(
                    format!("{field}[{i}]"),
                    go_quote(ip.as_str().unwrap_or_default()),
                    why,
                ));
            }
        }
    }
}

/// Cluster IPs that may not change (validateUpgradeDowngradeClusterIPs).
fn kept_ips(check: &mut Check<'_>, spec: &Value, before: &Value) {
    if !needs_cluster_ip(spec) || !needs_cluster_ip(before) || (is_headless(spec) && is_headless(before)) {
        return;
    }
    let (new, had) = (list(spec, "clusterIPs"), list(before, "clusterIPs"));
    let printed = if new.is_empty() { "null".to_owned() } else { spec["clusterIPs"].to_string() };
    if !had.is_empty() && new.is_empty() {
        check.invalid("spec.clusterIPs[0]", printed, "primary clusterIP can not be unset");
        return;
    }
    let compared = if new.len() == had.len() { had.len() } else { had.len().min(1) };
    for i in (0..compared).filter(|i| new[*i] != had[*i]) {
        check.invalid(format!("spec.clusterIPs[{i}]"), &printed, "may not change once set");
    }
    if had.len() > new.len() && new.len() == 1 && text(spec, "ipFamilyPolicy") != "SingleStack" {
        let value = check.print(&["spec", "ipFamilyPolicy"], &spec["ipFamilyPolicy"]);
        check.invalid(
            "spec.ipFamilyPolicy",
            value,
            "must be set to 'SingleStack' when releasing the secondary clusterIP",
        );
    }
}

/// Reads an IP address, or says that it is none.
fn address(errors: &mut Vec<FieldError>, field: &str, text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(field, go_quote(text), why));
    }
    parsed
}

/// An address that something else can be reached at.
fn endpoint_address(check: &mut Check<'_>, field: &str, ip: IpAddr) {
    let text = ip.to_string();
    let (local, local_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.segments()[0] & 0xffc0 == 0xfe80, ip.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        check.invalid_text(field, &text, format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        check.invalid_text(field, &text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if local {
        check.invalid_text(field, &text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if local_multicast {
        check.invalid_text(field, &text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

pub(super) fn ingress(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    check.metadata_update(object, old);
    check.metadata(object, names::dns_subdomain);
    let spec = &object["spec"];
    let rules = list(spec, "rules");
    if rules.is_empty() && spec["defaultBackend"].is_null() {
        check.invalid("spec", "null", "either `defaultBackend` or `rules` must be specified");
    }
    if !spec["defaultBackend"].is_null() {
        backend(check, "spec.defaultBackend", &spec["defaultBackend"]);
    }
    for (i, rule) in rules.iter().enumerate() {
        ingress_rule(check, &format!("spec.rules[{i}]"), rule);
    }
    for (i, tls) in list(spec, "tls").iter().enumerate() {
        for (j, host) in list(tls, "hosts").iter().enumerate() {
            host_name(check, &format!("spec.tls[{i}].hosts[{j}]"), host.as_str().unwrap_or_default());
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            check.named(&format!("spec.tls[{i}].secretName"), secret, names::dns_subdomain(secret));
        }
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        check.named("spec.ingressClassName", class, names::dns_subdomain(class));
        const ANNOTATION: &str = "kubernetes.io/ingress.class";
        let annotation = object["metadata"]["annotations"][ANNOTATION].as_str();
        if let (None, Some(annotation)) = (old, annotation.filter(|annotation| *annotation != class)) {
            let why = "must match `ingressClassName` when both are specified";
            check.invalid_text(format!("annotations.{ANNOTATION}"), annotation, why);
        }
    }
}

fn host_name(check: &mut Check<'_>, field: &str, host: &str) {
    let faults = if host.contains('*') { names::wildcard_subdomain(host) } else { names::dns_subdomain(host) };
    check.named(field, host, faults);
}

fn ingress_rule(check: &mut Check<'_>, at: &str, rule: &Value) {
    let host = text(rule, "host");
    if !host.is_empty() {
        let field = format!("{at}.host");
        if host.parse::<IpAddr>().is_ok() {
            check.invalid_text(&field, host, "must be a DNS name, not an IP address");
        }
        host_name(check, &field, host);
    }
    if rule["http"].is_null() {
        return;
    }
    let paths = list(&rule["http"], "paths");
    if paths.is_empty() {
        check.required(format!("{at}.http.paths"), "");
    }
    for (i, path) in paths.iter().enumerate() {
        ingress_path(check, &format!("{at}.http.paths[{i}]"), path);
    }
}

fn ingress_path(check: &mut Check<'_>, at: &str, path: &Value) {
    let Some(kind) = path["pathType"].as_str() else {
        check.required(format!("{at}.pathType"), "pathType must be specified");
        return;
    };
    let field = format!("{at}.path");
    let value = text(path, "path");
    let absolute = value.starts_with('/');
    match kind {
        "Exact" | "Prefix" => {
            if !absolute {
                check.invalid_text(&field, value, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|part| value.contains(**part)) {
                check.invalid_text(&field, value, format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].iter().filter(|end| value.ends_with(**end)) {
                check.invalid_text(&field, value, format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !absolute {
                check.invalid_text(&field, value, "must be an absolute path");
            }
        }
        _ => check.one_of(format!("{at}.pathType"), kind, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(check, &format!("{at}.backend"), &path["backend"]);
}

fn backend(check: &mut Check<'_>, at: &str, backend: &Value) {
    let (resource, service) = (&backend["resource"], &backend["service"]);
    match (resource.is_null(), service.is_null()) {
        (false, false) => check.invalid(at, "\"\"", "cannot set both resource and service backends"),
        (true, true) => check.invalid(at, "\"\"", "resource or service backend is required"),
        (false, true) => {
            if let Some(group) = resource["apiGroup"].as_str() {
                check.named(&format!("{at}.resource.apiGroup"), group, names::dns_subdomain(group));
            }
            for name in ["kind", "name"] {
                match text(resource, name) {
                    "" => check.required(format!("{at}.resource.{name}"), ""),
                    value => check.named(&format!("{at}.resource.{name}"), value, names::path_segment(value)),
                }
            }
        }
        (true, false) => {
            match text(service, "name") {
                "" => check.required(format!("{at}.service.name"), ""),
                name => check.named(&format!("{at}.service.name"), name, names::dns_label(name)),
            }
            let name = text(&service["port"], "name");
            let number = service["port"]["number"].as_i64().unwrap_or_default();
            match (name, number) {
                ("", 0) => check.required(at, "port name or number is required"),
                ("", number) => check.port(&format!("{at}.service.port.number"), number),
                (name, 0) => check.named(&format!("{at}.service.port.name"), name, names::port_name(name)),
                _ => check.invalid(at, "\"\"", "cannot set both port name & port number"),
            }
        }
    }
}

/// The addresses of a balancer. Those of services have a mode.
fn balancer(check: &mut Check<'_>, object: &Value, modes: bool) {
    for (i, ingress) in list(&object["status"]["loadBalancer"], "ingress").iter().enumerate() {
        let at = format!("status.loadBalancer.ingress[{i}]");
        let (ip, host) = (text(ingress, "ip"), text(ingress, "hostname"));
        if !ip.is_empty() {
            address(&mut check.errors, &format!("{at}.ip"), ip);
        }
        match ingress["ipMode"].as_str() {
            _ if !modes => {}
            None if !ip.is_empty() => check.required(format!("{at}.ipMode"), "must be specified when `ip` is set"),
            Some(_) if ip.is_empty() => {
                check.forbidden(format!("{at}.ipMode"), "may not be specified when `ip` is not set");
            }
            Some(mode) => check.one_of(format!("{at}.ipMode"), mode, &["Proxy", "VIP"]),
            None => {}
        }
        if !host.is_empty() {
            check.named(&format!("{at}.hostname"), host, names::dns_subdomain(host));
            if host.parse::<IpAddr>().is_ok() {
                check.invalid_text(format!("{at}.hostname"), host, "must be a DNS name, not an IP address");
            }
        }
    }
}

pub(super) fn ingress_status(check: &mut Check<'_>, object: &Value, old: &Value) {
    check.metadata_update(object, Some(old));
    balancer(check, object, false);
}

pub(super) fn service_status(check: &mut Check<'_>, object: &Value, old: &Value) {
    check.metadata_update(object, Some(old));
    let balanced = text(&object["spec"], "type") == "LoadBalancer";
    if !balanced && !list(&object["status"]["loadBalancer"], "ingress").is_empty() {
        let why = "may only be used when `spec.type` is 'LoadBalancer'";
        check.forbidden("status.loadBalancer.ingress", why);
    } else {
        balancer(check, object, true);
    }
}

pub(super) fn endpoint_slice(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    check.metadata(object, names::dns_subdomain);
    let kind = text(object, "addressType");
    if kind.is_empty() {
        check.required("addressType", "");
    } else {
        check.one_of("addressType", kind, &["FQDN", "IPv4", "IPv6"]);
    }
    let ports = list(object, "ports");
    if ports.len() > MAX_ENDPOINT_PORTS {
        check.errors.push(FieldError::too_many("ports", ports.len(), MAX_ENDPOINT_PORTS as i64));
    } else {
        slice_ports(check, ports);
    }
    if old.is_none_or(|old| old["endpoints"] != object["endpoints"]) {
        let endpoints = list(object, "endpoints");
        if endpoints.len() > MAX_ENDPOINTS {
            check.errors.push(FieldError::too_many("endpoints", endpoints.len(), MAX_ENDPOINTS as i64));
        } else {
            for (i, endpoint) in endpoints.iter().enumerate() {
                slice_endpoint(check, &format!("endpoints[{i}]"), endpoint, kind);
            }
        }
    }
    if let Some(old) = old {
        check.immutable(&["addressType"], object, old);
    }
}

fn slice_ports(check: &mut Check<'_>, ports: &[Value]) {
    for (i, port) in ports.iter().enumerate() {
        let (field, name) = (format!("ports[{i}].name"), text(port, "name"));
        if !name.is_empty() {
            check.named(&field, name, names::dns_label(name));
        }
        if ports[..i].iter().any(|other| text(other, "name") == name) {
            check.duplicate(field, go_quote(name));
        }
        check.one_of(format!("ports[{i}].protocol"), text(port, "protocol"), &PROTOCOLS);
        if let Some(protocol) = port["appProtocol"].as_str() {
            check.named(&format!("ports[{i}].appProtocol"), protocol, names::qualified(protocol));
        }
    }
}

fn slice_endpoint(check: &mut Check<'_>, at: &str, endpoint: &Value, kind: &str) {
    let addresses = list(endpoint, "addresses");
    let field = format!("{at}.addresses");
    if addresses.is_empty() {
        check.required(&field, "must contain at least 1 address");
    } else if addresses.len() > MAX_ENDPOINT_ADDRESSES {
        check.errors.push(FieldError::too_many(&field, addresses.len(), MAX_ENDPOINT_ADDRESSES as i64));
    }
    for (i, text) in addresses.iter().enumerate() {
        let text = text.as_str().unwrap_or_default();
        let one = format!("{field}[{i}]");
        match kind {
            "IPv4" | "IPv6" => {
                let Some(ip) = address(&mut check.errors, &one, text) else { continue };
                if ip.is_ipv4() != (kind == "IPv4") {
                    check.invalid_text(&field, text, format!("must be an {kind} address"));
                }
                endpoint_address(check, &one, ip);
            }
            "FQDN" => full_name(check, &one, text),
            _ => {}
        }
    }
    if let Some(node) = endpoint["nodeName"].as_str() {
        check.named(&format!("{at}.nodeName"), node, names::dns_subdomain(node));
    }
    if let Some(host) = endpoint["hostname"].as_str() {
        check.named(&format!("{at}.hostname"), host, names::dns_label(host));
    }
    let zones = list(&endpoint["hints"], "forZones");
    for (i, zone) in zones.iter().enumerate() {
        let (field, name) = (format!("{at}.hints.forZones[{i}].name"), text(zone, "name"));
        if zones[..i].iter().any(|other| text(other, "name") == name) {
            check.duplicate(&field, go_quote(name));
        }
        check.named(&field, name, names::label_value(name));
    }
}

fn full_name(check: &mut Check<'_>, field: &str, text: &str) {
    let name = text.strip_suffix('.').unwrap_or(text);
    let faults = names::dns_subdomain(name);
    if text.is_empty() {
        check.required(field, "");
    } else if !faults.is_empty() {
        check.invalid_text(field, name, faults.join(","));
    } else if !name.contains('.') {
        check.invalid_text(field, name, "should be a domain with at least two segments separated by dots");
    }
}

//! Validation of Services, Endpoints and EndpointSlices.

use super::common::{Errors, immutable, ip, one_of, optional_name, optional_one_of, port, port_or_name, required_name};
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::names;
use crate::value::{has, int, list, map, text};
use serde_json::Value;
use std::net::IpAddr;

const SPEC: Path<'static> = Path::new("spec");
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
/// Most endpoints in a slice, and addresses in an endpoint.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;

/// A Service.
pub fn service(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let kind = text(spec, "type");
    let headless = text(spec, "clusterIP") == "None";
    if list(spec, "ports").is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(&SPEC.child("ports"), ""));
    }
    addresses(spec, kind, errors);
    one_of(spec, &SPEC, "type", TYPES, errors);
    super::metadata::labels(map(spec, "selector"), &SPEC.child("selector"), errors);
    one_of(spec, &SPEC, "sessionAffinity", &["ClientIP", "None"], errors);
    affinity(spec, errors);
    if kind == "ExternalName" {
        external_name(spec, errors);
    }
    ports(spec, kind, headless, errors);
    optional_one_of(spec, &SPEC, "externalTrafficPolicy", &["Cluster", "Local"], errors);
    optional_one_of(spec, &SPEC, "internalTrafficPolicy", &["Cluster", "Local"], errors);
    optional_one_of(spec, &SPEC, "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"], errors);
    if kind != "LoadBalancer" {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "loadBalancerSourceRanges"] {
            if has(spec, key) {
                errors.push(FieldError::forbidden(&SPEC.child(key), "may only be used when `type` is 'LoadBalancer'"));
            }
        }
    }
    let external = matches!(kind, "NodePort" | "LoadBalancer") || !list(spec, "externalIPs").is_empty();
    let policy = text(spec, "externalTrafficPolicy");
    if !policy.is_empty() && !external {
        let detail = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(&SPEC.child("externalTrafficPolicy"), policy, detail));
    }
}

fn addresses(spec: &Value, kind: &str, errors: &mut Errors) {
    let path = SPEC.child("clusterIPs");
    let (one, many) = (text(spec, "clusterIP"), list(spec, "clusterIPs"));
    if kind == "ExternalName" {
        let given = [
            ("clusterIPs", !one.is_empty() || !many.is_empty()),
            ("ipFamilies", !list(spec, "ipFamilies").is_empty()),
            ("ipFamilyPolicy", !text(spec, "ipFamilyPolicy").is_empty()),
        ];
        for (key, _) in given.iter().filter(|(_, given)| *given) {
            errors.push(FieldError::forbidden(&SPEC.child(key), "may not be set for ExternalName services"));
        }
        return;
    }
    if one == "None" && matches!(kind, "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid(&path.index(0), one, &detail));
    }
    if many.first().is_some_and(|first| *first != one) {
        errors.push(FieldError::invalid(&path, many.to_vec(), "first value must match `clusterIP`"));
    }
    for (i, address) in many.iter().enumerate() {
        let address = address.as_str().unwrap_or_default();
        match address {
            "None" if many.len() > 1 => {
                let detail = "'None' must be the first and only value";
                errors.push(FieldError::invalid(&path.index(i), address, detail));
            }
            "None" => {}
            other => ip(other, &path.index(i), errors),
        }
    }
    let external = SPEC.child("externalIPs");
    for (i, address) in list(spec, "externalIPs").iter().enumerate() {
        usable_ip(address.as_str().unwrap_or_default(), &external.index(i), errors);
    }
}

/// An address that can be an endpoint: not loopback, link-local, multicast or unspecified.
fn usable_ip(address: &str, path: &Path<'_>, errors: &mut Errors) {
    let Ok(parsed) = address.parse::<IpAddr>() else {
        ip(address, path, errors);
        return;
    };
    // An IPv4 address in IPv6's clothes reaches the same place.
    let parsed = parsed.to_canonical();
    let (link_local, link_multicast) = match parsed {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    let cases = [
        (parsed.is_unspecified(), "may not be unspecified (0.0.0.0 or ::)"),
        (parsed.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (link_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ];
    for (_, detail) in cases.iter().filter(|(bad, _)| *bad) {
        errors.push(FieldError::invalid(path, address, detail));
    }
}

fn affinity(spec: &Value, errors: &mut Errors) {
    let config = SPEC.child("sessionAffinityConfig");
    let client = &spec["sessionAffinityConfig"]["clientIP"];
    match text(spec, "sessionAffinity") {
        "ClientIP" => {
            let seconds = int(client, "timeoutSeconds").unwrap_or(0);
            if !(1..=86400).contains(&seconds) {
                let at = config.child("clientIP");
                let detail = "must be greater than 0 and less than 86400";
                errors.push(FieldError::invalid(&at.child("timeoutSeconds"), seconds, detail));
            }
        }
        "None" if !spec["sessionAffinityConfig"].is_null() => {
            let detail = "must not be set when session affinity is None";
            errors.push(FieldError::forbidden(&config, detail));
        }
        _ => {}
    }
}

fn external_name(spec: &Value, errors: &mut Errors) {
    let name = text(spec, "externalName");
    let path = SPEC.child("externalName");
    let bare = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else {
        let check = names::dns1123_subdomain(bare);
        errors.extend(check.iter().map(|e| FieldError::invalid(&path, name, e)));
    }
}

fn ports(spec: &Value, kind: &str, headless: bool, errors: &mut Errors) {
    let path = SPEC.child("ports");
    let ports = list(spec, "ports");
    let mut seen_names: Vec<&str> = Vec::new();
    let mut seen: Vec<(&str, i64)> = Vec::new();
    let mut seen_node: Vec<(&str, i64)> = Vec::new();
    for (i, one) in ports.iter().enumerate() {
        let at = path.index(i);
        let (name, protocol, number) = (text(one, "name"), text(one, "protocol"), int(one, "port").unwrap_or(0));
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else if !name.is_empty() {
            optional_name(one, &at, "name", names::dns1123_label, errors);
            if seen_names.contains(&name) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
            seen_names.push(name);
        }
        port(number, &at.child("port"), errors);
        one_of(one, &at, "protocol", PROTOCOLS, errors);
        if !headless {
            port_or_name(&one["targetPort"], &at.child("targetPort"), errors);
        }
        if seen.contains(&(protocol, number)) {
            errors.push(FieldError::duplicate(&at, one.clone()));
        }
        seen.push((protocol, number));
        let node = int(one, "nodePort").unwrap_or(0);
        if node == 0 {
            continue;
        }
        if kind == "ClusterIP" {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(&at.child("nodePort"), detail));
        }
        if seen_node.contains(&(protocol, node)) {
            errors.push(FieldError::duplicate(&at.child("nodePort"), node));
        }
        seen_node.push((protocol, node));
        if !(30000..=32767).contains(&node) {
            let detail = "provided port is not in the valid range. The range of valid ports is 30000-32767";
            errors.push(FieldError::invalid(&at.child("nodePort"), node, detail));
        }
    }
}

/// A change of a Service: its cluster address stays.
pub fn service_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    let (new, old) = (&new["spec"], &old["spec"]);
    let named = |spec: &Value| text(spec, "type") == "ExternalName";
    if of != UpdateOf::Main || named(new) || named(old) {
        return;
    }
    let (new_ips, old_ips) = (list(new, "clusterIPs"), list(old, "clusterIPs"));
    let path = SPEC.child("clusterIPs");
    match (new_ips.first(), old_ips.first()) {
        (None, Some(_)) => {
            errors.push(FieldError::invalid(&path.index(0), new_ips.to_vec(), "primary clusterIP can not be unset"));
        }
        (Some(new), Some(old)) if new != old => {
            errors.push(FieldError::invalid(&path.index(0), new_ips.to_vec(), "may not change once set"));
        }
        _ => {}
    }
}

/// Endpoints.
pub fn endpoints(object: &Value, errors: &mut Errors) {
    const SUBSETS: Path<'static> = Path::new("subsets");
    for (i, subset) in list(object, "subsets").iter().enumerate() {
        let at = SUBSETS.index(i);
        let (ready, not_ready) = (list(subset, "addresses"), list(subset, "notReadyAddresses"));
        if ready.is_empty() && not_ready.is_empty() {
            errors.push(FieldError::required(&at, "must specify `addresses` or `notReadyAddresses`"));
        }
        for (key, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            let within = at.child(key);
            for (j, address) in addresses.iter().enumerate() {
                let at = within.index(j);
                usable_ip(text(address, "ip"), &at.child("ip"), errors);
                optional_name(address, &at, "hostname", names::dns1123_label, errors);
                optional_name(address, &at, "nodeName", names::dns1123_subdomain, errors);
            }
        }
        let within = at.child("ports");
        let ports = list(subset, "ports");
        for (j, one) in ports.iter().enumerate() {
            let at = within.index(j);
            if ports.len() > 1 {
                required_name(one, &at, "name", names::dns1123_label, errors);
            } else {
                optional_name(one, &at, "name", names::dns1123_label, errors);
            }
            port(int(one, "port").unwrap_or(0), &at.child("port"), errors);
            one_of(one, &at, "protocol", PROTOCOLS, errors);
        }
    }
}

/// An EndpointSlice.
pub fn endpoint_slice(object: &Value, errors: &mut Errors) {
    const ENDPOINTS: Path<'static> = Path::new("endpoints");
    const PORTS: Path<'static> = Path::new("ports");
    one_of(object, &Path::ROOT, "addressType", &["FQDN", "IPv4", "IPv6"], errors);
    let family = text(object, "addressType");
    let endpoints = list(object, "endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(FieldError::too_many(&ENDPOINTS, endpoints.len(), MAX_ENDPOINTS));
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let at = ENDPOINTS.index(i);
        let within = at.child("addresses");
        let addresses = list(endpoint, "addresses");
        if addresses.is_empty() {
            errors.push(FieldError::required(&within, "must contain at least 1 address"));
        } else if addresses.len() > MAX_ADDRESSES {
            errors.push(FieldError::too_many(&within, addresses.len(), MAX_ADDRESSES));
        }
        for (j, address) in addresses.iter().enumerate() {
            slice_address(address.as_str().unwrap_or_default(), family, &within.index(j), errors);
        }
        optional_name(endpoint, &at, "nodeName", names::dns1123_subdomain, errors);
        optional_name(endpoint, &at, "hostname", names::dns1123_label, errors);
    }
    let ports = list(object, "ports");
    let mut seen: Vec<&str> = Vec::new();
    for (i, one) in ports.iter().enumerate() {
        let at = PORTS.index(i);
        let name = text(one, "name");
        optional_name(one, &at, "name", names::dns1123_label, errors);
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        }
        seen.push(name);
        one_of(one, &at, "protocol", PROTOCOLS, errors);
        if let Some(number) = int(one, "port") {
            port(number, &at.child("port"), errors);
        }
    }
}

fn slice_address(address: &str, family: &str, path: &Path<'_>, errors: &mut Errors) {
    match (family, address.parse::<IpAddr>()) {
        ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => usable_ip(address, path, errors),
        ("IPv4", _) => errors.push(FieldError::invalid(path, address, "must be a valid IPv4 address")),
        ("IPv6", _) => errors.push(FieldError::invalid(path, address, "must be a valid IPv6 address")),
        _ => {
            let check = names::dns1123_subdomain(address);
            errors.extend(check.iter().map(|e| FieldError::invalid(path, address, e)));
        }
    }
}

/// A change of an EndpointSlice.
pub fn endpoint_slice_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    immutable(&new["addressType"], &old["addressType"], &Path::new("addressType"), errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_judged_as_what_they_reach() {
        for (address, usable) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:0.0.0.0", false),
            ("::ffff:224.0.0.1", false),
        ] {
            let mut errors = Errors::default();
            usable_ip(address, &Path::new("ip"), &mut errors);
            assert_eq!(errors.is_empty(), usable, "{address}");
        }
    }
}

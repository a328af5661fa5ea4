//! Validation of the networking group.

use super::common::{Errors, immutable, ip, label_selector, one_of, optional_name, port, required_name};
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::names;
use crate::value::{has, int, list, text};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SPEC: Path<'static> = Path::new("spec");
const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// An Ingress.
pub fn ingress(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let rules = list(spec, "rules");
    if rules.is_empty() && !has(spec, "defaultBackend") {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&SPEC, rules.to_vec(), detail));
    }
    if has(spec, "defaultBackend") {
        backend(&spec["defaultBackend"], &SPEC.child("defaultBackend"), errors);
    }
    let within = SPEC.child("rules");
    for (i, rule) in rules.iter().enumerate() {
        let at = within.index(i);
        let name = text(rule, "host");
        not_an_address(name, &at.child("host"), errors);
        if !name.is_empty() {
            host(name, &at.child("host"), errors);
        }
        if has(rule, "http") {
            let http = at.child("http");
            paths(&rule["http"], &http.child("paths"), errors);
        }
    }
    let within = SPEC.child("tls");
    for (i, tls) in list(spec, "tls").iter().enumerate() {
        let at = within.index(i);
        let hosts = at.child("hosts");
        for (j, name) in list(tls, "hosts").iter().enumerate() {
            host(name.as_str().unwrap_or_default(), &hosts.index(j), errors);
        }
        optional_name(tls, &at, "secretName", names::dns1123_subdomain, errors);
    }
    optional_name(spec, &SPEC, "ingressClassName", names::dns1123_subdomain, errors);
}

/// A new Ingress: the older way to name its class and the newer one say the same.
pub fn new_ingress(object: &Value, errors: &mut Errors) {
    let (annotation, class) =
        (&object["metadata"]["annotations"][CLASS_ANNOTATION], &object["spec"]["ingressClassName"]);
    if annotation.is_string() && class.is_string() && annotation != class {
        let (annotations, detail) = (Path::new("annotations"), "must match `ingressClassName` when both are specified");
        errors.push(FieldError::invalid(&annotations.child(CLASS_ANNOTATION), annotation.clone(), detail));
    }
}

/// A change of an Ingress: where its load balancer is.
pub fn ingress_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of != UpdateOf::Status {
        return;
    }
    let points = |object: &Value| list(&object["status"]["loadBalancer"], "ingress").to_vec();
    let before = points(old);
    let status = Path::new("status");
    let balancer = status.child("loadBalancer");
    let within = balancer.child("ingress");
    for (i, point) in points(new).iter().enumerate() {
        let (at, address, name) = (within.index(i), text(point, "ip"), text(point, "hostname"));
        if !address.is_empty() && !before.iter().any(|old| text(old, "ip") == address) {
            ip(address, &at.child("ip"), errors);
        }
        optional_name(point, &at, "hostname", names::dns1123_subdomain, errors);
        not_an_address(name, &at.child("hostname"), errors);
    }
}

fn not_an_address(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.parse::<IpAddr>().is_ok() {
        errors.push(FieldError::invalid(path, name, "must be a DNS name, not an IP address"));
    }
}

fn host(name: &str, path: &Path<'_>, errors: &mut Errors) {
    let check = match name.strip_prefix("*.") {
        Some(rest) if names::dns1123_subdomain(rest).is_empty() => Vec::new(),
        _ if name.contains('*') => vec![names::WILDCARD.to_owned()],
        _ => names::dns1123_subdomain(name),
    };
    errors.extend(check.iter().map(|e| FieldError::invalid(path, name, e)));
}

fn paths(http: &Value, path: &Path<'_>, errors: &mut Errors) {
    if list(http, "paths").is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    for (i, one) in list(http, "paths").iter().enumerate() {
        let at = path.index(i);
        let (kind, given) = (text(one, "pathType"), text(one, "path"));
        let invalid = |detail: &str| FieldError::invalid(&at.child("path"), given, detail);
        match kind {
            _ if !has(one, "pathType") => {
                errors.push(FieldError::required(&at.child("pathType"), "pathType must be specified"));
                continue;
            }
            "Exact" | "Prefix" => {
                if !given.starts_with('/') {
                    errors.push(invalid("must be an absolute path"));
                }
                for part in BAD_PARTS.iter().filter(|part| given.contains(*part)) {
                    errors.push(invalid(&format!("must not contain '{part}'")));
                }
                for end in ["/..", "/."].iter().filter(|end| given.ends_with(*end)) {
                    errors.push(invalid(&format!("cannot end with '{end}'")));
                }
            }
            "ImplementationSpecific" => {
                if !given.is_empty() && !given.starts_with('/') {
                    errors.push(invalid("must be an absolute path"));
                }
            }
            other => errors.push(FieldError::not_supported(&at.child("pathType"), other, PATH_TYPES)),
        }
        backend(&one["backend"], &at.child("backend"), errors);
    }
}

fn backend(backend: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (service, resource) = (has(backend, "service"), has(backend, "resource"));
    match (service, resource) {
        (true, true) => {
            errors.push(FieldError::invalid(path, "", "cannot set both resource and service backends"));
        }
        (false, false) => errors.push(FieldError::invalid(path, "", "resource or service backend is required")),
        (false, true) => typed_reference(&backend["resource"], &path.child("resource"), errors),
        (true, false) => {
            let (given, at) = (&backend["service"], path.child("service"));
            required_name(given, &at, "name", names::dns1035_label, errors);
            let (name, number) = (text(&given["port"], "name"), int(&given["port"], "number").unwrap_or(0));
            let at = at.child("port");
            match (name.is_empty(), number == 0) {
                (false, false) => {
                    errors.push(FieldError::invalid(path, "", "cannot set both port name & port number"));
                }
                (true, true) => errors.push(FieldError::required(path, "port name or number is required")),
                (false, true) => {
                    let check = names::port_name(name);
                    errors.extend(check.iter().map(|e| FieldError::invalid(&at.child("name"), name, e)));
                }
                (true, false) => port(number, &at.child("number"), errors),
            }
        }
    }
}

/// Checks a reference to an object of any type.
fn typed_reference(reference: &Value, path: &Path<'_>, errors: &mut Errors) {
    optional_name(reference, path, "apiGroup", names::dns1123_subdomain, errors);
    for key in ["kind", "name"] {
        required_name(reference, path, key, segment, errors);
    }
}

fn segment(name: &str) -> Vec<String> {
    names::path_segment_name(name, false)
}

/// An IngressClass.
pub fn ingress_class(object: &Value, errors: &mut Errors) {
    let (spec, controller) = (&object["spec"], text(&object["spec"], "controller"));
    let at = SPEC.child("controller");
    if controller.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else {
        if controller.len() > 250 {
            errors.push(FieldError::too_long(&at, 250));
        }
        let check = names::domain_prefixed_path(controller);
        errors.extend(check.iter().map(|e| FieldError::invalid(&at, controller, e)));
    }
    let parameters = &spec["parameters"];
    if !parameters.is_object() {
        return;
    }
    let at = SPEC.child("parameters");
    typed_reference(parameters, &at, errors);
    match (text(parameters, "scope"), has(parameters, "namespace")) {
        ("Namespace", false) => {
            let detail = "`parameters.scope` is set to 'Namespace'";
            errors.push(FieldError::required(&at.child("namespace"), detail));
        }
        ("Cluster", true) => {
            let detail = "`parameters.scope` is set to 'Cluster'";
            errors.push(FieldError::forbidden(&at.child("namespace"), detail));
        }
        ("Namespace", true) => {
            optional_name(parameters, &at, "namespace", names::dns1123_label, errors);
        }
        ("Cluster", false) => {}
        (other, _) => errors.push(FieldError::not_supported(&at.child("scope"), other, &["Cluster", "Namespace"])),
    }
}

/// A change of an IngressClass.
pub fn ingress_class_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    let key = "controller";
    immutable(&new["spec"][key], &old["spec"][key], &SPEC.child(key), errors);
}

/// A NetworkPolicy.
pub fn network_policy(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    label_selector(&spec["podSelector"], &SPEC.child("podSelector"), errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let within = SPEC.child(direction);
        for (i, rule) in list(spec, direction).iter().enumerate() {
            let at = within.index(i);
            let ports = at.child("ports");
            for (j, one) in list(rule, "ports").iter().enumerate() {
                policy_port(one, &ports.index(j), errors);
            }
            let from = at.child(peers);
            for (j, one) in list(rule, peers).iter().enumerate() {
                peer(one, &from.index(j), errors);
            }
        }
    }
    let (types, at) = (list(spec, "policyTypes"), SPEC.child("policyTypes"));
    if types.len() > 2 {
        errors.push(FieldError::invalid(&at, types.to_vec(), "may not specify more than two policyTypes"));
    }
    for (i, kind) in types.iter().filter_map(Value::as_str).enumerate() {
        if !matches!(kind, "Ingress" | "Egress") {
            errors.push(FieldError::not_supported(&at.index(i), kind, &["Ingress", "Egress"]));
        }
    }
}

fn policy_port(one: &Value, path: &Path<'_>, errors: &mut Errors) {
    one_of(one, path, "protocol", &["TCP", "UDP", "SCTP"], errors);
    let end = int(one, "endPort");
    let at = path.child("endPort");
    match one.get("port") {
        Some(Value::Number(number)) => {
            let number = number.as_i64().unwrap_or(0);
            port(number, &path.child("port"), errors);
            if let Some(end) = end {
                if end < number {
                    errors.push(FieldError::invalid(&at, end, "must be greater than or equal to `port`"));
                }
                port(end, &at, errors);
            }
        }
        Some(Value::String(name)) => {
            if let Some(end) = end {
                let detail = "may not be specified when `port` is non-numeric";
                errors.push(FieldError::invalid(&at, end, detail));
            }
            let check = names::port_name(name);
            errors.extend(check.iter().map(|e| FieldError::invalid(&path.child("port"), name.as_str(), e)));
        }
        _ => {
            if let Some(end) = end {
                errors.push(FieldError::invalid(&at, end, "may not be specified when `port` is not specified"));
            }
        }
    }
}

fn peer(peer: &Value, path: &Path<'_>, errors: &mut Errors) {
    let given: Vec<&str> =
        ["podSelector", "namespaceSelector", "ipBlock"].into_iter().filter(|key| has(peer, key)).collect();
    for key in given.iter().filter(|key| **key != "ipBlock") {
        label_selector(&peer[*key], &path.child(key), errors);
    }
    if given.is_empty() {
        errors.push(FieldError::required(path, "must specify a peer"));
    } else if given.len() > 1 && given.contains(&"ipBlock") {
        errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
    }
    if !given.contains(&"ipBlock") {
        return;
    }
    let (block, at) = (&peer["ipBlock"], path.child("ipBlock"));
    let text_cidr = text(block, "cidr");
    if text_cidr.is_empty() {
        errors.push(FieldError::required(&at.child("cidr"), ""));
        return;
    }
    cidr(text_cidr, &at.child("cidr"), errors);
    let within = at.child("except");
    for (i, except) in list(block, "except").iter().enumerate() {
        let except = except.as_str().unwrap_or_default();
        cidr(except, &within.index(i), errors);
        let (whole, part) = (parse_cidr(text_cidr), parse_cidr(except));
        if let (Some(whole), Some(part)) = (whole, part)
            && !(whole.1 < part.1 && masked(part.0, whole.1) == masked(whole.0, whole.1))
        {
            errors.push(FieldError::invalid(&within.index(i), except, "must be a strict subset of `cidr`"));
        }
    }
}

fn parse_cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.parse().ok().filter(|bits| *bits <= most)?;
    Some((address, bits))
}

fn masked(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0)).into()
        }
    }
}

pub(super) fn cidr(text: &str, path: &Path<'_>, errors: &mut Errors) {
    if parse_cidr(text).is_none() {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(path, text, detail));
    }
}

/// The name of an IPAddress is the address in its canonical form.
pub fn ip_address_name(name: &str, _: bool) -> Vec<String> {
    match name.parse::<IpAddr>() {
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
        Ok(address) if address.to_string() != name => vec!["must be a canonical format IP address".to_owned()],
        Ok(_) => Vec::new(),
    }
}

/// An IPAddress.
pub fn ip_address(object: &Value, errors: &mut Errors) {
    let (parent, path) = (&object["spec"]["parentRef"], SPEC.child("parentRef"));
    if !parent.is_object() {
        errors.push(FieldError::required(&path, ""));
        return;
    }
    optional_name(parent, &path, "group", names::dns1123_subdomain, errors);
    required_name(parent, &path, "resource", segment, errors);
    required_name(parent, &path, "name", segment, errors);
    optional_name(parent, &path, "namespace", segment, errors);
}

/// A change of an IPAddress.
pub fn ip_address_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    let key = "parentRef";
    immutable(&new["spec"][key], &old["spec"][key], &SPEC.child(key), errors);
}

/// A ServiceCIDR.
pub fn service_cidr(object: &Value, errors: &mut Errors) {
    let (cidrs, path) = (list(&object["spec"], "cidrs"), SPEC.child("cidrs"));
    if cidrs.is_empty() {
        errors.push(FieldError::required(&path, "at least one CIDR required"));
        return;
    }
    if cidrs.len() > 2 {
        let detail = "may only hold up to 2 values";
        errors.push(FieldError::invalid(&path, object["spec"].clone(), detail));
    }
    let mut families = Vec::new();
    for (i, one) in cidrs.iter().enumerate() {
        let given = one.as_str().unwrap_or_default();
        cidr(given, &path.index(i), errors);
        families.extend(parse_cidr(given).map(|(address, _)| address.is_ipv4()));
    }
    if families.len() == 2 && families[0] == families[1] {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(&path, object["spec"].clone(), detail));
    }
}

/// A change of a ServiceCIDR: another family may be added, nothing else changes.
pub fn service_cidr_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    let path = SPEC.child("cidrs");
    let (new, old) = (list(&new["spec"], "cidrs"), list(&old["spec"], "cidrs"));
    if of != UpdateOf::Main || new == old {
        return;
    }
    if old.len() == 1 && new.len() == 2 && new[0] == old[0] {
        return;
    }
    errors.push(FieldError::invalid(&path, new.to_vec(), super::IMMUTABLE));
}

//! Cells of Services, Endpoints and EndpointSlices.

use super::workloads::labels;
use super::{age, name};
use crate::value::{int, list, map, text};
use jiff::Timestamp;
use serde_json::Value;

/// Longest list of load balancer addresses that is shown whole.
const BALANCER_WIDTH: usize = 16;

pub(super) fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let or_none = |text: &str| Value::from(if text.is_empty() { "<none>" } else { text });
    let internal = list(spec, "clusterIPs").first().and_then(Value::as_str).unwrap_or_else(|| text(spec, "clusterIP"));
    vec![
        name(object),
        text(spec, "type").into(),
        or_none(internal),
        external(object).into(),
        ports(spec).into(),
        age(object, now),
        labels(map(spec, "selector")).into(),
    ]
}

fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let ips: Vec<&str> = list(spec, "externalIPs").iter().filter_map(Value::as_str).collect();
    match text(spec, "type") {
        "ClusterIP" | "NodePort" if !ips.is_empty() => ips.join(","),
        "LoadBalancer" => {
            let ingress = list(&service["status"]["loadBalancer"], "ingress").iter();
            let addresses: Vec<&str> = ingress
                .map(|i| match text(i, "ip") {
                    "" => text(i, "hostname"),
                    ip => ip,
                })
                .collect();
            let mut balancers = addresses.join(",");
            if balancers.len() > BALANCER_WIDTH && ips.is_empty() {
                balancers.truncate(BALANCER_WIDTH - 3);
                balancers.push_str("...");
            }
            match (balancers.is_empty(), ips.is_empty()) {
                (true, true) => "<pending>".into(),
                (true, false) => ips.join(","),
                (false, true) => balancers,
                (false, false) => format!("{balancers},{}", ips.join(",")),
            }
        }
        "ExternalName" => text(spec, "externalName").to_owned(),
        _ => "<none>".into(),
    }
}

fn ports(spec: &Value) -> String {
    let one = |port: &Value| {
        let (number, protocol) = (int(port, "port").unwrap_or(0), text(port, "protocol"));
        match int(port, "nodePort").filter(|p| *p > 0) {
            Some(node) => format!("{number}:{node}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    };
    let ports: Vec<String> = list(spec, "ports").iter().map(one).collect();
    if ports.is_empty() { "<none>".into() } else { ports.join(",") }
}

/// The first addresses of Endpoints, as upstream shortens them.
fn endpoint_list(object: &Value) -> String {
    const MAX: usize = 3;
    let subsets = list(object, "subsets");
    if subsets.is_empty() {
        return "<none>".into();
    }
    let mut shown = Vec::new();
    let mut count = 0;
    for subset in subsets {
        let (ports, addresses) = (list(subset, "ports"), list(subset, "addresses"));
        if ports.is_empty() {
            // It is possible to have headless services with no ports.
            count += addresses.len();
            shown.extend(addresses.iter().map(|a| text(a, "ip").to_owned()));
        }
        for port in ports {
            count += addresses.len();
            let number = int(port, "port").unwrap_or(0);
            shown.extend(addresses.iter().map(|a| join(text(a, "ip"), number)));
        }
    }
    shown.truncate(MAX);
    let list = shown.join(",");
    if count > MAX { format!("{list} + {} more...", count - MAX) } else { list }
}

fn join(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub(super) fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), endpoint_list(object).into(), age(object, now)]
}

/// The first of a list, as upstream shortens it; an empty list is unset.
fn shorten(texts: &[String]) -> String {
    const MAX: usize = 3;
    if texts.len() > MAX {
        return format!("{} + {} more...", texts[..MAX].join(","), texts.len() - MAX);
    }
    if texts.is_empty() { "<unset>".into() } else { texts.join(",") }
}

pub(super) fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let port = |port: &Value| int(port, "port").map_or_else(|| "*".to_owned(), |p| p.to_string());
    let ports: Vec<String> = list(object, "ports").iter().map(port).collect();
    let addresses = list(object, "endpoints").iter().flat_map(|e| list(e, "addresses"));
    let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    vec![
        name(object),
        text(object, "addressType").into(),
        shorten(&ports).into(),
        shorten(&addresses).into(),
        age(object, now),
    ]
}

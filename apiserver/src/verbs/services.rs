//! ClusterIPs and node ports: unique because each is a key of its own, taken in the transaction that needs it.

use std::net::Ipv4Addr;

use bytes::Bytes;
use rand::Rng;
use serde_json::{Value, json};
use trireme_api::field::{FieldError, Path};
use trireme_api::status::Status;
use trireme_api::value::{list, text};
use trireme_raftstore::{Compare, Op};

use super::ctx::{Ctx, text_at};
use super::store::{Change, Guard};
use crate::error::ApiResult;
use crate::storage::keys;

/// Range of node ports.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Gives a service the address and ports it needs, and takes back those that it had and needs no more. The guards go
/// into the change, the operations into `ops`, to follow the operation on the service itself.
pub(crate) fn allocate(
    ctx: &Ctx,
    service: &mut Value,
    old: Option<&Value>,
    change: &mut Change,
    ops: &mut Vec<Op>,
) -> ApiResult<()> {
    let owner = format!("{}/{}", text_at(service, &["metadata", "namespace"]), text_at(service, &["metadata", "name"]));
    cluster_ip(ctx, service, old, change, ops, &owner)?;
    node_ports(ctx, service, old, change, ops, &owner)
}

fn cluster_ip(
    ctx: &Ctx,
    service: &mut Value,
    old: Option<&Value>,
    change: &mut Change,
    ops: &mut Vec<Op>,
    owner: &str,
) -> ApiResult<()> {
    let before = old.and_then(held_ip);
    let kind = text_at(service, &["spec", "type"]).to_owned();
    let wanted = text_at(service, &["spec", "clusterIP"]).to_owned();
    if kind == "ExternalName" || wanted == "None" {
        if let Some(ip) = before {
            ops.push(Op::Delete { key: ip_key(ip) });
        }
        if kind != "ExternalName" {
            service["spec"]["clusterIPs"] = json!(["None"]);
        }
        return Ok(());
    }
    let ip = match (wanted.parse::<Ipv4Addr>(), before) {
        (Ok(ip), Some(before)) if ip == before => ip,
        (Err(_), Some(before)) if wanted.is_empty() => before,
        (Ok(ip), _) => {
            check_requested(ctx, service, ip)?;
            take_ip(ip, change, ops, owner);
            ip
        }
        (Err(_), None) if wanted.is_empty() => {
            let ip = free_ip(ctx).ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?;
            take_ip(ip, change, ops, owner);
            ip
        }
        // Validation says what is wrong with it.
        _ => return Ok(()),
    };
    service["spec"]["clusterIP"] = ip.to_string().into();
    service["spec"]["clusterIPs"] = json!([ip.to_string()]);
    Ok(())
}

fn check_requested(ctx: &Ctx, service: &Value, ip: Ipv4Addr) -> ApiResult<()> {
    let cidr = ctx.server.inner.service_cidr;
    let last = cidr.nth(cidr.size() - 1);
    if cidr.contains(ip) && cidr.nth(0) != Some(ip) && last != Some(ip) {
        return Ok(());
    }
    let why = format!(
        "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {cidr}"
    );
    let spec = Path::new("spec");
    let errors = [FieldError::invalid(&spec.child("clusterIPs"), json!([ip.to_string()]), &why)];
    Err(Status::invalid("", "Service", text_at(service, &["metadata", "name"]), &errors))
}

fn take_ip(ip: Ipv4Addr, change: &mut Change, ops: &mut Vec<Op>, owner: &str) {
    change.guard(Guard::ClusterIp(ip), Compare::Absent(ip_key(ip)));
    ops.push(Op::Put { key: ip_key(ip), value: Bytes::copy_from_slice(owner.as_bytes()), expires_at_ms: None });
}

fn free_ip(ctx: &Ctx) -> Option<Ipv4Addr> {
    let cidr = ctx.server.inner.service_cidr;
    // The first address is the API's; the lowest part is left to those who ask for an address.
    let reserved = (cidr.size() / 16).clamp(2, 256);
    let upper = reserved..cidr.size().saturating_sub(1);
    let offset = if upper.is_empty() { 0 } else { rand::rng().random_range(0..upper.end - upper.start) };
    let span = upper.end.saturating_sub(upper.start);
    ctx.server.inner.feed.taken(|taken| {
        let free = |n: u64| cidr.nth(n).filter(|ip| !taken.cluster_ips.contains(ip));
        (0..span).map(|i| upper.start + (offset + i) % span).find_map(free).or_else(|| (2..reserved).find_map(free))
    })
}

fn node_ports(
    ctx: &Ctx,
    service: &mut Value,
    old: Option<&Value>,
    change: &mut Change,
    ops: &mut Vec<Op>,
    owner: &str,
) -> ApiResult<()> {
    let mut before: Vec<u16> = old.map(held_ports).unwrap_or_default();
    let needs = matches!(text_at(service, &["spec", "type"]), "NodePort" | "LoadBalancer");
    let asked_only = service["spec"]["allocateLoadBalancerNodePorts"] == false;
    let mut chosen: Vec<(u16, String)> = Vec::new();
    let name = text_at(service, &["metadata", "name"]).to_owned();
    for (i, port) in trireme_api::value::items_mut(&mut service["spec"], "ports").enumerate() {
        // Validation says that another type may not have them.
        if !needs {
            continue;
        }
        let protocol = text(port, "protocol").to_owned();
        let number = match port["nodePort"].as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0) {
            Some(number) if !NODE_PORTS.contains(&number) => {
                let ports = Path::new("spec");
                let ports = ports.child("ports");
                let item = ports.index(i);
                let why = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                let error = FieldError::invalid(&item.child("nodePort"), number, why);
                return Err(Status::invalid("", "Service", &name, &[error]));
            }
            Some(number) => number,
            None if asked_only => continue,
            None => {
                let held: Vec<u16> = chosen.iter().map(|(n, _)| *n).collect();
                free_port(ctx, &held).ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?
            }
        };
        trireme_api::value::set(port, "nodePort", number);
        // TCP and UDP may share a number within one service.
        let shared = chosen.iter().any(|(n, p)| *n == number && *p != protocol);
        chosen.push((number, protocol));
        if let Some(kept) = before.iter().position(|n| *n == number) {
            before.swap_remove(kept);
        } else if !shared {
            change.guard(Guard::NodePort(number), Compare::Absent(port_key(number)));
            let value = Bytes::copy_from_slice(owner.as_bytes());
            ops.push(Op::Put { key: port_key(number), value, expires_at_ms: None });
        }
    }
    before.retain(|n| !chosen.iter().any(|(c, _)| c == n));
    ops.extend(before.into_iter().map(|n| Op::Delete { key: port_key(n) }));
    Ok(())
}

fn free_port(ctx: &Ctx, held: &[u16]) -> Option<u16> {
    let span = u32::from(NODE_PORTS.end() - NODE_PORTS.start()) + 1;
    let offset = rand::rng().random_range(0..span);
    ctx.server.inner.feed.taken(|taken| {
        (0..span)
            .map(|i| NODE_PORTS.start() + ((offset + i) % span) as u16)
            .find(|n| !held.contains(n) && !taken.node_ports.contains(n))
    })
}

/// Gives back what a service held.
pub(crate) fn release(service: &Value) -> Vec<Op> {
    let ip = held_ip(service).map(|ip| Op::Delete { key: ip_key(ip) });
    let ports = held_ports(service).into_iter().map(|n| Op::Delete { key: port_key(n) });
    ip.into_iter().chain(ports).collect()
}

fn held_ip(service: &Value) -> Option<Ipv4Addr> {
    if text_at(service, &["spec", "type"]) == "ExternalName" {
        return None;
    }
    text_at(service, &["spec", "clusterIP"]).parse().ok()
}

fn held_ports(service: &Value) -> Vec<u16> {
    let mut ports: Vec<u16> = list(&service["spec"], "ports")
        .iter()
        .filter_map(|p| p["nodePort"].as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// After a collision: an error if the user asked for what is taken, otherwise another try, once the cache knows better.
pub(crate) async fn retry(ctx: &Ctx, asked: &Value, guard: &Guard, again: bool) -> ApiResult<()> {
    let name = text_at(asked, &["metadata", "name"]);
    let spec = Path::new("spec");
    match guard {
        Guard::ClusterIp(ip) if text_at(asked, &["spec", "clusterIP"]) == ip.to_string() || !again => {
            let why = format!("failed to allocate IP {ip}: provided IP is already allocated");
            let error = FieldError::invalid(&spec.child("clusterIPs"), json!([ip.to_string()]), &why);
            Err(Status::invalid("", "Service", name, &[error]))
        }
        Guard::NodePort(port) if held_ports(asked).contains(port) || !again => {
            let ports = spec.child("ports");
            let at =
                list(&asked["spec"], "ports").iter().position(|p| p["nodePort"].as_u64() == Some(u64::from(*port)));
            let item = ports.index(at.unwrap_or(0));
            let error = FieldError::invalid(&item.child("nodePort"), *port, "provided port is already allocated");
            Err(Status::invalid("", "Service", name, &[error]))
        }
        _ => ctx.server.barrier().await.map(drop),
    }
}

fn ip_key(ip: Ipv4Addr) -> Bytes {
    Bytes::from(format!("{}{ip}", keys::CLUSTER_IPS))
}

fn port_key(port: u16) -> Bytes {
    Bytes::from(format!("{}{port}", keys::NODE_PORTS))
}

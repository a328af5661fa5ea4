//! What every cluster has from its first second: the system namespaces, and the service `kubernetes` with the masters
//! as its endpoints; and the objects that upstream's API server makes.

mod objects;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use trireme_api::status::Status;
use trireme_api::value::{list, text};
use trireme_raftstore::{Member, MemberId};

use crate::error::ServerError;
use crate::fence::Fence;
use crate::identity::{GROUP_MASTERS, UserInfo};
use crate::in_process::InProcess;
use crate::server::ApiServer;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const ATTEMPTS: usize = 5;

/// Brings all of it to what it has to be.
pub(crate) async fn run(server: &ApiServer, fence: Option<Fence>) -> Result<(), ServerError> {
    let user = UserInfo::new("system:apiserver", [GROUP_MASTERS.to_owned()]);
    let api = server.in_process(user, fence);
    for name in NAMESPACES {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(&api, "/api/v1/namespaces", body, None).await?;
    }
    ensure(&api, "/api/v1/namespaces/default/services", service(server), None).await?;
    objects::ensure(server, &api).await?;
    announce(server, fence).await
}

/// Makes the masters that are well the endpoints of the service `kubernetes`.
pub(crate) async fn announce(server: &ApiServer, fence: Option<Fence>) -> Result<(), ServerError> {
    let user = UserInfo::new("system:apiserver", [GROUP_MASTERS.to_owned()]);
    let api = server.in_process(user, fence);
    let addresses = addresses(server, &api, fence).await?;
    if addresses.is_empty() {
        // A master that only this machine can reach has nothing to announce.
        return Ok(());
    }
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default",
                     "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": addresses.iter().map(|(ip, _)| json!({"ip": ip})).collect::<Vec<_>>(),
            "ports": [{"name": "https", "port": port(&addresses), "protocol": "TCP"}],
        }],
    });
    ensure(&api, "/api/v1/namespaces/default/endpoints", endpoints, Some("subsets")).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default",
                     "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": addresses.iter()
            .map(|(ip, _)| json!({"addresses": [ip], "conditions": {"ready": true}})).collect::<Vec<_>>(),
        "ports": [{"name": "https", "port": port(&addresses), "protocol": "TCP"}],
    });
    ensure(&api, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice, Some("endpoints")).await
}

/// A master is announced until it was not well for this long: as long as upstream's lease of an API server holds.
const PATIENCE: Duration = Duration::from_secs(15);

/// When each master was last seen to be well during a reign.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    reign: u64,
    well: HashMap<MemberId, Instant>,
}

impl Announced {
    /// The addresses to announce: those of masters that are well, and of those `listed` that were so lately. At the
    /// beginning of a reign nothing is known of the others, so what is listed stays for a while, and nothing else comes.
    fn choose(&mut self, members: &[Member], listed: &HashSet<String>, reign: u64, now: Instant) -> Vec<(String, u16)> {
        if self.reign != reign {
            *self = Self { reign, well: members.iter().map(|member| (member.id, now)).collect() };
        }
        self.well.retain(|id, _| members.iter().any(|member| member.id == *id));
        let mut chosen = Vec::new();
        for member in members {
            if member.healthy {
                self.well.insert(member.id, now);
            }
            let lately = self.well.get(&member.id).is_some_and(|at| now.duration_since(*at) < PATIENCE);
            let address = split(&member.client_address);
            chosen.extend(address.filter(|(ip, _)| member.healthy || (lately && listed.contains(ip))));
        }
        chosen
    }
}

fn service(server: &ApiServer) -> Value {
    let first = server.inner.service_cidr.nth(1).map(|ip| ip.to_string());
    let target = port(&split(&server.inner.config.advertise_url).into_iter().collect::<Vec<_>>());
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default",
                     "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": first, "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": target}],
        },
    })
}

/// Address and port of the API of each master that votes or follows and is well.
async fn addresses(
    server: &ApiServer,
    api: &InProcess,
    fence: Option<Fence>,
) -> Result<Vec<(String, u16)>, ServerError> {
    let members = server.inner.store.members().await?;
    let path = "/api/v1/namespaces/default/endpoints/kubernetes";
    let listed = call(api, Method::GET, path, None).await.unwrap_or_default();
    let listed: HashSet<String> = list(&listed, "subsets")
        .iter()
        .flat_map(|subset| list(subset, "addresses"))
        .map(|address| text(address, "ip").to_owned())
        .collect();
    let reign = fence.map_or(0, |fence| fence.revision());
    let mut addresses = server.inner.announced.lock().choose(&members, &listed, reign, Instant::now());
    if addresses.is_empty() {
        addresses.extend(split(&server.inner.config.advertise_url));
    }
    // Endpoints may not be loopback addresses.
    addresses.retain(|(ip, _)| ip.parse().is_ok_and(|ip: std::net::IpAddr| !ip.is_loopback()));
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn split(url: &str) -> Option<(String, u16)> {
    let authority = url.strip_prefix("https://").unwrap_or(url).split('/').next()?;
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "443"));
    let ip: std::net::IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    Some((ip.to_string(), port.parse().ok()?))
}

fn port(addresses: &[(String, u16)]) -> u16 {
    addresses.first().map_or(6443, |(_, port)| *port)
}

/// Creates an object, or brings one field of it to what is wanted.
async fn ensure(api: &InProcess, collection: &str, wanted: Value, field: Option<&str>) -> Result<(), ServerError> {
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let path = format!("{collection}/{name}");
    let mut last = Status::internal("no attempt was made");
    for _ in 0..ATTEMPTS {
        let outcome = match call(api, Method::GET, &path, None).await {
            Err(status) if status.code == 404 => call(api, Method::POST, collection, Some(&wanted)).await,
            Err(status) => Err(status),
            Ok(mut current) => match field {
                Some(field) if current[field] != wanted[field] => {
                    current[field] = wanted[field].clone();
                    call(api, Method::PUT, &path, Some(&current)).await
                }
                _ => return Ok(()),
            },
        };
        match outcome {
            Ok(_) => return Ok(()),
            Err(status) => last = status,
        }
    }
    Err(ServerError::Bootstrap(last))
}

/// One request through the pipeline, with its answer as a value.
pub(crate) async fn call(api: &InProcess, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Status> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.map_or_else(Body::empty, |b| Body::from(b.to_string())))
        .map_err(Status::internal)?;
    let response = api.send(request).await;
    let code = response.status();
    let bytes = response.into_body().collect().await.map_err(Status::internal)?.to_bytes();
    let value: Value = serde_json::from_slice(&bytes).map_err(Status::internal)?;
    if code.is_success() {
        return Ok(value);
    }
    let mut status = Status::internal(value["message"].as_str().unwrap_or_default());
    status.message = value["message"].as_str().unwrap_or_default().to_owned();
    status.code = code.as_u16();
    Err(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_raftstore::Role;

    fn members(healthy: [bool; 3]) -> Vec<Member> {
        let member = |(n, healthy): (u64, bool)| Member {
            id: n,
            name: format!("m{n}"),
            peer_address: String::new(),
            client_address: format!("https://10.0.0.{n}:6443"),
            role: Role::Follower,
            healthy,
            lag: None,
        };
        (1..).zip(healthy).map(member).collect()
    }

    fn last_bytes(chosen: &[(String, u16)]) -> String {
        chosen.iter().map(|(ip, _)| ip.trim_start_matches("10.0.0.")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn masters_that_are_not_well_for_long_are_announced_no_more() {
        let (mut announced, now) = (Announced::default(), Instant::now());
        let mut listed: HashSet<String> = HashSet::new();
        let mut ask = |healthy, reign, seconds| {
            let chosen = announced.choose(&members(healthy), &listed, reign, now + Duration::from_secs(seconds));
            listed = chosen.iter().map(|(ip, _)| ip.clone()).collect();
            last_bytes(&chosen)
        };
        assert_eq!(ask([true, true, true], 5, 0), "1 2 3");
        assert_eq!(ask([true, false, true], 5, 1), "1 2 3", "it may only be slow");
        assert_eq!(ask([true, false, true], 5, 14), "1 2 3");
        assert_eq!(ask([true, false, true], 5, 15), "1 3");
        assert_eq!(ask([true, false, true], 9, 16), "1 3", "another leader does not bring back what was taken out");
        assert_eq!(ask([true, true, true], 9, 17), "1 2 3");
        assert_eq!(ask([true, true, false], 12, 30), "1 2 3", "a new leader waits as long as the one before");
        assert_eq!(ask([true, true, false], 12, 45), "1 2");
    }
}

//! What every cluster has from its first second: the system namespaces, and the service `kubernetes` with the masters
//! as its endpoints.

use axum::body::Body;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use trireme_api::status::Status;

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
    let addresses = addresses(server).await?;
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

/// Address and port of the API of each master that votes or follows.
async fn addresses(server: &ApiServer) -> Result<Vec<(String, u16)>, ServerError> {
    let members = server.inner.store.members().await?;
    let mut addresses: Vec<(String, u16)> = members.iter().filter_map(|m| split(&m.client_address)).collect();
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

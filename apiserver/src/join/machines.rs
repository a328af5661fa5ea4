//! The two joins. Everything that can be wrong is found before the membership or a record changes.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trireme_api::names::dns1123_subdomain;
use trireme_api::status::Status;
use trireme_raftstore::{AddOptions, Compare, Consistency, KeyRange, NewMember, Op, RangeRequest, StoreError, Txn};

use super::machine_names::{self, Wanted};
use super::members::members;
use super::token::{self, Role};
use super::wire::{MasterRequest, MasterResponse, NodeRequest, NodeResponse};
use super::{BODY_LIMIT, Join};
use crate::error::store_status;
use crate::pki::{MasterIdentity, PkiError, public_key_of_csr};
use crate::response;

/// A name that a machine got but under which no Node has appeared yet belongs to that machine for this long.
const RESERVED: Duration = Duration::from_secs(60);

pub(super) async fn master(State(join): State<Join>, request: Request<Body>) -> Response<Body> {
    answer(join_master(&join, request).await)
}

pub(super) async fn node(State(join): State<Join>, request: Request<Body>) -> Response<Body> {
    answer(join_node(&join, request).await)
}

pub(super) fn answer<T: Serialize>(result: Result<T, Status>) -> Response<Body> {
    let encoded = result.and_then(|value| serde_json::to_vec(&value).map_err(Status::internal));
    match encoded {
        Ok(body) => response::json(StatusCode::OK, body),
        Err(status) => response::status(&status),
    }
}

async fn join_master(join: &Join, request: Request<Body>) -> Result<MasterResponse, Status> {
    let token = token::check(join, request.headers(), remote(&request), Role::Master).await?;
    let body: MasterRequest = body(request).await?;
    check_name(&body.name)?;
    let address = socket("address", &body.address)?;
    let peer = socket("peerAddress", &body.peer_address)?;
    let identity = MasterIdentity {
        name: body.name.clone(),
        address: address.ip(),
        service_ip: join.service_ip,
        cluster_domain: join.cluster_domain.clone(),
    };
    let server_crt = join.pki.sign_master_server(&body.server_csr, &identity).map_err(pki_status)?;
    let peer_crt = join.pki.sign_master_peer(&body.peer_csr, &identity).map_err(pki_status)?;
    let member = NewMember {
        name: body.name.clone(),
        peer_address: peer.to_string(),
        client_address: format!("https://{address}"),
        feature_level: body.feature_level,
    };
    let options = AddOptions { held: body.learner, replace: body.replace };
    let grant = join.store.add_member_with(member, options).await.map_err(|error| member_status(&error, &body.name))?;
    tracing::info!(name = %body.name, %address, token, "a master joins");
    let masters = grant.members.iter().map(|member| member.client_address.clone()).collect();
    Ok(MasterResponse { keys: join.pki.shared_keys(), server_crt, peer_crt, grant, masters })
}

async fn join_node(join: &Join, request: Request<Body>) -> Result<NodeResponse, Status> {
    let from = remote(&request);
    let token = token::check(join, request.headers(), from, Role::Node).await?;
    let body: NodeRequest = body(request).await?;
    check_name(&body.name)?;
    let address = address("address", &body.address)?;
    let wanted = Wanted { name: &body.name, address, from };
    machine_names::check(&wanted, join.service_ip, &members(join).await?)?;
    let key = public_key_of_csr(&body.csr).map_err(pki_status)?;
    let crt = join.pki.sign_node(&body.csr, &body.name, address).map_err(pki_status)?;
    claim(join, &body.name, &key).await?;
    tracing::info!(name = %body.name, %address, token, "a node joins");
    Ok(NodeResponse { ca_crt: join.pki.ca_pem().to_owned(), crt, masters: join.masters() })
}

/// Who holds a node's name: written at each join, so that two machines cannot share one.
#[derive(Serialize, Deserialize)]
struct Claim {
    /// SHA-256 of the public key.
    key: String,
    /// When it was made, seconds since the epoch.
    at: u64,
}

/// Takes the name for a key. It is free if the same key has it, or if it has no Node and was not given away just now.
async fn claim(join: &Join, name: &str, public_key: &[u8]) -> Result<(), Status> {
    let (key, fingerprint) = (claim_key(name), fingerprint(public_key));
    let (held, revision) = read_claim(join, name).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if held.as_ref().is_some_and(|held| held.key == fingerprint) {
        return Ok(());
    }
    let running = join.object(&format!("/api/v1/nodes/{name}")).await?.is_some();
    if let Some(why) = why_taken(held.as_ref(), running, now) {
        return Err(taken(name, &why));
    }
    let value = serde_json::to_vec(&Claim { key: fingerprint, at: now }).map_err(Status::internal)?;
    let txn = Txn {
        compares: vec![Compare::ModRevision(key.clone(), revision)],
        then: vec![Op::Put { key, value: value.into(), expires_at_ms: None }],
        otherwise: Vec::new(),
    };
    match join.store.txn(txn).await {
        Ok(done) if done.succeeded => Ok(()),
        Ok(_) => Err(taken(name, "another machine took this name at the same moment")),
        Err(error) => Err(store_status(&error)),
    }
}

fn claim_key(name: &str) -> Bytes {
    Bytes::from(format!("/trireme/nodes/{name}"))
}

/// SHA-256 of a public key, as claims hold it.
pub(super) fn fingerprint(public_key: &[u8]) -> String {
    Sha256::digest(public_key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The claim to a name and its revision, 0 where there is none.
async fn read_claim(join: &Join, name: &str) -> Result<(Option<Claim>, u64), Status> {
    let read = RangeRequest {
        range: KeyRange::Key(claim_key(name)),
        revision: None,
        limit: 1,
        consistency: Consistency::Linearizable,
        keys_only: false,
    };
    let found = join.store.range(read).await.map_err(|error| store_status(&error))?.kvs.into_iter().next();
    let claim = found.as_ref().and_then(|kv| serde_json::from_slice::<Claim>(&kv.value).ok());
    Ok((claim, found.map_or(0, |kv| kv.mod_revision)))
}

/// The fingerprint of the key that has a node's name.
pub(super) async fn held_by(join: &Join, name: &str) -> Result<Option<String>, Status> {
    Ok(read_claim(join, name).await?.0.map(|claim| claim.key))
}

/// Why another key cannot have the name; a Node counts also when no claim to its name was ever written.
fn why_taken(held: Option<&Claim>, running: bool, now: u64) -> Option<String> {
    if running {
        let why = "another machine runs under this name; choose another with --name, or, if that machine is gone, \
                   delete its Node first";
        return Some(why.to_owned());
    }
    let age = now.saturating_sub(held?.at);
    let left = RESERVED.as_secs().checked_sub(age).filter(|left| *left > 0)?;
    Some(format!(
        "the name was given to another machine {age} s ago; if that was a failed attempt of this one, try again in \
         {left} s"
    ))
}

fn taken(name: &str, why: &str) -> Status {
    Status::conflict("", "nodes", name, why)
}

fn member_status(error: &StoreError, name: &str) -> Status {
    match error {
        StoreError::Membership(why) => {
            let mend = format!("{why}; if that master is gone for good, or its data is: trireme member replace {name}");
            super::members::impossible("members", name, &mend)
        }
        other => store_status(other),
    }
}

pub(super) fn pki_status(error: PkiError) -> Status {
    match error {
        PkiError::Request(why) => {
            Status::bad_request(format!("the certificate signing request is not acceptable: {why}"))
        }
        PkiError::Issue(why) => Status::bad_request(format!("cannot sign the certificate: {why}")),
        other => Status::internal(other),
    }
}

fn check_name(name: &str) -> Result<(), Status> {
    match dns1123_subdomain(name).first() {
        Some(problem) => Err(Status::bad_request(format!("the name {name:?} cannot be used: {problem}"))),
        None => Ok(()),
    }
}

fn socket(field: &str, text: &str) -> Result<SocketAddr, Status> {
    text.parse::<SocketAddr>().ok().filter(|at| usable(at.ip()) && at.port() != 0).ok_or_else(|| {
        Status::bad_request(format!("{field} {text:?} is not an address and port that other machines can reach"))
    })
}

pub(super) fn address(field: &str, text: &str) -> Result<IpAddr, Status> {
    text.parse::<IpAddr>().ok().filter(|ip| usable(*ip)).ok_or_else(|| {
        Status::bad_request(format!("{field} {text:?} is not an IP address that other machines can reach"))
    })
}

fn usable(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

pub(super) fn remote(request: &Request<Body>) -> IpAddr {
    let known = request.extensions().get::<ConnectInfo<SocketAddr>>();
    known.map_or(IpAddr::from([0, 0, 0, 0]), |ConnectInfo(from)| from.ip())
}

pub(super) async fn body<T: DeserializeOwned>(request: Request<Body>) -> Result<T, Status> {
    let bytes = axum::body::to_bytes(request.into_body(), BODY_LIMIT)
        .await
        .map_err(|_| Status::request_entity_too_large(BODY_LIMIT))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Status::bad_request(format!("the body is not a join request: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_with_a_node_is_taken_with_and_without_a_claim() {
        let claim = Claim { key: "k".into(), at: 1000 };
        for held in [None, Some(&claim)] {
            assert!(why_taken(held, true, 5000).unwrap().contains("another machine runs under this name"));
        }
        assert_eq!(why_taken(None, false, 5000), None);
        assert!(why_taken(Some(&claim), false, 1010).unwrap().contains("10 s ago"));
        assert_eq!(why_taken(Some(&claim), false, 1060), None);
    }
}

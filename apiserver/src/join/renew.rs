//! Renewal of a node's certificate: asked for with the present one, for the key that it has.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::State;
use http::{Request, Response};
use trireme_api::status::{Reason, Status};

use super::Join;
use super::machine_names::{self, Wanted};
use super::machines::{address, answer, body, fingerprint, held_by, pki_status, remote};
use super::members::{members, user};
use super::wire::{NodeRequest, NodeResponse};
use crate::audit::Note;
use crate::identity::PeerCertificate;
use crate::pki::public_key_of_csr;

pub(super) async fn node(State(join): State<Join>, request: Request<Body>) -> Response<Body> {
    let note = Note::of(&request);
    let renewed = renew(&join, request).await;
    match &renewed {
        Ok(_) => note.decided(true),
        Err(status) if status.reason == Reason::Forbidden => note.decided(false),
        Err(_) => {}
    }
    answer(renewed)
}

async fn renew(join: &Join, request: Request<Body>) -> Result<NodeResponse, Status> {
    let (user, from) = (user(&request), remote(&request));
    let refuse = |name: &str, why: &str| Err(Status::forbidden("", "nodes", name, why));
    let Some(name) = user.node_name().map(str::to_owned) else {
        return refuse("", "only a node can have its certificate renewed, and only with the one that it has");
    };
    let present = request.extensions().get::<PeerCertificate>().and_then(|shown| public_key(&shown.0));
    let body: NodeRequest = body(request).await?;
    if body.name != name {
        return refuse(&body.name, &format!("the certificate shown is that of node {name:?}"));
    }
    let wanted = public_key_of_csr(&body.csr).map_err(pki_status)?;
    if present.as_ref() != Some(&wanted) {
        return refuse(&name, "the request has to be for the key of the certificate shown");
    }
    let address: IpAddr = address("address", &body.address)?;
    let who = Wanted { name: &name, address, from };
    machine_names::check(&who, join.service_ip, &members(join).await?)?;
    // A machine whose name was given to another one since is not that node any more.
    if let Some(holder) = held_by(join, &name).await?
        && holder != fingerprint(&wanted)
    {
        return refuse(&name, "another machine has joined under this name since");
    }
    let crt = join.pki.sign_node(&body.csr, &name, address).map_err(pki_status)?;
    tracing::info!(name, %address, "a node's certificate is renewed");
    Ok(NodeResponse { ca_crt: join.pki.ca_pem().to_owned(), crt, masters: join.masters() })
}

fn public_key(der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(certificate.public_key().subject_public_key.data.to_vec())
}

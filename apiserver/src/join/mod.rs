//! Joining and leaving: the part of the API that hands out machine certificates and changes the membership.
//!
//! A machine without a certificate shows a short-lived token and a signing request for a key that it made itself.
//! `POST /trireme.io/v1/join/master` and `…/join/node` answer with everything it needs to run; a node has its certificate
//! renewed at `…/renew/node`. `/trireme.io/v1/members` and what is below are for administrators, and so is
//! `…/status`, by which each master tells about itself, and `…/snapshot`, a backup of the store. Requests are checked completely before anything is changed.

mod backup;
mod limiter;
mod machine_names;
mod machines;
mod members;
mod renew;
mod self_status;
mod token;
pub mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::{delete, get, post};
use http::{Request, StatusCode};
use serde_json::Value;
use trireme_api::status::Status;
use trireme_raftstore::Store;

use crate::identity::UserInfo;
use crate::in_process::InProcess;
use crate::pki::Pki;
use crate::server::ApiServer;

/// Signing requests and names are small; anything bigger is not a join.
const BODY_LIMIT: usize = 64 * 1024;
/// Bigger than any object of the API.
const OBJECT_LIMIT: usize = 16 * 1024 * 1024;

/// What the handlers share.
#[derive(Clone)]
struct Join {
    pki: Pki,
    store: Store,
    /// The API, for tokens and nodes; its reads are linearizable.
    api: InProcess,
    service_ip: IpAddr,
    cluster_domain: String,
    /// URL of this master.
    address: String,
    kubernetes_version: String,
    started: jiff::Timestamp,
    limiter: Arc<limiter::Limiter>,
}

/// The routes of this module, with absolute paths.
///
/// The listener has to put the caller's [`UserInfo`] into the extensions of every request, and should put
/// `axum::extract::ConnectInfo<SocketAddr>` there, so that wrong tokens are counted for each address.
pub(crate) fn router(server: ApiServer) -> Router {
    let config = server.config();
    let join = Join {
        pki: server.pki().clone(),
        store: server.store().clone(),
        api: server.in_process(UserInfo::component("system:apiserver"), None),
        service_ip: server.inner.service_cidr.nth(1).unwrap_or(Ipv4Addr::LOCALHOST).into(),
        cluster_domain: config.cluster_domain.clone(),
        address: config.advertise_url.clone(),
        kubernetes_version: config.version.clone(),
        started: jiff::Timestamp::now(),
        limiter: Arc::new(limiter::Limiter::default()),
    };
    Router::new()
        .route(wire::MASTER_PATH, post(machines::master))
        .route(wire::NODE_PATH, post(machines::node))
        .route(wire::MEMBERS_PATH, get(members::list))
        .route(wire::UPGRADE_PATH, post(members::upgrade))
        .route(wire::STATUS_PATH, get(self_status::serve))
        .route(wire::SNAPSHOT_PATH, get(backup::serve))
        .route(wire::RENEW_PATH, post(renew::node))
        .route("/trireme.io/v1/members/{name}", delete(members::remove))
        .route("/trireme.io/v1/members/{name}/promote", post(members::promote))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(join)
}

async fn unknown() -> axum::response::Response {
    crate::response::status(&Status::unknown_resource())
}

async fn wrong_method() -> axum::response::Response {
    crate::response::status(&Status::method_not_supported())
}

impl Join {
    /// URLs of all masters' API, as far as this master knows.
    fn masters(&self) -> Vec<String> {
        self.store.status().members.into_iter().map(|member| member.client_address).collect()
    }

    /// The object at an API path such as `/api/v1/nodes/node-1`; `None` when there is none.
    async fn object(&self, path: &str) -> Result<Option<Value>, Status> {
        let request = Request::get(path).body(Body::empty()).map_err(Status::internal)?;
        let response = self.api.send(request).await;
        let code = response.status();
        let body = axum::body::to_bytes(response.into_body(), OBJECT_LIMIT).await.map_err(Status::internal)?;
        match code {
            StatusCode::OK => serde_json::from_slice(&body).map(Some).map_err(Status::internal),
            StatusCode::NOT_FOUND => Ok(None),
            _ => {
                let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                let why = answer["message"].as_str().unwrap_or("the API did not answer");
                Err(Status::service_unavailable(format!("{path} cannot be read at the moment: {why}")))
            }
        }
    }
}

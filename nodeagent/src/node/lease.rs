//! The node's lease: renewed four times as often as it holds, it says that this agent lives.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const RETRY: Duration = Duration::from_millis(500);
const NAMESPACE: &str = "kube-node-lease";

/// Renews the lease until `shutdown`. `uid` is the Node's, once that is registered.
pub(crate) async fn run(
    client: kube::Client,
    node: String,
    seconds: u32,
    uid: watch::Receiver<Option<String>>,
    shutdown: CancellationToken,
) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut current: Option<Lease> = None;
    loop {
        let owner = uid.borrow().clone();
        let wait = match owner {
            None => RETRY,
            Some(owner) => match renew(&api, &node, &owner, seconds, current.take()).await {
                Ok(lease) => {
                    current = Some(lease);
                    Duration::from_secs(seconds.into()) / 4
                }
                Err(error) => {
                    tracing::warn!(%error, "node lease not renewed");
                    RETRY * 2
                }
            },
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn renew(
    api: &Api<Lease>,
    node: &str,
    owner: &str,
    seconds: u32,
    current: Option<Lease>,
) -> Result<Lease, kube::Error> {
    let known = match current {
        Some(lease) => Some(lease),
        None => api.get_opt(node).await?,
    };
    let reference = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: owner.to_owned(),
        ..OwnerReference::default()
    };
    let spec = LeaseSpec {
        holder_identity: Some(node.to_owned()),
        lease_duration_seconds: i32::try_from(seconds).ok(),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    match known {
        Some(mut lease) => {
            lease.metadata.owner_references = Some(vec![reference]);
            lease.spec = Some(spec);
            api.replace(node, &PostParams::default(), &lease).await
        }
        None => {
            let metadata = ObjectMeta {
                name: Some(node.to_owned()),
                namespace: Some(NAMESPACE.to_owned()),
                owner_references: Some(vec![reference]),
                ..ObjectMeta::default()
            };
            api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
        }
    }
}

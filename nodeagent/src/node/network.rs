//! The pod network as the Node objects want it: this node's range, and the way to the others'.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_client::reconnect::Reconnect;

use crate::network::{Cidr, Network, Peer};

/// After a failure it is tried again after this.
const RETRY: Duration = Duration::from_secs(2);

/// What the API says of this node's readiness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing was heard yet.
    #[default]
    Nothing,
    /// There is no such node.
    Absent,
    /// Status of its condition `Ready`.
    Ready(String),
}

impl Seen {
    fn of(node: Option<&Node>) -> Seen {
        let Some(node) = node else { return Seen::Absent };
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        Seen::Ready(ready.map(|ready| ready.status.clone()).unwrap_or_default())
    }
}

/// Follows the nodes until `shutdown`. `ready` turns true once this node's range is set up; `seen` is what the API says
/// of this node.
pub(crate) async fn run(
    client: kube::Client,
    name: String,
    network: Network,
    (ready, seen): (watch::Sender<bool>, watch::Sender<Seen>),
    shutdown: CancellationToken,
) {
    let stream = watcher(Api::<Node>::all(client), watcher::Config::default()).backoff(Reconnect::default());
    let mut stream = std::pin::pin!(stream);
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    let mut listing: Option<BTreeMap<String, Node>> = None;
    let mut applied: (Option<Cidr>, Option<Vec<Peer>>) = (None, None);
    let mut retry = false;
    loop {
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(watcher::Event::Init)) => listing = Some(BTreeMap::new()),
                Some(Ok(watcher::Event::InitApply(node))) => {
                    listing.get_or_insert_default().insert(node.metadata.name.clone().unwrap_or_default(), node);
                    continue;
                }
                Some(Ok(watcher::Event::InitDone)) => nodes = listing.take().unwrap_or_default(),
                Some(Ok(watcher::Event::Apply(node))) => {
                    drop(nodes.insert(node.metadata.name.clone().unwrap_or_default(), node));
                }
                Some(Ok(watcher::Event::Delete(node))) => {
                    drop(nodes.remove(node.metadata.name.as_deref().unwrap_or_default()));
                }
                Some(Err(error)) => tracing::warn!(%error, "watch of the nodes"),
                None => return,
            },
            () = tokio::time::sleep(RETRY), if retry => {}
            () = shutdown.cancelled() => return,
        }
        seen.send_if_modified(|known| {
            let now = Seen::of(nodes.get(&name));
            let news = *known != now;
            *known = now;
            news
        });
        retry = !apply(&name, &nodes, &network, &ready, &mut applied).await;
    }
}

/// Brings the network in line with the nodes. False if something failed and must be tried again.
async fn apply(
    name: &str,
    nodes: &BTreeMap<String, Node>,
    network: &Network,
    ready: &watch::Sender<bool>,
    applied: &mut (Option<Cidr>, Option<Vec<Peer>>),
) -> bool {
    let Some(own) = nodes.get(name).and_then(range) else { return true };
    if applied.0 != Some(own) {
        if let Err(error) = network.configure(own).await {
            tracing::warn!(%error, range = %own, "pod network not set up");
            return false;
        }
        applied.0 = Some(own);
        ready.send_replace(true);
    }
    let peers: Vec<Peer> =
        nodes.iter().filter(|(other, _)| *other != name).filter_map(|(_, node)| peer(node)).collect();
    if applied.1.as_ref() != Some(&peers) {
        if let Err(error) = network.sync_peers(&peers).await {
            tracing::warn!(%error, "routes to other nodes' pods not set up");
            return false;
        }
        applied.1 = Some(peers);
    }
    true
}

fn range(node: &Node) -> Option<Cidr> {
    node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()
}

fn peer(node: &Node) -> Option<Peer> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let address: Ipv4Addr = addresses.iter().find(|a| a.type_ == "InternalIP")?.address.parse().ok()?;
    Some(Peer { name: node.metadata.name.clone()?, address, pod_cidr: range(node)? })
}

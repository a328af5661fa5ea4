//! Registers the Node object and keeps its status up to date.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::node::{Facts, Seen};
use crate::pods::Context;

/// How long a restarted agent may take to have the pod network at hand.
const SETTLE: Duration = Duration::from_secs(5);
/// Upstream reports at most so many images.
const MAX_IMAGES: usize = 50;

/// Registers the node, then reports its status until `shutdown`.
pub(crate) async fn run(
    context: Arc<Context>,
    facts: Facts,
    (mut network, mut seen): (watch::Receiver<bool>, watch::Receiver<Seen>),
    uid: watch::Sender<Option<String>>,
    shutdown: CancellationToken,
) {
    let api: Api<Node> = Api::all(context.client.clone());
    let mut written: Option<(NodeStatus, tokio::time::Instant)> = None;
    let mut registered = false;
    loop {
        let mut wait = context.config.status_update_frequency;
        let result = async {
            if !registered {
                let node = register(&api, &context, &facts).await?;
                uid.send_replace(node.metadata.uid.clone());
                context.emit_node(&node, false, "Starting", "Starting kubelet.");
                registered = true;
                // A node that has its range is about to be ready: an agent's restart must not make it look unready.
                if node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some()) {
                    let _ = tokio::time::timeout(SETTLE, network.wait_for(|ready| *ready))
                        .await
                        .map(|result| result.is_ok());
                }
            }
            let network_ready = *network.borrow_and_update();
            if written.as_ref().is_some_and(|(status, _)| overruled(&seen.borrow_and_update(), status)) {
                written = None;
            }
            report(&api, &context, &facts, network_ready, &mut written).await
        };
        if let Err(error) = result.await {
            tracing::warn!(%error, "node status not written");
            // Somebody may have deleted the object.
            registered = registered && !matches!(&error, kube::Error::Api(status) if status.code == 404);
            wait = wait.min(Duration::from_secs(1));
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = network.changed() => if changed.is_err() { return },
            changed = seen.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

/// Whether the API says something else of this node than what was written: after a silence the node lifecycle controller
/// calls it unknown, and somebody may have deleted it.
fn overruled(seen: &Seen, written: &NodeStatus) -> bool {
    match seen {
        Seen::Nothing => false,
        Seen::Absent => true,
        Seen::Ready(status) => {
            let own = written.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
            own.is_some_and(|own| own.status != *status)
        }
    }
}

fn labels(context: &Context, facts: &Facts) -> BTreeMap<String, String> {
    let own = [
        ("kubernetes.io/hostname", context.config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", facts.info.architecture.as_str()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", facts.info.architecture.as_str()),
    ];
    let mut labels: BTreeMap<String, String> = own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    labels.extend(context.config.labels.clone());
    labels
}

/// Creates the object, or takes over the existing one: its well-known labels are ours, the rest is the operator's.
async fn register(api: &Api<Node>, context: &Context, facts: &Facts) -> Result<Node, kube::Error> {
    let name = &context.config.node_name;
    if api.get_opt(name).await?.is_some() {
        let patch = json!({"metadata": {"labels": labels(context, facts)}});
        return api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
    }
    let taints = context.config.taints.clone();
    let node = Node {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels(context, facts)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { taints: if taints.is_empty() { None } else { Some(taints) }, ..NodeSpec::default() }),
        status: Some(status(context, facts, false, &[], Timestamp::now())),
    };
    match api.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(answer)) if answer.reason == "AlreadyExists" => api.get(name).await,
        result => result,
    }
}

async fn report(
    api: &Api<Node>,
    context: &Context,
    facts: &Facts,
    network: bool,
    written: &mut Option<(NodeStatus, tokio::time::Instant)>,
) -> Result<(), kube::Error> {
    let name = &context.config.node_name;
    let old = match written {
        Some((status, _)) => status.conditions.clone(),
        None => api.get_status(name).await?.status.and_then(|status| status.conditions),
    };
    let old = old.unwrap_or_default();
    let mut new = status(context, facts, network, &old, Timestamp::now());
    if let Some((status, at)) = written
        && at.elapsed() < context.config.status_report_frequency
    {
        // The times of the last heartbeat alone are no news.
        keep_heartbeats(&mut new, status);
        if new == *status {
            return Ok(());
        }
    }
    let patch = json!({"status": new});
    let node = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    if let Some(word) = turned(&old, new.conditions.as_deref().unwrap_or_default()) {
        context.emit_node(&node, false, word, &format!("Node {name} status is now: {word}"));
    }
    *written = Some((new, tokio::time::Instant::now()));
    Ok(())
}

/// The event of a node whose readiness has changed.
fn turned(old: &[NodeCondition], new: &[NodeCondition]) -> Option<&'static str> {
    let ready = |conditions: &[NodeCondition]| {
        conditions.iter().find(|condition| condition.type_ == "Ready").map(|ready| ready.status.clone())
    };
    let now = ready(new)?;
    (ready(old).as_ref() != Some(&now)).then_some(if now == "True" { "NodeReady" } else { "NodeNotReady" })
}

fn keep_heartbeats(new: &mut NodeStatus, old: &NodeStatus) {
    for condition in new.conditions.iter_mut().flatten() {
        if let Some(before) = old.conditions.iter().flatten().find(|c| c.type_ == condition.type_) {
            condition.last_heartbeat_time.clone_from(&before.last_heartbeat_time);
        }
    }
}

fn status(context: &Context, facts: &Facts, network: bool, old: &[NodeCondition], now: Timestamp) -> NodeStatus {
    let config = &context.config;
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    let amounts = amounts(context, facts);
    let images = context.images.list();
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", config.node_ip.to_string()),
            address("Hostname", config.node_name.clone()),
        ]),
        capacity: Some(amounts.clone()),
        allocatable: Some(amounts),
        conditions: Some(conditions(network, old, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.listen.port()) }),
        }),
        images: Some(
            images
                .iter()
                .take(MAX_IMAGES)
                .map(|image| ContainerImage { names: Some(image.names()), size_bytes: i64::try_from(image.size).ok() })
                .collect(),
        ),
        node_info: Some(facts.info.clone()),
        ..NodeStatus::default()
    }
}

fn amounts(context: &Context, facts: &Facts) -> BTreeMap<String, Quantity> {
    let disk = nix::sys::statvfs::statvfs(&context.config.data_dir);
    let disk = disk.map_or(0, |stat| stat.blocks() * stat.fragment_size() / 1024);
    [
        ("cpu", facts.cpus.to_string()),
        ("memory", format!("{}Ki", facts.memory_bytes / 1024)),
        ("pods", context.config.max_pods.to_string()),
        ("ephemeral-storage", format!("{disk}Ki")),
        ("hugepages-1Gi", "0".to_owned()),
        ("hugepages-2Mi", "0".to_owned()),
    ]
    .into_iter()
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .collect()
}

fn conditions(network: bool, old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let ready = if network {
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status")
    } else {
        (
            "Ready",
            "False",
            "KubeletNotReady",
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:the node has no podCIDR yet",
        )
    };
    let wanted = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ready,
    ];
    let now = Time(crate::pods::status::whole_second(now));
    wanted
        .into_iter()
        .map(|(name, status, reason, message)| {
            let before = old.iter().find(|c| c.type_ == name && c.status == status);
            NodeCondition {
                type_: name.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: Some(now.clone()),
                last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or(Some(now.clone())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_readiness_is_an_event() {
        let (down, up) = (conditions(false, &[], Timestamp::UNIX_EPOCH), conditions(true, &[], Timestamp::UNIX_EPOCH));
        assert_eq!([turned(&[], &down), turned(&down, &up)], [Some("NodeNotReady"), Some("NodeReady")]);
        assert_eq!(turned(&up, &up), None);
    }

    #[test]
    fn what_others_said_of_the_node_is_corrected() {
        let status = NodeStatus { conditions: Some(conditions(true, &[], Timestamp::UNIX_EPOCH)), ..<_>::default() };
        assert!(!overruled(&Seen::Nothing, &status));
        assert!(!overruled(&Seen::Ready("True".to_owned()), &status));
        assert!(overruled(&Seen::Ready("Unknown".to_owned()), &status));
        assert!(overruled(&Seen::Absent, &status));
    }
}

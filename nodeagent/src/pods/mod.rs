//! The pods bound to this node: one worker each, and a register of them for the server.

pub(crate) mod env;
pub(crate) mod files;
pub(crate) mod following;
pub(crate) mod kill;
pub(crate) mod launch;
pub(crate) mod machine;
pub(crate) mod manager;
pub(crate) mod oci;
pub(crate) mod patch;
pub(crate) mod probes;
pub(crate) mod resources;
pub(crate) mod slots;
pub(crate) mod status;
pub(crate) mod teardown;
pub(crate) mod volumes;
pub(crate) mod worker;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use kube::runtime::reflector::Store as Reflector;
use parking_lot::RwLock;
use tokio::sync::watch;
use trireme_client::events::{EventRecorder, EventType};

use crate::config::Config;
use crate::images::Store;
use crate::network::Network;
use crate::runtime::cgroups::Cgroups;
use crate::shim::client::Shim;

/// What all workers share.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) client: kube::Client,
    pub(crate) cgroups: Cgroups,
    pub(crate) images: Store,
    pub(crate) network: Network,
    /// True once the pod network works.
    pub(crate) network_ready: watch::Receiver<bool>,
    pub(crate) services: Reflector<Service>,
    pub(crate) events: EventRecorder,
    pub(crate) register: Register,
    /// Capabilities this process may give on.
    pub(crate) grantable: Vec<&'static str>,
    pub(crate) machine: MachineFacts,
}

/// What the machine has.
#[derive(Clone, Debug, Default)]
pub(crate) struct MachineFacts {
    pub(crate) cpus: i64,
    pub(crate) memory_bytes: i64,
}

impl Context {
    /// Directory of a pod's shim, containers and volumes.
    pub(crate) fn pod_directory(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("pods").join(uid)
    }

    /// Directory of a pod's logs.
    pub(crate) fn log_directory(&self, pod: &Pod) -> PathBuf {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let name = format!("{}_{}_{}", text(&meta.namespace), text(&meta.name), text(&meta.uid));
        self.config.data_dir.join("logs").join(name)
    }

    /// Records an event about a pod or one of its containers.
    pub(crate) fn emit(&self, pod: &Pod, container: Option<(&str, bool)>, warning: bool, reason: &str, message: &str) {
        let field = container.map(|(name, init)| {
            let list = if init { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        });
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: field,
        };
        let kind = if warning { EventType::Warning } else { EventType::Normal };
        self.events.record_for(about, kind, reason, message);
    }

    /// Records an event about the node.
    pub(crate) fn emit_node(&self, node: &Node, warning: bool, reason: &str, message: &str) {
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: node.metadata.name.clone(),
            // Upstream's kubelets give the node's name here too.
            uid: node.metadata.name.clone(),
            ..ObjectReference::default()
        };
        let kind = if warning { EventType::Warning } else { EventType::Normal };
        self.events.record_for(about, kind, reason, message);
    }
}

/// A container as the server needs to know it.
#[derive(Clone, Debug)]
pub(crate) struct ContainerView {
    /// The id of its process, if it runs.
    pub(crate) running: Option<String>,
    /// Number of the newest attempt, if there was one.
    pub(crate) attempt: Option<u32>,
    pub(crate) terminal: bool,
    pub(crate) stdin: bool,
    /// Why it does not run.
    pub(crate) waiting: Option<String>,
}

/// A pod as the server needs to know it.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    pub(crate) pod: Arc<Pod>,
    pub(crate) directory: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) containers: HashMap<String, ContainerView>,
}

impl PodView {
    pub(crate) fn shim(&self) -> Shim {
        Shim::at(&self.directory)
    }
}

/// Namespace and name.
type Key = (String, String);

/// The pods on this node, by namespace and name.
#[derive(Clone, Default)]
pub(crate) struct Register {
    pods: Arc<RwLock<HashMap<Key, Arc<PodView>>>>,
}

impl Register {
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<PodView>> {
        self.pods.read().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<PodView>> {
        self.pods.read().values().cloned().collect()
    }

    fn set(&self, view: PodView) {
        let mut pods = self.pods.write();
        let key = key(&view.pod);
        let newer = |known: &PodView| {
            known.pod.metadata.uid != view.pod.metadata.uid
                && known.pod.metadata.creation_timestamp > view.pod.metadata.creation_timestamp
        };
        // The last words of an old pod must not hide its successor of the same name.
        if !pods.get(&key).is_some_and(|known| newer(known)) {
            pods.insert(key, Arc::new(view));
        }
    }

    /// Forgets a pod, unless another one of the same name took its place.
    fn remove(&self, pod: &Pod) {
        let key = key(pod);
        let mut pods = self.pods.write();
        if pods.get(&key).is_some_and(|view| view.pod.metadata.uid == pod.metadata.uid) {
            pods.remove(&key);
        }
    }
}

fn key(pod: &Pod) -> Key {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

/// A container's log file.
pub(crate) fn log_file(directory: &Path, container: &str, attempt: u32) -> PathBuf {
    directory.join(container).join(format!("{attempt}.log"))
}

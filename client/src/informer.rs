//! Shared informers: one list and watch per kind, kept in a store that every component of the process reads.
//!
//! An informer knows the last `resourceVersion` that it has seen, bookmarks included, so that a component can wait
//! until the store holds everything up to a given revision: its own write, or the fence of a new leader.
//! Subscriptions are bounded; one that overflows is told to start again from the whole content, so that no key is
//! ever lost. Objects in the stores are slimmed (no managed fields, no last applied configuration): writes that
//! start from them must be patches of what differs, never replacements.

mod entry;
mod feed;
mod store;
mod subscription;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

pub use feed::{Informer, Source};
pub use store::{Index, Store};
pub use subscription::{Change, Notice, Subscription};

/// Namespace (empty for cluster-wide kinds) and name of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The namespace, empty for a cluster-wide object.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key out of its parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an informer needs to know of the objects it holds.
pub trait Object: Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static {
    /// The object's metadata.
    fn object_meta(&self) -> &ObjectMeta;
    /// The object's metadata, to slim it before it is kept.
    fn object_meta_mut(&mut self) -> &mut ObjectMeta;
}

impl<K> Object for K
where
    K: kube::Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
{
    fn object_meta(&self) -> &ObjectMeta {
        self.meta()
    }

    fn object_meta_mut(&mut self) -> &mut ObjectMeta {
        self.meta_mut()
    }
}

/// The metadata of an object of any kind: all that some components need, at a fraction of the memory.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
pub struct Meta {
    /// The object's metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
}

impl Object for Meta {
    fn object_meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn object_meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Takes away what no component reads and what can be larger than the rest of the object.
fn slim(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = meta.annotations.as_mut() {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            meta.annotations = None;
        }
    }
}

/// The revision in a `resourceVersion`, zero when it is absent or no number.
pub fn revision_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// The informers that scheduler and controllers share, one per kind.
pub struct Informers {
    /// Pods, indexed by owner and by node.
    pub pods: Informer<Pod>,
    /// Nodes.
    pub nodes: Informer<Node>,
    /// Namespaces.
    pub namespaces: Informer<Namespace>,
    /// Services.
    pub services: Informer<Service>,
    /// Endpoints.
    pub endpoints: Informer<Endpoints>,
    /// Endpoint slices.
    pub endpoint_slices: Informer<EndpointSlice>,
    /// Replication controllers.
    pub replication_controllers: Informer<ReplicationController>,
    /// Replica sets, indexed by owner.
    pub replica_sets: Informer<ReplicaSet>,
    /// Deployments.
    pub deployments: Informer<Deployment>,
    /// Budgets of disruptions.
    pub disruption_budgets: Informer<PodDisruptionBudget>,
    /// Flow schemas.
    pub flow_schemas: Informer<FlowSchema>,
    /// Priority levels, metadata only.
    pub priority_levels: Informer<Meta>,
    /// Leases of the nodes (namespace `kube-node-lease`).
    pub node_leases: Informer<Lease>,
    /// Service accounts, metadata only.
    pub service_accounts: Informer<Meta>,
    /// Config maps, metadata only.
    pub config_maps: Informer<Meta>,
    /// Secrets, metadata only.
    pub secrets: Informer<Meta>,
}

impl Informers {
    /// Starts all informers; they run until `shutdown`.
    pub fn start(client: Client, shutdown: CancellationToken) -> Arc<Self> {
        let (c, s) = (&client, &shutdown);
        let core = |plural: &str| Source::path(&format!("/api/v1/{plural}"));
        let apps = |plural: &str| Source::path(&format!("/apis/apps/v1/{plural}"));
        let policy = |plural: &str| Source::path(&format!("/apis/policy/v1/{plural}")).optional();
        let flow = |plural: &str| Source::path(&format!("/apis/flowcontrol.apiserver.k8s.io/v1/{plural}")).optional();
        Arc::new(Self {
            pods: Informer::start_by_node(c, core("pods"), s),
            nodes: Informer::start(c, core("nodes"), s),
            namespaces: Informer::start(c, core("namespaces"), s),
            services: Informer::start(c, core("services"), s),
            endpoints: Informer::start(c, core("endpoints"), s),
            endpoint_slices: Informer::start(c, Source::path("/apis/discovery.k8s.io/v1/endpointslices"), s),
            replication_controllers: Informer::start(c, core("replicationcontrollers"), s),
            replica_sets: Informer::start(c, apps("replicasets"), s),
            deployments: Informer::start(c, apps("deployments"), s),
            disruption_budgets: Informer::start(c, policy("poddisruptionbudgets"), s),
            flow_schemas: Informer::start(c, flow("flowschemas"), s),
            priority_levels: Informer::start(c, flow("prioritylevelconfigurations").metadata_only(), s),
            node_leases: Informer::start(
                c,
                Source::path("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"),
                s,
            ),
            service_accounts: Informer::start(c, core("serviceaccounts").metadata_only(), s),
            config_maps: Informer::start(c, core("configmaps").metadata_only(), s),
            secrets: Informer::start(c, core("secrets").metadata_only(), s),
        })
    }

    /// Waits until every informer has seen everything up to `revision`.
    pub async fn wait_for(&self, revision: u64) {
        tokio::join!(
            self.pods.wait_for(revision),
            self.nodes.wait_for(revision),
            self.namespaces.wait_for(revision),
            self.services.wait_for(revision),
            self.endpoints.wait_for(revision),
            self.endpoint_slices.wait_for(revision),
            self.replication_controllers.wait_for(revision),
            self.replica_sets.wait_for(revision),
            self.deployments.wait_for(revision),
            self.disruption_budgets.wait_for(revision),
            self.flow_schemas.wait_for(revision),
            self.priority_levels.wait_for(revision),
            self.node_leases.wait_for(revision),
            self.service_accounts.wait_for(revision),
            self.config_maps.wait_for(revision),
            self.secrets.wait_for(revision),
        );
    }

    /// What each informer has reached, for logs and metrics: resource to last seen revision.
    pub fn progress(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from([
            ("pods", self.pods.revision()),
            ("nodes", self.nodes.revision()),
            ("namespaces", self.namespaces.revision()),
            ("services", self.services.revision()),
            ("endpoints", self.endpoints.revision()),
            ("endpointslices", self.endpoint_slices.revision()),
            ("replicationcontrollers", self.replication_controllers.revision()),
            ("replicasets", self.replica_sets.revision()),
            ("deployments", self.deployments.revision()),
            ("poddisruptionbudgets", self.disruption_budgets.revision()),
            ("flowschemas", self.flow_schemas.revision()),
            ("prioritylevelconfigurations", self.priority_levels.revision()),
            ("leases", self.node_leases.revision()),
            ("serviceaccounts", self.service_accounts.revision()),
            ("configmaps", self.config_maps.revision()),
            ("secrets", self.secrets.revision()),
        ])
    }
}

//! The printer of each kind.

use super::{Column, Printer, columns, network, objects, pod, workloads};
use jiff::Timestamp;
use serde_json::Value;

impl Printer {
    const fn new(columns: &'static [Column], cells: fn(&Value, Timestamp) -> Vec<Value>) -> Self {
        Self { columns, cells }
    }

    /// Name and age.
    pub const NAME_AND_AGE: Printer = Printer::new(columns::NAME_AND_AGE, objects::name_and_age);
    /// Pods.
    pub const POD: Printer = Printer::new(columns::POD, pod::cells);
    /// PodTemplates.
    pub const POD_TEMPLATE: Printer = Printer::new(columns::POD_TEMPLATE, workloads::pod_template);
    /// ReplicationControllers.
    pub const REPLICATION_CONTROLLER: Printer =
        Printer::new(columns::REPLICATION_CONTROLLER, workloads::replication_controller);
    /// ReplicaSets.
    pub const REPLICA_SET: Printer = Printer::new(columns::REPLICA_SET, workloads::replica_set);
    /// Deployments.
    pub const DEPLOYMENT: Printer = Printer::new(columns::DEPLOYMENT, workloads::deployment);
    /// ControllerRevisions.
    pub const CONTROLLER_REVISION: Printer = Printer::new(columns::CONTROLLER_REVISION, workloads::controller_revision);
    /// Services.
    pub const SERVICE: Printer = Printer::new(columns::SERVICE, network::service);
    /// Endpoints.
    pub const ENDPOINTS: Printer = Printer::new(columns::ENDPOINTS, network::endpoints);
    /// EndpointSlices.
    pub const ENDPOINT_SLICE: Printer = Printer::new(columns::ENDPOINT_SLICE, network::endpoint_slice);
    /// Nodes.
    pub const NODE: Printer = Printer::new(columns::NODE, objects::node);
    /// Namespaces.
    pub const NAMESPACE: Printer = Printer::new(columns::NAMESPACE, objects::namespace);
    /// Secrets.
    pub const SECRET: Printer = Printer::new(columns::SECRET, objects::secret);
    /// ConfigMaps.
    pub const CONFIG_MAP: Printer = Printer::new(columns::CONFIG_MAP, objects::config_map);
    /// ServiceAccounts.
    pub const SERVICE_ACCOUNT: Printer = Printer::new(columns::SERVICE_ACCOUNT, objects::service_account);
    /// Events of both groups.
    pub const EVENT: Printer = Printer::new(columns::EVENT, objects::event);
    /// Leases.
    pub const LEASE: Printer = Printer::new(columns::LEASE, objects::lease);
    /// PriorityClasses.
    pub const PRIORITY_CLASS: Printer = Printer::new(columns::PRIORITY_CLASS, objects::priority_class);
    /// RuntimeClasses.
    pub const RUNTIME_CLASS: Printer = Printer::new(columns::RUNTIME_CLASS, objects::runtime_class);
}

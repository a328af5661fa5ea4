//! The printer of each kind.

use super::{
    Column, Printer, batch, columns, columns_policy, columns_workloads, network, objects, pod, policy, storage,
    unstable, workloads,
};
use jiff::Timestamp;
use serde_json::Value;

impl Printer {
    const fn new(columns: &'static [Column], cells: fn(&Value, Timestamp) -> Vec<Value>) -> Self {
        Self { columns, cells }
    }

    /// Name and age.
    pub const NAME_AND_AGE: Printer = Printer::new(columns::NAME_AND_AGE, objects::name_and_age);
    /// The sub-resource `scale` of any kind.
    pub const SCALE: Printer = Printer::new(columns::SCALE, workloads::scale);
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
    /// Name and time of creation.
    pub const NAME_AND_CREATION: Printer = Printer::new(columns::NAME_AND_CREATION, storage::name_and_creation);
    /// DaemonSets.
    pub const DAEMON_SET: Printer = Printer::new(columns_workloads::DAEMON_SET, batch::daemon_set);
    /// StatefulSets.
    pub const STATEFUL_SET: Printer = Printer::new(columns_workloads::STATEFUL_SET, batch::stateful_set);
    /// Jobs.
    pub const JOB: Printer = Printer::new(columns_workloads::JOB, batch::job);
    /// CronJobs.
    pub const CRON_JOB: Printer = Printer::new(columns_workloads::CRON_JOB, batch::cron_job);
    /// HorizontalPodAutoscalers of v2.
    pub const AUTOSCALER: Printer = Printer::new(columns_workloads::AUTOSCALER, batch::autoscaler);
    /// PodDisruptionBudgets.
    pub const BUDGET: Printer = Printer::new(columns_workloads::BUDGET, batch::disruption_budget);
    /// ResourceQuotas.
    pub const RESOURCE_QUOTA: Printer = Printer::new(columns_workloads::RESOURCE_QUOTA, storage::resource_quota);
    /// PersistentVolumes.
    pub const PERSISTENT_VOLUME: Printer =
        Printer::new(columns_workloads::PERSISTENT_VOLUME, storage::persistent_volume);
    /// PersistentVolumeClaims.
    pub const PERSISTENT_VOLUME_CLAIM: Printer =
        Printer::new(columns_workloads::PERSISTENT_VOLUME_CLAIM, storage::persistent_volume_claim);
    /// ComponentStatuses.
    pub const COMPONENT_STATUS: Printer = Printer::new(columns_workloads::COMPONENT_STATUS, storage::component_status);
    /// StorageClasses.
    pub const STORAGE_CLASS: Printer = Printer::new(columns_workloads::STORAGE_CLASS, storage::storage_class);
    /// VolumeAttachments.
    pub const VOLUME_ATTACHMENT: Printer =
        Printer::new(columns_workloads::VOLUME_ATTACHMENT, storage::volume_attachment);
    /// CSIDrivers.
    pub const CSI_DRIVER: Printer = Printer::new(columns_workloads::CSI_DRIVER, storage::csi_driver);
    /// CSINodes.
    pub const CSI_NODE: Printer = Printer::new(columns_workloads::CSI_NODE, storage::csi_node);
    /// CSIStorageCapacities.
    pub const CSI_STORAGE_CAPACITY: Printer =
        Printer::new(columns_workloads::CSI_STORAGE_CAPACITY, storage::csi_storage_capacity);
    /// VolumeAttributesClasses.
    pub const VOLUME_ATTRIBUTES_CLASS: Printer =
        Printer::new(columns_workloads::VOLUME_ATTRIBUTES_CLASS, storage::volume_attributes_class);
    /// HorizontalPodAutoscalers of v1.
    pub const AUTOSCALER_V1: Printer = Printer::new(columns_workloads::AUTOSCALER, batch::autoscaler_v1);
    /// RoleBindings.
    pub const ROLE_BINDING: Printer = Printer::new(columns_policy::ROLE_BINDING, policy::role_binding);
    /// ClusterRoleBindings.
    pub const CLUSTER_ROLE_BINDING: Printer = Printer::new(columns_policy::CLUSTER_ROLE_BINDING, policy::role_binding);
    /// Ingresses.
    pub const INGRESS: Printer = Printer::new(columns_policy::INGRESS, policy::ingress);
    /// IngressClasses.
    pub const INGRESS_CLASS: Printer = Printer::new(columns_policy::INGRESS_CLASS, policy::ingress_class);
    /// NetworkPolicies.
    pub const NETWORK_POLICY: Printer = Printer::new(columns_policy::NETWORK_POLICY, policy::network_policy);
    /// IPAddresses.
    pub const IP_ADDRESS: Printer = Printer::new(columns_policy::IP_ADDRESS, policy::ip_address);
    /// ServiceCIDRs.
    pub const SERVICE_CIDR: Printer = Printer::new(columns_policy::SERVICE_CIDR, policy::service_cidr);
    /// CertificateSigningRequests.
    pub const SIGNING_REQUEST: Printer = Printer::new(columns_policy::SIGNING_REQUEST, policy::signing_request);
    /// FlowSchemas.
    pub const FLOW_SCHEMA: Printer = Printer::new(columns_policy::FLOW_SCHEMA, policy::flow_schema);
    /// PriorityLevelConfigurations.
    pub const PRIORITY_LEVEL: Printer = Printer::new(columns_policy::PRIORITY_LEVEL, policy::priority_level);
    /// Configurations of webhooks.
    pub const WEBHOOKS: Printer = Printer::new(columns_policy::WEBHOOKS, policy::webhooks);
    /// ValidatingAdmissionPolicies.
    pub const VALIDATING_POLICY: Printer = Printer::new(columns_policy::VALIDATING_POLICY, policy::validating_policy);
    /// Their bindings.
    pub const VALIDATING_POLICY_BINDING: Printer =
        Printer::new(columns_policy::VALIDATING_POLICY_BINDING, policy::policy_binding);
    /// MutatingAdmissionPolicies.
    pub const MUTATING_POLICY: Printer = Printer::new(columns_policy::MUTATING_POLICY, policy::mutating_policy);
    /// Their bindings.
    pub const MUTATING_POLICY_BINDING: Printer =
        Printer::new(columns_policy::MUTATING_POLICY_BINDING, policy::policy_binding);
    /// ResourceClaims.
    pub const RESOURCE_CLAIM: Printer = Printer::new(columns_policy::RESOURCE_CLAIM, policy::resource_claim);
    /// ResourceSlices.
    pub const RESOURCE_SLICE: Printer = Printer::new(columns_policy::RESOURCE_SLICE, policy::resource_slice);
    /// APIServices.
    pub const API_SERVICE: Printer = Printer::new(columns_policy::API_SERVICE, policy::api_service);
    /// ClusterTrustBundles.
    pub const TRUST_BUNDLE: Printer = Printer::new(unstable::TRUST_BUNDLE, unstable::trust_bundle);
    /// PodCertificateRequests.
    pub const POD_CERTIFICATE: Printer = Printer::new(unstable::POD_CERTIFICATE, unstable::pod_certificate);
    /// LeaseCandidates.
    pub const LEASE_CANDIDATE: Printer = Printer::new(unstable::LEASE_CANDIDATE, unstable::lease_candidate);
    /// StorageVersionMigrations.
    pub const MIGRATION: Printer = Printer::new(unstable::MIGRATION, unstable::migration);
    /// StorageVersions.
    pub const STORAGE_VERSION: Printer = Printer::new(unstable::STORAGE_VERSION, unstable::storage_version);
}

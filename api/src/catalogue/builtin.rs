//! The table of built-in kinds: here those that something acts on, or that are inert upstream as well (PodTemplate,
//! ControllerRevision, PriorityClass and RuntimeClass).

use super::entry::{ALL_VERBS, CREATE, Entry, NO_COLLECTION_DELETE, STATUS_VERBS, SubEntry};
use super::hooks::Hooks;
use super::resource::Scope;
use crate::convert;
use crate::defaults::{objects, pod, service, workloads};
use crate::names;
use crate::prepare::kinds;
use crate::table::Printer;
use crate::validate::{self, network, warnings};

pub(super) const STATUS: SubEntry = SubEntry { name: "status", verbs: STATUS_VERBS, gvk: ("", "", "") };
pub(super) const SCALE: SubEntry = SubEntry { name: "scale", verbs: STATUS_VERBS, gvk: ("autoscaling", "v1", "Scale") };
pub(super) const ALL: &[&str] = &["all"];

/// Passing requests on, whatever they are.
const fn proxy(kind: &'static str) -> SubEntry {
    SubEntry { name: "proxy", verbs: &["create", "delete", "get", "patch", "update"], gvk: ("", "", kind) }
}

/// The groups in upstream's order.
const GROUPS: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "resource.k8s.io",
    "storagemigration.k8s.io",
];

/// Every built-in entry, in discovery order.
pub fn entries() -> Vec<Entry> {
    let stable: Vec<&'static Entry> =
        CORE.iter().chain(APPS).chain(OTHERS).chain(super::workloads::ENTRIES).chain(super::cluster::ENTRIES).collect();
    let mut all: Vec<Entry> = stable.iter().copied().copied().collect();
    all.extend(super::unstable::entries(&stable));
    all.sort_by_key(|entry| GROUPS.iter().position(|group| *group == entry.group).unwrap_or(GROUPS.len()));
    all
}

const CORE: &[Entry] = &[
    Entry {
        kind: "ConfigMap",
        plural: "configmaps",
        short_names: &["cm"],
        definition: "io.k8s.api.core.v1.ConfigMap",
        hooks: Hooks {
            validate: validate::objects::config_map,
            validate_update: validate::objects::data_update,
            ..Hooks::NONE
        },
        printer: Printer::CONFIG_MAP,
        ..Entry::BASE
    },
    Entry {
        kind: "Endpoints",
        plural: "endpoints",
        short_names: &["ep"],
        definition: "io.k8s.api.core.v1.Endpoints",
        hooks: Hooks {
            default: service::endpoints,
            validate: network::endpoints,
            warnings: warnings::endpoints,
            ..Hooks::NONE
        },
        printer: Printer::ENDPOINTS,
        ..Entry::BASE
    },
    Entry {
        kind: "Event",
        plural: "events",
        short_names: &["ev"],
        definition: "io.k8s.api.core.v1.Event",
        fields: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        hooks: Hooks { default: objects::core_event, validate: validate::objects::core_event, ..Hooks::NONE },
        printer: Printer::EVENT,
        ..Entry::BASE
    },
    Entry {
        kind: "Namespace",
        plural: "namespaces",
        short_names: &["ns"],
        scope: Scope::Cluster,
        verbs: NO_COLLECTION_DELETE,
        subresources: &[SubEntry { name: "finalize", verbs: &["update"], gvk: ("", "", "") }, STATUS],
        definition: "io.k8s.api.core.v1.Namespace",
        fields: &["status.phase"],
        hooks: Hooks {
            name: names::label_name,
            default: objects::namespace,
            prepare_create: kinds::create_namespace,
            prepare_update: kinds::update_namespace,
            validate: validate::objects::namespace,
            ..Hooks::NONE
        },
        printer: Printer::NAMESPACE,
        ..Entry::BASE
    },
    Entry {
        kind: "Node",
        plural: "nodes",
        short_names: &["no"],
        scope: Scope::Cluster,
        subresources: &[proxy("NodeProxyOptions"), STATUS],
        definition: "io.k8s.api.core.v1.Node",
        fields: &["spec.unschedulable"],
        hooks: Hooks {
            default: objects::node,
            keeps_status_on_create: true,
            validate: validate::objects::node,
            validate_update: validate::objects::node_update,
            ..Hooks::NONE
        },
        printer: Printer::NODE,
        ..Entry::BASE
    },
    Entry {
        kind: "Pod",
        plural: "pods",
        short_names: &["po"],
        categories: ALL,
        subresources: &[
            SubEntry { name: "attach", verbs: &["create", "get"], gvk: ("", "", "PodAttachOptions") },
            SubEntry { name: "binding", verbs: &["create"], gvk: ("", "", "Binding") },
            SubEntry { name: "ephemeralcontainers", verbs: STATUS_VERBS, gvk: ("", "", "") },
            SubEntry { name: "eviction", verbs: &["create"], gvk: ("policy", "v1", "Eviction") },
            SubEntry { name: "exec", verbs: &["create", "get"], gvk: ("", "", "PodExecOptions") },
            SubEntry { name: "log", verbs: &["get"], gvk: ("", "", "") },
            SubEntry { name: "portforward", verbs: &["create", "get"], gvk: ("", "", "PodPortForwardOptions") },
            proxy("PodProxyOptions"),
            SubEntry { name: "resize", verbs: STATUS_VERBS, gvk: ("", "", "") },
            STATUS,
        ],
        definition: "io.k8s.api.core.v1.Pod",
        fields: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        generation: true,
        hooks: Hooks {
            default: pod::pod,
            prepare_create: kinds::create_pod,
            prepare_update: kinds::update_pod,
            validate: validate::pod::pod,
            validate_update: validate::pod::update,
            warnings: warnings::pod,
            ..Hooks::NONE
        },
        printer: Printer::POD,
        ..Entry::BASE
    },
    Entry {
        kind: "PodTemplate",
        plural: "podtemplates",
        definition: "io.k8s.api.core.v1.PodTemplate",
        generation: true,
        hooks: Hooks {
            default: workloads::pod_template,
            validate: validate::workloads::template_object,
            ..Hooks::NONE
        },
        printer: Printer::POD_TEMPLATE,
        ..Entry::BASE
    },
    Entry {
        kind: "ReplicationController",
        plural: "replicationcontrollers",
        short_names: &["rc"],
        categories: ALL,
        subresources: &[SCALE, STATUS],
        definition: "io.k8s.api.core.v1.ReplicationController",
        fields: &["status.replicas"],
        generation: true,
        hooks: Hooks {
            default: workloads::replication_controller,
            prepare_create: kinds::create_scaled,
            validate: validate::workloads::replication_controller,
            validate_update: validate::workloads::status_update,
            warnings: warnings::template,
            ..Hooks::NONE
        },
        printer: Printer::REPLICATION_CONTROLLER,
        ..Entry::BASE
    },
    Entry {
        kind: "Secret",
        plural: "secrets",
        definition: "io.k8s.api.core.v1.Secret",
        fields: &["type"],
        hooks: Hooks {
            default: objects::secret,
            validate: validate::objects::secret,
            validate_update: validate::objects::data_update,
            ..Hooks::NONE
        },
        printer: Printer::SECRET,
        ..Entry::BASE
    },
    Entry {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short_names: &["sa"],
        subresources: &[SubEntry {
            name: "token",
            verbs: CREATE,
            gvk: ("authentication.k8s.io", "v1", "TokenRequest"),
        }],
        definition: "io.k8s.api.core.v1.ServiceAccount",
        printer: Printer::SERVICE_ACCOUNT,
        ..Entry::BASE
    },
    Entry {
        kind: "Service",
        plural: "services",
        short_names: &["svc"],
        categories: ALL,
        subresources: &[proxy("ServiceProxyOptions"), STATUS],
        definition: "io.k8s.api.core.v1.Service",
        fields: &["spec.clusterIP", "spec.type"],
        hooks: Hooks {
            name: names::label_1035_name,
            default: service::service,
            prepare_create: kinds::create_service,
            prepare_update: kinds::update_service,
            validate: network::service,
            validate_update: network::service_update,
            warnings: warnings::service,
            ..Hooks::NONE
        },
        printer: Printer::SERVICE,
        ..Entry::BASE
    },
];

const APPS: &[Entry] = &[
    Entry {
        group: "apps",
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        definition: "io.k8s.api.apps.v1.ControllerRevision",
        hooks: Hooks {
            validate: validate::workloads::controller_revision,
            validate_update: validate::workloads::controller_revision_update,
            ..Hooks::NONE
        },
        printer: Printer::CONTROLLER_REVISION,
        ..Entry::BASE
    },
    Entry {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        short_names: &["deploy"],
        categories: ALL,
        subresources: &[SCALE, STATUS],
        definition: "io.k8s.api.apps.v1.Deployment",
        generation: true,
        hooks: Hooks {
            default: workloads::deployment,
            prepare_create: kinds::create_with_status,
            validate: validate::workloads::deployment,
            validate_update: validate::workloads::selector_update,
            warnings: warnings::template,
            ..Hooks::NONE
        },
        printer: Printer::DEPLOYMENT,
        ..Entry::BASE
    },
    Entry {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        short_names: &["rs"],
        categories: ALL,
        subresources: &[SCALE, STATUS],
        definition: "io.k8s.api.apps.v1.ReplicaSet",
        fields: &["status.replicas"],
        generation: true,
        hooks: Hooks {
            default: workloads::replica_set,
            prepare_create: kinds::create_scaled,
            validate: validate::workloads::replica_set,
            validate_update: validate::workloads::selector_update,
            warnings: warnings::template,
            ..Hooks::NONE
        },
        printer: Printer::REPLICA_SET,
        ..Entry::BASE
    },
];

const OTHERS: &[Entry] = &[
    Entry {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        short_names: &["ev"],
        storage: Some(("", "v1", "Event", "events")),
        definition: "io.k8s.api.events.v1.Event",
        fields: &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        hooks: Hooks {
            validate: validate::objects::event,
            to_storage: convert::event_to_core,
            from_storage: convert::event_from_core,
            ..Hooks::NONE
        },
        printer: Printer::EVENT,
        ..Entry::BASE
    },
    Entry {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        definition: "io.k8s.api.coordination.v1.Lease",
        hooks: Hooks { validate: validate::objects::lease, ..Hooks::NONE },
        printer: Printer::LEASE,
        ..Entry::BASE
    },
    Entry {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        definition: "io.k8s.api.discovery.v1.EndpointSlice",
        generation: true,
        hooks: Hooks {
            default: service::endpoint_slice,
            validate: network::endpoint_slice,
            validate_update: network::endpoint_slice_update,
            ..Hooks::NONE
        },
        printer: Printer::ENDPOINT_SLICE,
        ..Entry::BASE
    },
    Entry {
        group: "node.k8s.io",
        kind: "RuntimeClass",
        plural: "runtimeclasses",
        scope: Scope::Cluster,
        definition: "io.k8s.api.node.v1.RuntimeClass",
        hooks: Hooks {
            validate: validate::objects::runtime_class,
            validate_update: validate::objects::runtime_class_update,
            ..Hooks::NONE
        },
        printer: Printer::RUNTIME_CLASS,
        ..Entry::BASE
    },
    Entry {
        group: "scheduling.k8s.io",
        kind: "PriorityClass",
        plural: "priorityclasses",
        short_names: &["pc"],
        scope: Scope::Cluster,
        verbs: ALL_VERBS,
        definition: "io.k8s.api.scheduling.v1.PriorityClass",
        generation: true,
        hooks: Hooks {
            default: objects::priority_class,
            validate: validate::objects::priority_class,
            validate_update: validate::objects::priority_class_update,
            ..Hooks::NONE
        },
        printer: Printer::PRIORITY_CLASS,
        ..Entry::BASE
    },
];

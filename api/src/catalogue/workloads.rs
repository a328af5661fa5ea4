//! Entries of controllers of pods, autoscalers, budgets, quotas, volumes and the storage group. Nothing acts on them yet: they are
//! stored, served, validated and watched.

use super::builtin::{ALL, SCALE, STATUS};
use super::entry::{CREATE, Entry};
use super::hooks::Hooks;
use super::resource::Scope;
use crate::convert::autoscaler;
use crate::defaults::{batch, storage};
use crate::prepare::{kinds, storage as prepared, workloads};
use crate::table::Printer;
use crate::validate::{self, warnings};

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        group: "apps",
        kind: "DaemonSet",
        plural: "daemonsets",
        short_names: &["ds"],
        categories: ALL,
        subresources: &[STATUS],
        definition: "io.k8s.api.apps.v1.DaemonSet",
        generation: true,
        hooks: Hooks {
            default: batch::daemon_set,
            prepare_create: workloads::create_daemon_set,
            prepare_update: workloads::update_daemon_set,
            validate: validate::workloads::daemon_set,
            validate_update: validate::workloads::daemon_set_update,
            warnings: warnings::template,
            ..Hooks::NONE
        },
        printer: Printer::DAEMON_SET,
        ..Entry::BASE
    },
    Entry {
        group: "apps",
        kind: "StatefulSet",
        plural: "statefulsets",
        short_names: &["sts"],
        categories: ALL,
        subresources: &[SCALE, STATUS],
        definition: "io.k8s.api.apps.v1.StatefulSet",
        generation: true,
        hooks: Hooks {
            default: batch::stateful_set,
            prepare_create: workloads::create_stateful_set,
            validate: validate::workloads::stateful_set,
            validate_update: validate::workloads::stateful_set_update,
            warnings: warnings::template,
            ..Hooks::NONE
        },
        printer: Printer::STATEFUL_SET,
        ..Entry::BASE
    },
    Entry {
        group: "autoscaling",
        version: "v2",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        short_names: &["hpa"],
        categories: ALL,
        subresources: &[STATUS],
        definition: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
        hooks: Hooks {
            default: batch::autoscaler_v2,
            prepare_create: workloads::create_autoscaler_v2,
            validate: validate::autoscaling::v2,
            validate_update: validate::autoscaling::update,
            ..Hooks::NONE
        },
        printer: Printer::AUTOSCALER,
        ..Entry::BASE
    },
    Entry {
        group: "autoscaling",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        short_names: &["hpa"],
        categories: ALL,
        subresources: &[STATUS],
        storage: Some(("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")),
        definition: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
        hooks: Hooks {
            default: batch::autoscaler_v1,
            prepare_create: workloads::create_autoscaler,
            validate: validate::autoscaling::v1,
            validate_update: validate::autoscaling::update,
            to_storage: autoscaler::to_v2,
            from_storage: autoscaler::to_v1,
            ..Hooks::NONE
        },
        printer: Printer::AUTOSCALER_V1,
        ..Entry::BASE
    },
    Entry {
        group: "batch",
        kind: "CronJob",
        plural: "cronjobs",
        short_names: &["cj"],
        categories: ALL,
        subresources: &[STATUS],
        definition: "io.k8s.api.batch.v1.CronJob",
        generation: true,
        hooks: Hooks {
            default: batch::cron_job,
            prepare_create: kinds::create_with_status,
            validate: validate::batch::cron_job,
            ..Hooks::NONE
        },
        printer: Printer::CRON_JOB,
        ..Entry::BASE
    },
    Entry {
        group: "batch",
        kind: "Job",
        plural: "jobs",
        categories: ALL,
        subresources: &[STATUS],
        definition: "io.k8s.api.batch.v1.Job",
        fields: &["status.successful"],
        generation: true,
        hooks: Hooks {
            default: batch::job,
            prepare_create: workloads::create_job,
            validate: validate::batch::job,
            validate_update: validate::batch::job_update,
            warnings: warnings::template,
            ..Hooks::NONE
        },
        printer: Printer::JOB,
        ..Entry::BASE
    },
    Entry {
        group: "policy",
        kind: "PodDisruptionBudget",
        plural: "poddisruptionbudgets",
        short_names: &["pdb"],
        subresources: &[STATUS],
        definition: "io.k8s.api.policy.v1.PodDisruptionBudget",
        generation: true,
        hooks: Hooks {
            prepare_create: workloads::create_budget,
            validate: validate::autoscaling::disruption_budget,
            validate_update: validate::autoscaling::disruption_budget_update,
            ..Hooks::NONE
        },
        printer: Printer::BUDGET,
        ..Entry::BASE
    },
    Entry {
        kind: "Binding",
        plural: "bindings",
        verbs: CREATE,
        definition: "io.k8s.api.core.v1.Binding",
        ..Entry::BASE
    },
    Entry {
        kind: "ComponentStatus",
        plural: "componentstatuses",
        short_names: &["cs"],
        scope: Scope::Cluster,
        verbs: &["get", "list"],
        definition: "io.k8s.api.core.v1.ComponentStatus",
        printer: Printer::COMPONENT_STATUS,
        ..Entry::BASE
    },
    Entry {
        kind: "LimitRange",
        plural: "limitranges",
        short_names: &["limits"],
        definition: "io.k8s.api.core.v1.LimitRange",
        hooks: Hooks { default: storage::limit_range, validate: validate::quota::limit_range, ..Hooks::NONE },
        ..Entry::BASE
    },
    Entry {
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        short_names: &["pv"],
        scope: Scope::Cluster,
        subresources: &[STATUS],
        definition: "io.k8s.api.core.v1.PersistentVolume",
        hooks: Hooks {
            default: storage::persistent_volume,
            prepare_create: prepared::create_volume,
            validate: validate::storage::persistent_volume,
            validate_update: validate::storage::persistent_volume_update,
            ..Hooks::NONE
        },
        printer: Printer::PERSISTENT_VOLUME,
        ..Entry::BASE
    },
    Entry {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        short_names: &["pvc"],
        subresources: &[STATUS],
        definition: "io.k8s.api.core.v1.PersistentVolumeClaim",
        hooks: Hooks {
            default: storage::persistent_volume_claim,
            prepare_create: prepared::create_claim,
            validate: validate::storage::persistent_volume_claim,
            validate_update: validate::storage::persistent_volume_claim_update,
            ..Hooks::NONE
        },
        printer: Printer::PERSISTENT_VOLUME_CLAIM,
        ..Entry::BASE
    },
    Entry {
        kind: "ResourceQuota",
        plural: "resourcequotas",
        short_names: &["quota"],
        subresources: &[STATUS],
        definition: "io.k8s.api.core.v1.ResourceQuota",
        hooks: Hooks {
            prepare_create: kinds::create_with_status,
            validate: validate::quota::resource_quota,
            validate_update: validate::quota::resource_quota_update,
            ..Hooks::NONE
        },
        printer: Printer::RESOURCE_QUOTA,
        ..Entry::BASE
    },
    Entry {
        group: "storage.k8s.io",
        kind: "CSIDriver",
        plural: "csidrivers",
        scope: Scope::Cluster,
        definition: "io.k8s.api.storage.v1.CSIDriver",
        hooks: Hooks {
            default: storage::csi_driver,
            validate: validate::storage::csi_driver,
            validate_update: validate::storage::csi_driver_update,
            ..Hooks::NONE
        },
        printer: Printer::CSI_DRIVER,
        ..Entry::BASE
    },
    Entry {
        group: "storage.k8s.io",
        kind: "CSINode",
        plural: "csinodes",
        scope: Scope::Cluster,
        definition: "io.k8s.api.storage.v1.CSINode",
        hooks: Hooks {
            validate: validate::storage::csi_node,
            validate_update: validate::storage::csi_node_update,
            ..Hooks::NONE
        },
        printer: Printer::CSI_NODE,
        ..Entry::BASE
    },
    Entry {
        group: "storage.k8s.io",
        kind: "CSIStorageCapacity",
        plural: "csistoragecapacities",
        definition: "io.k8s.api.storage.v1.CSIStorageCapacity",
        hooks: Hooks {
            validate: validate::storage::csi_storage_capacity,
            validate_update: validate::storage::csi_storage_capacity_update,
            ..Hooks::NONE
        },
        printer: Printer::CSI_STORAGE_CAPACITY,
        ..Entry::BASE
    },
    Entry {
        group: "storage.k8s.io",
        kind: "StorageClass",
        plural: "storageclasses",
        short_names: &["sc"],
        scope: Scope::Cluster,
        definition: "io.k8s.api.storage.v1.StorageClass",
        hooks: Hooks {
            default: storage::storage_class,
            validate: validate::storage::storage_class,
            validate_update: validate::storage::storage_class_update,
            ..Hooks::NONE
        },
        printer: Printer::STORAGE_CLASS,
        ..Entry::BASE
    },
    Entry {
        group: "storage.k8s.io",
        kind: "VolumeAttachment",
        plural: "volumeattachments",
        scope: Scope::Cluster,
        subresources: &[STATUS],
        definition: "io.k8s.api.storage.v1.VolumeAttachment",
        hooks: Hooks {
            prepare_create: prepared::create_attachment,
            validate: validate::storage::volume_attachment,
            validate_update: validate::storage::volume_attachment_update,
            ..Hooks::NONE
        },
        printer: Printer::VOLUME_ATTACHMENT,
        ..Entry::BASE
    },
    Entry {
        group: "storage.k8s.io",
        kind: "VolumeAttributesClass",
        plural: "volumeattributesclasses",
        short_names: &["vac"],
        scope: Scope::Cluster,
        definition: "io.k8s.api.storage.v1.VolumeAttributesClass",
        hooks: Hooks {
            validate: validate::storage::volume_attributes_class,
            validate_update: validate::storage::volume_attributes_class_update,
            ..Hooks::NONE
        },
        printer: Printer::VOLUME_ATTRIBUTES_CLASS,
        ..Entry::BASE
    },
];

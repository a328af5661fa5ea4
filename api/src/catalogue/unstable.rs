//! Beta and alpha versions, which are served only where they are asked for. Those with the same type as a stable one show the
//! same objects and behave the same; the others are kinds of their own that nothing acts on.

use super::entry::Entry;
use super::hooks::Hooks;
use super::resource::Scope;
use crate::convert::devices;
use crate::names;
use crate::prepare::kinds;
use crate::table::Printer;
use crate::validate::unstable;

use super::builtin::STATUS;

/// Group, plural, version and definition of what has the type of a stable version.
const SIBLINGS: &[(&str, &str, &str, &str)] = &[
    (
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicies",
        "v1beta1",
        "io.k8s.api.admissionregistration.v1beta1.MutatingAdmissionPolicy",
    ),
    (
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings",
        "v1beta1",
        "io.k8s.api.admissionregistration.v1beta1.MutatingAdmissionPolicyBinding",
    ),
    (
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicies",
        "v1alpha1",
        "io.k8s.api.admissionregistration.v1alpha1.MutatingAdmissionPolicy",
    ),
    (
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings",
        "v1alpha1",
        "io.k8s.api.admissionregistration.v1alpha1.MutatingAdmissionPolicyBinding",
    ),
    ("networking.k8s.io", "ipaddresses", "v1beta1", "io.k8s.api.networking.v1beta1.IPAddress"),
    ("networking.k8s.io", "servicecidrs", "v1beta1", "io.k8s.api.networking.v1beta1.ServiceCIDR"),
    ("storage.k8s.io", "volumeattributesclasses", "v1beta1", "io.k8s.api.storage.v1beta1.VolumeAttributesClass"),
    ("resource.k8s.io", "deviceclasses", "v1beta2", "io.k8s.api.resource.v1beta2.DeviceClass"),
    ("resource.k8s.io", "resourceclaims", "v1beta2", "io.k8s.api.resource.v1beta2.ResourceClaim"),
    ("resource.k8s.io", "resourceclaimtemplates", "v1beta2", "io.k8s.api.resource.v1beta2.ResourceClaimTemplate"),
    ("resource.k8s.io", "resourceslices", "v1beta2", "io.k8s.api.resource.v1beta2.ResourceSlice"),
    ("resource.k8s.io", "deviceclasses", "v1beta1", "io.k8s.api.resource.v1beta1.DeviceClass"),
    ("resource.k8s.io", "resourceclaims", "v1beta1", "io.k8s.api.resource.v1beta1.ResourceClaim"),
    ("resource.k8s.io", "resourceclaimtemplates", "v1beta1", "io.k8s.api.resource.v1beta1.ResourceClaimTemplate"),
    ("resource.k8s.io", "resourceslices", "v1beta1", "io.k8s.api.resource.v1beta1.ResourceSlice"),
    ("certificates.k8s.io", "clustertrustbundles", "v1alpha1", "io.k8s.api.certificates.v1alpha1.ClusterTrustBundle"),
    ("coordination.k8s.io", "leasecandidates", "v1alpha2", "io.k8s.api.coordination.v1alpha2.LeaseCandidate"),
    ("resource.k8s.io", "devicetaintrules", "v1alpha3", "io.k8s.api.resource.v1alpha3.DeviceTaintRule"),
];

/// Kinds that have no stable version, each in the version that it is stored as.
const OWN: &[Entry] = &[
    Entry {
        group: "certificates.k8s.io",
        version: "v1beta1",
        kind: "ClusterTrustBundle",
        plural: "clustertrustbundles",
        scope: Scope::Cluster,
        definition: "io.k8s.api.certificates.v1beta1.ClusterTrustBundle",
        fields: &["spec.signerName"],
        hooks: Hooks {
            name: names::path_segment_name,
            validate: unstable::trust_bundle,
            validate_update: unstable::trust_bundle_update,
            ..Hooks::NONE
        },
        printer: Printer::TRUST_BUNDLE,
        ..Entry::BASE
    },
    Entry {
        group: "certificates.k8s.io",
        version: "v1beta1",
        kind: "PodCertificateRequest",
        plural: "podcertificaterequests",
        subresources: &[STATUS],
        definition: "io.k8s.api.certificates.v1beta1.PodCertificateRequest",
        fields: &["spec.signerName", "spec.podName", "spec.nodeName"],
        hooks: Hooks {
            prepare_create: kinds::create_with_status,
            validate_update: unstable::fixed_spec,
            ..Hooks::NONE
        },
        printer: Printer::POD_CERTIFICATE,
        ..Entry::BASE
    },
    Entry {
        group: "coordination.k8s.io",
        version: "v1beta1",
        kind: "LeaseCandidate",
        plural: "leasecandidates",
        definition: "io.k8s.api.coordination.v1beta1.LeaseCandidate",
        hooks: Hooks { validate: unstable::lease_candidate, ..Hooks::NONE },
        printer: Printer::LEASE_CANDIDATE,
        ..Entry::BASE
    },
    Entry {
        group: "resource.k8s.io",
        version: "v1beta2",
        kind: "DeviceTaintRule",
        plural: "devicetaintrules",
        scope: Scope::Cluster,
        subresources: &[STATUS],
        definition: "io.k8s.api.resource.v1beta2.DeviceTaintRule",
        generation: true,
        hooks: Hooks { prepare_create: kinds::create_with_status, validate: unstable::taint_rule, ..Hooks::NONE },
        printer: Printer::NAME_AND_AGE,
        ..Entry::BASE
    },
    Entry {
        group: "resource.k8s.io",
        version: "v1alpha3",
        kind: "ResourcePoolStatusRequest",
        plural: "resourcepoolstatusrequests",
        scope: Scope::Cluster,
        subresources: &[STATUS],
        definition: "io.k8s.api.resource.v1alpha3.ResourcePoolStatusRequest",
        hooks: Hooks { validate: unstable::pool_status_request, validate_update: unstable::fixed_spec, ..Hooks::NONE },
        printer: Printer::NAME_AND_AGE,
        ..Entry::BASE
    },
    Entry {
        group: "scheduling.k8s.io",
        version: "v1alpha2",
        kind: "PodGroup",
        plural: "podgroups",
        subresources: &[STATUS],
        definition: "io.k8s.api.scheduling.v1alpha2.PodGroup",
        hooks: Hooks {
            prepare_create: kinds::create_with_status,
            validate_update: unstable::fixed_spec,
            ..Hooks::NONE
        },
        printer: Printer::NAME_AND_AGE,
        ..Entry::BASE
    },
    Entry {
        group: "scheduling.k8s.io",
        version: "v1alpha2",
        kind: "Workload",
        plural: "workloads",
        definition: "io.k8s.api.scheduling.v1alpha2.Workload",
        hooks: Hooks { validate: unstable::workload, ..Hooks::NONE },
        printer: Printer::NAME_AND_AGE,
        ..Entry::BASE
    },
    Entry {
        group: "storagemigration.k8s.io",
        version: "v1beta1",
        kind: "StorageVersionMigration",
        plural: "storageversionmigrations",
        scope: Scope::Cluster,
        subresources: &[STATUS],
        definition: "io.k8s.api.storagemigration.v1beta1.StorageVersionMigration",
        generation: true,
        hooks: Hooks {
            prepare_create: kinds::create_with_status,
            validate: unstable::migration,
            validate_update: unstable::fixed_spec,
            ..Hooks::NONE
        },
        printer: Printer::MIGRATION,
        ..Entry::BASE
    },
    Entry {
        group: "internal.apiserver.k8s.io",
        version: "v1alpha1",
        kind: "StorageVersion",
        plural: "storageversions",
        scope: Scope::Cluster,
        subresources: &[STATUS],
        definition: "io.k8s.api.apiserverinternal.v1alpha1.StorageVersion",
        hooks: Hooks { prepare_create: kinds::create_with_status, ..Hooks::NONE },
        printer: Printer::STORAGE_VERSION,
        ..Entry::BASE
    },
];

/// All of them, the newer versions of a group first.
pub(super) fn entries(stable: &[&'static Entry]) -> Vec<Entry> {
    let mut all: Vec<Entry> = OWN.to_vec();
    for (group, plural, version, definition) in SIBLINGS {
        let same = |entry: &&Entry| entry.group == *group && entry.plural == *plural;
        let found = stable.iter().copied().find(same).or_else(|| OWN.iter().find(same));
        if let Some(found) = found {
            let storage = Some((found.group, found.version, found.kind, found.plural));
            let hooks = if *version == "v1beta1" { older(plural, found.hooks) } else { found.hooks };
            all.push(Entry { version, definition, storage, hooks, ..*found });
        }
    }
    // v1beta2, v1beta1, v1alpha3, v1alpha2 …
    all.sort_by(|a, b| b.version.cmp(a.version));
    all
}

/// What describes devices looks different in its first beta.
fn older(plural: &str, hooks: Hooks) -> Hooks {
    match plural {
        "resourceclaims" => Hooks {
            default: devices::claim_default,
            validate: devices::claim_validate,
            validate_update: devices::claim_update,
            to_storage: devices::claim_to_v1,
            from_storage: devices::claim_from_v1,
            ..hooks
        },
        "resourceclaimtemplates" => Hooks {
            default: devices::template_default,
            validate: devices::template_validate,
            validate_update: devices::template_update,
            to_storage: devices::template_to_v1,
            from_storage: devices::template_from_v1,
            ..hooks
        },
        "resourceslices" => Hooks {
            validate: devices::slice_validate,
            to_storage: devices::slice_to_v1,
            from_storage: devices::slice_from_v1,
            ..hooks
        },
        _ => hooks,
    }
}

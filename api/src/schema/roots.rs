//! The Rust types whose schemas the catalogue needs; everything that they refer to comes along.

use k8s_openapi::api::{
    admissionregistration, apiserverinternal, apps, authentication, authorization, autoscaling, batch, certificates,
    coordination, core, discovery, events, flowcontrol, networking, node, policy, rbac, resource, scheduling, storage,
    storagemigration,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use k8s_openapi::apimachinery::pkg::version;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};

fn one<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

pub(super) fn register(generator: &mut SchemaGenerator) {
    let kinds: &[fn(&mut SchemaGenerator)] = &[
        one::<core::v1::ConfigMap>,
        one::<core::v1::Endpoints>,
        one::<core::v1::Event>,
        one::<core::v1::Namespace>,
        one::<core::v1::Node>,
        one::<core::v1::Pod>,
        one::<core::v1::PodTemplate>,
        one::<core::v1::ReplicationController>,
        one::<core::v1::Secret>,
        one::<core::v1::Service>,
        one::<core::v1::ServiceAccount>,
        one::<apps::v1::ControllerRevision>,
        one::<apps::v1::Deployment>,
        one::<apps::v1::ReplicaSet>,
        one::<coordination::v1::Lease>,
        one::<discovery::v1::EndpointSlice>,
        one::<events::v1::Event>,
        one::<node::v1::RuntimeClass>,
        one::<policy::v1::Eviction>,
        one::<authentication::v1::SelfSubjectReview>,
        one::<authorization::v1::SelfSubjectAccessReview>,
        one::<authorization::v1::SelfSubjectRulesReview>,
        one::<autoscaling::v1::Scale>,
        one::<core::v1::Binding>,
        one::<meta::v1::APIGroupList>,
        one::<meta::v1::APIResourceList>,
        one::<meta::v1::APIVersions>,
        one::<meta::v1::DeleteOptions>,
        one::<meta::v1::Patch>,
        one::<meta::v1::Status>,
        one::<meta::v1::ListMeta>,
        one::<meta::v1::WatchEvent<RawExtension>>,
        one::<version::Info>,
    ];
    for register in kinds.iter().chain(INERT).chain(UNSTABLE) {
        register(generator);
    }
}

/// Kinds that nothing acts on yet, and reviews.
const INERT: &[fn(&mut SchemaGenerator)] = &[
    one::<apps::v1::DaemonSet>,
    one::<apps::v1::StatefulSet>,
    one::<autoscaling::v2::HorizontalPodAutoscaler>,
    one::<autoscaling::v1::HorizontalPodAutoscaler>,
    one::<batch::v1::CronJob>,
    one::<batch::v1::Job>,
    one::<policy::v1::PodDisruptionBudget>,
    one::<core::v1::ComponentStatus>,
    one::<core::v1::LimitRange>,
    one::<core::v1::PersistentVolume>,
    one::<core::v1::PersistentVolumeClaim>,
    one::<core::v1::ResourceQuota>,
    one::<storage::v1::CSIDriver>,
    one::<storage::v1::CSINode>,
    one::<storage::v1::CSIStorageCapacity>,
    one::<storage::v1::StorageClass>,
    one::<storage::v1::VolumeAttachment>,
    one::<storage::v1::VolumeAttributesClass>,
    one::<authentication::v1::TokenRequest>,
    one::<authentication::v1::TokenReview>,
    one::<authorization::v1::LocalSubjectAccessReview>,
    one::<authorization::v1::SubjectAccessReview>,
    one::<certificates::v1::CertificateSigningRequest>,
    one::<networking::v1::Ingress>,
    one::<networking::v1::IngressClass>,
    one::<networking::v1::IPAddress>,
    one::<networking::v1::NetworkPolicy>,
    one::<networking::v1::ServiceCIDR>,
    one::<rbac::v1::ClusterRole>,
    one::<rbac::v1::ClusterRoleBinding>,
    one::<rbac::v1::Role>,
    one::<rbac::v1::RoleBinding>,
    one::<admissionregistration::v1::MutatingAdmissionPolicy>,
    one::<admissionregistration::v1::MutatingAdmissionPolicyBinding>,
    one::<admissionregistration::v1::MutatingWebhookConfiguration>,
    one::<admissionregistration::v1::ValidatingAdmissionPolicy>,
    one::<admissionregistration::v1::ValidatingAdmissionPolicyBinding>,
    one::<admissionregistration::v1::ValidatingWebhookConfiguration>,
    one::<apiextensions::v1::CustomResourceDefinition>,
    one::<apiregistration::v1::APIService>,
    one::<resource::v1::DeviceClass>,
    one::<resource::v1::ResourceClaim>,
    one::<resource::v1::ResourceClaimTemplate>,
    one::<resource::v1::ResourceSlice>,
    one::<flowcontrol::v1::FlowSchema>,
    one::<flowcontrol::v1::PriorityLevelConfiguration>,
    one::<scheduling::v1::PriorityClass>,
];

/// Beta and alpha versions.
const UNSTABLE: &[fn(&mut SchemaGenerator)] = &[
    one::<admissionregistration::v1alpha1::MutatingAdmissionPolicy>,
    one::<admissionregistration::v1alpha1::MutatingAdmissionPolicyBinding>,
    one::<admissionregistration::v1beta1::MutatingAdmissionPolicy>,
    one::<admissionregistration::v1beta1::MutatingAdmissionPolicyBinding>,
    one::<apiserverinternal::v1alpha1::StorageVersion>,
    one::<certificates::v1alpha1::ClusterTrustBundle>,
    one::<certificates::v1beta1::ClusterTrustBundle>,
    one::<certificates::v1beta1::PodCertificateRequest>,
    one::<coordination::v1alpha2::LeaseCandidate>,
    one::<coordination::v1beta1::LeaseCandidate>,
    one::<networking::v1beta1::IPAddress>,
    one::<networking::v1beta1::ServiceCIDR>,
    one::<resource::v1alpha3::DeviceTaintRule>,
    one::<resource::v1alpha3::ResourcePoolStatusRequest>,
    one::<resource::v1beta1::DeviceClass>,
    one::<resource::v1beta1::ResourceClaim>,
    one::<resource::v1beta1::ResourceClaimTemplate>,
    one::<resource::v1beta1::ResourceSlice>,
    one::<resource::v1beta2::DeviceClass>,
    one::<resource::v1beta2::DeviceTaintRule>,
    one::<resource::v1beta2::ResourceClaim>,
    one::<resource::v1beta2::ResourceClaimTemplate>,
    one::<resource::v1beta2::ResourceSlice>,
    one::<scheduling::v1alpha2::PodGroup>,
    one::<scheduling::v1alpha2::Workload>,
    one::<storage::v1beta1::VolumeAttributesClass>,
    one::<storagemigration::v1beta1::StorageVersionMigration>,
];

//! Entries of reviews, roles, networking, certificates, flow control, admission, devices and extensions. But for the reviews,
//! which are answered and not stored, nothing acts on them yet: they are stored, served, validated and watched.

use super::builtin::STATUS;
use super::entry::{CREATE, Entry, STATUS_VERBS, SubEntry};
use super::hooks::Hooks;
use super::resource::Scope;
use crate::defaults::policy;
use crate::names;
use crate::prepare::{kinds, storage as prepared};
use crate::table::Printer;
use crate::validate::{admission, certificates, flow, ingress, rbac};

const API_EXTENSIONS: &[&str] = &["api-extensions"];

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        scope: Scope::Cluster,
        verbs: CREATE,
        definition: "io.k8s.api.authentication.v1.SelfSubjectReview",
        ..Entry::BASE
    },
    Entry {
        group: "authentication.k8s.io",
        kind: "TokenReview",
        plural: "tokenreviews",
        scope: Scope::Cluster,
        verbs: CREATE,
        definition: "io.k8s.api.authentication.v1.TokenReview",
        ..Entry::BASE
    },
    Entry {
        group: "authorization.k8s.io",
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        verbs: CREATE,
        definition: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
        ..Entry::BASE
    },
    Entry {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        scope: Scope::Cluster,
        verbs: CREATE,
        definition: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        ..Entry::BASE
    },
    Entry {
        group: "authorization.k8s.io",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        scope: Scope::Cluster,
        verbs: CREATE,
        definition: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
        ..Entry::BASE
    },
    Entry {
        group: "authorization.k8s.io",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        scope: Scope::Cluster,
        verbs: CREATE,
        definition: "io.k8s.api.authorization.v1.SubjectAccessReview",
        ..Entry::BASE
    },
    Entry {
        group: "certificates.k8s.io",
        kind: "CertificateSigningRequest",
        plural: "certificatesigningrequests",
        short_names: &["csr"],
        scope: Scope::Cluster,
        subresources: &[SubEntry { name: "approval", verbs: STATUS_VERBS, gvk: ("", "", "") }, STATUS],
        definition: "io.k8s.api.certificates.v1.CertificateSigningRequest",
        fields: &["spec.signerName"],
        hooks: Hooks {
            name: names::path_segment_name,
            prepare_create: prepared::create_signing_request,
            prepare_update: prepared::update_signing_request,
            validate: certificates::signing_request,
            validate_update: certificates::signing_request_update,
            ..Hooks::NONE
        },
        printer: Printer::SIGNING_REQUEST,
        ..Entry::BASE
    },
    Entry {
        group: "networking.k8s.io",
        kind: "Ingress",
        plural: "ingresses",
        short_names: &["ing"],
        subresources: &[STATUS],
        definition: "io.k8s.api.networking.v1.Ingress",
        generation: true,
        hooks: Hooks {
            prepare_create: prepared::create_ingress,
            validate: ingress::ingress,
            validate_new: ingress::new_ingress,
            validate_update: ingress::ingress_update,
            ..Hooks::NONE
        },
        printer: Printer::INGRESS,
        ..Entry::BASE
    },
    Entry {
        group: "networking.k8s.io",
        kind: "IngressClass",
        plural: "ingressclasses",
        scope: Scope::Cluster,
        definition: "io.k8s.api.networking.v1.IngressClass",
        generation: true,
        hooks: Hooks {
            default: policy::ingress_class,
            validate: ingress::ingress_class,
            validate_update: ingress::ingress_class_update,
            ..Hooks::NONE
        },
        printer: Printer::INGRESS_CLASS,
        ..Entry::BASE
    },
    Entry {
        group: "networking.k8s.io",
        kind: "IPAddress",
        plural: "ipaddresses",
        short_names: &["ip"],
        scope: Scope::Cluster,
        definition: "io.k8s.api.networking.v1.IPAddress",
        hooks: Hooks {
            name: ingress::ip_address_name,
            validate: ingress::ip_address,
            validate_update: ingress::ip_address_update,
            ..Hooks::NONE
        },
        printer: Printer::IP_ADDRESS,
        ..Entry::BASE
    },
    Entry {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        short_names: &["netpol"],
        definition: "io.k8s.api.networking.v1.NetworkPolicy",
        generation: true,
        hooks: Hooks { default: policy::network_policy, validate: ingress::network_policy, ..Hooks::NONE },
        printer: Printer::NETWORK_POLICY,
        ..Entry::BASE
    },
    Entry {
        group: "networking.k8s.io",
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        scope: Scope::Cluster,
        subresources: &[STATUS],
        definition: "io.k8s.api.networking.v1.ServiceCIDR",
        hooks: Hooks {
            prepare_create: kinds::create_with_status,
            validate: ingress::service_cidr,
            validate_update: ingress::service_cidr_update,
            ..Hooks::NONE
        },
        printer: Printer::SERVICE_CIDR,
        ..Entry::BASE
    },
    Entry {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRole",
        plural: "clusterroles",
        scope: Scope::Cluster,
        definition: "io.k8s.api.rbac.v1.ClusterRole",
        hooks: Hooks { name: names::path_segment_name, validate: rbac::cluster_role, ..Hooks::NONE },
        ..Entry::BASE
    },
    Entry {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        scope: Scope::Cluster,
        definition: "io.k8s.api.rbac.v1.ClusterRoleBinding",
        hooks: Hooks {
            name: names::path_segment_name,
            default: policy::role_binding,
            validate: rbac::cluster_role_binding,
            validate_update: rbac::binding_update,
            ..Hooks::NONE
        },
        printer: Printer::CLUSTER_ROLE_BINDING,
        ..Entry::BASE
    },
    Entry {
        group: "rbac.authorization.k8s.io",
        kind: "Role",
        plural: "roles",
        definition: "io.k8s.api.rbac.v1.Role",
        hooks: Hooks { name: names::path_segment_name, validate: rbac::role, ..Hooks::NONE },
        ..Entry::BASE
    },
    Entry {
        group: "rbac.authorization.k8s.io",
        kind: "RoleBinding",
        plural: "rolebindings",
        definition: "io.k8s.api.rbac.v1.RoleBinding",
        hooks: Hooks {
            name: names::path_segment_name,
            default: policy::role_binding,
            validate: rbac::role_binding,
            validate_update: rbac::binding_update,
            ..Hooks::NONE
        },
        printer: Printer::ROLE_BINDING,
        ..Entry::BASE
    },
    Entry {
        group: "admissionregistration.k8s.io",
        kind: "MutatingAdmissionPolicy",
        plural: "mutatingadmissionpolicies",
        categories: API_EXTENSIONS,
        scope: Scope::Cluster,
        definition: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
        generation: true,
        hooks: Hooks { default: policy::admission_policy, validate: admission::mutating_policy, ..Hooks::NONE },
        printer: Printer::MUTATING_POLICY,
        ..Entry::BASE
    },
    Entry {
        group: "admissionregistration.k8s.io",
        kind: "MutatingAdmissionPolicyBinding",
        plural: "mutatingadmissionpolicybindings",
        categories: API_EXTENSIONS,
        scope: Scope::Cluster,
        definition: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
        generation: true,
        hooks: Hooks {
            default: policy::admission_policy_binding,
            validate: admission::mutating_policy_binding,
            ..Hooks::NONE
        },
        printer: Printer::MUTATING_POLICY_BINDING,
        ..Entry::BASE
    },
    Entry {
        group: "admissionregistration.k8s.io",
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
        categories: API_EXTENSIONS,
        scope: Scope::Cluster,
        definition: "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
        generation: true,
        hooks: Hooks { default: policy::mutating_webhooks, validate: admission::mutating_webhooks, ..Hooks::NONE },
        printer: Printer::WEBHOOKS,
        ..Entry::BASE
    },
    Entry {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingAdmissionPolicy",
        plural: "validatingadmissionpolicies",
        categories: API_EXTENSIONS,
        scope: Scope::Cluster,
        subresources: &[STATUS],
        definition: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
        generation: true,
        hooks: Hooks { default: policy::admission_policy, validate: admission::validating_policy, ..Hooks::NONE },
        printer: Printer::VALIDATING_POLICY,
        ..Entry::BASE
    },
    Entry {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingAdmissionPolicyBinding",
        plural: "validatingadmissionpolicybindings",
        categories: API_EXTENSIONS,
        scope: Scope::Cluster,
        definition: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
        generation: true,
        hooks: Hooks {
            default: policy::admission_policy_binding,
            validate: admission::validating_policy_binding,
            ..Hooks::NONE
        },
        printer: Printer::VALIDATING_POLICY_BINDING,
        ..Entry::BASE
    },
    Entry {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
        categories: API_EXTENSIONS,
        scope: Scope::Cluster,
        definition: "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
        generation: true,
        hooks: Hooks { default: policy::validating_webhooks, validate: admission::validating_webhooks, ..Hooks::NONE },
        printer: Printer::WEBHOOKS,
        ..Entry::BASE
    },
    Entry {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        short_names: &["crd", "crds"],
        categories: API_EXTENSIONS,
        scope: Scope::Cluster,
        subresources: &[STATUS],
        definition: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        generation: true,
        hooks: Hooks {
            default: policy::custom_resource_definition,
            prepare_create: prepared::create_definition,
            prepare_update: prepared::update_definition,
            validate: certificates::custom_resource_definition,
            validate_update: certificates::custom_resource_definition_update,
            ..Hooks::NONE
        },
        ..Entry::BASE
    },
    Entry {
        group: "apiregistration.k8s.io",
        kind: "APIService",
        plural: "apiservices",
        categories: API_EXTENSIONS,
        scope: Scope::Cluster,
        subresources: &[STATUS],
        definition: "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
        hooks: Hooks {
            name: names::path_segment_name,
            default: policy::api_service,
            prepare_create: prepared::create_api_service,
            validate: certificates::api_service,
            ..Hooks::NONE
        },
        printer: Printer::API_SERVICE,
        ..Entry::BASE
    },
    Entry {
        group: "resource.k8s.io",
        kind: "DeviceClass",
        plural: "deviceclasses",
        scope: Scope::Cluster,
        definition: "io.k8s.api.resource.v1.DeviceClass",
        generation: true,
        hooks: Hooks { validate: admission::device_class, ..Hooks::NONE },
        printer: Printer::NAME_AND_AGE,
        ..Entry::BASE
    },
    Entry {
        group: "resource.k8s.io",
        kind: "ResourceClaim",
        plural: "resourceclaims",
        subresources: &[STATUS],
        definition: "io.k8s.api.resource.v1.ResourceClaim",
        hooks: Hooks {
            default: policy::resource_claim,
            prepare_create: kinds::create_with_status,
            validate: admission::resource_claim,
            validate_update: admission::resource_claim_update,
            ..Hooks::NONE
        },
        printer: Printer::RESOURCE_CLAIM,
        ..Entry::BASE
    },
    Entry {
        group: "resource.k8s.io",
        kind: "ResourceClaimTemplate",
        plural: "resourceclaimtemplates",
        definition: "io.k8s.api.resource.v1.ResourceClaimTemplate",
        hooks: Hooks {
            default: policy::resource_claim_template,
            validate: admission::resource_claim_template,
            validate_update: admission::template_update,
            ..Hooks::NONE
        },
        printer: Printer::NAME_AND_AGE,
        ..Entry::BASE
    },
    Entry {
        group: "resource.k8s.io",
        kind: "ResourceSlice",
        plural: "resourceslices",
        scope: Scope::Cluster,
        definition: "io.k8s.api.resource.v1.ResourceSlice",
        fields: &["spec.nodeName", "spec.driver"],
        generation: true,
        hooks: Hooks {
            validate: admission::resource_slice,
            validate_update: admission::resource_slice_update,
            ..Hooks::NONE
        },
        printer: Printer::RESOURCE_SLICE,
        ..Entry::BASE
    },
    Entry {
        group: "flowcontrol.apiserver.k8s.io",
        kind: "FlowSchema",
        plural: "flowschemas",
        scope: Scope::Cluster,
        subresources: &[STATUS],
        definition: "io.k8s.api.flowcontrol.v1.FlowSchema",
        generation: true,
        hooks: Hooks {
            default: policy::flow_schema,
            prepare_create: kinds::create_with_status,
            validate: flow::flow_schema,
            validate_update: flow::flow_schema_update,
            ..Hooks::NONE
        },
        printer: Printer::FLOW_SCHEMA,
        ..Entry::BASE
    },
    Entry {
        group: "flowcontrol.apiserver.k8s.io",
        kind: "PriorityLevelConfiguration",
        plural: "prioritylevelconfigurations",
        scope: Scope::Cluster,
        subresources: &[STATUS],
        definition: "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
        generation: true,
        hooks: Hooks {
            default: policy::priority_level,
            prepare_create: kinds::create_with_status,
            validate: flow::priority_level,
            validate_update: flow::priority_level_update,
            ..Hooks::NONE
        },
        printer: Printer::PRIORITY_LEVEL,
        ..Entry::BASE
    },
];

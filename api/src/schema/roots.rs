//! The Rust types whose schemas the catalogue needs; everything that they refer to comes along.

use k8s_openapi::api::{
    apps, authentication, authorization, autoscaling, coordination, core, discovery, events, node, policy, scheduling,
};
use k8s_openapi::apimachinery::pkg::apis::meta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use k8s_openapi::apimachinery::pkg::version;
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
        one::<scheduling::v1::PriorityClass>,
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
    for register in kinds {
        register(generator);
    }
}

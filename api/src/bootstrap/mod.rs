//! Objects that every cluster has, as values: what upstream's API server creates when it starts.

pub mod flow;
pub mod roles;

use serde_json::{Value, json};

/// The system's priority classes.
pub fn priority_classes() -> Vec<Value> {
    let class = |name: &str, value: i64, description: &str| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
            "description": description,
        })
    };
    vec![
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

/// The APIService of a group and version that the server answers itself.
pub fn api_service(group: &str, version: &str) -> Value {
    let (least, order) = priority(group, version);
    let mut spec = json!({"version": version, "groupPriorityMinimum": least, "versionPriority": order});
    if !group.is_empty() {
        crate::value::set(&mut spec, "group", group);
    }
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"}},
        "spec": spec,
    })
}

/// By what upstream orders groups and the versions of a group in discovery.
fn priority(group: &str, version: &str) -> (i64, i64) {
    let least = match group {
        "" => 18_000,
        "apps" => 17_800,
        "events.k8s.io" => 17_750,
        "authentication.k8s.io" => 17_700,
        "authorization.k8s.io" => 17_600,
        "autoscaling" => 17_500,
        "batch" => 17_400,
        "certificates.k8s.io" => 17_300,
        "networking.k8s.io" => 17_200,
        "policy" => 17_100,
        "rbac.authorization.k8s.io" => 17_000,
        "storage.k8s.io" => 16_800,
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" => 16_700,
        "scheduling.k8s.io" => 16_600,
        "coordination.k8s.io" => 16_500,
        "node.k8s.io" => 16_300,
        "discovery.k8s.io" => 16_200,
        "flowcontrol.apiserver.k8s.io" => 16_100,
        "internal.apiserver.k8s.io" => 16_000,
        "resource.k8s.io" => 15_900,
        "storagemigration.k8s.io" => 15_800,
        _ => 15_000,
    };
    let order = match (group, version) {
        ("autoscaling", "v2") => 30,
        ("" | "apiregistration.k8s.io", _) => 1,
        (_, version) if version.contains("alpha") => 1,
        (_, version) if version.contains("beta") => 9,
        _ => 15,
    };
    (least, order)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::catalogue::{Catalogue, NewObject};

    #[test]
    fn what_every_cluster_has_is_valid() {
        let catalogue = Catalogue::builtin();
        let mut all = super::priority_classes();
        all.extend(super::flow::all());
        all.extend(catalogue.groups().into_iter().map(|(group, versions)| super::api_service(group, versions[0])));
        all.extend(super::roles::all());
        assert!(all.len() > 80, "{}", all.len());
        for mut object in all {
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let resource = catalogue.by_kind_of(&object).unwrap();
            assert_eq!(resource.conform(&mut object).unwrap().unknown, Vec::<String>::new(), "{name}");
            resource.default(&mut object);
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
            let now = "2026-01-01T00:00:00Z".parse().unwrap();
            let new = NewObject { now, uid: "u", name_suffix: "abcde", namespace: &namespace };
            resource.prepare_create(&mut object, &new);
            let errors: Vec<String> = resource.validate_create(&object).iter().map(ToString::to_string).collect();
            assert_eq!(errors, Vec::<String>::new(), "{name}");
        }
    }
}

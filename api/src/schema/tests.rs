//! Tests of schemas and of the table of facts.
#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::json;

#[test]
fn pods_have_facts() {
    let schemas = Schemas::builtin();
    let spec = schemas.get(schemas.find("io.k8s.api.core.v1.PodSpec").unwrap());
    let containers = spec.property("containers").unwrap();
    assert_eq!(containers.strategy.key, Some("name"));
    assert!(containers.strategy.merge);
    let Node::List(list) = &containers.node else { panic!("a list") };
    assert_eq!((list.list_type, list.keys.as_slice()), (ListType::Map, ["name"].as_slice()));
    assert_eq!(spec.go_type(), "v1.PodSpec");
}

#[test]
fn values_become_canonical() {
    let schemas = Schemas::builtin();
    let pod = schemas.find("io.k8s.api.core.v1.Pod").unwrap();
    let mut object = json!({
        "metadata": {"creationTimestamp": null, "labels": {}, "annotations": {"a": null}, "name": "x"},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}, "env": [{"name": "E", "value": ""}]}],
                 "volumes": [], "securityContext": {}},
    });
    let found = schemas.conform(pod, &mut object).unwrap();
    assert!(found.unknown.is_empty());
    assert_eq!(
        object,
        json!({
            "metadata": {"annotations": {"a": ""}, "name": "x"},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}, "env": [{"name": "E"}]}],
                     "securityContext": {}},
        })
    );
}

#[test]
fn wrong_types_are_told_as_upstream_tells_them() {
    let schemas = Schemas::builtin();
    let pod = schemas.find("io.k8s.api.core.v1.Pod").unwrap();
    let cases = [
        (json!([]), "json: cannot unmarshal array into Go value of type v1.Pod"),
        (json!({"spec": 1}), "json: cannot unmarshal number into Go struct field Pod.spec of type v1.PodSpec"),
        (
            json!({"spec": {"containers": {}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            json!({"metadata": {"labels": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            json!({"spec": {"terminationGracePeriodSeconds": 1.5}}),
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64",
        ),
        (
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            json!({"metadata": {"creationTimestamp": "noon"}}),
            "parsing time \"noon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"noon\" as \"2006\"",
        ),
    ];
    for (mut object, want) in cases {
        assert_eq!(schemas.conform(pod, &mut object).unwrap_err().to_string(), want);
    }
}

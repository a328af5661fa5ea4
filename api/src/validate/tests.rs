//! Tests of validation, table-driven: what is given and which messages come out.
#![allow(clippy::unwrap_used)]

use crate::catalogue::{Catalogue, NewObject, Resource};
use crate::patch::merge_patch;
use serde_json::{Value, json};
use std::sync::Arc;

fn resource(group: &str, plural: &str) -> Arc<Resource> {
    Catalogue::builtin().resource(group, "v1", plural).unwrap()
}

/// A defaulted and prepared object, as it reaches validation.
pub(super) fn made(resource: &Resource, mut object: Value) -> Value {
    let found = resource.conform(&mut object).unwrap();
    assert_eq!(found.unknown, Vec::<String>::new(), "{}", resource.qualified());
    resource.default(&mut object);
    let namespace = if resource.namespaced() { "d" } else { "" };
    let new = NewObject { now: "2026-01-01T00:00:00Z".parse().unwrap(), uid: "u", name_suffix: "abcde", namespace };
    resource.prepare_create(&mut object, &new);
    object
}

pub(super) fn texts(errors: Vec<crate::FieldError>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}})
}

fn base(group: &str, plural: &str) -> Value {
    match (group, plural) {
        ("", "pods") => json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}),
        ("apps", _) => {
            json!({"metadata": {"name": "w"}, "spec": {"selector": {"matchLabels": {"app": "w"}}, "template": template()}})
        }
        ("", "replicationcontrollers") => json!({"metadata": {"name": "w"}, "spec": {"template": template()}}),
        ("", "services") => {
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "clusterIP": "10.0.0.1"}})
        }
        _ => json!({"metadata": {"name": "x"}}),
    }
}

#[test]
fn good_objects_pass() {
    for (group, plural) in [
        ("", "pods"),
        ("apps", "deployments"),
        ("apps", "replicasets"),
        ("", "replicationcontrollers"),
        ("", "services"),
        ("", "configmaps"),
        ("", "secrets"),
        ("", "namespaces"),
        ("", "nodes"),
        ("", "serviceaccounts"),
        ("coordination.k8s.io", "leases"),
    ] {
        let resource = resource(group, plural);
        let object = made(&resource, base(group, plural));
        assert_eq!(texts(resource.validate_create(&object)), Vec::<String>::new(), "{plural}");
        let mut same = object.clone();
        resource.prepare_update(&mut same, &object, None);
        assert_eq!(same, object, "{plural}: an update that changes nothing");
        assert_eq!(texts(resource.validate_update(&same, &object, None)), Vec::<String>::new(), "{plural}");
    }
}

/// A kind, what is merged into its base, and the messages that come out.
type Case = ((&'static str, &'static str), Value, Vec<&'static str>);

fn check(cases: Vec<Case>) {
    for ((group, plural), change, want) in cases {
        let resource = resource(group, plural);
        let mut object = base(group, plural);
        merge_patch(&mut object, &change).unwrap();
        let object = made(&resource, object);
        assert_eq!(texts(resource.validate_create(&object)), want, "{plural} {change}");
    }
}

#[test]
fn pods_are_checked() {
    check(vec![
        (("", "pods"), json!({"spec": {"containers": null}}), vec!["spec.containers: Required value"]),
        (
            ("", "pods"),
            json!({"metadata": {"name": "A_b"}}),
            vec![
                r#"metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
            ],
        ),
        (
            ("", "pods"),
            json!({"metadata": {"name": null}}),
            vec!["metadata.name: Required value: name or generateName is required"],
        ),
        (
            ("", "pods"),
            json!({"metadata": {"labels": {"a": "b c"}}}),
            vec![
                "metadata.labels[a]: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ],
        ),
        (
            ("", "pods"),
            json!({"spec": {"restartPolicy": "X", "containers": [{"name": "c", "image": "x"}, {"name": "c", "image": "x"}]}}),
            vec![
                "spec.containers[1].name: Duplicate value: \"c\"",
                "spec.restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            ],
        ),
    ]);
}

#[test]
fn containers_are_checked() {
    let container = |extra: Value| {
        let mut one = json!({"name": "c", "image": "x"});
        merge_patch(&mut one, &extra).unwrap();
        json!({"spec": {"containers": [one]}})
    };
    check(vec![
        (("", "pods"), container(json!({"image": null})), vec!["spec.containers[0].image: Required value"]),
        (
            ("", "pods"),
            container(json!({"imagePullPolicy": "Sometimes"})),
            vec![
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ],
        ),
        (
            ("", "pods"),
            container(json!({"ports": [{"containerPort": 70000}]})),
            vec![
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            ("", "pods"),
            container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            vec!["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
        ),
        (
            ("", "pods"),
            container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
            vec![
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ],
        ),
        (
            ("", "pods"),
            container(json!({"livenessProbe": {"periodSeconds": 1}})),
            vec!["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
        ),
    ]);
}

#[test]
fn workloads_are_checked() {
    check(vec![
        (("apps", "deployments"), json!({"spec": {"selector": null}}), vec!["spec.selector: Required value"]),
        (
            ("apps", "deployments"),
            json!({"spec": {"selector": {"matchLabels": {"app": "z"}}}}),
            vec![
                r#"spec.template.metadata.labels: Invalid value: {"app":"w"}: `selector` does not match template `labels`"#,
            ],
        ),
        (
            ("apps", "deployments"),
            json!({"spec": {"replicas": -1, "template": {"spec": {"restartPolicy": "Never"}}}}),
            vec![
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ],
        ),
        (
            ("apps", "deployments"),
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}}),
            vec!["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
        ),
        (
            ("", "replicationcontrollers"),
            json!({"spec": {"template": null}}),
            vec!["spec.selector: Required value", "spec.template: Required value"],
        ),
    ]);
}

#[test]
fn other_kinds_are_checked() {
    check(vec![
        (("", "services"), json!({"spec": {"ports": null}}), vec!["spec.ports: Required value"]),
        (
            ("", "services"),
            json!({"metadata": {"name": "1s"}}),
            vec![
                "metadata.name: Invalid value: \"1s\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
        (
            ("", "services"),
            json!({"spec": {"ports": [{"port": 80}, {"port": 81, "name": "b"}]}}),
            vec!["spec.ports[0].name: Required value"],
        ),
        (
            ("", "services"),
            json!({"spec": {"clusterIP": "x"}}),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        ),
        (
            ("", "namespaces"),
            json!({"metadata": {"name": "a.b"}}),
            vec![
                "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
        (
            ("", "secrets"),
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            vec!["data[tls.key]: Required value"],
        ),
        (
            ("", "configmaps"),
            json!({"data": {"a/b": "x"}}),
            vec![
                "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            ],
        ),
        (
            ("coordination.k8s.io", "leases"),
            json!({"spec": {"leaseDurationSeconds": 0}}),
            vec!["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
        ),
    ]);
}

#[test]
fn updates() {
    let cases: Vec<((&str, &str), Value, Vec<&str>)> = vec![
        (("", "pods"), json!({"spec": {"containers": [{"name": "c", "image": "y"}]}}), vec![]),
        (("", "pods"), json!({"metadata": {"labels": {"a": "b"}}}), vec![]),
        (
            ("", "pods"),
            json!({"spec": {"nodeName": "n"}}),
            vec!["spec: Forbidden: pod updates may not change fields other than"],
        ),
        (
            ("", "pods"),
            json!({"spec": {"containers": [{"name": "c", "image": "y"}, {"name": "d", "image": "y"}]}}),
            vec!["spec.containers: Forbidden: pod updates may not add or remove containers"],
        ),
        (
            ("", "pods"),
            json!({"metadata": {"uid": "other"}}),
            vec!["metadata.uid: Invalid value: \"other\": field is immutable"],
        ),
        (
            ("apps", "deployments"),
            json!({"spec": {"selector": {"matchLabels": {"x": "y"}}, "template": {"metadata": {"labels": {"x": "y"}}}}}),
            vec![r#"spec.selector: Invalid value: {"matchLabels":{"app":"w","x":"y"}}: field is immutable"#],
        ),
        (
            ("", "services"),
            json!({"spec": {"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"]}}),
            vec![r#"spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set"#],
        ),
        (("", "services"), json!({"spec": {"clusterIP": null, "clusterIPs": null}}), vec![]),
        (("", "secrets"), json!({"type": "x/y"}), vec!["type: Invalid value: \"x/y\": field is immutable"]),
    ];
    for ((group, plural), change, want) in cases {
        let resource = resource(group, plural);
        let old = made(&resource, base(group, plural));
        let mut new = old.clone();
        merge_patch(&mut new, &change).unwrap();
        resource.default(&mut new);
        resource.prepare_update(&mut new, &old, None);
        let got = texts(resource.validate_update(&new, &old, None));
        assert_eq!(got.len(), want.len(), "{plural} {change}: {got:?}");
        for (got, want) in got.iter().zip(&want) {
            assert!(got.starts_with(want), "{plural} {change}: {got}");
        }
    }
    let secrets = resource("", "configmaps");
    let old = json!({"metadata": {"name": "a", "namespace": "d"}, "immutable": true, "data": {"a": "b"}});
    let new = json!({"metadata": {"name": "a", "namespace": "d"}, "immutable": true, "data": {"a": "c"}});
    assert_eq!(
        texts(secrets.validate_update(&new, &old, None)),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
}

#[test]
fn warnings_are_given() {
    let pods = resource("", "pods");
    let pod = json!({"spec": {"containers": [{"name": "c", "env": [{"name": "A"}, {"name": "A"}]}]}});
    let want = "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply";
    assert_eq!(pods.warnings(&pod, None), [want]);
}

//! Tests of defaults, table-driven: kind, given, and what must be there afterwards.
#![allow(clippy::unwrap_used)]

use crate::catalogue::Catalogue;
use serde_json::{Value, json};

fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        (whole, part) => whole == part,
    }
}

#[test]
fn defaults() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let cases = [
        (
            ("", "pods"),
            json!({"spec": {"containers": [
                {"name": "a", "image": "busybox", "ports": [{"containerPort": 80}], "readinessProbe": {"httpGet": {"port": 80}}},
                {"name": "b", "image": "r:5000/x:1.2", "resources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Mi"}}},
                {"name": "c", "image": "x@sha256:aa", "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
                {"name": "d", "image": "x:latest"}],
                "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}, {"name": "h", "hostPath": {"path": "/"}}]}}),
            json!({"spec": {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": true,
                "containers": [
                    {"imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                     "ports": [{"protocol": "TCP"}], "resources": {},
                     "readinessProbe": {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
                        "httpGet": {"path": "/", "scheme": "HTTP"}}},
                    {"imagePullPolicy": "IfNotPresent", "resources": {"requests": {"cpu": "1", "memory": "1Mi"}}},
                    {"imagePullPolicy": "IfNotPresent", "env": [{"valueFrom": {"fieldRef": {"apiVersion": "v1"}}}]},
                    {"imagePullPolicy": "Always"}],
                "volumes": [{"emptyDir": {}}, {"secret": {"defaultMode": 420}}, {"hostPath": {"type": ""}}]}}),
        ),
        (
            ("apps", "deployments"),
            json!({"spec": {"template": template}}),
            json!({"spec": {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {"spec": {"restartPolicy": "Always"}}}}),
        ),
        (
            ("", "replicationcontrollers"),
            json!({"spec": {"template": template}}),
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1, "selector": {"a": "b"}}}),
        ),
        (
            ("", "services"),
            json!({"spec": {"ports": [{"port": 80}], "type": "NodePort"}}),
            json!({"spec": {"sessionAffinity": "None", "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
                "ports": [{"protocol": "TCP", "targetPort": 80}]}}),
        ),
        (
            ("", "secrets"),
            json!({"stringData": {"a": "hello"}, "data": {"a": "eA==", "b": "eA=="}}),
            json!({"type": "Opaque", "data": {"a": "aGVsbG8=", "b": "eA=="}}),
        ),
        (
            ("", "namespaces"),
            json!({"metadata": {"name": "n"}}),
            json!({"metadata": {"labels": {"kubernetes.io/metadata.name": "n"}}, "status": {"phase": "Active"}}),
        ),
        (
            ("discovery.k8s.io", "endpointslices"),
            json!({"ports": [{"port": 1}]}),
            json!({"ports": [{"name": "", "protocol": "TCP"}]}),
        ),
    ];
    for ((group, plural), mut object, want) in cases {
        let resource = Catalogue::builtin().resource(group, "v1", plural).unwrap();
        resource.default(&mut object);
        assert!(contains(&object, &want), "{plural}: {object:#}");
        let once = object.clone();
        resource.default(&mut object);
        assert_eq!(object, once, "{plural}: defaults twice");
    }
}

#[test]
fn quality_of_service() {
    let resources = |r: Value| json!({"containers": [{"name": "a", "resources": r}]});
    let cases = [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
    ];
    for (given, class) in cases {
        assert_eq!(super::pod::qos_class(&resources(given.clone())), class, "{given}");
    }
}

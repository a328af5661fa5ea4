//! What Endpoints a service gets, and what its slices hold, for pods given in a line each.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointSubset, Pod, Service};
use serde_json::{Value, json};

use super::plan::{is_ours, wanted};

/// `name ip` and any of `ready`, `deleting`, `failed`, `http=PORT` (a named container port).
pub(crate) fn pod(line: &str) -> Arc<Pod> {
    let mut words = line.split_whitespace();
    let (name, ip) = (words.next().unwrap(), words.next().unwrap());
    let rest: Vec<&str> = words.collect();
    let has = |word: &str| rest.contains(&word);
    let ports: Vec<Value> = rest
        .iter()
        .filter_map(|word| word.split_once('='))
        .map(|(name, port)| json!({"name": name, "containerPort": port.parse::<i32>().unwrap()}))
        .collect();
    let phase = if has("failed") { "Failed" } else { "Running" };
    let ready = json!([{"type": "Ready", "status": if has("ready") { "True" } else { "False" }}]);
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name,
                "deletionTimestamp": has("deleting").then_some("2026-01-01T00:00:00Z")},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": ports}], "hostname": "h",
                "subdomain": if has("named") { "web" } else { "" }},
            "status": {"phase": phase, "conditions": ready, "podIP": if ip == "-" { Value::Null } else { json!(ip) }},
        }))
        .unwrap(),
    )
}

pub(crate) fn service(spec: Value) -> Service {
    let mut service = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"l": "v"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.9"},
    });
    for (key, value) in spec.as_object().unwrap() {
        service["spec"][key] = value.clone();
    }
    serde_json::from_value(service).unwrap()
}

fn show(subsets: Option<Vec<EndpointSubset>>) -> String {
    let addresses = |list: &Option<Vec<_>>| {
        let list: Option<&Vec<k8s_openapi::api::core::v1::EndpointAddress>> = list.as_ref();
        list.into_iter().flatten().map(|address| address.ip.clone()).collect::<Vec<_>>().join(",")
    };
    let line = |subset: &EndpointSubset| {
        let ports = subset.ports.iter().flatten();
        let ports = ports.map(|port| format!("{}:{}", port.name.clone().unwrap_or_default(), port.port));
        let ports = ports.collect::<Vec<_>>().join(",");
        format!("[{}] not [{}] at {ports}", addresses(&subset.addresses), addresses(&subset.not_ready_addresses))
    };
    subsets.iter().flatten().map(line).collect::<Vec<_>>().join("; ")
}

#[test]
fn endpoints_follow_readiness_ports_and_publishing() {
    let http = json!({"ports": [{"name": "http", "port": 80, "targetPort": "http"}]});
    let plain = json!({"ports": [{"port": 80, "targetPort": 8080}]});
    let two = json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81, "targetPort": "http"}]});
    let publish = json!({"ports": [{"port": 80}], "publishNotReadyAddresses": true});
    let headless = json!({"clusterIP": "None"});
    let cases: [(&Value, &[&str], &str); 8] = [
        (&plain, &["a 10.0.0.2 ready", "b 10.0.0.1", "c - ready"], "[10.0.0.2] not [10.0.0.1] at :8080"),
        (&plain, &["a 10.0.0.2 ready deleting", "b 10.0.0.1 failed"], ""),
        (&plain, &["a 10.0.0.3 ready", "b 10.0.0.1 ready"], "[10.0.0.1,10.0.0.3] not [] at :8080"),
        (&http, &["a 10.0.0.2 ready http=8000", "b 10.0.0.3 ready"], "[10.0.0.2] not [] at http:8000"),
        (
            &http,
            &["a 10.0.0.2 ready http=9000", "b 10.0.0.3 http=8000"],
            "[] not [10.0.0.3] at http:8000; [10.0.0.2] not [] at http:9000",
        ),
        (
            &two,
            &["a 10.0.0.2 ready http=8000", "b 10.0.0.3 ready"],
            "[10.0.0.3] not [] at a:80; [10.0.0.2] not [] at a:80,b:8000",
        ),
        (&publish, &["a 10.0.0.2"], "[10.0.0.2] not [] at :80"),
        (&headless, &["a 10.0.0.2 ready"], "[10.0.0.2] not [] at "),
    ];
    for (spec, lines, want) in cases {
        let pods: Vec<_> = lines.iter().map(|line| pod(line)).collect();
        assert_eq!(show(wanted(&service(spec.clone()), &pods, None).subsets), want, "{spec} {lines:?}");
    }
}

#[test]
fn labels_and_host_names_come_from_service_and_pod() {
    let pods = [pod("a 10.0.0.2 ready named")];
    let endpoints = wanted(&service(json!({"ports": [{"port": 80}]})), &pods, None);
    let labels = endpoints.metadata.labels.clone().unwrap();
    assert_eq!((labels["l"].as_str(), labels.get("service.kubernetes.io/headless")), ("v", None));
    let address = endpoints.subsets.as_ref().unwrap()[0].addresses.as_ref().unwrap()[0].clone();
    assert_eq!((address.hostname.as_deref(), address.node_name.as_deref()), (Some("h"), Some("n1")));
    let again = wanted(&service(json!({"ports": [{"port": 80}]})), &pods, Some(&endpoints));
    assert_eq!(again, endpoints, "nothing changed: nothing to write");
    let headless = wanted(&service(json!({"clusterIP": "None"})), &pods, None);
    assert!(headless.metadata.labels.unwrap().contains_key("service.kubernetes.io/headless"));
}

#[test]
fn too_many_addresses_are_cut_and_said_so() {
    let pods: Vec<_> = (0..1005).map(|n| pod(&format!("p{n} 10.0.{}.{} ready", n / 250, n % 250))).collect();
    let endpoints = wanted(&service(json!({"ports": [{"port": 80}]})), &pods, None);
    assert_eq!(endpoints.subsets.unwrap()[0].addresses.as_ref().unwrap().len(), 1000);
    assert_eq!(endpoints.metadata.annotations.unwrap()["endpoints.kubernetes.io/over-capacity"], "truncated");
}

#[test]
fn only_what_the_controller_made_is_its_own() {
    assert!(is_ours(&wanted(&service(json!({"ports": [{"port": 80}]})), &[], None)));
    let by_hand = json!({"metadata": {"name": "web", "namespace": "default", "labels": {"l": "v"}}});
    assert!(!is_ours(&serde_json::from_value(by_hand).unwrap()));
}

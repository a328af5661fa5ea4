//! ClusterIPs and node ports.

use std::collections::HashSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::Server;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}})
}

#[tokio::test]
async fn addresses_are_unique_under_concurrency() {
    let server = Server::start().await;
    let (_, kubernetes) = server.get(&format!("{SERVICES}/kubernetes")).await;
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let many = (0..40).map(|i| {
        let server = &server;
        async move {
            let mut body = service(&format!("s{i}"));
            body["spec"]["type"] = json!("NodePort");
            let (code, made) = server.post(SERVICES, body).await;
            assert_eq!(code, StatusCode::CREATED, "{made}");
            (
                made["spec"]["clusterIP"].as_str().unwrap().to_owned(),
                made["spec"]["ports"][0]["nodePort"].as_u64().unwrap(),
            )
        }
    });
    let made = futures::future::join_all(many).await;
    assert_eq!(made.iter().map(|(ip, _)| ip).collect::<HashSet<_>>().len(), 40);
    assert_eq!(made.iter().map(|(_, port)| port).collect::<HashSet<_>>().len(), 40);
}

#[tokio::test]
async fn addresses_are_immutable_and_released() {
    let server = Server::start().await;
    let mut body = service("s");
    body["spec"]["clusterIP"] = json!("10.96.7.7");
    let (code, made) = server.post(SERVICES, body).await;
    assert_eq!((code, &made["spec"]["clusterIPs"]), (StatusCode::CREATED, &json!(["10.96.7.7"])), "{made}");
    let mut twin = service("t");
    twin["spec"]["clusterIP"] = json!("10.96.7.7");
    let (code, refused) = server.post(SERVICES, twin.clone()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("provided IP is already allocated"), "{refused}");
    let mut outside = service("o");
    outside["spec"]["clusterIP"] = json!("192.168.0.1");
    assert_eq!(server.post(SERVICES, outside).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let path = format!("{SERVICES}/s");
    let other = json!({"spec": {"clusterIP": "10.96.7.8", "clusterIPs": ["10.96.7.8"]}}).to_string();
    let (code, refused) = server.call(Method::PATCH, &path, "application/merge-patch+json", other).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    // An update without the address keeps it.
    let (_, mut current) = server.get(&path).await;
    current["spec"].as_object_mut().unwrap().remove("clusterIP");
    current["spec"].as_object_mut().unwrap().remove("clusterIPs");
    current["spec"]["ports"][0]["port"] = json!(81);
    let (code, updated) = server.put(&path, current).await;
    assert_eq!((code, &updated["spec"]["clusterIP"]), (StatusCode::OK, &json!("10.96.7.7")), "{updated}");
    assert_eq!(server.delete(&path).await.0, StatusCode::OK);
    assert_eq!(server.post(SERVICES, twin).await.0, StatusCode::CREATED);
    let mut headless = service("h");
    headless["spec"]["clusterIP"] = json!("None");
    let (_, made) = server.post(SERVICES, headless).await;
    assert_eq!(made["spec"]["clusterIP"], "None");
}

#[tokio::test]
async fn updates_that_leave_the_choice_to_the_server_choose_again_when_they_clash() {
    let server = Server::with(|config| config.service_cidr = "10.96.0.0/28".to_owned()).await;
    for i in 0..10 {
        let body = json!({"metadata": {"name": format!("s{i}")},
            "spec": {"type": "ExternalName", "externalName": "example.com", "ports": [{"port": 80}]}});
        assert_eq!(server.post(SERVICES, body).await.0, StatusCode::CREATED);
    }
    let to_node_port = (0..10).map(|i| {
        let server = &server;
        let patch = json!({"spec": {"type": "NodePort", "externalName": null}}).to_string();
        async move {
            let path = format!("{SERVICES}/s{i}");
            server.call(Method::PATCH, &path, "application/merge-patch+json", patch).await
        }
    });
    // Thirteen addresses for ten at the same time: some of them choose the same at first.
    let changed = futures::future::join_all(to_node_port).await;
    for (code, service) in &changed {
        assert_eq!(*code, StatusCode::OK, "{service}");
    }
    let addresses: HashSet<&str> = changed.iter().filter_map(|(_, made)| made["spec"]["clusterIP"].as_str()).collect();
    assert_eq!(addresses.len(), 10);
}

#[tokio::test]
async fn what_a_type_does_not_have_is_refused_not_dropped() {
    let server = Server::start().await;
    let with = |name: &str, spec: Value| {
        let mut body = service(name);
        body["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        body
    };
    let only = "may only be used when `type` is 'LoadBalancer'";
    let named = "may not be set for ExternalName services";
    for (spec, why) in [
        (
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'".to_owned(),
        ),
        (
            json!({"type": "ExternalName", "externalName": "e.com", "clusterIP": "10.96.7.7"}),
            format!("spec.clusterIPs: Forbidden: {named}"),
        ),
        (
            json!({"type": "ExternalName", "externalName": "e.com", "ipFamilyPolicy": "SingleStack"}),
            format!("spec.ipFamilyPolicy: Forbidden: {named}"),
        ),
        (
            json!({"type": "NodePort", "clusterIP": "None"}),
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services".to_owned(),
        ),
        (json!({"loadBalancerClass": "e.com/x"}), format!("spec.loadBalancerClass: Forbidden: {only}")),
        (
            json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            format!("spec.loadBalancerSourceRanges: Forbidden: {only}"),
        ),
    ] {
        let (code, status) = server.post(SERVICES, with("s", spec)).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
        assert_eq!(status["message"], format!("Service \"s\" is invalid: {why}"));
    }
    let balanced = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false});
    let (code, made) = server.post(SERVICES, with("l", balanced)).await;
    assert_eq!((code, &made["spec"]["ports"][0]["nodePort"]), (StatusCode::CREATED, &Value::Null), "{made}");
    let (code, made) = server.post(SERVICES, with("s", json!({"type": "LoadBalancer"}))).await;
    assert_eq!((code, &made["spec"]["allocateLoadBalancerNodePorts"]), (StatusCode::CREATED, &json!(true)), "{made}");
    let node_port = made["spec"]["ports"][0]["nodePort"].clone();
    for (kind, port) in [("NodePort", node_port), ("ClusterIP", Value::Null)] {
        let patch = json!({"spec": {"type": kind}}).to_string();
        let (code, made) =
            server.call(Method::PATCH, &format!("{SERVICES}/s"), "application/merge-patch+json", patch).await;
        assert_eq!((code, &made["spec"]["ports"][0]["nodePort"]), (StatusCode::OK, &port), "{made}");
        assert!(made["spec"]["allocateLoadBalancerNodePorts"].is_null(), "{made}");
    }
}

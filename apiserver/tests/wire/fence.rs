//! Writes under a fence fail once another reign has begun.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use trireme_apiserver::UserInfo;

use super::harness::{Server, config_map};

#[tokio::test]
async fn a_deposed_leader_cannot_write() {
    let server = Server::start().await;
    let first = server.api.acquire_fence().await.unwrap();
    let component = || UserInfo::component("system:kube-controller-manager");
    let old: Api<ConfigMap> =
        Api::namespaced(Client::new(server.api.in_process(component(), Some(first)), "default"), "default");
    let map: ConfigMap = serde_json::from_value(config_map("a", "1")).unwrap();
    old.create(&PostParams::default(), &map).await.unwrap();
    let second = server.api.acquire_fence().await.unwrap();
    assert!(second.revision() > first.revision());
    let change = Patch::Merge(json!({"data": {"k": "2"}}));
    for error in [
        old.patch("a", &PatchParams::default(), &change).await.unwrap_err(),
        old.delete("a", &Default::default()).await.unwrap_err(),
        old.create(&PostParams::default(), &serde_json::from_value(config_map("b", "1")).unwrap()).await.unwrap_err(),
    ] {
        let kube::Error::Api(status) = error else { panic!("{error}") };
        assert_eq!(status.code, 409);
        assert!(status.message.contains("deposed"), "{}", status.message);
    }
    // Reading is not fenced.
    assert_eq!(old.get("a").await.unwrap().data.unwrap()["k"], "1");
    let new: Api<ConfigMap> =
        Api::namespaced(Client::new(server.api.in_process(component(), Some(second)), "default"), "default");
    new.patch("a", &PatchParams::default(), &change).await.unwrap();
}

//! kube-rs: objects made, read, listed, changed, deleted; dynamic types; errors.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, ObjectList, PartialObjectMetaExt, Patch,
    PatchParams, PostParams, Preconditions, VersionMatch,
};
use kube::core::{Expression, PartialObjectMeta, Selector};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, ResourceExt, discovery};
use serde_json::{Value, json};
use trireme_chaos_tests::Cluster;

use crate::space::{config_map, pod, refused, with};

fn post() -> PostParams {
    PostParams::default()
}

/// create, get, replace, delete, and what a stale version is told.
pub fn life(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let maps = space.maps();
        let made = maps.create(&post(), &config_map("life", &[], "1")).await?;
        ensure!(made.uid().is_some() && made.creation_timestamp().is_some() && made.resource_version().is_some());
        ensure!(maps.get("life").await? == made);
        ensure!(maps.get_opt("none").await?.is_none());
        let mut changed = made.clone();
        changed.data.get_or_insert_default().insert("k".into(), "2".into());
        let replaced = maps.replace("life", &post(), &changed).await?;
        ensure!(replaced.resource_version() != made.resource_version());
        let status = refused(maps.replace("life", &post(), &changed).await, 409, "Conflict")?;
        let details = status.details.context("no details")?;
        ensure!((details.name.as_str(), details.kind.as_str()) == ("life", "configmaps"), "{details:?}");
        refused(maps.create(&post(), &config_map("life", &[], "1")).await, 409, "AlreadyExists")?;
        let uid = Preconditions { uid: Some("another".into()), resource_version: None };
        let wrong = DeleteParams::default().preconditions(uid);
        refused(maps.delete("life", &wrong).await, 409, "Conflict")?;
        let gone = maps.delete("life", &DeleteParams::default()).await?;
        let status = gone.right().context("an object instead of a Status")?;
        ensure!(status.is_success(), "{status:?}");
        refused(maps.get("life").await, 404, "NotFound")?;
        refused(maps.delete("life", &DeleteParams::default()).await, 404, "NotFound").map(drop)
    })
}

/// merge, strategic and JSON patches, of objects and scale.
pub fn patches(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let deployments: Api<Deployment> = space.api();
        let template = serde_json::to_value(pod("x", &["sleep", "1"], json!({}))?)?;
        let mut spec = template["spec"].clone();
        spec["restartPolicy"] = "Always".into();
        let body = json!({"metadata": {"name": "p"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}});
        deployments.create(&post(), &serde_json::from_value(body)?).await?;
        let params = PatchParams::default();
        let env = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]}}}});
        let patched = serde_json::to_value(deployments.patch("p", &params, &Patch::Strategic(&env)).await?)?;
        let container = &patched["spec"]["template"]["spec"]["containers"][0];
        ensure!(container["image"] == "busybox:1.35" && container["env"][0]["value"] == "1", "{container}");
        let merge = json!({"metadata": {"annotations": {"a": "1", "b": null}}});
        let patched = deployments.patch("p", &params, &Patch::Merge(&merge)).await?;
        ensure!(patched.annotations().get("a").is_some_and(|v| v == "1"));
        // Patches as kube-rs builds them from a library's types.
        let operations = json!([{"op": "test", "path": "/spec/replicas", "value": 0},
            {"op": "add", "path": "/metadata/labels", "value": {"by": "json"}}]);
        let patched = deployments.patch("p", &params, &Patch::Json::<()>(serde_json::from_value(operations)?)).await?;
        ensure!(patched.labels().get("by").is_some_and(|v| v == "json"));
        let failing = json!([{"op": "test", "path": "/spec/replicas", "value": 9}]);
        let failing = Patch::Json::<()>(serde_json::from_value(failing)?);
        refused(deployments.patch("p", &params, &failing).await, 422, "Invalid")?;
        let dry =
            deployments.patch("p", &params.clone().dry_run(), &Patch::Merge(json!({"spec": {"paused": true}}))).await?;
        ensure!(dry.spec.and_then(|s| s.paused) == Some(true));
        let scale = deployments.get_scale("p").await?;
        ensure!(scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0) == 0, "{scale:?}");
        let scaled = deployments.patch_scale("p", &params, &Patch::Merge(json!({"spec": {"replicas": 0}}))).await?;
        ensure!(scaled.metadata.name.as_deref() == Some("p"));
        ensure!(deployments.get("p").await?.spec.and_then(|s| s.paused).is_none());
        let status = json!({"status": {"observedGeneration": 7}});
        deployments.patch_status("p", &params, &Patch::Merge(status)).await.map(drop)?;
        Ok(())
    })
}

/// Selectors, pages, versions.
pub fn lists(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let maps = space.maps();
        for i in 0..7 {
            let (half, n) = ((i % 2).to_string(), i.to_string());
            maps.create(&post(), &config_map(&format!("m-{i}"), &[("half", &half), ("n", &n)], "1")).await?;
        }
        let names = |list: &ObjectList<ConfigMap>| list.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
        let selector: Selector =
            [Expression::Equal("half".into(), "1".into()), Expression::NotEqual("n".into(), "3".into())]
                .into_iter()
                .collect();
        let list = maps.list(&ListParams::default().labels_from(&selector)).await?;
        ensure!(names(&list) == ["m-1", "m-5"], "{:?}", names(&list));
        let list = maps.list(&ListParams::default().fields("metadata.name=m-2")).await?;
        ensure!(names(&list) == ["m-2"]);
        refused(maps.list(&ListParams::default().labels("a in (")).await, 400, "BadRequest")?;
        refused(maps.list(&ListParams::default().fields("spec.no=1")).await, 400, "BadRequest")?;
        let mut params = ListParams::default().labels("half").limit(3);
        let mut seen = Vec::new();
        let mut version = None;
        loop {
            let page = maps.list(&params).await?;
            seen.extend(names(&page));
            let at = page.metadata.resource_version.clone();
            ensure!(version.get_or_insert(at.clone()) == &at, "a page of another version");
            let Some(token) = page.metadata.continue_.filter(|token| !token.is_empty()) else { break };
            maps.delete("m-6", &DeleteParams::default()).await.ok();
            params = params.continue_token(&token);
        }
        ensure!(seen.len() == 7, "{seen:?}");
        let at = version.flatten().context("no version")?;
        let exact = ListParams::default().labels("half").at(&at).matching(VersionMatch::Exact);
        ensure!(maps.list(&exact).await?.items.len() == 7);
        ensure!(maps.list(&ListParams::default().labels("half").match_any()).await?.items.len() <= 7);
        ensure!(maps.list(&ListParams::default().labels("half")).await?.items.len() == 6);
        Ok(())
    })
}

/// Collections are deleted as they were listed.
pub fn collections(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let maps = space.maps();
        for (name, tier) in [("a", "x"), ("b", "x"), ("c", "y")] {
            maps.create(&post(), &config_map(name, &[("tier", tier)], "1")).await?;
        }
        let params = ListParams::default().labels("tier=x");
        maps.delete_collection(&DeleteParams::default().dry_run(), &params).await?;
        ensure!(maps.list(&params).await?.items.len() == 2, "a dry run has deleted");
        let deleted = maps.delete_collection(&DeleteParams::default(), &params).await?;
        ensure!(deleted.left().is_some_and(|list| list.items.len() == 2));
        ensure!(maps.list(&ListParams::default().labels("tier")).await?.items.len() == 1);
        Ok(())
    })
}

/// Metadata without the rest.
pub fn metadata_only(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let maps = space.maps();
        maps.create(&post(), &config_map("m", &[("a", "b")], "1")).await?;
        let meta = maps.get_metadata("m").await?;
        ensure!(meta.types.as_ref().is_some_and(|t| t.kind == "PartialObjectMetadata"), "{meta:?}");
        ensure!(meta.labels()["a"] == "b");
        let list = maps.list_metadata(&ListParams::default().labels("a=b")).await?;
        ensure!(list.items.len() == 1 && list.items[0].name_any() == "m", "{list:?}");
        // An API whose type is metadata asks for nothing else.
        let only: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(space.client.clone(), &space.name);
        ensure!(only.get("m").await?.name_any() == "m");
        let labels = kube::core::ObjectMeta { labels: Some([("c".into(), "d".into())].into()), ..Default::default() };
        let patch = labels.into_request_partial::<ConfigMap>();
        let patched = maps.patch_metadata("m", &PatchParams::default(), &Patch::Merge(&patch)).await?;
        ensure!(patched.labels().len() == 2, "{patched:?}");
        ensure!(maps.get("m").await?.data.is_some_and(|data| data["k"] == "1"));
        Ok(())
    })
}

/// Discovery, plain and aggregated, and objects of types that are known only at run time.
pub fn dynamic(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let client = &space.client;
        for discovery in
            [Discovery::new(client.clone()).run().await?, Discovery::new(client.clone()).run_aggregated().await?]
        {
            let kind = GroupVersionKind::gvk("apps", "v1", "Deployment");
            let (resource, abilities) = discovery.resolve_gvk(&kind).context("no deployments")?;
            ensure!(resource.plural == "deployments" && abilities.scope == Scope::Namespaced);
            ensure!(abilities.supports_operation(verbs::WATCH) && abilities.supports_operation(verbs::PATCH));
            ensure!(abilities.subresources.iter().any(|(sub, _)| sub.plural.ends_with("scale")), "{abilities:?}");
            ensure!(discovery.groups().any(|group| group.name() == "coordination.k8s.io"));
        }
        let group = discovery::group(client, "apps").await?;
        ensure!(group.preferred_version_or_latest() == "v1");
        let kind = GroupVersionKind::gvk("", "v1", "ConfigMap");
        let (resource, _) = discovery::pinned_kind(client, &kind).await?;
        let maps: Api<DynamicObject> = Api::namespaced_with(client.clone(), &space.name, &resource);
        let body = DynamicObject::new("dyn", &resource).data(json!({"data": {"k": "1"}}));
        let made = maps.create(&post(), &body).await?;
        ensure!(made.data["data"]["k"] == "1" && made.types.is_some());
        let patched = maps.patch("dyn", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "2"}}))).await?;
        ensure!(patched.data["data"]["k"] == "2");
        let unknown = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Widget"));
        let widgets: Api<DynamicObject> = Api::namespaced_with(client.clone(), &space.name, &unknown);
        let status = refused(widgets.list(&ListParams::default()).await, 404, "NotFound")?;
        ensure!(status.message == "the server could not find the requested resource", "{status:?}");
        ensure!(client.apiserver_version().await?.git_version.starts_with("v1.36"));
        let nodes: Api<Node> = Api::all(client.clone());
        ensure!(!nodes.list(&ListParams::default()).await?.items.is_empty());
        Ok(())
    })
}

/// Codes, reasons and details, as programs match on them.
pub fn errors(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let maps = space.maps();
        let status = refused(maps.create(&post(), &config_map("Not_Valid", &[], "1")).await, 422, "Invalid")?;
        let details = status.details.context("no details")?;
        ensure!(details.kind == "ConfigMap" && details.causes[0].field == "metadata.name", "{details:?}");
        let mut versioned = config_map("v", &[], "1");
        versioned.metadata.resource_version = Some("5".into());
        refused(maps.create(&post(), &versioned).await, 400, "BadRequest")?;
        let mut other = config_map("o", &[], "1");
        other.metadata.namespace = Some("default".into());
        refused(maps.create(&post(), &other).await, 400, "BadRequest")?;
        let nowhere: Api<ConfigMap> = Api::namespaced(space.client.clone(), "no-such-namespace");
        let status = refused(nowhere.create(&post(), &config_map("a", &[], "1")).await, 404, "NotFound")?;
        ensure!(status.message == "namespaces \"no-such-namespace\" not found", "{status:?}");
        let pods: Api<Pod> = space.api();
        let invalid: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": []}}))?;
        let status = refused(pods.create(&post(), &invalid).await, 422, "Invalid")?;
        ensure!(status.message.contains("spec.containers: Required value"), "{status:?}");
        let strict = PatchParams::default().validation_strict();
        maps.create(&post(), &config_map("s", &[], "1")).await?;
        let typo: Patch<Value> = Patch::Merge(json!({"dta": {"k": "2"}}));
        let status = refused(maps.patch("s", &strict, &typo).await, 422, "Invalid")?;
        ensure!(status.message.contains("unknown field \"dta\""), "{status:?}");
        Ok(())
    })
}

//! What only some kinds have: reviews, bindings, tokens, evictions, finalizers of namespaces, and documents.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::NAMESPACE;
use super::api::{Api, has};
use super::operations::Ledger;

const PODS: &str = "/api/v1/namespaces/{namespace}/pods";

/// A path in the namespace of this run.
fn here(template: &str) -> String {
    template.replace("{namespace}", NAMESPACE)
}

/// A pod that no scheduler takes.
async fn idle_pod(api: &Api, name: &str) -> Result<String> {
    let pod = json!({"metadata": {"name": name}, "spec": {"schedulerName": "nobody",
        "containers": [{"name": "c", "image": "busybox", "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "20m"}}}]}});
    api.write("POST", &here(PODS), &pod).await?;
    Ok(format!("{}/{name}", here(PODS)))
}

/// All of it.
pub async fn try_all(api: &Api, ledger: &mut Ledger, node: &str) {
    reviews(api, ledger).await;
    ledger.judge("POST", "/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", token(api).await);
    ledger.judge("PUT", "/api/v1/namespaces/{name}/finalize", finalize(api).await);
    ledger.judge("POST", &format!("{PODS}/{{name}}/binding"), bind(api, node, false).await);
    ledger.judge("POST", "/api/v1/namespaces/{namespace}/bindings", bind(api, node, true).await);
    ledger.judge("POST", &format!("{PODS}/{{name}}/eviction"), evict(api).await);
    ephemeral(api, ledger).await;
    resize(api, ledger).await;
    components(api, ledger).await;
    documents(api, ledger).await;
}

async fn reviews(api: &Api, ledger: &mut Ledger) {
    let attributes = json!({"namespace": NAMESPACE, "verb": "get", "resource": "pods"});
    let access = "/apis/authorization.k8s.io/v1";
    for (path, spec, wanted) in [
        ("/selfsubjectaccessreviews", json!({"resourceAttributes": attributes}), json!({"allowed": true})),
        (
            "/subjectaccessreviews",
            json!({"resourceAttributes": attributes, "user": "nobody"}),
            json!({"allowed": false}),
        ),
        (
            "/namespaces/{namespace}/localsubjectaccessreviews",
            json!({"resourceAttributes": attributes, "groups": ["system:masters"]}),
            json!({"allowed": true}),
        ),
        ("/selfsubjectrulesreviews", json!({"namespace": NAMESPACE}), json!({"resourceRules": [{"verbs": ["*"]}]})),
    ] {
        let template = format!("{access}{path}");
        let asking = async {
            let kind = json!({"spec": spec});
            has(&api.write("POST", &here(&template), &kind).await?["status"], &wanted)
        };
        ledger.judge("POST", &template, asking.await);
    }
    let own = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let asking = async {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let answer = api.write("POST", own, &review).await?;
        has(&answer["status"]["userInfo"], &json!({"groups": ["system:authenticated"]}))
    };
    ledger.judge("POST", own, asking.await);
    let tokens = "/apis/authentication.k8s.io/v1/tokenreviews";
    let asking = async {
        let token = issued(api, "compat-reviewed").await?;
        let good = api.write("POST", tokens, &json!({"spec": {"token": token}})).await?;
        has(&good["status"], &json!({"authenticated": true}))?;
        let bad = api.write("POST", tokens, &json!({"spec": {"token": "x"}})).await?;
        ensure!(bad["status"]["authenticated"] != true, "any token is taken: {bad}");
        Ok(())
    };
    ledger.judge("POST", tokens, asking.await);
}

async fn issued(api: &Api, account: &str) -> Result<String> {
    let accounts = here("/api/v1/namespaces/{namespace}/serviceaccounts");
    api.write("POST", &accounts, &json!({"metadata": {"name": account}})).await?;
    let request = json!({"spec": {"expirationSeconds": 600}});
    let answer = api.write("POST", &format!("{accounts}/{account}/token"), &request).await?;
    Ok(answer["status"]["token"].as_str().context("no token")?.to_owned())
}

async fn token(api: &Api) -> Result<()> {
    let token = issued(api, "compat-token").await?;
    let review = json!({"spec": {"token": token}});
    let answer = api.write("POST", "/apis/authentication.k8s.io/v1/tokenreviews", &review).await?;
    let name = format!("system:serviceaccount:{NAMESPACE}:compat-token");
    has(&answer["status"]["user"], &json!({"username": name}))
}

async fn finalize(api: &Api) -> Result<()> {
    let finalizers = json!(["kubernetes", "example.com/compat"]);
    let namespace = json!({"metadata": {"name": "compat-finalized"}, "spec": {"finalizers": finalizers}});
    api.write("POST", "/api/v1/namespaces", &namespace).await?;
    let path = "/api/v1/namespaces/compat-finalized";
    let mut object = api.get(path).await?;
    has(&object["spec"], &json!({"finalizers": ["example.com/compat"]}))?;
    object["spec"]["finalizers"] = json!(["kubernetes"]);
    api.write("PUT", &format!("{path}/finalize"), &object).await?;
    let left = &api.get(path).await?["spec"]["finalizers"];
    ensure!(*left == json!(["kubernetes"]), "finalizers are {left}");
    api.send("DELETE", path, "", None).await?.ok().map(drop)
}

async fn bind(api: &Api, node: &str, in_collection: bool) -> Result<()> {
    let name = if in_collection { "compat-bound-b" } else { "compat-bound-a" };
    let path = idle_pod(api, name).await?;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
    let to = if in_collection { here("/api/v1/namespaces/{namespace}/bindings") } else { format!("{path}/binding") };
    api.write("POST", &to, &binding).await?;
    has(&api.get(&path).await?["spec"], &json!({"nodeName": node}))
}

async fn evict(api: &Api) -> Result<()> {
    let path = idle_pod(api, "compat-evicted").await?;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "compat-evicted"}});
    api.write("POST", &format!("{path}/eviction"), &eviction).await?;
    api.until(&path, "evicted", |answer| answer.code == 404 || !answer.body["metadata"]["deletionTimestamp"].is_null())
        .await
}

async fn ephemeral(api: &Api, ledger: &mut Ledger) {
    let container = |name: &str| json!({"name": name, "image": "busybox", "targetContainerName": "c"});
    let trial = Trial {
        pod: "compat-debugged",
        below: "ephemeralcontainers",
        put: &|pod| pod["spec"]["ephemeralContainers"] = json!([container("one")]),
        then: json!({"ephemeralContainers": [{"name": "one"}]}),
        patch: json!({"ephemeralContainers": [container("two")]}),
        patched: json!({"ephemeralContainers": [{"name": "one"}, {"name": "two"}]}),
    };
    trial.run(api, ledger).await;
}

async fn resize(api: &Api, ledger: &mut Ledger) {
    let wanted = |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
    let trial = Trial {
        pod: "compat-resized",
        below: "resize",
        put: &|pod| pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("11m"),
        then: wanted("11m"),
        patch: wanted("12m"),
        patched: wanted("12m"),
    };
    trial.run(api, ledger).await;
}

/// What is written through a sub-resource of a pod, and what its `spec` has to have then.
struct Trial<'a> {
    pod: &'a str,
    below: &'a str,
    put: &'a (dyn Fn(&mut Value) + Sync),
    then: Value,
    patch: Value,
    patched: Value,
}

impl Trial<'_> {
    async fn run(&self, api: &Api, ledger: &mut Ledger) {
        let template = format!("{PODS}/{{name}}/{}", self.below);
        let putting = async {
            let path = format!("{}/{}", idle_pod(api, self.pod).await?, self.below);
            api.replace(&path, self.put).await?;
            has(&api.get(&path).await?["spec"], &self.then)?;
            Ok(path)
        };
        let put: Result<String> = putting.await;
        ledger.judge_put(&template, &put);
        let patching = async {
            let (path, kind) = (put?, "application/strategic-merge-patch+json");
            api.send("PATCH", &path, kind, Some(&json!({"spec": self.patch}))).await?.ok()?;
            has(&api.get(&path).await?["spec"], &self.patched)
        };
        ledger.judge("PATCH", &template, patching.await);
    }
}

async fn components(api: &Api, ledger: &mut Ledger) {
    let path = "/api/v1/componentstatuses";
    let healthy = json!({"conditions": [{"type": "Healthy", "status": "True"}]});
    let listing = async { has(&api.get(path).await?, &json!({"items": [{"metadata": {"name": "scheduler"}}]})) };
    ledger.judge("GET", path, listing.await);
    let reading = async { has(&api.get(&format!("{path}/scheduler")).await?, &healthy) };
    ledger.judge("GET", &format!("{path}/{{name}}"), reading.await);
}

/// What each document has to say of itself.
fn document(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    Some(match parts.as_slice() {
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"]}),
        ["apis"] => json!({"kind": "APIGroupList", "groups": [{"name": "apps"}]}),
        ["api", version] => {
            json!({"kind": "APIResourceList", "groupVersion": version, "resources": [{"name": "pods"}]})
        }
        ["apis", group] => json!({"kind": "APIGroup", "name": group}),
        ["apis", group, version] => {
            json!({"kind": "APIResourceList", "groupVersion": format!("{group}/{version}"), "resources": [{}]})
        }
        ["version"] => json!({"major": "1"}),
        [".well-known", "openid-configuration"] => json!({"subject_types_supported": ["public"]}),
        ["openid", "v1", "jwks"] => json!({"keys": [{"use": "sig"}]}),
        _ => return None,
    })
}

async fn documents(api: &Api, ledger: &mut Ledger) {
    let paths: Vec<String> =
        ledger.operations.iter().filter(|one| one.method == "GET").map(|one| one.path.clone()).collect();
    for path in paths {
        let Some(wanted) = document(&path) else { continue };
        let reading = async { has(&api.get(&path).await?, &wanted) };
        ledger.judge("GET", &path, reading.await);
    }
}

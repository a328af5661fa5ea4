//! Which resources the server has, and which of them a name on the command line means.

use std::sync::Arc;

use serde_json::Value;

use super::api::{Api, Call, encode};
use super::errors::{CtlError, Result};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// One resource in one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural, as in paths.
    pub plural: String,
    /// Singular.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Names of sub-resources.
    pub subresources: Vec<String>,
    /// Whether this is the version that the server prefers.
    pub preferred: bool,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `deployments.apps`.
    pub fn qualified(&self) -> String {
        qualify(&self.plural, &self.group)
    }

    /// `pod` or `deployment.apps`, as in `pod/web created`.
    pub fn label(&self) -> String {
        let singular = if self.singular.is_empty() { self.kind.to_lowercase() } else { self.singular.clone() };
        qualify(&singular, &self.group)
    }

    /// Path of all objects, or of those in a namespace.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/{}/namespaces/{}/{}", self.version, encode(namespace), self.plural),
            None => format!("{root}/{}/{}", self.version, self.plural),
        }
    }

    /// Path of one object.
    pub fn object_path(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}/{}", self.path(namespace), encode(name))
    }

    /// Whether the server lists this verb.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    fn answers_to(&self, name: &str) -> bool {
        self.plural == name
            || self.singular == name
            || self.kind.eq_ignore_ascii_case(name)
            || self.short_names.iter().any(|short| short == name)
    }
}

fn qualify(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// Everything the server serves.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    resources: Vec<Arc<Resource>>,
}

impl Discovery {
    /// Asks the server: two requests where it aggregates, one per group and version where not.
    pub async fn fetch(api: &Api) -> Result<Discovery> {
        let mut resources = Vec::new();
        for root in ["/api", "/apis"] {
            let answer = api.json(&Call::get(root).accept(AGGREGATED)).await?;
            match answer["kind"].as_str() {
                Some("APIGroupDiscoveryList") => resources.extend(from_aggregated(&answer)),
                _ => resources.extend(from_lists(api, root, &answer).await?),
            }
        }
        Ok(Discovery::new(resources))
    }

    /// From known resources, in the server's order.
    pub fn new(resources: Vec<Resource>) -> Discovery {
        Discovery { resources: resources.into_iter().map(Arc::new).collect() }
    }

    /// All resources in all versions.
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The resource of a kind.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        self.resources.iter().find(|entry| entry.kind == kind && entry.api_version() == api_version).cloned()
    }

    /// The resource that `po`, `pods`, `Pod`, `deployments.apps` or `deployments.v1.apps` means.
    pub fn find(&self, name: &str) -> Option<Arc<Resource>> {
        let lower = name.to_lowercase();
        let mut preferred = self.resources.iter().filter(|entry| entry.preferred);
        if let Some(found) = preferred.find(|entry| entry.answers_to(&lower)) {
            return Some(found.clone());
        }
        let (resource, rest) = lower.split_once('.')?;
        let exact = |version: &str, group: &str| {
            let mut all = self.resources.iter();
            all.find(|entry| entry.answers_to(resource) && entry.group == group && entry.version == version).cloned()
        };
        if let Some((version, group)) = rest.split_once('.')
            && let Some(found) = exact(version, group)
        {
            return Some(found);
        }
        let mut preferred = self.resources.iter().filter(|entry| entry.preferred);
        preferred.find(|entry| entry.answers_to(resource) && entry.group == rest).cloned().or_else(|| exact(rest, ""))
    }

    /// As [`Discovery::find`], or kubectl's complaint.
    pub fn need(&self, name: &str) -> Result<Arc<Resource>> {
        let found = self.find(name).ok_or_else(|| {
            let first = name.split('.').next().unwrap_or(name);
            CtlError::plain(format!("the server doesn't have a resource type {first:?}"))
        })?;
        self.hint_at_others(name, &found);
        Ok(found)
    }

    /// Warns where a short name means other resources too.
    fn hint_at_others(&self, name: &str, found: &Resource) {
        let name = name.to_lowercase();
        if !found.short_names.contains(&name) || found.plural == name || found.singular == name {
            return;
        }
        let same = |entry: &&Arc<Resource>| {
            entry.preferred && entry.short_names.contains(&name) && entry.qualified() != found.qualified()
        };
        if let Some(other) = self.resources.iter().find(same) {
            super::api::warn(&format!(
                "short name {name:?} could also match lower priority resource {}",
                other.qualified()
            ));
        }
    }

    /// As [`Discovery::need`], but a category (`all`) stands for all its members.
    pub fn expand(&self, name: &str) -> Result<Vec<Arc<Resource>>> {
        if let Some(resource) = self.find(name) {
            self.hint_at_others(name, &resource);
            return Ok(vec![resource]);
        }
        let members: Vec<Arc<Resource>> = self
            .resources
            .iter()
            .filter(|entry| entry.preferred && entry.categories.iter().any(|category| category == name))
            .cloned()
            .collect();
        if members.is_empty() { self.need(name).map(|resource| vec![resource]) } else { Ok(members) }
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn from_aggregated(list: &Value) -> Vec<Resource> {
    let mut found: Vec<Resource> = Vec::new();
    for group in list["items"].as_array().into_iter().flatten() {
        let first = found.len();
        for version in group["versions"].as_array().into_iter().flatten() {
            for entry in version["resources"].as_array().into_iter().flatten() {
                let plural = text(&entry["resource"]);
                // Another version of the same group lists it already: that one is preferred.
                let preferred = !found[first..].iter().any(|known| known.plural == plural);
                let subresources = entry["subresources"].as_array().into_iter().flatten();
                found.push(Resource {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    plural,
                    singular: text(&entry["singularResource"]),
                    kind: text(&entry["responseKind"]["kind"]),
                    namespaced: entry["scope"] == "Namespaced",
                    short_names: texts(&entry["shortNames"]),
                    categories: texts(&entry["categories"]),
                    verbs: texts(&entry["verbs"]),
                    subresources: subresources.map(|sub| text(&sub["subresource"])).collect(),
                    preferred,
                });
            }
        }
    }
    found
}

async fn from_lists(api: &Api, root: &str, answer: &Value) -> Result<Vec<Resource>> {
    let mut versions: Vec<(String, String)> = Vec::new();
    for version in texts(&answer["versions"]) {
        versions.push((String::new(), version));
    }
    for group in answer["groups"].as_array().into_iter().flatten() {
        let preferred = text(&group["preferredVersion"]["version"]);
        let mut names: Vec<String> =
            group["versions"].as_array().into_iter().flatten().map(|version| text(&version["version"])).collect();
        names.sort_by_key(|name| *name != preferred);
        versions.extend(names.into_iter().map(|name| (text(&group["name"]), name)));
    }
    let mut found: Vec<Resource> = Vec::new();
    for (group, version) in versions {
        let path = if group.is_empty() { format!("{root}/{version}") } else { format!("{root}/{group}/{version}") };
        let list = api.json(&Call::get(path)).await?;
        let known = found.len();
        for entry in list["resources"].as_array().into_iter().flatten() {
            let name = text(&entry["name"]);
            if let Some((parent, sub)) = name.split_once('/') {
                let of = found[known..].iter_mut().find(|resource| resource.plural == parent);
                if let Some(resource) = of {
                    resource.subresources.push(sub.to_owned());
                }
                continue;
            }
            let preferred = !found[..known].iter().any(|other| other.group == group && other.plural == name);
            found.push(Resource {
                group: group.clone(),
                version: version.clone(),
                plural: name,
                singular: text(&entry["singularName"]),
                kind: text(&entry["kind"]),
                namespaced: entry["namespaced"] == true,
                short_names: texts(&entry["shortNames"]),
                categories: texts(&entry["categories"]),
                verbs: texts(&entry["verbs"]),
                subresources: Vec::new(),
                preferred,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    /// A few resources for tests of other modules.
    pub fn sample() -> Discovery {
        let entry = |plural: &str, singular: &str, kind: &str, short: &[&str], categories: &[&str], scope: &str| {
            json!({"resource": plural, "singularResource": singular, "responseKind": {"kind": kind}, "scope": scope,
                   "shortNames": short, "categories": categories, "verbs": ["get", "list"]})
        };
        let list = json!({"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {}, "versions": [{"version": "v1", "resources": [
                entry("pods", "pod", "Pod", &["po"], &["all"], "Namespaced"),
                entry("services", "service", "Service", &["svc"], &["all"], "Namespaced"),
                entry("nodes", "node", "Node", &["no"], &[], "Cluster"),
                entry("namespaces", "namespace", "Namespace", &["ns"], &[], "Cluster"),
                entry("configmaps", "configmap", "ConfigMap", &["cm"], &[], "Namespaced"),
                entry("events", "event", "Event", &["ev"], &[], "Namespaced"),
            ]}]},
            {"metadata": {"name": "apps"}, "versions": [
                {"version": "v1", "resources": [
                    entry("deployments", "deployment", "Deployment", &["deploy"], &["all"], "Namespaced")]},
                {"version": "v1beta1", "resources": [
                    entry("deployments", "deployment", "Deployment", &["deploy"], &[], "Namespaced")]}]},
            {"metadata": {"name": "events.k8s.io"}, "versions": [{"version": "v1", "resources": [
                entry("events", "event", "Event", &["ev"], &[], "Namespaced")]}]},
        ]});
        Discovery::new(from_aggregated(&list))
    }

    #[test]
    fn names_resolve_as_with_kubectl() {
        let discovery = sample();
        for name in ["po", "pod", "pods", "Pod", "PODS"] {
            assert_eq!(discovery.find(name).unwrap().plural, "pods", "{name}");
        }
        assert_eq!(discovery.find("deploy").unwrap().api_version(), "apps/v1");
        assert_eq!(discovery.find("deployments.apps").unwrap().version, "v1");
        assert_eq!(discovery.find("deployments.v1beta1.apps").unwrap().version, "v1beta1");
        assert_eq!(discovery.find("pods.v1").unwrap().plural, "pods");
        assert_eq!(discovery.find("ev").unwrap().group, "");
        assert_eq!(discovery.find("events.events.k8s.io").unwrap().group, "events.k8s.io");
        assert_eq!(
            discovery.need("foo").unwrap_err().text(),
            "error: the server doesn't have a resource type \"foo\"\n"
        );
        let all: Vec<String> = discovery.expand("all").unwrap().iter().map(|entry| entry.qualified()).collect();
        assert_eq!(all, ["pods", "services", "deployments.apps"]);
    }

    #[test]
    fn paths_follow_scope_and_group() {
        let discovery = sample();
        let deploy = discovery.find("deploy").unwrap();
        assert_eq!(deploy.object_path(Some("a"), "b"), "/apis/apps/v1/namespaces/a/deployments/b");
        assert_eq!(deploy.path(None), "/apis/apps/v1/deployments");
        assert_eq!(discovery.find("no").unwrap().object_path(Some("a"), "n"), "/api/v1/nodes/n");
        assert_eq!(deploy.label(), "deployment.apps");
    }
}

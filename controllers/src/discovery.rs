//! Which kinds the API serves, asked of the API itself, and their objects as metadata.

use http::header::{ACCEPT, HeaderValue};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;
use kube::api::ListParams;
use kube::core::{ObjectList, Request};
use trireme_client::informer::Meta;

/// A kind that is served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Served {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
}

impl Served {
    /// The path of its collection, in a namespace or in all.
    pub(crate) fn path(&self, namespace: &str) -> String {
        let (group, version, plural) = (&self.group, &self.version, &self.plural);
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        if self.namespaced && !namespace.is_empty() {
            format!("{root}/namespaces/{namespace}/{plural}")
        } else {
            format!("{root}/{plural}")
        }
    }

    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// All kinds that are served, each in its preferred version. The second part tells which groups could not be asked.
pub(crate) async fn discover(client: &Client) -> Result<(Vec<Served>, Vec<String>), kube::Error> {
    let mut served = Vec::new();
    let mut failed = Vec::new();
    add(&mut served, client.list_core_api_resources("v1").await?);
    for group in client.list_api_groups().await?.groups {
        let preferred = group.preferred_version.or_else(|| group.versions.into_iter().next());
        let Some(version) = preferred else { continue };
        match client.list_api_group_resources(&version.group_version).await {
            Ok(list) => add(&mut served, list),
            Err(error) => failed.push(format!("{}: {error}", version.group_version)),
        }
    }
    served.sort();
    served.dedup();
    Ok((served, failed))
}

fn add(served: &mut Vec<Served>, list: APIResourceList) {
    let (group, version) = list.group_version.split_once('/').unwrap_or(("", &list.group_version));
    // Sub-resources have a slash in their name.
    for resource in list.resources.into_iter().filter(|resource| !resource.name.contains('/')) {
        served.push(Served {
            group: resource.group.filter(|own| !own.is_empty()).unwrap_or_else(|| group.to_owned()),
            version: resource.version.filter(|own| !own.is_empty()).unwrap_or_else(|| version.to_owned()),
            kind: resource.kind,
            plural: resource.name,
            namespaced: resource.namespaced,
            verbs: resource.verbs,
        });
    }
}

/// The objects of a collection, as metadata, page by page.
pub(crate) async fn list_meta(client: &Client, path: &str) -> Result<Vec<Meta>, kube::Error> {
    let mut objects = Vec::new();
    let mut params = ListParams::default().limit(500);
    loop {
        let mut request = Request::new(path).list(&params).map_err(kube::Error::BuildRequest)?;
        let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json";
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
        let page: ObjectList<Meta> = client.request(request).await?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(objects),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn sub_resources_are_left_out_and_paths_are_right() {
        let list: APIResourceList = serde_json::from_value(json!({"groupVersion": "apps/v1", "resources": [
            {"name": "deployments", "kind": "Deployment", "namespaced": true, "singularName": "", "verbs": ["list"]},
            {"name": "deployments/scale", "kind": "Scale", "namespaced": true, "singularName": "", "verbs": ["get"]},
        ]}))
        .unwrap();
        let mut served = Vec::new();
        add(&mut served, list);
        assert_eq!(served.len(), 1);
        assert_eq!(served[0].path("x"), "/apis/apps/v1/namespaces/x/deployments");
        assert_eq!(served[0].path(""), "/apis/apps/v1/deployments");
        assert!(served[0].can("list") && !served[0].can("watch"));
    }
}

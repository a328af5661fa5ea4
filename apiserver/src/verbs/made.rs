//! Resources that are not stored: ComponentStatus is made of what the masters say, and a Binding binds the pod that it names.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use trireme_api::selector::{FieldSelector, LabelSelector};
use trireme_api::status::Status;
use trireme_raftstore::Role;

use super::ctx::{Ctx, text_at};
use super::{encode, subresources};
use crate::error::ApiResult;
use crate::request::accept::{Encoding, Shape};
use crate::response;

/// A Binding in the collection is one of the pod in its metadata: the request becomes that of the pod's sub-resource.
pub(crate) fn bind_by_name(ctx: &mut Ctx, bytes: &Bytes) -> ApiResult<()> {
    let binding = subresources::body(ctx, bytes)?;
    let name = text_at(&binding, &["metadata", "name"]).to_owned();
    if name.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    let pods = ctx.server.inner.catalogue.resource("", "v1", "pods").ok_or_else(Status::unknown_resource)?;
    ctx.resource = pods;
    ctx.info.name = Some(name);
    ctx.info.subresource = "binding".to_owned();
    Ok(())
}

/// GET of one ComponentStatus or of all.
pub(crate) async fn component_statuses(ctx: &Ctx) -> ApiResult<Response<Body>> {
    let all = components(ctx).await;
    if let Some(name) = ctx.info.name.as_deref() {
        let found = all.into_iter().find(|one| text_at(one, &["metadata", "name"]) == name);
        return encode::value(ctx, StatusCode::OK, found.ok_or_else(|| ctx.not_found(name))?);
    }
    let bad = |e: trireme_api::selector::SelectorError| Status::bad_request(e.to_string());
    let labels = LabelSelector::parse(ctx.query.get("labelSelector").unwrap_or_default()).map_err(bad)?;
    let fields = ctx.query.get("fieldSelector").unwrap_or_default();
    let fields = FieldSelector::parse(&ctx.resource, fields).map_err(bad)?;
    let items: Vec<Value> = all.into_iter().filter(|one| fields.matches(one) && labels.matches(&Map::new())).collect();
    let list = match ctx.accept.shape {
        Shape::Table => encode::rows(ctx, &items, Map::new(), true)?,
        Shape::Native => json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items}),
        Shape::Metadata => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {},
            "items": items.iter().map(trireme_api::table::partial_metadata).collect::<Vec<_>>(),
        }),
    };
    match ctx.accept.encoding {
        Encoding::Json => response::value(StatusCode::OK, Encoding::Json, &list),
        Encoding::Yaml => response::value(StatusCode::OK, Encoding::Yaml, &list),
    }
}

/// The components under upstream's names: the store of each master as an etcd; scheduler and controllers live in the leader.
async fn components(ctx: &Ctx) -> Vec<Value> {
    let store = &ctx.server.inner.store;
    let (mut members, lost) = match store.members().await {
        Ok(members) => (members, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    members.sort_by_key(|member| member.id);
    let led = members.iter().any(|member| member.role == Role::Leader && member.healthy) && store.in_contact();
    let why = lost.clone().unwrap_or_else(|| "no master leads: this one has no quorum".to_owned());
    let mut all: Vec<Value> = ["scheduler", "controller-manager"]
        .map(|name| component(name, if led { Ok(()) } else { Err(why.clone()) }))
        .into();
    for (i, member) in members.iter().enumerate() {
        let health = if member.healthy { Ok(()) } else { Err(format!("{} does not answer", member.name)) };
        all.push(component(&format!("etcd-{i}"), health));
    }
    if let Some(why) = lost {
        all.push(component("etcd-0", Err(why)));
    }
    all
}

fn component(name: &str, health: Result<(), String>) -> Value {
    let condition = match health {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(why) => json!({"type": "Healthy", "status": "False", "message": "", "error": why}),
    };
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]})
}

//! Who owns the fields of an object that was applied by the client before the server does it.

use http::Method;
use serde_json::{Map, Value, json};

use super::super::api::Call;
use super::super::errors::Result;
use super::super::mutate::JSON_PATCH;
use super::super::session::Session;
use super::super::targets::Target;
use super::{LAST_APPLIED, MANAGER};

/// Who owns the annotation that later applies by the client need.
const KEEPER: &str = "kubectl-last-applied";
/// Who applies by the server.
const SERVER_SIDE: &str = "kubectl";
/// How often the owners are written down again because the object changed in between.
const ATTEMPTS: usize = 5;

/// What to do about a conflict.
pub const ADVICE: &str = "\
Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts";

/// The object as it is when what the client applied belongs to who applies by the server; `again` applies once more, so that
/// what is not applied any more belongs to nobody.
pub async fn taken_over(session: &Session, target: &Target, again: &Call, applied: Value) -> Result<Value> {
    let mut object = applied;
    let annotation = object["metadata"]["annotations"][LAST_APPLIED].clone();
    let is_kept = |object: &Value| managers(object).iter().any(|entry| entry["manager"] == KEEPER);
    if annotation.is_string() && !is_kept(&object) && migrated(&object).is_some() {
        let body = json!({
            "apiVersion": object["apiVersion"], "kind": object["kind"],
            "metadata": {"name": object["metadata"]["name"], "annotations": {LAST_APPLIED: annotation}},
        });
        let call = Call::new(Method::PATCH, target.path()).query("fieldManager", KEEPER).query("force", "true");
        object = session.api.json(&call.body_as("application/apply-patch+yaml", &body)).await?;
    }
    for attempt in 0.. {
        let Some(managers) = migrated(&object) else { return Ok(object) };
        let patch = json!([
            {"op": "replace", "path": "/metadata/managedFields", "value": managers},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": object["metadata"]["resourceVersion"]},
        ]);
        match session.api.json(&Call::new(Method::PATCH, target.path()).body_as(JSON_PATCH, &patch)).await {
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => object = target.fetch(session).await?,
            Err(error) => return Err(error),
            Ok(_) => return session.api.json(again).await,
        }
    }
    Ok(object)
}

fn managers(object: &Value) -> &[Value] {
    object["metadata"]["managedFields"].as_array().map_or(&[], Vec::as_slice)
}

/// The owners, with those of the client's applies united with the server's; none if there is nothing to do.
fn migrated(object: &Value) -> Option<Vec<Value>> {
    let is_client =
        |entry: &Value| entry["manager"] == MANAGER && entry["operation"] == "Update" && entry["subresource"].is_null();
    let is_server = |entry: &Value| {
        entry["manager"] == SERVER_SIDE && entry["operation"] == "Apply" && entry["subresource"].is_null()
    };
    let (client, mut rest): (Vec<Value>, Vec<Value>) = managers(object).iter().cloned().partition(is_client);
    let server = rest.iter_mut().find(|entry| is_server(entry)).filter(|_| !client.is_empty())?;
    client.iter().for_each(|entry| unite(&mut server["fieldsV1"], &entry["fieldsV1"]));
    Some(rest)
}

/// Adds the fields of one set to another's.
fn unite(into: &mut Value, fields: &Value) {
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    if let (Some(into), Some(fields)) = (into.as_object_mut(), fields.as_object()) {
        for (name, inner) in fields {
            unite(into.entry(name).or_insert(Value::Null), inner);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_the_client_applied_belongs_to_the_server_side() {
        let entry = |manager: &str, operation: &str, fields: Value| json!({"manager": manager, "operation": operation, "fieldsV1": fields});
        let server = entry("kubectl", "Apply", json!({"f:data": {"f:a": {}}}));
        let client = entry("kubectl-client-side-apply", "Update", json!({"f:data": {".": {}, "f:b": {}}}));
        let other = entry("other", "Update", json!({"f:x": {}}));
        let object = |entries: &[&Value]| json!({"metadata": {"managedFields": entries}});
        let united = migrated(&object(&[&server, &client, &other])).unwrap();
        assert_eq!(
            united,
            [entry("kubectl", "Apply", json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}})), other.clone()]
        );
        assert!(migrated(&object(&[&server, &other])).is_none());
        assert!(migrated(&object(&[&client, &other])).is_none());
    }
}

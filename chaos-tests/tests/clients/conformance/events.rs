//! Rows instrumentation-*: events of both groups.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Row;

/// One of the groups that serve events, as kubectl names it.
const CORE: &str = "events.v1.";
const API: &str = "events.v1.events.k8s.io";

/// An event of the group, with a label by which it is found.
fn event(row: &Row<'_>, resource: &str, name: &str) -> Value {
    let about = json!({"kind": "Pod", "namespace": row.namespace, "name": "p", "apiVersion": "v1"});
    let metadata = json!({"name": name, "namespace": row.namespace, "labels": {"testevent-set": row.namespace}});
    if resource == CORE {
        return json!({"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": about,
            "reason": "Test", "message": "This is a test", "type": "Normal", "count": 1,
            "source": {"component": "e2e"}, "firstTimestamp": "2017-09-19T13:49:16Z"});
    }
    json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": metadata, "regarding": about,
        "reason": "Test", "note": "This is a test", "type": "Normal", "action": "Do",
        "eventTime": "2017-09-19T13:49:16.000000Z", "reportingController": "test-controller",
        "reportingInstance": "test-node", "deprecatedSource": {"component": "test"}})
}

/// The events with the row's label: in all namespaces, or in its own.
fn found(row: &Row<'_>, resource: &str, everywhere: bool) -> Result<Vec<Value>> {
    let label = format!("testevent-set={}", row.namespace);
    let all: &[&str] = if everywhere { &["-A"] } else { &[] };
    let list = row.sees(&[&["get", resource, "-l", &label], all].concat())?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn deletes_a_collection(row: &Row<'_>, resource: &str) -> Result<()> {
    for name in ["test-event-1", "test-event-2", "test-event-3"] {
        row.creates(&event(row, resource, name))?;
    }
    let mut other = event(row, resource, "stays");
    other["metadata"]["labels"] = json!({"testevent-set": "another"});
    row.creates(&other)?;
    ensure!(found(row, resource, false)?.len() == 3);
    let group = if resource == CORE { "api/v1" } else { "apis/events.k8s.io/v1" };
    let namespace = &row.namespace;
    let path = format!("/{group}/namespaces/{namespace}/events?labelSelector=testevent-set%3D{namespace}");
    row.does(&["delete", "--raw", &path])?;
    ensure!(found(row, resource, false)?.is_empty());
    row.sees(&["get", resource, "stays"]).map(drop)
}

/// Made, found, patched, updated, deleted: what is read back is what was written, and nothing else changed.
fn lives(row: &Row<'_>, resource: &str, message: &str, count: [&str; 2]) -> Result<()> {
    let name = "event-test";
    row.creates(&event(row, resource, name))?;
    for everywhere in [true, false] {
        ensure!(found(row, resource, everywhere)?.len() == 1);
    }
    let selected = format!("--field-selector=metadata.name={name},reason=Test");
    ensure!(row.sees(&["get", resource, &selected])?["items"].as_array().is_some_and(|items| items.len() == 1));
    let before = row.sees(&["get", resource, name])?;
    ensure!(before[message] == "This is a test", "{before}");
    let patch = json!({message: "This is a test event - patched"}).to_string();
    row.does(&["patch", resource, name, "--type=merge", "-p", &patch])?;
    let mut now = row.sees(&["get", resource, name])?;
    ensure!(now[message] == "This is a test event - patched", "{now}");
    ensure!((&now["reason"], &now["type"]) == (&before["reason"], &before["type"]), "{now}");
    let [outer, inner] = count;
    now[outer] = json!({"count": 100, inner: "2017-09-19T13:49:16.000000Z"});
    row.fed(&now, &["replace", "-f", "-"])?.ok()?;
    let updated = row.sees(&["get", resource, name])?;
    ensure!(updated[outer]["count"] == 100 && updated[message] == now[message], "{updated}");
    row.does(&["delete", resource, name])?;
    ensure!(found(row, resource, true)?.is_empty() && found(row, resource, false)?.is_empty());
    Ok(())
}

pub fn collection_of_the_api(row: &Row<'_>) -> Result<()> {
    deletes_a_collection(row, API)
}

pub fn life_in_the_api(row: &Row<'_>) -> Result<()> {
    lives(row, API, "note", ["series", "lastObservedTime"])
}

pub fn collection(row: &Row<'_>) -> Result<()> {
    deletes_a_collection(row, CORE)
}

pub fn life(row: &Row<'_>) -> Result<()> {
    lives(row, CORE, "message", ["series", "lastObservedTime"])
}

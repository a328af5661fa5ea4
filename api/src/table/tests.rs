//! Tests of table cells, by what `kubectl get` prints.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::catalogue::Catalogue;

const NOW: &str = "2026-01-01T01:00:00Z";

fn cells(group: &str, plural: &str, object: &Value) -> Vec<Value> {
    let resource = Catalogue::builtin().resource(group, "v1", plural).unwrap();
    let cells = (resource.printer.cells)(object, NOW.parse().unwrap());
    assert_eq!(cells.len(), resource.printer.columns.len(), "{plural}");
    cells
}

fn meta() -> Value {
    json!({"name": "x", "creationTimestamp": "2026-01-01T00:50:00Z"})
}

#[test]
fn every_printer_makes_as_many_cells_as_columns() {
    for resource in Catalogue::builtin().resources() {
        let made = (resource.printer.cells)(&json!({"metadata": meta()}), NOW.parse().unwrap());
        assert_eq!(made.len(), resource.printer.columns.len(), "{}", resource.qualified());
    }
}

#[test]
fn pods() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}], "nodeName": "n1"});
    let running = |ready: bool, restarts: i64| json!({"name": "a", "ready": ready, "restartCount": restarts, "state": {"running": {}}});
    let waiting = |reason: &str| json!({"name": "a", "restartCount": 3, "state": {"waiting": {"reason": reason}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}});
    let ended =
        |code: i64, reason: &str| json!({"name": "a", "state": {"terminated": {"exitCode": code, "reason": reason}}});
    let initialized = json!([{"type": "Initialized", "status": "True"}]);
    let cases = [
        (json!({"phase": "Pending"}), "0/3", "Pending", "0"),
        (
            json!({"phase": "Running", "conditions": initialized, "containerStatuses": [running(true, 0), running(true, 1)]}),
            "2/3",
            "Running",
            "1",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]}),
            "0/3",
            "CrashLoopBackOff",
            "3 (5m ago)",
        ),
        (json!({"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}), "0/3", "Completed", "0"),
        (json!({"phase": "Failed", "containerStatuses": [ended(7, "")]}), "0/3", "ExitCode:7", "0"),
        (json!({"phase": "Failed", "reason": "Evicted"}), "0/3", "Evicted", "0"),
        (
            json!({"phase": "Running", "containerStatuses": [running(true, 0), ended(0, "Completed")]}),
            "1/3",
            "NotReady",
            "0",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [ended(0, "Completed"), running(true, 0)]}),
            "1/3",
            "NotReady",
            "0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            "0/3",
            "Init:0/2",
            "0",
        ),
        (json!({"phase": "Pending", "initContainerStatuses": [ended(1, "Error")]}), "0/3", "Init:Error", "0"),
        (
            json!({"phase": "Pending", "initContainerStatuses": [waiting("ImagePullBackOff")]}),
            "0/3",
            "Init:ImagePullBackOff",
            "3 (5m ago)",
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            "0/3",
            "SchedulingGated",
            "0",
        ),
    ];
    for (status, ready, reason, restarts) in cases {
        let cells = cells("", "pods", &json!({"metadata": meta(), "spec": spec, "status": status}));
        assert_eq!(cells[1..4], [json!(ready), json!(reason), json!(restarts)], "{status}");
        assert_eq!((&cells[4], &cells[6], &cells[8]), (&json!("10m"), &json!("n1"), &json!("<none>")));
    }
    let mut metadata = meta();
    metadata["deletionTimestamp"] = NOW.into();
    let leaving = json!({"metadata": metadata, "spec": spec, "status": {"phase": "Running"}});
    assert_eq!(cells("", "pods", &leaving)[2], "Terminating");
}

#[test]
fn other_kinds() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:2"}]}});
    let cases = [
        (
            ("apps", "deployments"),
            json!({"spec": {"replicas": 3, "template": template, "selector": {"matchLabels": {"app": "w"}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}}),
            json!(["x", "2/3", 3, 2, "10m", "a,b", "i:1,i:2", "app=w"]),
        ),
        (
            ("", "replicationcontrollers"),
            json!({"spec": {"replicas": 3, "template": template, "selector": {"app": "w"}}, "status": {"replicas": 2}}),
            json!(["x", 3, 2, 0, "10m", "a,b", "i:1,i:2", "app=w"]),
        ),
        (
            ("", "services"),
            json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}], "selector": {"a": "b"}}}),
            json!(["x", "NodePort", "10.0.0.1", "<none>", "80:30080/TCP,53/UDP", "10m", "a=b"]),
        ),
        (
            ("", "services"),
            json!({"spec": {"type": "LoadBalancer", "clusterIP": "None"}}),
            json!(["x", "LoadBalancer", "None", "<pending>", "<none>", "10m", "<none>"]),
        ),
        (
            ("", "endpoints"),
            json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "ports": [{"port": 80}, {"port": 81}]}]}),
            json!(["x", "1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more...", "10m"]),
        ),
        (("", "endpoints"), json!({}), json!(["x", "<none>", "10m"])),
        (
            ("discovery.k8s.io", "endpointslices"),
            json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1.1.1.1"]}]}),
            json!(["x", "IPv4", "80", "1.1.1.1", "10m"]),
        ),
        (("", "namespaces"), json!({"status": {"phase": "Active"}}), json!(["x", "Active", "10m"])),
        (("", "configmaps"), json!({"data": {"a": "b"}, "binaryData": {"c": ""}}), json!(["x", 2, "10m"])),
        (("", "secrets"), json!({"type": "Opaque", "data": {"a": ""}}), json!(["x", "Opaque", 1, "10m"])),
        (
            ("", "nodes"),
            json!({"spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.1.1.1"}], "nodeInfo": {"kubeletVersion": "v1"}}}),
            json!([
                "x",
                "Ready,SchedulingDisabled",
                "<none>",
                "10m",
                "v1",
                "10.1.1.1",
                "<none>",
                "<unknown>",
                "<unknown>",
                "<unknown>"
            ]),
        ),
        (
            ("", "events"),
            json!({"type": "Warning", "reason": "Failed", "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"}, "source": {"component": "c", "host": "h"},
            "message": "no\n", "count": 4, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:00Z"}),
            json!(["60s", "Warning", "Failed", "pod/p", "spec", "c, h", "no", "60m", 4, "x"]),
        ),
        (("coordination.k8s.io", "leases"), json!({"spec": {"holderIdentity": "h"}}), json!(["x", "h", "10m"])),
    ];
    for ((group, plural), mut object, want) in cases {
        object["metadata"] = meta();
        assert_eq!(Value::from(cells(group, plural, &object)), want, "{plural}");
    }
}

#[test]
fn tables_carry_what_is_asked_for() {
    let resource = Catalogue::builtin().resource("", "v1", "configmaps").unwrap();
    let objects = [json!({"kind": "ConfigMap", "metadata": meta(), "data": {"a": "b"}})];
    let now = NOW.parse().unwrap();
    let run = |include_object, no_columns| {
        table(&resource, &objects, now, &Options { include_object, no_columns, ..Options::default() })
    };
    let whole = run(IncludeObject::Object, false);
    assert_eq!((&whole["kind"], &whole["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(whole["columnDefinitions"][0]["format"], "name");
    assert_eq!(whole["rows"][0]["object"], objects[0]);
    assert_eq!(run(IncludeObject::Metadata, false)["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let bare = run(IncludeObject::None, true);
    assert!(bare["rows"][0].get("object").is_none());
    assert_eq!(bare["columnDefinitions"], json!([]));
}

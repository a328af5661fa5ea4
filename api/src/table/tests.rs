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
fn every_kind_has_upstreams_columns() {
    let text = include_str!("../../testdata/columns.txt");
    let mut wanted: std::collections::BTreeMap<&str, &str> =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once(": ").unwrap()).collect();
    let mut differing = Vec::new();
    let catalogue = Catalogue::builtin();
    let mut served: Vec<_> = catalogue.resources().iter().collect();
    served.sort_by_key(|resource| resource.qualified());
    served.dedup_by_key(|resource| resource.qualified());
    for resource in served {
        let shown = |column: &Column| {
            let wide = if column.priority > 0 { "+" } else { "" };
            let kind = match column.kind {
                "string" => "",
                "integer" => ":i",
                "boolean" => ":b",
                _ => ":d",
            };
            format!("{}{wide}{kind}", column.name)
        };
        let columns = resource.printer.columns.iter().map(shown).collect::<Vec<_>>().join(", ");
        let want = wanted.remove(resource.qualified().as_str()).unwrap_or("Name, Created At:d");
        if columns != want {
            differing.push(format!("{}\n  ours {columns}\ntheirs {want}", resource.qualified()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert!(wanted.is_empty(), "not served: {wanted:?}");
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

#[test]
fn kinds_that_nothing_acts_on_yet() {
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    let selector = json!({"matchLabels": {"a": "b"}});
    let cases = vec![
        (
            ("apps", "daemonsets"),
            json!({"spec": {"selector": selector, "template": template}, "status": {"desiredNumberScheduled": 3, "currentNumberScheduled": 2,
                "numberReady": 1, "updatedNumberScheduled": 2, "numberAvailable": 1}}),
            json!(["x", 3, 2, 1, 2, 1, "<none>", "10m", "c", "i", "a=b"]),
        ),
        (
            ("apps", "statefulsets"),
            json!({"spec": {"replicas": 3, "template": template}, "status": {"readyReplicas": 1}}),
            json!(["x", "1/3", "10m", "c", "i"]),
        ),
        (
            ("batch", "jobs"),
            json!({"spec": {"completions": 2, "parallelism": 1, "selector": selector, "template": template},
                "status": {"startTime": "2026-01-01T00:59:00Z", "succeeded": 1}}),
            json!(["x", "Running", "1/2", "60s", "10m", "c", "i", "a=b"]),
        ),
        (
            ("batch", "jobs"),
            json!({"spec": {"parallelism": 3, "template": template}, "status": {"conditions": [{"type": "Complete", "status": "True"}],
                "startTime": "2026-01-01T00:55:00Z", "completionTime": "2026-01-01T00:55:30Z", "succeeded": 1}}),
            json!(["x", "Complete", "1/1 of 3", "30s", "10m", "c", "i", "<none>"]),
        ),
        (
            ("batch", "cronjobs"),
            json!({"spec": {"schedule": "* * * * *", "suspend": false, "jobTemplate": {"spec": {"template": template}}},
                "status": {"active": [{}], "lastScheduleTime": "2026-01-01T00:59:30Z"}}),
            json!(["x", "* * * * *", "<none>", "False", 1, "30s", "10m", "c", "i", "<none>"]),
        ),
        (
            ("policy", "poddisruptionbudgets"),
            json!({"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 2}}),
            json!(["x", "50%", "N/A", 2, "10m"]),
        ),
    ];
    compare(cases);
}

fn compare(cases: Vec<((&str, &str), Value, Value)>) {
    for ((group, plural), mut object, want) in cases {
        object["metadata"] = meta();
        assert_eq!(Value::from(cells(group, plural, &object)), want, "{plural}");
    }
}

#[test]
fn storage_roles_and_networking() {
    let cases = vec![
        (
            ("", "resourcequotas"),
            json!({"status": {"hard": {"pods": "3", "limits.cpu": "1", "cpu": "2"}, "used": {"pods": "1"}}}),
            json!(["x", "cpu: 0/2, pods: 1/3", "limits.cpu: 0/1", "10m"]),
        ),
        (
            ("", "persistentvolumes"),
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "storageClassName": "s",
                "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem", "claimRef": {"namespace": "n", "name": "c"}},
                "status": {"phase": "Bound"}}),
            json!(["x", "1Gi", "RWO,RWX", "Retain", "Bound", "n/c", "s", "<unset>", "", "10m", "Filesystem"]),
        ),
        (
            ("", "persistentvolumeclaims"),
            json!({"spec": {"volumeName": "v", "volumeMode": "Block"}, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"]}}),
            json!(["x", "Bound", "v", "1Gi", "RWO", "", "<unset>", "10m", "Block"]),
        ),
        (("", "limitranges"), json!({}), json!(["x", "2026-01-01T00:50:00Z"])),
        (
            ("rbac.authorization.k8s.io", "rolebindings"),
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "User", "name": "v"},
                {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]}),
            json!(["x", "Role/r", "10m", "u, v", "", "n/s"]),
        ),
        (
            ("networking.k8s.io", "ingresses"),
            json!({"spec": {"rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}], "tls": [{}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}}),
            json!(["x", "<none>", "a,b,c + 1 more...", "10.0.0.1", "80, 443", "10m"]),
        ),
        (
            ("certificates.k8s.io", "certificatesigningrequests"),
            json!({"spec": {"signerName": "s/t", "username": "u", "expirationSeconds": 3600},
                "status": {"conditions": [{"type": "Approved"}], "certificate": "eA=="}}),
            json!(["x", "10m", "s/t", "u", "60m", "Approved,Issued"]),
        ),
        (
            ("apiregistration.k8s.io", "apiservices"),
            json!({"spec": {"service": {"namespace": "n", "name": "s"}}}),
            json!(["x", "n/s", "Unknown", "10m"]),
        ),
    ];
    compare(cases);
}

#[test]
fn autoscalers_show_what_they_aim_at_in_both_versions() {
    let resource = |amount: &str| json!({"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}, "current": {"averageUtilization": 10, "averageValue": amount}}});
    let mut object = json!({"metadata": meta(), "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 5, "metrics": [resource("5m"),
            {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"averageValue": "3"}}},
            {"type": "Pods", "pods": {"metric": {"name": "r"}, "target": {"averageValue": "4"}}}]},
        "status": {"currentReplicas": 2, "currentMetrics": [resource("5m")]}});
    let want = json!(["x", "Deployment/d", "cpu: 10%/80%, <unknown>/3 + 1 more...", "1", 5, 2, "10m"]);
    let print = |version: &str, object: &Value| {
        let own = Catalogue::builtin().resource("autoscaling", version, "horizontalpodautoscalers").unwrap();
        Value::from((own.printer.cells)(object, NOW.parse().unwrap()))
    };
    assert_eq!(print("v2", &object), want);
    crate::convert::autoscaler::to_v1(&mut object);
    assert_eq!(print("v1", &object), want);
}

#[test]
fn kinds_without_a_stable_version_have_upstreams_columns() {
    let condition = |kind: &str| json!({"type": kind});
    let server = |id: &str| json!({"apiServerID": id, "encodingVersion": "v1"});
    let cases = [
        (
            ("certificates.k8s.io", "v1beta1", "clustertrustbundles"),
            "Name SignerName",
            json!({"spec": {"signerName": "e.com/s"}}),
            json!(["x", "e.com/s"]),
        ),
        (
            ("certificates.k8s.io", "v1alpha1", "clustertrustbundles"),
            "Name SignerName",
            json!({}),
            json!(["x", "<none>"]),
        ),
        (
            ("certificates.k8s.io", "v1beta1", "podcertificaterequests"),
            "Name PodName ServiceAccountName NodeName SignerName State",
            json!({"spec": {"podName": "p", "serviceAccountName": "a", "nodeName": "n", "signerName": "s"},
                "status": {"conditions": [condition("Other"), condition("Issued")]}}),
            json!(["x", "p", "a", "n", "s", "Issued"]),
        ),
        (
            ("coordination.k8s.io", "v1beta1", "leasecandidates"),
            "Name LeaseName BinaryVersion EmulationVersion Age",
            json!({"spec": {"leaseName": "l", "binaryVersion": "1.36", "emulationVersion": "1.35"}}),
            json!(["x", "l", "1.36", "1.35", "10m"]),
        ),
        (("resource.k8s.io", "v1beta2", "devicetaintrules"), "Name Age", json!({}), json!(["x", "10m"])),
        (("scheduling.k8s.io", "v1alpha2", "workloads"), "Name Age", json!({}), json!(["x", "10m"])),
        (
            ("storagemigration.k8s.io", "v1beta1", "storageversionmigrations"),
            "Name Resource",
            json!({"spec": {"resource": {"group": "apps", "resource": "deployments"}}}),
            json!(["x", "deployments.apps"]),
        ),
        (
            ("internal.apiserver.k8s.io", "v1alpha1", "storageversions"),
            "Name CommonEncodingVersion StorageVersions Age",
            json!({"status": {"storageVersions": [server("a"), server("b"), server("c"), server("d")]}}),
            json!(["x", "<unset>", "a=v1,b=v1,c=v1 + 1 more...", "10m"]),
        ),
    ];
    for ((group, version, plural), columns, mut object, want) in cases {
        let resource = Catalogue::everything().resource(group, version, plural).unwrap();
        let names: Vec<&str> = resource.printer.columns.iter().map(|column| column.name).collect();
        assert_eq!(names.join(" "), columns, "{plural}");
        object["metadata"] = meta();
        assert_eq!(Value::from((resource.printer.cells)(&object, NOW.parse().unwrap())), want, "{plural}");
    }
}

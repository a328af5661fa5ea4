//! Descriptions of sample objects, line by line as kubectl shows them.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Subject, render};

fn now() -> Timestamp {
    "2026-11-21T12:10:00Z".parse().unwrap()
}

fn text(object: Value, events: Vec<Value>) -> String {
    render(&Subject { object, events: Some(events), ..Subject::default() }, now()).unwrap()
}

fn running_pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"app": "web", "b": "c"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "controller": true}]},
        "spec": {"nodeName": "node-1", "priority": 0, "serviceAccountName": "default", "containers": [{"name": "web", "image": "busybox",
            "command": ["httpd", "-f"], "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}},
            "volumeMounts": [{"name": "v", "mountPath": "/x", "readOnly": true}]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 300}]},
        "status": {"phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.244.0.2", "podIPs": [{"ip": "10.244.0.2"}],
            "startTime": "2026-11-21T12:00:00Z", "qosClass": "BestEffort",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "web", "containerID": "t://1", "imageID": "sha256:1", "ready": true,
                "restartCount": 1, "state": {"running": {"startedAt": "2026-11-21T12:00:01Z"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}})
}

#[test]
fn a_running_pod() {
    let pod = running_pod();
    let event = json!({"type": "Normal", "reason": "Scheduled", "source": {"component": "default-scheduler"},
        "message": "Successfully assigned default/web-1 to node-1", "firstTimestamp": "2026-11-21T12:00:00Z",
        "lastTimestamp": "2026-11-21T12:00:00Z", "count": 1});
    let expected = "\
Name:             web-1
Namespace:        default
Priority:         0
Service Account:  default
Node:             node-1/10.0.0.1
Start Time:       Sat, 21 Nov 2026 12:00:00 +0000
Labels:           app=web
                  b=c
Annotations:      <none>
Status:           Running
IP:               10.244.0.2
IPs:
  IP:           10.244.0.2
Controlled By:  ReplicaSet/web
Containers:
  web:
    Container ID:  t://1
    Image:         busybox
    Image ID:      sha256:1
    Port:          80/TCP
    Host Port:     0/TCP
    Command:
      httpd
      -f
    State:          Running
      Started:      Sat, 21 Nov 2026 12:00:01 +0000
    Last State:     Terminated
      Reason:       Error
      Exit Code:    1
      Started:      
      Finished:     
    Ready:          True
    Restart Count:  1
    Limits:
      cpu:        1
    Environment:  <none>
    Mounts:
      /x from v (ro)
Conditions:
  Type    Status
  Ready   True 
Volumes:
  v:
    Type:        EmptyDir (a temporary directory that shares a pod's lifetime)
    Medium:      
    SizeLimit:   <unset>
QoS Class:       BestEffort
Node-Selectors:  <none>
Tolerations:     node.kubernetes.io/not-ready:NoExecute op=Exists for 300s
Events:
  Type    Reason     Age   From               Message
  ----    ------     ----  ----               -------
  Normal  Scheduled  10m   default-scheduler  Successfully assigned default/web-1 to node-1
";
    assert_eq!(text(pod, vec![event]), expected);
}

#[test]
fn a_deployment() {
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default",
            "creationTimestamp": "2026-11-21T12:00:00Z", "annotations": {"deployment.kubernetes.io/revision": "2",
            "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "busybox"}]}}},
        "status": {"replicas": 3, "updatedReplicas": 3, "availableReplicas": 2, "unavailableReplicas": 1,
            "conditions": [{"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}]}});
    let set = |name: &str, revision: &str, replicas: i64| {
        json!({"metadata": {"name": name, "annotations": {"deployment.kubernetes.io/revision": revision}},
            "spec": {"replicas": replicas}, "status": {"replicas": replicas}})
    };
    let sets = vec![set("web-a", "1", 0), set("web-b", "2", 3)];
    let subject = Subject { object, events: Some(Vec::new()), sets, ..Subject::default() };
    let expected = "\
Name:                   web
Namespace:              default
CreationTimestamp:      Sat, 21 Nov 2026 12:00:00 +0000
Labels:                 <none>
Annotations:            deployment.kubernetes.io/revision: 2
Selector:               app=web
Replicas:               3 desired | 3 updated | 3 total | 2 available | 1 unavailable
StrategyType:           RollingUpdate
MinReadySeconds:        0
RollingUpdateStrategy:  25% max unavailable, 25% max surge
Pod Template:
  Labels:  app=web
  Containers:
   web:
    Image:         busybox
    Port:          <none>
    Host Port:     <none>
    Environment:   <none>
    Mounts:        <none>
  Volumes:         <none>
  Node-Selectors:  <none>
  Tolerations:     <none>
Conditions:
  Type           Status  Reason
  ----           ------  ------
  Available      True    MinimumReplicasAvailable
OldReplicaSets:  web-a (0/0 replicas created)
NewReplicaSet:   web-b (3/3 replicas created)
Events:          <none>
";
    assert_eq!(render(&subject, now()).unwrap(), expected);
}

#[test]
fn a_service_with_endpoints() {
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "sessionAffinity": "None",
            "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]}});
    let slice = json!({"ports": [{"name": "", "port": 8080}], "endpoints": [
        {"addresses": ["10.244.0.1"], "conditions": {"ready": true}},
        {"addresses": ["10.244.0.2"], "conditions": {"ready": false}}]});
    let subject = Subject { object, slices: vec![slice], events: Some(Vec::new()), ..Subject::default() };
    let expected = "\
Name:              web
Namespace:         default
Labels:            <none>
Annotations:       <none>
Selector:          app=web
Type:              ClusterIP
IP Families:       <none>
IP:                10.96.0.9
IPs:               10.96.0.9
Port:              <unset>  80/TCP
TargetPort:        8080/TCP
Endpoints:         10.244.0.1:8080
Session Affinity:  None
Events:            <none>
";
    assert_eq!(render(&subject, now()).unwrap(), expected);
}

#[test]
fn secrets_show_sizes_only() {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"},
        "type": "Opaque", "data": {"k": "c2VjcmV0"}});
    let text = text(secret, Vec::new());
    assert!(text.ends_with("\nType:  Opaque\n\nData\n====\nk:  6 bytes\n"), "{text}");
    assert!(!text.contains("c2VjcmV0"));
}

#[test]
fn config_maps_and_namespaces() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d"}, "data": {"k": "v"}});
    let expected = "Name:         c\nNamespace:    d\nLabels:       <none>\nAnnotations:  <none>\n\nData\n====\nk:\n----\n\
                    v\n\n\nBinaryData\n====\n\nEvents:  <none>\n";
    assert_eq!(text(map, Vec::new()), expected);
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "d"}, "status": {"phase": "Active"}});
    let subject =
        Subject { object: namespace, quotas: Some(Vec::new()), limits: Some(Vec::new()), ..Subject::default() };
    let text = render(&subject, now()).unwrap();
    assert!(text.ends_with("Status:       Active\n\nNo resource quota.\n\nNo LimitRange resource.\n"), "{text}");
}

#[test]
fn a_node_sums_its_pods() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "creationTimestamp": "2026-11-21T12:00:00Z"},
        "spec": {"podCIDR": "10.244.0.0/24"}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi"}}});
    let pod = json!({"metadata": {"name": "p", "namespace": "d", "creationTimestamp": "2026-11-21T12:00:00Z"},
        "spec": {"containers": [{"resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}]},
        "status": {"phase": "Running"}});
    let done = json!({"metadata": {"name": "q"}, "spec": {}, "status": {"phase": "Succeeded"}});
    let text =
        render(&Subject { object: node, pods: vec![pod, done], events: None, ..Subject::default() }, now()).unwrap();
    assert!(text.contains("(1 in total)\n"), "{text}");
    assert!(text.contains("cpu                500m (25%)  0 (0%)\n"), "{text}");
    assert!(text.contains("memory             1Gi (25%)   0 (0%)\n"), "{text}");
}

#[test]
fn anything_else_is_described_too() {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "l", "namespace": "d", "uid": "u"}, "spec": {"holderIdentity": "x"}});
    let text = text(lease, Vec::new());
    let expected = "API Version:  coordination.k8s.io/v1\nKind:         Lease\nMetadata:\n  UID:  u\nSpec:\n  Holder Identity:  x\n";
    assert!(text.contains(expected), "{text}");
}

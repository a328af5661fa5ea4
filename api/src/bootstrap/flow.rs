//! Upstream's priority levels and flow schemas.

use crate::catalogue::Catalogue;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::OnceLock;

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
/// Whether an object still follows what upstream suggests.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec,
    })
}

/// A level of so many shares, of which some percent can be lent, with so many queues and a hand of some of them.
fn level(name: &str, shares: i64, lendable: i64, queues: Option<(i64, i64)>) -> Value {
    let response = match queues {
        Some((queues, hand)) => {
            json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}})
        }
        None => json!({"type": "Reject"}),
    };
    let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
    object("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": limited}))
}

fn levels() -> Vec<Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    vec![
        object("PriorityLevelConfiguration", "exempt", exempt),
        level("catch-all", 5, 0, None),
        level("system", 30, 33, Some((64, 6))),
        level("node-high", 40, 25, Some((64, 6))),
        level("leader-election", 10, 0, Some((16, 4))),
        level("workload-high", 40, 50, Some((128, 6))),
        level("workload-low", 100, 90, Some((128, 6))),
        level("global-default", 20, 50, Some((128, 6))),
    ]
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn accounts(names: &[&str]) -> Vec<Value> {
    let one =
        |name: &&str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}});
    names.iter().map(one).collect()
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        crate::value::set(&mut rule, "clusterScope", true);
    }
    rule
}

/// Every request of some subjects.
fn everything(subjects: Vec<Value>) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

fn schema(name: &str, level: &str, precedence: i64, by: &str, rule: Value) -> Value {
    let mut spec = json!({
        "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level}, "rules": [rule],
    });
    if !by.is_empty() {
        crate::value::set(&mut spec, "distinguisherMethod", json!({"type": by}));
    }
    object("FlowSchema", name, spec)
}

fn schemas() -> Vec<Value> {
    const LEASE: [&str; 3] = ["get", "create", "update"];
    let anyone = || groups(&["system:unauthenticated", "system:authenticated"]);
    let leases = || resources(&LEASE, "coordination.k8s.io", &["leases"], false);
    let with = |mut first: Vec<Value>, rest: Vec<Value>| {
        first.extend(rest);
        first
    };
    let (manager, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    let probes = json!({
        "subjects": anyone(),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    });
    let elections =
        json!({"subjects": with(users(&[manager, scheduler]), accounts(&["*"])), "resourceRules": [leases()]});
    let endpoints = json!({
        "subjects": with(users(&[manager]), accounts(&["endpoint-controller", "endpointslicemirroring-controller"])),
        "resourceRules": [resources(&LEASE, "", &["endpoints"], false)],
    });
    let others = json!({
        "subjects": accounts(&["*"]),
        "resourceRules": [resources(&LEASE, "", &["endpoints", "configmaps"], false), leases()],
    });
    let nodes = json!({
        "subjects": groups(&["system:nodes"]),
        "resourceRules": [
            resources(&["*"], "", &["nodes", "nodes/status"], true),
            resources(&["*"], "coordination.k8s.io", &["leases"], false),
        ],
    });
    vec![
        schema("exempt", "exempt", 1, "", everything(groups(&["system:masters"]))),
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", elections),
        schema("endpoint-controller", "workload-high", 150, "ByUser", endpoints),
        schema("workload-leader-election", "leader-election", 200, "ByUser", others),
        schema("system-node-high", "node-high", 400, "ByUser", nodes),
        schema("system-nodes", "system", 500, "ByUser", everything(groups(&["system:nodes"]))),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", everything(users(&[manager]))),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", everything(users(&[scheduler]))),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", everything(accounts(&["*"]))),
        schema("service-accounts", "workload-low", 9000, "ByUser", everything(groups(&["system:serviceaccounts"]))),
        schema("global-default", "global-default", 9900, "ByUser", everything(anyone())),
        schema("catch-all", "catch-all", 10_000, "ByUser", everything(anyone())),
    ]
}

/// All of them; levels first, as schemas refer to them.
pub fn all() -> Vec<Value> {
    let mut all = levels();
    all.extend(schemas());
    all
}

/// The spec of an object that the rest cannot do without, in full.
pub(crate) fn fixed(kind: &str, name: &str) -> Option<Value> {
    static FIXED: OnceLock<HashMap<(String, String), Value>> = OnceLock::new();
    let fixed = FIXED.get_or_init(|| {
        let mandatory =
            |object: &Value| matches!(crate::value::text(&object["metadata"], "name"), "exempt" | "catch-all");
        let in_full = |mut object: Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let key = (text(&object["kind"]), text(&object["metadata"]["name"]));
            if let Some(resource) = Catalogue::builtin().by_kind_of(&object) {
                resource.default(&mut object);
            }
            (key, object["spec"].take())
        };
        all().into_iter().filter(mandatory).map(in_full).collect()
    });
    fixed.get(&(kind.to_owned(), name.to_owned())).cloned()
}

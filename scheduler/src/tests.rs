//! Scenarios: lines of a script go in, what the engine decides comes out as `expect` lines.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use serde_json::{Value, json};
use trireme_client::informer::{Change, Notice};

use crate::Config;
use crate::engine::{Decision, Engine};
use crate::state::PodInfo;

struct World {
    engine: Engine,
    now: Instant,
    nodes: BTreeMap<String, Arc<Node>>,
    pods: BTreeMap<String, Arc<Pod>>,
    infos: HashMap<String, Arc<PodInfo>>,
}

impl World {
    fn new() -> Self {
        let engine = Engine::new(&Config::default());
        Self { engine, now: Instant::now(), nodes: BTreeMap::new(), pods: BTreeMap::new(), infos: HashMap::new() }
    }

    /// Runs one line and then everything the engine wants to decide.
    fn line(&mut self, line: &str) -> Vec<String> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let name = rest.split_whitespace().next().unwrap_or("").to_owned();
        match command {
            "node" => self.node(&name, Some(node(rest))),
            "node-gone" => self.node(&name, None),
            "pod" => self.pod(&name, Some(pod(rest))),
            "pod-gone" => self.pod(&name, None),
            "service" => self.service(rest),
            "bind-fails" => self.engine.not_bound(&self.infos[&name], self.now),
            "bind-seen" => {
                let (name, node) = rest.split_once(' ').unwrap();
                let mut pod = Pod::clone(&self.pods[name]);
                pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
                self.pod(name, Some(pod));
            }
            "wait" => self.now += Duration::from_millis(name.parse().unwrap()),
            other => panic!("unknown command {other}"),
        }
        self.decisions()
    }

    fn node(&mut self, name: &str, node: Option<Node>) {
        let new = node.map(Arc::new);
        let old = self.nodes.remove(name);
        self.nodes.extend(new.clone().map(|node| (name.to_owned(), node)));
        self.engine.nodes(Notice::Change(Change { old, new }), self.now);
    }

    fn pod(&mut self, name: &str, pod: Option<Pod>) {
        let new = pod.map(Arc::new);
        let old = self.pods.remove(name);
        self.pods.extend(new.clone().map(|pod| (name.to_owned(), pod)));
        self.engine.pods(Notice::Change(Change { old, new }), self.now);
    }

    fn service(&mut self, rest: &str) {
        let app = rest.split_once("app=").unwrap().1;
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": app, "namespace": "default"}, "spec": {"selector": {"app": app}},
        }))
        .unwrap();
        self.engine.services(Notice::Change(Change { old: None, new: Some(Arc::new(service)) }));
    }

    fn decisions(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(decision) = self.engine.next(self.now) {
            lines.push(match decision {
                Decision::Bind { pod, node } => {
                    let line = format!("bind {} {node}", pod.key.name);
                    self.infos.insert(pod.key.name.to_string(), pod);
                    line
                }
                Decision::Unschedulable { pod, message } => format!("stuck {}: {message}", pod.key.name),
            });
        }
        lines
    }
}

/// Words of the form `a=b`, several with the same `a` allowed.
fn words(line: &str) -> (String, Vec<(&str, &str)>) {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap().to_owned();
    (name, words.map(|word| word.split_once('=').unwrap_or((word, ""))).collect())
}

fn node(line: &str) -> Node {
    let (name, words) = words(line);
    let mut allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "10"});
    let (mut labels, mut taints) = (json!({"kubernetes.io/hostname": name}), Vec::new());
    let mut unschedulable = false;
    for (key, value) in words {
        match key {
            "taint" => {
                let parts: Vec<&str> = value.split(':').collect();
                taints.push(json!({"key": parts[0], "value": parts[1], "effect": parts[2]}));
            }
            "unschedulable" => unschedulable = true,
            "zone" => labels["zone"] = json!(value),
            resource => allocatable[resource] = json!(value),
        }
    }
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "labels": labels},
        "spec": {"taints": taints, "unschedulable": unschedulable},
        "status": {"allocatable": allocatable},
    }))
    .unwrap()
}

fn pod(line: &str) -> Pod {
    let (name, words) = words(line);
    let mut object = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {}}}], "tolerations": []},
        "status": {"phase": "Pending"},
    });
    for (key, value) in words {
        let spec = &mut object["spec"];
        match key {
            "on" => spec["nodeName"] = json!(value),
            "priority" => spec["priority"] = json!(value.parse::<i32>().unwrap()),
            "scheduler" => spec["schedulerName"] = json!(value),
            "gate" => spec["schedulingGates"] = json!([{"name": value}]),
            "select" => spec["nodeSelector"] = json!({"zone": value}),
            "require" => spec["affinity"]["nodeAffinity"] = require(value),
            "prefer" => {
                let term = json!({"weight": 50, "preference": expressions(value)});
                spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = json!([term]);
            }
            "tolerate" => spec["tolerations"].as_array_mut().unwrap().push(json!({"key": value, "operator": "Exists"})),
            "port" => {
                let port: i32 = value.parse().unwrap();
                spec["containers"][0]["ports"] = json!([{"containerPort": port, "hostPort": port}]);
            }
            "apart" => spec["affinity"]["podAntiAffinity"] = together(value),
            "with" => spec["affinity"]["podAffinity"] = together(value),
            "app" => object["metadata"]["labels"]["app"] = json!(value),
            "owner" => {
                object["metadata"]["ownerReferences"] =
                    json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": value, "controller": true}]);
            }
            "phase" => object["status"]["phase"] = json!(value),
            "deleting" => object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
            resource => spec["containers"][0]["resources"]["requests"][resource] = json!(value),
        }
    }
    serde_json::from_value(object).unwrap()
}

/// `KEY:APP` as a required term over the pods of that app.
fn together(value: &str) -> Value {
    let (key, app) = value.split_once(':').unwrap();
    let term = json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key});
    json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]})
}

fn require(value: &str) -> Value {
    json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [expressions(value)]}})
}

/// `zone:In:a,b` as a term.
fn expressions(value: &str) -> Value {
    let parts: Vec<&str> = value.split(':').collect();
    let values: Vec<&str> = parts[2].split(',').filter(|value| !value.is_empty()).collect();
    json!({"matchExpressions": [{"key": parts[0], "operator": parts[1], "values": values}]})
}

/// Runs a script; a line that begins with `>` is what must come out of the line before it.
fn play(script: &str) {
    let mut world = World::new();
    let (mut got, mut at) = (Vec::new(), "");
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(want) = line.strip_prefix("> ") {
            assert!(!got.is_empty(), "after `{at}`: nothing came out, wanted `{want}`");
            let first: String = got.remove(0);
            assert_eq!(first, want, "after `{at}`");
        } else {
            assert!(got.is_empty(), "after `{at}`: unexpected {got:?}");
            at = line;
            got = world.line(line);
        }
    }
    assert!(got.is_empty(), "after `{at}`: unexpected {got:?}");
}

#[test]
fn spreads_and_takes_turns() {
    play(
        "node n1
        node n2
        pod a owner=rs
        > bind a n1
        pod b owner=rs
        > bind b n2
        pod c owner=rs
        > bind c n1
        bind-seen a n1
        service web app=web
        pod d app=web cpu=100m
        > bind d n2
        pod e app=web
        > bind e n1",
    );
}

#[test]
fn resources_are_respected_and_freed_room_is_used_at_once() {
    play(
        "node n1 cpu=1 memory=1Gi pods=3
        pod a cpu=600m
        > bind a n1
        pod b cpu=600m
        > stuck b: 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        pod c cpu=300m memory=2Gi
        > stuck c: 0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        bind-seen a n1
        pod a cpu=600m on=n1 phase=Succeeded
        > bind b n1
        pod-gone b
        node n2 cpu=2 memory=4Gi
        > bind c n2",
    );
}

#[test]
fn pods_count_as_a_resource() {
    play(
        "node n1 pods=1
        pod a
        > bind a n1
        pod b
        > stuck b: 0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        pod-gone a
        > bind b n1",
    );
}

#[test]
fn nodes_say_why_not_in_upstreams_words() {
    play(
        "pod early
        > stuck early: no nodes available to schedule pods
        node tainted taint=dedicated:db:NoSchedule
        node off unschedulable
        node small cpu=100m
        > bind early small
        pod a cpu=1
        > stuck a: 0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {dedicated: db}, 1 node(s) were unschedulable. preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.
        pod b tolerate=dedicated cpu=1
        > bind b tainted
        pod c select=x
        > stuck c: 0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {dedicated: db}, 1 node(s) were unschedulable. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
        node small zone=x
        > bind a small
        > bind c small",
    );
}

#[test]
fn affinity_is_required_or_preferred() {
    play(
        "node n1 zone=a
        node n2 zone=b
        pod a require=zone:In:b,c
        > bind a n2
        pod b require=zone:NotIn:b
        > bind b n1
        pod c require=zone:DoesNotExist:
        > stuck c: 0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        pod d prefer=zone:In:b
        > bind d n2
        pod e prefer=zone:In:b
        > bind e n2",
    );
}

#[test]
fn pods_keep_apart_or_together_as_they_require() {
    play(
        "node n1 zone=a
        node n2 zone=b
        pod a app=db apart=zone:db
        > bind a n1
        pod b app=db apart=zone:db
        > bind b n2
        pod c app=db apart=zone:db
        > stuck c: 0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.
        pod w app=web apart=zone:db
        > stuck w: 0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.
        pod d app=cache with=zone:cache
        > bind d n1
        pod e app=x with=zone:cache
        > bind e n1
        pod f with=zone:none
        > stuck f: 0/2 nodes are available: 2 node(s) didn't match pod affinity rules. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.
        pod g app=none
        > bind g n2
        > bind f n2
        bind-seen g n2
        wait 20000
        pod-gone b
        > bind c n2
        > stuck w: 0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.",
    );
}

#[test]
fn host_ports_are_taken_once_a_node() {
    play(
        "node n1
        pod a port=80
        > bind a n1
        pod b port=80
        > stuck b: 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        pod c port=81
        > bind c n1
        pod-gone a
        > bind b n1",
    );
}

#[test]
fn a_failed_binding_waits_and_is_tried_again() {
    play(
        "node n1
        pod a
        > bind a n1
        bind-fails a
        wait 500
        wait 600
        > bind a n1
        bind-fails a
        wait 1500
        wait 600
        > bind a n1
        # Seen bound all the same: a late failure changes nothing.
        bind-seen a n1
        bind-fails a
        wait 60000",
    );
}

#[test]
fn only_pods_that_ask_for_this_scheduler_and_are_not_gated_or_going() {
    play(
        "node n1
        pod a scheduler=other
        pod b gate=later
        pod c deleting
        pod d on=n1
        pod b
        > bind b n1
        pod e on=nowhere
        node-gone n1
        pod f
        > stuck f: no nodes available to schedule pods
        wait 299000
        wait 2000
        > stuck f: no nodes available to schedule pods",
    );
}

#[test]
fn higher_priority_goes_first() {
    let mut world = World::new();
    for line in ["a priority=1", "b priority=100", "c"] {
        world.pod(line.split(' ').next().unwrap(), Some(pod(line)));
    }
    let order: Vec<String> =
        world.decisions().iter().map(|line| line.split([' ', ':']).nth(1).unwrap().to_owned()).collect();
    assert_eq!(order, ["b", "a", "c"]);
}

#[test]
fn starting_again_from_the_whole_content_forgets_what_is_gone() {
    let mut world = World::new();
    world.line("node n1 pods=1");
    assert_eq!(world.line("pod a"), ["bind a n1"]);
    assert_eq!(world.engine.pods_on("n1"), 1);
    let all = vec![Arc::new(pod("b"))];
    world.engine.pods(Notice::Resync(all), world.now);
    assert_eq!(world.decisions(), ["bind b n1"]);
}

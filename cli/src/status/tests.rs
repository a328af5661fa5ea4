//! The report, the verdict and the screen, from made-up answers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_apiserver::join::wire::{DiskInfo, MasterStatus};
use trireme_apiserver::pki::CertificateInfo;

use super::build::{Found, build};
use super::collect::{Agent, Answer, Facts};
use super::report::{Memory, Report, Verdict};
use super::{judge, render};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;
const GIB: u64 = 1 << 30;

fn member(n: u64, role: &str) -> Value {
    json!({"name": format!("master-{n}"), "address": format!("https://10.0.0.1{n}:6443"), "role": role, "healthy": true,
           "lag": 0, "id": n, "peerAddress": format!("10.0.0.1{n}:2380")})
}

/// What master `n` says in a cluster of three that the first one leads.
fn status(n: u64) -> MasterStatus {
    let certificate = |name: &str, days: i64| json!({"name": name, "subject": "CN=x", "notBefore": NOW - (365 - days) * DAY, "notAfter": NOW + days * DAY});
    let mut own = member(n, if n == 1 { "leader" } else { "follower" });
    let more = json!({
        "inContact": true, "leader": "master-1", "term": 4, "lineage": "l", "revision": 900, "compactedRevision": 1,
        "lastLogIndex": 1000, "appliedIndex": 1000, "dbSizeBytes": 3 << 20,
        "disk": {"totalBytes": 100 * GIB, "availableBytes": 60 * GIB}, "residentBytes": 50 << 20,
        "certificates": [certificate("ca", 3000), certificate("server", 364), certificate("peer", 364)],
        "version": "0.1.0", "kubernetesVersion": "v1.36.0",
        "startTime": Timestamp::from_second(NOW - 3600).unwrap().to_string(), "now": "",
        "members": [member(1, "leader"), member(2, "follower"), member(3, "follower")],
    });
    own.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(own).unwrap()
}

fn answer(n: u64) -> Answer {
    Answer { url: format!("https://10.0.0.1{n}:6443"), status: Ok(status(n)), ready: Ok(()) }
}

fn dead(n: u64) -> Answer {
    let why = || "connection refused".to_owned();
    Answer { url: format!("https://10.0.0.1{n}:6443"), status: Err(why()), ready: Err(why()) }
}

fn facts() -> Facts {
    let time = |ago: i64| Timestamp::from_second(NOW - ago).unwrap().to_string();
    let node = |n: u64| {
        json!({"metadata": {"name": format!("node-{n}")}, "spec": {}, "status": {
            "addresses": [{"type": "InternalIP", "address": format!("10.0.0.2{n}")}], "capacity": {"pods": "110"},
            "nodeInfo": {"kubeletVersion": "v1.36.0+trireme0.1.0", "architecture": "", "bootID": "", "kernelVersion": "",
                         "containerRuntimeVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "",
                         "osImage": "", "systemUUID": ""},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}})
    };
    let lease = |n: u64| {
        json!({"metadata": {"name": format!("node-{n}"), "namespace": "kube-node-lease"},
               "spec": {"renewTime": time(4).replace('Z', ".000000Z")}})
    };
    let pod = |name: &str, node: &str, phase: &str, waiting: Option<&str>, restarts: i32| {
        let state = waiting.map_or_else(|| json!({"running": {}}), |reason| json!({"waiting": {"reason": reason}}));
        json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"nodeName": node, "containers": []},
               "status": {"phase": phase, "containerStatuses": [
                   {"name": "c", "image": "i", "imageID": "", "ready": waiting.is_none(), "restartCount": restarts,
                    "state": state}]}})
    };
    let read = |value: Value| serde_json::from_value(value).unwrap();
    Facts {
        nodes: vec![read(node(1)), read(node(2))],
        leases: [1, 2].map(|n| serde_json::from_value(lease(n)).unwrap()).to_vec(),
        pods: [
            pod("web-1", "node-1", "Running", None, 0),
            pod("web-2", "node-2", "Running", None, 0),
            pod("bad", "node-2", "Running", Some("CrashLoopBackOff"), 7),
            pod("new", "", "Pending", Some("ContainerCreating"), 0),
        ]
        .map(|pod| serde_json::from_value(pod).unwrap())
        .to_vec(),
        deployments: vec![
            serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default", "generation": 2},
                   "spec": {"replicas": 3, "selector": {}, "template": {}},
                   "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 2}}))
            .unwrap(),
        ],
        events: vec![
            serde_json::from_value(
                json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "BackOff", "count": 3,
                   "message": "Back-off restarting failed container", "lastTimestamp": time(30),
                   "involvedObject": {"kind": "Pod", "namespace": "default", "name": "bad"}}),
            )
            .unwrap(),
        ],
    }
}

fn agents() -> BTreeMap<String, Result<Agent, String>> {
    let agent = || Agent {
        disk: Some(DiskInfo { total_bytes: 100 * GIB, available_bytes: 50 * GIB }),
        memory: Some(Memory { total_bytes: 8 * GIB, available_bytes: 6 * GIB }),
        certificate: Some((363 * DAY, 365 * DAY)),
    };
    BTreeMap::from([("node-1".to_owned(), Ok(agent())), ("node-2".to_owned(), Ok(agent()))])
}

fn report_of(masters: &[Answer], facts: &Facts, agents: &BTreeMap<String, Result<Agent, String>>) -> Report {
    let credential = CertificateInfo {
        name: "client".into(),
        subject: String::new(),
        not_before: NOW - DAY,
        not_after: NOW + 364 * DAY,
    };
    let mut report = build(&Found {
        cluster: "test",
        masters,
        facts: Ok(facts),
        agents,
        hosts: None,
        credential: Some(&credential),
        now: Timestamp::from_second(NOW).unwrap(),
    });
    judge::judge(&mut report, None);
    report
}

fn about(findings: &[super::report::Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.about.as_str()).collect()
}

#[test]
fn a_healthy_cluster() {
    let report = report_of(&[answer(1), answer(2), answer(3)], &facts(), &agents());
    assert_eq!((report.verdict, report.verdict.code()), (Verdict::Healthy, 0));
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(about(&report.warnings), ["pod default/bad", "deployment default/web"]);
    assert_eq!((report.quorum.reachable, report.quorum.tolerates, report.quorum.present), (3, 1, true));
    let screen = render::text(&report);
    let expected = "\
test is healthy: 3 masters and 2 nodes; 2 things to look at
  - pod default/bad: CrashLoopBackOff, 7 restarts  ->  kubectl logs -n default bad --previous
  - deployment default/web: 3 of 3 updated, 2 available  ->  kubectl rollout status -n default deployment/web

MASTERS  quorum 3 of 3, tolerates the loss of 1
  NAME       ADDRESS          ROLE       HEALTHY   TERM   REV/INDEX   LAG   DB       DISK FREE         MEM     CERT   VERSION   UP
  master-1   10.0.0.11:6443   leader     yes       4      900/1000    0     3.0MiB   60GiB of 100GiB   50MiB   364d   0.1.0     60m
  master-2   10.0.0.12:6443   follower   yes       4      900/1000    0     3.0MiB   60GiB of 100GiB   50MiB   364d   0.1.0     60m
  master-3   10.0.0.13:6443   follower   yes       4      900/1000    0     3.0MiB   60GiB of 100GiB   50MiB   364d   0.1.0     60m

NODES  2 of 2 ready
  NAME     ADDRESS     READY   PODS    DISK FREE         MEM FREE           CERT   VERSION   HEARTBEAT
  node-1   10.0.0.21   yes     1/110   50GiB of 100GiB   6.0GiB of 8.0GiB   363d   0.1.0     4s ago
  node-2   10.0.0.22   yes     2/110   50GiB of 100GiB   6.0GiB of 8.0GiB   363d   0.1.0     4s ago

PODS  4 in all, 3 running, 1 pending, 1 crash-looping
  default/bad  CrashLoopBackOff, 7 restarts (node-2)
DEPLOYMENTS  0 of 1 complete
  default/web  3 of 3 updated, 2 available
CERTIFICATES  valid for: authorities 3000d, masters 364d, nodes 363d, this kubeconfig 364d

RECENT WARNINGS
   30s  Pod default/bad  BackOff: Back-off restarting failed container (x3)
";
    assert_eq!(screen, expected, "\n{screen}");
}

#[test]
fn a_dead_master_is_one_row() {
    let report = report_of(&[answer(1), dead(2), answer(3)], &facts(), &agents());
    assert_eq!((report.verdict, report.verdict.code()), (Verdict::Degraded, 1));
    assert_eq!(about(&report.problems), ["master-2"]);
    assert!(report.problems[0].hint.contains("trireme member remove master-2"), "{:?}", report.problems);
    assert_eq!((report.quorum.reachable, report.quorum.tolerates, report.quorum.present), (2, 0, true));
    let screen = render::text(&report);
    assert!(screen.starts_with("test is DEGRADED: 1 problem\n  ! master-2: connection refused"), "{screen}");
    assert!(screen.contains("quorum 2 of 3, tolerates no loss"), "{screen}");
    let row = screen.lines().find(|line| line.starts_with("  master-2 ")).unwrap();
    assert!(row.contains("unknown") && row.contains("NO"), "{row}");
}

#[test]
fn without_a_quorum_each_tells_what_it_knows() {
    let mut alone = answer(3);
    alone.ready = Err("quorum failed: no quorum".into());
    let status = alone.status.as_mut().unwrap();
    (status.in_contact, status.leader) = (false, None);
    let report = report_of(&[dead(1), dead(2), alone], &facts(), &agents());
    assert_eq!(report.verdict, Verdict::Degraded);
    assert_eq!(about(&report.problems), ["quorum", "master-1", "master-2"]);
    assert!(report.stale && !report.quorum.present);
    let screen = render::text(&report);
    assert!(screen.contains("NO QUORUM: 1 of 3, 2 needed"), "{screen}");
    assert!(screen.contains("900/1000") && screen.contains("nothing below is certain"), "{screen}");
}

#[test]
fn nobody_there() {
    let mut report = report_of(&[dead(1)], &Facts::default(), &BTreeMap::new());
    assert_eq!((report.verdict, report.verdict.code()), (Verdict::Unreachable, 2));
    report.nodes = None;
    assert!(render::text(&report).starts_with("test is UNREACHABLE: no master answers\n"));
}

#[test]
fn nodes_that_are_not_well() {
    let mut facts = facts();
    let condition = &mut facts.nodes[0].status.as_mut().unwrap().conditions.as_mut().unwrap()[0];
    condition.status = "Unknown".into();
    condition.message = Some("Kubelet stopped posting node status.".into());
    facts.nodes[1].spec.as_mut().unwrap().unschedulable = Some(true);
    let mut agents = agents();
    agents.insert("node-2".into(), Err("connection refused".into()));
    let report = report_of(&[answer(1), answer(2), answer(3)], &facts, &agents);
    assert_eq!(about(&report.problems), ["node-1", "node-2"]);
    assert_eq!(report.problems[0].what, "Kubelet stopped posting node status.");
    assert_eq!(report.problems[1].what, "its agent does not answer: connection refused");
    assert!(about(&report.warnings).contains(&"node-2"));
}

#[test]
fn certificates_disks_and_lag() {
    let mut masters = [answer(1), answer(2), answer(3)];
    let status = masters[1].status.as_mut().unwrap();
    status.certificates[1].not_before = NOW - 345 * DAY;
    status.certificates[1].not_after = NOW + 20 * DAY;
    status.certificates[2].not_after = NOW - DAY;
    status.disk = Some(DiskInfo { total_bytes: 100, available_bytes: 3 });
    status.applied_index = 0;
    let mut agents = agents();
    // Half of an hour's life is no reason to worry.
    agents.get_mut("node-1").unwrap().as_mut().unwrap().certificate = Some((1800, 3600));
    let report = report_of(&masters, &Facts::default(), &agents);
    assert_eq!(about(&report.problems), ["master-2", "master-2's peer certificate"]);
    assert_eq!(report.problems[0].what, "only 3 % of its disk is free");
    assert_eq!(about(&report.warnings), ["master-2's server certificate"]);
    assert_eq!(report.masters[1].lag, Some(1000));
}

#[test]
fn programs_find_the_same_keys() {
    let report = report_of(&[answer(1), answer(2), answer(3)], &facts(), &agents());
    let value = serde_json::to_value(&report).unwrap();
    let keys = |value: &Value| {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys.join(" ")
    };
    assert_eq!(
        keys(&value),
        "certificates cluster deployments events masters nodes pods problems quorum stale time verdict warnings"
    );
    assert_eq!(
        keys(&value["masters"][0]),
        "address alarms appliedIndex certificateSeconds dbSizeBytes disk healthy lag lastLogIndex name process reason \
         residentBytes revision role term uptimeSeconds version"
    );
    assert_eq!(
        keys(&value["nodes"][0]),
        "address certificateSeconds disk heartbeatSeconds memory name podsCapacity podsRunning process ready reason \
         schedulable version"
    );
    assert_eq!(keys(&value["quorum"]), "leader needed present reachable tolerates voters");
    assert_eq!(keys(&value["certificates"][0]), "lifetimeSeconds name notAfter owner secondsLeft");
    assert_eq!(value["verdict"], "healthy");
}

#[test]
fn what_always_changes_is_no_news() {
    let one = report_of(&[answer(1), answer(2), answer(3)], &facts(), &agents());
    let mut later = one.clone();
    later.time = "x".into();
    later.masters[0].revision = Some(901);
    later.nodes.as_mut().unwrap()[0].heartbeat_seconds = Some(9);
    assert_ne!(one, later);
    assert_eq!(one.settled(), later.settled());
    later.nodes.as_mut().unwrap()[0].ready = false;
    assert_ne!(one.settled(), later.settled());
}

#[test]
fn a_small_terminal_is_not_overrun() {
    let text = "abcdef\nb\nc\nd\n";
    assert_eq!(render::fit(text, 4, 9), "abc…\nb\nc\nd");
    assert_eq!(render::fit(text, 80, 3), "abcdef\nb\n… 2 more lines");
}

//! From answers to a report. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use trireme_apiserver::join::wire::{MasterStatus, MemberInfo};
use trireme_apiserver::pki::CertificateInfo;

use super::collect::{Agent, Answer, Facts};
use super::report;
use crate::up::status::LocalHost;

/// Names that are shown of long lists.
const WORST: usize = 5;
/// Older warnings are not recent.
const RECENT: i64 = 15 * 60;
/// Why a container waits that should not.
const TROUBLE: [&str; 9] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "ImageInspectError",
];

/// Everything that was found out.
pub struct Found<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// What the masters said.
    pub masters: &'a [Answer],
    /// What the API knows, or why it does not say.
    pub facts: Result<&'a Facts, &'a str>,
    /// What the agents said.
    pub agents: &'a BTreeMap<String, Result<Agent, String>>,
    /// Processes, where the cluster is local.
    pub hosts: Option<&'a [LocalHost]>,
    /// The certificate with which was asked.
    pub credential: Option<&'a CertificateInfo>,
    /// When.
    pub now: Timestamp,
}

/// The report, but for verdict, problems and warnings.
pub fn build(found: &Found<'_>) -> report::Report {
    let members = members(found.masters);
    let masters: Vec<report::Master> = masters(found, &members);
    let quorum = quorum(found.masters, &members);
    let mut report = report::Report {
        cluster: found.cluster.to_owned(),
        time: found.now.round(jiff::Unit::Second).unwrap_or(found.now).to_string(),
        stale: !quorum.present && found.facts.is_ok(),
        quorum,
        masters,
        certificates: certificates(found),
        ..report::Report::default()
    };
    if let Ok(facts) = found.facts {
        report.nodes = Some(nodes(found, facts));
        report.pods = Some(pods(&facts.pods));
        report.deployments = Some(deployments(&facts.deployments));
        report.events = events(&facts.events, found.now);
    }
    report
}

/// The members as the master knows them that is most likely right.
fn members(answers: &[Answer]) -> Vec<MemberInfo> {
    let told = answers.iter().filter_map(|answer| answer.status.as_ref().ok());
    let best = told.max_by_key(|status| (leads(status), status.in_contact, status.term, status.applied_index));
    best.map(|status| status.members.clone()).unwrap_or_default()
}

fn leads(status: &MasterStatus) -> bool {
    status.in_contact && status.role == "leader"
}

fn quorum(answers: &[Answer], members: &[MemberInfo]) -> report::Quorum {
    let voters: Vec<&MemberInfo> = members.iter().filter(|member| member.role != "learner").collect();
    let told = |member: &&&MemberInfo| {
        let mut answers = answers.iter().filter_map(|answer| answer.status.as_ref().ok());
        answers.any(|status| status.id == member.id)
    };
    let reachable = voters.iter().filter(told).count();
    let needed = voters.len() / 2 + 1;
    let present = answers.iter().any(|answer| answer.ready.is_ok()) && reachable > 0;
    // A master that cannot be asked from here may still be there for the others.
    let reachable = if present { reachable.max(needed) } else { reachable };
    let leader = answers.iter().filter_map(|answer| answer.status.as_ref().ok()).find(|status| leads(status));
    report::Quorum {
        present,
        voters: voters.len(),
        reachable,
        needed,
        tolerates: if present { reachable - needed } else { 0 },
        leader: leader.map(|status| status.name.clone()),
    }
}

fn masters(found: &Found<'_>, members: &[MemberInfo]) -> Vec<report::Master> {
    let newest = found.masters.iter().filter_map(|a| a.status.as_ref().ok()).map(|s| s.last_log_index).max();
    let mut rows: Vec<report::Master> =
        found.masters.iter().map(|answer| master(found, members, answer, newest.unwrap_or(0))).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn master(found: &Found<'_>, members: &[MemberInfo], answer: &Answer, newest: u64) -> report::Master {
    let same = |url: &str| url.trim_end_matches('/') == answer.url.trim_end_matches('/');
    let host = found.hosts.into_iter().flatten().find(|host| host.master && same(&host.url));
    let process = host.map(|host| report::Process { pid: host.pid });
    let member = members.iter().find(|member| match &answer.status {
        Ok(status) => status.id == member.id,
        Err(_) => same(&member.address),
    });
    let known = member.map(|member| member.name.clone()).or_else(|| host.map(|host| host.name.clone()));
    let row = report::Master { address: answer.url.clone(), process, ..report::Master::default() };
    let status = match &answer.status {
        Ok(status) => status,
        Err(reason) => {
            let dead = row.process.as_ref().is_some_and(|process| process.pid.is_none());
            let reason = if dead { "its process is not running".to_owned() } else { reason.clone() };
            let role = member.map_or("unknown", |member| if member.role == "learner" { "learner" } else { "unknown" });
            let name = known.unwrap_or_else(|| answer.url.trim_start_matches("https://").to_owned());
            return report::Master { name, role: role.to_owned(), reason: Some(reason), ..row };
        }
    };
    let leader = members.iter().any(|member| member.id == status.id && member.role == "leader");
    let own = status.certificates.iter().filter(|c| !matches!(c.name.as_str(), "ca" | "peer-ca"));
    let now = found.now.as_second();
    report::Master {
        name: status.name.clone(),
        // Without a quorum nobody leads, whoever did before.
        role: if status.role == "leader" && !status.in_contact { "follower" } else { &status.role }.to_owned(),
        healthy: answer.ready.is_ok(),
        reason: answer.ready.as_ref().err().cloned(),
        term: Some(status.term),
        revision: Some(status.revision),
        applied_index: Some(status.applied_index),
        last_log_index: Some(status.last_log_index),
        lag: Some(if leader { 0 } else { newest.saturating_sub(status.applied_index) }),
        db_size_bytes: Some(status.db_size_bytes),
        disk: status.disk,
        alarms: status.alarms.clone(),
        resident_bytes: status.resident_bytes,
        certificate_seconds: own.map(|c| c.not_after - now).min(),
        version: Some(status.version.clone()),
        uptime_seconds: status.start_time.parse::<Timestamp>().ok().map(|start| now - start.as_second()),
        ..row
    }
}

fn nodes(found: &Found<'_>, facts: &Facts) -> Vec<report::Node> {
    let mut rows: Vec<report::Node> = facts.nodes.iter().map(|object| node(found, facts, object)).collect();
    let missing = found.hosts.into_iter().flatten().filter(|host| !host.master);
    for host in missing {
        if !rows.iter().any(|row| row.name == host.name) {
            rows.push(report::Node {
                name: host.name.clone(),
                address: host.address.clone(),
                reason: Some("it has not registered".to_owned()),
                schedulable: true,
                process: Some(report::Process { pid: host.pid }),
                ..report::Node::default()
            });
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn node(found: &Found<'_>, facts: &Facts, object: &Node) -> report::Node {
    let name = object.metadata.name.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let host = found.hosts.into_iter().flatten().find(|host| host.name == name);
    let process = host.map(|host| report::Process { pid: host.pid });
    let agent = found.agents.get(&name);
    let silent = agent.and_then(|agent| agent.as_ref().err()).map(|why| format!("its agent does not answer: {why}"));
    let reason = match condition {
        _ if process.as_ref().is_some_and(|process| process.pid.is_none()) => {
            Some("its agent's process is not running".to_owned())
        }
        Some(condition) if condition.status == "True" => silent,
        Some(condition) => condition.message.clone().or(condition.reason.clone()).or(Some("not ready".to_owned())),
        None => Some("no status yet".to_owned()),
    };
    let agent = agent.and_then(|agent| agent.as_ref().ok());
    let version = status.node_info.map(|info| info.kubelet_version).unwrap_or_default();
    let on_node = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(&name));
    report::Node {
        address: status
            .addresses
            .iter()
            .flatten()
            .find(|address| address.type_ == "InternalIP")
            .map(|address| address.address.clone())
            .unwrap_or_default(),
        ready: reason.is_none(),
        reason,
        schedulable: object.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true)),
        pods_running: facts.pods.iter().filter(on_node).filter(|pod| phase(pod) == "Running").count(),
        pods_capacity: status.capacity.and_then(|c| c.get("pods")?.0.parse().ok()).unwrap_or(0),
        disk: agent.and_then(|agent| agent.disk),
        memory: agent.and_then(|agent| agent.memory),
        certificate_seconds: agent.and_then(|agent| agent.certificate).map(|(left, _)| left),
        version: version.split_once("+trireme").map_or(version.clone(), |(_, own)| own.to_owned()),
        heartbeat_seconds: heartbeat(&facts.leases, &name, found.now),
        process,
        name,
    }
}

fn heartbeat(leases: &[Lease], node: &str, now: Timestamp) -> Option<i64> {
    let lease = leases.iter().find(|lease| {
        lease.metadata.namespace.as_deref() == Some("kube-node-lease") && lease.metadata.name.as_deref() == Some(node)
    })?;
    let renewed = lease.spec.as_ref()?.renew_time.as_ref()?.0;
    Some((now.as_second() - renewed.as_second()).max(0))
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn pods(all: &[Pod]) -> report::Pods {
    let count = |wanted: &str| all.iter().filter(|pod| phase(pod) == wanted).count();
    let mut troubled: Vec<report::PodTrouble> = all.iter().filter_map(trouble).collect();
    troubled.sort_by(|a, b| {
        let key = |t: &report::PodTrouble| (std::cmp::Reverse(t.restarts), t.namespace.clone(), t.name.clone());
        key(a).cmp(&key(b))
    });
    report::Pods {
        total: all.len(),
        running: count("Running"),
        pending: count("Pending"),
        succeeded: count("Succeeded"),
        failed: count("Failed"),
        crash_looping: troubled.iter().filter(|pod| pod.reason == "CrashLoopBackOff").count(),
        troubled: troubled.len(),
        worst: troubled.into_iter().take(WORST).collect(),
    }
}

/// What is wrong with a pod, if something is.
fn trouble(pod: &Pod) -> Option<report::PodTrouble> {
    let status = pod.status.as_ref()?;
    let containers =
        || status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let waiting = containers().find_map(|container| {
        let reason = container.state.as_ref()?.waiting.as_ref()?.reason.clone()?;
        TROUBLE.contains(&reason.as_str()).then_some(reason)
    });
    let unschedulable = || {
        let mut conditions = status.conditions.iter().flatten();
        let condition = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        condition.reason.clone()
    };
    let failed = || (phase(pod) == "Failed").then(|| status.reason.clone().unwrap_or_else(|| "Failed".to_owned()));
    let reason = waiting.or_else(unschedulable).or_else(failed)?;
    Some(report::PodTrouble {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        reason,
        restarts: containers().map(|container| container.restart_count).sum(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
    })
}

fn deployments(all: &[Deployment]) -> report::Deployments {
    let incomplete = all.iter().filter_map(|object| {
        let desired = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = object.status.clone().unwrap_or_default();
        let (updated, available) = (status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
        let seen = status.observed_generation.unwrap_or(0) >= object.metadata.generation.unwrap_or(0);
        let old = status.replicas.unwrap_or(0) > updated;
        if seen && updated >= desired && available >= desired && !old {
            return None;
        }
        let progressing = status.conditions.iter().flatten().find(|c| c.type_ == "Progressing" && c.status == "False");
        Some(report::Deployment {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
            desired,
            updated,
            available,
            reason: progressing.and_then(|condition| condition.reason.clone()),
        })
    });
    report::Deployments { total: all.len(), incomplete: incomplete.collect() }
}

fn certificates(found: &Found<'_>) -> Vec<report::Certificate> {
    let now = found.now.as_second();
    let row = |owner: &str, name: &str, not_after: i64, life: i64| report::Certificate {
        owner: owner.to_owned(),
        name: name.to_owned(),
        not_after: Timestamp::from_second(not_after).map(|time| time.to_string()).unwrap_or_default(),
        seconds_left: not_after - now,
        lifetime_seconds: life,
    };
    let of = |owner: &str, c: &CertificateInfo| row(owner, &c.name, c.not_after, c.not_after - c.not_before);
    let mut all: Vec<report::Certificate> = Vec::new();
    for status in found.masters.iter().filter_map(|answer| answer.status.as_ref().ok()) {
        for certificate in &status.certificates {
            let shared = matches!(certificate.name.as_str(), "ca" | "peer-ca");
            let owner = if shared { "cluster" } else { &status.name };
            if !shared || !all.iter().any(|known| known.owner == "cluster" && known.name == certificate.name) {
                all.push(of(owner, certificate));
            }
        }
    }
    for (node, agent) in found.agents {
        if let Some((left, life)) = agent.as_ref().ok().and_then(|agent| agent.certificate) {
            all.push(row(node, "node", now + left, life));
        }
    }
    all.extend(found.credential.map(|certificate| of("kubeconfig", certificate)));
    all.sort_by(|a, b| (a.seconds_left, &a.owner, &a.name).cmp(&(b.seconds_left, &b.owner, &b.name)));
    all
}

fn events(all: &[Event], now: Timestamp) -> Vec<report::Event> {
    let when = |event: &Event| {
        let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        let made = event.metadata.creation_timestamp.as_ref().map(|time| time.0);
        series.or(last).or(event.event_time.as_ref().map(|time| time.0)).or(made)
    };
    let mut rows: Vec<report::Event> = all
        .iter()
        .filter(|event| event.type_.as_deref() == Some("Warning"))
        .filter_map(|event| {
            let age = (now.as_second() - when(event)?.as_second()).max(0);
            let about = &event.involved_object;
            let namespace = about.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
            let name = about.name.as_deref().unwrap_or_default();
            Some(report::Event {
                age_seconds: age,
                about: format!("{} {namespace}{name}", about.kind.as_deref().unwrap_or_default()),
                reason: event.reason.clone().unwrap_or_default(),
                message: event.message.clone().unwrap_or_default(),
                count: event.count.or(event.series.as_ref().and_then(|series| series.count)).unwrap_or(1),
            })
        })
        .filter(|event| event.age_seconds <= RECENT)
        .collect();
    rows.sort_by_key(|event| event.age_seconds);
    rows.truncate(WORST);
    rows
}

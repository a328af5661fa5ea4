//! A pod's status as the kubelet writes it, computed from the machine. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pods::machine::{Machine, Sandbox, init_done};
use crate::pods::resources;
use crate::pods::slots::{Kind, Slot};

/// The status to be written. `host_ip` is the node's.
pub(crate) fn status(machine: &Machine, host_ip: &str, now: Timestamp) -> PodStatus {
    let phase = phase(machine);
    let statuses = |init: bool| {
        let chosen = machine.slots.iter().filter(|slot| (slot.kind != Kind::App) == init);
        let list: Vec<_> = chosen.map(Slot::status).collect();
        if list.is_empty() { None } else { Some(list) }
    };
    let previous = machine.pod.status.clone().unwrap_or_default();
    let (reason, message) = match machine.failed {
        Some((reason, message)) => (Some(reason.to_owned()), Some(message.to_owned())),
        None => (previous.reason, previous.message),
    };
    let ips: Vec<PodIP> = machine.ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(machine, phase, now)),
        container_statuses: statuses(false),
        init_container_statuses: statuses(true),
        host_ip: Some(host_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: host_ip.to_owned() }]),
        pod_ip: ips.first().map(|ip| ip.ip.clone()),
        pod_ips: if ips.is_empty() { None } else { Some(ips) },
        qos_class: Some(resources::qos_class(&machine.pod).to_owned()),
        start_time: Some(Time(whole_second(machine.start_time))),
        observed_generation: machine.pod.metadata.generation,
        reason,
        message,
        ..PodStatus::default()
    }
}

/// The kubelet's rules for the phase.
pub(crate) fn phase(machine: &Machine) -> &'static str {
    if machine.failed.is_some() && machine.terminal {
        return "Failed";
    }
    let policy = machine.restart_policy();
    let inits = machine.slots.iter().filter(|slot| slot.kind != Kind::App);
    let failed_init = inits.clone().any(|slot| {
        slot.kind == Kind::Init
            && policy == "Never"
            && Machine::ended(slot).is_some_and(|t| t.exit_code != 0)
            && slot.running_id().is_none()
    });
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for slot in machine.slots.iter().filter(|slot| slot.kind == Kind::App) {
        match (slot.running_id().is_some(), Machine::ended(slot)) {
            (true, _) => running += 1,
            (false, Some(terminated)) => {
                stopped += 1;
                succeeded += usize::from(terminated.exit_code == 0);
            }
            (false, None) => waiting += 1,
        }
    }
    if machine.terminal {
        let previous = machine.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        return match previous {
            Some("Succeeded") => "Succeeded",
            Some("Failed") => "Failed",
            _ if !failed_init && waiting == 0 && stopped == succeeded && stopped > 0 => "Succeeded",
            _ => "Failed",
        };
    }
    let pending_init = inits.clone().any(|slot| !init_done(slot)) && running + stopped == 0;
    match () {
        () if failed_init => "Failed",
        () if pending_init || waiting > 0 => "Pending",
        () if running > 0 => "Running",
        () if policy == "Always" => "Running",
        () if stopped == succeeded => "Succeeded",
        () if policy == "Never" => "Failed",
        () => "Running",
    }
}

fn conditions(machine: &Machine, phase: &str, now: Timestamp) -> Vec<PodCondition> {
    let unready: Vec<&str> = machine
        .slots
        .iter()
        .filter(|slot| slot.kind != Kind::Init && !slot.ready)
        .map(|slot| slot.name.as_str())
        .collect();
    let pending: Vec<&str> =
        machine.slots.iter().filter(|slot| !init_done(slot)).map(|slot| slot.name.as_str()).collect();
    let completed = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let sandbox = matches!(machine.sandbox, Sandbox::Ready { .. });
    let started = machine.slots.iter().any(|slot| slot.kind == Kind::App && slot.attempts > 0);
    let initialized = match (phase, pending.is_empty() || started) {
        ("Succeeded", _) => ("True", Some("PodCompleted"), None),
        (_, true) => ("True", None, None),
        (_, false) => (
            "False",
            Some("ContainersNotInitialized"),
            Some(format!("containers with incomplete status: {}", go(&pending))),
        ),
    };
    let containers = match (completed, unready.is_empty()) {
        (Some(reason), _) => ("False", Some(reason), None),
        (None, true) => ("True", None, None),
        (None, false) => {
            ("False", Some("ContainersNotReady"), Some(format!("containers with unready status: {}", go(&unready))))
        }
    };
    let ready = gates(&machine.pod, &containers);
    let wanted = [
        ("PodReadyToStartContainers", (if sandbox { "True" } else { "False" }, None, None)),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers),
    ];
    let old = machine.pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut all: Vec<PodCondition> =
        wanted.into_iter().map(|(name, value)| condition(name, value, &old, machine, now)).collect();
    // What others have written stays as it is.
    let others: Vec<PodCondition> =
        old.iter().filter(|c| !all.iter().any(|own| own.type_ == c.type_)).cloned().collect();
    all.extend(others);
    if !all.iter().any(|c| c.type_ == "PodScheduled") {
        all.push(condition("PodScheduled", ("True", None, None), &old, machine, now));
    }
    all
}

type Value<'a> = (&'a str, Option<&'a str>, Option<String>);

/// A pod with readiness gates is ready once their conditions, which others set, are true as well.
fn gates<'a>(pod: &Pod, containers: &Value<'a>) -> Value<'a> {
    let spec_gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let missing = spec_gates
        .into_iter()
        .flatten()
        .find(|gate| !conditions.into_iter().flatten().any(|c| c.type_ == gate.condition_type && c.status == "True"));
    match missing {
        Some(gate) if containers.0 == "True" => {
            let message =
                format!("corresponding condition of pod readiness gate \"{}\" does not exist.", gate.condition_type);
            ("False", Some("ReadinessGatesNotReady"), Some(message))
        }
        _ => containers.clone(),
    }
}

fn condition(name: &str, value: Value<'_>, old: &[PodCondition], machine: &Machine, now: Timestamp) -> PodCondition {
    let (status, reason, message) = value;
    let before = old.iter().find(|c| c.type_ == name);
    let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_transition_time: Some(since.unwrap_or(Time(whole_second(now)))),
        observed_generation: machine.pod.metadata.generation,
        ..PodCondition::default()
    }
}

fn go(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

/// The API's times have no fraction.
pub(crate) fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

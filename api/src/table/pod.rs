//! Cells of pods: the words that people know from `kubectl get pods`.

use crate::time::{human_duration, of};
use crate::value::{at, has, int, list, map, text, truth};
use jiff::Timestamp;
use serde_json::Value;

/// Reason of a pod whose node cannot be reached.
const NODE_LOST: &str = "NodeLost";

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summary(pod);
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let restarts = match summary.last_restart {
        Some(then) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, human_duration(now.as_second() - then.as_second()))
        }
        _ => summary.restarts.to_string(),
    };
    let or_none = |text: &str| Value::from(if text.is_empty() { "<none>" } else { text });
    let ip = list(status, "podIPs").first().map_or(text(status, "podIP"), |ip| text(ip, "ip"));
    vec![
        text(&pod["metadata"], "name").into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        crate::time::age(&pod["metadata"]["creationTimestamp"], now).into(),
        or_none(ip),
        or_none(text(spec, "nodeName")),
        or_none(text(status, "nominatedNodeName")),
        readiness_gates(pod).into(),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(&pod["spec"], "readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let met = |gate: &&Value| {
        let mut conditions = list(&pod["status"], "conditions").iter();
        conditions.any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
    };
    format!("{}/{}", gates.iter().filter(met).count(), gates.len())
}

/// What `kubectl get pods` says of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The `STATUS`.
    pub reason: String,
    /// Ready containers.
    pub ready: usize,
    /// Containers that count: restartable init containers do.
    pub total: usize,
    /// Restarts.
    pub restarts: i64,
    /// When a container was restarted last.
    pub last_restart: Option<Timestamp>,
}

fn is_sidecar(pod: &Value, name: &str) -> bool {
    list(&pod["spec"], "initContainers").iter().any(|c| text(c, "name") == name && text(c, "restartPolicy") == "Always")
}

/// Summarises a pod as upstream's printer does.
pub fn summary(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecars = list(spec, "initContainers").iter().filter(|c| text(c, "restartPolicy") == "Always").count();
    let phase = text(status, "phase");
    let mut out = Summary {
        reason: match text(status, "reason") {
            "" => phase.to_owned(),
            reason => reason.to_owned(),
        },
        ready: 0,
        total: list(spec, "containers").len() + sidecars,
        restarts: 0,
        last_restart: None,
    };
    let conditions = list(status, "conditions");
    let gated = |c: &&Value| text(c, "type") == "PodScheduled" && text(c, "reason") == "SchedulingGated";
    if conditions.iter().any(|c| gated(&c)) {
        out.reason = "SchedulingGated".into();
    }
    let mut sidecar_restarts = Restarts::default();
    let initializing = init_containers(pod, &mut out, &mut sidecar_restarts);
    let initialized = conditions.iter().any(|c| text(c, "type") == "Initialized" && text(c, "status") == "True");
    if !initializing || initialized {
        out.restarts = sidecar_restarts.count;
        out.last_restart = sidecar_restarts.last;
        containers(pod, &mut out, conditions);
    }
    if has(&pod["metadata"], "deletionTimestamp") {
        if text(status, "reason") == NODE_LOST {
            out.reason = "Unknown".into();
        } else if !matches!(phase, "Failed" | "Succeeded") {
            out.reason = "Terminating".into();
        }
    }
    out
}

#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += int(container, "restartCount").unwrap_or(0);
        self.last = self.last.max(of(at(container, &["lastState", "terminated", "finishedAt"])));
    }
}

fn exit(terminated: &Value) -> String {
    match (text(terminated, "reason"), int(terminated, "signal").unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", int(terminated, "exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Goes through the init containers; true while one of them holds the pod up.
fn init_containers(pod: &Value, out: &mut Summary, sidecars: &mut Restarts) -> bool {
    let mut restarts = Restarts::default();
    for (i, container) in list(&pod["status"], "initContainerStatuses").iter().enumerate() {
        restarts.add(container);
        let sidecar = is_sidecar(pod, text(container, "name"));
        if sidecar {
            sidecars.add(container);
        }
        let state = &container["state"];
        if has(state, "terminated") && int(&state["terminated"], "exitCode").unwrap_or(0) == 0 {
            continue;
        }
        if sidecar && truth(container, "started") {
            if truth(container, "ready") {
                out.ready += 1;
            }
            continue;
        }
        let waiting = text(&state["waiting"], "reason");
        out.reason = if has(state, "terminated") {
            format!("Init:{}", exit(&state["terminated"]))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", list(&pod["spec"], "initContainers").len())
        };
        out.restarts = restarts.count;
        out.last_restart = restarts.last;
        return true;
    }
    false
}

fn containers(pod: &Value, out: &mut Summary, conditions: &[Value]) {
    let mut running = false;
    let mut restarts = Restarts { count: out.restarts, last: out.last_restart };
    for container in list(&pod["status"], "containerStatuses").iter().rev() {
        restarts.add(container);
        let state = map(container, "state");
        let part = |name: &str| state.get(name).filter(|v| !v.is_null());
        if let Some(waiting) = part("waiting").filter(|w| !text(w, "reason").is_empty()) {
            out.reason = text(waiting, "reason").to_owned();
        } else if let Some(terminated) = part("terminated") {
            out.reason = exit(terminated);
        } else if truth(container, "ready") && part("running").is_some() {
            running = true;
            out.ready += 1;
        }
    }
    out.restarts = restarts.count;
    out.last_restart = restarts.last;
    // A pod with a container that runs is not completed although another one has finished.
    if out.reason == "Completed" && running {
        let ready = conditions.iter().any(|c| text(c, "type") == "Ready" && text(c, "status") == "True");
        out.reason = if ready { "Running" } else { "NotReady" }.into();
    }
}

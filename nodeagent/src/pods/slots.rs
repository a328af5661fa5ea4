//! One container of a pod through its attempts: phase, what is shown in the status, and the restart back-off. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    Pod, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::shim::protocol::Exit;

/// First wait before a failed container is restarted.
const BACKOFF_INITIAL: SignedDuration = SignedDuration::from_secs(10);
/// Longest wait.
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long starts over with the waits.
const BACKOFF_RESET: SignedDuration = SignedDuration::from_secs(600);

/// Which part a container plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs to completion before the next.
    Init,
    /// An init container that goes on running beside the pod's own containers.
    Sidecar,
    /// One of the pod's own containers.
    App,
}

/// Where a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not running; started once its turn comes and `retry_at` has passed.
    Idle,
    /// The worker is at it.
    Launching,
    /// Its process runs.
    Running { id: String },
    /// Ended, and not to be started again.
    Done,
}

/// Waits that double from 10 s to 5 min.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    delay: Option<SignedDuration>,
    updated: Option<Timestamp>,
}

impl Backoff {
    fn current(&self, since: Timestamp) -> Option<SignedDuration> {
        let fresh = self.updated.is_some_and(|updated| since.duration_since(updated) <= BACKOFF_RESET);
        if fresh { self.delay } else { None }
    }

    /// When something that failed at `since` may be tried again, if it must wait at all.
    pub(crate) fn until(&self, since: Timestamp) -> Option<(Timestamp, SignedDuration)> {
        let delay = self.current(since)?;
        Some((since.saturating_add(delay).unwrap_or(Timestamp::MAX), delay))
    }

    /// It is being tried again now.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        self.delay = Some(match self.current(now) {
            Some(delay) => (delay * 2).min(BACKOFF_MAX),
            None => BACKOFF_INITIAL,
        });
        self.updated = Some(now);
    }
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}

/// One container of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) phase: Phase,
    /// As the status shows it.
    pub(crate) state: ContainerState,
    pub(crate) last: Option<ContainerStateTerminated>,
    /// How often it was started, minus one.
    pub(crate) restarts: i32,
    /// Attempts made; the next one gets this number.
    pub(crate) attempts: u32,
    pub(crate) container_id: Option<String>,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) ready: bool,
    pub(crate) started: bool,
    pub(crate) restart_backoff: Backoff,
    pub(crate) launch_backoff: Backoff,
    pub(crate) retry_at: Option<Timestamp>,
    /// Set once it was told to stop: when it is killed at the latest.
    pub(crate) killed_by: Option<Timestamp>,
    pub(crate) has_readiness: bool,
    pub(crate) has_startup: bool,
    stop_signal: Option<String>,
    resources: Option<ResourceRequirements>,
}

impl Slot {
    fn new(container: &Container, kind: Kind, initial_reason: &str) -> Slot {
        Slot {
            name: container.name.clone(),
            kind,
            phase: Phase::Idle,
            state: waiting(initial_reason, None),
            last: None,
            restarts: 0,
            attempts: 0,
            container_id: None,
            image: container.image.clone().unwrap_or_default(),
            image_id: String::new(),
            ready: false,
            started: false,
            restart_backoff: Backoff::default(),
            launch_backoff: Backoff::default(),
            retry_at: None,
            killed_by: None,
            has_readiness: container.readiness_probe.is_some(),
            has_startup: container.startup_probe.is_some(),
            stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
            resources: container.resources.clone(),
        }
    }

    /// The id of its running process.
    pub(crate) fn running_id(&self) -> Option<&str> {
        match &self.phase {
            Phase::Running { id } => Some(id),
            _ => None,
        }
    }

    /// How it ended last.
    pub(crate) fn terminated(&self) -> Option<&ContainerStateTerminated> {
        self.state.terminated.as_ref().or(match &self.phase {
            Phase::Idle | Phase::Done => self.last.as_ref(),
            _ => None,
        })
    }

    /// It runs since `started`.
    pub(crate) fn run(&mut self, id: &str, started: Timestamp) {
        if let Some(terminated) = self.state.terminated.take() {
            self.last = Some(terminated);
        }
        self.phase = Phase::Running { id: id.to_owned() };
        let running = ContainerStateRunning { started_at: Some(Time(started)) };
        self.state = ContainerState { running: Some(running), ..ContainerState::default() };
        self.container_id = Some(container_id(id));
        self.killed_by = None;
        self.retry_at = None;
        self.launch_backoff = Backoff::default();
        self.started = !self.has_startup;
        self.ready = self.started && !self.has_readiness;
    }

    /// It has ended. It stays down until the machine decides.
    pub(crate) fn exit(&mut self, id: &str, exit: &Exit) {
        self.phase = Phase::Idle;
        self.killed_by = None;
        self.container_id = Some(container_id(id));
        self.state = ContainerState { terminated: Some(terminated(id, exit)), ..ContainerState::default() };
        self.ready = false;
        self.started = false;
    }

    /// It waits, and says why. What it ended with before stays visible as the last state.
    pub(crate) fn wait(&mut self, reason: &str, message: Option<String>) {
        if let Some(terminated) = self.state.terminated.take() {
            self.last = Some(terminated);
        }
        self.state = waiting(reason, message);
    }

    /// As the API has it.
    pub(crate) fn status(&self) -> ContainerStatus {
        let last = ContainerState { terminated: self.last.clone(), ..ContainerState::default() };
        ContainerStatus {
            name: self.name.clone(),
            state: Some(self.state.clone()),
            last_state: Some(last),
            // An init container is ready once it has done its work.
            ready: match self.kind {
                Kind::Init => self.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0),
                Kind::Sidecar | Kind::App => self.ready,
            },
            restart_count: self.restarts,
            image: self.image.clone(),
            image_id: self.image_id.clone(),
            container_id: self.container_id.clone(),
            started: Some(self.started && self.running_id().is_some()),
            stop_signal: self.stop_signal.clone(),
            resources: self.resources.clone().filter(|r| r.limits.is_some() || r.requests.is_some()),
            ..ContainerStatus::default()
        }
    }
}

/// The slots of a pod: init containers in order, then the others.
pub(crate) fn slots(pod: &Pod) -> Vec<Slot> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let has_init = spec.init_containers.as_ref().is_some_and(|list| !list.is_empty());
    let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let init = spec.init_containers.iter().flatten().map(|container| {
        let kind = if container.restart_policy.as_deref() == Some("Always") { Kind::Sidecar } else { Kind::Init };
        Slot::new(container, kind, "PodInitializing")
    });
    init.chain(spec.containers.iter().map(|container| Slot::new(container, Kind::App, reason))).collect()
}

/// Names of a pod's containers with their definitions, init containers included.
pub(crate) fn definitions(pod: &Pod) -> BTreeMap<&str, &Container> {
    let Some(spec) = &pod.spec else { return BTreeMap::new() };
    spec.init_containers.iter().flatten().chain(&spec.containers).map(|c| (c.name.as_str(), c)).collect()
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn container_id(id: &str) -> String {
    format!("trireme://{id}")
}

/// An exit record in the API's words.
pub(crate) fn terminated(id: &str, exit: &Exit) -> ContainerStateTerminated {
    let reason = match (exit.start_failed, exit.oom_killed, exit.code) {
        (true, _, _) => "StartError",
        (_, true, _) => "OOMKilled",
        (_, _, 0) => "Completed",
        _ => "Error",
    };
    ContainerStateTerminated {
        container_id: Some(container_id(id)),
        exit_code: exit.code,
        reason: Some(reason.to_owned()),
        message: exit.message.clone(),
        started_at: Some(Time(time(exit.started_ns))),
        finished_at: Some(Time(time(exit.finished_ns))),
        signal: None,
    }
}

/// A shim's time, to the second as the API has it.
pub(crate) fn time(ns: i64) -> Timestamp {
    Timestamp::from_second(ns / 1_000_000_000).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn waits_double_up_to_five_minutes_and_start_over_after_ten() {
        let mut backoff = Backoff::default();
        assert!(backoff.until(at(0)).is_none(), "the first restart is at once");
        let mut seen = Vec::new();
        let mut now = at(0);
        for _ in 0..7 {
            backoff.advance(now);
            let (until, delay) = backoff.until(now).unwrap();
            seen.push(delay.as_secs());
            now = until;
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300]);
        assert!(backoff.until(now + SignedDuration::from_secs(301)).is_none());
    }

    #[test]
    fn durations_read_as_in_go() {
        let text = [10, 80, 300].map(|s| go_duration(SignedDuration::from_secs(s)));
        assert_eq!(text, ["10s", "1m20s", "5m0s"]);
    }
}

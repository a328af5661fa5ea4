//! The life of one pod as a pure state machine: events and the time in, actions out.
//!
//! The worker beside it does what the actions say and reports back with further events. Nothing here waits, reads a
//! clock or touches the system.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};

use crate::pods::slots::{self, Kind, Phase, Slot, go_duration};
use crate::shim::protocol::{ContainerStatus as Record, Exit};

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The object changed.
    Updated(Arc<Pod>),
    /// The object is gone from the API.
    Removed,
    /// The sandbox is up.
    SandboxReady { ips: Vec<String> },
    /// The sandbox could not be made.
    SandboxFailed { reason: &'static str, message: String },
    /// The shim died.
    SandboxLost,
    /// Everything of the pod is gone from the machine.
    TornDown,
    /// A container runs.
    Started { index: usize, id: String, at: Timestamp, image_id: String, image: String },
    /// A container could not be started. `exit` is set when it got as far as the runtime.
    LaunchFailed { index: usize, reason: String, message: String, exit: Option<(String, Exit)> },
    /// A container ended.
    Exited { id: String, exit: Exit },
    /// A probe changed its mind.
    Probe { id: String, kind: ProbeKind, ok: bool, message: String },
    /// The API has the object deleted (or never had it under this uid).
    Deleted,
    /// Time passed.
    Tick,
}

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start the shim, attach the network, make the volumes.
    CreateSandbox,
    /// Make the image present and run the container.
    Launch { index: usize, attempt: u32 },
    /// Ask a container to stop, and kill it after so many seconds.
    Kill { index: usize, id: String, grace: i64, message: String },
    /// Remove shim, network, cgroups and volumes.
    TearDown,
    /// Delete the object, for good.
    Delete,
    /// Tell the user.
    Emit { warning: bool, reason: &'static str, message: String, container: Option<usize> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sandbox {
    None { retry_at: Option<Timestamp> },
    Creating,
    Ready { ips: Vec<String> },
    TearingDown,
}

/// One pod.
pub(crate) struct Machine {
    pub(crate) pod: Arc<Pod>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) sandbox: Sandbox,
    /// Addresses last known, shown on in the status of a pod that has ended.
    pub(crate) ips: Vec<String>,
    pub(crate) start_time: Timestamp,
    /// The object is gone from the API.
    pub(crate) removed: bool,
    /// Everything is to end: the object is being deleted, or the pod outlived its deadline.
    pub(crate) failed: Option<(&'static str, &'static str)>,
    /// The phase is final.
    pub(crate) terminal: bool,
    /// Everything on the machine is gone.
    pub(crate) torn: bool,
    deleting: bool,
    sandbox_failures: u32,
}

impl Machine {
    /// A pod as the API has it, with what an earlier agent left of it on this machine.
    pub(crate) fn new(pod: Arc<Pod>, records: &[Record], now: Timestamp) -> Machine {
        let status = pod.status.as_ref();
        let start_time = status.and_then(|s| s.start_time.as_ref()).map_or(now, |time| time.0);
        let terminal = status.is_some_and(|s| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")));
        let ips = status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.clone()).collect();
        let mut slots = slots::slots(&pod);
        let known = status.into_iter().flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses));
        for known in known.flatten() {
            let Some(slot) = slots.iter_mut().find(|slot| slot.name == known.name) else { continue };
            slot.restarts = known.restart_count;
            slot.attempts = known.restart_count.max(0) as u32 + u32::from(known.container_id.is_some());
            slot.image_id.clone_from(&known.image_id);
            slot.container_id.clone_from(&known.container_id);
            slot.last = known.last_state.as_ref().and_then(|state| state.terminated.clone());
            if let Some(state) = &known.state
                && (terminal || state.terminated.is_some())
            {
                slot.state = state.clone();
            }
        }
        let mut machine = Machine {
            slots,
            sandbox: Sandbox::None { retry_at: None },
            ips,
            start_time,
            removed: false,
            failed: None,
            terminal,
            torn: false,
            deleting: false,
            sandbox_failures: 0,
            pod,
        };
        machine.restore(records, now);
        machine
    }

    /// Takes over containers that are running or have run.
    fn restore(&mut self, records: &[Record], now: Timestamp) {
        for record in records {
            let known = self.pod.status.as_ref().and_then(|status| {
                let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
                all.into_iter().find(|known| known.name == record.spec.name).cloned()
            });
            let Some(index) = self.slots.iter().position(|slot| slot.name == record.spec.name) else { continue };
            let slot = &mut self.slots[index];
            slot.attempts = record.spec.attempt + 1;
            slot.restarts = i32::try_from(record.spec.attempt).unwrap_or(i32::MAX);
            slot.image_id.clone_from(&record.spec.image_id);
            slot.image.clone_from(&record.spec.image);
            match &record.exit {
                // What has ended is treated as if it ended now: it is done, or started again.
                Some(exit) => self.on_exit(index, &record.spec.id, exit, now, &mut Vec::new()),
                None => {
                    slot.run(&record.spec.id, slots::time(record.started_ns));
                    // What the probes had found out holds until they find out otherwise.
                    if let Some(known) = known.filter(|k| k.container_id == slot.container_id) {
                        // A record from the disk does not tell when it was started.
                        if let Some(running) = known.state.and_then(|state| state.running)
                            && record.started_ns == 0
                        {
                            slot.state.running = Some(running);
                        }
                        slot.ready = known.ready;
                        slot.started = known.started.unwrap_or(slot.started);
                    }
                }
            }
        }
    }

    /// Takes an event in and says what to do.
    pub(crate) fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        self.apply(event, now, &mut actions);
        self.plan(now, &mut actions);
        actions
    }

    /// When [`Event::Tick`] is due.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        let sandbox = match &self.sandbox {
            Sandbox::None { retry_at } => *retry_at,
            _ => None,
        };
        let slots = self.slots.iter().filter(|slot| slot.phase == Phase::Idle).filter_map(|slot| slot.retry_at);
        slots.chain(sandbox).chain(self.deadline()).min()
    }

    /// Nothing is left to be done, here or in the API.
    pub(crate) fn finished(&self) -> bool {
        self.removed && self.torn
    }

    fn apply(&mut self, event: Event, now: Timestamp, actions: &mut Vec<Action>) {
        match event {
            Event::Updated(pod) => self.pod = pod,
            Event::Removed | Event::Deleted => self.removed = true,
            Event::SandboxReady { ips } => {
                self.sandbox_failures = 0;
                self.torn = false;
                self.ips.clone_from(&ips);
                self.sandbox = Sandbox::Ready { ips };
            }
            Event::SandboxFailed { reason, message } => {
                self.sandbox_failures += 1;
                let wait = SignedDuration::from_secs(1 << self.sandbox_failures.min(5));
                self.sandbox = Sandbox::None { retry_at: now.saturating_add(wait).ok() };
                actions.push(emit(true, reason, message, None));
            }
            Event::SandboxLost => self.on_lost(now, actions),
            Event::TornDown => {
                self.torn = true;
                self.sandbox = Sandbox::None { retry_at: None };
            }
            Event::Started { index, id, at, image_id, image } => {
                if let Some(slot) = self.slots.get_mut(index) {
                    slot.attempts += 1;
                    slot.restarts = i32::try_from(slot.attempts - 1).unwrap_or(i32::MAX);
                    slot.image_id = image_id;
                    slot.image = image;
                    slot.run(&id, at);
                }
            }
            Event::LaunchFailed { index, reason, message, exit } => {
                self.on_launch_failed(index, &reason, message, exit, now, actions);
            }
            Event::Exited { id, exit } => {
                if let Some(index) = self.running_index(&id) {
                    self.on_exit(index, &id, &exit, now, actions);
                }
            }
            Event::Probe { id, kind, ok, message } => self.on_probe(&id, kind, ok, &message, now, actions),
            Event::Tick => {}
        }
    }

    fn running_index(&self, id: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.running_id() == Some(id))
    }

    fn on_lost(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.sandbox == Sandbox::TearingDown {
            return;
        }
        let finished_ns = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        for index in 0..self.slots.len() {
            let Phase::Running { id } = self.slots[index].phase.clone() else { continue };
            let started = self.slots[index].state.running.as_ref().and_then(|running| running.started_at.as_ref());
            let exit = Exit {
                code: 137,
                signal: 9,
                oom_killed: false,
                started_ns: started.map_or(0, |time| i64::try_from(time.0.as_nanosecond()).unwrap_or(0)),
                finished_ns,
                message: Some("The pod's supervisor died; the container was killed".to_owned()),
                start_failed: false,
            };
            self.on_exit(index, &id, &exit, now, actions);
        }
        if !self.stopping() {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            actions.push(emit(false, "SandboxChanged", message, None));
            // The new sandbox needs its preparations again.
            for slot in self.slots.iter_mut().filter(|slot| slot.kind == Kind::Init) {
                slot.phase = Phase::Idle;
                slot.retry_at = None;
            }
        }
        self.sandbox = Sandbox::TearingDown;
        actions.push(Action::TearDown);
    }

    fn on_exit(&mut self, index: usize, id: &str, exit: &Exit, now: Timestamp, actions: &mut Vec<Action>) {
        let policy = self.restart_policy().to_owned();
        let pod = full_name(&self.pod);
        let slot = &mut self.slots[index];
        slot.exit(id, exit);
        let restart = match slot.kind {
            Kind::Sidecar => true,
            Kind::Init => exit.code != 0 && policy != "Never",
            Kind::App => policy == "Always" || (policy == "OnFailure" && exit.code != 0),
        };
        if !restart {
            slot.phase = Phase::Done;
            return;
        }
        slot.retry_at = Some(now);
        if self.failed.is_some() || self.removed || self.pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        let slot = &mut self.slots[index];
        if let Some((until, delay)) =
            slot.restart_backoff.until(slots::time(exit.finished_ns)).filter(|(u, _)| *u > now)
        {
            slot.retry_at = Some(until);
            let (name, delay) = (slot.name.clone(), go_duration(delay));
            slot.wait(
                "CrashLoopBackOff",
                Some(format!("back-off {delay} restarting failed container={name} pod={pod}")),
            );
            let message = format!("Back-off restarting failed container {name} in pod {pod}");
            actions.push(emit(true, "BackOff", message, Some(index)));
        }
    }

    fn on_launch_failed(
        &mut self,
        index: usize,
        reason: &str,
        message: String,
        exit: Option<(String, Exit)>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if let Some((id, exit)) = exit {
            slot.attempts += 1;
            slot.restarts = i32::try_from(slot.attempts - 1).unwrap_or(i32::MAX);
            actions.push(emit(true, "Failed", format!("Error: {message}"), Some(index)));
            return self.on_exit(index, &id, &exit, now, actions);
        }
        slot.phase = Phase::Idle;
        let wait = match slot.launch_backoff.until(now) {
            Some((until, _)) if reason != "CreateContainerConfigError" => until,
            _ => now.saturating_add(SignedDuration::from_secs(10)).unwrap_or(now),
        };
        slot.launch_backoff.advance(now);
        slot.retry_at = Some(wait);
        slot.wait(reason, Some(message.clone()));
        let text = if reason.starts_with("CreateContainer") { &message } else { reason };
        actions.push(emit(true, "Failed", format!("Error: {text}"), Some(index)));
    }

    fn on_probe(
        &mut self,
        id: &str,
        kind: ProbeKind,
        ok: bool,
        message: &str,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let Some(index) = self.running_index(id) else { return };
        let pod_grace = self.spec_grace();
        let slot = &mut self.slots[index];
        match (kind, ok) {
            (ProbeKind::Readiness, ok) => slot.ready = ok,
            (ProbeKind::Startup, true) => {
                slot.started = true;
                slot.ready = !slot.has_readiness;
            }
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) if slot.killed_by.is_none() => {
                let which = if kind == ProbeKind::Startup { "startup" } else { "liveness" };
                let text = format!("Container {} failed {which} probe, will be restarted", slot.name);
                let _ = message;
                slot.killed_by = now.saturating_add(SignedDuration::from_secs(pod_grace)).ok();
                actions.push(Action::Kill { index, id: id.to_owned(), grace: pod_grace, message: text });
            }
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {}
        }
    }

    fn plan(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.deadline().is_some_and(|deadline| deadline <= now) && self.failed.is_none() && !self.terminal {
            self.failed = Some(("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"));
        }
        if !self.terminal && (self.stopping() || self.has_ended()) && !self.active() {
            self.terminal = self.failed.is_some() || self.has_ended() || self.pod.metadata.deletion_timestamp.is_some();
        }
        if self.stopping() {
            self.plan_stop(now, actions);
        } else {
            self.plan_run(now, actions);
        }
    }

    /// Something runs or is about to.
    fn active(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.phase, Phase::Running { .. } | Phase::Launching))
    }

    /// Everything must end.
    pub(crate) fn stopping(&self) -> bool {
        self.removed
            || self.terminal
            || self.failed.is_some()
            || self.pod.metadata.deletion_timestamp.is_some()
            || self.apps_done()
    }

    fn apps_done(&self) -> bool {
        self.has_ended()
    }

    /// The pod has run to its end by itself.
    fn has_ended(&self) -> bool {
        let failed_init = self.slots.iter().any(|slot| {
            slot.kind == Kind::Init && slot.phase == Phase::Done && slot.terminated().is_some_and(|t| t.exit_code != 0)
        });
        let mut apps = self.slots.iter().filter(|slot| slot.kind == Kind::App);
        failed_init || apps.all(|slot| slot.phase == Phase::Done)
    }

    fn plan_run(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        match &self.sandbox {
            Sandbox::None { retry_at } if retry_at.is_none_or(|at| at <= now) => {
                self.sandbox = Sandbox::Creating;
                self.torn = false;
                actions.push(Action::CreateSandbox);
                return;
            }
            Sandbox::Ready { .. } => {}
            _ => return,
        }
        // One at a time and in order, as the kubelet starts them; one that waits for a retry holds nobody up.
        if self.slots.iter().any(|slot| slot.phase == Phase::Launching) {
            return;
        }
        let next = match self.slots.iter().position(|slot| !init_done(slot)) {
            Some(index) => (self.slots[index].phase == Phase::Idle).then_some(index).filter(|i| self.due(*i, now)),
            None => (0..self.slots.len()).find(|i| self.slots[*i].phase == Phase::Idle && self.due(*i, now)),
        };
        // A sidecar that died is started again although a later init container is at work.
        let sidecar = (0..self.slots.len()).find(|i| {
            let slot = &self.slots[*i];
            slot.kind == Kind::Sidecar && slot.phase == Phase::Idle && slot.attempts > 0 && self.due(*i, now)
        });
        let Some(index) = sidecar.or(next) else { return };
        let slot = &mut self.slots[index];
        if slot.attempts > 0 && (slot.state.terminated.is_some() || slot.last.is_some()) {
            slot.restart_backoff.advance(now);
        }
        slot.phase = Phase::Launching;
        slot.retry_at = None;
        actions.push(Action::Launch { index, attempt: slot.attempts });
    }

    fn due(&self, index: usize, now: Timestamp) -> bool {
        self.slots[index].retry_at.is_none_or(|at| at <= now)
    }

    fn plan_stop(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let grace = self.grace();
        let deadline = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        let apps_running = self.slots.iter().any(|s| s.kind != Kind::Sidecar && s.running_id().is_some());
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let Phase::Running { id } = slot.phase.clone() else { continue };
            // Sidecars serve the others to the end.
            if slot.kind == Kind::Sidecar && apps_running && grace > 0 {
                continue;
            }
            if slot.killed_by.is_none_or(|at| deadline < at) {
                slot.killed_by = Some(deadline);
                let message = format!("Stopping container {}", slot.name);
                actions.push(Action::Kill { index, id, grace, message });
            }
        }
        if self.active() || matches!(self.sandbox, Sandbox::Creating) {
            return;
        }
        if !self.torn {
            if self.sandbox != Sandbox::TearingDown {
                self.sandbox = Sandbox::TearingDown;
                actions.push(Action::TearDown);
            }
        } else if self.pod.metadata.deletion_timestamp.is_some() && !self.removed && !self.deleting {
            self.deleting = true;
            actions.push(Action::Delete);
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        if self.terminal || self.failed.is_some() {
            return None;
        }
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        self.start_time.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    pub(crate) fn restart_policy(&self) -> &str {
        self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
    }

    fn spec_grace(&self) -> i64 {
        self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30).max(1)
    }

    fn grace(&self) -> i64 {
        let asked = self.pod.metadata.deletion_grace_period_seconds;
        match (self.removed, asked) {
            // Deleted without waiting for this node: the object's own wish still counts, if it has one.
            (true, asked) => asked.unwrap_or(1).clamp(0, 2),
            (false, Some(seconds)) => seconds.max(0),
            (false, None) => self.spec_grace(),
        }
    }

    /// How a slot ended last, for the phase.
    pub(crate) fn ended(slot: &Slot) -> Option<&ContainerStateTerminated> {
        slot.terminated()
    }
}

/// An init container that lets the next one begin.
pub(crate) fn init_done(slot: &Slot) -> bool {
    match slot.kind {
        Kind::App => true,
        Kind::Init => slot.phase == Phase::Done && slot.terminated().is_some_and(|t| t.exit_code == 0),
        Kind::Sidecar => slot.started && slot.running_id().is_some(),
    }
}

fn emit(warning: bool, reason: &'static str, message: String, container: Option<usize>) -> Action {
    Action::Emit { warning, reason, message, container }
}

/// `name_namespace(uid)`, as the kubelet names pods in messages.
pub(crate) fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}

#[cfg(test)]
mod tests;

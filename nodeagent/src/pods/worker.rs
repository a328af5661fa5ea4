//! One pod's worker: feeds its machine with events and does what the machine says.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pods::following::{self, Found};
use crate::pods::machine::{Action, Event, Machine, Sandbox};
use crate::pods::patch::{keep_times, overruled, patch, revision};
use crate::pods::slots::{Kind, definitions};
use crate::pods::{ContainerView, Context, PodView, kill, launch, probes, status, teardown};
use crate::shim::client::{Shim, Watch, read_records};
use crate::shim::protocol::{CONTAINER_FILE, CONTAINERS, ContainerSpec, Exit};

/// How often a shim that does not answer is asked before the worker begins without it.
const OPEN_ATTEMPTS: usize = 3;
/// Events that may wait for a worker.
const QUEUE: usize = 128;

/// What reaches a worker.
pub(crate) enum Message {
    Event(Event),
    /// A sandbox came up.
    Sandbox(Vec<String>, Watch),
    /// The status was written, or not.
    Written(Result<u64, kube::Error>),
}

/// A worker, from outside.
#[derive(Clone)]
pub(crate) struct Handle {
    sender: mpsc::Sender<Message>,
}

impl Handle {
    /// Tells the worker. False if it has ended.
    pub(crate) async fn send(&self, event: Event) -> bool {
        self.sender.send(Message::Event(event)).await.is_ok()
    }
}

struct Worker {
    context: Arc<Context>,
    machine: Machine,
    uid: String,
    sender: mpsc::Sender<Message>,
    /// Exits of containers that the machine does not know yet.
    early: HashMap<String, Exit>,
    /// Ends the probes of a container.
    probes: HashMap<String, CancellationToken>,
    /// Ends an earlier, more patient attempt to stop a container.
    kills: HashMap<String, CancellationToken>,
    written: Option<PodStatus>,
    /// Revision of the object after the last write of its status.
    written_revision: u64,
    writing: bool,
    failures: u32,
    delete: bool,
    /// Shims of this pod that are to die do not count as lost.
    watching: CancellationToken,
}

/// Starts a worker for a pod. It ends when nothing of the pod is left, or with `shutdown`; containers run on then.
pub(crate) fn start(context: Arc<Context>, pod: Arc<Pod>, shutdown: CancellationToken) -> Handle {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let handle = Handle { sender: sender.clone() };
    tokio::spawn(async move {
        tokio::select! {
            () = async { Worker::open(context, pod, sender).await.run(receiver).await } => {}
            () = shutdown.cancelled() => {}
        }
    });
    handle
}

impl Worker {
    /// Finds out what is already there: a living shim with its containers, or records of a dead one.
    async fn open(context: Arc<Context>, pod: Arc<Pod>, sender: mpsc::Sender<Message>) -> Worker {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let directory = context.pod_directory(&uid);
        let (records, watch, alive) = match following::find(&Shim::at(&directory), OPEN_ATTEMPTS).await {
            Found::Alive(records, watch) => (records, Some(watch), true),
            Found::Dead => (read_records(&directory), None, false),
            // Its containers run on; their exits come as soon as it answers.
            Found::Silent => (read_records(&directory), None, true),
        };
        let mut machine = Machine::new(pod, &latest(records), Timestamp::now());
        if alive {
            let ips = match context.network.lookup(&uid) {
                Some(network) => vec![network.ip.to_string()],
                None => machine.ips.clone(),
            };
            machine.sandbox = Sandbox::Ready { ips: ips.clone() };
            machine.ips = ips;
        }
        let mut worker = Worker {
            context,
            machine,
            uid,
            sender,
            early: HashMap::new(),
            probes: HashMap::new(),
            kills: HashMap::new(),
            written: None,
            written_revision: 0,
            writing: false,
            failures: 0,
            delete: false,
            watching: CancellationToken::new(),
        };
        if alive {
            worker.follow(watch);
            worker.resume_probes();
        } else if directory.exists() && !worker.machine.terminal {
            worker.handle(Event::SandboxLost);
        }
        worker
    }

    async fn run(mut self, mut receiver: mpsc::Receiver<Message>) {
        self.handle(Event::Tick);
        loop {
            self.publish();
            self.write();
            if self.machine.finished() && !self.writing {
                self.context.register.remove(&self.machine.pod);
                let logs = self.context.log_directory(&self.machine.pod);
                for leftover in [logs, self.context.pod_directory(&self.uid)] {
                    if let Err(error) = teardown::remove(&leftover) {
                        tracing::warn!(uid = %self.uid, %error, "leftovers of a pod not removed");
                    }
                }
                return;
            }
            let wake = self.machine.wake_at().map(|at| at.duration_since(Timestamp::now()));
            let wake = wake.map(|left| Duration::try_from(left).unwrap_or_default());
            tokio::select! {
                message = receiver.recv() => match message {
                    Some(message) => self.on_message(message),
                    None => return,
                },
                () = tokio::time::sleep(wake.unwrap_or_default()), if wake.is_some() => self.handle(Event::Tick),
            }
            // What has come meanwhile goes into the same status.
            while let Ok(message) = receiver.try_recv() {
                self.on_message(message);
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Event(Event::Exited { id, exit }) if !self.knows(&id) => drop(self.early.insert(id, exit)),
            Message::Event(event) => self.handle(event),
            Message::Sandbox(ips, watch) => {
                self.follow(Some(watch));
                self.handle(Event::SandboxReady { ips });
            }
            Message::Written(result) => self.on_written(result),
        }
    }

    fn knows(&self, id: &str) -> bool {
        self.machine.slots.iter().any(|slot| slot.running_id() == Some(id))
    }

    fn handle(&mut self, event: Event) {
        let started = match &event {
            Event::Started { id, index, .. } => Some((id.clone(), *index)),
            _ => None,
        };
        if let Event::Exited { id, .. } = &event {
            self.forget(&id.clone());
        }
        if let Event::LaunchFailed { exit: Some((id, _)), .. } = &event {
            self.early.remove(id);
        }
        let actions = self.machine.handle(event, Timestamp::now());
        if let Some((id, index)) = started {
            match self.early.remove(&id) {
                Some(exit) => self.handle(Event::Exited { id, exit }),
                None => self.after_start(&id, index),
            }
        }
        for action in actions {
            self.act(action);
        }
    }

    fn forget(&mut self, id: &str) {
        for tokens in [&mut self.probes, &mut self.kills] {
            if let Some(token) = tokens.remove(id) {
                token.cancel();
            }
        }
    }

    fn container(&self, index: usize) -> Option<Container> {
        let name = &self.machine.slots.get(index)?.name;
        definitions(&self.machine.pod).get(name.as_str()).map(|container| (*container).clone())
    }

    fn view(&self) -> PodView {
        let containers = self.machine.slots.iter().map(|slot| {
            let definition =
                definitions(&self.machine.pod).get(slot.name.as_str()).copied().cloned().unwrap_or_default();
            let waiting = slot.state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
            let view = ContainerView {
                running: slot.running_id().map(str::to_owned),
                attempt: slot.attempts.checked_sub(1),
                terminal: definition.tty.unwrap_or(false),
                stdin: definition.stdin.unwrap_or(false),
                waiting,
            };
            (slot.name.clone(), view)
        });
        let mut pod = (*self.machine.pod).clone();
        if let Some(written) = &self.written {
            pod.status = Some(written.clone());
        }
        PodView {
            directory: self.context.pod_directory(&self.uid),
            logs: self.context.log_directory(&pod),
            containers: containers.collect(),
            pod: Arc::new(pod),
        }
    }

    fn publish(&self) {
        self.context.register.set(self.view());
    }

    fn spawn(&self, work: impl Future<Output = Event> + Send + 'static) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            // Fails only if the worker has ended; then nobody wants to know.
            let _ = sender.send(Message::Event(work.await)).await;
        });
    }

    fn act(&mut self, action: Action) {
        let (context, pod) = (self.context.clone(), self.machine.pod.clone());
        match action {
            Action::CreateSandbox => {
                self.watching = CancellationToken::new();
                let sender = self.sender.clone();
                tokio::spawn(async move {
                    let message = match launch::create_sandbox(&context, &pod).await {
                        Ok((ips, watch)) => Message::Sandbox(ips, watch),
                        Err(launch::SandboxError(reason, message)) => {
                            Message::Event(Event::SandboxFailed { reason, message })
                        }
                    };
                    let _ = sender.send(message).await;
                });
            }
            Action::Launch { index, attempt } => {
                let Some(container) = self.container(index) else { return };
                let kind = self.machine.slots[index].kind;
                let waiting = self.machine.slots[index].state.waiting.as_ref().and_then(|w| w.reason.clone());
                let tried = matches!(waiting.as_deref(), Some("ErrImagePull" | "ImagePullBackOff"));
                let ips = self.machine.ips.clone();
                self.spawn(async move {
                    launch::run(&context, &pod, &container, (index, kind, attempt), &ips, tried).await
                });
            }
            Action::Kill { index, id, grace, message } => self.kill(index, id, grace, &message),
            Action::TearDown => {
                self.watching.cancel();
                let keep_volumes = !self.machine.stopping();
                let sender = self.sender.clone();
                tokio::spawn(async move {
                    // With the worker this ends too; the next agent begins anew.
                    tokio::select! {
                        () = teardown::tear_down(&context, &pod, keep_volumes) => {}
                        () = sender.closed() => return,
                    }
                    let _ = sender.send(Message::Event(Event::TornDown)).await;
                });
            }
            Action::Delete => self.delete = true,
            Action::Emit { warning, reason, message, container } => {
                let slot = container.and_then(|index| self.machine.slots.get(index));
                let about = slot.map(|slot| (slot.name.as_str(), slot.kind != Kind::App));
                context.emit(&pod, about, warning, reason, &message);
            }
        }
    }

    fn kill(&mut self, index: usize, id: String, grace: i64, message: &str) {
        let Some(container) = self.container(index) else { return };
        self.forget(&id);
        let token = CancellationToken::new();
        self.kills.insert(id.clone(), token.clone());
        let about = Some((container.name.as_str(), self.machine.slots[index].kind != Kind::App));
        self.context.emit(&self.machine.pod, about, false, "Killing", message);
        let view = Arc::new(self.view());
        let file = view.directory.join(CONTAINERS).join(&id).join(CONTAINER_FILE);
        let spec: Option<ContainerSpec> = fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let signal = spec.map_or(nix::sys::signal::Signal::SIGTERM as i32, |spec| spec.stop_signal);
        let context = self.context.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = kill::kill(context, view, container, id, grace, signal) => {}
                () = token.cancelled() => {}
            }
        });
    }

    /// Forwards exits from the shim until it dies; without a watch, that begins with connecting.
    fn follow(&self, watch: Option<Watch>) {
        let (sender, token) = (self.sender.clone(), self.watching.clone());
        let directory = self.context.pod_directory(&self.uid);
        let pod = self.machine.pod.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = following::follow(&directory, &pod, watch, &sender, &token) => {}
                () = sender.closed() => {}
            }
        });
    }

    fn after_start(&mut self, id: &str, index: usize) {
        let Some(container) = self.container(index) else { return };
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone());
        if let Some(hook) = hook {
            let (context, view, id, container) = (self.context.clone(), self.view(), id.to_owned(), container.clone());
            let sender = self.sender.clone();
            tokio::spawn(async move {
                let done = kill::run_hook(&view.shim(), &view.pod, &container, &id, &hook).await;
                if let Err(message) = done {
                    let text = format!("PostStartHook failed: {message}");
                    context.emit(&view.pod, Some((&container.name, false)), true, "FailedPostStartHook", &text);
                    let kind = crate::pods::machine::ProbeKind::Liveness;
                    let _ = sender.send(Message::Event(Event::Probe { id, kind, ok: false, message })).await;
                }
            });
        }
        self.start_probes(id, container, false);
    }

    fn start_probes(&mut self, id: &str, container: Container, started: bool) {
        if container.liveness_probe.is_none()
            && container.readiness_probe.is_none()
            && container.startup_probe.is_none()
        {
            return;
        }
        let stop = CancellationToken::new();
        self.probes.insert(id.to_owned(), stop.clone());
        let probing = probes::Probing {
            context: self.context.clone(),
            view: Arc::new(self.view()),
            container,
            id: id.to_owned(),
            ip: self.machine.ips.first().cloned().unwrap_or_default(),
            sender: self.sender.clone(),
        };
        tokio::spawn(probes::run(probing, started, stop));
    }

    fn resume_probes(&mut self) {
        for index in 0..self.machine.slots.len() {
            let Some(id) = self.machine.slots[index].running_id().map(str::to_owned) else { continue };
            let started = self.machine.slots[index].started;
            if let Some(container) = self.container(index) {
                self.start_probes(&id, container, started);
            }
        }
    }

    fn api(&self) -> Api<Pod> {
        let namespace = self.machine.pod.metadata.namespace.as_deref().unwrap_or("default");
        Api::namespaced(self.context.client.clone(), namespace)
    }

    /// Writes the status if it has changed; afterwards deletes the object if that is due. One request at a time.
    fn write(&mut self) {
        if self.writing || self.machine.removed {
            return;
        }
        // An object older than the last write says nothing about it.
        let overruled = revision(&self.machine.pod) >= self.written_revision
            && self.written.as_ref().is_some_and(|written| overruled(self.machine.pod.status.as_ref(), written));
        let now = Timestamp::now();
        let mut new = status::status(&self.machine, &self.context.config.node_ip.to_string(), now);
        if let Some(old) = &self.written {
            keep_times(&mut new, old);
        }
        let api = self.api();
        let name = self.machine.pod.metadata.name.clone().unwrap_or_default();
        let (sender, uid, failures) = (self.sender.clone(), self.uid.clone(), self.failures);
        if overruled || self.written.as_ref() != Some(&new) {
            let patch = patch(&uid, &new, self.machine.pod.status.as_ref());
            self.written = Some(new);
            self.writing = true;
            tokio::spawn(async move {
                pause_after(failures).await;
                let result = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
                let _ = sender.send(Message::Written(result.map(|pod| revision(&pod)))).await;
            });
        } else if self.delete {
            self.writing = true;
            tokio::spawn(async move {
                pause_after(failures).await;
                let preconditions = Preconditions { uid: Some(uid), resource_version: None };
                let parameters =
                    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }.grace_period(0);
                let result = api.delete(&name, &parameters).await.map(|_| 0);
                if result.is_ok() {
                    let _ = sender.send(Message::Event(Event::Deleted)).await;
                }
                let _ = sender.send(Message::Written(result)).await;
            });
        }
    }

    fn on_written(&mut self, result: Result<u64, kube::Error>) {
        self.writing = false;
        match result {
            Ok(revision) => {
                self.failures = 0;
                self.written_revision = self.written_revision.max(revision);
            }
            // Gone, or another pod of that name: this one does not exist any more.
            Err(kube::Error::Api(status)) if gone(&status) => self.handle(Event::Deleted),
            Err(error) => {
                tracing::warn!(pod = %crate::pods::machine::full_name(&self.machine.pod), %error, "status not written");
                self.failures += 1;
                self.written = None;
            }
        }
    }
}

/// Whether an answer means that this very object does not exist any more. A conflict alone does not: it passes.
fn gone(status: &kube::core::Status) -> bool {
    status.code == 404 || (status.code == 409 && status.message.contains("UID in object meta"))
}

/// Waits before a request that failed is tried again.
async fn pause_after(failures: u32) {
    if failures > 0 {
        tokio::time::sleep(Duration::from_millis(250 << failures.min(5))).await;
    }
}

/// The newest record of each container.
fn latest(records: Vec<crate::shim::protocol::ContainerStatus>) -> Vec<crate::shim::protocol::ContainerStatus> {
    let mut newest: HashMap<String, crate::shim::protocol::ContainerStatus> = HashMap::new();
    for record in records {
        match newest.get(&record.spec.name) {
            Some(known) if known.spec.attempt > record.spec.attempt => {}
            _ => drop(newest.insert(record.spec.name.clone(), record)),
        }
    }
    newest.into_values().collect()
}

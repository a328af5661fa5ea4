//! Scenarios of the pod machine: one line an event or a moment, and what came of it.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::pods::status::{phase, status};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn ns(seconds: i64) -> i64 {
    (1_000_000 + seconds) * 1_000_000_000
}

fn pod(spec: &str) -> Arc<Pod> {
    let text = format!(r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u","generation":1}},"spec":{spec}}}"#);
    Arc::new(serde_json::from_str(&text).unwrap())
}

fn simple(policy: &str) -> Arc<Pod> {
    pod(&format!(r#"{{"restartPolicy":"{policy}","containers":[{{"name":"a","image":"i"}}]}}"#))
}

fn deleted(pod: &Pod, grace: i64) -> Arc<Pod> {
    let mut pod = pod.clone();
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    Arc::new(pod)
}

fn exit(code: i32, from: i64, to: i64) -> Exit {
    Exit {
        code,
        signal: 0,
        oom_killed: false,
        started_ns: ns(from),
        finished_ns: ns(to),
        message: None,
        start_failed: false,
    }
}

fn ready() -> Event {
    Event::SandboxReady { ips: vec!["10.0.0.9".into()] }
}

fn started(index: usize, id: &str, seconds: i64) -> Event {
    Event::Started { index, id: id.into(), at: at(seconds), image_id: "sha".into(), image: "i".into() }
}

fn exited(id: &str, code: i32, from: i64, to: i64) -> Event {
    Event::Exited { id: id.into(), exit: exit(code, from, to) }
}

/// The actions as short words.
fn words(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .map(|action| match action {
            Action::CreateSandbox => "sandbox".to_owned(),
            Action::Launch { index, attempt } => format!("launch {index}.{attempt}"),
            Action::Kill { id, grace, .. } => format!("kill {id} {grace}"),
            Action::TearDown => "teardown".to_owned(),
            Action::Delete => "delete".to_owned(),
            Action::Emit { reason, .. } => format!("event {reason}"),
        })
        .collect()
}

struct Run {
    machine: Machine,
}

impl Run {
    fn new(pod: Arc<Pod>) -> Run {
        Run { machine: Machine::new(pod, &[], at(0)) }
    }

    fn go(&mut self, seconds: i64, event: Event) -> Vec<String> {
        words(&self.machine.handle(event, at(seconds)))
    }

    fn waiting(&self, index: usize) -> Option<String> {
        self.machine.slots[index].state.waiting.as_ref()?.reason.clone()
    }

    fn condition(&self, name: &str) -> String {
        let status = status(&self.machine, "1.1.1.1", at(0));
        status.conditions.unwrap().into_iter().find(|c| c.type_ == name).unwrap().status
    }
}

#[test]
fn a_pod_comes_up_and_goes_away() {
    let pod = simple("Always");
    let mut run = Run::new(pod.clone());
    assert_eq!(run.go(0, Event::Tick), ["sandbox"]);
    assert_eq!((phase(&run.machine), run.waiting(0).unwrap().as_str()), ("Pending", "ContainerCreating"));
    assert_eq!(run.go(1, ready()), ["launch 0.0"]);
    assert!(run.go(2, started(0, "x", 2)).is_empty());
    assert_eq!(phase(&run.machine), "Running");
    for name in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(run.condition(name), "True", "{name}");
    }
    assert_eq!(run.go(3, Event::Updated(deleted(&pod, 30))), ["kill x 30"]);
    assert!(run.go(4, Event::Tick).is_empty(), "told once");
    assert_eq!(run.go(4, Event::Updated(deleted(&pod, 1))), ["kill x 1"], "a shorter wish counts");
    assert_eq!(run.go(5, exited("x", 0, 2, 5)), ["teardown"]);
    assert_eq!(phase(&run.machine), "Succeeded");
    assert_eq!(run.go(6, Event::TornDown), ["delete"]);
    assert!(!run.machine.finished());
    assert!(run.go(7, Event::Deleted).is_empty());
    assert!(run.machine.finished());
}

#[test]
fn a_failing_container_waits_longer_and_longer() {
    let mut run = Run::new(simple("Always"));
    run.go(0, Event::Tick);
    run.go(0, ready());
    run.go(0, started(0, "a", 0));
    assert_eq!(run.go(1, exited("a", 1, 0, 1)), ["launch 0.1"], "the first restart is at once");
    run.go(1, started(0, "b", 1));
    assert_eq!(run.go(2, exited("b", 1, 1, 2)), ["event BackOff"]);
    assert_eq!(run.waiting(0).unwrap(), "CrashLoopBackOff");
    let message = run.machine.slots[0].state.waiting.clone().unwrap().message.unwrap();
    assert_eq!(message, "back-off 10s restarting failed container=a pod=p_n(u)");
    assert_eq!(run.machine.wake_at(), Some(at(12)));
    assert!(run.go(11, Event::Tick).is_empty());
    assert_eq!(run.go(12, Event::Tick), ["launch 0.2"]);
    run.go(12, started(0, "c", 12));
    run.go(13, exited("c", 1, 12, 13));
    assert_eq!(run.machine.wake_at(), Some(at(33)), "20 s after the end");
    let slot = &run.machine.slots[0];
    assert_eq!((slot.restarts, slot.last.as_ref().unwrap().exit_code), (2, 1));
    assert_eq!(phase(&run.machine), "Running");
    // Ten quiet minutes, and the next failure is treated as the first one.
    run.go(33, Event::Tick);
    run.go(33, started(0, "d", 33));
    assert_eq!(run.go(700, exited("d", 1, 33, 700)), ["launch 0.4"]);
}

#[test]
fn pods_that_are_done_are_done() {
    for (policy, code, expected) in [("Never", 0, "Succeeded"), ("Never", 3, "Failed"), ("OnFailure", 0, "Succeeded")] {
        let mut run = Run::new(simple(policy));
        run.go(0, Event::Tick);
        run.go(0, ready());
        run.go(0, started(0, "a", 0));
        assert_eq!(run.go(5, exited("a", code, 0, 5)), ["teardown"], "{policy} {code}");
        assert_eq!(phase(&run.machine), expected);
        assert!(run.go(6, Event::TornDown).is_empty());
        assert_eq!((run.condition("Ready"), run.machine.wake_at()), ("False".to_owned(), None));
        assert!(run.go(7, Event::Tick).is_empty(), "nothing starts again");
        let pod = run.machine.pod.clone();
        assert_eq!(run.go(8, Event::Updated(deleted(&pod, 30))), ["delete"]);
        assert_eq!(phase(&run.machine), expected);
    }
}

#[test]
fn init_containers_come_first_and_in_order() {
    let pod = pod(
        r#"{"restartPolicy":"Always","initContainers":[{"name":"i1"},{"name":"i2"}],"containers":[{"name":"a"},{"name":"b"}]}"#,
    );
    let mut run = Run::new(pod);
    run.go(0, Event::Tick);
    assert_eq!(run.go(0, ready()), ["launch 0.0"]);
    assert!(run.go(1, started(0, "1", 1)).is_empty());
    assert_eq!((phase(&run.machine), run.condition("Initialized").as_str()), ("Pending", "False"));
    assert_eq!(run.go(2, exited("1", 0, 1, 2)), ["launch 1.0"]);
    run.go(3, started(1, "2", 3));
    assert_eq!(run.go(4, exited("2", 1, 3, 4)), ["launch 1.1"], "a failed one is tried again");
    run.go(5, started(1, "2b", 5));
    assert_eq!(run.go(6, exited("2b", 0, 5, 6)), ["launch 2.0"]);
    assert_eq!(run.condition("Initialized"), "True");
    assert_eq!(run.go(7, started(2, "a", 7)), ["launch 3.0"]);
    assert_eq!(phase(&run.machine), "Pending");
    run.go(8, started(3, "b", 8));
    assert_eq!((phase(&run.machine), run.condition("Ready").as_str()), ("Running", "True"));
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let pod = pod(r#"{"restartPolicy":"Never","initContainers":[{"name":"i"}],"containers":[{"name":"a"}]}"#);
    let mut run = Run::new(pod);
    run.go(0, Event::Tick);
    run.go(0, ready());
    run.go(1, started(0, "1", 1));
    assert_eq!(run.go(2, exited("1", 1, 1, 2)), ["teardown"]);
    assert_eq!(phase(&run.machine), "Failed");
}

#[test]
fn sidecars_start_before_and_end_after_the_others() {
    let pod = pod(
        r#"{"restartPolicy":"Never","initContainers":[{"name":"s","restartPolicy":"Always"}],"containers":[{"name":"a"}]}"#,
    );
    let mut run = Run::new(pod);
    run.go(0, Event::Tick);
    assert_eq!(run.go(0, ready()), ["launch 0.0"]);
    assert_eq!(run.go(1, started(0, "s", 1)), ["launch 1.0"]);
    run.go(2, started(1, "a", 2));
    assert_eq!(run.go(3, exited("a", 0, 2, 3)), ["kill s 30"]);
    assert_eq!(run.go(4, exited("s", 143, 1, 4)), ["teardown"]);
    assert_eq!(phase(&run.machine), "Succeeded");
}

#[test]
fn probes_decide_on_readiness_and_on_life() {
    let pod = pod(
        r#"{"terminationGracePeriodSeconds":7,"containers":[{"name":"a","readinessProbe":{},"livenessProbe":{},"startupProbe":{}}]}"#,
    );
    let probe = |kind, ok| Event::Probe { id: "a".into(), kind, ok, message: String::new() };
    let mut run = Run::new(pod);
    run.go(0, Event::Tick);
    run.go(0, ready());
    run.go(1, started(0, "a", 1));
    assert_eq!(run.condition("Ready"), "False");
    run.go(2, probe(ProbeKind::Startup, true));
    assert_eq!((run.machine.slots[0].started, run.condition("Ready").as_str()), (true, "False"));
    run.go(3, probe(ProbeKind::Readiness, true));
    assert_eq!(run.condition("Ready"), "True");
    run.go(4, probe(ProbeKind::Readiness, false));
    assert_eq!(run.condition("Ready"), "False");
    assert_eq!(run.go(5, probe(ProbeKind::Liveness, false)), ["kill a 7"]);
    assert!(run.go(6, probe(ProbeKind::Liveness, false)).is_empty());
    assert_eq!(run.go(7, exited("a", 143, 1, 7)), ["launch 0.1"]);
}

#[test]
fn images_that_cannot_be_pulled_are_tried_again() {
    let fail = |reason: &str| Event::LaunchFailed { index: 0, reason: reason.into(), message: "m".into(), exit: None };
    let mut run = Run::new(simple("Always"));
    run.go(0, Event::Tick);
    run.go(0, ready());
    assert_eq!(run.go(1, fail("ErrImagePull")), ["event Failed"]);
    assert_eq!((run.waiting(0).unwrap().as_str(), phase(&run.machine)), ("ErrImagePull", "Pending"));
    assert_eq!(run.machine.wake_at(), Some(at(11)));
    assert_eq!(run.go(11, Event::Tick), ["launch 0.0"]);
    run.go(12, fail("ImagePullBackOff"));
    assert_eq!((run.waiting(0).unwrap().as_str(), run.machine.wake_at()), ("ImagePullBackOff", Some(at(22))));
    assert_eq!(run.go(22, Event::Tick), ["launch 0.0"]);
    run.go(22, fail("ImagePullBackOff"));
    assert_eq!(run.machine.wake_at(), Some(at(42)));
}

#[test]
fn a_container_that_cannot_be_run_counts_as_failed() {
    let mut run = Run::new(simple("Never"));
    run.go(0, Event::Tick);
    run.go(0, ready());
    let exit = Exit { start_failed: true, ..exit(128, 0, 1) };
    let event = Event::LaunchFailed {
        index: 0,
        reason: "RunContainerError".into(),
        message: "no such file".into(),
        exit: Some(("x".into(), exit)),
    };
    assert_eq!(run.go(1, event), ["event Failed", "teardown"]);
    let terminated = run.machine.slots[0].state.terminated.clone().unwrap();
    assert_eq!((terminated.reason.unwrap().as_str(), terminated.exit_code), ("StartError", 128));
    assert_eq!(phase(&run.machine), "Failed");
}

#[test]
fn a_lost_shim_costs_the_containers_but_not_the_pod() {
    let mut run = Run::new(simple("Always"));
    run.go(0, Event::Tick);
    run.go(0, ready());
    run.go(1, started(0, "a", 1));
    assert_eq!(run.go(5, Event::SandboxLost), ["event SandboxChanged", "teardown"]);
    assert_eq!(run.machine.slots[0].state.terminated.clone().unwrap().exit_code, 137);
    assert_eq!(run.go(6, Event::TornDown), ["sandbox"]);
    assert_eq!(run.go(7, ready()), ["launch 0.1"]);
}

#[test]
fn an_agent_takes_over_what_another_one_started() {
    let spec =
        crate::shim::protocol::ContainerSpec { id: "x".into(), name: "a".into(), attempt: 2, ..Default::default() };
    let record = Record { spec, pid: 9, started_ns: ns(-50), exit: None };
    let mut machine = Machine::new(simple("Always"), &[record], at(0));
    machine.sandbox = Sandbox::Ready { ips: vec!["10.0.0.9".into()] };
    assert!(machine.handle(Event::Tick, at(0)).is_empty(), "it runs already");
    assert_eq!((phase(&machine), machine.slots[0].restarts), ("Running", 2));
    let actions = machine.handle(exited("x", 1, -50, 1), at(1));
    assert_eq!(words(&actions), ["launch 0.3"]);
}

#[test]
fn what_had_ended_before_an_agent_came_is_not_run_again() {
    let record = |name: &str, exit: Option<Exit>| {
        let spec = crate::shim::protocol::ContainerSpec { id: name.into(), name: name.into(), ..Default::default() };
        Record { spec, pid: 9, started_ns: ns(-50), exit }
    };
    let pod =
        pod(r#"{"restartPolicy":"Never","initContainers":[{"name":"i"}],"containers":[{"name":"a"},{"name":"b"}]}"#);
    let records = [record("i", Some(exit(0, -60, -55))), record("a", None), record("b", Some(exit(5, -50, -20)))];
    let mut machine = Machine::new(pod.clone(), &records, at(0));
    machine.sandbox = Sandbox::Ready { ips: vec!["10.0.0.9".into()] };
    assert!(machine.handle(Event::Tick, at(0)).is_empty());
    assert_eq!(words(&machine.handle(exited("a", 0, -50, 1), at(1))), ["teardown"]);
    assert_eq!(phase(&machine), "Failed");
    // With everything ended, nothing is left to be run either.
    let records =
        [record("i", Some(exit(0, -60, -55))), record("a", Some(exit(0, -9, -8))), record("b", Some(exit(0, -9, -8)))];
    let mut machine = Machine::new(pod, &records, at(0));
    machine.sandbox = Sandbox::Ready { ips: vec!["10.0.0.9".into()] };
    assert_eq!(words(&machine.handle(Event::Tick, at(0))), ["teardown"]);
    assert_eq!(phase(&machine), "Succeeded");
}

#[test]
fn a_deadline_ends_a_pod() {
    let mut run = Run::new(pod(r#"{"activeDeadlineSeconds":60,"containers":[{"name":"a"}]}"#));
    run.go(0, Event::Tick);
    run.go(0, ready());
    run.go(1, started(0, "a", 1));
    assert_eq!(run.machine.wake_at(), Some(at(60)));
    assert_eq!(run.go(60, Event::Tick), ["kill a 30"]);
    assert_eq!(run.go(61, exited("a", 0, 1, 61)), ["teardown"]);
    let status = status(&run.machine, "1.1.1.1", at(61));
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}

#[test]
fn a_pod_deleted_before_anything_began_needs_nothing() {
    let pod = simple("Always");
    let mut run = Run::new(deleted(&pod, 30));
    assert_eq!(run.go(0, Event::Tick), ["teardown"]);
    assert_eq!(run.go(1, Event::TornDown), ["delete"]);
}

#[test]
fn a_sandbox_that_fails_is_tried_again() {
    let mut run = Run::new(simple("Always"));
    run.go(0, Event::Tick);
    let failed = Event::SandboxFailed { reason: "FailedCreatePodSandBox", message: "m".into() };
    assert_eq!(run.go(0, failed), ["event FailedCreatePodSandBox"]);
    assert_eq!(run.machine.wake_at(), Some(at(2)));
    assert_eq!(run.go(2, Event::Tick), ["sandbox"]);
}

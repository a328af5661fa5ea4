//! Rollouts played round by round: sets as `name:size/available@revision`, what a round does as its events.
#![allow(clippy::unwrap_used)]

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use serde_json::{Value, json};

use super::conditions::{self, condition};
use super::plan::{Plan, plan};
use super::revision::{desired_annotation, note_replicas, revision};
use super::view::{self, available, size};

/// A cluster with one deployment in which replica sets do at once what they are told, except for becoming
/// available, which the tests say.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: Timestamp,
    old_pods_run: bool,
}

impl World {
    fn new(replicas: i32, strategy: Value) -> Self {
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1,
                "annotations": {"note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"replicas": replicas, "strategy": strategy, "progressDeadlineSeconds": 600,
                "revisionHistoryLimit": 2, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "v1"}]}}},
        }))
        .unwrap();
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        Self { deployment, sets: Vec::new(), now, old_pods_run: false }
    }

    fn rolling(replicas: i32, surge: Value, unavailable: Value) -> Self {
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        Self::new(replicas, json!({"type": "RollingUpdate", "rollingUpdate": rolling}))
    }

    fn image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn replicas(&mut self, replicas: i32) {
        self.deployment.spec.as_mut().unwrap().replicas = Some(replicas);
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    /// Plans and carries out a round; gives the events with hashes replaced by the image.
    fn round(&mut self) -> String {
        self.now += SignedDuration::from_secs(1);
        let plan = plan(&self.deployment, &self.sets, |_| self.old_pods_run, self.now);
        let events = plan.events.join("; ");
        self.carry_out(plan);
        let mut text = events;
        for set in &self.sets {
            text = text.replace(set.metadata.name.as_deref().unwrap(), &image(set));
        }
        text.replace("replica set ", "").replace("Scaled ", "")
    }

    fn carry_out(&mut self, plan: Plan) {
        for set in plan.update {
            let at = self.sets.iter().position(|known| known.metadata.name == set.metadata.name).unwrap();
            self.sets[at] = set;
        }
        if let Some(mut set) = plan.create {
            set.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
            set.metadata.uid.clone_from(&set.metadata.name);
            self.sets.push(set);
        }
        let gone: Vec<_> = plan.delete.iter().map(|set| set.metadata.name.clone()).collect();
        self.sets.retain(|set| !gone.contains(&set.metadata.name));
        if let Some(revision) = plan.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(super::revision::REVISION.to_owned(), revision.to_string());
        }
        self.deployment.status = Some(plan.status);
        for set in &mut self.sets {
            let (size, had) = (size(set), available(set));
            let count = Some(had.min(size));
            let status = ReplicaSetStatus {
                replicas: size,
                available_replicas: count,
                ready_replicas: count,
                ..Default::default()
            };
            set.status = Some(status);
        }
    }

    /// All pods, or those of one image up to a number, become available.
    fn ready(&mut self, most: i32) {
        for set in &mut self.sets {
            let count = size(set).min(most);
            let status = set.status.as_mut().unwrap();
            (status.available_replicas, status.ready_replicas) = (Some(count), Some(count));
        }
    }

    /// Rounds until nothing happens, everything becoming available in between.
    fn settle(&mut self) {
        for _ in 0..50 {
            let events = self.round();
            self.ready(i32::MAX);
            let before = self.deployment.status.clone();
            if events.is_empty() && self.round().is_empty() && self.deployment.status == before {
                return;
            }
        }
        panic!("does not settle: {}", self.show());
    }

    fn show(&self) -> String {
        let line =
            |set: &ReplicaSet| format!("{}:{}/{}@{}", image(set), size(set), available(set), revision(&set.metadata));
        self.sets.iter().map(line).collect::<Vec<_>>().join(" ")
    }

    fn reason(&self, kind: &str) -> String {
        let status = self.deployment.status.clone().unwrap_or_default();
        let found = condition(&status, kind);
        found.map(|found| format!("{} {}", found.status, found.reason.clone().unwrap())).unwrap_or_default()
    }
}

fn image(set: &ReplicaSet) -> String {
    let template = set.spec.as_ref().unwrap().template.clone().unwrap();
    template.spec.unwrap().containers[0].image.clone().unwrap()
}

#[test]
fn creates_its_first_set_with_all_replicas() {
    let mut world = World::rolling(3, json!("25%"), json!("25%"));
    assert_eq!(world.round(), "up v1 from 0 to 3");
    assert_eq!(world.reason("Progressing"), "True NewReplicaSetCreated");
    assert_eq!(world.reason("Available"), "False MinimumReplicasUnavailable");
    let set = &world.sets[0];
    let annotations = set.metadata.annotations.clone().unwrap();
    assert_eq!(annotations["note"], "x");
    assert!(!annotations.contains_key("kubectl.kubernetes.io/last-applied-configuration"));
    assert_eq!(annotations["deployment.kubernetes.io/desired-replicas"], "3");
    assert_eq!(annotations["deployment.kubernetes.io/max-replicas"], "4");
    let hash = set.metadata.labels.clone().unwrap()["pod-template-hash"].clone();
    assert_eq!(set.metadata.name.clone().unwrap(), format!("web-{hash}"));
    assert_eq!(set.spec.clone().unwrap().selector.match_labels.unwrap()["pod-template-hash"], hash);
    world.ready(3);
    assert_eq!(world.round(), "");
    assert_eq!(world.reason("Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(world.reason("Available"), "True MinimumReplicasAvailable");
}

#[test]
fn rolls_within_surge_and_unavailable() {
    let mut world = World::rolling(4, json!(1), json!(1));
    world.settle();
    world.image("v2");
    assert_eq!(world.round(), "up v2 from 0 to 1");
    assert_eq!(world.round(), "down v1 from 4 to 3");
    assert_eq!(world.round(), "up v2 from 1 to 2");
    assert_eq!(world.round(), "", "two of the new are not available: nothing more can go");
    world.ready(i32::MAX);
    assert_eq!(world.round(), "down v1 from 3 to 1");
    assert_eq!(world.round(), "up v2 from 2 to 4");
    world.settle();
    assert_eq!(world.show(), "v1:0/0@1 v2:4/4@2");
    assert_eq!(world.reason("Progressing"), "True NewReplicaSetAvailable");
}

#[test]
fn what_does_not_work_goes_first() {
    let mut world = World::rolling(4, json!(1), json!(0));
    world.settle();
    world.image("bad");
    world.round();
    world.image("v3");
    world.round();
    assert_eq!(world.round(), "down bad from 1 to 0");
    assert_eq!(world.round(), "up v3 from 0 to 1");
    world.settle();
    assert_eq!(world.show(), "v1:0/0@1 bad:0/0@2 v3:4/4@3");
}

#[test]
fn an_old_template_gets_a_new_revision_and_history_is_limited() {
    let mut world = World::rolling(2, json!(1), json!(0));
    for image in ["v1", "v2", "v1", "v3", "v4"] {
        world.image(image);
        world.settle();
    }
    assert_eq!(world.show(), "v1:0/0@3 v3:0/0@4 v4:2/2@5", "of the old ones two are kept");
    let history = &world.sets[0].metadata.annotations.clone().unwrap()["deployment.kubernetes.io/revision-history"];
    assert_eq!(history, "1");
    assert_eq!(revision(&world.deployment.metadata), 5);
}

#[test]
fn recreate_waits_until_the_old_are_gone() {
    let mut world = World::new(2, json!({"type": "Recreate"}));
    world.settle();
    world.image("v2");
    world.old_pods_run = true;
    assert_eq!(world.round(), "down v1 from 2 to 0");
    assert_eq!(world.round(), "");
    world.old_pods_run = false;
    assert_eq!(world.round(), "up v2 from 0 to 2");
}

#[test]
fn scaling_alone_keeps_proportions() {
    let mut world = World::rolling(10, json!(3), json!(2));
    world.settle();
    world.image("v2");
    while !world.round().is_empty() {}
    assert_eq!(world.show(), "v1:8/8@1 v2:5/0@2");
    world.replicas(15);
    assert_eq!(world.round(), "up v1 from 8 to 11; up v2 from 5 to 7");
    assert!(world.sets.iter().all(|set| desired_annotation(set) == Some(15)));
    world.replicas(0);
    assert_eq!(world.round(), "down v1 from 11 to 0; down v2 from 7 to 0");
    world.replicas(2);
    assert_eq!(world.round(), "up v2 from 0 to 2");
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::rolling(2, json!(1), json!(0));
    world.settle();
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    world.image("v2");
    assert_eq!(world.round(), "");
    assert_eq!(world.reason("Progressing"), "Unknown DeploymentPaused");
    world.replicas(3);
    assert_eq!(world.round(), "up v1 from 2 to 3");
    world.deployment.spec.as_mut().unwrap().paused = None;
    assert_eq!(world.round(), "up v2 from 0 to 1");
    assert_eq!(world.reason("Progressing"), "True NewReplicaSetCreated");
}

#[test]
fn a_rollout_that_stands_still_is_called_out() {
    let mut world = World::rolling(2, json!(1), json!(0));
    world.settle();
    world.image("bad");
    while !world.round().is_empty() {}
    let plan_now = plan(&world.deployment, &world.sets, |_| false, world.now);
    assert!(plan_now.again.unwrap().as_secs() >= 590);
    world.now += SignedDuration::from_secs(700);
    world.round();
    assert_eq!(world.reason("Progressing"), "False ProgressDeadlineExceeded");
    assert_eq!(world.reason("Available"), "True MinimumReplicasAvailable");
}

#[test]
fn a_deployment_that_is_being_deleted_only_counts() {
    let mut world = World::rolling(2, json!(1), json!(0));
    world.settle();
    world.image("v2");
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now);
    world.deployment.metadata.deletion_timestamp = Some(now);
    assert_eq!(world.round(), "");
    assert_eq!(world.show(), "v1:2/2@1");
}

#[test]
fn percentages_round_up_for_surge_and_down_for_unavailable() {
    let cases =
        [(3, "25%", "25%", (1, 0)), (4, "25%", "25%", (1, 1)), (10, "0%", "0%", (0, 1)), (0, "25%", "50%", (0, 0))];
    for (replicas, surge, unavailable, want) in cases {
        let world = World::rolling(replicas, json!(surge), json!(unavailable));
        let got = (view::max_surge(&world.deployment), view::max_unavailable(&world.deployment));
        assert_eq!(got, want, "{replicas} {surge} {unavailable}");
    }
}

#[test]
fn hashes_differ_by_template_and_collision() {
    let mut world = World::rolling(1, json!(1), json!(0));
    let template = view::spec(&world.deployment).template.clone();
    let (first, second) = (view::template_hash(&template, 0), view::template_hash(&template, 1));
    world.image("v2");
    let third = view::template_hash(&view::spec(&world.deployment).template, 0);
    assert!(first != second && first != third && first.len() <= 10, "{first} {second} {third}");
    assert!(first.bytes().all(|letter| b"bcdfghjklmnpqrstvwxz2456789".contains(&letter)));
    let mut set = ReplicaSet::default();
    assert!(note_replicas(&mut set, &world.deployment));
    assert!(!note_replicas(&mut set, &world.deployment));
    let status = conditions::calculate(&world.deployment, &[set], None, world.now);
    assert_eq!(status.observed_generation, Some(2));
}

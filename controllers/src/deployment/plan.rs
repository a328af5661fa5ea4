//! What a deployment has to do about its replica sets. Pure: it works on copies and notes what it did to them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::conditions::{self, PROGRESSING, new_condition};
use super::revision::{REVISION, desired_annotation, note_replicas, note_revision, revision};
use super::view::{
    HASH_LABEL, actual, available, desired, is_recreate, max_surge, max_unavailable, progress_deadline, same_template,
    size, spec, sum, template_hash,
};
use crate::pods;

/// What to write.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// A replica set to create.
    pub(super) create: Option<ReplicaSet>,
    /// Replica sets as they should be, where they differ from what they are.
    pub(super) update: Vec<ReplicaSet>,
    /// Replica sets of old revisions that are not needed any more.
    pub(super) delete: Vec<ReplicaSet>,
    /// What to tell about scaling, in order.
    pub(super) events: Vec<String>,
    /// The revision to note on the deployment.
    pub(super) revision: Option<i64>,
    /// The status.
    pub(super) status: DeploymentStatus,
    /// When to look again although nothing happened.
    pub(super) again: Option<Duration>,
}

pub(super) struct Planner<'a> {
    pub(super) deployment: &'a Deployment,
    /// All replica sets of the deployment, oldest first, as planned so far.
    pub(super) sets: Vec<ReplicaSet>,
    /// The name of the set of the present template.
    pub(super) new: Option<String>,
    pub(super) now: Timestamp,
    pub(super) plan: Plan,
}

/// Plans one round. `old_pods_run` tells whether pods of former templates are still there.
pub(super) fn plan(
    deployment: &Deployment,
    sets: &[ReplicaSet],
    old_pods_run: impl Fn(Option<&ReplicaSet>) -> bool,
    now: Timestamp,
) -> Plan {
    let mut sets = sets.to_vec();
    sets.sort_by_key(|set| (created(set), set.metadata.name.clone()));
    let mut deployment = deployment.clone();
    conditions::note_pause(&deployment.clone(), deployment.status.get_or_insert_default(), now);
    let mut planner = Planner { deployment: &deployment, sets, new: None, now, plan: Plan::default() };
    planner.find_new();
    if deployment.metadata.deletion_timestamp.is_some() {
        planner.finish_counts()
    } else if spec(&deployment).paused.unwrap_or(false) || planner.is_scaling() {
        planner.sync_new(false);
        planner.scale();
        if spec(&deployment).paused.unwrap_or(false) {
            planner.clean_up();
        }
        planner.finish_counts()
    } else if is_recreate(&deployment) {
        planner.recreate(old_pods_run)
    } else {
        planner.roll()
    }
}

pub(super) fn created(set: &ReplicaSet) -> Option<Timestamp> {
    set.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

impl Planner<'_> {
    fn find_new(&mut self) {
        let wanted = &spec(self.deployment).template;
        let same = self.sets.iter().find(|set| {
            set.spec.as_ref().and_then(|spec| spec.template.as_ref()).is_some_and(|own| same_template(own, wanted))
        });
        self.new = same.map(|set| pods::name(&set.metadata).to_owned());
    }

    pub(super) fn is_new(&self, set: &ReplicaSet) -> bool {
        self.new.as_deref() == set.metadata.name.as_deref()
    }

    pub(super) fn new_set(&self) -> Option<&ReplicaSet> {
        self.sets.iter().find(|set| self.is_new(set))
    }

    /// The positions of the sets of former templates, oldest first.
    pub(super) fn old(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|at| !self.is_new(&self.sets[*at])).collect()
    }

    pub(super) fn position_of_new(&self) -> Option<usize> {
        self.sets.iter().position(|set| self.is_new(set))
    }

    /// Whether the deployment's size was changed and nothing else: then all sets keep their proportion.
    fn is_scaling(&self) -> bool {
        let active = self.sets.iter().filter(|set| size(set) > 0);
        active.filter_map(desired_annotation).any(|noted| noted != desired(self.deployment))
    }

    /// Brings the set of the present template up to date, or makes it.
    fn sync_new(&mut self, create: bool) {
        let newest = self.old().iter().map(|at| revision(&self.sets[*at].metadata)).max().unwrap_or(0) + 1;
        let deployment = self.deployment;
        match self.position_of_new() {
            Some(at) => {
                let set = &mut self.sets[at];
                note_revision(set, deployment, newest, true);
                if let Some(own) = set.spec.as_mut() {
                    let wanted = spec(deployment).min_ready_seconds.filter(|seconds| *seconds != 0);
                    if own.min_ready_seconds.unwrap_or(0) != wanted.unwrap_or(0) {
                        own.min_ready_seconds = wanted;
                    }
                }
                self.plan.revision = Some(revision(&set.metadata));
                let message = format!("Found new replica set \"{}\"", pods::name(&set.metadata));
                self.note_progress("FoundNewReplicaSet", &message);
            }
            None if create => {
                let set = self.make_new(newest);
                let name = pods::name(&set.metadata).to_owned();
                if size(&set) > 0 {
                    self.plan.events.push(format!("Scaled up replica set {name} from 0 to {}", size(&set)));
                }
                self.plan.revision = Some(newest);
                self.plan.create = Some(set.clone());
                self.sets.push(set);
                self.new = Some(name);
            }
            None => {}
        }
    }

    fn note_progress(&mut self, reason: &str, message: &str) {
        let status = self.deployment.status.clone().unwrap_or_default();
        if progress_deadline(self.deployment).is_some() && conditions::condition(&status, PROGRESSING).is_none() {
            let conditions = self.plan.status.conditions.get_or_insert_default();
            conditions.push(new_condition(PROGRESSING, "True", reason, message, self.now));
        }
    }

    fn make_new(&self, newest: i64) -> ReplicaSet {
        let (deployment, meta) = (self.deployment, &self.deployment.metadata);
        let mut template = spec(deployment).template.clone();
        let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let hash = template_hash(&template, collisions);
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec(deployment).selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", pods::name(meta))),
                namespace: meta.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![OwnerReference {
                    api_version: "apps/v1".to_owned(),
                    kind: "Deployment".to_owned(),
                    name: pods::name(meta).to_owned(),
                    uid: pods::uid(meta).to_owned(),
                    controller: Some(true),
                    block_owner_deletion: Some(true),
                }]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: spec(deployment).min_ready_seconds.filter(|seconds| *seconds != 0),
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let replicas = self.new_size(0);
        if let Some(own) = set.spec.as_mut() {
            own.replicas = Some(replicas);
        }
        note_revision(&mut set, deployment, newest, false);
        set
    }

    /// The size that the set of the present template may have now, if it has `present`.
    fn new_size(&self, present: i32) -> i32 {
        let wanted = desired(self.deployment);
        if is_recreate(self.deployment) {
            return wanted;
        }
        let (total, most) = (sum(&self.sets, size), wanted + max_surge(self.deployment));
        if total >= most { present } else { present + (most - total).min(wanted - present) }
    }

    /// Scales a set and notes it. Tells whether its size changed.
    pub(super) fn resize(&mut self, at: usize, to: i32) -> bool {
        let set = &mut self.sets[at];
        let from = size(set);
        note_replicas(set, self.deployment);
        if from == to {
            return false;
        }
        if let Some(own) = set.spec.as_mut() {
            own.replicas = Some(to);
        }
        let direction = if from < to { "up" } else { "down" };
        let name = pods::name(&set.metadata);
        self.plan.events.push(format!("Scaled {direction} replica set {name} from {from} to {to}"));
        true
    }

    fn roll(mut self) -> Plan {
        self.sync_new(true);
        // One direction a round: what it does must show before the next.
        if self.plan.create.is_none() && !self.grow_new() && !self.shrink_old() {
            self.clean_up_if_complete();
        }
        self.finish_rollout()
    }

    fn grow_new(&mut self) -> bool {
        let Some(at) = self.position_of_new() else { return false };
        let (present, wanted) = (size(&self.sets[at]), desired(self.deployment));
        let target = if present >= wanted { wanted } else { self.new_size(present) };
        present != target && self.resize(at, target)
    }

    /// Takes away from former templates what can be spared: first what does not work anyway.
    fn shrink_old(&mut self) -> bool {
        let old: Vec<usize> = self.old().into_iter().filter(|at| size(&self.sets[*at]) > 0).collect();
        let least = desired(self.deployment) - max_unavailable(self.deployment);
        let new_unavailable = self.new_set().map_or(0, |set| size(set) - available(set));
        let mut spare = sum(&self.sets, size) - least - new_unavailable;
        let mut changed = false;
        if old.is_empty() || spare <= 0 {
            return false;
        }
        for at in &old {
            let broken = (size(&self.sets[*at]) - available(&self.sets[*at])).max(0).min(spare);
            if broken > 0 {
                changed |= self.resize(*at, size(&self.sets[*at]) - broken);
                spare -= broken;
            }
        }
        let mut can_go = sum(&self.sets, available) - least;
        for at in &old {
            let less = size(&self.sets[*at]).min(can_go);
            if less > 0 {
                changed |= self.resize(*at, size(&self.sets[*at]) - less);
                can_go -= less;
            }
        }
        changed
    }

    fn recreate(mut self, old_pods_run: impl Fn(Option<&ReplicaSet>) -> bool) -> Plan {
        self.sync_new(false);
        let old: Vec<usize> = self.old().into_iter().filter(|at| size(&self.sets[*at]) > 0).collect();
        let mut stopped = false;
        for at in old {
            stopped |= self.resize(at, 0);
        }
        let left = self.old().iter().any(|at| actual(&self.sets[*at]) > 0);
        if stopped || left || old_pods_run(self.new_set()) {
            return self.finish_rollout();
        }
        self.sync_new(true);
        if self.plan.create.is_none() {
            if let Some(at) = self.position_of_new().filter(|at| size(&self.sets[*at]) != desired(self.deployment)) {
                self.resize(at, desired(self.deployment));
            }
            self.clean_up_if_complete();
        }
        self.finish_rollout()
    }

    fn clean_up_if_complete(&mut self) {
        let status = self.deployment.status.clone().unwrap_or_default();
        if conditions::is_complete(self.deployment, &status) {
            self.clean_up();
        }
    }

    /// Deletes the oldest sets beyond the history limit that have nothing left.
    fn clean_up(&mut self) {
        let limit = spec(self.deployment).revision_history_limit.unwrap_or(10);
        if limit == i32::MAX {
            return;
        }
        let mut old: Vec<&ReplicaSet> = self.old().into_iter().map(|at| &self.sets[at]).collect();
        old.retain(|set| set.metadata.deletion_timestamp.is_none());
        old.sort_by_key(|set| revision(&set.metadata));
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let observed = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.observed_generation);
        let idle = |set: &&&ReplicaSet| {
            size(set) == 0 && actual(set) == 0 && observed(set).unwrap_or(0) >= set.metadata.generation.unwrap_or(0)
        };
        self.plan.delete = old.iter().take(surplus).filter(idle).map(|set| ReplicaSet::clone(set)).collect();
    }

    fn finish_counts(mut self) -> Plan {
        let early = self.plan.status.conditions.take().unwrap_or_default();
        let mut status = conditions::calculate(self.deployment, &self.sets, self.new_set(), self.now);
        early.into_iter().for_each(|condition| conditions::set(&mut status, condition));
        self.finish(status)
    }

    fn finish_rollout(mut self) -> Plan {
        let early = self.plan.status.conditions.take().unwrap_or_default();
        let mut deployment = self.deployment.clone();
        if let Some(set) = &self.plan.create {
            let message = format!("Created new replica set \"{}\"", pods::name(&set.metadata));
            if progress_deadline(&deployment).is_some() {
                let progress = new_condition(PROGRESSING, "True", "NewReplicaSetCreated", &message, self.now);
                conditions::set(deployment.status.get_or_insert_default(), progress);
            }
        }
        for condition in early {
            conditions::set(deployment.status.get_or_insert_default(), condition);
        }
        let status = conditions::rollout(&deployment, &self.sets, self.new_set(), self.now);
        self.finish(status)
    }

    fn finish(mut self, status: DeploymentStatus) -> Plan {
        let created = self.plan.create.as_ref().and_then(|set| set.metadata.name.clone());
        self.plan.update = self.sets.into_iter().filter(|set| set.metadata.name != created).collect();
        self.plan.again = conditions::next_look(self.deployment, &status, self.now);
        self.plan.status = status;
        let noted = self.deployment.metadata.annotations.as_ref().and_then(|all| all.get(REVISION));
        self.plan.revision = self.plan.revision.filter(|revision| noted != Some(&revision.to_string()));
        self.plan
    }
}

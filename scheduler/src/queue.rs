//! The pods that wait for a node: active, backing off, or waiting for the cluster to change. Pure: the time is
//! passed in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::state::PodInfo;

/// Higher priority first, then who has waited longer.
type Rank = (i32, u64);

enum Place {
    Active(Rank),
    /// Will be active at that time, or sooner if nothing else is to do and it does not wait because of an error.
    BackingOff {
        at: (Instant, u64),
        after_error: bool,
    },
    /// Until the cluster changes, or until that time.
    Unschedulable {
        until: (Instant, u64),
    },
    /// Being bound.
    InFlight,
}

struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    order: u64,
    attempts: u32,
    last_attempt: Option<Instant>,
}

/// How long pods wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    pub(crate) initial: Duration,
    pub(crate) max: Duration,
    pub(crate) unschedulable: Duration,
}

/// The queue. Its size is that of the set of pods that are not bound.
pub(crate) struct Queue {
    waits: Waits,
    entries: HashMap<String, Entry>,
    active: BTreeMap<(std::cmp::Reverse<i32>, u64), String>,
    backing_off: BTreeMap<(Instant, u64), String>,
    unschedulable: BTreeMap<(Instant, u64), String>,
    sequence: u64,
}

impl Queue {
    pub(crate) fn new(waits: Waits) -> Self {
        Self {
            waits,
            entries: HashMap::new(),
            active: BTreeMap::new(),
            backing_off: BTreeMap::new(),
            unschedulable: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Takes a pod that waits as it is now. A known one is tried again at once only if something about it changed
    /// that can matter for scheduling.
    pub(crate) fn put(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&pod.uid) else {
            self.sequence += 1;
            let order = self.sequence;
            let rank = (pod.priority, order);
            let uid = pod.uid.clone();
            let entry = Entry { pod, place: Place::Active(rank), order, attempts: 0, last_attempt: None };
            self.active.insert((std::cmp::Reverse(rank.0), rank.1), uid.clone());
            self.entries.insert(uid, entry);
            return;
        };
        let changed = entry.pod.pod.spec != pod.pod.spec || entry.pod.pod.metadata.labels != pod.pod.metadata.labels;
        let uid = pod.uid.clone();
        entry.pod = pod;
        if changed && matches!(entry.place, Place::Unschedulable { .. }) {
            self.wake(&uid, now);
        }
    }

    /// Forgets a pod: it is bound, or gone.
    pub(crate) fn remove(&mut self, uid: &str) {
        self.take_out(uid);
        self.entries.remove(uid);
    }

    /// The pods known, by uid.
    pub(crate) fn uids(&self) -> impl Iterator<Item = &String> {
        self.entries.keys()
    }

    /// The next pod to find a node for; it then counts as in flight.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.tick(now);
        let uid = match self.active.pop_first() {
            Some((_, uid)) => uid,
            None => self.first_without_error()?,
        };
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::InFlight;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.last_attempt = Some(now);
        Some(entry.pod.clone())
    }

    /// With nothing else to do, a pod that the cluster's change may have made schedulable need not wait.
    fn first_without_error(&mut self) -> Option<String> {
        let waits_for_nothing = |uid: &&String| {
            let place = self.entries.get(*uid).map(|entry| &entry.place);
            matches!(place, Some(Place::BackingOff { after_error: false, .. }))
        };
        let uid = self.backing_off.values().find(waits_for_nothing)?.clone();
        self.take_out(&uid);
        Some(uid)
    }

    /// Puts a pod away for which no node was found, until the cluster changes.
    pub(crate) fn unschedulable(&mut self, uid: &str, now: Instant) {
        self.sequence += 1;
        let until = (now + self.waits.unschedulable, self.sequence);
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.place = Place::Unschedulable { until };
            self.unschedulable.insert(until, uid.to_owned());
        }
    }

    /// Lets a pod wait whose binding failed.
    pub(crate) fn failed(&mut self, uid: &str, now: Instant) {
        self.back_off(uid, now, true);
    }

    /// The pods for which no node was found.
    pub(crate) fn stuck(&self) -> Vec<Arc<PodInfo>> {
        let entries = self.unschedulable.values().filter_map(|uid| self.entries.get(uid));
        entries.map(|entry| entry.pod.clone()).collect()
    }

    /// Tries a pod again for which no node was found: the cluster changed in its favour.
    pub(crate) fn wake(&mut self, uid: &str, now: Instant) {
        if matches!(self.entries.get(uid), Some(Entry { place: Place::Unschedulable { .. }, .. })) {
            self.take_out(uid);
            self.back_off(uid, now, false);
        }
    }

    fn back_off(&mut self, uid: &str, now: Instant, after_error: bool) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let doubled = self.waits.initial.saturating_mul(1 << entry.attempts.saturating_sub(1).min(10));
        let due = entry.last_attempt.map_or(now, |last| last + doubled.min(self.waits.max));
        if due <= now {
            self.activate(uid);
            return;
        }
        self.sequence += 1;
        let at = (due, self.sequence);
        entry.place = Place::BackingOff { at, after_error };
        self.backing_off.insert(at, uid.to_owned());
    }

    fn activate(&mut self, uid: &str) {
        if let Some(entry) = self.entries.get_mut(uid) {
            let rank = (entry.pod.priority, entry.order);
            entry.place = Place::Active(rank);
            self.active.insert((std::cmp::Reverse(rank.0), rank.1), uid.to_owned());
        }
    }

    fn take_out(&mut self, uid: &str) {
        match self.entries.get(uid).map(|entry| &entry.place) {
            Some(Place::Active(rank)) => self.active.remove(&(std::cmp::Reverse(rank.0), rank.1)),
            Some(Place::BackingOff { at, .. }) => self.backing_off.remove(at),
            Some(Place::Unschedulable { until }) => self.unschedulable.remove(until),
            Some(Place::InFlight) | None => None,
        };
    }

    fn tick(&mut self, now: Instant) {
        let mut due = Vec::new();
        for waiting in [&mut self.backing_off, &mut self.unschedulable] {
            while let Some(first) = waiting.first_entry().filter(|first| first.key().0 <= now) {
                due.push(first.remove());
            }
        }
        due.iter().for_each(|uid| self.activate(uid));
    }

    /// When a wait ends next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let first = |waiting: &BTreeMap<(Instant, u64), String>| waiting.first_key_value().map(|((at, _), _)| *at);
        first(&self.backing_off).into_iter().chain(first(&self.unschedulable)).min()
    }
}

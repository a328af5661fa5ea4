//! Histories of a store that is right, made with a seed, and what can be done to them so that they are wrong.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::history::*;
use super::model::{Change, Model};

const KEYS: [&str; 4] = ["/a/1", "/a/2", "/b/1", "/b/2"];

struct Pending {
    operation: Operation,
    done: bool,
}

/// What to simulate.
pub struct Plan {
    /// Steps of all clients together.
    pub steps: usize,
    /// How many clients.
    pub clients: usize,
    /// Whether reads of possibly old state and at former revisions are among them.
    pub old: bool,
    /// Whether watches tell of changes only at the end.
    pub late: bool,
}

struct Simulation {
    random: StdRng,
    plan: Plan,
    now: Micros,
    model: Model,
    log: Vec<(Micros, Vec<Change>)>,
    states: Vec<Model>,
    pending: Vec<Option<Pending>>,
    ghosts: Vec<Txn>,
    history: History,
    values: u64,
}

/// A history of a store that is right.
pub fn history(seed: u64, plan: Plan) -> History {
    let model = Model::new(1);
    let mut simulation = Simulation {
        random: StdRng::seed_from_u64(seed),
        now: 10,
        log: Vec::new(),
        states: vec![model.clone()],
        model,
        pending: (0..plan.clients).map(|_| None).collect(),
        ghosts: Vec::new(),
        history: History { head: Head { seed, base: 1, ..Head::default() }, ..History::default() },
        values: 0,
        plan,
    };
    for _ in 0..simulation.plan.steps {
        simulation.step();
    }
    simulation.end()
}

impl Simulation {
    fn step(&mut self) {
        self.now += self.random.random_range(1..4);
        if !self.ghosts.is_empty() && self.random.random_bool(0.1) {
            let i = self.random.random_range(0..self.ghosts.len());
            let txn = self.ghosts.swap_remove(i);
            self.write(&txn);
        }
        let client = self.random.random_range(0..self.plan.clients);
        let Some(mut pending) = self.pending[client].take() else {
            let operation = Operation {
                id: self.history.operations.len() as u64 * 100 + client as u64,
                client: client as u32,
                member: self.random.random_range(1..4),
                life: 1,
                begun: self.now,
                ended: 0,
                call: self.call(),
                answer: Answer::Done,
            };
            self.pending[client] = Some(Pending { operation, done: false });
            return;
        };
        pending.operation.ended = self.now;
        if pending.done {
            if self.random.random_bool(0.1) {
                pending.operation.answer = Answer::Unknown("lost".into());
            }
            return self.history.operations.push(pending.operation);
        }
        match self.random.random_range(0..20) {
            0 => pending.operation.answer = Answer::Refused("no".into()),
            1 => {
                if let Call::Txn(txn) = &pending.operation.call {
                    self.ghosts.push(txn.clone());
                }
                pending.operation.answer = Answer::Unknown("no quorum".into());
            }
            _ => {
                pending.operation.answer = self.perform(&pending.operation.call.clone());
                pending.done = true;
                self.pending[client] = Some(pending);
                return;
            }
        }
        self.history.operations.push(pending.operation);
    }

    fn key(&mut self) -> String {
        (*KEYS.choose(&mut self.random).unwrap_or(&KEYS[0])).to_owned()
    }

    fn put(&mut self) -> Step {
        self.values += 1;
        Step::Put { key: self.key(), value: self.values.to_string(), expires_at_ms: None }
    }

    fn call(&mut self) -> Call {
        let key = self.key();
        let seen = self.states.choose(&mut self.random).and_then(|m| m.get(&key)).map_or(0, |r| r.modified);
        let now = self.model.get(&key).map_or(0, |r| r.modified);
        let expected = if self.random.random_bool(0.8) { now } else { seen };
        let put = |value: u64| Step::Put { key: key.clone(), value: value.to_string(), expires_at_ms: None };
        self.values += 1;
        let (get, value) = (vec![Step::Get(key.clone())], self.values);
        let local = self.plan.old && self.random.random_bool(0.2);
        let at =
            (self.plan.old && self.random.random_bool(0.2)).then(|| self.random.random_range(1..=self.model.revision));
        match self.random.random_range(0..8) {
            0 | 1 => Call::Range { keys: Keys::Key(key), at, limit: 0, local },
            2 => Call::Range { keys: Keys::Prefix("/a/".into()), at, limit: self.random.random_range(0..2), local },
            3 => {
                Call::Txn(Txn { compares: vec![Compare::Absent(key.clone())], then: vec![put(value)], otherwise: get })
            }
            4 => Call::Txn(Txn {
                compares: vec![Compare::Modified(key.clone(), expected)],
                then: vec![put(value)],
                otherwise: get,
            }),
            5 => Call::Txn(Txn { then: vec![Step::Delete(key)], ..Txn::default() }),
            6 => Call::Txn(Txn {
                compares: vec![Compare::Modified(key.clone(), expected)],
                then: vec![Step::Delete(key)],
                otherwise: get,
            }),
            _ => {
                let first = put(value);
                let second = loop {
                    let step = self.put();
                    if !matches!(&step, Step::Put { key: other, .. } if *other == key) {
                        break step;
                    }
                };
                Call::Txn(Txn { then: vec![first, second], ..Txn::default() })
            }
        }
    }

    fn perform(&mut self, call: &Call) -> Answer {
        match call {
            Call::Range { keys, at: Some(at), limit, .. } => self.states[*at as usize - 1].range(keys, *limit),
            Call::Range { keys, limit, .. } => self.model.range(keys, *limit),
            Call::Txn(txn) => Answer::Txn(self.write(txn)),
            Call::Compact(_) => Answer::Done,
        }
    }

    fn write(&mut self, txn: &Txn) -> TxnAnswer {
        let (answer, changes) = self.model.plan(txn);
        for change in &changes {
            self.model.apply(change);
            self.states.push(self.model.clone());
        }
        if !changes.is_empty() {
            self.log.push((self.now, changes));
        }
        answer
    }

    fn end(mut self) -> History {
        self.now += 100;
        for pending in std::mem::take(&mut self.pending).into_iter().flatten() {
            let answer = Answer::Unknown("the run ended".into());
            self.history.operations.push(Operation { ended: self.now, answer, ..pending.operation });
        }
        self.history.head.last = self.model.revision;
        for (watcher, keys) in [(1, Keys::Prefix("/".into())), (2, Keys::Prefix("/a/".into()))] {
            self.watch(watcher, &keys);
        }
        self.history
    }

    /// A watcher that moves on from time to time.
    fn watch(&mut self, watcher: u32, keys: &Keys) {
        let mut next = 2;
        let mut session = self.session(watcher, keys, next);
        for (at, changes) in self.log.clone() {
            let wanted = changes.iter().filter(|change| keys.contain(&change.key));
            let events = wanted.map(event).collect();
            let revision = changes.last().map_or(0, |change| change.revision);
            let at = if self.plan.late { self.now } else { at };
            session.batches.push(Batch { at, revision, events });
            next = revision + 1;
            if self.random.random_bool(0.1) {
                let other = self.session(watcher, keys, next);
                self.history.sessions.push(std::mem::replace(&mut session, other));
            }
        }
        self.history.sessions.push(session);
    }

    fn session(&mut self, watcher: u32, keys: &Keys, next: Revision) -> Session {
        let member = self.random.random_range(1..4);
        let (keys, start) = (keys.clone(), Some(next));
        Session { watcher, member, life: 1, keys, start, asked: 1, opened: 2, batches: vec![], end: End::Left }
    }
}

/// A change as watchers see it.
fn event(change: &Change) -> Event {
    let kv = match &change.after {
        Some(record) => record.kv(&change.key),
        None => Kv { key: change.key.clone(), value: String::new(), created: 0, modified: change.revision, version: 0 },
    };
    Event { kv, previous: change.before.as_ref().map(|r| r.kv(&change.key)), deleted: change.after.is_none() }
}

fn shift(revision: &mut Revision, random: &mut StdRng) {
    *revision = if random.random_bool(0.5) { *revision + 1 } else { revision.saturating_sub(1).max(1) };
}

/// Makes one answer or one time different. What comes out may still be right.
pub fn mutate(history: &mut History, random: &mut StdRng) {
    let i = random.random_range(0..history.operations.len());
    let end = history.head.last;
    let other = history.operations[random.random_range(0..history.operations.len())].answer.clone();
    let operation = &mut history.operations[i];
    match random.random_range(0..8) {
        0 => operation.begun = (operation.begun + random.random_range(0..30)).min(operation.ended),
        1 => operation.ended = operation.ended.saturating_sub(random.random_range(0..30)).max(operation.begun),
        2 => {
            let by = random.random_range(0..60);
            (operation.begun, operation.ended) = (operation.begun + by, operation.ended + by);
        }
        3 => operation.answer = Answer::Refused("changed".into()),
        4 => operation.answer = Answer::Unknown("changed".into()),
        5 => drop(history.operations.remove(i)),
        6 if std::mem::discriminant(&operation.answer) == std::mem::discriminant(&other) => operation.answer = other,
        _ => match &mut operation.answer {
            Answer::Range { revision, kvs, count, .. } => match random.random_range(0..4) {
                0 => shift(revision, random),
                1 if !kvs.is_empty() => drop(kvs.pop()),
                2 if !kvs.is_empty() => kvs[0].version += 1,
                3 if !kvs.is_empty() => kvs[0].modified = random.random_range(2..=end),
                _ => *count += 1,
            },
            Answer::Txn(answer) => match (random.random_range(0..3), answer.results.first_mut()) {
                (0, _) => shift(&mut answer.revision, random),
                (1, Some(StepResult::Put { revision, .. } | StepResult::Delete { revision, .. })) => {
                    shift(revision, random)
                }
                (2, Some(StepResult::Get(found))) => *found = None,
                _ => answer.succeeded = !answer.succeeded,
            },
            _ => {}
        },
    }
}

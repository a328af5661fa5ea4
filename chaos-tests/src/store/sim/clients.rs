//! Clients of a simulation: each asks one member for a while, then another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::world::{Gone, Phase, World};
use crate::store::history::*;
use crate::store::run::convert::ask;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(4);
/// Before another member is asked, when one does not run.
const PAUSE: Duration = Duration::from_millis(30);
/// Keys in each of the two folders.
const KEYS: u32 = 4;

/// Asks a member, and writes down what came of it; nothing if it did not run.
pub async fn operation(world: &World, client: u32, member: u32, call: Call) -> Option<Answer> {
    let life = world.machine(member, |machine| machine.life).unwrap_or(0);
    let (id, begun, asked) = (world.id(), world.now(), call.clone());
    let answered = world.on(member, |store| async move { ask(&store, &asked).await });
    let lost = |why: &str| match call {
        Call::Range { .. } => Answer::Refused(why.to_owned()),
        Call::Txn(_) | Call::Compact(_) => Answer::Unknown(why.to_owned()),
    };
    let answer = match tokio::time::timeout(PATIENCE, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(Gone::Absent)) => return None,
        Ok(Err(Gone::Lost)) => lost("the member ended"),
        Err(_) => lost("no answer in time"),
    };
    let operation = Operation { id, client, member, life, begun, ended: world.now(), call, answer: answer.clone() };
    world.write(|history| history.operations.push(operation));
    Some(answer)
}

/// What one client knows.
struct Worker {
    number: u32,
    random: StdRng,
    /// Revisions of keys as last seen; 0 for an absent key.
    seen: BTreeMap<String, Revision>,
    newest: Revision,
    values: u64,
    /// The time of day when it asks.
    wall_ms: u64,
}

/// One client, until the simulation is over.
pub async fn client(number: u32, world: Arc<World>) {
    let plan = &world.plan;
    let seed = plan.seed ^ (u64::from(number) << 32);
    let random = StdRng::seed_from_u64(seed);
    let mut worker = Worker { number, random, seen: BTreeMap::new(), newest: 0, values: 0, wall_ms: 0 };
    let (mut member, mut stay) = (number % plan.members + 1, 3);
    while world.phase() < Phase::Over {
        if stay == 0 {
            stay = worker.random.random_range(1..12);
            member = worker.random.random_range(1..=plan.members);
        }
        stay -= 1;
        worker.wall_ms = world.wall_ms();
        let call = worker.call();
        match operation(&world, number, member, call.clone()).await {
            Some(answer) => {
                if matches!(answer, Answer::Refused(_) | Answer::Unknown(_)) {
                    stay = 0;
                }
                worker.learn(&call, &answer);
            }
            None => {
                stay = 0;
                tokio::time::sleep(PAUSE).await;
            }
        }
        let pause = worker.random.random_range(0..=plan.think_ms);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

impl Worker {
    fn learn(&mut self, call: &Call, answer: &Answer) {
        match (call, answer) {
            (Call::Range { keys, at: None, .. }, Answer::Range { revision, kvs, .. }) => {
                self.newest = self.newest.max(*revision);
                if let (Keys::Key(key), true) = (keys, kvs.is_empty()) {
                    self.seen.insert(key.clone(), 0);
                }
                self.seen.extend(kvs.iter().map(|kv| (kv.key.clone(), kv.modified)));
            }
            (Call::Txn(txn), Answer::Txn(answer)) => {
                self.newest = self.newest.max(answer.revision);
                let steps = if answer.succeeded { &txn.then } else { &txn.otherwise };
                for (step, result) in steps.iter().zip(&answer.results) {
                    let (key, revision) = match (step, result) {
                        (Step::Put { key, .. }, StepResult::Put { revision, .. }) => (key, *revision),
                        (Step::Get(key), StepResult::Get(found)) => (key, found.as_ref().map_or(0, |kv| kv.modified)),
                        (Step::Delete(key) | Step::Put { key, .. } | Step::Get(key), _) => (key, 0),
                    };
                    self.seen.insert(key.clone(), revision);
                }
            }
            _ => {}
        }
    }

    fn key(&mut self) -> String {
        let folder = ["a", "b"][self.random.random_range(0..2)];
        format!("/r/{folder}/{}", self.random.random_range(0..KEYS))
    }

    fn put(&mut self, key: String, expires_at_ms: Option<u64>) -> Step {
        self.values += 1;
        let fill = if self.random.random_range(0..12) == 0 { self.random.random_range(0..1500) } else { 0 };
        Step::Put { key, value: format!("{}.{}/{fill}", self.number, self.values), expires_at_ms }
    }

    /// Writes a key if it is as it was last seen.
    fn change(&mut self, key: String) -> Call {
        let known = self.seen.get(&key).copied().unwrap_or(0);
        let (compares, otherwise) = (vec![Compare::Modified(key.clone(), known)], vec![Step::Get(key.clone())]);
        let then = vec![self.put(key, None)];
        Call::Txn(Txn { compares, then, otherwise })
    }

    fn call(&mut self) -> Call {
        let key = self.key();
        let txn = |then| Call::Txn(Txn { then, ..Txn::default() });
        match self.random.random_range(0..40) {
            0..14 => self.read(key, false),
            14 => self.read(key, true),
            15..18 => {
                let compares = vec![Compare::Absent(key.clone())];
                let (then, otherwise) = (vec![self.put(key.clone(), None)], vec![Step::Get(key)]);
                Call::Txn(Txn { compares, then, otherwise })
            }
            18..26 => self.change(key),
            26..28 => txn(vec![Step::Delete(key)]),
            28..31 => self.several(key),
            31 if self.newest > 1 => {
                let at = Some(self.random.random_range(self.newest.saturating_sub(60).max(1)..=self.newest + 1));
                Call::Range { keys: Keys::Prefix("/r/".into()), at, limit: 0, local: false }
            }
            32..34 => {
                let at = self.wall_ms + self.random.random_range(50..3_000);
                let key = format!("/r/a/x{}", self.random.random_range(0..20));
                txn(vec![self.put(key, Some(at))])
            }
            _ => txn(vec![self.put(key, None)]),
        }
    }

    fn read(&mut self, key: String, local: bool) -> Call {
        let keys = match self.random.random_range(0..4) {
            0 => Keys::Prefix("/r/a/".into()),
            1 => Keys::Prefix("/r/".into()),
            _ => Keys::Key(key),
        };
        let limit = if self.random.random_range(0..5) == 0 { 3 } else { 0 };
        Call::Range { keys, at: None, limit, local }
    }

    /// A transaction of several keys, in both folders.
    fn several(&mut self, first: String) -> Call {
        let mut keys = vec![first];
        for _ in 0..2 {
            let key = self.key();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let known = self.seen.get(&keys[0]).copied().filter(|_| self.random.random_bool(0.6));
        let compares = known.map(|known| Compare::Modified(keys[0].clone(), known)).into_iter().collect();
        let first = match self.random.random_bool(0.3) {
            true => Step::Delete(keys[0].clone()),
            false => self.put(keys[0].clone(), None),
        };
        let mut then = vec![first];
        for key in &keys[1..] {
            then.push(self.put(key.clone(), None));
        }
        Call::Txn(Txn { compares, then, otherwise: keys.into_iter().map(Step::Get).collect() })
    }
}

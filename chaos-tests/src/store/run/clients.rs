//! Clients that read and write the same few keys at the same time, through every member.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_raftstore::port::Client;

use super::convert::ask;
use super::group::Group;
use super::recorder::Recorder;
use crate::store::history::*;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Requests before a client moves on to another member.
const STAY: std::ops::Range<u32> = 5..40;

/// What clients do.
#[derive(Clone, Debug)]
pub struct Load {
    /// How many clients.
    pub clients: u32,
    /// Keys under each of the two prefixes.
    pub keys: u32,
    /// Longest pause between two requests, in milliseconds.
    pub think_ms: u64,
    /// Of a hundred requests, how many write keys that expire.
    pub expiring: u32,
    /// Of a hundred requests, how many are linearizable reads.
    pub reads: u32,
    /// The members that are asked; all of them if none is named.
    pub through: Vec<u32>,
}

impl Default for Load {
    fn default() -> Load {
        Load { clients: 8, keys: 5, think_ms: 12, expiring: 4, reads: 36, through: vec![] }
    }
}

/// Connections of one client, made when they are needed.
struct Links {
    group: Arc<Group>,
    open: HashMap<u32, (Client, u32)>,
}

impl Links {
    /// A connection, and the life of the member at its other end.
    async fn get(&mut self, member: u32) -> Option<(Client, u32)> {
        if let Some(link) = self.open.get(&member) {
            return Some(link.clone());
        }
        let life = self.group.life(member);
        let client = self.group.connect(member).await.ok()?;
        self.open.insert(member, (client.clone(), life));
        Some((client, life))
    }
}

/// What one client knows.
struct Worker {
    number: u32,
    load: Load,
    random: StdRng,
    recorder: Arc<Recorder>,
    links: Links,
    /// Revisions of keys as last seen; 0 for an absent key.
    seen: HashMap<String, Revision>,
    /// Newest revision that it was told of.
    newest: Revision,
    values: u64,
}

/// One client, until the run is over.
pub async fn client(number: u32, load: Load, seed: u64, group: Arc<Group>, recorder: Arc<Recorder>) {
    let members = if load.through.is_empty() { (1..=group.members()).collect() } else { load.through.clone() };
    let mut worker = Worker {
        number,
        random: StdRng::seed_from_u64(seed ^ (u64::from(number) << 32)),
        recorder,
        links: Links { group, open: HashMap::new() },
        seen: HashMap::new(),
        newest: 0,
        values: 0,
        load,
    };
    let (mut member, mut stay) = (members[number as usize % members.len()], 0);
    while !worker.recorder.is_over() {
        if stay == 0 {
            stay = worker.random.random_range(STAY);
            member = members[worker.random.random_range(0..members.len())];
        }
        stay -= 1;
        if !worker.request(member).await {
            stay = 0;
        }
        let pause = worker.random.random_range(0..=worker.load.think_ms);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

impl Worker {
    /// One request; whether the member is worth another one.
    async fn request(&mut self, member: u32) -> bool {
        let call = self.call();
        let Some((client, life)) = self.links.get(member).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return false;
        };
        let begun = self.recorder.now();
        let writes = matches!(call, Call::Txn(_) | Call::Compact(_));
        let answered = tokio::time::timeout(PATIENCE, ask(&client, &call)).await;
        let answer = answered.unwrap_or_else(|_| match writes {
            true => Answer::Unknown("no answer in time".to_owned()),
            false => Answer::Refused("no answer in time".to_owned()),
        });
        let good = !matches!(answer, Answer::Refused(_) | Answer::Unknown(_));
        self.learn(&call, &answer);
        if !good {
            self.links.open.remove(&member);
        }
        let (id, client, ended) = (self.recorder.id(), self.number, self.recorder.now());
        self.recorder.operation(Operation { id, client, member, life, begun, ended, call, answer });
        good
    }

    fn learn(&mut self, call: &Call, answer: &Answer) {
        let mut note = |key: &str, revision: Revision| {
            self.seen.insert(key.to_owned(), revision);
        };
        match (call, answer) {
            (Call::Range { keys, at: None, .. }, Answer::Range { revision, kvs, .. }) => {
                self.newest = self.newest.max(*revision);
                if let (Keys::Key(key), true) = (keys, kvs.is_empty()) {
                    note(key, 0);
                }
                kvs.iter().for_each(|kv| note(&kv.key, kv.modified));
            }
            (Call::Txn(txn), Answer::Txn(answer)) => {
                self.newest = self.newest.max(answer.revision);
                let steps = if answer.succeeded { &txn.then } else { &txn.otherwise };
                for (step, result) in steps.iter().zip(&answer.results) {
                    match (step, result) {
                        (Step::Put { key, .. }, StepResult::Put { revision, .. }) => note(key, *revision),
                        (Step::Delete(key), _) => note(key, 0),
                        (Step::Get(key), StepResult::Get(found)) => {
                            note(key, found.as_ref().map_or(0, |kv| kv.modified));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn key(&mut self) -> String {
        let folder = ["a", "b"][self.random.random_range(0..2)];
        format!("/r/{folder}/{}", self.random.random_range(0..self.load.keys))
    }

    fn put(&mut self, key: String) -> Step {
        self.values += 1;
        let fill = if self.random.random_range(0..10) == 0 { self.random.random_range(0..3000) } else { 20 };
        let value = format!("{}.{}/{fill}", self.number, self.values);
        Step::Put { key, value, expires_at_ms: None }
    }

    /// Keys that expire are many, so that they have the time to.
    fn expiring(&mut self) -> Call {
        let key = format!("/r/a/x{}", self.random.random_range(0..self.load.keys * 8));
        let mut put = self.put(key);
        if let Step::Put { expires_at_ms, .. } = &mut put {
            *expires_at_ms = Some(self.recorder.wall_ms() + self.random.random_range(100..1500));
        }
        Call::Txn(Txn { then: vec![put], ..Txn::default() })
    }

    fn call(&mut self) -> Call {
        if self.random.random_range(0..100) < self.load.expiring {
            return self.expiring();
        }
        if self.random.random_range(0..100) < self.load.reads {
            return self.read(false);
        }
        let key = self.key();
        let known = self.seen.get(&key).copied().unwrap_or(0);
        let otherwise = vec![Step::Get(key.clone())];
        match self.random.random_range(0..20) {
            0..3 => {
                let then = vec![self.put(key.clone())];
                Call::Txn(Txn { compares: vec![Compare::Absent(key)], then, otherwise })
            }
            3..9 => {
                let then = vec![self.put(key.clone())];
                Call::Txn(Txn { compares: vec![Compare::Modified(key, known)], then, otherwise })
            }
            9 => Call::Txn(Txn { then: vec![Step::Delete(key)], ..Txn::default() }),
            10..12 if known > 0 => {
                let then = vec![Step::Delete(key.clone())];
                Call::Txn(Txn { compares: vec![Compare::Modified(key, known)], then, otherwise })
            }
            12..15 => self.several(key),
            15 => self.read(true),
            16 if self.newest > 1 => {
                let at = Some(self.random.random_range(self.newest.saturating_sub(200).max(1)..=self.newest + 1));
                Call::Range { keys: Keys::Prefix("/r/".into()), at, limit: 0, local: false }
            }
            _ => Call::Txn(Txn { then: vec![self.put(key)], ..Txn::default() }),
        }
    }

    fn read(&mut self, local: bool) -> Call {
        let keys = match self.random.random_range(0..4) {
            0 => Keys::Prefix("/r/a/".into()),
            1 => Keys::Prefix("/r/".into()),
            _ => Keys::Key(self.key()),
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
        let compares = match self.seen.get(&keys[0]) {
            Some(known) if self.random.random_bool(0.7) => vec![Compare::Modified(keys[0].clone(), *known)],
            _ => vec![],
        };
        let mut then: Vec<Step> = keys.iter().skip(1).map(|key| self.put(key.clone())).collect();
        then.insert(
            0,
            if self.random.random_bool(0.3) { Step::Delete(keys[0].clone()) } else { self.put(keys[0].clone()) },
        );
        let otherwise = keys.into_iter().map(Step::Get).collect();
        Call::Txn(Txn { compares, then, otherwise })
    }
}

//! The exact checker. Every answer carries a revision, so the order of all writes is known: the sequence is built again
//! revision by revision, writes of unknown outcome are placed by what others saw of them, and every answer is compared
//! with the state at its revision. What remains is time: who began after another was answered must not see less.
//!
//! It is exact if somebody watched all keys: then nothing that happened is hidden.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::evidence::{Evidence, Findings, Source, writers};
use super::history::*;
use super::model::{Change, Model};

/// A member, and how often it had been started.
type Life = (u32, u32);

/// One revision in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What it changed; none if nobody can tell.
    pub change: Option<Change>,
    /// The operation that did it; none for an expiry and for what nobody accounts for.
    pub operation: Option<usize>,
    /// Whether it is the last one of its transaction, if that is known.
    pub last: Option<bool>,
}

/// All revisions in order.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// Revision of the empty store.
    pub base: Revision,
    /// What came after it.
    pub placed: Vec<Placed>,
}

impl Sequence {
    /// What took a revision.
    pub fn get(&self, revision: Revision) -> Option<&Placed> {
        let i = revision.checked_sub(self.base + 1)?;
        self.placed.get(usize::try_from(i).ok()?)
    }

    /// The newest revision.
    pub fn last(&self) -> Revision {
        self.base + self.placed.len() as u64
    }

    /// Whether a list or a batch of events may end here.
    pub fn is_boundary(&self, revision: Revision) -> bool {
        self.get(revision).is_none_or(|placed| placed.last != Some(false))
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// What does not hold.
    pub findings: Findings,
    /// The order of all writes.
    pub sequence: Sequence,
    /// For each revision after the base: the latest beginning of a write up to it. Nobody can know it sooner.
    pub earliest: Vec<(Micros, Option<usize>)>,
    /// What was checked, by kind.
    pub counts: Counts,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Revisions.
    pub revisions: usize,
    /// Answers compared with the state.
    pub answers: usize,
    /// Writes of unknown outcome that turned out to have been done.
    pub done: usize,
    /// Writes of unknown outcome that nothing was seen of.
    pub not_done: usize,
    /// Keys that expired.
    pub expired: usize,
}

/// Judges a history.
pub fn check(history: &History) -> Judgement {
    let mut sweep = Sweep::new(history);
    sweep.run();
    sweep.without_place();
    sweep.real_time();
    sweep.compactions();
    sweep.counts.revisions = sweep.sequence.placed.len();
    let unknown = history.operations.iter().enumerate().filter(|(_, o)| is_unknown_write(o));
    sweep.counts.not_done = unknown.filter(|(i, _)| !sweep.used.contains_key(i)).count();
    Judgement { findings: sweep.findings, sequence: sweep.sequence, earliest: sweep.earliest, counts: sweep.counts }
}

fn is_unknown_write(operation: &Operation) -> bool {
    matches!((&operation.call, &operation.answer), (Call::Txn(_), Answer::Unknown(_)))
}

struct Sweep<'a> {
    history: &'a History,
    evidence: Evidence,
    findings: Findings,
    model: Model,
    sequence: Sequence,
    counts: Counts,
    earliest: Vec<(Micros, Option<usize>)>,
    first_known: Vec<Micros>,
    /// Who wrote a value.
    writers: HashMap<&'a str, usize>,
    /// Writes of unknown outcome, those aside that are told by a value.
    unknown: Vec<usize>,
    /// Those of them that delete a key.
    deletes: HashMap<&'a str, Vec<usize>>,
    /// Operations that have their place, and the first revision of it.
    used: HashMap<usize, Revision>,
    /// Answers by the revision of the state that they have to agree with.
    answers: BTreeMap<Revision, Vec<usize>>,
}

impl<'a> Sweep<'a> {
    fn new(history: &'a History) -> Self {
        let mut evidence = Evidence::of(history);
        let mut findings = std::mem::take(&mut evidence.findings);
        let (writers, twice) = writers(history);
        for value in twice {
            findings.add("history", || format!("value {value:?} is written by two operations, which cannot be judged"));
        }
        let mut sweep = Sweep {
            history,
            findings,
            model: Model::new(history.head.base),
            sequence: Sequence { base: history.head.base, placed: Vec::new() },
            counts: Counts::default(),
            earliest: Vec::new(),
            first_known: evidence.first_known(history.head.base),
            writers,
            unknown: Vec::new(),
            deletes: HashMap::new(),
            used: HashMap::new(),
            answers: BTreeMap::new(),
            evidence,
        };
        for (i, operation) in history.operations.iter().enumerate() {
            sweep.sort(i, operation);
        }
        sweep
    }

    /// Puts an operation where it will be needed.
    fn sort(&mut self, i: usize, operation: &'a Operation) {
        match (&operation.call, &operation.answer) {
            (Call::Range { .. }, Answer::Range { revision, .. }) => self.answers.entry(*revision).or_default().push(i),
            (Call::Txn(_), Answer::Txn(answer)) if answer.taken().is_empty() => {
                self.answers.entry(answer.revision).or_default().push(i);
            }
            (Call::Txn(txn), Answer::Unknown(_)) => {
                self.unknown.push(i);
                let mut keys = HashSet::new();
                for step in txn.then.iter().chain(&txn.otherwise) {
                    if let Step::Delete(key) = step
                        && keys.insert(key)
                    {
                        self.deletes.entry(key).or_default().push(i);
                    }
                }
            }
            _ => {}
        }
    }

    fn run(&mut self) {
        self.compare(self.model.revision, true);
        while self.model.revision < self.evidence.last {
            for placed in self.next(self.model.revision + 1) {
                match &placed.change {
                    Some(change) => self.model.apply(change),
                    None => self.model.revision += 1,
                }
                let own = placed.operation.map(|i| (self.history.operations[i].begun, Some(i)));
                let before = self.earliest.last().copied().unwrap_or_default();
                self.earliest.push(own.unwrap_or_default().max(before));
                let boundary = placed.last != Some(false);
                self.sequence.placed.push(placed);
                self.compare(self.model.revision, boundary);
            }
        }
    }

    /// Every answer has to have had its place.
    fn without_place(&mut self) {
        let history = self.history;
        for i in std::mem::take(&mut self.answers).into_values().flatten() {
            let operation = &history.operations[i];
            self.findings.add("state", || format!("{operation} is of a revision that the store never had"));
        }
        for (i, operation) in history.operations.iter().enumerate() {
            if let Answer::Txn(answer) = &operation.answer
                && !answer.taken().is_empty()
                && !self.used.contains_key(&i)
            {
                self.findings.add("state", || format!("{operation} has no place in the order of all writes"));
            }
        }
    }

    /// What takes the next revision, together with the rest of its transaction.
    fn next(&mut self, next: Revision) -> Vec<Placed> {
        if let Some(i) = self.evidence.claims.get(&next).copied() {
            return self.acknowledged(i, next);
        }
        let why = match self.place(next) {
            Ok((i, changes)) => {
                self.counts.done += 1;
                self.used.insert(i, next);
                return placed(i, changes);
            }
            Err(why) => why,
        };
        if let Some(change) = self.expiry(next) {
            self.counts.expired += 1;
            return vec![Placed { change: Some(change), operation: None, last: None }];
        }
        self.findings.add("unaccounted", || format!("revision {next}: {why}"));
        vec![self.forced(next, None)]
    }

    /// A transaction that was told to have taken this revision.
    fn acknowledged(&mut self, i: usize, next: Revision) -> Vec<Placed> {
        let operation = &self.history.operations[i];
        let (Call::Txn(txn), Answer::Txn(answer)) = (&operation.call, &operation.answer) else {
            return vec![self.forced(next, Some(i))];
        };
        self.used.insert(i, next);
        self.counts.answers += 1;
        let (expected, changes) = self.model.plan(txn);
        if expected == *answer && !changes.is_empty() {
            return placed(i, changes);
        }
        let at = next - 1;
        self.findings
            .add("state", || format!("{operation} had to be {} on the state at revision {at}", Answer::Txn(expected)));
        let rest = answer.taken().into_iter().skip_while(|r| *r < next).enumerate();
        let mine = rest.take_while(|(k, r)| *r == next + *k as u64 && self.evidence.claims.get(r) == Some(&i));
        let count = mine.count().max(1);
        // One after another, since each change builds on the one before.
        let mut model = self.model.clone();
        let mut forced = Vec::new();
        for k in 0..count {
            std::mem::swap(&mut model, &mut self.model);
            let mut one = self.forced(next + k as u64, Some(i));
            std::mem::swap(&mut model, &mut self.model);
            one.last = Some(k + 1 == count);
            match &one.change {
                Some(change) => model.apply(change),
                None => model.revision += 1,
            }
            forced.push(one);
        }
        forced
    }

    /// What others tell of a revision that fits nowhere: the check goes on from there.
    fn forced(&self, revision: Revision, operation: Option<usize>) -> Placed {
        let change = self.evidence.facts.get(&revision).map(|fact| {
            let put = fact.value.as_deref().map(|value| (value, None));
            let mut change = self.model.change(&fact.key, put);
            change.revision = revision;
            change
        });
        Placed { change, operation, last: None }
    }

    /// The write of unknown outcome that did this, or why there is none.
    fn place(&mut self, next: Revision) -> Result<(usize, Vec<Change>), String> {
        let fact = self.evidence.facts.get(&next).cloned();
        let candidates = match &fact {
            None => self.unknown.clone(),
            Some(fact) => match &fact.value {
                Some(value) => self.writers.get(value.as_str()).into_iter().copied().collect(),
                None => self.deletes.get(fact.key.as_str()).cloned().unwrap_or_default(),
            },
        };
        let mut found: Option<(usize, Vec<Change>)> = None;
        let mut why = None;
        for i in candidates {
            match self.fits(i, next) {
                // The stricter its conditions, the less a write will fit elsewhere.
                Ok(changes) => {
                    let strict = |i: usize| match &self.history.operations[i].call {
                        Call::Txn(txn) => txn.compares.len(),
                        _ => 0,
                    };
                    if found.as_ref().is_none_or(|(other, _)| strict(i) > strict(*other)) {
                        found = Some((i, changes));
                    }
                }
                Err(reason) if fact.is_some() => why = Some(reason),
                Err(_) => {}
            }
        }
        found.ok_or_else(|| match (fact, why) {
            (None, _) => "no acknowledged write took it and nobody saw what it did".to_owned(),
            (Some(fact), why) => {
                let what = match &fact.value {
                    Some(value) => format!("the write of {}={value:?}", fact.key),
                    None => format!("the deletion of {}", fact.key),
                };
                let expires = self.model.get(&fact.key).and_then(|record| record.expires_at_ms);
                let why = why.unwrap_or_else(|| match (&fact.value, expires) {
                    (None, Some(at)) => format!("it was to expire at {at} ms, which was later"),
                    _ => "no write of unknown outcome can have done it".to_owned(),
                });
                format!("{what}, as seen by {}: {why}", fact.source.tell(self.history))
            }
        })
    }

    /// Whether a write can have taken effect from this revision on; what it changed then.
    fn fits(&mut self, i: usize, next: Revision) -> Result<Vec<Change>, String> {
        let operation = &self.history.operations[i];
        let Call::Txn(txn) = &operation.call else { return Err(format!("{operation} is no write")) };
        if let Some(before) = self.used.get(&i) {
            return Err(format!("{operation} had its effect at revision {before} already"));
        }
        if !is_unknown_write(operation) {
            return Err(format!("{operation} was told something else"));
        }
        if let Some(floor) = self.evidence.floor(operation.begun).filter(|floor| floor.revision >= next) {
            let known = floor.source.tell(self.history);
            return Err(format!("{operation} began only after revision {} was known to {known}", floor.revision));
        }
        let (_, changes) = self.model.plan(txn);
        let agrees = |change: &Change| {
            let fact = self.evidence.facts.get(&change.revision);
            let value = change.after.as_ref().map(|record| &record.value);
            !self.evidence.claims.contains_key(&change.revision)
                && fact.is_none_or(|fact| fact.key == change.key && fact.value.as_ref() == value)
        };
        if changes.is_empty() || !changes.iter().all(agrees) {
            return Err(format!("{operation} would have done something else on the state at revision {}", next - 1));
        }
        Ok(changes)
    }

    /// Whether the store itself can have removed an expired key.
    fn expiry(&self, next: Revision) -> Option<Change> {
        let fact = self.evidence.facts.get(&next).filter(|fact| fact.value.is_none())?;
        let expires_at_ms = self.model.get(&fact.key)?.expires_at_ms?;
        let known = self.first_known.get((next - self.history.head.base) as usize)?;
        // It was removed before it was seen to be removed.
        let over = expires_at_ms <= self.history.head.epoch_ms + known / 1000 + 1;
        over.then(|| self.model.change(&fact.key, None))
    }

    /// Compares answers with the state that is reached.
    fn compare(&mut self, revision: Revision, boundary: bool) {
        for i in self.answers.remove(&revision).unwrap_or_default() {
            self.counts.answers += 1;
            let operation = &self.history.operations[i];
            let (expected, whole) = match &operation.call {
                Call::Range { keys, at, limit, .. } => (self.model.range(keys, *limit), at.is_none()),
                Call::Txn(txn) => (Answer::Txn(self.model.plan(txn).0), true),
                Call::Compact(_) => continue,
            };
            if expected != operation.answer {
                self.findings.add("state", || format!("{operation} had to be: {expected}"));
            } else if whole && !boundary {
                self.findings.add("atomic", || format!("{operation} sees only a part of a transaction"));
            }
        }
    }

    /// Who began after another one was answered must not see less, and nobody sees what is not asked for yet.
    fn real_time(&mut self) {
        let history = self.history;
        let mut lives: HashMap<Life, Vec<(Micros, Revision, usize)>> = HashMap::new();
        for (i, operation) in history.operations.iter().enumerate() {
            let (position, strict) = match (&operation.call, &operation.answer) {
                (Call::Range { at: None, local: true, .. }, Answer::Range { revision, .. }) => {
                    let life = lives.entry((operation.member, operation.life)).or_default();
                    life.push((operation.ended, *revision, i));
                    continue;
                }
                (Call::Range { at: None, .. }, Answer::Range { revision, .. }) => (*revision, false),
                (Call::Range { local: false, .. }, Answer::Future { current, .. }) => (*current, false),
                (Call::Txn(_), Answer::Txn(answer)) => match answer.taken().first() {
                    Some(first) => (*first, true),
                    None => (answer.revision, false),
                },
                _ => continue,
            };
            let Some(floor) = self.evidence.floor(operation.begun) else { continue };
            if position < floor.revision || (strict && position == floor.revision) {
                let (revision, known) = (floor.revision, floor.source.tell(history));
                self.findings.add("stale", || {
                    format!("{operation} began after revision {revision} was known to {known}, but comes before it")
                });
            }
        }
        for reads in lives.into_values() {
            self.one_way(reads);
        }
        for sighting in &self.evidence.sightings {
            let Some(i) = sighting.revision.checked_sub(history.head.base + 1) else { continue };
            let Some((begun, Some(write))) = self.earliest.get(i as usize).copied() else { continue };
            if sighting.at < begun {
                let (write, known) = (&history.operations[write], sighting.source.tell(history));
                self.findings.add("future", || format!("{write} was seen, before it began, by {known}"));
            }
        }
    }

    /// Possibly old reads of one life of a member do not go back.
    fn one_way(&mut self, mut reads: Vec<(Micros, Revision, usize)>) {
        reads.sort_unstable();
        let mut highest: Vec<(Micros, Revision, usize)> = Vec::new();
        for read in &reads {
            if highest.last().is_none_or(|(_, revision, _)| *revision < read.1) {
                highest.push(*read);
            }
        }
        for (_, revision, i) in &reads {
            let operation = &self.history.operations[*i];
            let before = highest.partition_point(|(ended, _, _)| *ended < operation.begun);
            if let Some((_, known, other)) = before.checked_sub(1).map(|k| highest[k])
                && known > *revision
            {
                let other = &self.history.operations[other];
                self.findings.add("backwards", || format!("{operation} is older than {other} of the same member"));
            }
        }
    }

    /// "Compacted" is said only of what somebody asked to be compacted.
    fn compactions(&mut self) {
        let asked = self.history.operations.iter().filter_map(|o| match &o.call {
            Call::Compact(revision) if !matches!(o.answer, Answer::Refused(_)) => Some((o.begun, *revision)),
            _ => None,
        });
        let asked: Vec<(Micros, Revision)> = asked.collect();
        let mut told = Vec::new();
        for (i, operation) in self.history.operations.iter().enumerate() {
            match operation.answer {
                Answer::Compacted { requested, compacted } => {
                    let same = matches!(operation.call, Call::Compact(_));
                    told.push((operation.ended, requested, compacted, same, Source::Operation(i)));
                }
                Answer::Future { requested, current } if requested <= current => {
                    self.findings.add("answer", || format!("{operation} calls a revision a future one that is not"));
                }
                _ => {}
            }
        }
        for (i, session) in self.history.sessions.iter().enumerate() {
            if let End::Compacted { requested, compacted } = session.end {
                let at = Micros::MAX;
                told.push((at, requested, compacted, false, Source::Session(i)));
            }
        }
        for (at, requested, compacted, same, source) in told {
            let below = requested < compacted || (same && requested == compacted);
            if !below || !asked.iter().any(|(begun, revision)| *begun <= at && *revision >= compacted) {
                let source = source.tell(self.history);
                self.findings.add("compacted", || {
                    format!(
                        "revision {requested} was called compacted (up to {compacted}), without reason, to {source}"
                    )
                });
            }
        }
    }
}

fn placed(i: usize, changes: Vec<Change>) -> Vec<Placed> {
    let last = changes.len().saturating_sub(1);
    let place = |(k, change)| Placed { change: Some(change), operation: Some(i), last: Some(k == last) };
    changes.into_iter().enumerate().map(place).collect()
}

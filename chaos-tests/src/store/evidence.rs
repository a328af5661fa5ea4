//! What a history tells of each revision: who says to have written it, what others saw of it, and from when on it was
//! known.

use std::collections::{BTreeMap, HashMap};

use super::history::*;

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule that is broken, in a word or two.
    pub rule: &'static str,
    /// A sentence with the operations involved.
    pub what: String,
}

/// At most so many findings are kept: one fault shows itself in many places.
const KEPT: usize = 40;

/// Findings, of which the first are kept and all are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The first ones.
    pub kept: Vec<Finding>,
    /// How many there were.
    pub count: usize,
}

impl Findings {
    /// Notes one.
    pub fn add(&mut self, rule: &'static str, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.kept.len() < KEPT {
            self.kept.push(Finding { rule, what: what() });
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes over others.
    pub fn extend(&mut self, others: Findings) {
        self.count += others.count;
        self.kept.extend(others.kept);
        self.kept.truncate(2 * KEPT);
    }

    /// In lines for people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.kept.iter().map(|f| format!("{}: {}", f.rule, f.what)).collect();
        if self.count > self.kept.len() {
            lines.push(format!("… and {} more", self.count - self.kept.len()));
        }
        lines
    }
}

/// Who tells something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operation at this place of the history.
    Operation(usize),
    /// The watch at this place.
    Session(usize),
}

impl Source {
    /// In words.
    pub fn tell(self, history: &History) -> String {
        match self {
            Source::Operation(i) => history.operations[i].to_string(),
            Source::Session(i) => history.sessions[i].to_string(),
        }
    }
}

/// What is told of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The key that it changed.
    pub key: String,
    /// The value that it wrote; none for a deletion.
    pub value: Option<String>,
    /// Who tells.
    pub source: Source,
}

impl Fact {
    fn tell(&self) -> String {
        match &self.value {
            Some(value) => format!("{}={value:?}", self.key),
            None => format!("deletion of {}", self.key),
        }
    }
}

/// When a revision was known to somebody.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// When.
    pub at: Micros,
    /// The store had reached at least this revision.
    pub revision: Revision,
    /// Who knew.
    pub source: Source,
}

/// All that is told.
#[derive(Debug, Default)]
pub struct Evidence {
    /// What each revision did, as far as anybody tells.
    pub facts: BTreeMap<Revision, Fact>,
    /// The transaction that was told to have taken a revision.
    pub claims: BTreeMap<Revision, usize>,
    /// In order of time; only those that are higher than all before.
    pub floors: Vec<Sighting>,
    /// All of them.
    pub sightings: Vec<Sighting>,
    /// Contradictions among what is told.
    pub findings: Findings,
    /// The highest revision of all.
    pub last: Revision,
}

/// The steps of the branch that was taken.
pub fn branch(txn: &Txn, succeeded: bool) -> &[Step] {
    if succeeded { &txn.then } else { &txn.otherwise }
}

impl Evidence {
    /// Collects it.
    pub fn of(history: &History) -> Evidence {
        let mut evidence = Evidence { last: history.head.base, ..Evidence::default() };
        for (i, operation) in history.operations.iter().enumerate() {
            evidence.operation(history, i, operation);
        }
        for (i, session) in history.sessions.iter().enumerate() {
            for batch in &session.batches {
                evidence.sighting(batch.at, batch.revision, Source::Session(i));
                for event in &batch.events {
                    let value = (!event.deleted).then(|| event.kv.value.clone());
                    evidence.fact(history, event.kv.modified, &event.kv.key, value, Source::Session(i));
                }
            }
        }
        evidence.last = evidence.facts.keys().last().copied().unwrap_or(0).max(evidence.last);
        evidence.bound(history);
        let mut sorted = evidence.sightings.clone();
        sorted.sort_by_key(|s| s.at);
        for sighting in sorted {
            if evidence.floors.last().is_none_or(|floor| floor.revision < sighting.revision) {
                evidence.floors.push(sighting);
            }
        }
        evidence
    }

    /// More revisions than all writes together can take are not even looked at.
    fn bound(&mut self, history: &History) {
        let steps = history.operations.iter().filter_map(|operation| match &operation.call {
            Call::Txn(txn) => Some(txn.then.len().max(txn.otherwise.len()) as u64),
            _ => None,
        });
        // A key that was written can also expire.
        let bound = history.head.base + 2 * steps.sum::<u64>();
        if self.last > bound {
            let last = self.last;
            self.findings
                .add("unaccounted", || format!("revision {last} is beyond what all writes together can reach"));
            self.last = bound;
        }
    }

    fn operation(&mut self, history: &History, i: usize, operation: &Operation) {
        let source = Source::Operation(i);
        match (&operation.call, &operation.answer) {
            (_, Answer::Refused(_) | Answer::Unknown(_)) => {}
            (Call::Range { .. }, Answer::Range { revision, kvs, .. }) => {
                self.sighting(operation.ended, *revision, source);
                kvs.iter().for_each(|kv| self.kv(history, kv, source));
            }
            (Call::Txn(txn), Answer::Txn(answer)) => self.txn(history, i, txn, answer),
            (Call::Compact(_), Answer::Done) => {}
            (Call::Range { .. } | Call::Compact(_), Answer::Compacted { compacted: revision, .. })
            | (Call::Range { .. } | Call::Compact(_), Answer::Future { current: revision, .. }) => {
                self.sighting(operation.ended, *revision, source);
            }
            _ => self.findings.add("answer", || format!("{operation} is no answer to what was asked")),
        }
    }

    fn txn(&mut self, history: &History, i: usize, txn: &Txn, answer: &TxnAnswer) {
        let (operation, source) = (&history.operations[i], Source::Operation(i));
        self.sighting(operation.ended, answer.revision, source);
        let steps = branch(txn, answer.succeeded);
        if steps.len() != answer.results.len() {
            self.findings.add("answer", || format!("{operation} has not one result for each step"));
        }
        let taken = answer.taken();
        if !taken.iter().rev().enumerate().all(|(k, revision)| answer.revision.checked_sub(k as u64) == Some(*revision))
        {
            self.findings.add("consecutive", || format!("revisions of {operation} are not the last ones in a row"));
        }
        for (step, result) in steps.iter().zip(&answer.results) {
            match (step, result) {
                (Step::Put { key, value, .. }, StepResult::Put { revision, .. }) => {
                    self.fact(history, *revision, key, Some(value.clone()), source);
                }
                (Step::Delete(key), StepResult::Delete { previous, revision }) => {
                    previous.iter().for_each(|kv| self.kv(history, kv, source));
                    if *revision > 0 {
                        self.fact(history, *revision, key, None, source);
                    }
                }
                (Step::Get(_), StepResult::Get(found)) => found.iter().for_each(|kv| self.kv(history, kv, source)),
                _ => self.findings.add("answer", || format!("{operation} has a result of another kind than its step")),
            }
        }
        for revision in taken {
            if let Some(other) = self.claims.insert(revision, i).filter(|other| *other != i) {
                let other = &history.operations[other];
                self.findings
                    .add("duplicate", || format!("revision {revision} was given to {other} and to {operation}"));
            }
        }
    }

    fn kv(&mut self, history: &History, kv: &Kv, source: Source) {
        self.fact(history, kv.modified, &kv.key, Some(kv.value.clone()), source);
    }

    fn fact(&mut self, history: &History, revision: Revision, key: &str, value: Option<String>, source: Source) {
        let fact = Fact { key: key.to_owned(), value, source };
        match self.facts.get(&revision) {
            None => drop(self.facts.insert(revision, fact)),
            Some(known) if known.key == fact.key && known.value == fact.value => {}
            Some(known) => {
                let (known, known_by) = (known.tell(), known.source.tell(history));
                self.findings.add("contradiction", || {
                    format!(
                        "revision {revision} is {known} to {known_by}, but {} to {}",
                        fact.tell(),
                        source.tell(history)
                    )
                });
            }
        }
    }

    fn sighting(&mut self, at: Micros, revision: Revision, source: Source) {
        self.last = self.last.max(revision);
        self.sightings.push(Sighting { at, revision, source });
    }

    /// The highest revision that somebody knew of before a time.
    pub fn floor(&self, at: Micros) -> Option<&Sighting> {
        let after = self.floors.partition_point(|floor| floor.at < at);
        after.checked_sub(1).map(|i| &self.floors[i])
    }

    /// For each revision from `base` on: when somebody first knew of it or of a later one.
    pub fn first_known(&self, base: Revision) -> Vec<Micros> {
        let mut known = vec![Micros::MAX; (self.last - base) as usize + 1];
        for sighting in self.sightings.iter().filter(|s| (base..=self.last).contains(&s.revision)) {
            let place = &mut known[(sighting.revision - base) as usize];
            *place = sighting.at.min(*place);
        }
        for i in (1..known.len()).rev() {
            known[i - 1] = known[i].min(known[i - 1]);
        }
        known
    }
}

/// Which operation wrote a value, and where a value stands that was written twice.
pub fn writers(history: &History) -> (HashMap<&str, usize>, Vec<&str>) {
    let (mut writers, mut twice) = (HashMap::new(), Vec::new());
    for (i, operation) in history.operations.iter().enumerate() {
        let Call::Txn(txn) = &operation.call else { continue };
        for step in txn.then.iter().chain(&txn.otherwise) {
            if let Step::Put { value, .. } = step
                && writers.insert(value.as_str(), i).is_some()
            {
                twice.push(value.as_str());
            }
        }
    }
    (writers, twice)
}

//! The store as it is meant to be: a map, one revision for each changed key, nothing else.

use std::collections::BTreeMap;

use super::history::*;

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The value.
    pub value: String,
    /// Revision of the creation.
    pub created: Revision,
    /// Revision of the last change.
    pub modified: Revision,
    /// Changes since the creation.
    pub version: u64,
    /// When it expires.
    pub expires_at_ms: Option<u64>,
}

impl Record {
    /// As an answer tells it.
    pub fn kv(&self, key: &str) -> Kv {
        let Record { value, created, modified, version, .. } = self.clone();
        Kv { key: key.to_owned(), value, created, modified, version }
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its revision.
    pub revision: Revision,
    /// The key.
    pub key: String,
    /// What was there.
    pub before: Option<Record>,
    /// What is there now.
    pub after: Option<Record>,
}

/// All keys at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Model {
    /// The revision.
    pub revision: Revision,
    records: BTreeMap<String, Record>,
}

impl Model {
    /// An empty store.
    pub fn new(revision: Revision) -> Model {
        Model { revision, records: BTreeMap::new() }
    }

    /// What is stored under a key.
    pub fn get(&self, key: &str) -> Option<&Record> {
        self.records.get(key)
    }

    /// Makes a change.
    pub fn apply(&mut self, change: &Change) {
        self.revision = change.revision;
        match &change.after {
            Some(record) => self.records.insert(change.key.clone(), record.clone()),
            None => self.records.remove(&change.key),
        };
    }

    fn undo(&mut self, change: &Change) {
        self.revision = change.revision - 1;
        match &change.before {
            Some(record) => self.records.insert(change.key.clone(), record.clone()),
            None => self.records.remove(&change.key),
        };
    }

    /// The change that writing or deleting a key would be.
    pub fn change(&self, key: &str, put: Option<(&str, Option<u64>)>) -> Change {
        let (revision, before) = (self.revision + 1, self.records.get(key).cloned());
        let after = put.map(|(value, expires_at_ms)| Record {
            value: value.to_owned(),
            created: before.as_ref().map_or(revision, |r| r.created),
            modified: revision,
            version: before.as_ref().map_or(1, |r| r.version + 1),
            expires_at_ms,
        });
        Change { revision, key: key.to_owned(), before, after }
    }

    /// What a transaction would answer and change here.
    pub fn plan(&mut self, txn: &Txn) -> (TxnAnswer, Vec<Change>) {
        let failed = txn.compares.iter().position(|compare| !self.holds(compare));
        let steps = if failed.is_none() { &txn.then } else { &txn.otherwise };
        let mut changes = Vec::new();
        let results = steps.iter().map(|step| self.step(step, &mut changes)).collect();
        let answer = TxnAnswer { succeeded: failed.is_none(), failed, revision: self.revision, results };
        changes.iter().rev().for_each(|change| self.undo(change));
        (answer, changes)
    }

    fn holds(&self, compare: &Compare) -> bool {
        let get = |key: &str| self.records.get(key);
        match compare {
            Compare::Modified(key, revision) => get(key).map_or(0, |r| r.modified) == *revision,
            Compare::Created(key, revision) => get(key).map_or(0, |r| r.created) == *revision,
            Compare::Exists(key) => get(key).is_some(),
            Compare::Absent(key) => get(key).is_none(),
            Compare::Value(key, value) => get(key).is_some_and(|r| r.value == *value),
        }
    }

    fn step(&mut self, step: &Step, changes: &mut Vec<Change>) -> StepResult {
        let change = match step {
            Step::Get(key) => return StepResult::Get(self.records.get(key).map(|r| r.kv(key))),
            Step::Delete(key) if !self.records.contains_key(key) => {
                return StepResult::Delete { previous: None, revision: 0 };
            }
            Step::Delete(key) => self.change(key, None),
            Step::Put { key, value, expires_at_ms } => self.change(key, Some((value, *expires_at_ms))),
        };
        self.apply(&change);
        let result = match &change.after {
            Some(record) => StepResult::Put { revision: record.modified, created: record.created },
            None => {
                let previous = change.before.as_ref().map(|r| r.kv(&change.key));
                StepResult::Delete { previous, revision: change.revision }
            }
        };
        changes.push(change);
        result
    }

    /// What a read would answer here.
    pub fn range(&self, keys: &Keys, limit: usize) -> Answer {
        let from = match keys {
            Keys::Key(key) | Keys::Prefix(key) => key.clone(),
        };
        let all = self.records.range(from..).take_while(|(key, _)| keys.contain(key));
        let all: Vec<Kv> = all.map(|(key, record)| record.kv(key)).collect();
        let count = all.len();
        let shown = if limit == 0 { count } else { limit.min(count) };
        let kvs = all.into_iter().take(shown).collect();
        Answer::Range { revision: self.revision, kvs, more: shown < count, count: count as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Step {
        Step::Put { key: key.into(), value: value.into(), expires_at_ms: None }
    }

    #[test]
    fn a_plan_changes_nothing() {
        let mut model = Model::new(1);
        let then = vec![put("a", "1"), Step::Get("a".into()), put("b", "2"), Step::Delete("c".into())];
        let txn = Txn { compares: vec![Compare::Modified("a".into(), 0)], then, otherwise: vec![] };
        let (answer, changes) = model.plan(&txn);
        assert_eq!(model, Model::new(1));
        let a = Kv { key: "a".into(), value: "1".into(), created: 2, modified: 2, version: 1 };
        let results = vec![
            StepResult::Put { revision: 2, created: 2 },
            StepResult::Get(Some(a)),
            StepResult::Put { revision: 3, created: 3 },
            StepResult::Delete { previous: None, revision: 0 },
        ];
        assert_eq!(answer, TxnAnswer { succeeded: true, failed: None, revision: 3, results });
        assert_eq!(answer.taken(), [2, 3]);
        changes.iter().for_each(|change| model.apply(change));
        let (answer, changes) = model.plan(&txn);
        assert_eq!((answer.succeeded, answer.failed, answer.revision, changes.len()), (false, Some(0), 3, 0));
        let change = model.change("a", None);
        assert_eq!((change.revision, change.before.as_ref().map(|r| r.version)), (4, Some(1)));
        model.apply(&change);
        let Answer::Range { revision, kvs, more, count } = model.range(&Keys::Prefix(String::new()), 0) else { return };
        assert_eq!((revision, kvs.len(), more, count), (4, 1, false, 1));
    }
}

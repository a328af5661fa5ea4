//! A general checker of linearizability, after Wing and Gong with Lowe's memory of what was tried. It searches for any
//! order that explains the answers and knows nothing of what revisions mean. It is slow, so it only confirms the exact
//! checker, on short windows.

use std::collections::HashSet;

use super::check::Sequence;
use super::evidence::{Evidence, Fact};
use super::history::*;
use super::model::{Change, Model};

/// What the search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none.
    Not,
    /// It took too long.
    GaveUp,
}

/// States that are looked at before giving up.
const PATIENCE: usize = 400_000;

struct Search<'a> {
    operations: Vec<&'a Operation>,
    evidence: &'a Evidence,
    until: Revision,
    tried: HashSet<(Vec<u64>, Model)>,
}

/// Searches for an order of these operations that begins at this state and reaches at least a revision. What is known of
/// single revisions from watches has to be true of it.
pub fn search(start: &Model, operations: &[&Operation], evidence: &Evidence, until: Revision) -> Verdict {
    let known = |o: &&&Operation| match (&o.call, &o.answer) {
        (_, Answer::Refused(_)) => false,
        (Call::Range { at, local, .. }, Answer::Range { .. }) => at.is_none() && !local,
        (Call::Txn(_), _) => true,
        _ => false,
    };
    let operations: Vec<&Operation> = operations.iter().filter(known).copied().collect();
    let mut search = Search { operations, evidence, until, tried: HashSet::new() };
    let mut done = vec![0u64; search.operations.len().div_ceil(64)];
    match search.step(&mut start.clone(), &mut done) {
        Some(true) => Verdict::Linearizable,
        Some(false) => Verdict::Not,
        None => Verdict::GaveUp,
    }
}

fn is_unknown(operation: &Operation) -> bool {
    matches!(operation.answer, Answer::Unknown(_))
}

impl Search<'_> {
    fn step(&mut self, model: &mut Model, done: &mut Vec<u64>) -> Option<bool> {
        let is_done = |done: &[u64], i: usize| done[i / 64] & (1 << (i % 64)) != 0;
        let open: Vec<usize> = (0..self.operations.len()).filter(|i| !is_done(done, *i)).collect();
        if open.iter().all(|i| is_unknown(self.operations[*i])) && model.revision >= self.until {
            return Some(true);
        }
        if self.tried.len() >= PATIENCE {
            return None;
        }
        if !self.tried.insert((done.clone(), model.clone())) {
            return Some(false);
        }
        // The next one in the order has begun before any other that is open was answered.
        let answered = open.iter().map(|i| self.operations[*i]).filter(|o| !is_unknown(o)).map(|o| o.ended).min();
        for i in open {
            if answered.is_some_and(|answered| answered < self.operations[i].begun) {
                continue;
            }
            let Some(changes) = self.explains(model, i) else { continue };
            changes.iter().for_each(|change| model.apply(change));
            done[i / 64] |= 1 << (i % 64);
            let found = self.step(model, done);
            done[i / 64] &= !(1 << (i % 64));
            for change in changes.iter().rev() {
                let back = Change { after: change.before.clone(), ..change.clone() };
                model.apply(&back);
                model.revision = change.revision - 1;
            }
            if found != Some(false) {
                return found;
            }
        }
        Some(false)
    }

    /// What an operation changes if it comes next; `None` if its answer does not allow that.
    fn explains(&self, model: &mut Model, i: usize) -> Option<Vec<Change>> {
        let operation = self.operations[i];
        match (&operation.call, &operation.answer) {
            (Call::Range { keys, limit, .. }, answer) => (model.range(keys, *limit) == *answer).then(Vec::new),
            (Call::Txn(txn), answer) => {
                let (planned, changes) = model.plan(txn);
                let allowed = match answer {
                    Answer::Unknown(_) => !changes.is_empty(),
                    answer => Answer::Txn(planned) == *answer,
                };
                let agrees = |change: &Change| {
                    let fact = |fact: &Fact| {
                        fact.key == change.key
                            && fact.value.as_ref() == change.after.as_ref().map(|record| &record.value)
                    };
                    self.evidence.facts.get(&change.revision).is_none_or(fact)
                };
                (allowed && changes.iter().all(agrees)).then_some(changes)
            }
            (Call::Compact(_), _) => None,
        }
    }
}

/// Confirms what the exact checker has accepted: in windows of so many revisions the search has to find an order too,
/// from the state before the window. Returns how many windows there were and which ones it denies.
pub fn confirm(history: &History, sequence: &Sequence, begins: &[Revision], length: u64) -> (usize, Vec<String>) {
    let place = |operation: &Operation| match &operation.answer {
        Answer::Range { revision, .. } => Some(*revision),
        Answer::Txn(answer) => Some(answer.revision),
        _ => None,
    };
    let evidence = Evidence::default();
    let (mut confirmed, mut denied) = (0, Vec::new());
    for begin in begins {
        let end = (begin + length).min(sequence.last());
        // What expires is no operation, and a window has to end where a transaction does.
        let expired = |r: &Revision| sequence.get(*r).is_some_and(|placed| placed.operation.is_none());
        if (begin + 1..=end).any(|r| expired(&r)) || !sequence.is_boundary(*begin) || !sequence.is_boundary(end) {
            continue;
        }
        let mut model = Model::new(sequence.base);
        for revision in sequence.base + 1..=*begin {
            if let Some(change) = sequence.get(revision).and_then(|placed| placed.change.as_ref()) {
                model.apply(change);
            }
        }
        let inside = |revision: Revision| (begin + 1..=end).contains(&revision);
        let mut wanted: HashSet<usize> = (begin + 1..=end).filter_map(|r| sequence.get(r)?.operation).collect();
        let others = history.operations.iter().enumerate();
        wanted.extend(others.filter(|(_, o)| place(o).is_some_and(inside)).map(|(i, _)| i));
        let mut wanted: Vec<usize> = wanted.into_iter().collect();
        wanted.sort_by_key(|i| history.operations[*i].begun);
        let operations: Vec<&Operation> = wanted.iter().map(|i| &history.operations[*i]).collect();
        match search(&model, &operations, &evidence, end) {
            Verdict::Linearizable => confirmed += 1,
            Verdict::Not => denied.push(format!("revisions {} to {end} have no order", begin + 1)),
            Verdict::GaveUp => {}
        }
    }
    (confirmed, denied)
}

//! The watch checker: what each watch delivered, against the order of all writes. The promises are those that etcd's own
//! robustness tests hold its watches to: ordered, unique, atomic, reliable, resumable, bookmarkable; and at the end of a
//! run every watcher has been told of everything.

use std::collections::BTreeMap;

use super::check::{Judgement, Placed, Sequence};
use super::evidence::Findings;
use super::history::*;

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Events compared.
    pub events: usize,
    /// Watches that went on from a revision, and how many of them on another member than before.
    pub resumed: usize,
    /// Of those the ones on another member.
    pub moved: usize,
    /// Deliveries without an event.
    pub bookmarks: usize,
}

/// Judges all watches of a history whose writes are in order already.
pub fn check(history: &History, judgement: &Judgement) -> (Findings, Watched) {
    let asked = |o: &Operation| if let Call::Compact(revision) = o.call { Some(revision) } else { None };
    let forgotten = history.operations.iter().filter_map(asked).max().unwrap_or_default();
    let (findings, watched) = (Findings::default(), Watched::default());
    let mut judge = Judge { history, judgement, forgotten, findings, watched };
    let mut reached: BTreeMap<u32, (Revision, u32)> = BTreeMap::new();
    for session in &history.sessions {
        let through = judge.session(session);
        let before = reached.entry(session.watcher).or_insert((0, session.member));
        if session.start.is_some() && before.0 > 0 {
            judge.watched.resumed += 1;
            judge.watched.moved += usize::from(before.1 != session.member);
        }
        *before = (before.0.max(through), session.member);
    }
    for (watcher, (through, member)) in reached {
        let last = history.head.last;
        if through < last {
            judge.findings.add("late", || {
                format!("watcher {watcher} (at last on member {member}) was told of everything up to revision {through} only, not {last}")
            });
        }
    }
    (judge.findings, judge.watched)
}

struct Judge<'a> {
    history: &'a History,
    judgement: &'a Judgement,
    /// Somebody asked for what is older than this to be compacted.
    forgotten: Revision,
    findings: Findings,
    watched: Watched,
}

impl<'a> Judge<'a> {
    fn sequence(&self) -> &'a Sequence {
        &self.judgement.sequence
    }

    /// One watch; up to which revision it told everything.
    fn session(&mut self, session: &Session) -> Revision {
        let mut next = session.start;
        let mut told = session.start.map_or(0, |start| start.saturating_sub(1));
        for batch in &session.batches {
            self.watched.events += batch.events.len();
            self.watched.bookmarks += usize::from(batch.events.is_empty());
            if batch.revision < told {
                let revision = batch.revision;
                self.findings.add("ordered", || format!("{session} was at revision {told} and then at {revision}"));
            }
            let from = next.unwrap_or_else(|| self.begins(session, batch));
            self.batch(session, batch, from);
            next = Some(from.max(batch.revision + 1));
            told = told.max(batch.revision);
        }
        told
    }

    /// Where a watch "from now on" began, as its first delivery shows. What was written after it was granted belongs to it.
    fn begins(&mut self, session: &Session, batch: &Batch) -> Revision {
        let first = batch.events.first().map_or(batch.revision + 1, |event| event.kv.modified);
        let history = self.history;
        for revision in (self.sequence().base + 1..first).rev() {
            let Some(Placed { change: Some(change), operation: Some(i), .. }) = self.sequence().get(revision) else {
                continue;
            };
            let (key, operation) = (change.key.clone(), &history.operations[*i]);
            if operation.begun <= session.opened {
                break;
            }
            if session.keys.contain(&key) {
                self.findings
                    .add("reliable", || format!("{session} was not told of revision {revision}, by {operation}"));
                break;
            }
        }
        first
    }

    fn batch(&mut self, session: &Session, batch: &Batch, from: Revision) {
        if !self.sequence().is_boundary(batch.revision) {
            let revision = batch.revision;
            self.findings.add("atomic", || format!("{session}: a delivery ends at {revision}, inside a transaction"));
        }
        let mut last = from - 1;
        for event in &batch.events {
            let revision = event.kv.modified;
            if revision <= last {
                let rule = if revision < from { "unique" } else { "ordered" };
                self.findings.add(rule, || format!("{session} was told of revision {revision} after {last}"));
                continue;
            }
            self.missing(session, last + 1, revision);
            self.event(session, batch, event);
            last = revision;
        }
        self.missing(session, last + 1, batch.revision + 1);
    }

    /// Whether anything between two revisions belonged to the watch.
    fn missing(&mut self, session: &Session, from: Revision, to: Revision) {
        let end = to.min(self.sequence().last() + 1);
        for revision in from..end {
            let Some(Placed { change: Some(change), .. }) = self.sequence().get(revision) else { continue };
            if session.keys.contain(&change.key) {
                let what = format!(
                    "revision {revision} ({}{})",
                    change.key,
                    if change.after.is_none() { " deleted" } else { "" }
                );
                self.findings.add("reliable", || format!("{session} was not told of {what}, but of what came after"));
            }
        }
    }

    fn event(&mut self, session: &Session, batch: &Batch, event: &Event) {
        let revision = event.kv.modified;
        if revision > batch.revision {
            let through = batch.revision;
            self.findings.add("ordered", || format!("{session}: revision {revision} in a delivery up to {through}"));
        }
        let Some(Placed { change: Some(change), .. }) = self.sequence().get(revision) else {
            self.findings.add("phantom", || format!("{session} was told of revision {revision}, which nobody wrote"));
            return;
        };
        let same = change.key == event.kv.key
            && match &change.after {
                Some(record) => !event.deleted && record.kv(&change.key) == event.kv,
                None => event.deleted,
            };
        // What was there before may have been compacted away, but is never something else.
        let before = change.before.as_ref().map(|record| record.kv(&change.key));
        let previous = (event.previous.is_none() && revision <= self.forgotten) || event.previous == before;
        if !same || !previous || !session.keys.contain(&event.kv.key) {
            let change = change.clone();
            self.findings.add("event", || format!("{session} was told {event:?}, but it was {change:?}"));
        }
        let place = (revision - self.sequence().base - 1) as usize;
        if let Some((begun, Some(write))) = self.judgement.earliest.get(place)
            && batch.at < *begun
        {
            let write = &self.history.operations[*write];
            self.findings.add("future", || format!("{session} was told of revision {revision} before {write} began"));
        }
    }
}

//! The checkers are right: they accept what a right store does, refuse each wrong thing with the reason, and agree with
//! the general checker on both.

#![allow(clippy::unwrap_used)]

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::evidence::Evidence;
use super::history::*;
use super::model::Model;
use super::simulated::{self, Plan};
use super::{check, general, watched};

fn plan(steps: usize) -> Plan {
    Plan { steps, clients: 4, old: false, late: true }
}

/// What the general checker says, which has nothing but what the watches told beside the answers.
fn general(history: &History) -> general::Verdict {
    let watches = History { operations: vec![], ..history.clone() };
    let evidence = Evidence::of(&History { head: Head { base: 0, ..Head::default() }, ..watches.clone() });
    // Without operations the bound on revisions is low; the facts are all there.
    assert!(evidence.facts.len() as u64 + 1 >= history.head.last);
    let operations: Vec<&Operation> = history.operations.iter().collect();
    general::search(&Model::new(history.head.base), &operations, &evidence, history.head.last)
}

fn told(history: &History) -> Vec<String> {
    let judgement = check::check(history);
    let (findings, _) = watched::check(history, &judgement);
    judgement.findings.lines().into_iter().chain(findings.lines()).collect()
}

#[test]
fn a_store_that_is_right_is_found_right() {
    for seed in 0..60 {
        let plan = Plan { steps: 1500, clients: 6, old: true, late: seed % 2 == 0 };
        let history = simulated::history(seed, plan);
        assert_eq!(told(&history), Vec::<String>::new(), "seed {seed}");
        let judgement = check::check(&history);
        assert_eq!(judgement.sequence.last(), history.head.last);
        assert!(judgement.counts.done > 3 && judgement.counts.not_done > 3, "{:?}", judgement.counts);
        let begins: Vec<Revision> = (1..20).map(|k| k * 7).collect();
        let (confirmed, denied) = general::confirm(&history, &judgement.sequence, &begins, 12);
        assert!(confirmed >= 5 && denied.is_empty(), "seed {seed}: {confirmed}, {denied:?}");
    }
}

#[test]
fn both_checkers_agree_on_right_and_wrong_histories() {
    let (mut right, mut wrong) = (0, 0);
    for seed in 0..3000 {
        let mut history = simulated::history(seed, plan(70));
        let mut random = StdRng::seed_from_u64(seed);
        if seed % 8 > 0 {
            simulated::mutate(&mut history, &mut random);
        }
        let exact = check::check(&history);
        match general(&history) {
            general::Verdict::GaveUp => continue,
            general::Verdict::Linearizable => right += 1,
            general::Verdict::Not => wrong += 1,
        }
        let same = exact.findings.is_empty() == (general(&history) == general::Verdict::Linearizable);
        let all: Vec<String> = history.operations.iter().map(Operation::to_string).collect();
        assert!(same, "seed {seed}: exact: {:#?}\n{}", exact.findings.lines(), all.join("\n"));
    }
    assert!(right > 500 && wrong > 500, "{right} right, {wrong} wrong");
}

/// A history by hand: `a` is written at revision 2 and 4, `b` at 3.
fn by_hand() -> History {
    let put = |key: &str, value: &str| Step::Put { key: key.into(), value: value.into(), expires_at_ms: None };
    let write = |step| Call::Txn(Txn { then: vec![step], ..Txn::default() });
    let wrote = |revision, created| {
        let results = vec![StepResult::Put { revision, created }];
        Answer::Txn(TxnAnswer { succeeded: true, failed: None, revision, results })
    };
    let kv =
        |value: &str, modified, version| Kv { key: "a".into(), value: value.into(), created: 2, modified, version };
    let get = || Call::Range { keys: Keys::Key("a".into()), at: None, limit: 0, local: false };
    let got = |revision, kv| Answer::Range { revision, kvs: vec![kv], more: false, count: 1 };
    let calls = [
        (10, 20, write(put("a", "1")), wrote(2, 2)),
        (30, 40, get(), got(2, kv("1", 2, 1))),
        (50, 60, write(put("b", "2")), wrote(3, 3)),
        (70, 80, write(put("a", "3")), wrote(4, 2)),
        (90, 99, get(), got(4, kv("3", 4, 2))),
    ];
    let operation = |(id, (begun, ended, call, answer))| Operation {
        id: id as u64,
        client: 1,
        member: 1,
        life: 1,
        begun,
        ended,
        call,
        answer,
    };
    let event = |kv: Kv, previous| Event { kv, previous, deleted: false };
    let b = Kv { key: "b".into(), value: "2".into(), created: 3, modified: 3, version: 1 };
    let batches = vec![
        Batch { at: 21, revision: 2, events: vec![event(kv("1", 2, 1), None)] },
        Batch { at: 61, revision: 3, events: vec![event(b, None)] },
        Batch { at: 81, revision: 4, events: vec![event(kv("3", 4, 2), Some(kv("1", 2, 1)))] },
        Batch { at: 99, revision: 4, events: vec![] },
    ];
    let (keys, start) = (Keys::Prefix(String::new()), Some(1));
    let session = Session { watcher: 1, member: 1, life: 1, keys, start, asked: 1, opened: 2, batches, end: End::Left };
    History {
        head: Head { base: 1, last: 4, ..Head::default() },
        operations: calls.into_iter().enumerate().map(operation).collect(),
        sessions: vec![session],
        ..History::default()
    }
}

/// Changes the history by hand and expects a finding of that rule that says that.
fn expect(rule: &str, says: &str, change: impl FnOnce(&mut History)) {
    let mut history = by_hand();
    change(&mut history);
    let lines = told(&history);
    let found = lines.iter().any(|line| line.starts_with(&format!("{rule}: ")) && line.contains(says));
    assert!(found, "{rule} ({says}) is not among {lines:#?}");
}

fn answer(history: &mut History, i: usize) -> &mut TxnAnswer {
    match &mut history.operations[i].answer {
        Answer::Txn(answer) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn wrong_answers_are_explained() {
    assert_eq!(told(&by_hand()), Vec::<String>::new());
    expect("stale", "began after revision 4", |h| {
        h.operations[4].answer = h.operations[1].answer.clone();
    });
    expect("state", "had to be: at revision 4: [a=\"3\"@4 (version 2, created@2)]", |h| {
        if let Answer::Range { kvs, .. } = &mut h.operations[4].answer {
            kvs.clear();
        }
    });
    expect("duplicate", "revision 4 was given to", |h| {
        *answer(h, 2) = TxnAnswer {
            revision: 4,
            results: vec![StepResult::Put { revision: 4, created: 4 }],
            ..answer(h, 2).clone()
        };
    });
    expect("unaccounted", "revision 3: the write of b=\"2\"", |h| {
        h.operations[2].answer = Answer::Refused("no".into());
    });
    expect("unaccounted", "no acknowledged write took it and nobody saw", |h| {
        h.operations.remove(2);
        h.sessions[0].batches[1].events.clear();
    });
    expect("stale", "began after revision 2 was known", |h| {
        (h.operations[0].begun, h.operations[0].ended) = (45, 46);
    });
    expect("unaccounted", "beyond what all writes", |h| {
        if let Answer::Range { revision, .. } = &mut h.operations[4].answer {
            *revision = u64::MAX;
        }
    });
    expect("consecutive", "not the last ones in a row", |h| answer(h, 2).revision = 4);
    expect("compacted", "without reason", |h| {
        h.operations[1].answer = Answer::Compacted { requested: 1, compacted: 2 };
    });
    expect("answer", "no answer to what was asked", |h| h.operations[1].answer = h.operations[0].answer.clone());
}

#[test]
fn a_write_of_unknown_outcome_counts_once_and_not_before_it_began() {
    let unknown = |h: &mut History, i: usize| h.operations[i].answer = Answer::Unknown("lost".into());
    let mut history = by_hand();
    unknown(&mut history, 2);
    assert_eq!(told(&history), Vec::<String>::new());
    assert_eq!(check::check(&history).counts.done, 1);
    expect("unaccounted", "began only after revision 4 was known", |h| {
        unknown(h, 2);
        (h.operations[2].begun, h.operations[2].ended) = (100, 110);
    });
    expect("unaccounted", "had its effect at revision 3 already", |h| {
        unknown(h, 2);
        let mut again = h.sessions[0].batches[1].clone();
        (again.revision, again.events[0].kv.modified, again.at) = (5, 5, 120);
        h.sessions[0].batches.push(again);
        h.head.last = 5;
    });
}

#[test]
fn an_expiry_counts_only_once_the_time_has_come() {
    let with = |expires: u64, change: fn(&mut History)| {
        let mut history = by_hand();
        history.head.epoch_ms = 1_000;
        if let Call::Txn(txn) = &mut history.operations[3].call {
            txn.then = vec![Step::Put { key: "a".into(), value: "3".into(), expires_at_ms: Some(expires) }];
        }
        let mut gone = history.sessions[0].batches[2].events[0].clone();
        (gone.previous, gone.deleted) = (Some(gone.kv.clone()), true);
        gone.kv.modified = 5;
        history.sessions[0].batches.push(Batch { at: 500_000, revision: 5, events: vec![gone] });
        change(&mut history);
        told(&history)
    };
    assert_eq!(with(1_500, |_| {}), Vec::<String>::new());
    assert!(with(1_700, |_| {})[0].contains("it was to expire at 1700 ms, which was later"));
}

#[test]
fn wrong_watches_are_explained() {
    expect("reliable", "was not told of revision 3 (b)", |h| h.sessions[0].batches[1].events.clear());
    expect("reliable", "was not told of revision 3 (b)", |h| drop(h.sessions[0].batches.remove(1)));
    expect("unique", "was told of revision 3 after 3", |h| {
        let again = h.sessions[0].batches[1].events[0].clone();
        h.sessions[0].batches[2].events.insert(0, again);
    });
    expect("ordered", "was told of revision 3 after 4", |h| {
        let late = h.sessions[0].batches.remove(1).events.remove(0);
        h.sessions[0].batches[1].events.push(late);
    });
    expect("late", "up to revision 3 only, not 4", |h| h.sessions[0].batches.truncate(2));
    expect("event", "was told", |h| h.sessions[0].batches[2].events[0].kv.version = 7);
    expect("event", "was told", |h| h.sessions[0].batches[2].events[0].previous.as_mut().unwrap().version = 7);
    expect("reliable", "was not told of revision 2", |h| {
        h.sessions[0].start = None;
        h.sessions[0].batches.remove(0);
    });
    expect("future", "before #2", |h| h.sessions[0].batches[1].at = 49);
    // The progress notification comes before an event that it promises to come after.
    expect("reliable", "was not told of revision 3", |h| h.sessions[0].batches[0].revision = 3);
    // It resumed too late.
    expect("late", "up to revision 2 only", |h| {
        let rest = h.sessions[0].batches.split_off(1);
        let mut second = Session { start: Some(4), batches: rest, watcher: 2, ..h.sessions[0].clone() };
        second.batches.remove(0);
        h.sessions.push(second);
    });
}

#[test]
fn a_transaction_is_seen_whole() {
    let both = |h: &mut History| {
        let put = |key: &str, value: &str| Step::Put { key: key.into(), value: value.into(), expires_at_ms: None };
        h.operations[2].call = Call::Txn(Txn { then: vec![put("b", "2"), put("a", "3")], ..Txn::default() });
        let results = vec![StepResult::Put { revision: 3, created: 3 }, StepResult::Put { revision: 4, created: 2 }];
        *answer(h, 2) = TxnAnswer { succeeded: true, failed: None, revision: 4, results };
        h.operations.remove(3);
    };
    expect("atomic", "a delivery ends at 3, inside a transaction", both);
    let mut whole = by_hand();
    both(&mut whole);
    let b = whole.sessions[0].batches.remove(1).events.remove(0);
    whole.sessions[0].batches[1].events.insert(0, b);
    assert_eq!(told(&whole), Vec::<String>::new());
    // A list at the revision in between shows a part of it.
    (whole.operations[1].begun, whole.operations[1].ended) = (52, 58);
    if let Answer::Range { revision, .. } = &mut whole.operations[1].answer {
        *revision = 3;
    }
    assert!(told(&whole)[0].contains("sees only a part of a transaction"));
}

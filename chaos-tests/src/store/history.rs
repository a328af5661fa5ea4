//! What clients and watchers of a store asked and were told, with the times of one clock, and the file that keeps it.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A point in the store's history.
pub type Revision = u64;
/// Microseconds since the run began.
pub type Micros = u64;

/// One key at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kv {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// Revision at which the key was created.
    pub created: Revision,
    /// Revision of its last change.
    pub modified: Revision,
    /// Changes since its creation, that one included.
    pub version: u64,
}

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keys {
    /// One.
    Key(String),
    /// All that begin so.
    Prefix(String),
}

impl Keys {
    /// Whether a key is among them.
    pub fn contain(&self, key: &str) -> bool {
        match self {
            Keys::Key(one) => one == key,
            Keys::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// Last changed at this revision; 0 for a key that is absent.
    Modified(String, Revision),
    /// Created at this revision; 0 for a key that is absent.
    Created(String, Revision),
    /// It exists.
    Exists(String),
    /// It does not.
    Absent(String),
    /// It has this value.
    Value(String, String),
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Writes a key. In a history no value is written twice.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// When it expires, in milliseconds since the Unix epoch.
        expires_at_ms: Option<u64>,
    },
    /// Deletes a key.
    Delete(String),
    /// Reads a key.
    Get(String),
}

/// What a step of a transaction did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepResult {
    /// A put took this revision.
    Put {
        /// Revision of the key now.
        revision: Revision,
        /// Revision of its creation.
        created: Revision,
    },
    /// A deletion; revision 0 if there was nothing to delete.
    Delete {
        /// What was there.
        previous: Option<Kv>,
        /// Its revision.
        revision: Revision,
    },
    /// What was read.
    Get(Option<Kv>),
}

/// An atomic compare-then-else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// Conditions.
    pub compares: Vec<Compare>,
    /// What is done if all hold.
    pub then: Vec<Step>,
    /// What is done otherwise.
    pub otherwise: Vec<Step>,
}

/// Answer to a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnAnswer {
    /// Whether the compares held.
    pub succeeded: bool,
    /// The first that did not.
    pub failed: Option<usize>,
    /// Revision of the store after it.
    pub revision: Revision,
    /// One result for each step of the branch taken.
    pub results: Vec<StepResult>,
}

impl TxnAnswer {
    /// Revisions that it says to have taken.
    pub fn taken(&self) -> Vec<Revision> {
        let taken = self.results.iter().filter_map(|result| match result {
            StepResult::Put { revision, .. } => Some(*revision),
            StepResult::Delete { revision, .. } => (*revision > 0).then_some(*revision),
            StepResult::Get(_) => None,
        });
        taken.collect()
    }
}

/// What a client asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// A read of one key or many.
    Range {
        /// Which.
        keys: Keys,
        /// At which revision; the newest if none is given.
        at: Option<Revision>,
        /// At most so many; 0 is no limit.
        limit: usize,
        /// Whether possibly old state will do.
        local: bool,
    },
    /// A transaction.
    Txn(Txn),
    /// Forgets history below a revision.
    Compact(Revision),
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// What a read found.
    Range {
        /// Revision of the snapshot.
        revision: Revision,
        /// The keys, in order.
        kvs: Vec<Kv>,
        /// Whether there are more than the limit.
        more: bool,
        /// How many there are.
        count: u64,
    },
    /// What a transaction did.
    Txn(TxnAnswer),
    /// Done.
    Done,
    /// The revision is compacted.
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// Up to where history is gone.
        compacted: Revision,
    },
    /// The revision is not reached.
    Future {
        /// What was asked for.
        requested: Revision,
        /// The newest.
        current: Revision,
    },
    /// It was surely not done.
    Refused(String),
    /// It may have been done, or may yet be.
    Unknown(String),
}

/// One request of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Number within the history.
    pub id: u64,
    /// Whose.
    pub client: u32,
    /// Through which member.
    pub member: u32,
    /// Which life of that member: each start of its process begins another one.
    pub life: u32,
    /// When it was sent.
    pub begun: Micros,
    /// When it was answered, or given up.
    pub ended: Micros,
    /// What was asked.
    pub call: Call,
    /// What was told.
    pub answer: Answer,
}

/// A change as a watcher saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The new state; of a deleted key only its name and the revision of the deletion count.
    pub kv: Kv,
    /// The state before.
    pub previous: Option<Kv>,
    /// Whether it is a deletion.
    pub deleted: bool,
}

/// What one delivery of a watch brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// When.
    pub at: Micros,
    /// Everything up to this revision has been delivered.
    pub revision: Revision,
    /// Events; none in a progress notification.
    pub events: Vec<Event>,
}

/// One watch on one member, from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Whose; a watcher resumes in another session, often on another member.
    pub watcher: u32,
    /// On which member.
    pub member: u32,
    /// Which life of it.
    pub life: u32,
    /// Which keys.
    pub keys: Keys,
    /// First revision asked for; from then on if none is given.
    pub start: Option<Revision>,
    /// When it was asked for.
    pub asked: Micros,
    /// When it was granted.
    pub opened: Micros,
    /// What came.
    pub batches: Vec<Batch>,
    /// Why it ended.
    pub end: End,
}

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The watcher left.
    Left,
    /// Its beginning was compacted.
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// Up to where history is gone.
        compacted: Revision,
    },
    /// It fell behind, or the connection or the member ended.
    Broken(String),
}

/// Something that happened to the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// From when.
    pub at: Micros,
    /// Until when; the same for what has no duration.
    pub until: Micros,
    /// What, in a few words.
    pub what: String,
}

/// A sample of who led.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reign {
    /// From when.
    pub at: Micros,
    /// Who; none when nobody was known to.
    pub leader: Option<u32>,
    /// In which term.
    pub term: u64,
}

/// What a history is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Seed of the run.
    pub seed: u64,
    /// Name of the run.
    pub name: String,
    /// Wall clock at time 0, in milliseconds since the Unix epoch.
    pub epoch_ms: u64,
    /// Revision of the empty store.
    pub base: Revision,
    /// Up to where every watcher had to be told of everything at the end.
    pub last: Revision,
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What it is of.
    pub head: Head,
    /// All requests.
    pub operations: Vec<Operation>,
    /// All watches.
    pub sessions: Vec<Session>,
    /// Faults and the like.
    pub marks: Vec<Mark>,
    /// Who led when.
    pub reigns: Vec<Reign>,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
enum Line {
    Head(Head),
    Op(Operation),
    Watch(Session),
    Mark(Mark),
    Reign(Reign),
}

impl History {
    /// Writes it into a file as JSON lines.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        let mut out = BufWriter::new(file);
        self.write(&mut out)?;
        Ok(out.flush()?)
    }

    /// Writes it as JSON lines.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, mut out: impl Write) -> Result<()> {
        let mut line = |line: &Line| -> Result<()> {
            serde_json::to_writer(&mut out, line)?;
            Ok(out.write_all(b"\n")?)
        };
        line(&Line::Head(self.head.clone()))?;
        self.marks.iter().try_for_each(|mark| line(&Line::Mark(mark.clone())))?;
        self.reigns.iter().try_for_each(|reign| line(&Line::Reign(reign.clone())))?;
        self.operations.iter().try_for_each(|operation| line(&Line::Op(operation.clone())))?;
        self.sessions.iter().try_for_each(|session| line(&Line::Watch(session.clone())))
    }

    /// Reads what `save` wrote.
    ///
    /// # Errors
    /// When the file cannot be read, or a line of it.
    pub fn load(path: &Path) -> Result<History> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut history = History::default();
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let line: Line = serde_json::from_str(&line?).with_context(|| format!("line {}", number + 1))?;
            match line {
                Line::Head(head) => history.head = head,
                Line::Op(operation) => history.operations.push(operation),
                Line::Watch(session) => history.sessions.push(session),
                Line::Mark(mark) => history.marks.push(mark),
                Line::Reign(reign) => history.reigns.push(reign),
            }
        }
        Ok(history)
    }
}

fn seconds(at: Micros) -> f64 {
    at as f64 / 1e6
}

impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compare::Modified(key, revision) => write!(f, "{key}@{revision}"),
            Compare::Created(key, revision) => write!(f, "{key} created@{revision}"),
            Compare::Exists(key) => write!(f, "{key} exists"),
            Compare::Absent(key) => write!(f, "{key} absent"),
            Compare::Value(key, value) => write!(f, "{key}={value:?}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Put { key, value, expires_at_ms: None } => write!(f, "put {key}={value:?}"),
            Step::Put { key, value, expires_at_ms: Some(at) } => write!(f, "put {key}={value:?} until {at}"),
            Step::Delete(key) => write!(f, "delete {key}"),
            Step::Get(key) => write!(f, "get {key}"),
        }
    }
}

fn join<T: fmt::Display>(items: &[T], between: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(between)
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Range { keys, at, limit, local } => {
                match keys {
                    Keys::Key(key) => write!(f, "get {key}")?,
                    Keys::Prefix(prefix) => write!(f, "list {prefix}*")?,
                }
                if let Some(at) = at {
                    write!(f, " at revision {at}")?;
                }
                if *limit > 0 {
                    write!(f, " limit {limit}")?;
                }
                if *local { f.write_str(", possibly old") } else { Ok(()) }
            }
            Call::Txn(txn) => {
                if !txn.compares.is_empty() {
                    write!(f, "if {} then ", join(&txn.compares, " and "))?;
                }
                f.write_str(&join(&txn.then, ", "))?;
                if txn.otherwise.is_empty() { Ok(()) } else { write!(f, " else {}", join(&txn.otherwise, ", ")) }
            }
            Call::Compact(revision) => write!(f, "compact up to {revision}"),
        }
    }
}

impl fmt::Display for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kv { key, value, created, modified, version } = self;
        write!(f, "{key}={value:?}@{modified} (version {version}, created@{created})")
    }
}

impl fmt::Display for StepResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepResult::Put { revision, created } => write!(f, "put@{revision} (created@{created})"),
            StepResult::Delete { revision: 0, .. } => f.write_str("nothing to delete"),
            StepResult::Delete { previous: Some(kv), revision } => write!(f, "deleted {kv} @{revision}"),
            StepResult::Delete { previous: None, revision } => write!(f, "deleted @{revision}"),
            StepResult::Get(Some(kv)) => write!(f, "{kv}"),
            StepResult::Get(None) => f.write_str("nothing there"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Range { revision, kvs, count, more } => {
                let more = if *more { " and more" } else { "" };
                write!(f, "at revision {revision}: [{}]{more} ({count} in all)", join(kvs, ", "))
            }
            Answer::Txn(TxnAnswer { succeeded, revision, results, .. }) => {
                let how = if *succeeded { "succeeded" } else { "failed its compares" };
                write!(f, "{how} at revision {revision}: [{}]", join(results, ", "))
            }
            Answer::Done => f.write_str("done"),
            Answer::Compacted { requested, compacted } => write!(f, "{requested} is compacted (up to {compacted})"),
            Answer::Future { requested, current } => write!(f, "{requested} is a future revision (now {current})"),
            Answer::Refused(why) => write!(f, "not done: {why}"),
            Answer::Unknown(why) => write!(f, "unknown whether done: {why}"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { id, client, member, begun, ended, call, answer, .. } = self;
        let (begun, ended) = (seconds(*begun), seconds(*ended));
        write!(f, "#{id} (client {client} through member {member}, {begun:.6}-{ended:.6} s: {call} -> {answer})")
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (watcher, member, asked) = (self.watcher, self.member, seconds(self.asked));
        write!(f, "watcher {watcher} on member {member} (since {asked:.6} s, ")?;
        match self.start {
            Some(start) => write!(f, "from revision {start})"),
            None => f.write_str("from then on)"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_history_survives_its_file() {
        let kv = Kv { key: "a".into(), value: "1".into(), created: 2, modified: 2, version: 1 };
        let put = Step::Put { key: "a".into(), value: "1".into(), expires_at_ms: Some(5) };
        let call = Call::Txn(Txn { compares: vec![Compare::Absent("a".into())], then: vec![put], otherwise: vec![] });
        let operation =
            |call, answer| Operation { id: 1, client: 1, member: 2, life: 1, begun: 5, ended: 9, call, answer };
        let results = vec![StepResult::Put { revision: 2, created: 2 }];
        let wrote = Answer::Txn(TxnAnswer { succeeded: true, failed: None, revision: 2, results });
        let read = Call::Range { keys: Keys::Prefix("a".into()), at: Some(2), limit: 3, local: true };
        let found = Answer::Range { revision: 2, kvs: vec![kv.clone()], more: false, count: 1 };
        let event = Event { kv, previous: None, deleted: false };
        let session = Session {
            watcher: 1,
            member: 1,
            life: 2,
            keys: Keys::Key("a".into()),
            start: Some(1),
            asked: 1,
            opened: 2,
            batches: vec![Batch { at: 3, revision: 2, events: vec![event] }],
            end: End::Compacted { requested: 1, compacted: 2 },
        };
        let history = History {
            head: Head { seed: 7, name: "x".into(), epoch_ms: 8, base: 1, last: 2 },
            operations: vec![operation(call, wrote), operation(read, found)],
            sessions: vec![session],
            marks: vec![Mark { at: 1, until: 2, what: "kill".into() }],
            reigns: vec![Reign { at: 0, leader: Some(1), term: 1 }],
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.jsonl");
        history.save(&path).unwrap();
        assert_eq!(History::load(&path).unwrap(), history);
        std::fs::write(&path, "{\"Op\":1}\n").unwrap();
        assert!(format!("{:#}", History::load(&path).unwrap_err()).starts_with("line 1"));
        let told = history.operations[0].to_string();
        assert!(told.contains("client 1 through member 2") && told.contains("if a absent then put a=\"1\""), "{told}");
    }
}

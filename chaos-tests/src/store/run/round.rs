//! One run: a group, clients, watchers, faults; then the verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::chaos::Chaos;
use super::clients::{self, Load};
use super::convert::ask;
use super::group::{self, Group, Settings};
use super::recorder::Recorder;
use super::schedule::{Kind, Schedule};
use super::watchers::{self, Plan as Watching};
use crate::store::check::Counts;
use crate::store::evidence::Findings;
use crate::store::history::*;
use crate::store::html;
use crate::store::verdict::{Verdict, Windows};
use crate::store::watched::Watched;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// For how long there are faults.
    pub time: Duration,
    /// The faults; none if it is empty.
    pub kinds: Vec<Kind>,
    /// The group.
    pub settings: Settings,
    /// The clients.
    pub load: Load,
    /// The watchers.
    pub watchers: Vec<Watching>,
    /// How long the group may take to work, also on a machine that is busy with other things.
    pub patience: Duration,
}

impl Plan {
    /// All kinds of faults, with watchers of every sort.
    pub fn new(name: &str, seed: u64, time: Duration) -> Plan {
        let watch = |number: u32, prefix: &str| Watching {
            number,
            keys: Keys::Prefix(prefix.to_owned()),
            member: (number - 1) % 3 + 1,
            stays: false,
            slow: false,
            from_now: false,
        };
        Plan {
            name: name.to_owned(),
            seed,
            time,
            kinds: super::schedule::ALL.to_vec(),
            settings: Settings::default(),
            load: Load::default(),
            patience: PATIENCE,
            watchers: vec![
                watch(1, "/r/"),
                Watching { stays: true, ..watch(2, "/r/") },
                watch(3, "/r/"),
                Watching { from_now: true, ..watch(4, "/r/a/") },
                Watching { slow: true, ..watch(5, "/r/b/") },
                Watching { keys: Keys::Key("/r/a/0".into()), stays: true, ..watch(6, "") },
            ],
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What the checkers say.
    pub verdict: Verdict,
    /// Where the report lies, and the history of a run that failed.
    pub folder: PathBuf,
    /// What to type to see it again.
    pub again: String,
}

impl Outcome {
    /// In one line.
    pub fn line(&self) -> String {
        let Counts { revisions, answers, done, not_done, expired } = self.verdict.counts;
        let Watched { events, resumed, moved, .. } = self.verdict.watched;
        format!(
            "{revisions} revisions, {answers} answers compared, {} unknown writes ({done} done), {expired} expired; \
             {events} events, {resumed} watches resumed ({moved} elsewhere); {} windows confirmed; {} findings",
            done + not_done,
            self.verdict.confirmed,
            self.verdict.findings.count
        )
    }
}

/// A group at work, and who works with it.
pub struct Running {
    /// The group, and what to do to it.
    pub chaos: Chaos,
    recorder: Arc<Recorder>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    watching: Vec<tokio::task::JoinHandle<()>>,
    plan: Plan,
    finished: bool,
    /// Whether it is wrong that a member does not answer at the end.
    all_answer: bool,
    dir: tempfile::TempDir,
}

/// Attempts to found a group: a machine may be too busy for it.
const ATTEMPTS: u32 = 3;
/// How long writes may take, watchers to be told, and a group to work again once nothing is wrong any more.
const PATIENCE: Duration = Duration::from_secs(40);

/// Where runs leave things: `target/chaos/<name>-<seed>`.
fn folder(name: &str, seed: u64) -> Result<PathBuf> {
    let folder = crate::report::target()?.join("chaos").join(format!("{name}-{seed}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

impl Running {
    /// Founds a group and has everybody begin.
    ///
    /// # Errors
    /// When the group does not come up, again and again.
    pub async fn begin(plan: Plan) -> Result<Running> {
        let mut attempts = 1..ATTEMPTS;
        loop {
            match (Running::found(plan.clone()).await, attempts.next()) {
                (Err(error), Some(_)) => println!("{}: founding the group once more: {error:#}", plan.name),
                (done, _) => return done,
            }
        }
    }

    async fn found(plan: Plan) -> Result<Running> {
        let dir = tempfile::tempdir()?;
        let group = Arc::new(Group::found(dir.path(), plan.settings.clone()).await?);
        let base = group.reach(1).await?.status().await?.revision;
        let recorder = Arc::new(Recorder::new(&plan.name, plan.seed, base));
        let begin = |number| clients::client(number, plan.load.clone(), plan.seed, group.clone(), recorder.clone());
        let tasks = (1..=plan.load.clients).map(|number| tokio::spawn(begin(number))).collect();
        let watch = |w: &Watching| watchers::watcher(w.clone(), plan.seed, group.clone(), recorder.clone());
        let watching = plan.watchers.iter().map(|w| tokio::spawn(watch(w))).collect();
        let sampler = tokio::spawn(sample(group.clone(), recorder.clone()));
        let chaos = Chaos { group, recorder: recorder.clone(), patience: plan.patience, findings: Findings::default() };
        let mut running = Running { chaos, recorder, tasks, watching, plan, finished: false, all_answer: false, dir };
        running.tasks.push(sampler);
        Ok(running)
    }

    /// The group.
    pub fn group(&self) -> &Arc<Group> {
        &self.chaos.group
    }

    /// A folder that is removed with the run.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Who writes everything down.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Waits until so many more writes are acknowledged.
    ///
    /// # Errors
    /// When none is for a long time, or not all within a longer one.
    pub async fn progress(&self, more: u64) -> Result<()> {
        let (target, deadline) = (self.recorder.acknowledged() + more, Instant::now() + self.plan.patience);
        while self.recorder.acknowledged() < target {
            if Instant::now() > deadline {
                bail!("no progress");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Ends everybody: clients first, then a last list on every member, then the watchers, which are told of all that
    /// happened.
    pub(super) async fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.recorder.end_clients();
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
        let mut last = 0;
        // What is found already needs no patience.
        let patience = if self.chaos.findings.is_empty() { self.plan.patience } else { Duration::from_secs(2) };
        let group = self.chaos.group.clone();
        for member in 1..=group.members() {
            let (deadline, mut listed) = (Instant::now() + patience, None);
            while listed.is_none() && Instant::now() < deadline {
                listed = self.list(member).await;
                if listed.is_none() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            last = last.max(listed.unwrap_or_default());
            if listed.is_none() && self.all_answer {
                self.chaos
                    .findings
                    .add("availability", || format!("member {member} gave no last list in {patience:?}"));
            }
        }
        self.recorder.end_watchers(last.max(1), patience);
        for task in self.watching.drain(..) {
            let _ = task.await;
        }
    }

    /// A list of everything by a member, as one more operation; its revision.
    async fn list(&self, member: u32) -> Option<Revision> {
        let client = self.chaos.group.connect(member).await.ok()?;
        let call = Call::Range { keys: Keys::Prefix("/r/".into()), at: None, limit: 0, local: false };
        let (begun, life) = (self.recorder.now(), self.chaos.group.life(member));
        let answer = tokio::time::timeout(Duration::from_secs(3), ask(&client, &call)).await.ok()?;
        let revision = match &answer {
            Answer::Range { revision, .. } => Some(*revision),
            _ => None,
        };
        let (id, ended) = (self.recorder.id(), self.recorder.now());
        self.recorder.operation(Operation { id, client: 0, member, life, begun, ended, call, answer });
        revision
    }

    /// Ends the run and judges it. What it leaves lies in a folder of its own.
    ///
    /// # Errors
    /// When nothing can be left there.
    pub async fn judge(mut self) -> Result<Outcome> {
        self.finish().await;
        let members = self.chaos.group.members();
        self.chaos.group.end();
        let history = self.recorder.take();
        let folder = folder(&self.plan.name, self.plan.seed)?;
        let outcome = judge(history, std::mem::take(&mut self.chaos.findings), folder);
        fs::write(outcome.folder.join("report.html"), html::page(&outcome))?;
        if !outcome.verdict.findings.is_empty() {
            outcome.verdict.history.save(&outcome.folder.join("history.jsonl"))?;
            group::keep_logs(self.dir.path(), &outcome.folder, members)?;
        }
        Ok(outcome)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().chain(&self.watching).for_each(|task| task.abort());
        self.chaos.group.end();
    }
}

/// Takes out what watchers were told of what came after the last lists, such as the end of keys that expire: some of them
/// see a part of it before they are ended, and nobody the rest.
fn cut(history: &mut History) {
    let (last, over) = (history.head.last, history.operations.iter().map(|operation| operation.ended).max());
    let Some(over) = over.filter(|_| last > history.head.base) else { return };
    for session in &mut history.sessions {
        let mut told = last;
        for batch in &mut session.batches {
            if batch.at > over && batch.revision > told {
                batch.events.retain(|event| event.kv.modified <= told);
                batch.revision = told;
            }
            told = told.max(batch.revision);
        }
    }
}

/// Judges a history, also one that was kept.
pub fn judge(mut history: History, found: Findings, folder: PathBuf) -> Outcome {
    cut(&mut history);
    let verdict = Verdict::of(history, found, Windows { count: 30, revisions: 12 });
    let again = format!("make chaos FILE={}", folder.join("history.jsonl").display());
    Outcome { verdict, folder, again }
}

/// Notes who leads.
async fn sample(group: Arc<Group>, recorder: Arc<Recorder>) {
    while !recorder.is_over() {
        let mut found = (None, 0);
        for member in 1..=group.members() {
            let status = tokio::time::timeout(Duration::from_millis(300), group.status(member)).await;
            if let Ok(Ok(status)) = status
                && status.leader == Some(status.id)
                && status.term > found.1
            {
                found = (Some(member), status.term);
            }
        }
        recorder.reign(found.0, found.1);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A whole run with faults from the schedule.
///
/// # Errors
/// When it cannot be run; what is found is no error.
pub async fn round(plan: Plan) -> Result<Outcome> {
    let (mut plan, seed, kinds, time) = (plan.clone(), plan.seed, plan.kinds, plan.time);
    plan.settings.power |= kinds.iter().any(|kind| matches!(kind, Kind::Power | Kind::PowerAgain));
    plan.settings.small_disks |= kinds.contains(&Kind::FullDisk);
    let members = plan.settings.members;
    let mut running = Running::begin(plan).await?;
    let begun = Instant::now();
    for step in Schedule::new(seed, &kinds, members) {
        if begun.elapsed() >= time {
            break;
        }
        running.chaos.step(&step).await;
    }
    if kinds.is_empty() {
        tokio::time::sleep(time).await;
    }
    // However slow the machine is, there is something to judge.
    running.all_answer = true;
    if let Err(error) = running.progress(250).await {
        running.chaos.findings.add("availability", || format!("at the end: {error:#}"));
    }
    let again = format!("make chaos SEED={seed} SECONDS={}", time.as_secs());
    Ok(Outcome { again, ..running.judge().await? })
}

/// Judges a history that a run has kept.
///
/// # Errors
/// When it cannot be read.
pub fn again(path: &Path) -> Result<Outcome> {
    let history = History::load(path)?;
    Ok(judge(history, Findings::default(), path.parent().unwrap_or(Path::new(".")).to_path_buf()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_the_last_list_is_not_judged() {
        let put = |revision: Revision| Event {
            kv: Kv { key: "/k".into(), value: "v".into(), created: 2, modified: revision, version: revision - 1 },
            previous: None,
            deleted: false,
        };
        let batch = |at, revisions: std::ops::RangeInclusive<Revision>| Batch {
            at,
            revision: *revisions.end(),
            events: revisions.map(put).collect(),
        };
        let list = Operation {
            id: 1,
            client: 0,
            member: 1,
            life: 1,
            begun: 90,
            ended: 100,
            call: Call::Range { keys: Keys::Prefix("/".into()), at: None, limit: 0, local: false },
            answer: Answer::Unknown("of no interest here".into()),
        };
        let session = |batches| Session {
            watcher: 1,
            member: 1,
            life: 1,
            keys: Keys::Prefix("/".into()),
            start: None,
            asked: 1,
            opened: 2,
            batches,
            end: End::Left,
        };
        let mut history = History {
            head: Head { base: 1, last: 5, ..Head::default() },
            operations: vec![list],
            sessions: vec![
                session(vec![batch(80, 2..=3), batch(120, 4..=9), batch(130, 10..=11)]),
                // What was told in time counts, even if no list has it.
                session(vec![batch(80, 2..=7), batch(120, 8..=9)]),
            ],
            ..History::default()
        };
        cut(&mut history);
        let nothing = |revision| Batch { at: 0, revision, events: Vec::new() };
        let one = vec![batch(80, 2..=3), batch(120, 4..=5), Batch { at: 130, ..nothing(5) }];
        let two = vec![batch(80, 2..=7), Batch { at: 120, ..nothing(7) }];
        assert_eq!(history.sessions, [session(one), session(two)]);
    }
}

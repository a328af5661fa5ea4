//! What all parts of a simulation share: the members as others reach them, and what is written down.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use trireme_raftstore::{JoinGrant, MemberId, MemoryDisk, Store};

use super::net::Links;
use super::plan::Plan;
use crate::store::evidence::Findings;
use crate::store::history::*;

/// The time of day at which every simulation begins, in milliseconds since the Unix epoch.
pub const EPOCH_MS: u64 = 1_800_000_000_000;

/// Something that is done in a member's process.
pub type Job = Box<dyn FnOnce(Store) -> BoxFuture<'static, ()> + Send>;

/// How far a simulation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Members come together.
    Founding,
    /// Clients work, and faults happen.
    Running,
    /// Everything is well again.
    Healed,
    /// Clients are to end.
    Over,
}

/// What the operator wants done to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The machine goes off, and its disk is replaced by an empty one.
    Wipe(u32),
    /// It goes on again.
    Start(u32),
}

/// One member's machine.
#[derive(Default)]
pub struct Machine {
    /// Its disk.
    pub disk: MemoryDisk,
    /// How often its process was started.
    pub life: u32,
    /// Where its process takes jobs, while it runs.
    pub door: Option<mpsc::Sender<Job>>,
    /// What it joins with, unless it founds the group.
    pub grant: Option<JoinGrant>,
    /// Its identity in the group.
    pub id: MemberId,
    /// Whether its process is about to end, or has ended, because somebody wants it to.
    pub doomed: bool,
    /// Whether somebody removes it or has removed it.
    pub out: bool,
    /// Whether it was told that it is removed.
    pub evicted: bool,
}

/// What all share.
pub struct World {
    /// What happens.
    pub plan: Plan,
    /// The ways between members.
    pub links: Arc<Links>,
    machines: Mutex<BTreeMap<u32, Machine>>,
    skews: BTreeMap<u32, Arc<AtomicI64>>,
    history: Mutex<History>,
    findings: Mutex<Findings>,
    wishes: Mutex<Vec<Wish>>,
    leader: AtomicU64,
    phase: AtomicU8,
    ids: AtomicU64,
    last: AtomicU64,
    begin: OnceLock<Duration>,
    healed: OnceLock<Duration>,
}

/// Why a member did not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its process does not run.
    Absent,
    /// It ended meanwhile.
    Lost,
}

fn elapsed() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Machines with empty disks.
    pub fn new(plan: Plan) -> Arc<World> {
        let members = 1..=plan.members;
        let machine = |i| (i, Machine { id: u64::from(i == 1), ..Machine::default() });
        // A clock that is ahead lets keys expire sooner; by how much at most, the checkers have to know.
        let epoch_ms = EPOCH_MS + super::plan::SKEW_MS as u64;
        let head = Head { seed: plan.seed, name: "sim".into(), epoch_ms, ..Head::default() };
        Arc::new(World {
            links: Arc::default(),
            machines: Mutex::new(members.clone().map(machine).collect()),
            skews: members.map(|i| (i, Arc::default())).collect(),
            history: Mutex::new(History { head, ..History::default() }),
            findings: Mutex::default(),
            wishes: Mutex::default(),
            leader: 0.into(),
            phase: AtomicU8::new(Phase::Founding as u8),
            ids: 1.into(),
            last: 0.into(),
            begin: OnceLock::new(),
            healed: OnceLock::new(),
            plan,
        })
    }

    /// Does something with a machine.
    pub fn machine<T>(&self, member: u32, act: impl FnOnce(&mut Machine) -> T) -> Option<T> {
        lock(&self.machines).get_mut(&member).map(act)
    }

    /// Has a member's process do something.
    ///
    /// # Errors
    /// When it does not run, or ends before it is done.
    pub async fn on<T, F>(&self, member: u32, work: impl FnOnce(Store) -> F + Send + 'static) -> Result<T, Gone>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let door = self.machine(member, |machine| machine.door.clone()).flatten().ok_or(Gone::Absent)?;
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            let work = work(store);
            Box::pin(async move { drop(tell.send(work.await)) })
        });
        door.send(job).await.map_err(|_| Gone::Absent)?;
        told.await.map_err(|_| Gone::Lost)
    }

    /// How far off a member's time of day is.
    pub fn skew(&self, member: u32) -> Arc<AtomicI64> {
        self.skews.get(&member).cloned().unwrap_or_default()
    }

    /// Time 0 of the history is now.
    pub fn begin(&self) {
        let _ = self.begin.set(elapsed());
    }

    /// Microseconds since then. All hosts share this clock, but none of the members knows it.
    pub fn now(&self) -> Micros {
        self.begin.get().map_or(0, |begin| elapsed().saturating_sub(*begin).as_micros() as u64)
    }

    /// When time 0 of the history was, in simulated time.
    pub fn begun(&self) -> Option<Duration> {
        self.begin.get().copied()
    }

    /// Notes how long it took until all worked again.
    pub fn set_healed(&self, after: Duration) {
        let _ = self.healed.set(after);
    }

    /// How long that was.
    pub fn healed(&self) -> Duration {
        self.healed.get().copied().unwrap_or_default()
    }

    /// The time of day of the clients.
    pub fn wall_ms(&self) -> u64 {
        EPOCH_MS + self.now() / 1000
    }

    /// How far the simulation is.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Founding,
            1 => Phase::Running,
            2 => Phase::Healed,
            _ => Phase::Over,
        }
    }

    /// Goes on to another phase.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    /// Waits until the simulation is that far.
    pub async fn until(&self, phase: Phase) {
        while self.phase() < phase {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Notes that a member leads, in a term, or does not any more.
    pub fn lead(&self, member: u32, term: Option<u64>) {
        let known = self.leader.load(Ordering::SeqCst);
        match term {
            Some(term) => {
                self.leader.store(u64::from(member), Ordering::SeqCst);
                let leader = Some(member);
                let at = self.now();
                lock(&self.history).reigns.push(Reign { at, leader, term });
            }
            None if known == u64::from(member) => self.leader.store(0, Ordering::SeqCst),
            None => {}
        }
    }

    /// Who leads, as far as is known.
    pub fn leader(&self) -> Option<u32> {
        u32::try_from(self.leader.load(Ordering::SeqCst)).ok().filter(|leader| *leader > 0)
    }

    /// Asks for something to be done to a machine.
    pub fn wish(&self, wish: Wish) {
        lock(&self.wishes).push(wish);
    }

    /// What is asked for.
    pub fn wishes(&self) -> Vec<Wish> {
        std::mem::take(&mut lock(&self.wishes))
    }

    /// A number for an operation.
    pub fn id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::SeqCst)
    }

    /// Writes something down.
    pub fn write(&self, write: impl FnOnce(&mut History)) {
        write(&mut lock(&self.history));
    }

    /// Notes what must not be.
    pub fn find(&self, rule: &'static str, what: String) {
        lock(&self.findings).add(rule, || what);
    }

    /// Whether anything was found yet.
    pub fn has_findings(&self) -> bool {
        !lock(&self.findings).is_empty()
    }

    /// Says up to where watchers have to be told.
    pub fn set_last(&self, last: Revision) {
        lock(&self.history).head.last = last;
        self.last.store(last, Ordering::SeqCst);
    }

    /// Up to where watchers have to be told, once that is known.
    pub fn last(&self) -> Option<Revision> {
        Some(self.last.load(Ordering::SeqCst)).filter(|last| *last > 0)
    }

    /// Everything that was written down and found, in order.
    pub fn take(&self) -> (History, Findings) {
        let mut history = std::mem::take(&mut *lock(&self.history));
        history.operations.sort_by_key(|operation| (operation.begun, operation.id));
        history.sessions.sort_by_key(|session| (session.watcher, session.asked));
        (history, std::mem::take(&mut lock(&self.findings)))
    }
}

//! What happens to the machines and the ways between them, step by step of simulated time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use trireme_raftstore::MemoryDisk;
use turmoil::Sim;

use super::PROGRESS;
use super::member;
use super::net::name;
use super::operator::{self, Order};
use super::plan::{Act, Step, Whom};
use super::world::{EPOCH_MS, Phase, Wish, World};
use crate::store::history::Mark;

/// How much time passes at once.
const TICK: Duration = Duration::from_millis(1);
/// How long a whole simulation may take, in milliseconds.
const LIMIT: u64 = 300_000;

/// How long messages take on a slow way.
const SLOW: Duration = Duration::from_millis(300);
/// How long a process has for its friendly end, in milliseconds.
const FRIENDLY: u64 = 700;

/// What ends again.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Boot(u32),
    Crash(u32),
    Kill(u32),
    Mend(u32, u32),
    Release(u32, u32),
    Fast(u32, u32),
    Lossless,
    FastDisk(u32),
}

/// A group at work.
pub struct Driver<'a> {
    sim: Sim<'a>,
    world: Arc<World>,
    random: StdRng,
    orders: Option<mpsc::UnboundedSender<Order>>,
    /// What is to end, by time.
    ends: BTreeMap<(u64, u64), End>,
    count: u64,
    /// Machines that are off.
    off: BTreeMap<u32, bool>,
    held: BTreeMap<(u32, u32), u32>,
}

impl<'a> Driver<'a> {
    /// Machines that are about to start.
    pub fn new(world: &Arc<World>) -> Driver<'a> {
        let plan = &world.plan;
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_millis(EPOCH_MS))
            .tick_duration(TICK)
            .simulation_duration(Duration::from_millis(2 * LIMIT))
            .min_message_latency(Duration::ZERO)
            .max_message_latency(Duration::from_millis(plan.latency_ms))
            .repair_rate(0.1)
            .tcp_capacity(4096)
            .enable_random_order()
            .build();
        for member in 1..=plan.members {
            let world = world.clone();
            sim.host(name(member), move || member::process(world.clone(), member));
        }
        let (orders, queue) = mpsc::unbounded_channel();
        sim.client("clients", operator::run(world.clone(), queue));
        let random = StdRng::seed_from_u64(plan.seed ^ 0x00d2_1fe2);
        let (ends, off, held) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut driver = Driver { sim, world: world.clone(), random, orders: Some(orders), ends, count: 0, off, held };
        for member in 1..=driver.world.plan.members {
            driver.set_latency(member, 0);
        }
        driver
    }

    fn members(&self) -> impl Iterator<Item = u32> + use<> {
        1..=self.world.plan.members
    }

    /// Runs until everybody is done; tells how long that was in simulated time.
    ///
    /// # Errors
    /// When the simulation itself fails, or takes too long.
    pub fn run(&mut self) -> turmoil::Result<Duration> {
        let plan = self.world.plan.clone();
        let mut steps = plan.steps.into_iter().peekable();
        for _ in 0..LIMIT {
            if self.sim.step()? {
                return Ok(self.sim.elapsed());
            }
            for wish in self.world.wishes() {
                self.grant(wish);
            }
            if self.world.phase() != Phase::Running {
                continue;
            }
            let now = self.now();
            while let Some(step) = steps.next_if(|step| step.at <= now && now < plan.until) {
                self.act(step);
            }
            self.end(now);
            if now >= plan.until {
                self.heal();
            }
        }
        self.world.find(PROGRESS, "the simulation does not come to its end".to_owned());
        Ok(self.sim.elapsed())
    }

    /// Milliseconds since the group was founded.
    fn now(&self) -> u64 {
        let begun = self.world.begun().unwrap_or(self.sim.elapsed());
        self.sim.elapsed().saturating_sub(begun).as_millis() as u64
    }

    fn later(&mut self, ms: u64, end: End) {
        self.count += 1;
        self.ends.insert((self.now() + ms, self.count), end);
    }

    fn end(&mut self, now: u64) {
        while let Some(entry) = self.ends.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                End::Boot(member) => self.boot(member),
                End::Crash(member) => self.crash(member, true),
                End::Kill(member) => self.crash(member, false),
                End::Mend(from, to) => self.cut(from, to, false),
                End::Release(a, b) => self.hold(a, b, false),
                End::Fast(a, b) => {
                    let latency = Duration::from_millis(self.world.plan.latency_ms);
                    self.sim.set_link_max_message_latency(name(a), name(b), latency);
                }
                End::Lossless => self.sim.set_fail_rate(0.0),
                End::FastDisk(member) => self.set_latency(member, 0),
            }
        }
    }

    /// Ends all that is wrong. What the members have forgotten by then is gone for good.
    fn heal(&mut self) {
        self.end(u64::MAX);
        self.world.links.mend();
        for member in self.members() {
            self.world.skew(member).store(0, Ordering::SeqCst);
            for other in self.members().filter(|other| *other > member) {
                self.sim.release(name(member), name(other));
            }
        }
        self.orders = None;
        self.world.set_phase(Phase::Healed);
    }

    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Wipe(member) => {
                self.crash(member, true);
                self.off.insert(member, true);
                self.world.machine(member, |machine| machine.disk = MemoryDisk::new());
                self.set_latency(member, 0);
                self.ends.retain(|_, end| *end != End::Boot(member));
            }
            Wish::Start(member) => self.boot(member),
        }
    }

    fn set_latency(&mut self, member: u32, more: u64) {
        let ms = self.random.random_range(0..=self.world.plan.fsync_ms) + more;
        self.world.machine(member, |machine| machine.disk.set_latency(Duration::from_millis(ms)));
    }

    /// Ends a machine, or only the process on it.
    fn crash(&mut self, member: u32, power: bool) {
        self.world.links.set_listening(member, false);
        self.world.lead(member, None);
        let seed = self.random.random();
        // Before the process ends: one that is killed clears nothing up.
        self.world.machine(member, |machine| {
            (machine.door, machine.doomed) = (None, false);
            if power { machine.disk.crash(seed) } else { machine.disk.kill() }
        });
        self.world.links.end(member);
        self.sim.crash(name(member));
        self.off.insert(member, true);
    }

    fn boot(&mut self, member: u32) {
        let out = self.world.machine(member, |machine| machine.out) == Some(true);
        if !out && self.off.insert(member, false) == Some(true) {
            self.sim.bounce(name(member));
        }
    }

    fn is_off(&self, member: u32) -> bool {
        self.off.get(&member) == Some(&true)
    }

    /// A member that runs and is not being replaced.
    fn victim(&self, whom: Whom) -> Option<u32> {
        let member = match whom {
            Whom::Leader => self.world.leader()?,
            Whom::Member(member) => member,
        };
        let out = self.world.machine(member, |machine| machine.out) == Some(true);
        (!out && !self.is_off(member)).then_some(member)
    }

    fn down(&mut self, member: u32, power: bool, ms: u64) {
        self.crash(member, power);
        self.later(ms, End::Boot(member));
    }

    fn cut(&mut self, from: u32, to: u32, more: bool) {
        self.world.links.cut(from, to, more);
        let (there, back) = (self.world.links.is_cut(from, to), self.world.links.is_cut(to, from));
        let (a, b) = (name(from), name(to));
        // What was held is lost: a way is either cut or slow.
        if self.held.get(&(from.min(to), from.max(to))).is_some_and(|count| *count > 0) {
            self.sim.release(&*a, &*b);
        }
        match (there, back) {
            (true, true) => self.sim.partition(&*a, &*b),
            (true, false) => self.sim.partition_oneway(&*a, &*b),
            (false, true) => {
                self.sim.repair(&*a, &*b);
                self.sim.partition_oneway(&*b, &*a);
            }
            (false, false) => self.sim.repair(&*a, &*b),
        }
    }

    fn cut_for(&mut self, from: u32, to: u32, ms: u64) {
        self.cut(from, to, true);
        self.later(ms, End::Mend(from, to));
    }

    fn hold(&mut self, a: u32, b: u32, more: bool) {
        let count = self.held.entry((a.min(b), a.max(b))).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        let held = *count > 0;
        if self.world.links.is_cut(a, b) || self.world.links.is_cut(b, a) {
            return;
        }
        if held { self.sim.hold(name(a), name(b)) } else { self.sim.release(name(a), name(b)) }
    }

    /// The ways between a member that runs and all others.
    fn ways(&self, whom: Whom) -> Vec<(u32, u32)> {
        let ways = |own: u32| self.members().filter(move |other| *other != own).map(move |other| (own, other));
        self.victim(whom).map(ways).into_iter().flatten().collect()
    }

    fn act(&mut self, step: Step) {
        let Step { act, ms, .. } = step;
        let at = self.now() * 1000;
        let mark = Mark { at, until: at + ms * 1000, what: format!("{act:?}") };
        self.world.write(|history| history.marks.push(mark));
        match act {
            Act::Crash(whom) => self.victim(whom).into_iter().for_each(|member| self.down(member, true, ms)),
            Act::Kill(whom) => self.victim(whom).into_iter().for_each(|member| self.down(member, false, ms)),
            Act::CrashAll => {
                for member in self.members().filter_map(|member| self.victim(Whom::Member(member))).collect::<Vec<_>>()
                {
                    self.down(member, true, ms / 4);
                }
            }
            Act::CrashWithin(whom, changes) => self.doom(whom, Some(changes), ms),
            Act::Restart(whom) => self.doom(whom, None, ms),
            Act::Skew(whom, skew) => self.victim(whom).into_iter().for_each(|member| {
                self.world.skew(member).store(skew, Ordering::SeqCst);
            }),
            Act::Transfer => self.order(Order::Transfer),
            Act::Compact => self.order(Order::Compact),
            Act::Replace(member) => self.order(Order::Replace(member)),
            act => self.disturb(&act, ms),
        }
    }

    /// What happens to networks and disks.
    fn disturb(&mut self, act: &Act, ms: u64) {
        match *act {
            Act::Cut(whom) => {
                for (own, other) in self.ways(whom) {
                    self.cut_for(own, other, ms);
                    self.cut_for(other, own, ms);
                }
            }
            Act::Mute(whom) => self.ways(whom).into_iter().for_each(|(own, other)| self.cut_for(own, other, ms)),
            Act::Deaf(whom) => self.ways(whom).into_iter().for_each(|(own, other)| self.cut_for(other, own, ms)),
            Act::Bridge(a, b) => {
                self.cut_for(a, b, ms);
                self.cut_for(b, a, ms);
            }
            Act::Hold(whom) => {
                for (own, other) in self.ways(whom) {
                    self.hold(own, other, true);
                    self.later(ms, End::Release(own, other));
                }
            }
            Act::Slow(a, b) => {
                self.sim.set_link_max_message_latency(name(a), name(b), SLOW);
                self.later(ms, End::Fast(a, b));
            }
            Act::Loss(rate) => {
                self.sim.set_fail_rate(f64::from(rate) / 1000.0);
                self.later(ms, End::Lossless);
            }
            Act::SlowDisk(whom, latency) => {
                if let Some(member) = self.victim(whom) {
                    self.set_latency(member, latency);
                    self.later(ms, End::FastDisk(member));
                }
            }
            _ => {}
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }

    /// A process that is about to end: after so many more changes of its disk, or in the friendly way.
    fn doom(&mut self, whom: Whom, changes: Option<u64>, ms: u64) {
        let Some(member) = self.victim(whom) else { return };
        let life = self.world.machine(member, |machine| {
            machine.doomed = true;
            machine.life
        });
        match changes {
            Some(changes) => {
                self.world.machine(member, |machine| machine.disk.set_fuse(changes));
                self.later(ms / 4, End::Crash(member));
            }
            None => {
                self.order(Order::Shutdown(member, life.unwrap_or(0)));
                self.later(FRIENDLY, End::Kill(member));
            }
        }
        self.later(FRIENDLY + ms, End::Boot(member));
    }
}

//! Performs faults on a group, one after the other, and waits after each until the group works again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::convert::ask;
use super::group::Group;
use super::image::Choice;
use super::net::Deaf;
use super::recorder::Recorder;
use super::schedule::{Kind, Step};
use crate::store::evidence::Findings;
use crate::store::history::*;

/// Writes that have to be acknowledged until it counts as working.
const PROGRESS: u64 = 10;
/// What is left of a disk that is nearly full: less than members want to have.
const NEARLY_FULL: u64 = 12 << 20;

/// Performs faults.
pub struct Chaos {
    /// On whom.
    pub group: Arc<Group>,
    /// Where they are written down.
    pub recorder: Arc<Recorder>,
    /// What does not hold: members that end by themselves, groups that do not come back.
    pub findings: Findings,
    /// How long the group may take to work again once nothing is wrong any more.
    pub patience: Duration,
}

async fn ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

impl Chaos {
    /// One fault, and the recovery from it.
    pub async fn step(&mut self, step: &Step) {
        ms(step.quiet_ms).await;
        let leader = if step.leader { self.group.leader().await } else { None };
        let victim = leader.unwrap_or(step.victim);
        let other = if step.other == victim { victim % self.group.members() + 1 } else { step.other };
        let begun = self.recorder.now();
        let what = describe(step, victim, other, leader.is_some());
        println!("{:>7.2} s  {what}", begun as f64 / 1e6);
        let done = self.perform(step, victim, other).await;
        self.recorder.mark(begun, what.clone());
        if let Err(error) = done {
            self.findings.add("fault", || format!("{what}: {error:#}"));
        }
        self.recover(&what).await;
    }

    async fn perform(&self, step: &Step, victim: u32, other: u32) -> Result<()> {
        let group = &self.group;
        let all = || 1..=group.members();
        match step.kind {
            Kind::Kill => {
                group.kill(victim)?;
                ms(step.ms).await;
                group.open(victim, &[])
            }
            Kind::KillAll => {
                group.kill_all(&all().collect::<Vec<_>>())?;
                ms(step.ms / 4).await;
                all().try_for_each(|member| group.open(member, &[]))
            }
            Kind::Pause => {
                group.pause(victim, true)?;
                ms(step.ms).await;
                group.pause(victim, false)
            }
            Kind::Cut | Kind::OneWay | Kind::Bridge | Kind::Loss10 | Kind::Loss30 => {
                self.cut(step, victim, other)?;
                ms(step.ms).await;
                group.net.heal()
            }
            Kind::SlowDisk | Kind::Versions => {
                let newer = format!("feature-level={}", group.level() + 1);
                let words = if step.kind == Kind::Versions { ["--set", &newer] } else { ["--fault", "slow-fsync=60"] };
                group.terminate(victim).await?;
                group.open(victim, &words)?;
                ms(step.ms).await;
                group.terminate(victim).await?;
                group.open(victim, &[])
            }
            Kind::Replace => group.replace(victim).await,
            Kind::Compact => self.compact(other, step.coin.then_some(victim)).await,
            Kind::Away => self.away(step, victim).await,
            Kind::Rolling => {
                for member in all() {
                    group.terminate(member).await?;
                    group.open(member, &[])?;
                    self.answers(member).await?;
                }
                Ok(())
            }
            Kind::Transfer => {
                let leader = group.leader().await.unwrap_or(victim);
                let client = group.reach(leader).await?;
                // That nobody can take over at the moment is an answer too.
                let _ = client.transfer_leadership().await;
                Ok(())
            }
            Kind::Power => self.power(step, &self.hit(step, victim)).await,
            Kind::PowerAgain => {
                let members = self.hit(step, victim);
                group.kill_all(&members)?;
                members.iter().try_for_each(|member| group.open(*member, &[]))?;
                // In the middle of their start, or soon after it.
                ms(step.ms / 4).await;
                self.power(step, &members).await
            }
            Kind::FullDisk => self.full(step, victim).await,
            Kind::Upgrade => self.upgrade(step, victim).await,
        }
    }

    fn cut(&self, step: &Step, victim: u32, other: u32) -> Result<()> {
        let net = &self.group.net;
        let others: Vec<u32> = (1..=self.group.members()).filter(|member| *member != victim).collect();
        let deaf = |to: &[u32], loss| Deaf { to: to.to_vec(), loss };
        let all_deaf = |members: &[u32]| members.iter().try_for_each(|member| net.deafen(*member, &deaf(&[victim], 0)));
        match step.kind {
            Kind::Cut => {
                net.deafen(victim, &deaf(&others, 0))?;
                all_deaf(&others)
            }
            Kind::OneWay if step.coin => net.deafen(victim, &deaf(&others, 0)),
            Kind::OneWay => all_deaf(&others),
            Kind::Bridge => {
                net.deafen(victim, &deaf(&[other], 0))?;
                net.deafen(other, &deaf(&[victim], 0))
            }
            kind => {
                let loss = if kind == Kind::Loss10 { 10 } else { 30 };
                (1..=self.group.members()).try_for_each(|member| net.deafen(member, &deaf(&[], loss)))
            }
        }
    }

    /// Compacts what every watcher of all keys, or at least one, has been told of; a member may die of it.
    async fn compact(&self, via: u32, victim: Option<u32>) -> Result<()> {
        let (slowest, fastest) = self.recorder.told_range();
        let revision = (slowest + (fastest.saturating_sub(slowest)) / 2).max(2);
        let (begun, life) = (self.recorder.now(), self.group.life(via));
        let client = self.group.reach(via).await?;
        let call = Call::Compact(revision);
        let answer = ask(&client, &call).await;
        let (id, ended) = (self.recorder.id(), self.recorder.now());
        self.recorder.operation(Operation { id, client: 0, member: via, life, begun, ended, call, answer });
        if let Some(victim) = victim {
            ms(20).await;
            self.group.kill(victim)?;
            self.group.open(victim, &[])?;
        }
        Ok(())
    }

    async fn away(&self, step: &Step, victim: u32) -> Result<()> {
        self.group.kill(victim)?;
        ms(step.ms).await;
        self.group.open(victim, &[])?;
        if step.coin {
            // Perhaps in the middle of a snapshot.
            ms(150).await;
            self.group.kill(victim)?;
            self.group.open(victim, &[])?;
        }
        Ok(())
    }

    /// Members that a fault hits: one, or all of them.
    fn hit(&self, step: &Step, victim: u32) -> Vec<u32> {
        if step.coin { (1..=self.group.members()).collect() } else { vec![victim] }
    }

    /// Ends members and takes from them, as they are at that moment, what they had not fsynced: all of it, or some.
    async fn power(&self, step: &Step, members: &[u32]) -> Result<()> {
        let group = &self.group;
        group.kill_all(members)?;
        let mut choice = if step.ms.is_multiple_of(3) { Choice::Nothing } else { Choice::Some(step.ms) };
        for member in members {
            let lost = group.lose(*member, &mut choice)?;
            println!(
                "           m{member} lost {} bytes of {} files, {} directories",
                lost.bytes, lost.files, lost.dirs
            );
        }
        ms(step.ms / 4).await;
        members.iter().try_for_each(|member| group.open(*member, &[]))
    }

    /// Fills disks, to the last byte or nearly so. Reads go on meanwhile.
    async fn full(&self, step: &Step, victim: u32) -> Result<()> {
        let disks = self.group.disks().context("the members have no disks of their own")?;
        let members = self.hit(step, victim);
        let leave = if step.ms.is_multiple_of(2) { 0 } else { NEARLY_FULL };
        let fill = async {
            members.iter().try_for_each(|member| disks.fill(*member, leave))?;
            ms(step.ms).await;
            for member in 1..=self.group.members() {
                self.answers(member).await.context("with a full disk")?;
            }
            Ok(())
        };
        let filled: Result<()> = fill.await;
        members.iter().try_for_each(|member| disks.free(*member))?;
        filled
    }

    /// Exchanges all members for newer ones, perhaps one of them to and fro first; then nothing goes back any more.
    async fn upgrade(&self, step: &Step, victim: u32) -> Result<()> {
        let (group, old) = (&self.group, self.group.level());
        let level = |level: u32| format!("feature-level={level}");
        let exchange = async |member: u32, level: &str| {
            group.terminate(member).await?;
            group.open(member, &["--set", level])?;
            self.answers(member).await
        };
        if step.coin {
            exchange(victim, &level(old + 1)).await?;
            exchange(victim, &level(old)).await?;
        }
        for member in 1..=group.members() {
            exchange(member, &level(old + 1)).await?;
        }
        group.set_level(old + 1);
        let deadline = Instant::now() + self.patience;
        while group.status(victim).await.map_or(0, |status| status.feature_level) != old + 1 {
            ensure!(Instant::now() < deadline, "the feature level is not raised");
            let _ = group.reach(victim).await?.upgrade().await;
            ms(50).await;
        }
        // An older one would not understand what is written from now on.
        group.terminate(victim).await?;
        group.open(victim, &["--set", &level(old)])?;
        let deadline = Instant::now() + self.patience;
        while !group.ended().contains(&victim) {
            ensure!(Instant::now() < deadline, "an older member runs in an upgraded group");
            ms(20).await;
        }
        group.kill(victim)?;
        group.open(victim, &[])
    }

    /// Waits until a member answers linearizable reads.
    async fn answers(&self, member: u32) -> Result<()> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Ok(client) = self.group.connect(member).await
                && client.linearizable_revision().await.is_ok()
            {
                return Ok(());
            }
            let gone = self.group.ended().contains(&member);
            let late = Instant::now() > deadline || gone;
            ensure!(!late, "member {member} does not answer:\n{}", self.group.tail(member));
            ms(20).await;
        }
    }

    /// Waits until every member answers and writes are acknowledged again.
    pub(super) async fn recover(&mut self, after: &str) {
        let begun = Instant::now();
        let target = self.recorder.acknowledged() + PROGRESS;
        let working = async {
            for member in 1..=self.group.members() {
                self.answers(member).await?;
            }
            while self.recorder.acknowledged() < target {
                ensure!(begun.elapsed() < self.patience, "no writes are acknowledged");
                ms(10).await;
            }
            Ok(())
        };
        let working: Result<()> = working.await;
        if let Err(error) = working {
            self.findings.add("availability", || format!("after {after}: {error:#}"));
        }
        for member in self.group.ended() {
            let tail = self.group.tail(member);
            self.findings.add("ended", || format!("member {member} ended by itself after {after}:\n{tail}"));
            // It is gone; the run goes on with it started again.
            let _ = self.group.kill(member);
            let _ = self.group.open(member, &[]);
        }
    }
}

fn describe(step: &Step, victim: u32, other: u32, leads: bool) -> String {
    let who = if leads { format!("leader m{victim}") } else { format!("m{victim}") };
    match step.kind {
        Kind::Kill => format!("kill -9 {who}"),
        Kind::KillAll => "kill -9 all".to_owned(),
        Kind::Pause => format!("SIGSTOP {who}"),
        Kind::Cut => format!("cut off {who}"),
        Kind::OneWay if step.coin => format!("{who} hears nobody"),
        Kind::OneWay => format!("nobody hears {who}"),
        Kind::Bridge => format!("{who} and m{other} do not hear each other"),
        Kind::Loss10 => "10 % loss".to_owned(),
        Kind::Loss30 => "30 % loss".to_owned(),
        Kind::SlowDisk => format!("slow disk of {who}"),
        Kind::Versions => format!("{who} of the next version"),
        Kind::Replace => format!("replace {who}"),
        Kind::Compact if step.coin => format!("compact, kill -9 {who}"),
        Kind::Compact => "compact".to_owned(),
        Kind::Away if step.coin => format!("{who} away, killed again on return"),
        Kind::Away => format!("{who} away"),
        Kind::Rolling => "rolling restart".to_owned(),
        Kind::Transfer => "hand over leadership".to_owned(),
        Kind::Power if step.coin => "power failure of all".to_owned(),
        Kind::Power => format!("power failure of {who}"),
        Kind::PowerAgain if step.coin => "kill -9 all, and a power failure as they come back".to_owned(),
        Kind::PowerAgain => format!("kill -9 {who}, and a power failure as it comes back"),
        Kind::FullDisk if step.coin => "full disks".to_owned(),
        Kind::FullDisk => format!("full disk of {who}"),
        Kind::Upgrade => "upgrade".to_owned(),
    }
}

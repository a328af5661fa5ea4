//! One end of a reign, by a kill or a pause of the leading master, and what it cost.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};

use super::audit::Audit;
use super::load::{Load, pod};
use super::{NAMESPACE, since};
use crate::clients::PATIENCE;
use crate::cluster::Cluster;
use crate::command::eventually;
use crate::lives::{Lives, Paused};

/// Longest time that anything may take before the run is given up.
const LIMIT: Duration = Duration::from_secs(60);
/// How long the writes are followed at least.
const FOLLOWED: Duration = Duration::from_secs(3);

/// What it cost, in milliseconds from the instant of the kill or the pause.
#[derive(Clone, Debug)]
pub struct Round {
    /// The master that had led.
    pub deposed: usize,
    /// If it was paused, not killed: requests that it recorded in its audit log after it went on.
    pub recorded: Option<usize>,
    /// Longest time without an acknowledged write on the others.
    pub pause: f64,
    /// The new leader's fence was committed.
    pub fence: f64,
    /// The first pod that the new leader bound.
    pub bound: f64,
    /// A pod created afterwards runs.
    pub running: f64,
    /// Requests to the other masters that failed.
    pub failed: usize,
    /// What the first of them was told.
    pub why: Option<String>,
}

impl Round {
    /// Whether its leader was paused, not killed.
    pub fn paused(&self) -> bool {
        self.recorded.is_some()
    }

    /// For people.
    pub fn line(&self) -> String {
        let Round { deposed, recorded, pause, fence, bound, running, failed, why } = self;
        let how = match recorded {
            None => "dead".to_owned(),
            Some(recorded) => format!("paused until the new fence, {recorded} requests in its audit log since"),
        };
        let why = why.as_ref().map(|why| format!(", the first: {why}")).unwrap_or_default();
        format!(
            "master-{deposed} {how}; writes paused for {pause:.0} ms; new fence after {fence:.0}, first pod bound after \
             {bound:.0}, new pod running after {running:.0}; {failed} requests failed{why}"
        )
    }

    /// The figures of all rounds, by name.
    pub fn columns(rounds: &[Round]) -> [(&'static str, Vec<f64>); 4] {
        let all = |of: fn(&Round) -> f64| rounds.iter().map(of).collect();
        [
            ("write pause", all(|round| round.pause)),
            ("new leader's fence", all(|round| round.fence)),
            ("first pod bound", all(|round| round.bound)),
            ("new pod running", all(|round| round.running)),
        ]
    }
}

/// Kills the leader, or pauses it until another one leads, and waits until everything works again without it.
pub async fn depose_leader(cluster: &Cluster, load: &Load, lives: &mut Lives, pause: bool) -> Result<Round> {
    let leader = tokio::task::block_in_place(|| cluster.leader())?;
    lives.check(cluster, &format!("before {leader} was deposed"));
    let deposed: usize = leader.trim_start_matches("master-").parse()?;
    let mut audit = Audit::of(cluster);
    audit.read()?;
    let old = audit.fences.last().copied().unwrap_or_default();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let killed = Instant::now();
    let paused = if pause { Some(Paused::stop(cluster, &leader)?) } else { None };
    if paused.is_none() {
        lives.kill(cluster, &leader)?;
    }
    let survivors: Vec<usize> = (1..=cluster.masters()).filter(|master| *master != deposed).collect();
    let created = tokio::time::timeout(LIMIT, create_after(load, &survivors, deposed));
    let resumed = resume(paused, &mut audit, old, deposed);
    let (created, resumed) = tokio::join!(created, resumed);
    let name = created.context("no pod could be created afterwards")??;
    let before = resumed?;
    let running = match wait(|| seen_first(load, &survivors, |pods| pods.running(|pod| pod == name))).await {
        Ok(running) => running,
        Err(error) => {
            let api: Api<Pod> = Api::namespaced(load.client(survivors[0]).clone(), NAMESPACE);
            let status = api.get(&name).await.map(|pod| pod.status.unwrap_or_default());
            return Err(error.context(format!("the pod {name}, created afterwards, does not run: {status:?}")));
        }
    };
    tokio::time::sleep(FOLLOWED.saturating_sub(killed.elapsed())).await;
    audit.read()?;
    let Some(fence) = audit.fences.range(old + 1..).next().copied() else {
        bail!("no fence after that of revision {old} is in the audit logs");
    };
    let bound = wait(|| seen_first(load, &survivors, |pods| pods.first_bound(fence))).await?;
    let pause = longest_pause(&load.ledger().instants(deposed), killed);
    ensure!(pause.is_finite(), "no write was acknowledged afterwards");
    let mut failures = load.ledger().failures_since(killed);
    failures.retain(|failed| failed.master != deposed);
    let api: Api<Pod> = Api::namespaced(load.client(survivors[0]).clone(), NAMESPACE);
    let _ = api.delete(&name, &DeleteParams::default()).await;
    Ok(Round {
        deposed,
        recorded: before.map(|before| audit.lines[deposed - 1] - before),
        pause,
        fence: audit.fence_times.get(&fence).map_or(f64::NAN, |at| (at - clock) * 1000.0),
        bound: since(bound, killed),
        running: since(running, killed),
        failed: failures.len(),
        why: failures.into_iter().next().map(|failed| failed.why),
    })
}

/// Lets a paused leader go on once the audit logs tell of a fence after its own; how long its log was then.
async fn resume(paused: Option<Paused>, audit: &mut Audit, old: u64, deposed: usize) -> Result<Option<usize>> {
    let Some(paused) = paused else { return Ok(None) };
    let deadline = Instant::now() + LIMIT;
    while audit.fences.range(old + 1..).next().is_none() {
        ensure!(Instant::now() < deadline, "no new fence within {} s of the leader's pause", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
        audit.read()?;
    }
    drop(paused);
    Ok(Some(audit.lines[deposed - 1]))
}

/// Creates a pod through each survivor, as soon as one of them can; its name.
async fn create_after(load: &Load, survivors: &[usize], deposed: usize) -> Result<String> {
    let tag: u32 = rand::random();
    let attempts = survivors.iter().map(|master| {
        let api: Api<Pod> = Api::namespaced(load.client(*master).clone(), NAMESPACE);
        Box::pin(async move {
            for number in 0u32.. {
                let name = format!("after-{deposed}-{tag:x}-{master}-{number}");
                let wanted = pod(&name)?;
                let params = PostParams::default();
                if let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, api.create(&params, &wanted)).await {
                    return Ok::<_, anyhow::Error>(name);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            bail!("gave up")
        })
    });
    Ok(futures::future::select_ok(attempts).await?.0)
}

/// The earliest of what the survivors' watches tell.
fn seen_first(
    load: &Load,
    survivors: &[usize],
    of: impl Fn(&super::observe::Pods) -> Option<Instant>,
) -> Option<Instant> {
    survivors.iter().filter_map(|master| of(load.pods(*master))).min()
}

async fn wait(found: impl Fn() -> Option<Instant>) -> Result<Instant> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(at) = found() {
            return Ok(at);
        }
        ensure!(Instant::now() < deadline, "not within {} s", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The longest time between acknowledgements, the first of it counted from the kill.
fn longest_pause(acknowledged: &[Instant], killed: Instant) -> f64 {
    let mut last = killed;
    let mut longest = f64::NAN;
    for at in acknowledged.iter().filter(|at| **at >= killed) {
        longest = longest.max(since(*at, last));
        last = *at;
    }
    longest
}

/// Waits until all masters are members that have everything.
pub async fn all_caught_up(cluster: &Cluster) -> Result<()> {
    tokio::task::block_in_place(|| {
        eventually(LIMIT, || {
            let members = cluster.members()?;
            ensure!(members.len() == cluster.masters(), "{members:?}");
            let well = |member: &serde_json::Value| member["healthy"] == true && member["lag"].as_u64() < Some(200);
            ensure!(members.iter().all(well), "{members:?}");
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_begins_at_the_kill() {
        let killed = Instant::now();
        let at = |ms: u64| killed + Duration::from_millis(ms);
        let pause = longest_pause(&[killed - Duration::from_millis(50), at(300), at(310), at(900), at(905)], killed);
        assert!((pause - 590.0).abs() < 1e-6, "{pause}");
        assert!((longest_pause(&[at(700), at(710)], killed) - 700.0).abs() < 1e-6);
        assert!(longest_pause(&[], killed).is_nan());
    }
}

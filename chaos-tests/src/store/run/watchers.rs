//! Watchers that follow all changes, or some, on one member after another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_raftstore::port::WatchStream;
use trireme_raftstore::{StoreError, WatchRequest};

use super::convert;
use super::group::Group;
use super::recorder::Recorder;
use crate::store::history::*;

/// A silence after which a watcher tries another member.
const SILENCE: Duration = Duration::from_millis(1500);

/// What one watcher does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its number.
    pub number: u32,
    /// Which keys.
    pub keys: Keys,
    /// Where it begins.
    pub member: u32,
    /// Whether it stays there, whatever happens.
    pub stays: bool,
    /// Whether it takes its time with what it is told.
    pub slow: bool,
    /// Whether it begins with "from now on".
    pub from_now: bool,
}

/// Follows until it was told of everything that happened in the run.
pub async fn watcher(plan: Plan, seed: u64, group: Arc<Group>, recorder: Arc<Recorder>) {
    let mut random = StdRng::seed_from_u64(seed ^ (u64::from(plan.number) << 40));
    let mut member = plan.member;
    let mut next = if plan.from_now { None } else { Some(1) };
    let mut deadline = None;
    loop {
        if let Some(last) = recorder.last() {
            let end = *deadline.get_or_insert_with(|| Instant::now() + recorder.patience());
            if next.is_some_and(|next| next > last) || Instant::now() > end {
                return;
            }
        }
        let (asked, life) = (recorder.now(), group.life(member));
        let request = WatchRequest { range: convert::range(&plan.keys), start_revision: next };
        let opening = async { group.connect(member).await?.watch(request).await.map_err(anyhow::Error::from) };
        let opened = tokio::time::timeout(SILENCE, opening).await;
        let mut session = Session {
            watcher: plan.number,
            member,
            life,
            keys: plan.keys.clone(),
            start: next,
            asked,
            opened: recorder.now(),
            batches: vec![],
            end: End::Left,
        };
        match opened {
            Ok(Ok(mut stream)) => {
                session.end = follow(&plan, &mut stream, &mut session.batches, &mut random, &recorder).await;
            }
            Ok(Err(error)) => session.end = refused(error),
            Err(_) => {}
        }
        if let Some(batch) = session.batches.last() {
            next = Some(next.unwrap_or(0).max(batch.revision + 1));
        }
        if let End::Compacted { compacted, .. } = session.end {
            // What is missing now is what others were told of.
            next = Some(compacted);
        }
        if !session.batches.is_empty() || !matches!(session.end, End::Broken(_)) {
            recorder.session(session);
        } else {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        if !plan.stays {
            member = random.random_range(1..=group.members());
        }
    }
}

fn refused(error: anyhow::Error) -> End {
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Compacted { requested, compacted }) => {
            End::Compacted { requested: *requested, compacted: *compacted }
        }
        _ => End::Broken(format!("{error:#}")),
    }
}

async fn follow(
    plan: &Plan,
    stream: &mut WatchStream,
    batches: &mut Vec<Batch>,
    random: &mut StdRng,
    recorder: &Recorder,
) -> End {
    let until = Instant::now() + Duration::from_millis(random.random_range(2_000..12_000));
    loop {
        match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(batch))) => {
                let batch = convert::batch(recorder.now(), &batch);
                let through = batch.revision;
                // Of progress without news one note is enough.
                if !batch.events.is_empty() || batches.last().is_none_or(|last| last.revision != through) {
                    batches.push(batch);
                }
                if matches!(&plan.keys, Keys::Prefix(prefix) if "/r/".starts_with(prefix.as_str())) {
                    recorder.told(plan.number as usize, through);
                }
                if recorder.last().is_some_and(|last| through >= last) {
                    return End::Left;
                }
            }
            Ok(Some(Err(error))) => return refused(error.into()),
            Ok(None) => return End::Broken("the stream ended".to_owned()),
            // Nothing happens at the end, so that a silence then tells nothing.
            Err(_) => return End::Left,
        }
        if recorder.last().is_none() {
            if plan.slow {
                tokio::time::sleep(Duration::from_millis(random.random_range(50..900))).await;
            }
            if !plan.stays && Instant::now() > until {
                return End::Left;
            }
        }
    }
}

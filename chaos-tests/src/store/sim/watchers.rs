//! Watchers of a simulation: each follows some keys on one member after another.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::Instant;
use trireme_raftstore::{StoreError, Watch, WatchBatch, WatchRequest};

use super::world::World;
use crate::store::history::*;
use crate::store::run::convert;

/// A silence after which a watcher tries another member.
const SILENCE: Duration = Duration::from_millis(1200);
/// How long a watcher may take at the end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Batches between a member and a watcher.
const AHEAD: usize = 4;

type Piece = Result<WatchBatch, StoreError>;

/// Hands on what a watch tells, in the member's process.
async fn pump(mut watch: Watch, pieces: mpsc::Sender<Piece>) {
    while let Some(piece) = watch.next().await {
        if pieces.send(piece).await.is_err() {
            return;
        }
    }
}

/// Opens a watch on a member.
async fn open(world: &World, member: u32, request: WatchRequest) -> Result<mpsc::Receiver<Piece>, End> {
    let opened = world.on(member, |store| async move {
        let watch = store.watch(request).await?;
        let (pieces, receiver) = mpsc::channel(AHEAD);
        tokio::task::spawn_local(pump(watch, pieces));
        Ok(receiver)
    });
    match tokio::time::timeout(SILENCE, opened).await {
        Ok(Ok(Ok(receiver))) => Ok(receiver),
        Ok(Ok(Err(error))) => Err(refused(error)),
        Ok(Err(gone)) => Err(End::Broken(format!("{gone:?}"))),
        Err(_) => Err(End::Broken("not opened in time".into())),
    }
}

fn refused(error: StoreError) -> End {
    match error {
        StoreError::Compacted { requested, compacted } => End::Compacted { requested, compacted },
        error => End::Broken(error.to_string()),
    }
}

/// Follows until it was told of everything that happened.
pub async fn watcher(number: u32, keys: Keys, slow: bool, world: Arc<World>) {
    let mut random = StdRng::seed_from_u64(world.plan.seed ^ (u64::from(number) << 40));
    let mut next = if number == 3 { None } else { Some(1) };
    let (mut deadline, mut member) = (None, number % world.plan.members + 1);
    loop {
        if let Some(last) = world.last() {
            let end = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            if next.is_some_and(|next| next > last) || Instant::now() > end {
                return;
            }
        }
        let (asked, life) = (world.now(), world.machine(member, |machine| machine.life).unwrap_or(0));
        let request = WatchRequest { range: convert::range(&keys), start_revision: next };
        let opened = open(&world, member, request).await;
        let (start, end, at) = (next, End::Left, world.now());
        let mut session = Session {
            watcher: number,
            member,
            life,
            keys: keys.clone(),
            start,
            asked,
            opened: at,
            batches: vec![],
            end,
        };
        match opened {
            Ok(mut pieces) => {
                session.end = follow(&world, &mut pieces, &mut session.batches, slow, &mut random).await;
            }
            Err(end) => session.end = end,
        }
        if let Some(batch) = session.batches.last() {
            next = Some(next.unwrap_or(0).max(batch.revision + 1));
        }
        if let End::Compacted { compacted, .. } = session.end {
            // What is missing now is what others were told of.
            next = Some(compacted);
        }
        if session.batches.is_empty() && matches!(session.end, End::Broken(_)) {
            tokio::time::sleep(Duration::from_millis(40)).await;
        } else {
            world.write(|history| history.sessions.push(session));
        }
        member = random.random_range(1..=world.plan.members);
    }
}

async fn follow(
    world: &World,
    pieces: &mut mpsc::Receiver<Piece>,
    batches: &mut Vec<Batch>,
    slow: bool,
    random: &mut StdRng,
) -> End {
    let until = Instant::now() + Duration::from_millis(random.random_range(500..6_000));
    loop {
        match tokio::time::timeout(SILENCE, pieces.recv()).await {
            Ok(Some(Ok(batch))) => {
                let batch = convert::batch(world.now(), &batch);
                let through = batch.revision;
                // Of progress without news one note is enough.
                if !batch.events.is_empty() || batches.last().is_none_or(|last| last.revision != through) {
                    batches.push(batch);
                }
                if world.last().is_some_and(|last| through >= last) {
                    return End::Left;
                }
            }
            Ok(Some(Err(error))) => return refused(error),
            Ok(None) => return End::Broken("the member ended".to_owned()),
            // Nothing happens at the end, so that a silence then tells nothing.
            Err(_) => return End::Left,
        }
        if world.last().is_none() {
            if slow {
                tokio::time::sleep(Duration::from_millis(random.random_range(50..900))).await;
            }
            if Instant::now() > until {
                return End::Left;
            }
        }
    }
}

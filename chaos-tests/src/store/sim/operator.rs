//! Whoever runs the group in a simulation: founds it, has clients begin and end, changes its members, and looks at the end
//! whether all is well.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use trireme_raftstore::{NewMember, Role, Store};

use super::PROGRESS;
use super::clients::{client, operation};
use super::member::address;
use super::net::name;
use super::watchers::watcher;
use super::world::{Phase, Wish, World};
use crate::store::history::*;

/// How long the group may take to come together.
const FOUNDING: Duration = Duration::from_secs(30);
/// How long it may take to work again once everything is well.
const HEALING: Duration = Duration::from_secs(40);
/// How long members may take to agree once nobody asks for anything.
const AGREEING: Duration = Duration::from_secs(20);
/// How long one request of the operator may take.
const PATIENCE: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(100);

/// What the operator is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Hands leadership over.
    Transfer,
    /// Forgets history.
    Compact,
    /// Replaces a member.
    Replace(u32),
    /// Ends a life of a member's process in the friendly way.
    Shutdown(u32, u32),
}

/// Asks members, one after the other, until one does it or the time is over.
async fn anywhere<T, F>(
    world: &World,
    but: u32,
    patience: Duration,
    ask: impl Fn(Store) -> F + Clone + Send + 'static,
) -> Option<T>
where
    T: Send + 'static,
    F: Future<Output = Option<T>> + Send + 'static,
{
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        for member in (1..=world.plan.members).filter(|member| *member != but) {
            let asked = world.on(member, ask.clone());
            if let Ok(Ok(Some(done))) = tokio::time::timeout(PATIENCE, asked).await {
                return Some(done);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    None
}

/// Admits a member and switches its machine on.
async fn admit(world: &World, member: u32) -> bool {
    let ask = move |store: Store| {
        let (name, peer_address) = (name(member), address(member));
        let feature_level = trireme_raftstore::FEATURE_LEVEL;
        let new = NewMember { name, peer_address, client_address: String::new(), feature_level };
        async move { store.add_member(new).await.ok() }
    };
    let Some(grant) = anywhere(world, member, FOUNDING, ask).await else { return false };
    world.machine(member, |machine| {
        machine.id = grant.id;
        machine.grant = Some(grant);
        machine.out = false;
    });
    true
}

/// Whether a member votes by now.
async fn votes(world: &World, member: u32, patience: Duration) -> bool {
    let id = world.machine(member, |machine| machine.id).unwrap_or(0);
    let ask = move |store: Store| async move {
        let members = store.members().await.ok()?;
        members.iter().any(|m| m.id == id && m.role != Role::Learner).then_some(())
    };
    anywhere(world, 0, patience, ask).await.is_some()
}

/// Founds the group; its revision.
async fn found(world: &World) -> Option<Revision> {
    for member in 2..=world.plan.members {
        if !admit(world, member).await || !votes(world, member, FOUNDING).await {
            return None;
        }
    }
    anywhere(world, 0, FOUNDING, |store| async move { store.linearizable_revision().await.ok() }).await
}

/// Removes a member and lets another one join in its place, with an empty disk.
async fn replace(world: &World, member: u32) {
    let id = world.machine(member, |machine| machine.id).unwrap_or(0);
    world.machine(member, |machine| machine.out = true);
    let remove = move |store: Store| async move {
        // Somebody may have heard of it who could not say so.
        let _ = store.remove_member(id).await;
        let members = store.members().await.ok()?;
        Some(members.iter().all(|m| m.id != id))
    };
    if anywhere(world, member, PATIENCE, remove).await != Some(true) {
        // It may yet be removed: then it is told so, and joins anew in the end.
        world.machine(member, |machine| machine.out = false);
        return world.wish(Wish::Start(member));
    }
    rejoin(world, member).await;
}

/// Has a machine whose member is removed join as a new one.
async fn rejoin(world: &World, member: u32) {
    world.machine(member, |machine| (machine.out, machine.evicted) = (true, false));
    world.wish(Wish::Wipe(member));
    tokio::time::sleep(PAUSE).await;
    if admit(world, member).await {
        world.wish(Wish::Start(member));
    } else {
        world.find("membership", format!("member {member} is not admitted again"));
    }
}

/// Members that were removed after whoever asked for it had given up.
async fn readmit(world: &World) {
    for member in 1..=world.plan.members {
        if world.machine(member, |machine| machine.evicted) != Some(true) {
            continue;
        }
        let id = world.machine(member, |machine| machine.id).unwrap_or(0);
        let listed = anywhere(world, member, HEALING, move |store: Store| async move {
            store.linearizable_revision().await.ok()?;
            store.members().await.ok().map(|members| members.iter().any(|m| m.id == id))
        });
        match listed.await {
            Some(false) => rejoin(world, member).await,
            listed => {
                world.find("membership", format!("member {member} was told that it is removed; listed: {listed:?}"))
            }
        }
    }
}

async fn operate(world: Arc<World>, mut orders: mpsc::UnboundedReceiver<Order>) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Transfer => {
                let leader = world.leader().unwrap_or(1);
                let handing = world.on(leader, |store| async move { store.transfer_leadership().await.is_ok() });
                let _ = tokio::time::timeout(PATIENCE, handing).await;
            }
            Order::Compact => {
                let revision = |store: Store| async move { store.linearizable_revision().await.ok() };
                if let Some(revision) = anywhere(&world, 0, PATIENCE, revision).await {
                    let member = world.leader().unwrap_or(1);
                    operation(&world, 0, member, Call::Compact(revision.saturating_sub(20).max(1))).await;
                }
            }
            Order::Replace(member) => replace(&world, member).await,
            // While something else was done that life may have ended, and nobody would start the next one again.
            Order::Shutdown(member, life) if world.machine(member, |machine| machine.life) != Some(life) => {}
            Order::Shutdown(member, _) => {
                let ending = world.on(member, |store| async move { store.shutdown().await.is_ok() });
                let _ = tokio::time::timeout(PATIENCE, ending).await;
            }
        }
    }
}

fn everything() -> Call {
    Call::Range { keys: Keys::Prefix("/r/".into()), at: None, limit: 0, local: false }
}

/// Waits until a member answers; the revision of its answer.
async fn answers(world: &World, member: u32, patience: Duration) -> Option<Revision> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Some(Answer::Range { revision, .. }) = operation(world, 0, member, everything()).await {
            return Some(revision);
        }
        tokio::time::sleep(PAUSE).await;
    }
    None
}

/// Waits until all members are at the same log index, where their states have to be the same.
async fn agree(world: &World) {
    let deadline = Instant::now() + AGREEING;
    let mut marks = Vec::new();
    while Instant::now() < deadline {
        marks.clear();
        for member in 1..=world.plan.members {
            let mark = world.on(member, |store| async move { store.state_mark() }).await;
            marks.extend(mark.ok().map(|mark| (member, mark)));
        }
        let same_index = marks.windows(2).all(|pair| pair[0].1.0 == pair[1].1.0);
        if marks.len() as u32 == world.plan.members && same_index {
            if marks.windows(2).any(|pair| pair[0].1 != pair[1].1) {
                world.find("states", format!("the members' states differ: {marks:x?}"));
            }
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    world.find(PROGRESS, format!("the members do not come to the same log index: {marks:x?}"));
}

/// Everybody but the members: the whole run.
pub async fn run(world: Arc<World>, orders: mpsc::UnboundedReceiver<Order>) -> turmoil::Result {
    let Some(base) = found(&world).await else {
        world.find(PROGRESS, "the group was not founded".to_owned());
        world.set_phase(Phase::Over);
        return Ok(());
    };
    world.begin();
    world.write(|history| history.head.base = base);
    world.set_phase(Phase::Running);
    let begin = |number| tokio::spawn(client(number, world.clone()));
    let clients: Vec<_> = (1..=world.plan.clients).map(begin).collect();
    let watch = |number, prefix: &str, slow| {
        tokio::spawn(watcher(number, Keys::Prefix(prefix.to_owned()), slow, world.clone()))
    };
    let watchers = [watch(1, "/r/", false), watch(2, "/r/", true), watch(3, "/r/a/", false)];
    let operating = tokio::spawn(operate(world.clone(), orders));
    world.until(Phase::Healed).await;
    let _ = operating.await;
    readmit(&world).await;
    let healed = Instant::now();
    for member in 1..=world.plan.members {
        if answers(&world, member, HEALING).await.is_none() {
            let status = world.on(member, |store| async move { format!("{:?}", store.status()) });
            let status = tokio::time::timeout(PATIENCE, status).await;
            world.find(
                PROGRESS,
                format!("member {member} does not answer {HEALING:?} after everything is well: {status:?}"),
            );
        }
    }
    world.set_healed(healed.elapsed());
    world.set_phase(Phase::Over);
    for client in clients {
        let _ = client.await;
    }
    let mut last = base;
    if !world.has_findings() {
        for member in 1..=world.plan.members {
            last = last.max(answers(&world, member, HEALING).await.unwrap_or(0));
        }
        agree(&world).await;
    }
    world.set_last(last.max(1));
    for watcher in watchers {
        let _ = watcher.await;
    }
    Ok(())
}

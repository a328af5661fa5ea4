//! The process of a member on its simulated machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use trireme_raftstore::simulation::Environment;
use trireme_raftstore::{Config, Leadership, Limits, PeerTls, Store, StoreError, Timing};

use super::net::{Net, PORT, name};
use super::world::{EPOCH_MS, World};

/// Before a start that failed is tried again.
const AGAIN: Duration = Duration::from_millis(300);
/// Jobs that may wait.
const JOBS: usize = 256;

/// How others reach a member.
pub fn address(member: u32) -> String {
    format!("{}:{PORT}", name(member))
}

fn config(world: &World, member: u32, life: u32) -> Config {
    let tls = PeerTls { ca_pem: vec![], cert_pem: vec![], key_pem: vec![] };
    let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let mut config = Config::new(format!("/{}", name(member)), name(member), listen, address(member), "", tls);
    let plan = &world.plan;
    config.timing =
        Timing { write_timeout: Duration::from_secs(3), read_timeout: Duration::from_secs(2), ..Timing::default() };
    config.limits = Limits {
        snapshot_entries: plan.entries.0,
        keep_log_entries: plan.entries.1,
        watch_events: plan.events,
        compare_states: Duration::from_secs(2),
        verify_state: Duration::from_secs(4),
        ..Limits::default()
    };
    for fault in &plan.faults {
        if let Err(why) = config.faults.set(fault) {
            world.find("plan", why);
        }
    }
    config.memory = world.machine(member, |machine| machine.disk.clone());
    let skew = world.skew(member);
    let wall = move || {
        let passed = turmoil::since_epoch().map_or(EPOCH_MS, |since| since.as_millis() as u64);
        passed.saturating_add_signed(skew.load(Ordering::SeqCst))
    };
    let seed = plan.seed.wrapping_mul(1_000_003).wrapping_add((u64::from(member) << 32) | u64::from(life));
    let net = Net { own: member, links: world.links.clone() };
    config.environment = Environment::simulated(Arc::new(net), seed, Arc::new(wall));
    config
}

async fn start(world: &World, member: u32, life: u32) -> Result<Store, StoreError> {
    let config = config(world, member, life);
    if config.has_data()? {
        return Store::open(config).await;
    }
    match world.machine(member, |machine| machine.grant.clone()).flatten() {
        Some(grant) => Store::join(config, grant).await,
        None if member == 1 && world.machine(1, |machine| machine.id == 1) == Some(true) => {
            Store::bootstrap(config).await
        }
        None => Err(StoreError::Unavailable { reason: "not admitted yet".into(), maybe_applied: false }),
    }
}

/// Whether a process may end.
fn is_expected(world: &World, member: u32) -> bool {
    world.machine(member, |machine| machine.out || machine.doomed) == Some(true)
}

/// One life of a process: it starts, takes jobs, and comes to an end when its machine does.
pub async fn process(world: Arc<World>, member: u32) -> turmoil::Result {
    let _ending = world.links.ending(member);
    let life = world.machine(member, |machine| {
        machine.life += 1;
        machine.life
    });
    let life = life.unwrap_or(0);
    let store = loop {
        match start(&world, member, life).await {
            Ok(store) => break store,
            Err(error @ (StoreError::Damaged { .. } | StoreError::Storage(_) | StoreError::Version(_))) => {
                if !is_expected(&world, member) {
                    world.find("start", format!("life {life} of member {member} does not start: {error}"));
                }
                return std::future::pending().await;
            }
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    };
    let (door, mut jobs) = mpsc::channel(JOBS);
    world.machine(member, |machine| machine.door = Some(door));
    let mut leads = store.leadership();
    leads.mark_changed();
    let failing = store.clone();
    let failed = failing.failed();
    tokio::pin!(failed);
    loop {
        tokio::select! {
            biased;
            why = &mut failed => {
                world.machine(member, |machine| machine.door = None);
                if why.contains("removed from the group") {
                    // Whoever asked for that may have given up before it was done.
                    world.machine(member, |machine| machine.evicted = true);
                } else if !is_expected(&world, member) {
                    world.find("ended", format!("life {life} of member {member} ended by itself: {why}"));
                }
                return std::future::pending().await;
            }
            // Such tasks end in order when the machine does, and whoever waits for them is told in order.
            Some(job) = jobs.recv() => drop(tokio::task::spawn_local(job(store.clone()))),
            changed = leads.changed() => match changed {
                Ok(()) => world.lead(member, match *leads.borrow_and_update() {
                    Leadership::Leader { term } => Some(term),
                    Leadership::NotLeader { .. } => None,
                }),
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

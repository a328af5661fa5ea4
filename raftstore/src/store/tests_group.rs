//! Several members in one process over loopback TLS.

#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::tests_single::{events, list, prefix, put, watch_from, write};
use super::tests_tls::Ca;
use super::*;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What it takes to start members again and again.
pub(super) struct Group {
    dir: tempfile::TempDir,
    ca: Ca,
    addresses: Vec<String>,
    pub(super) limits: crate::config::Limits,
    write_timeout: Duration,
    heartbeat: Duration,
    /// Feature levels of members that are not of this build's.
    pub(super) levels: std::collections::BTreeMap<usize, u32>,
    /// How many members there are at the beginning.
    pub(super) founders: usize,
}

impl Group {
    pub(super) fn new(size: usize) -> Self {
        // Ports are free when they are chosen, and loopback hands the same one out again only much later.
        let listeners: Vec<_> = (0..size).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        Self {
            dir: tempfile::tempdir().unwrap(),
            ca: Ca::new(),
            addresses,
            limits: Default::default(),
            write_timeout: Duration::from_secs(7),
            heartbeat: Duration::from_millis(100),
            levels: Default::default(),
            founders: size,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn level(&self, i: usize) -> u32 {
        self.levels.get(&i).copied().unwrap_or(crate::machine::FEATURE_LEVEL)
    }

    pub(super) fn data(&self, i: usize) -> PathBuf {
        self.dir.path().join(format!("m{i}"))
    }

    pub(super) fn config(&self, i: usize) -> Config {
        let (name, address) = (format!("m{i}"), &self.addresses[i]);
        let tls = self.ca.member(&name);
        let listen = address.parse().unwrap();
        let mut config = Config::new(self.data(i), name, listen, address, format!("https://m{i}"), tls);
        config.limits = self.limits.clone();
        config.timing.write_timeout = self.write_timeout;
        config.timing.heartbeat = self.heartbeat;
        config.timing.read_timeout = config.timing.read_timeout.min(self.write_timeout);
        // Machines that run tests are busy.
        config.timing.election_min = Duration::from_millis(600);
        config.timing.election_max = Duration::from_millis(1000);
        config.feature_level = self.level(i);
        config
    }

    pub(super) fn new_member(&self, i: usize) -> NewMember {
        let peer_address = self.addresses[i].clone();
        NewMember {
            name: format!("m{i}"),
            peer_address,
            client_address: format!("https://m{i}"),
            feature_level: self.level(i),
        }
    }

    pub(super) async fn join(&self, via: &Store, i: usize) -> Store {
        let grant = via.add_member(self.new_member(i)).await.unwrap();
        let store = Store::join(self.config(i), grant.clone()).await.unwrap();
        until(&store, "promotion", |s| s.members.iter().any(|m| m.id == grant.id && m.role != Role::Learner)).await;
        store
    }

    pub(super) async fn start(size: usize) -> (Self, Vec<Store>) {
        Self::start_with(Self::new(size)).await
    }

    pub(super) async fn start_with(group: Self) -> (Self, Vec<Store>) {
        let mut stores = vec![Store::bootstrap(group.config(0)).await.unwrap()];
        for i in 1..group.founders {
            let joined = group.join(&stores[0], i).await;
            stores.push(joined);
        }
        (group, stores)
    }
}

/// Waits for a state of a member.
pub(super) async fn until(store: &Store, what: &str, condition: impl Fn(&Status) -> bool) {
    let begin = Instant::now();
    while !condition(&store.status()) {
        assert!(begin.elapsed() < PATIENCE, "no {what}: {:?}", store.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Which of the members leads.
pub(super) async fn leader(stores: &[&Store]) -> usize {
    let begin = Instant::now();
    loop {
        if let Some(i) = stores.iter().position(|s| matches!(*s.leadership().borrow(), Leadership::Leader { .. })) {
            return i;
        }
        assert!(begin.elapsed() < PATIENCE, "no leader");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn stop(stores: Vec<Store>) {
    for store in stores.into_iter().rev() {
        store.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_reads_and_watches_on_every_member() {
    let (group, stores) = Group::start(3).await;
    let mut watches = Vec::new();
    for store in &stores {
        watches.push(watch_from(store, "/r/p/", Some(1)).await);
    }
    for i in 0..3 {
        let revision = write(&stores[i], &format!("/r/p/{i}"), "v").await;
        assert_eq!(revision, i as u64 + 2);
        for store in &stores {
            // Acknowledged on one, seen on all.
            assert_eq!(list(store, "/r/p/", None).await.len(), i + 1);
            assert!(store.linearizable_revision().await.unwrap() >= revision);
        }
    }
    for watch in &mut watches {
        assert_eq!(events(watch, 4).await, ["/r/p/0=v@2 <- -", "/r/p/1=v@3 <- -", "/r/p/2=v@4 <- -"]);
    }
    // Many at once, through followers, each applied exactly once.
    let mut writes = tokio::task::JoinSet::new();
    for i in 0..300 {
        let store = stores[i % 3].clone();
        writes.spawn(async move { write(&store, &format!("/many/{i}"), "x").await });
    }
    let mut revisions: Vec<Revision> = writes.join_all().await;
    revisions.sort();
    assert_eq!(revisions, (5..305).collect::<Vec<_>>());
    // A watch resumes on another member where it was left.
    let mut first = watch_from(&stores[1], "/many/", Some(5)).await;
    let begun = events(&mut first, 100).await.len() as u64;
    write(&stores[0], "/many/last", "x").await;
    let mut second = watch_from(&stores[2], "/many/", Some(5 + begun)).await;
    assert_eq!(begun + events(&mut second, 305).await.len() as u64, 301);
    // Names and addresses that are taken are refused.
    for store in &stores {
        let again = store.add_member(group.new_member(1)).await;
        assert!(matches!(again, Err(StoreError::Membership(_))), "{again:?}");
    }
    let members = stores[2].members().await.unwrap();
    assert_eq!(members.iter().filter(|m| m.role == Role::Leader).count(), 1);
    assert!(members.iter().all(|m| m.healthy && m.lag.is_some()), "{members:?}");
    stores[2].compact(50).await.unwrap();
    for store in &stores {
        assert!(store.linearizable_revision().await.is_ok());
        assert!(matches!(store.range(prefix("/", Some(49))).await, Err(StoreError::Compacted { .. })));
    }
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fails_over_and_catches_up() {
    let (group, mut stores) = Group::start(3).await;
    write(&stores[1], "/a", "1").await;
    let old = leader(&stores.iter().collect::<Vec<_>>()).await;
    let config = group.config(old);
    let mut changes = stores[(old + 1) % 3].members_changed();
    // Dropped, not shut down: as if it had crashed.
    let begin = Instant::now();
    drop(stores.remove(old));
    let acknowledged = loop {
        match stores[0].txn(Txn { then: vec![put("/b", "2")], ..Txn::default() }).await {
            Ok(response) => break response.revision,
            Err(StoreError::Unavailable { .. }) => assert!(begin.elapsed() < PATIENCE),
            Err(other) => panic!("{other}"),
        }
    };
    eprintln!("fail-over: {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(2), "fail-over took {:?}", begin.elapsed());
    assert!(acknowledged >= 3);
    for store in &stores {
        assert_eq!(list(store, "/a", None).await, ["/a=1@2"]);
        assert_eq!(list(store, "/b", None).await, [format!("/b=2@{acknowledged}")]);
    }
    let back = open_again(config).await;
    let newest = write(&stores[0], "/c", "3").await;
    assert!(back.linearizable_revision().await.unwrap() >= newest);
    assert_eq!(list(&back, "/", None).await.len(), 3);
    // Handing over leadership.
    stores.push(back);
    let all: Vec<&Store> = stores.iter().collect();
    let now = leader(&all).await;
    let mut state = stores[now].leadership();
    until(&stores[now], "health", |s| s.members.iter().all(|m| m.healthy)).await;
    stores[now].transfer_leadership().await.unwrap();
    assert!(matches!(*state.borrow_and_update(), Leadership::NotLeader { .. }) || state.changed().await.is_ok());
    assert_ne!(leader(&all).await, now);
    write(&stores[now], "/d", "4").await;
    // Removal: the others go on, the name is free again, the id is not reused.
    let all: Vec<&Store> = stores.iter().collect();
    let lead = leader(&all).await;
    let gone = (lead + 1) % 3;
    let id = stores[gone].status().id;
    until(&stores[lead], "health", |s| s.members.iter().all(|m| m.healthy)).await;
    changes.mark_unchanged();
    stores[lead].remove_member(id).await.unwrap();
    assert_eq!(stores[lead].members().await.unwrap().len(), 2);
    let name: usize = stores[gone].status().name[1..].parse().unwrap();
    let removed = stores.remove(gone);
    let told = tokio::time::timeout(PATIENCE, removed.failed()).await.unwrap();
    assert!(told.contains("removed"), "{told}");
    assert!(changes.has_changed().unwrap());
    removed.shutdown().await.unwrap();
    drop(removed);
    let grant = stores[0].add_member(group.new_member(name)).await.unwrap();
    assert_eq!(grant.id, 4);
    assert!(matches!(Store::join(group.config(name), grant).await, Err(StoreError::Invalid(_))), "not empty");
    stop(stores).await;
}

/// Opens a member whose former instance was dropped; its files are released a little later.
pub(super) async fn open_again(config: Config) -> Store {
    let begin = Instant::now();
    loop {
        match Store::open(config.clone()).await {
            Ok(store) => return store,
            Err(StoreError::Storage(error)) => assert!(begin.elapsed() < PATIENCE, "{error}"),
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_far_behind_gets_a_snapshot() {
    let mut group = Group::new(3);
    group.limits.snapshot_entries = 50;
    group.limits.keep_log_entries = 10;
    let (group, mut stores) = Group::start_with(group).await;
    let mut watch = watch_from(&stores[1], "/k/", Some(1)).await;
    let away = stores.pop().unwrap();
    away.shutdown().await.unwrap();
    drop(away);
    for i in 0..300 {
        write(&stores[0], &format!("/k/{}", i % 30), &i.to_string()).await;
    }
    until(&stores[0], "purge", |s| s.last_log_index > 300).await;
    let purged = || stores[0].handle.node.writer.log().ends().0.map_or(0, |at| at.index);
    let begin = Instant::now();
    while purged() < 200 {
        assert!(begin.elapsed() < PATIENCE, "the log is not shortened: {}", purged());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let back = open_again(group.config(2)).await;
    let newest = write(&stores[0], "/k/0", "last").await;
    assert_eq!(back.linearizable_revision().await.unwrap(), newest);
    let sent: u64 = stores.iter().map(|s| s.handle.node.metrics.snapshots_sent.get()).sum();
    assert!(sent >= 1, "it was brought up to date by a snapshot");
    assert_eq!(list(&back, "/k/", None).await, list(&stores[0], "/k/", None).await);
    // History came along: old revisions and a resumed watch are the same there.
    assert_eq!(list(&back, "/k/", Some(100)).await, list(&stores[0], "/k/", Some(100)).await);
    let mut resumed = watch_from(&back, "/k/", Some(1)).await;
    assert_eq!(events(&mut resumed, newest).await, events(&mut watch, newest).await);
    // And it survives a restart with what it got.
    back.shutdown().await.unwrap();
    drop((back, resumed));
    let back = open_again(group.config(2)).await;
    assert_eq!(list(&back, "/k/0", None).await, [format!("/k/0=last@{newest}")]);
    stores.push(back);
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_got_a_snapshot_can_send_one() {
    let mut group = Group::new(4);
    group.limits.snapshot_entries = 50;
    group.limits.keep_log_entries = 10;
    let mut stores = vec![Store::bootstrap(group.config(0)).await.unwrap()];
    let second = group.join(&stores[0], 1).await;
    stores.push(second);
    for i in 0..150 {
        write(&stores[0], &format!("/k/{}", i % 30), &i.to_string()).await;
    }
    let begin = Instant::now();
    while stores[0].handle.node.writer.log().ends().0.map_or(0, |at| at.index) < 60 {
        assert!(begin.elapsed() < PATIENCE, "the log is not shortened");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    group.limits.snapshot_entries = 1_000_000;
    let third = group.join(&stores[0], 2).await;
    assert!(third.handle.node.machine.lacks_snapshot(), "its state is what it got, and it has made nothing of its own");
    stores.push(third);
    // It leads before it has made a snapshot of its own, and the log that a new member would need is gone.
    let begin = Instant::now();
    while leader(&stores.iter().collect::<Vec<_>>()).await != 2 {
        assert!(begin.elapsed() < PATIENCE, "leadership does not come to the third member");
        let now = leader(&stores.iter().collect::<Vec<_>>()).await;
        let _ = stores[now].transfer_leadership().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(stores[2].handle.node.machine.lacks_snapshot());
    let fourth = group.join(&stores[2], 3).await;
    assert_eq!(list(&fourth, "/k/", None).await, list(&stores[2], "/k/", None).await);
    stores.push(fourth);
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_removed_while_it_was_away_learns_it_when_it_comes_back() {
    let (group, mut stores) = Group::start(3).await;
    let away = stores.pop().unwrap();
    let id = away.status().id;
    let name: usize = away.status().name[1..].parse().unwrap();
    away.shutdown().await.unwrap();
    drop(away);
    let begin = Instant::now();
    while let Err(error) = stores[0].remove_member(id).await {
        assert!(begin.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    write(&stores[0], "/a", "1").await;
    let back = open_again(group.config(name)).await;
    let told = tokio::time::timeout(PATIENCE, back.failed()).await.unwrap();
    assert!(told.contains("removed") && back.is_removed(), "{told}");
    assert!(!stores[0].is_removed());
    back.shutdown().await.unwrap();
    stop(stores).await;
}

/// The dead one is not known to be dead yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_nobody_could_confirm_is_refused_right_after_a_death() {
    let (_group, mut stores) = Group::start(3).await;
    let lead = leader(&stores.iter().collect::<Vec<_>>()).await;
    let left = stores.swap_remove(lead);
    let dead = stores.pop().unwrap();
    let (lives, died) = (stores[0].status().id, dead.status().id);
    drop(dead);
    // It goes on answering until its runtime has ended, and a removal that it had a part in would never be committed.
    let begin = Instant::now();
    while left.handle.node.ask_level(died).await.is_some() {
        assert!(begin.elapsed() < PATIENCE, "it answers still");
    }
    let error = left.remove_member(lives).await.unwrap_err();
    assert!(matches!(&error, StoreError::Membership(why) if why.contains("not enough healthy members")), "{error}");
    // Nothing is under way that would keep the right step from being taken.
    let begin = Instant::now();
    while let Err(error) = left.remove_member(died).await {
        assert!(begin.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    write(&left, "/a", "1").await;
    stores.push(left);
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_acknowledged() {
    let (_group, mut stores) =
        Group::start_with(Group { write_timeout: Duration::from_secs(2), ..Group::new(3) }).await;
    write(&stores[1], "/a", "1").await;
    let lead = leader(&stores.iter().collect::<Vec<_>>()).await;
    let left = stores.swap_remove(lead);
    let mut leadership = left.leadership();
    assert!(matches!(*leadership.borrow_and_update(), Leadership::Leader { .. }));
    drop(stores);
    let lost = leadership.wait_for(|l| matches!(l, Leadership::NotLeader { .. }));
    tokio::time::timeout(Duration::from_secs(3), lost).await.unwrap().unwrap();
    let refused = left.txn(Txn { then: vec![put("/b", "2")], ..Txn::default() }).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    let refused = left.linearizable_revision().await;
    assert!(matches!(refused, Err(StoreError::Unavailable { maybe_applied: false, .. })), "{refused:?}");
    // Who asks for possibly old state still gets it.
    let local = RangeRequest { consistency: Consistency::Local, ..prefix("/", None) };
    assert_eq!(left.range(local).await.unwrap().count, 1);
    // It lost its quorum, so it must not go down to nothing by removing members either.
    let other = left.status().members.iter().find(|m| m.id != left.status().id).map(|m| m.id).unwrap();
    assert!(left.remove_member(other).await.is_err());
    left.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_do_not_gather_behind_a_disk_that_hangs() {
    use crate::network::pulse::HEARTBEATS;

    let (_group, stores) = Group::start_with(Group { heartbeat: Duration::from_millis(20), ..Group::new(3) }).await;
    let lead = leader(&stores.iter().collect::<Vec<_>>()).await;
    let follower = &stores[(lead + 1) % 3];
    let id = follower.status().id;
    let healthy = |s: &Status| s.members.iter().any(|m| m.id == id && m.healthy);
    until(&stores[lead], "health", healthy).await;
    let node = &follower.handle.node;
    // The thread that writes the log stands still from now on.
    let (release, hang) = std::sync::mpsc::channel::<()>();
    node.writer.append(Vec::new(), Box::new(move |_| assert!(hang.recv().is_err()))).await.unwrap();
    write(&stores[lead], "/a", "1").await;
    // Heartbeats are answered all the same, up to a number that is known to be with the engine.
    let begin = Instant::now();
    while node.heartbeats.available_permits() > 0 {
        assert!(begin.elapsed() < PATIENCE, "{} heartbeats left", node.heartbeats.available_permits());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // From then on the member does not count as healthy, and nothing else comes of it.
    until(&stores[lead], "silence", |s| !healthy(s)).await;
    assert!(matches!(*stores[lead].leadership().borrow(), Leadership::Leader { .. }));
    drop(release);
    until(&stores[lead], "health", healthy).await;
    let begin = Instant::now();
    while node.heartbeats.available_permits() < HEARTBEATS - 2 {
        assert!(begin.elapsed() < PATIENCE, "{} heartbeats left", node.heartbeats.available_permits());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(list(follower, "/a", None).await, ["/a=1@2"]);
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_members_of_the_same_lineage_are_heard() {
    use crate::network::peers::{Lane, PeerError, Peers, Road, Target};
    use crate::network::tls::PeerTlsConfig;
    use crate::network::wire::{HelloReply, path};

    let (group, stores) = Group::start(1).await;
    let runtime = tokio::runtime::Handle::current();
    let lineage = stores[0].status().lineage;
    let ask = async |ca: &Ca, lineage: &str, id: MemberId| {
        let client = PeerTlsConfig::new(&ca.member("stranger")).unwrap().client;
        let peers = Peers::new(9, lineage, Road::Tls(client), Duration::from_secs(2), runtime.clone());
        let target = Target { id, address: group.addresses[0].clone() };
        peers.call::<_, HelloReply>(&target, Lane::Control, path::HELLO, &(), Duration::from_secs(5)).await
    };
    assert_eq!(ask(&group.ca, &lineage, 1).await.unwrap().id, 1);
    let refused = ask(&group.ca, "another", 1).await;
    assert!(matches!(&refused, Err(PeerError::Refused { status, .. }) if status.as_u16() == 403), "{refused:?}");
    let refused = ask(&group.ca, &lineage, 2).await;
    assert!(matches!(&refused, Err(PeerError::Refused { status, .. }) if status.as_u16() == 421), "{refused:?}");
    assert!(ask(&Ca::new(), &lineage, 1).await.is_err(), "a certificate of another CA");
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moved_tells_the_others() {
    let (group, mut stores) = Group::start(2).await;
    let moved = stores.pop().unwrap();
    moved.shutdown().await.unwrap();
    drop(moved);
    let mut config = group.config(1);
    config.client_address = "https://elsewhere".into();
    let back = open_again(config).await;
    let known = |s: &Status| s.members.iter().any(|m| m.client_address == "https://elsewhere");
    until(&stores[0], "the new address", known).await;
    stores.push(back);
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_not_asked_in_a_tight_loop() {
    use openraft::network::v2::RaftNetworkV2;
    use openraft::network::{RPCOption, RaftNetworkFactory};

    use crate::consensus::confirmed::Confirmed;
    use crate::consensus::transport::Transport;
    use crate::metrics::Metrics;
    use crate::network::peers::{Peers, Road};
    use crate::network::tls::PeerTlsConfig;
    use crate::storage::records::MemberInfo;

    // A port that was free a moment ago: connecting to it is refused at once.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = PeerTlsConfig::new(&Ca::new().member("a")).unwrap().client;
    let peers = Peers::new(1, "l", Road::Tls(client), Duration::from_secs(2), tokio::runtime::Handle::current());
    let mut transport = Transport {
        peers,
        metrics: Metrics::default(),
        vote_timeout: Duration::from_secs(1),
        confirmed: Arc::new(Confirmed::new()),
        suspect: Default::default(),
        snapshot_rate: 1,
    };
    let dead =
        MemberInfo { name: "b".into(), peer_address: closed.to_string(), client_address: String::new(), held: false };
    let mut link = transport.new_client(2, &dead).await;
    let begin = std::time::Instant::now();
    for _ in 0..7 {
        let opened = link.stream_append(futures::stream::pending(), RPCOption::new(Duration::from_secs(1))).await;
        assert!(opened.is_err());
    }
    // 10 + 20 + 40 + 80 + 160 + 320 + 320 ms.
    assert!(begin.elapsed() >= Duration::from_millis(950), "{:?}", begin.elapsed());
}

/// A fresh receiver takes what is known for news: requests without a leader asked again and again, without a pause.
/// Found by a simulation, which never came to its end (seed 3).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_another_leader_takes_its_time() {
    let (_group, stores) = Group::start(1).await;
    let begin = Instant::now();
    for _ in 0..10 {
        stores[0].handle.node.leader_may_have_changed().await;
    }
    assert!(begin.elapsed() >= Duration::from_millis(60), "{:?}", begin.elapsed());
    stop(stores).await;
}

/// It still takes itself for the leader, and nothing that needs one works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum_is_not_healthy() {
    let (_group, mut stores) = Group::start(2).await;
    let leads = leader(&[&stores[0], &stores[1]]).await;
    let other = stores.remove(1 - leads);
    let left = stores.remove(0);
    let own = left.status().id;
    drop(other);
    let begin = Instant::now();
    loop {
        let members = left.members().await.unwrap_or_default();
        if members.iter().any(|m| m.id == own && !m.healthy) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{members:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop(vec![left]).await;
}

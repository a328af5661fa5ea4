//! Members that crash and come back while clients write, read and watch: nothing acknowledged may be lost, nothing
//! may be seen twice, and no read may be older than what was acknowledged before it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::tests_group::{Group, open_again, stop};
use super::*;

const COUNTERS: u64 = 3;

/// What clients know for sure.
#[derive(Default)]
struct Known {
    /// Highest acknowledged value of each counter.
    acknowledged: [AtomicU64; COUNTERS as usize],
    /// Revision of each acknowledged write.
    writes: Mutex<BTreeMap<Revision, (String, u64)>>,
    acknowledgements: AtomicU64,
    done: AtomicBool,
}

/// The members that run at the moment.
#[derive(Clone, Default)]
struct Members(Arc<Mutex<Vec<Option<Store>>>>);

impl Members {
    fn pick(&self, i: usize) -> Option<Store> {
        let members = self.0.lock();
        let n = members.len();
        (0..n).find_map(|k| members[(i + k) % n].clone())
    }
}

fn key(counter: u64) -> Bytes {
    format!("/count/all/{counter}").into()
}

async fn get(store: &Store, counter: u64) -> Result<(u64, Revision), StoreError> {
    let request = RangeRequest {
        range: KeyRange::Key(key(counter)),
        revision: None,
        limit: 0,
        consistency: Consistency::Linearizable,
        keys_only: false,
    };
    let found = store.range(request).await?.kvs.pop();
    Ok(found.map_or((0, 0), |kv| (String::from_utf8_lossy(&kv.value).parse().unwrap(), kv.mod_revision)))
}

/// Counts up with compare-and-swap, each time on some member.
async fn client(members: Members, known: Arc<Known>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    while !known.done.load(Ordering::Relaxed) {
        let counter = random.random_range(0..COUNTERS);
        let Some(store) = members.pick(random.random_range(0..3)) else { continue };
        let floor = known.acknowledged[counter as usize].load(Ordering::SeqCst);
        let Ok((value, revision)) = get(&store, counter).await else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        assert!(value >= floor, "{store:?} read {value} of counter {counter}, {floor} was acknowledged before");
        let next = (value + 1).to_string();
        let put = Op::Put { key: key(counter), value: next.into(), expires_at_ms: None };
        let compare = Compare::ModRevision(key(counter), revision);
        let txn = Txn { compares: vec![compare], then: vec![put], otherwise: Vec::new() };
        match store.txn(txn).await {
            Ok(response) if response.succeeded => {
                known.acknowledged[counter as usize].fetch_max(value + 1, Ordering::SeqCst);
                let what = (counter.to_string(), value + 1);
                let before = known.writes.lock().insert(response.revision, what);
                assert!(before.is_none(), "revision {} was given twice", response.revision);
                known.acknowledgements.fetch_add(1, Ordering::SeqCst);
            }
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Watches on some member and moves on to another one when that ends; returns everything seen up to a revision.
async fn watcher(members: Members, known: Arc<Known>) -> BTreeMap<Revision, (String, u64)> {
    let (mut seen, mut next, mut i) = (BTreeMap::new(), 1, 0);
    loop {
        i += 1;
        // Members that are ending refuse at once.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let last = known.writes.lock().last_key_value().map_or(0, |(revision, _)| *revision);
        if known.done.load(Ordering::SeqCst) && next > last {
            return seen;
        }
        let Some(store) = members.pick(i) else { continue };
        let range = KeyRange::Prefix("/count/all/".into());
        let Ok(mut watch) = store.watch(WatchRequest { range, start_revision: Some(next) }).await else { continue };
        drop(store);
        let patience = Duration::from_millis(500);
        while let Ok(Some(Ok(batch))) = tokio::time::timeout(patience, watch.next()).await {
            for event in batch.events {
                assert!(event.kv.mod_revision >= next, "{} again", event.kv.mod_revision);
                next = event.kv.mod_revision + 1;
                let counter = String::from_utf8_lossy(&event.kv.key[11..]).into_owned();
                let value = String::from_utf8_lossy(&event.kv.value).parse().unwrap();
                seen.insert(event.kv.mod_revision, (counter, value));
            }
            next = next.max(batch.revision + 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_lose_nothing_and_show_nothing_twice() {
    let mut group = Group::new(3);
    group.limits.snapshot_entries = 300;
    group.limits.keep_log_entries = 50;
    let (group, stores) = Group::start_with(group).await;
    let members = Members(Arc::new(Mutex::new(stores.into_iter().map(Some).collect())));
    let known = Arc::new(Known::default());
    let clients: Vec<_> = (0..6).map(|i| tokio::spawn(client(members.clone(), known.clone(), i))).collect();
    let watchers: Vec<_> = (0..2).map(|_| tokio::spawn(watcher(members.clone(), known.clone()))).collect();

    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..6 {
        // Progress between crashes, so that each one hits a group at work.
        let wanted = known.acknowledgements.load(Ordering::SeqCst) + 60;
        let begin = Instant::now();
        while known.acknowledgements.load(Ordering::SeqCst) < wanted {
            assert!(begin.elapsed() < Duration::from_secs(20), "no progress");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let i = random.random_range(0..3);
        let victim = members.0.lock()[i].take();
        if random.random_bool(0.3) {
            victim.as_ref().unwrap().shutdown().await.unwrap();
        }
        drop(victim);
        let back = open_again(group.config(i)).await;
        members.0.lock()[i] = Some(back);
    }
    known.done.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let writes = known.writes.lock().clone();
    for watcher in watchers {
        let seen = watcher.await.unwrap();
        for (revision, what) in &writes {
            assert_eq!(seen.get(revision), Some(what), "revision {revision} was acknowledged");
        }
        // Each counter went up by one each time: nothing was applied twice, also not what was never acknowledged.
        for counter in 0..COUNTERS {
            let values: Vec<u64> = seen.values().filter(|(c, _)| *c == counter.to_string()).map(|(_, v)| *v).collect();
            assert_eq!(values, (1..=values.len() as u64).collect::<Vec<_>>());
        }
    }
    let stores: Vec<Store> = members.0.lock().drain(..).flatten().collect();
    for store in &stores {
        for counter in 0..COUNTERS {
            let floor = known.acknowledged[counter as usize].load(Ordering::SeqCst);
            assert!(get(store, counter).await.unwrap().0 >= floor);
        }
    }
    stop(stores).await;
}

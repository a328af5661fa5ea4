//! Watchers on surviving masters while the leader dies: each sees every acknowledged change once and in order.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::Semaphore;
use trireme_chaos_tests::Cluster;

use crate::python;
use crate::space::{Space, client_of, config_map, runtime, within};

const WRITERS: usize = 3;
const LABEL: &[(&str, &str)] = &[("kept", "1")];

/// What a watcher saw.
#[derive(Debug, Deserialize)]
struct Seen {
    r#type: String,
    name: String,
    n: Option<String>,
    version: u64,
}

impl Seen {
    fn of(kind: &str, map: &ConfigMap) -> Seen {
        let version = map.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default();
        let n = map.data.as_ref().and_then(|data| data.get("n").cloned());
        Seen { r#type: kind.to_owned(), name: map.name_any(), n, version }
    }
}

/// What happened to each object, in order: "ADDED 0", "MODIFIED 1", …, "DELETED 3".
type Histories = BTreeMap<String, Vec<String>>;

fn histories(seen: &[Seen]) -> Result<Histories> {
    let mut all = Histories::new();
    let mut last = 0;
    for event in seen.iter().filter(|event| !matches!(event.name.as_str(), "begin" | "end")) {
        ensure!(event.version > last, "{event:?} after version {last}");
        last = event.version;
        let n = event.n.as_deref().unwrap_or("?");
        all.entry(event.name.clone()).or_default().push(format!("{} {n}", event.r#type));
    }
    Ok(all)
}

/// Repeats a write until it is acknowledged. One that failed may have been done, so it is written in a way that doing
/// it again changes nothing.
async fn acknowledged<T>(mut write: impl AsyncFnMut() -> kube::Result<T>, done: u16) -> Result<()> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let answer = tokio::time::timeout(Duration::from_secs(10), write()).await;
        match answer {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(kube::Error::Api(status))) if status.code == done => return Ok(()),
            Ok(Err(error)) if tokio::time::Instant::now() > deadline => bail!("not acknowledged: {error}"),
            Err(_) if tokio::time::Instant::now() > deadline => bail!("not acknowledged in time"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Makes, changes and deletes objects until it is stopped; what it did.
async fn write(maps: Api<ConfigMap>, writer: usize, stop: &AtomicBool) -> Result<Histories> {
    let mut done = Histories::new();
    for i in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("w{writer}-{i}");
        let mut map = config_map(&name, LABEL, "1");
        map.data = Some([("n".to_owned(), "0".to_owned())].into());
        acknowledged(async || maps.create(&PostParams::default(), &map).await, 409).await?;
        let mut history = vec!["ADDED 0".to_owned()];
        for n in 1..=3 {
            let patch = Patch::Merge(json!({"data": {"n": n.to_string()}}));
            acknowledged(async || maps.patch(&name, &PatchParams::default(), &patch).await, 0).await?;
            history.push(format!("MODIFIED {n}"));
        }
        if i % 2 == 0 {
            acknowledged(async || maps.delete(&name, &DeleteParams::default()).await, 404).await?;
            history.push("DELETED 3".to_owned());
        }
        done.insert(name, history);
    }
    Ok(done)
}

/// kube-rs' watcher until the object "end"; it is ready when it has listed.
async fn follow(maps: Api<ConfigMap>, ready: &Semaphore) -> Result<Vec<Seen>> {
    let stream = watcher(maps, watcher::Config::default().labels("kept"));
    let mut stream = std::pin::pin!(stream);
    let mut seen: Vec<Seen> = Vec::new();
    let mut begun = false;
    let mut known = std::collections::HashSet::new();
    while seen.last().is_none_or(|event| event.name != "end") {
        // An error is told once, then the stream goes on where it was.
        let Ok(event) = stream.try_next().await else { continue };
        match event.context("the watcher ended")? {
            Event::Init => ensure!(!std::mem::replace(&mut begun, true), "the watcher had to list again"),
            Event::InitApply(map) => {
                known.insert(map.name_any());
                seen.push(Seen::of("ADDED", &map));
            }
            Event::Apply(map) => {
                let kind = if known.insert(map.name_any()) { "ADDED" } else { "MODIFIED" };
                seen.push(Seen::of(kind, &map));
            }
            Event::Delete(map) => seen.push(Seen::of("DELETED", &map)),
            Event::InitDone => ready.add_permits(1),
        }
    }
    Ok(seen)
}

/// A plain watch that begins on the master that dies and goes on at another one from the last version it saw.
async fn resume(first: Api<ConfigMap>, then: Api<ConfigMap>, ready: &Semaphore) -> Result<Vec<Seen>> {
    let mut version = first.list(&ListParams::default()).await?.metadata.resource_version.context("no version")?;
    let mut seen: Vec<Seen> = Vec::new();
    let params = WatchParams::default().labels("kept").timeout(60);
    let mut apis = std::iter::once(first).chain(std::iter::repeat(then));
    while seen.last().is_none_or(|event| event.name != "end") {
        let maps = apis.next().context("no master")?;
        let stream = maps.watch(&params, &version).await?;
        ready.add_permits(1);
        let mut stream = std::pin::pin!(stream);
        while let Ok(Some(event)) = stream.try_next().await {
            let event = match event {
                WatchEvent::Added(map) => Seen::of("ADDED", &map),
                WatchEvent::Modified(map) => Seen::of("MODIFIED", &map),
                WatchEvent::Deleted(map) => Seen::of("DELETED", &map),
                WatchEvent::Bookmark(mark) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => bail!("{status:?}"),
            };
            version = event.version.to_string();
            let last = event.name == "end";
            seen.push(event);
            if last {
                break;
            }
        }
    }
    Ok(seen)
}

/// The Python client's informer; it is killed when this is dropped. Its complaints about the master that dies go to a file.
async fn informer(kubeconfig: PathBuf, namespace: String, complaints: File, ready: &Semaphore) -> Result<Vec<Seen>> {
    let mut command = tokio::process::Command::from(python::script("survivor.py")?);
    command.arg(kubeconfig).arg(namespace).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(complaints);
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let mut seen: Vec<Seen> = Vec::new();
    while let Some(line) = lines.next_line().await? {
        let event: Seen = serde_json::from_str(&line).context(line)?;
        if event.name == "begin" {
            ready.add_permits(1);
        }
        seen.push(event);
    }
    ensure!(child.wait().await?.success(), "it failed");
    ensure!(seen.last().is_some_and(|event| event.name == "end"), "it did not see the end");
    Ok(seen)
}

/// A watcher that has to have seen the end in time.
async fn ended(
    who: &'static str,
    watcher: impl Future<Output = Result<Vec<Seen>>>,
) -> Result<(&'static str, Vec<Seen>)> {
    let seen = within(70, watcher).await.and_then(|seen| seen).context(who)?;
    Ok((who, seen))
}

/// The leader is killed while objects are written through the other masters.
pub fn leader_dies(cluster: &Cluster) -> Result<()> {
    let complaints = cluster.dir.join("informer.err");
    let outcome = leader_dies_telling(cluster, &File::create(&complaints)?);
    outcome.with_context(|| {
        let text = std::fs::read_to_string(&complaints).unwrap_or_default();
        format!("the Python informer complained:\n{}", text.trim_end())
    })
}

fn leader_dies_telling(cluster: &Cluster, complaints: &File) -> Result<()> {
    let leader = cluster.leader()?;
    let config = |master: &str| cluster.root().join(format!("kubeconfig-{master}"));
    let others: Vec<&String> =
        cluster.hosts().iter().filter(|host| host.starts_with("master") && **host != leader).collect();
    let [one, two] = others[..] else { bail!("masters besides {leader}: {others:?}") };
    runtime()?.block_on(async {
        let space =
            Space { name: format!("die-{:08x}", rand::random::<u32>()), client: client_of(&config(one)).await? };
        let namespaces: Api<Namespace> = Api::all(space.client.clone());
        let named: Namespace = serde_json::from_value(json!({"metadata": {"name": space.name}}))?;
        namespaces.create(&PostParams::default(), &named).await?;
        let at = async |master: &str| {
            Ok::<_, anyhow::Error>(Api::namespaced(client_of(&config(master)).await?, &space.name))
        };
        space.maps().create(&PostParams::default(), &config_map("begin", LABEL, "1")).await?;
        let ready = Semaphore::new(0);
        let watchers = async {
            let resumed = resume(at(&leader).await?, at(two).await?, &ready);
            let python = informer(config(two), space.name.clone(), complaints.try_clone()?, &ready);
            tokio::try_join!(
                ended("kube-rs on one master", follow(space.maps(), &ready)),
                ended("kube-rs on the other master", follow(at(two).await?, &ready)),
                ended("kube-rs, resumed on another master", resumed),
                ended("the Python informer", python)
            )
        };
        let stop = AtomicBool::new(false);
        let work = async {
            // So that the watchers see everything as changes, not in their lists.
            let _all = within(30, ready.acquire_many(4)).await.context("the watchers are not ready")??;
            let mut writers = Vec::new();
            for writer in 0..WRITERS {
                let maps = at(if writer % 2 == 0 { one } else { two }).await?;
                writers.push(write(maps, writer, &stop));
            }
            let kill = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                cluster.kill(&leader)?;
                tokio::time::sleep(Duration::from_secs(4)).await;
                stop.store(true, Ordering::Relaxed);
                Ok(())
            };
            let (written, ()) = tokio::try_join!(futures::future::try_join_all(writers), kill)?;
            let expected: Histories = written.into_iter().flatten().collect();
            let last = config_map("end", LABEL, "1");
            acknowledged(async || space.maps().create(&PostParams::default(), &last).await, 409).await?;
            Ok::<_, anyhow::Error>(expected)
        };
        let outcome = tokio::try_join!(watchers, async { within(60, work).await.context("the writers")? });
        let gone = namespaces.delete(&space.name, &DeleteParams::background()).await;
        let (watchers, expected) = outcome?;
        println!("  {} objects written while {leader} died", expected.len());
        ensure!(expected.len() > 10, "only {} objects were written", expected.len());
        let (here, there, resumed, python) = watchers;
        for (who, seen) in [here, there, resumed, python] {
            compare(&histories(&seen).context(who)?, &expected).context(who)?;
        }
        gone.map(drop).context("deleting the namespace")
    })
}

fn compare(seen: &Histories, expected: &Histories) -> Result<()> {
    for (name, history) in expected {
        let found = seen.get(name).ok_or_else(|| anyhow!("{name} was never seen"))?;
        ensure!(found == history, "{name}: seen {found:?}, happened {history:?}");
    }
    ensure!(seen.len() == expected.len(), "{} objects seen, {} written", seen.len(), expected.len());
    Ok(())
}

/// Everything that the cases have made goes away.
pub fn nothing_is_left(cluster: &Cluster) -> Result<()> {
    trireme_chaos_tests::eventually(Duration::from_secs(30), || {
        let names = cluster.kubectl(&["get", "namespaces", "-o", "name"])?.ok()?;
        let left: Vec<&str> = names
            .lines()
            .filter(|line| {
                ["rs-", "py-", "js-", "kc-", "row-", "die-"].iter().any(|prefix| line.contains(&format!("/{prefix}")))
            })
            .collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

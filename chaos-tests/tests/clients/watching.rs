//! kube-rs: watches, reflectors, predicates, streaming lists, controllers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt, finalizer, predicates, reflector, wait};
use kube::{Api, ResourceExt};
use serde_json::json;
use trireme_chaos_tests::Cluster;

use crate::space::{Space, config_map, eventually, refused, with, within};

async fn make(space: &Space, name: &str) -> Result<ConfigMap> {
    Ok(space.maps().create(&PostParams::default(), &config_map(name, &[("w", "1")], "1")).await?)
}

async fn set(space: &Space, name: &str, value: &str) -> Result<ConfigMap> {
    let patch = Patch::Merge(json!({"data": {"k": value}}));
    Ok(space.maps().patch(name, &PatchParams::default(), &patch).await?)
}

fn shown<K: ResourceExt>(event: &WatchEvent<K>) -> String {
    match event {
        WatchEvent::Added(object) => format!("added {}", object.name_any()),
        WatchEvent::Modified(object) => format!("modified {}", object.name_any()),
        WatchEvent::Deleted(object) => format!("deleted {}", object.name_any()),
        WatchEvent::Bookmark(mark) => {
            format!(
                "bookmark{}",
                if mark.metadata.annotations.contains_key("k8s.io/initial-events-end") { " end" } else { "" }
            )
        }
        WatchEvent::Error(status) => format!("error {}", status.code),
    }
}

/// `Api::watch`, resumed from the version of an event.
pub fn watches(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let maps = space.maps();
        let made = make(space, "a").await?;
        set(space, "a", "2").await?;
        maps.delete("a", &DeleteParams::default()).await?;
        let params = WatchParams::default().labels("w=1").timeout(5);
        let version = made.resource_version().unwrap_or_default();
        let stream = maps.watch(&params, &version).await?;
        let seen: Vec<_> = within(10, stream.take(2).try_collect()).await??;
        ensure!(seen.iter().map(shown).collect::<Vec<_>>() == ["modified a", "deleted a"], "{seen:?}");
        let metadata = maps.watch_metadata(&params, &version).await?;
        let seen: Vec<_> = within(10, metadata.take(2).try_collect()).await??;
        ensure!(seen.iter().map(shown).collect::<Vec<_>>() == ["modified a", "deleted a"], "{seen:?}");
        // A stream whose time is over ends; a version that is none is refused.
        let stream = space.api::<Secret>().watch(&WatchParams::default().timeout(1), "0").await?;
        let rest: Vec<_> = within(5, stream.try_collect()).await??;
        ensure!(rest.iter().all(|event| matches!(event, WatchEvent::Bookmark(_))), "{rest:?}");
        match maps.watch(&params, "abc").await {
            Ok(_) => bail!("a version that is none is taken"),
            Err(error) => refused(Err::<(), _>(error), 400, "BadRequest").map(drop),
        }
    })
}

/// `sendInitialEvents`: what is there comes as events, then a bookmark says so.
pub fn streaming_lists(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        make(space, "a").await?;
        make(space, "b").await?;
        let params = WatchParams::streaming_lists().labels("w=1").timeout(5);
        let stream = space.maps().watch(&params, "").await?;
        let seen: Vec<_> = within(10, stream.take(3).try_collect()).await??;
        let seen: Vec<_> = seen.iter().map(shown).collect();
        ensure!(seen == ["added a", "added b", "bookmark end"], "{seen:?}");
        let stream = watcher(space.maps(), watcher::Config::default().labels("w=1").streaming_lists());
        pin_mut!(stream);
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| last != "apply c") {
            let Some(event) = within(10, stream.try_next()).await?? else { bail!("the watcher ended") };
            match event {
                Event::Init => seen.push("init".into()),
                Event::InitApply(map) => seen.push(format!("init {}", map.name_any())),
                Event::InitDone => {
                    seen.push("done".into());
                    make(space, "c").await?;
                }
                Event::Apply(map) => seen.push(format!("apply {}", map.name_any())),
                Event::Delete(map) => seen.push(format!("delete {}", map.name_any())),
            }
        }
        ensure!(seen == ["init", "init a", "init b", "done", "apply c"], "{seen:?}");
        Ok(())
    })
}

/// A reflector's store follows the cluster.
pub fn reflectors(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        for i in 0..5 {
            make(space, &format!("r-{i}")).await?;
        }
        let (store, writer) = reflector::store::<ConfigMap>();
        // Pages of two, to see that the initial list is put together.
        let config = watcher::Config::default().labels("w=1").page_size(2);
        let stream = watcher(space.maps(), config).default_backoff().reflect(writer).applied_objects();
        let task = tokio::spawn(stream.for_each(async |_| {}));
        within(10, store.wait_until_ready()).await??;
        ensure!(store.state().len() == 5, "{}", store.state().len());
        set(space, "r-0", "9").await?;
        space.maps().delete("r-1", &DeleteParams::default()).await?;
        eventually(10, async || {
            ensure!(store.state().len() == 4);
            let found = store.find(|map| map.name_any() == "r-0");
            ensure!(found.is_some_and(|map| map.data.as_ref().is_some_and(|data| data["k"] == "9")));
            Ok(())
        })
        .await?;
        task.abort();
        // The same of metadata alone.
        let only: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(space.client.clone(), &space.name);
        let (store, writer) = reflector::store();
        let stream = watcher(only, watcher::Config::default().labels("w=1")).reflect(writer).touched_objects();
        let task = tokio::spawn(stream.for_each(async |_| {}));
        within(10, store.wait_until_ready()).await??;
        ensure!(store.state().len() == 4);
        make(space, "r-9").await?;
        eventually(10, async || {
            ensure!(store.state().len() == 5);
            Ok(())
        })
        .await?;
        task.abort();
        Ok(())
    })
}

/// Only what changes labels passes a filter on labels.
pub fn predicate_filters(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        make(space, "p").await?;
        let config = watcher::Config::default().fields("metadata.name=p");
        let stream = watcher(space.maps(), config)
            .applied_objects()
            .predicate_filter(predicates::labels, PredicateConfig::default());
        pin_mut!(stream);
        let first = within(10, stream.try_next()).await??;
        ensure!(first.is_some());
        set(space, "p", "2").await?;
        let patch = Patch::Merge(json!({"metadata": {"labels": {"more": "1"}}}));
        space.maps().patch("p", &PatchParams::default(), &patch).await?;
        let next = within(10, stream.try_next()).await??.map(|map| (map.labels().len(), map.data));
        ensure!(matches!(&next, Some((2, Some(data))) if data["k"] == "2"), "{next:?}");
        Ok(())
    })
}

/// Conditions on objects that appear, change and go.
pub fn conditions(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let pods = space.running("c", &["sleep", "1000"], json!({})).await?;
        let uid = pods.get("c").await?.uid().unwrap_or_default();
        pods.delete("c", &DeleteParams::default()).await?;
        within(20, wait::await_condition(pods, "c", wait::conditions::is_deleted(&uid))).await??;
        let maps = space.maps();
        let later = wait::await_condition(maps.clone(), "later", wait::conditions::is_created());
        let (seen, made) = tokio::join!(within(10, later), make(space, "later"));
        made?;
        ensure!(seen??.is_some());
        wait::delete::delete_and_finalize(maps, "later", &DeleteParams::default()).await?;
        Ok(())
    })
}

const FINALIZER: &str = "trireme.io/clients-test";

struct Work {
    maps: Api<ConfigMap>,
}

/// Copies each marked map into a child `NAME-copy`, and deletes the copy when the map goes.
async fn reconcile(map: Arc<ConfigMap>, work: Arc<Work>) -> Result<Action, finalizer::Error<kube::Error>> {
    finalizer(&work.maps, FINALIZER, map, async |event| match event {
        finalizer::Event::Apply(map) => {
            let mut copy = config_map(&format!("{}-copy", map.name_any()), &[], "");
            copy.data.clone_from(&map.data);
            copy.metadata.owner_references = kube::Resource::controller_owner_ref(&*map, &()).map(|owner| vec![owner]);
            let name = copy.name_any();
            match work.maps.get_opt(&name).await? {
                None => drop(work.maps.create(&PostParams::default(), &copy).await?),
                Some(old) if old.data == copy.data => {}
                Some(_) => {
                    let patch = Patch::Merge(json!({"data": copy.data}));
                    work.maps.patch(&name, &PatchParams::default(), &patch).await?;
                }
            }
            Ok(Action::requeue(Duration::from_secs(300)))
        }
        finalizer::Event::Cleanup(map) => {
            let copy = format!("{}-copy", map.name_any());
            // It may be gone already: a clean-up that was interrupted is done again.
            match work.maps.delete(&copy, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                answer => drop(answer?),
            }
            Ok(Action::await_change())
        }
    })
    .await
}

/// A controller with a finalizer that owns what it makes.
pub fn controller(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let maps = space.maps();
        let work = Arc::new(Work { maps: maps.clone() });
        let config = watcher::Config::default();
        let controller = Controller::new(maps.clone(), config.clone().labels("w=1")).owns(maps.clone(), config).run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_millis(100)),
            work,
        );
        let (complain, mut complaints) = tokio::sync::mpsc::channel(100);
        let task = tokio::spawn(controller.for_each(move |done| {
            // It may ask for what is gone already; that is told only if the test fails.
            let _ = done.map_err(|error| complain.try_send(format!("{error:?}")));
            futures::future::ready(())
        }));
        let outcome = keeps(space, &maps).await;
        task.abort();
        outcome.with_context(|| {
            let said: Vec<String> = std::iter::from_fn(|| complaints.try_recv().ok()).collect();
            format!("the controller complained: {said:?}")
        })
    })
}

/// What the controller of `controller` has to do, asked of it.
async fn keeps(space: &Space, maps: &Api<ConfigMap>) -> Result<()> {
    make(space, "one").await?;
    let copied = async |value: &str| {
        eventually(10, async || {
            let copy = maps.get("one-copy").await?;
            ensure!(copy.data.as_ref().is_some_and(|data| data["k"] == value), "{copy:?}");
            Ok(copy)
        })
        .await
    };
    copied("1").await?;
    ensure!(maps.get("one").await?.finalizers() == [FINALIZER]);
    set(space, "one", "2").await?;
    copied("2").await?;
    // Somebody deletes or spoils the child: it is put right.
    set(space, "one-copy", "spoilt").await?;
    copied("2").await?;
    maps.delete("one-copy", &DeleteParams::default()).await?;
    copied("2").await?;
    maps.delete("one", &DeleteParams::default()).await?;
    eventually(10, async || {
        ensure!(maps.get_opt("one").await?.is_none() && maps.get_opt("one-copy").await?.is_none());
        Ok(())
    })
    .await
}

//! The scheduler that the leading master runs: queue, snapshot, filter, score, bind.
//!
//! The engine is pure: it hears what the informers say, and decides. This file gives it the events and the time,
//! and carries its decisions out in parallel.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trireme_client::events::EventRecorder;
use trireme_client::informer::{Informers, Notice};
use trireme_client::leadership::{LeadershipRx, Reign, while_reigning};

use k8s_openapi::api::core::v1::{Node, Pod, Service};

mod affinity;
mod binder;
mod config;
mod engine;
mod filter;
mod queue;
mod resources;
mod score;
mod state;
#[cfg(test)]
mod tests;

use binder::{Binder, Bound};
pub use config::{Config, ConfigError};
use engine::{Decision, Engine};
use state::PodInfo;

/// Runs the scheduler whenever this process reigns, until `shutdown`.
pub async fn run(informers: Arc<Informers>, leadership: LeadershipRx, config: Config, shutdown: CancellationToken) {
    let config = Arc::new(config);
    let body = |reign: Arc<Reign>| reign_over(informers.clone(), reign, config.clone());
    while_reigning(leadership, informers.clone(), shutdown, body).await;
}

/// Everything that can happen to the scheduler.
enum Event {
    Pods(Notice<Pod>),
    Nodes(Notice<Node>),
    Services(Notice<Service>),
    Finished(Option<Finished>),
    Due,
}

/// What a task that carried out a decision has to tell.
struct Finished {
    pod: Arc<PodInfo>,
    result: Bound,
}

/// Schedules for one reign; dropped, with all bindings under way, when it ends.
async fn reign_over(informers: Arc<Informers>, reign: Arc<Reign>, config: Arc<Config>) {
    tracing::info!(fence = reign.fence_revision, "scheduler acts");
    let (recorder, writer) = EventRecorder::new(reign.client.clone(), &config.scheduler_name, None);
    let binder = Binder { client: reign.client.clone(), recorder };
    let mut writer_task = JoinSet::new();
    writer_task.spawn(writer.run());

    let mut engine = Engine::new(&config);
    let mut tasks: JoinSet<Option<Finished>> = JoinSet::new();
    let (mut pods, mut nodes) = (informers.pods.subscribe(), informers.nodes.subscribe());
    let mut services = informers.services.subscribe();
    // Nodes and services first, so that no pod is called unschedulable for want of having looked.
    engine.nodes(nodes.recv().await, Instant::now());
    engine.services(services.recv().await);
    engine.pods(pods.recv().await, Instant::now());
    loop {
        // What is known already comes before decisions; decisions come before waiting.
        while let Some(notice) = nodes.try_recv() {
            engine.nodes(notice, Instant::now());
        }
        while let Some(notice) = pods.try_recv() {
            engine.pods(notice, Instant::now());
        }
        decide(&mut engine, &mut tasks, &binder, config.parallel_binds);
        let can_start = tasks.len() < config.parallel_binds;
        let due = engine.next_due().filter(|_| can_start);
        let event = tokio::select! {
            notice = pods.recv() => Event::Pods(notice),
            notice = nodes.recv() => Event::Nodes(notice),
            notice = services.recv() => Event::Services(notice),
            Some(finished) = tasks.join_next() => Event::Finished(finished.ok().flatten()),
            () = sleep_until(due) => Event::Due,
        };
        dispatch(&mut engine, event);
    }
}

fn dispatch(engine: &mut Engine, event: Event) {
    let now = Instant::now();
    match event {
        Event::Pods(notice) => engine.pods(notice, now),
        Event::Nodes(notice) => engine.nodes(notice, now),
        Event::Services(notice) => engine.services(notice),
        Event::Finished(Some(Finished { pod, result: Bound::No(error) })) => {
            tracing::warn!(pod = %pod.key, %error, "binding failed");
            engine.not_bound(&pod, now);
        }
        Event::Finished(Some(Finished { pod, result: Bound::Vanished })) => engine.vanished(&pod, now),
        // A bound pod stays assumed until the informer shows it on its node.
        Event::Finished(Some(Finished { result: Bound::Yes, .. }) | None) | Event::Due => {}
    }
}

/// Decides as long as there are pods to decide about and room to carry it out.
fn decide(engine: &mut Engine, tasks: &mut JoinSet<Option<Finished>>, binder: &Binder, room: usize) {
    while tasks.len() < room {
        let Some(decision) = engine.next(Instant::now()) else { return };
        let binder = binder.clone();
        tasks.spawn(async move {
            match decision {
                Decision::Bind { pod, node } => {
                    let result = binder.bind(&pod, &node).await;
                    Some(Finished { pod, result })
                }
                Decision::Unschedulable { pod, message } => {
                    binder.explain(pod, message).await;
                    None
                }
            }
        });
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

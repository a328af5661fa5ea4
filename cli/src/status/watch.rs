//! `trireme status --watch`: what the API tells of comes through watches; what has no event is asked for now and then.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::Api;
use kube::runtime::reflector::{self, Lookup, Store, store::Writer};
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::collect::{Agent, Answer, Collector, Facts};
use super::report::Report;
use super::target::Target;
use super::{Args, make, names, print, render};
use crate::admin::member::Output;
use crate::terminal;

/// How often the masters are asked about themselves.
const MASTERS: Duration = Duration::from_secs(2);
/// How often the agents are asked about their machines.
const AGENTS: Duration = Duration::from_secs(10);
/// Changes that come in one burst are shown at once.
const GATHER: Duration = Duration::from_millis(150);
/// For how long the first screen waits for all lists.
const FIRST: Duration = Duration::from_secs(3);

/// Shows the cluster until somebody has seen enough.
pub async fn run(args: &Args, target: &Target, collector: Collector) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut screen = Screen::new(args.output);
    let ended = tokio::select! {
        ended = follow(target, collector, &mut screen) => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    screen.close();
    ended.map(|()| ExitCode::SUCCESS)
}

async fn follow(target: &Target, mut collector: Collector, screen: &mut Screen) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let stores = Stores::start(&collector.any, &mut tasks);
    let mut changes = stores.changes.subscribe();
    let mut resized = signal(SignalKind::window_change())?;
    let mut masters = collector.masters().await?;
    if masters.iter().any(|answer| answer.ready.is_ok()) {
        let _ = tokio::time::timeout(FIRST, stores.ready()).await;
    }
    let (mut agents, mut asked) = (BTreeMap::new(), None::<Instant>);
    let mut tick = tokio::time::interval(MASTERS);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        changes.borrow_and_update();
        let facts = stores.facts();
        // A new node is asked at once; all of them now and then.
        let known = names(&facts).iter().all(|name| agents.contains_key(name));
        if !known || asked.is_none_or(|at| at.elapsed() >= AGENTS) {
            agents = collector.agents(names(&facts)).await;
            asked = Some(Instant::now());
        }
        screen.show(&report(target, &masters, &stores, &agents))?;
        tokio::select! {
            _ = changes.changed() => tokio::time::sleep(GATHER).await,
            _ = resized.recv() => {}
            _ = tick.tick() => masters = collector.masters().await?,
        }
    }
}

fn report(
    target: &Target,
    masters: &[Answer],
    stores: &Stores,
    agents: &BTreeMap<String, Result<Agent, String>>,
) -> Report {
    let facts = stores.facts();
    let known = if stores.loaded() { Ok(&facts) } else { Err("nodes and pods are not known yet") };
    make(target, masters, known, agents)
}

/// What the watches have brought.
struct Stores {
    nodes: Store<Node>,
    leases: Store<Lease>,
    pods: Store<Pod>,
    deployments: Store<Deployment>,
    events: Store<Event>,
    changes: watch::Sender<u64>,
}

impl Stores {
    fn start(client: &kube::Client, tasks: &mut JoinSet<()>) -> Stores {
        let changes = watch::Sender::new(0);
        Stores {
            nodes: start(client, tasks, Some(&changes)),
            // A heartbeat is no news; its age is shown with the next tick.
            leases: start(client, tasks, None),
            pods: start(client, tasks, Some(&changes)),
            deployments: start(client, tasks, Some(&changes)),
            events: start(client, tasks, Some(&changes)),
            changes,
        }
    }

    async fn ready(&self) {
        let _ = tokio::join!(
            self.nodes.wait_until_ready(),
            self.leases.wait_until_ready(),
            self.pods.wait_until_ready(),
            self.deployments.wait_until_ready(),
            self.events.wait_until_ready(),
        );
    }

    /// Whether every list has come at least once.
    fn loaded(&self) -> bool {
        self.nodes.wait_until_ready().now_or_never().is_some()
            && self.pods.wait_until_ready().now_or_never().is_some()
            && self.deployments.wait_until_ready().now_or_never().is_some()
    }

    fn facts(&self) -> Facts {
        Facts {
            nodes: all(&self.nodes),
            leases: all(&self.leases),
            pods: all(&self.pods),
            deployments: all(&self.deployments),
            events: all(&self.events),
        }
    }
}

fn all<K>(store: &Store<K>) -> Vec<K>
where
    K: Lookup<DynamicType = ()> + Clone + 'static,
{
    store.state().iter().map(|object| (**object).clone()).collect()
}

/// Keeps all objects of a kind up to date, and tells of changes.
fn start<K>(client: &kube::Client, tasks: &mut JoinSet<()>, changes: Option<&watch::Sender<u64>>) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + DeserializeOwned,
    K: std::fmt::Debug + Send + Sync + 'static,
{
    let (store, writer): (Store<K>, Writer<K>) = reflector::store();
    let (api, changes) = (Api::<K>::all(client.clone()), changes.cloned());
    tasks.spawn(async move {
        let stream = watcher::watcher(api, watcher::Config::default()).default_backoff();
        let mut stream = std::pin::pin!(stream.reflect(writer));
        while let Some(event) = stream.next().await {
            // While masters are away this fails; that they are is shown without it.
            if let (Ok(_), Some(changes)) = (&event, &changes) {
                changes.send_modify(|count| *count += 1);
            }
        }
    });
    store
}

/// Where it is shown.
struct Screen {
    output: Output,
    terminal: bool,
    drawn: bool,
    last: Option<Report>,
}

impl Screen {
    fn new(output: Output) -> Screen {
        let terminal = std::io::stdout().is_terminal() && output == Output::Table;
        Screen { output, terminal, drawn: false, last: None }
    }

    fn show(&mut self, report: &Report) -> anyhow::Result<()> {
        if self.terminal {
            return self.draw(report);
        }
        let settled = report.settled();
        if self.last.as_ref() == Some(&settled) {
            return Ok(());
        }
        if self.last.is_some() && self.output == Output::Table {
            println!();
        }
        if self.output == Output::Table {
            println!("---- {}", report.time);
        }
        print(report, self.output)?;
        std::io::stdout().flush()?;
        self.last = Some(settled);
        Ok(())
    }

    /// Over what was there: no flicker, and nothing of it left.
    fn draw(&mut self, report: &Report) -> anyhow::Result<()> {
        let (columns, rows) = terminal::size(std::io::stdout()).unwrap_or((120, 50));
        let text = render::fit(&render::text(report), usize::from(columns), usize::from(rows).saturating_sub(2));
        let time = report.time.trim_end_matches('Z').replace('T', " ");
        let mut frame = String::from(if self.drawn { "\x1b[H" } else { "\x1b[2J\x1b[H" });
        for line in text.lines().chain(["", &format!("{time} UTC   Ctrl-C ends this")]) {
            frame.push_str(line);
            frame.push_str("\x1b[K\r\n");
        }
        // Not past the last line: that would scroll.
        frame.truncate(frame.len() - 2);
        frame.push_str("\x1b[J");
        self.drawn = true;
        let mut out = std::io::stdout().lock();
        out.write_all(frame.as_bytes())?;
        Ok(out.flush()?)
    }

    fn close(&self) {
        if self.drawn {
            println!();
        }
    }
}

//! `trictl drain`: takes all pods off a node, by eviction where the server has it.

mod choice;

use std::time::{Duration, Instant};

use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use self::choice::{Choice, Flags};
use super::api::Call;
use super::discovery::Resource;
use super::errors::{CtlError, Result};
use super::get::show_result;
use super::mutate::{DryRun, Mode};
use super::nodes;
use super::print::emit;
use super::session::Session;
use super::targets::{self, Selection, Target};
use super::{flags, time};

/// Pause before an eviction that a budget has refused is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Pause between looks at a pod that is about to end.
const LOOK: Duration = Duration::from_secs(1);
/// Requests under way at one time.
const REQUESTS: usize = 32;

/// Drain node in preparation for maintenance.
#[derive(Debug, Clone, Default, Args)]
pub struct DrainArgs {
    /// NODE...
    pub words: Vec<String>,
    /// Objects per page; 0 is all at once
    #[arg(long, default_value_t = 500)]
    pub chunk_size: i64,
    /// Go on even if there are pods with emptyDir volumes, whose data is deleted with them
    #[arg(long)]
    pub delete_emptydir_data: bool,
    /// The old name of --delete-emptydir-data
    #[arg(long, hide = true)]
    pub delete_local_data: bool,
    /// Delete pods even if eviction is supported: disruption budgets are not asked
    #[arg(long)]
    pub disable_eviction: bool,
    /// Only show what would happen: none, client or server
    #[arg(long, value_parser = DryRun::parse, num_args = 0..=1, require_equals = true, default_missing_value = "unchanged", default_value = "none")]
    pub dry_run: DryRun,
    /// Go on even if there are pods that no controller would make again
    #[arg(long)]
    pub force: bool,
    /// Seconds for each pod to end gracefully; negative: as the pod says
    #[arg(long, default_value_t = -1)]
    pub grace_period: i64,
    /// Ignore pods of daemon sets
    #[arg(long)]
    pub ignore_daemonsets: bool,
    /// Label selector for the pods on the node
    #[arg(long, default_value = "", hide_default_value = true)]
    pub pod_selector: String,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Do not wait for pods that were to end more than this many seconds ago; 0 waits for all
    #[arg(long, default_value_t = 0)]
    pub skip_wait_for_delete_timeout: i64,
    /// How long to try; 0 is without limit
    #[arg(long, default_value = "0s", value_parser = flags::seconds)]
    pub timeout: f64,
}

impl DrainArgs {
    fn flags(&self) -> Flags {
        Flags {
            force: self.force,
            ignore_daemon_sets: self.ignore_daemonsets,
            delete_local_data: self.delete_emptydir_data || self.delete_local_data,
            skip_after: self.skip_wait_for_delete_timeout,
        }
    }
}

/// Runs the verb.
pub async fn run(session: &Session, args: &DrainArgs) -> Result<()> {
    let selector = args.selector.as_ref();
    nodes::chosen("drain", &args.words, selector)?;
    if !args.pod_selector.is_empty() && trireme_api::selector::LabelSelector::parse(&args.pod_selector).is_err() {
        return Err(CtlError::plain("--pod-selector=<pod_selector> must be a valid label selector"));
    }
    let found = nodes::fetch(session, &args.words, selector).await?;
    let mode = Mode { dry_run: args.dry_run, ..Mode::default() };
    for (target, node) in &found {
        nodes::mark(session, target, node, true, &mode).await?;
    }
    let drain = Drain::new(session, args).await?;
    let mut failed: Vec<(String, Vec<String>)> = Vec::new();
    for (target, node) in &found {
        match drain.node(&target.name).await? {
            Ok(()) => show_result(target, node, &mode.printer()?, &mode.done("drained"))?,
            Err(why) => {
                let all = aggregate(&why);
                eprintln!("error: unable to drain node {:?} due to error: {all}, continuing command...", target.name);
                failed.push((target.name.clone(), why));
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    eprintln!("There are pending nodes to be drained:");
    failed.iter().for_each(|(name, _)| eprintln!(" {name}"));
    Err(CtlError::Many(failed.into_iter().flat_map(|(_, why)| why).map(CtlError::bare).collect()))
}

/// What is needed for every node.
struct Drain<'a> {
    session: &'a Session,
    args: &'a DrainArgs,
    pods: std::sync::Arc<Resource>,
    deadline: Option<Instant>,
    requests: Semaphore,
}

/// Why a pod is still there; the outer error is one that ends everything.
type Gone = std::result::Result<(), String>;

/// Why a node is not empty.
type Drained = std::result::Result<(), Vec<String>>;

/// Several reasons as Go's aggregate writes them.
fn aggregate(reasons: &[String]) -> String {
    match reasons {
        [only] => only.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn drained(reasons: Vec<String>) -> Drained {
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

impl<'a> Drain<'a> {
    async fn new(session: &'a Session, args: &'a DrainArgs) -> Result<Drain<'a>> {
        let pods = session.discovery().await?.need("pods")?;
        let deadline = (args.timeout > 0.0).then(|| Instant::now() + Duration::from_secs_f64(args.timeout));
        Ok(Drain { session, args, pods, deadline, requests: Semaphore::new(REQUESTS) })
    }

    async fn node(&self, name: &str) -> Result<Drained> {
        let choice = self.choose(name).await?;
        if !choice.refusals.is_empty() {
            return Ok(drained(choice.refusals()));
        }
        if !choice.warnings.is_empty() {
            eprintln!("Warning: {}", choice.warnings().join("; "));
        }
        let verb = if self.evicts() { "evicting" } else { "deleting" };
        if self.args.dry_run == DryRun::Client {
            for pod in &choice.pods {
                emit(&format!("{verb} pod {} (dry run)\n", full_name(pod)))?;
            }
            return Ok(Ok(()));
        }
        let outcome = if self.evicts() { self.evict(choice.pods).await? } else { self.delete(choice.pods).await? };
        if let Err(why) = &outcome {
            let pending = self.choose(name).await?;
            if !pending.pods.is_empty() {
                eprintln!("There are pending pods in node {name:?} when an error occurred: {}", aggregate(why));
                pending.pods.iter().for_each(|pod| eprintln!("pod/{}", text(pod, "name")));
            }
        }
        Ok(outcome)
    }

    fn evicts(&self) -> bool {
        !self.args.disable_eviction && self.pods.subresources.iter().any(|name| name == "eviction")
    }

    /// The node's pods, sorted by what becomes of them.
    async fn choose(&self, node: &str) -> Result<Choice> {
        let selection = Selection {
            labels: Some(self.args.pod_selector.clone()),
            fields: Some(format!("spec.nodeName={node}")),
            all_namespaces: true,
            chunk: Some(self.args.chunk_size),
            ..Selection::default()
        };
        let (flags, mut choice) = (self.args.flags(), Choice::default());
        for pod in targets::list(self.session, &self.pods, &selection).await? {
            let missing = match choice::daemon_set(&pod) {
                Some(name) => self.missing(text(&pod, "namespace"), name).await,
                None => None,
            };
            choice.add(pod, missing.as_ref(), &flags, jiff::Timestamp::now());
        }
        Ok(choice)
    }

    /// What the server says of a daemon set that it does not show: the text, and whether it is not there.
    async fn missing(&self, namespace: &str, name: &str) -> Option<(String, bool)> {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}");
        match self.session.api.json(&Call::get(path)).await {
            Ok(_) => None,
            Err(error) => Some((error.reason_text(), error.is_not_found())),
        }
    }

    async fn evict(&self, pods: Vec<Value>) -> Result<Drained> {
        let mut running: FuturesUnordered<_> = pods.into_iter().map(|pod| self.evict_one(pod)).collect();
        let mut reasons = Vec::new();
        while let Some(outcome) = running.next().await {
            reasons.extend(outcome?.err());
        }
        Ok(drained(reasons))
    }

    /// Evicts a pod, again and again while a budget refuses it, and waits until it is gone.
    async fn evict_one(&self, mut pod: Value) -> Result<Gone> {
        let (namespace, name) = (text(&pod, "namespace").to_owned(), text(&pod, "name").to_owned());
        let during = format!("error when evicting pods/{name:?} -n {namespace:?}");
        let note = if self.args.dry_run == DryRun::Server { " (server dry run)" } else { "" };
        loop {
            emit(&format!("evicting pod {namespace}/{name}{note}\n"))?;
            if self.is_over() {
                return Ok(Err(format!("{during}: global timeout reached: {}", self.limit())));
            }
            let body = json!({
                "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace},
                "deleteOptions": self.options(),
            });
            let call = Call::new(Method::POST, format!("{}/eviction", self.path(&pod))).body(&body);
            match self.ask(&call).await {
                Ok(_) => break,
                Err(error) if error.is_not_found() => return Ok(Ok(())),
                Err(error) if error.reason() == "TooManyRequests" => {
                    eprintln!("{during} (will retry after 5s): {}", error.reason_text());
                }
                Err(error) if in_ending_namespace(&error) && pod["metadata"]["deletionTimestamp"].is_string() => break,
                Err(error) if in_ending_namespace(&error) => eprintln!(
                    "error when evicting pod {name:?} from terminating namespace {namespace:?} (will retry after 5s): {}",
                    error.reason_text()
                ),
                Err(error) => return Ok(Err(format!("{during}: {}", error.reason_text()))),
            }
            self.pause(RETRY).await;
            if let Ok(fresh) = self.ask(&Call::get(self.path(&pod))).await {
                pod = fresh;
            }
        }
        if self.args.dry_run == DryRun::Server {
            return Ok(Ok(()));
        }
        let gone = self.gone(&pod, "evicted").await?;
        Ok(gone.map_err(|why| {
            format!("error when waiting for pod {name:?} in namespace {namespace:?} to terminate: {why}")
        }))
    }

    async fn delete(&self, pods: Vec<Value>) -> Result<Drained> {
        for pod in &pods {
            if self.args.dry_run == DryRun::Server {
                emit(&format!("deleting pod {} (server dry run)\n", full_name(pod)))?;
            }
            match self.ask(&Call::new(Method::DELETE, self.path(pod)).body(&self.options())).await {
                Err(error) if !error.is_not_found() => return Ok(Err(vec![error.reason_text()])),
                _ => {}
            }
        }
        if self.args.dry_run == DryRun::Server {
            return Ok(Ok(()));
        }
        for pod in &pods {
            if let Err(why) = self.gone(pod, "deleted").await? {
                return Ok(Err(vec![why]));
            }
        }
        Ok(Ok(()))
    }

    /// Waits until a pod is gone, and says so.
    async fn gone(&self, pod: &Value, done: &str) -> Result<Gone> {
        let name = text(pod, "name");
        let skip = self.args.skip_wait_for_delete_timeout;
        loop {
            match self.ask(&Call::get(self.path(pod))).await {
                Ok(now) if now["metadata"]["uid"] != pod["metadata"]["uid"] => break,
                Ok(now) if choice::is_overdue(&now, skip, jiff::Timestamp::now()) => {
                    emit(&format!("pod {name:?} has DeletionTimestamp older than {skip} seconds, skipping\n"))?;
                    return Ok(Ok(()));
                }
                Ok(_) => {}
                Err(error) if error.is_not_found() => break,
                Err(error) if error.is_passing() => {}
                Err(error) => return Ok(Err(error.reason_text())),
            }
            if self.is_over() {
                return Ok(Err("context deadline exceeded".to_owned()));
            }
            self.pause(LOOK).await;
        }
        emit(&format!("pod/{name} {done}\n"))?;
        Ok(Ok(()))
    }

    async fn ask(&self, call: &Call) -> Result<Value> {
        // The semaphore is never closed.
        let _turn = self.requests.acquire().await;
        self.session.api.json(call).await
    }

    fn path(&self, pod: &Value) -> String {
        let target: Target = targets::of_object(&self.pods, pod.clone());
        target.path()
    }

    fn options(&self) -> Value {
        let mut options = json!({});
        if self.args.grace_period >= 0 {
            options["gracePeriodSeconds"] = json!(self.args.grace_period);
        }
        if self.args.dry_run == DryRun::Server {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn limit(&self) -> String {
        time::go_duration(Duration::from_secs_f64(self.args.timeout.max(0.0)))
    }

    /// Sleeps, but not beyond the deadline.
    async fn pause(&self, time: Duration) {
        let left = self.deadline.map_or(time, |deadline| deadline.saturating_duration_since(Instant::now()));
        tokio::time::sleep(time.min(left)).await;
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn full_name(pod: &Value) -> String {
    format!("{}/{}", text(pod, "namespace"), text(pod, "name"))
}

/// Nothing can be created, not even an eviction, in a namespace that is being deleted.
fn in_ending_namespace(error: &CtlError) -> bool {
    let CtlError::Status(status) = error else { return false };
    let mut causes = status["details"]["causes"].as_array().into_iter().flatten();
    error.reason() == "Forbidden" && causes.any(|cause| cause["reason"] == "NamespaceTerminating")
}

//! `trictl rollout`.

mod past;
mod progress;

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use self::past::{history, revision, undo};
use self::progress::{Progress, progress};
use super::api::Call;
use super::errors::{CtlError, Result};
use super::flags;
use super::get::show_result;
use super::manifest::Files;
use super::mutate::{DryRun, STRATEGIC};
use super::print::{Formats, PrintFlags, emit};
use super::session::Session;
use super::targets::{self, Selection, Target};

/// Manage the rollout of a deployment.
#[derive(Debug, Clone, Subcommand)]
pub enum Rollout {
    /// Show how far a rollout is, and wait for its end
    Status(StatusArgs),
    /// Start all pods anew, a few at a time
    Restart(ChangeArgs),
    /// Show earlier revisions
    History(HistoryArgs),
    /// Go back to an earlier revision
    Undo(UndoArgs),
    /// Stop rolling out changes
    Pause(ChangeArgs),
    /// Go on rolling out changes
    Resume(ChangeArgs),
}

/// Which workloads.
#[derive(Debug, Clone, Args)]
pub struct OnArgs {
    /// TYPE NAME... or TYPE/NAME...
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
}

/// `rollout restart`, `pause` and `resume`
#[derive(Debug, Clone, Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub on: OnArgs,
    #[command(flatten)]
    pub print: PrintFlags,
    /// Name of the manager used to track field ownership
    #[arg(long, default_value = "kubectl-rollout")]
    pub field_manager: String,
}

/// `rollout status`
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub on: OnArgs,
    /// Wait for the end
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub watch: bool,
    /// How long to wait; 0 is without limit
    #[arg(long, default_value = "0s", value_parser = flags::seconds)]
    pub timeout: f64,
    /// Only this revision will do; 0 is the last
    #[arg(long, default_value_t = 0)]
    pub revision: i64,
}

/// `rollout history`
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    pub on: OnArgs,
    #[command(flatten)]
    pub print: PrintFlags,
    /// Show the pod template of this revision
    #[arg(long, default_value_t = 0)]
    pub revision: i64,
}

/// `rollout undo`
#[derive(Debug, Clone, Args)]
pub struct UndoArgs {
    #[command(flatten)]
    pub on: OnArgs,
    #[command(flatten)]
    pub print: PrintFlags,
    /// Only show what would happen: none, client or server
    #[arg(long, value_parser = DryRun::parse, num_args = 0..=1, require_equals = true, default_missing_value = "unchanged", default_value = "none")]
    pub dry_run: DryRun,
    /// The revision to go back to; 0 is the one before
    #[arg(long, default_value_t = 0)]
    pub to_revision: i64,
}

/// Runs the verb.
pub async fn run(session: &Session, verb: &Rollout) -> Result<()> {
    let on = match verb {
        Rollout::Status(args) => &args.on,
        Rollout::History(args) => &args.on,
        Rollout::Undo(args) => &args.on,
        Rollout::Restart(args) | Rollout::Pause(args) | Rollout::Resume(args) => &args.on,
    };
    if on.words.is_empty() && on.files.is_empty() {
        return Err(CtlError::plain("required resource not specified"));
    }
    if let Rollout::History(HistoryArgs { revision, .. }) | Rollout::Status(StatusArgs { revision, .. }) = verb
        && *revision < 0
    {
        return Err(CtlError::plain(format!("revision must be a positive integer: {revision}")));
    }
    // A type alone means all its objects here.
    let bare = on.words.len() == 1 && !on.words[0].contains('/') && on.selector.is_none();
    let selection = Selection { labels: on.selector.clone(), all: bare, ..Selection::default() };
    let (found, mut failures) = targets::resolve(session, &on.words, &on.files, &selection).await?;
    if found.is_empty() && failures.is_empty() {
        eprintln!("No resources found in {} namespace.", session.namespace);
    }
    for target in found {
        let outcome = match verb {
            Rollout::Status(args) => status(session, args, &target).await,
            Rollout::Restart(args) => restart(session, args, &target).await,
            Rollout::History(args) => history(session, args, &target).await,
            Rollout::Undo(args) => undo(session, args, &target).await,
            Rollout::Pause(args) => pause(session, args, &target, true).await,
            Rollout::Resume(args) => pause(session, args, &target, false).await,
        };
        failures.extend(outcome.err());
    }
    CtlError::gather(failures)
}

async fn status(session: &Session, args: &StatusArgs, target: &Target) -> Result<()> {
    let deadline = (args.timeout > 0.0).then(|| Instant::now() + Duration::from_secs_f64(args.timeout));
    let mut last = String::new();
    loop {
        let object = match target.fetch(session).await {
            Ok(object) => object,
            // The connection broke in the middle; another master goes on.
            Err(error) if error.is_passing() && !last.is_empty() => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let running = revision(&object);
        if args.revision > 0 && running != args.revision {
            return Err(CtlError::plain(format!(
                "desired revision ({}) is different from the running revision ({running})",
                args.revision
            )));
        }
        let (text, done) = match progress(&object) {
            Progress::Waiting(text) => (text, false),
            Progress::Done(text) => (text, true),
            Progress::Failed(text) => return Err(CtlError::plain(text)),
        };
        if text != last {
            emit(&format!("{text}\n"))?;
            last = text;
        }
        if done || !args.watch {
            return Ok(());
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(CtlError::plain("timed out waiting for the condition"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn is_deployment(target: &Target) -> bool {
    target.resource.group == "apps" && target.resource.kind == "Deployment"
}

async fn restart(session: &Session, args: &ChangeArgs, target: &Target) -> Result<()> {
    let object = target.fetch(session).await?;
    let name = format!("{} {:?}", target.resource.qualified(), target.name);
    if !matches!(target.resource.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet") {
        return Err(CtlError::plain(format!("{name} restarting is not supported")));
    }
    if object["spec"]["paused"] == true {
        return Err(CtlError::plain(format!("{name} can't restart paused deployment (run rollout resume first)")));
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let body = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}});
    change(session, args, target, &body, "restarted").await
}

async fn pause(session: &Session, args: &ChangeArgs, target: &Target, paused: bool) -> Result<()> {
    let object = target.fetch(session).await?;
    let name = format!("{} {:?}", target.resource.qualified(), target.name);
    if !is_deployment(target) {
        let doing = if paused { "pausing" } else { "resuming" };
        return Err(CtlError::plain(format!("{name} {doing} is not supported")));
    }
    if object["spec"]["paused"].as_bool().unwrap_or_default() == paused {
        let state = if paused { "is already paused" } else { "is not paused" };
        return Err(CtlError::plain(format!("{name} {state}")));
    }
    let body = json!({"spec": {"paused": if paused { json!(true) } else { Value::Null }}});
    change(session, args, target, &body, if paused { "paused" } else { "resumed" }).await
}

async fn change(session: &Session, args: &ChangeArgs, target: &Target, body: &Value, word: &str) -> Result<()> {
    let call =
        Call::new(Method::PATCH, target.path()).query("fieldManager", &args.field_manager).body_as(STRATEGIC, body);
    let result = session.api.json(&call).await?;
    show_result(target, &result, &args.print.printer(Formats::Objects)?, word)
}

//! `trictl rollout`.

mod progress;

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::progress::{Progress, progress};
use super::errors::{CtlError, Result};
use super::get::show_result;
use super::manifest::Files;
use super::mutate::{self, JSON_PATCH, Mode, STRATEGIC};
use super::pods::selector_of;
use super::print::emit;
use super::session::Session;
use super::targets::{self, Selection, Target};
use super::time;

/// Manage the rollout of a deployment.
#[derive(Debug, Clone, Subcommand)]
pub enum Rollout {
    /// Show how far a rollout is, and wait for its end
    Status(StatusArgs),
    /// Start all pods anew, a few at a time
    Restart(OnArgs),
    /// Show earlier revisions
    History(HistoryArgs),
    /// Go back to an earlier revision
    Undo(UndoArgs),
    /// Stop rolling out changes
    Pause(OnArgs),
    /// Go on rolling out changes
    Resume(OnArgs),
}

/// Which workloads.
#[derive(Debug, Clone, Args)]
pub struct OnArgs {
    /// TYPE NAME... or TYPE/NAME...
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub mode: Mode,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
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
    #[arg(long, default_value = "0s")]
    pub timeout: String,
}

/// `rollout history`
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    pub on: OnArgs,
    /// Show the pod template of this revision
    #[arg(long, default_value_t = 0)]
    pub revision: i64,
}

/// `rollout undo`
#[derive(Debug, Clone, Args)]
pub struct UndoArgs {
    #[command(flatten)]
    pub on: OnArgs,
    /// The revision to go back to; 0 is the one before
    #[arg(long, default_value_t = 0)]
    pub to_revision: i64,
}

const REVISION: &str = "deployment.kubernetes.io/revision";

/// Runs the verb.
pub async fn run(session: &Session, verb: &Rollout) -> Result<()> {
    let on = match verb {
        Rollout::Status(args) => &args.on,
        Rollout::History(args) => &args.on,
        Rollout::Undo(args) => &args.on,
        Rollout::Restart(args) | Rollout::Pause(args) | Rollout::Resume(args) => args,
    };
    let selection = Selection { labels: on.selector.clone(), ..Selection::default() };
    let (found, mut failures) = targets::resolve(session, &on.words, &on.files, &selection).await?;
    for target in found {
        let outcome = match verb {
            Rollout::Status(args) => status(session, args, &target).await,
            Rollout::Restart(args) => restart(session, args, &target).await,
            Rollout::History(args) => history(session, args, &target).await,
            Rollout::Undo(args) => undo(session, args, &target).await,
            Rollout::Pause(args) => pause(session, args, &target, true).await,
            Rollout::Resume(args) => pause(session, args, &target, false).await,
        };
        if let Err(error) = outcome {
            failures.push(error);
        }
    }
    CtlError::gather(failures)
}

async fn status(session: &Session, args: &StatusArgs, target: &Target) -> Result<()> {
    let timeout = time::duration(&args.timeout).map_err(CtlError::Usage)?;
    let deadline = (!timeout.is_zero()).then(|| Instant::now() + timeout);
    let mut last = String::new();
    loop {
        let object = target.fetch(session).await?;
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

fn need_deployment(target: &Target, verb: &str) -> Result<()> {
    match (target.resource.group.as_str(), target.resource.kind.as_str()) {
        ("apps", "Deployment") => Ok(()),
        _ => Err(CtlError::plain(format!("{} {verb} is not supported", target.resource.qualified()))),
    }
}

async fn restart(session: &Session, args: &OnArgs, target: &Target) -> Result<()> {
    if target.resource.group != "apps" || target.resource.kind == "ReplicaSet" {
        return Err(CtlError::plain(format!("{} restarting is not supported", target.resource.qualified())));
    }
    let object = target.fetch(session).await?;
    if object["spec"]["paused"] == true {
        return Err(CtlError::plain(format!(
            "{} {:?} can't restart paused deployment (run rollout resume first)",
            target.resource.qualified(),
            target.name
        )));
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let body = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}});
    change(session, args, target, STRATEGIC, &body, "restarted").await
}

async fn pause(session: &Session, args: &OnArgs, target: &Target, paused: bool) -> Result<()> {
    need_deployment(target, if paused { "pausing" } else { "resuming" })?;
    let object = target.fetch(session).await?;
    let word = if paused { "paused" } else { "resumed" };
    if object["spec"]["paused"].as_bool().unwrap_or_default() == paused {
        let state = if paused { "is already paused" } else { "is not paused" };
        return Err(CtlError::plain(format!("{} {:?} {state}", target.resource.qualified(), target.name)));
    }
    let body = json!({"spec": {"paused": if paused { json!(true) } else { Value::Null }}});
    change(session, args, target, STRATEGIC, &body, word).await
}

async fn change(
    session: &Session,
    args: &OnArgs,
    target: &Target,
    kind: &'static str,
    body: &Value,
    word: &str,
) -> Result<()> {
    let result = if args.mode.client_only() {
        target.fetch(session).await?
    } else {
        mutate::patch(session, target, kind, body, &args.mode, "kubectl-rollout").await?
    };
    show_result(target, &result, &args.mode.format()?, &args.mode.done(word))
}

fn revision(object: &Value) -> i64 {
    object["metadata"]["annotations"][REVISION].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// A deployment with its replica sets, oldest revision first.
async fn revisions(session: &Session, target: &Target) -> Result<(Value, Vec<Value>)> {
    let deployment = target.fetch(session).await?;
    let resource = session.discovery().await?.need("replicasets.apps")?;
    let selection = Selection { labels: selector_of(&deployment), ..Selection::default() };
    let mut sets = targets::list(session, &resource, &selection).await?;
    let uid = &deployment["metadata"]["uid"];
    sets.retain(|set| {
        let owners = set["metadata"]["ownerReferences"].as_array();
        owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == *uid)) && revision(set) > 0
    });
    sets.sort_by_key(revision);
    Ok((deployment, sets))
}

async fn history(session: &Session, args: &HistoryArgs, target: &Target) -> Result<()> {
    need_deployment(target, "history viewing")?;
    let (_, sets) = revisions(session, target).await?;
    if args.revision > 0 {
        let set = sets.iter().find(|set| revision(set) == args.revision);
        let set = set.ok_or_else(|| CtlError::plain("unable to find the specified revision"))?;
        let text = super::describe::pod_template(&set["spec"]["template"]);
        return emit(&format!("{} with revision #{}\n{text}", target.label(), args.revision));
    }
    if sets.is_empty() {
        return emit(&format!("{} \nNo rollout history found.\n", target.label()));
    }
    let rows: String = sets
        .iter()
        .map(|set| {
            let cause = set["metadata"]["annotations"]["kubernetes.io/change-cause"].as_str().unwrap_or("<none>");
            format!("{:<8}  {cause}\n", revision(set))
        })
        .collect();
    emit(&format!("{} \nREVISION  CHANGE-CAUSE\n{rows}\n", target.label()))
}

async fn undo(session: &Session, args: &UndoArgs, target: &Target) -> Result<()> {
    need_deployment(target, "rollback")?;
    let (deployment, sets) = revisions(session, target).await?;
    if deployment["spec"]["paused"] == true {
        return Err(CtlError::plain(format!(
            "you cannot rollback a paused deployment; resume it first with 'trictl rollout resume {}' and try again",
            target.label()
        )));
    }
    let wanted = match args.to_revision {
        0 if sets.len() < 2 => return Err(CtlError::plain(format!("no rollout history found for {}", target.label()))),
        0 => revision(&sets[sets.len() - 2]),
        revision => revision,
    };
    let set = sets
        .iter()
        .find(|set| revision(set) == wanted)
        .ok_or_else(|| CtlError::plain(format!("unable to find specified revision {wanted} in history")))?;
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    if template == deployment["spec"]["template"] {
        return emit(&format!(
            "{} skipped rollback (current template already matches revision {wanted})\n",
            target.label()
        ));
    }
    // The test makes sure that nobody changed the template in between.
    let body = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": deployment["metadata"]["resourceVersion"]},
        {"op": "replace", "path": "/spec/template", "value": template},
    ]);
    change(session, &args.on, target, JSON_PATCH, &body, "rolled back").await
}

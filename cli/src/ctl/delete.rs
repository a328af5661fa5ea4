//! `trictl delete`.

use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::api::Call;
use super::errors::{CtlError, Result};
use super::flags;
use super::manifest::Files;
use super::mutate::DryRun;
use super::print::emit;
use super::session::Session;
use super::targets::{self, Selection, Target};

/// Delete objects by file, name or selector.
#[derive(Debug, Clone, Default, Args)]
pub struct DeleteArgs {
    /// TYPE[,TYPE...] [NAME...] or TYPE/NAME...
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Field selector
    #[arg(long)]
    pub field_selector: Option<String>,
    /// Delete all objects of the types
    #[arg(long)]
    pub all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Seconds to end gracefully; 0 only with --force
    #[arg(long, default_value_t = -1)]
    pub grace_period: i64,
    /// End at once (a grace period of 1)
    #[arg(long)]
    pub now: bool,
    /// Do not wait for the node's confirmation
    #[arg(long)]
    pub force: bool,
    /// Wait until the objects are gone
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub wait: bool,
    /// How long to wait; 0 is without limit
    #[arg(long, default_value = "0s", value_parser = flags::seconds)]
    pub timeout: f64,
    /// What becomes of dependents: background, foreground or orphan
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "background", default_value = "background")]
    pub cascade: String,
    /// Objects that are not there are no error
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Ask before anything is deleted
    #[arg(short, long)]
    pub interactive: bool,
    /// Only show what would happen: none, client or server
    #[arg(long, value_parser = DryRun::parse, num_args = 0..=1, require_equals = true, default_missing_value = "unchanged", default_value = "none")]
    pub dry_run: DryRun,
    /// Output format: name
    #[arg(short, long)]
    pub output: Option<String>,
    /// Raw URI to DELETE
    #[arg(long)]
    pub raw: Option<String>,
}

/// How one object is deleted.
pub struct Options {
    /// Seconds to end gracefully.
    pub grace_period: Option<i64>,
    /// What becomes of dependents.
    pub propagation: &'static str,
    /// Only let the server check.
    pub dry_run: bool,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &DeleteArgs) -> Result<()> {
    if let Some(path) = &args.raw {
        let bytes = session.api.bytes(&Call::new(Method::DELETE, path.clone())).await?;
        return emit(&String::from_utf8_lossy(&bytes));
    }
    let options = options(args)?;
    if let Some(other) = args.output.as_deref().filter(|output| !matches!(*output, "" | "name")) {
        return Err(CtlError::plain(format!("unexpected -o output mode: {other}. We only support '-o name'")));
    }
    let selection = Selection {
        labels: args.selector.clone(),
        fields: args.field_selector.clone(),
        all_namespaces: args.all_namespaces,
        all: args.all,
        ..Selection::default()
    };
    if options.grace_period == Some(0) && args.force {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been \
             terminated. The resource may continue to run on the cluster indefinitely."
        );
    }
    let (found, mut failures) = targets::resolve(session, &args.words, &args.files, &selection).await?;
    if found.is_empty() && failures.is_empty() {
        return emit("No resources found\n");
    }
    if args.interactive && !agreed(&found)? {
        return Ok(());
    }
    let mut waiting = Vec::new();
    for target in found {
        let ignored = args.ignore_not_found || selection.is_given();
        match delete_one(session, args, &target, &options).await {
            Ok(uid) => waiting.push((target, uid)),
            Err(error) if error.is_not_found() && ignored => {}
            Err(error) => failures.push(error.during("deleting", target.source.as_deref())),
        }
    }
    if args.wait && args.dry_run == DryRun::None {
        let deadline = (args.timeout > 0.0).then(|| Instant::now() + Duration::from_secs_f64(args.timeout));
        for (target, uid) in waiting {
            failures.extend(await_gone(session, &target, &uid, deadline).await.err());
        }
    }
    CtlError::gather(failures)
}

/// Asks whether these may go.
fn agreed(found: &[Target]) -> Result<bool> {
    let names: String = found.iter().map(|target| target.label() + "\n").collect();
    let question = "Do you want to continue? (y/n): ";
    emit(&format!("You are about to delete the following {} resource(s):\n{names}{question}", found.len()))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim().eq_ignore_ascii_case("y") {
        return Ok(true);
    }
    emit("deletion is cancelled\n")?;
    Ok(false)
}

fn options(args: &DeleteArgs) -> Result<Options> {
    let mut grace = Some(args.grace_period).filter(|seconds| *seconds >= 0);
    if args.now {
        if grace.is_some() {
            return Err(CtlError::plain("--now and --grace-period cannot be specified together"));
        }
        grace = Some(1);
    }
    match (grace, args.force) {
        (None, true) => grace = Some(0),
        (Some(seconds), true) if seconds > 0 => {
            return Err(CtlError::plain("--force and --grace-period greater than 0 cannot be specified together"));
        }
        // Without --force the node gets to confirm.
        (Some(0), false) => grace = Some(1),
        _ => {}
    }
    Ok(Options {
        grace_period: grace,
        propagation: propagation(&args.cascade)?,
        dry_run: args.dry_run == DryRun::Server,
    })
}

/// `--cascade` as the API's propagation policy.
pub fn propagation(cascade: &str) -> Result<&'static str> {
    match cascade {
        "background" | "true" => Ok("Background"),
        "foreground" => Ok("Foreground"),
        "orphan" | "false" => Ok("Orphan"),
        other => Err(CtlError::plain(format!(
            "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
        ))),
    }
}

/// Deletes one object, says so, and returns its uid.
async fn delete_one(session: &Session, args: &DeleteArgs, target: &Target, options: &Options) -> Result<String> {
    let word = args.dry_run.done(if args.force { "force deleted" } else { "deleted" });
    let uid = match args.dry_run {
        DryRun::Client => String::new(),
        _ => remove(session, target, options).await?,
    };
    emit(&match args.output.as_deref() {
        Some("name") => format!("{}\n", target.label()),
        _ => format!("{} {:?} {word}\n", target.resource.label(), target.name),
    })?;
    Ok(uid)
}

/// Sends the deletion; the answer is the uid, if the server tells it.
pub async fn remove(session: &Session, target: &Target, options: &Options) -> Result<String> {
    let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": options.propagation});
    if let Some(seconds) = options.grace_period {
        body["gracePeriodSeconds"] = Value::from(seconds);
    }
    if options.dry_run {
        body["dryRun"] = json!(["All"]);
    }
    let answer = session.api.json(&Call::new(Method::DELETE, target.path()).body(&body)).await?;
    let uid = answer["metadata"]["uid"].as_str().or(answer["details"]["uid"].as_str());
    Ok(uid.unwrap_or_default().to_owned())
}

/// Waits until the object is gone or another has its name.
pub async fn await_gone(session: &Session, target: &Target, uid: &str, deadline: Option<Instant>) -> Result<()> {
    let mut pause = Duration::from_millis(20);
    loop {
        match session.api.json(&Call::get(target.path())).await {
            Ok(object) if !uid.is_empty() && object["metadata"]["uid"] != uid => return Ok(()),
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(CtlError::plain(format!(
                "timed out waiting for the condition on {}/{}",
                target.resource.plural, target.name
            )));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

//! `trictl scale`.

use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::api::Call;
use super::errors::{CtlError, Result};
use super::flags;
use super::get::show_result;
use super::manifest::Files;
use super::mutate::{MERGE, Mode};
use super::session::Session;
use super::targets::{self, Selection, Target};

/// Set a new size for a deployment, replica set or replication controller.
#[derive(Debug, Clone, Default, Args)]
pub struct ScaleArgs {
    /// TYPE NAME... or TYPE/NAME...
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub mode: Mode,
    /// The new number of replicas
    #[arg(long)]
    pub replicas: Option<i64>,
    /// Only scale if this is the number now
    #[arg(long, default_value_t = -1, hide_default_value = true)]
    pub current_replicas: i64,
    /// Only scale this version of the object
    #[arg(long)]
    pub resource_version: Option<String>,
    /// How long to wait until the new size is reached; 0 does not wait
    #[arg(long, default_value = "0s", value_parser = flags::seconds)]
    pub timeout: f64,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// All objects of the types
    #[arg(long)]
    pub all: bool,
}

/// Runs `scale`.
pub async fn scale(session: &Session, args: &ScaleArgs) -> Result<()> {
    let Some(replicas) = args.replicas else { return Err(CtlError::plain("required flag(s) \"replicas\" not set")) };
    if replicas < 0 {
        return Err(CtlError::plain(
            "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
        ));
    }
    let selection = Selection { labels: args.selector.clone(), all: args.all, ..Selection::default() };
    let (found, mut failures) = targets::resolve(session, &args.words, &args.files, &selection).await?;
    if args.resource_version.is_some() && found.len() > 1 {
        return Err(CtlError::plain("cannot use --resource-version with multiple resources"));
    }
    let mut present = Vec::new();
    let found_nothing = found.is_empty();
    for target in found {
        match target.fetch(session).await {
            Ok(object) => present.push((target, object)),
            Err(error) => failures.push(error),
        }
    }
    if found_nothing && !failures.is_empty() {
        return CtlError::gather(failures);
    }
    if present.is_empty() {
        let reasons: Vec<String> = failures.iter().map(CtlError::reason_text).collect();
        let text = format!("no objects passed to scale {}", reasons.join("\n"));
        return Err(CtlError::plain(text.trim_end()));
    }
    for (target, object) in present {
        failures.extend(scale_one(session, args, &target, object, replicas).await.err());
    }
    CtlError::gather(failures)
}

async fn scale_one(session: &Session, args: &ScaleArgs, target: &Target, object: Value, replicas: i64) -> Result<()> {
    let path = format!("{}/scale", target.path());
    let mut patch = json!({"spec": {"replicas": replicas}});
    let current = session.api.json(&Call::get(path.clone())).await?;
    if args.current_replicas >= 0 {
        let actual = current["spec"]["replicas"].as_i64().unwrap_or_default();
        if actual != args.current_replicas {
            return Err(CtlError::plain(format!("Expected replicas to be {}, was {actual}", args.current_replicas)));
        }
        patch["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
    }
    if let Some(version) = args.resource_version.as_ref().filter(|version| !version.is_empty()) {
        let actual = current["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if actual != version {
            return Err(CtlError::plain(format!("Expected resource version to be {version}, was {actual}")));
        }
        patch["metadata"]["resourceVersion"] = Value::from(version.clone());
    }
    let mut result = object;
    if !args.mode.client_only() {
        let call = Call::new(Method::PATCH, path)
            .query("fieldManager", args.mode.manager("kubectl-scale"))
            .body_as(MERGE, &patch);
        session.api.json(&args.mode.mark(call)).await?;
        if args.timeout > 0.0 && args.mode.dry_run == super::mutate::DryRun::None {
            wait(session, target, replicas, args.timeout).await?;
        }
        result = target.fetch(session).await?;
    }
    show_result(target, &result, &args.mode.printer()?, &args.mode.done("scaled"))
}

/// Waits until the controller has brought about the new size.
async fn wait(session: &Session, target: &Target, replicas: i64, timeout: f64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs_f64(timeout);
    loop {
        let object = target.fetch(session).await?;
        let (status, metadata) = (&object["status"], &object["metadata"]);
        let observed = status["observedGeneration"].as_i64() >= metadata["generation"].as_i64();
        if observed && status["replicas"].as_i64().unwrap_or_default() == replicas {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(CtlError::plain("timed out waiting for the condition"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

//! `trictl apply view-last-applied`, `set-last-applied`, `edit-last-applied`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::super::api::Call;
use super::super::errors::{CtlError, Result};
use super::super::get::show_result;
use super::super::manifest::Files;
use super::super::mutate::{self, MERGE, Mode};
use super::super::print::{emit, pretty, yaml};
use super::super::session::Session;
use super::super::targets::{self, Selection};
use super::{LAST_APPLIED, with_last_applied};

/// What is kept of earlier applies.
#[derive(Debug, Clone, Subcommand)]
pub enum LastApplied {
    /// View the latest last-applied-configuration annotations of a resource/object
    #[command(name = "view-last-applied")]
    View(ViewArgs),
    /// Set the last-applied-configuration annotation on a live object to match the contents of a file
    #[command(name = "set-last-applied")]
    Set(SetArgs),
    /// Edit the latest last-applied-configuration annotations of a resource/object
    #[command(name = "edit-last-applied")]
    Edit(ViewArgs),
}

/// `view-last-applied`
#[derive(Debug, Clone, Default, Args)]
pub struct ViewArgs {
    /// TYPE NAME... or TYPE/NAME...
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// All objects of the types
    #[arg(long)]
    pub all: bool,
    /// Output format: yaml or json
    #[arg(short, long, default_value = "yaml")]
    pub output: String,
}

/// `set-last-applied`
#[derive(Debug, Clone, Default, Args)]
pub struct SetArgs {
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub mode: Mode,
    /// Give the annotation to objects that do not have it
    #[arg(long)]
    pub create_annotation: bool,
}

/// Runs the verb.
pub async fn run(session: &Session, verb: &LastApplied) -> Result<()> {
    match verb {
        LastApplied::View(args) => view(session, args).await,
        LastApplied::Set(args) => set(session, args).await,
        LastApplied::Edit(args) => edit(session, args).await,
    }
}

async fn view(session: &Session, args: &ViewArgs) -> Result<()> {
    if !matches!(args.output.as_str(), "yaml" | "json") {
        return Err(CtlError::usage(format!(
            "Unexpected -o output mode: {}, the flag 'output' must be one of yaml|json",
            args.output
        )));
    }
    let selection = Selection { labels: args.selector.clone(), all: args.all, ..Selection::default() };
    let (found, failures) = targets::resolve(session, &args.words, &args.files, &selection).await?;
    CtlError::gather(failures)?;
    for target in found {
        let object = target.fetch(session).await?;
        let Some(text) = object["metadata"]["annotations"][LAST_APPLIED].as_str() else {
            eprintln!("error: no last-applied-configuration annotation found on resource: {}\n", target.name);
            continue;
        };
        let value: Value = serde_json::from_str(text)
            .map_err(|error| CtlError::plain(format!("the annotation {LAST_APPLIED} is not JSON: {error}")))?;
        emit(&match args.output.as_str() {
            "json" => pretty(&super::super::print::sorted(&value), b"  "),
            _ => yaml::document(&value),
        })?;
    }
    Ok(())
}

async fn set(session: &Session, args: &SetArgs) -> Result<()> {
    if args.files.is_empty() {
        return Err(CtlError::plain("must specify one of -f and -k"));
    }
    let (found, mut failures) = targets::from_files(session, &args.files).await?;
    for target in found {
        let outcome = async {
            let current = session.api.json(&Call::get(target.path())).await?;
            let had = &current["metadata"]["annotations"][LAST_APPLIED];
            if had.is_null() && !args.create_annotation {
                return Err(CtlError::plain(format!(
                    "no last-applied-configuration annotation found on resource: {}, to create the annotation, run \
                     the command with --create-annotation",
                    target.name
                )));
            }
            let wanted = with_last_applied(target.object.as_ref().unwrap_or(&Value::Null));
            let text = wanted["metadata"]["annotations"][LAST_APPLIED].clone();
            if *had == text {
                return emit(&format!("set-last-applied {}: no changes required.\n", target.name));
            }
            let patch = json!({"metadata": {"annotations": {LAST_APPLIED: text}}});
            let result = match args.mode.client_only() {
                true => current.clone(),
                false => mutate::patch(session, &target, MERGE, &patch, &args.mode, super::MANAGER).await?,
            };
            show_result(&target, &result, &args.mode.printer()?, &args.mode.done("configured"))
        };
        failures.extend(outcome.await.err());
    }
    CtlError::gather(failures)
}

async fn edit(session: &Session, args: &ViewArgs) -> Result<()> {
    let selection = Selection { labels: args.selector.clone(), all: args.all, ..Selection::default() };
    let (found, failures) = targets::resolve(session, &args.words, &args.files, &selection).await?;
    CtlError::gather(failures)?;
    for target in found {
        let object = target.fetch(session).await?;
        let text = object["metadata"]["annotations"][LAST_APPLIED].as_str().ok_or_else(|| {
            CtlError::plain(format!("no last-applied-configuration annotation found on resource: {}", target.name))
        })?;
        let value: Value = serde_json::from_str(text)
            .map_err(|error| CtlError::plain(format!("the annotation {LAST_APPLIED} is not JSON: {error}")))?;
        let target = &target;
        super::super::edit::edit_until_saved(yaml::document(&value), async |documents: Vec<Value>| {
            for document in documents {
                let text = with_last_applied(&document)["metadata"]["annotations"][LAST_APPLIED].clone();
                let patch = json!({"metadata": {"annotations": {LAST_APPLIED: text}}});
                let mode = Mode::default();
                let result = mutate::patch(session, target, MERGE, &patch, &mode, "kubectl-edit").await?;
                show_result(target, &result, &mode.printer()?, "edited")?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

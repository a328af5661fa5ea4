//! `trictl create` and `trictl replace`.

use clap::Args;
use http::Method;
use serde_json::Value;

use super::api::Call;
use super::apply::with_last_applied;
use super::errors::{CtlError, Result};
use super::generate::{self, Generator};
use super::get::show_result;
use super::manifest::Files;
use super::mutate::{Mode, Validate};
use super::session::Session;
use super::targets::{self, Target};

/// Create objects from a file, from standard input, or from flags.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CreateArgs {
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub how: How,
    /// A kind to create from flags
    #[command(subcommand)]
    pub kind: Option<Generator>,
}

/// Flags of every creation.
#[derive(Debug, Clone, Default, Args)]
pub struct How {
    #[command(flatten)]
    pub mode: Mode,
    #[command(flatten)]
    pub validate: Validate,
    /// Keep the configuration in an annotation, for a later apply
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub save_config: bool,
}

/// Replace objects by file or standard input.
#[derive(Debug, Clone, Default, Args)]
pub struct ReplaceArgs {
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub mode: Mode,
    #[command(flatten)]
    pub validate: Validate,
    /// Delete and create anew
    #[arg(long)]
    pub force: bool,
}

/// Runs `create`.
pub async fn run(session: &Session, args: &CreateArgs) -> Result<()> {
    if let Some(generator) = &args.kind {
        let (object, how) = generate::object(generator)?;
        return create_generated(session, object, how).await;
    }
    if args.files.is_empty() {
        return Err(CtlError::Usage("must specify one of -f and -k".to_owned()));
    }
    let (found, mut failures) = targets::from_files(session, &args.files).await?;
    for target in found {
        if let Err(error) = create_one(session, &target, &args.how).await {
            failures.push(error.during("creating", target.source.as_deref()));
        }
    }
    CtlError::gather(failures)
}

/// Creates an object made from flags.
pub async fn create_generated(session: &Session, object: Value, how: &How) -> Result<()> {
    if how.mode.client_only() {
        return show_offline(session, object, how);
    }
    let discovery = session.discovery().await?;
    let target = targets::locate(session, &discovery, object, "flags")?;
    let target = Target { source: None, ..target };
    create_one(session, &target, how).await.map_err(|error| match error {
        CtlError::Status(mut status) if status["reason"] == "AlreadyExists" => {
            let message = format!("failed to create {}: {}", target.resource.singular, text(&status["message"]));
            status["message"] = Value::from(message);
            // kubectl prints these without the reason.
            CtlError::plain(text(&status["message"]))
        }
        other => other,
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A dry run of the client needs no server, so that `create … -o yaml` works anywhere.
fn show_offline(session: &Session, mut object: Value, how: &How) -> Result<()> {
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = super::discovery::Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        singular: kind.to_lowercase(),
        kind,
        ..Default::default()
    };
    if session.namespace_given
        && resource.kind != "Namespace"
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.insert("namespace".to_owned(), Value::from(session.namespace.clone()));
    }
    let object = if how.save_config { with_last_applied(&object) } else { object };
    let target = targets::of_object(&resource.into(), object.clone());
    show_result(&target, &object, &how.mode.format()?, &how.mode.done("created"))
}

async fn create_one(session: &Session, target: &Target, how: &How) -> Result<()> {
    let object = target.object.clone().unwrap_or_default();
    let object = if how.save_config { with_last_applied(&object) } else { object };
    let format = how.mode.format()?;
    if how.mode.client_only() {
        return show_result(target, &object, &format, &how.mode.done("created"));
    }
    let call = Call::new(Method::POST, target.collection())
        .query("fieldManager", "kubectl-create")
        .query("fieldValidation", how.validate.level()?)
        .body(&object);
    let created = session.api.json(&how.mode.mark(call)).await?;
    let name = text(&created["metadata"]["name"]);
    show_result(&Target { name, ..target.clone() }, &created, &format, &how.mode.done("created"))
}

/// Runs `replace`.
pub async fn replace(session: &Session, args: &ReplaceArgs) -> Result<()> {
    if args.files.is_empty() {
        return Err(CtlError::Usage("must specify one of -f and -k".to_owned()));
    }
    let (found, mut failures) = targets::from_files(session, &args.files).await?;
    for target in found {
        if let Err(error) = replace_one(session, &target, args).await {
            failures.push(error.during("replacing", target.source.as_deref()));
        }
    }
    CtlError::gather(failures)
}

async fn replace_one(session: &Session, target: &Target, args: &ReplaceArgs) -> Result<()> {
    let object = target.object.clone().unwrap_or_default();
    let format = args.mode.format()?;
    if args.mode.client_only() {
        return show_result(target, &object, &format, &args.mode.done("replaced"));
    }
    let call = if args.force {
        let options = super::delete::Options { grace_period: Some(0), propagation: "Background", dry_run: false };
        match super::delete::remove(session, target, &options).await {
            Ok(uid) => super::delete::await_gone(session, target, &uid, None).await?,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Call::new(Method::POST, target.collection())
    } else {
        Call::new(Method::PUT, target.path())
    };
    let call =
        call.query("fieldManager", "kubectl-replace").query("fieldValidation", args.validate.level()?).body(&object);
    let replaced = session.api.json(&args.mode.mark(call)).await?;
    show_result(target, &replaced, &format, &args.mode.done("replaced"))
}

//! `trictl apply`: three-way merges against what was applied last.

pub mod diff;
pub mod shape;
#[cfg(test)]
mod tests;

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use self::shape::Shape;
use super::api::Call;
use super::errors::{CtlError, Result};
use super::get::show_result;
use super::manifest::Files;
use super::mutate::{MERGE, Mode, STRATEGIC, Validate};
use super::session::Session;
use super::targets::{self, Target};

/// Where the configuration applied last is kept.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const MANAGER: &str = "kubectl-client-side-apply";

/// Apply a configuration to objects by file or standard input.
#[derive(Debug, Clone, Default, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub mode: Mode,
    #[command(flatten)]
    pub validate: Validate,
    /// Apply only objects with these labels
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Overwrite changes of others
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub overwrite: bool,
    /// Delete and create anew what cannot be patched
    #[arg(long)]
    pub force: bool,
    /// Grace period of deletions with --force
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// Not supported: use client-side apply
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub server_side: bool,
    /// Not supported
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub prune: bool,
    /// Name of the manager of the fields
    #[arg(long, default_value = MANAGER)]
    pub field_manager: String,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &ApplyArgs) -> Result<()> {
    if args.server_side {
        return Err(CtlError::plain(
            "--server-side is not supported yet: leave it out to apply from the client's side",
        ));
    }
    if args.prune {
        return Err(CtlError::plain("--prune is not supported: delete what is no longer wanted by name or label"));
    }
    if args.files.is_empty() {
        return Err(CtlError::plain("must specify one of -f and -k"));
    }
    let (found, mut failures) = targets::from_files(session, &args.files).await?;
    for target in found {
        if !selected(args, &target)? {
            continue;
        }
        if let Err(error) = apply_one(session, args, &target).await {
            failures.push(error);
        }
    }
    CtlError::gather(failures)
}

fn selected(args: &ApplyArgs, target: &Target) -> Result<bool> {
    let Some(text) = &args.selector else { return Ok(true) };
    let selector =
        trireme_api::selector::LabelSelector::parse(text).map_err(|error| CtlError::plain(error.to_string()))?;
    Ok(target.object.as_ref().is_some_and(|object| selector.matches_object(object)))
}

async fn apply_one(session: &Session, args: &ApplyArgs, target: &Target) -> Result<()> {
    let source = target.source.as_deref();
    if target.name.is_empty() {
        return Err(CtlError::plain(format!(
            "from {}: cannot use generate name with apply",
            source.unwrap_or_default()
        )));
    }
    let modified = with_last_applied(target.object.as_ref().unwrap_or(&Value::Null));
    let current = match session.api.json(&Call::get(target.path())).await {
        Ok(current) => current,
        Err(error) if error.is_not_found() => return create(session, args, target, &modified).await,
        Err(error) => return Err(error.during("retrieving current configuration of", source)),
    };
    if current["metadata"]["annotations"][LAST_APPLIED].is_null() {
        eprintln!(
            "Warning: resource {}/{} is missing the {LAST_APPLIED} annotation which is required by trictl apply. \
             trictl apply should only be used on resources created declaratively by either trictl create \
             --save-config or trictl apply. The missing annotation will be patched automatically.",
            target.resource.plural, target.name
        );
    }
    patch(session, args, target, &modified, current).await
}

async fn create(session: &Session, args: &ApplyArgs, target: &Target, modified: &Value) -> Result<()> {
    let format = args.mode.format()?;
    let mut result = modified.clone();
    if !args.mode.client_only() {
        let call = Call::new(Method::POST, target.collection())
            .query("fieldManager", &args.field_manager)
            .query("fieldValidation", args.validate.level()?)
            .body(modified);
        let sent = session.api.json(&args.mode.mark(call)).await;
        result = sent.map_err(|error| error.during("creating", target.source.as_deref()))?;
    }
    show_result(target, &result, &format, &args.mode.done("created"))
}

/// Patches until nobody else gets in between, a few times at most.
async fn patch(session: &Session, args: &ApplyArgs, target: &Target, modified: &Value, current: Value) -> Result<()> {
    let format = args.mode.format()?;
    let mut current = current;
    for round in 0.. {
        let (body, content_type) = three_way(target, modified, &current)?;
        if body.as_object().is_some_and(Map::is_empty) {
            return show_result(target, &current, &format, &args.mode.done("unchanged"));
        }
        if args.mode.client_only() {
            return show_result(target, modified, &format, &args.mode.done("configured"));
        }
        let call = Call::new(Method::PATCH, target.path())
            .query("fieldManager", &args.field_manager)
            .query("fieldValidation", args.validate.level()?)
            .body_as(content_type, &body);
        match session.api.json(&args.mode.mark(call)).await {
            Ok(result) => return show_result(target, &result, &format, &args.mode.done("configured")),
            Err(error) if error.is_conflict() && round < 5 => current = target.fetch(session).await?,
            Err(error) if args.force && matches!(error.reason(), "Conflict" | "Invalid") => {
                return replace(session, args, target, modified).await;
            }
            Err(error) => {
                let text = format!("{body}");
                let what = format!("applying patch:\n{text}\nto:\nResource: {:?}\nfor", target.resource.qualified());
                return Err(error.during(&what, target.source.as_deref()));
            }
        }
    }
    Ok(())
}

async fn replace(session: &Session, args: &ApplyArgs, target: &Target, modified: &Value) -> Result<()> {
    let options = super::delete::Options {
        grace_period: Some(args.grace_period).filter(|seconds| *seconds >= 0),
        propagation: "Background",
        dry_run: false,
    };
    super::delete::remove(session, target, &options).await?;
    super::delete::await_gone(session, target, "", None).await?;
    create(session, args, target, modified).await
}

/// The patch from what was applied last and what is there to what is wanted, with its media type.
fn three_way(target: &Target, modified: &Value, current: &Value) -> Result<(Value, &'static str)> {
    let original = match current["metadata"]["annotations"][LAST_APPLIED].as_str() {
        Some(text) => serde_json::from_str(text)
            .map_err(|error| CtlError::plain(format!("the annotation {LAST_APPLIED} is not JSON: {error}")))?,
        None => json!({}),
    };
    match Shape::of_resource(&target.resource) {
        Some(shape) => {
            let patch = diff::three_way(&original, modified, current, &shape)
                .map_err(|reason| CtlError::plain(format!("creating patch for {}: {reason}", target.label())))?;
            Ok((patch, STRATEGIC))
        }
        None => Ok((diff::three_way_plain(&original, modified, current), MERGE)),
    }
}

/// The object with itself in its annotation, byte for byte as kubectl would write it.
pub fn with_last_applied(object: &Value) -> Value {
    let mut plain = object.clone();
    let mut annotated = object.clone();
    if let Some(annotations) = annotations(&mut plain) {
        annotations.remove(LAST_APPLIED);
    }
    let text = super::print::sorted(&plain).to_string() + "\n";
    if let Some(annotations) = annotations(&mut annotated) {
        annotations.insert(LAST_APPLIED.to_owned(), Value::from(text));
    }
    annotated
}

fn annotations(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations.as_object_mut()
}

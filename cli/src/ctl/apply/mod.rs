//! `trictl apply`: three-way merges against what was applied last.

pub mod diff;
mod force;
mod last;
mod owners;
mod prune;
pub mod shape;
#[cfg(test)]
mod tests;

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use self::shape::Shape;
use super::api::Call;
use super::errors::{CtlError, Result};
use super::flags;
use super::get::show_result;
use super::manifest::Files;
use super::mutate::{DryRun, MERGE, Mode, STRATEGIC, Validate};
use super::print::Format;
use super::session::Session;
use super::targets::{self, Target};

/// Where the configuration applied last is kept.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const MANAGER: &str = "kubectl-client-side-apply";

/// Apply a configuration to objects by file or standard input.
#[derive(Debug, Clone, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ApplyArgs {
    /// None is expected
    #[arg(hide = true)]
    pub words: Vec<String>,
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
    /// With --server-side: take over fields of others
    #[arg(long)]
    pub force_conflicts: bool,
    /// Grace period of deletions with --force and --prune
    #[arg(long, default_value_t = -1, hide_default_value = true)]
    pub grace_period: i64,
    /// What becomes of dependents of deleted objects: background, foreground or orphan
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "background", default_value = "background")]
    pub cascade: String,
    /// How long to wait for deletions; 0 is without limit
    #[arg(long, default_value = "0s", value_parser = flags::seconds)]
    pub timeout: f64,
    /// Wait until deleted objects are gone
    #[arg(long)]
    pub wait: bool,
    /// The types' schemas tell how lists are merged (they always do)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub openapi_patch: bool,
    /// Let the server merge
    #[arg(long)]
    pub server_side: bool,
    /// Delete objects that were applied before and are not in the files
    #[arg(long)]
    pub prune: bool,
    /// Kinds that may be pruned: group/version/kind
    #[arg(long)]
    pub prune_allowlist: Vec<String>,
    /// With --prune: all objects that were applied before, not only those of a selector
    #[arg(long)]
    pub all: bool,
    /// Apply to this subresource
    #[arg(long)]
    pub subresource: Option<String>,
    /// What is kept of earlier applies
    #[command(subcommand)]
    pub verb: Option<last::LastApplied>,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &ApplyArgs) -> Result<()> {
    if let Some(verb) = &args.verb {
        return last::run(session, verb).await;
    }
    if !args.words.is_empty() {
        return Err(CtlError::usage(format!("Unexpected args: [{}]", args.words.join(" "))));
    }
    if args.files.is_empty() {
        return Err(CtlError::plain("must specify one of -f and -k"));
    }
    if args.force_conflicts && !args.server_side {
        return Err(CtlError::plain("--force-conflicts only works with --server-side"));
    }
    if args.mode.client_only() && args.server_side {
        return Err(CtlError::plain(
            "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)",
        ));
    }
    if args.force && args.mode.dry_run == DryRun::Server {
        return Err(CtlError::plain("--dry-run=server cannot be used with --force"));
    }
    if args.prune && args.selector.is_none() && !args.all {
        return Err(CtlError::plain(
            "all resources selected for prune without explicitly passing --all. To prune all resources, pass the --all \
             flag. If you did not mean to prune all resources, specify a label selector",
        ));
    }
    args.validate.level()?;
    let (found, mut failures) = targets::from_files(session, &args.files).await?;
    let mut applied = Vec::new();
    let mut seen = false;
    for target in found {
        if !super::create::selected(args.selector.as_deref(), &target)? {
            continue;
        }
        seen = true;
        let outcome = match args.server_side {
            true => server_side(session, args, &target).await,
            false => apply_one(session, args, &target).await,
        };
        match outcome {
            Ok(result) => applied.push(result),
            Err(error) => failures.push(error),
        }
    }
    if !seen && failures.is_empty() {
        return Err(CtlError::plain("no objects passed to apply"));
    }
    show_all(args, &applied)?;
    CtlError::gather(failures)?;
    if args.prune { prune::run(session, args, &applied).await } else { Ok(()) }
}

/// An object that was applied.
struct Applied {
    target: Target,
    object: Value,
    done: String,
}

/// Prints the results: several objects are one list, unless they were printed as they came.
fn show_all(args: &ApplyArgs, applied: &[Applied]) -> Result<()> {
    let printer = args.mode.printer()?;
    if printer.is_table() || matches!(printer.format, Format::Name) || applied.len() < 2 {
        return applied.iter().try_for_each(|one| show_result(&one.target, &one.object, &printer, &one.done));
    }
    let items: Vec<Value> = applied
        .iter()
        .map(|one| {
            let mut object = one.object.clone();
            targets::stamp(&mut object, &one.target.resource);
            object
        })
        .collect();
    let mut list = json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {}});
    printer.tidy(&mut list);
    super::print::emit(&printer.render(&list, "list")?)
}

async fn server_side(session: &Session, args: &ApplyArgs, target: &Target) -> Result<Applied> {
    let object = target.object.as_ref().unwrap_or(&Value::Null);
    let manager = args.mode.manager("kubectl");
    let mut call = Call::new(Method::PATCH, target.path())
        .query("fieldManager", manager)
        .query("fieldValidation", args.validate.level()?)
        .body_as("application/apply-patch+yaml", object);
    if args.force_conflicts {
        call = call.query("force", "true");
    }
    let call = args.mode.mark(call);
    let mut result = session.api.json(&call).await.map_err(|error| match error.reason() {
        "UnsupportedMediaType" => {
            CtlError::bare(format!("Server-side apply not available on the server: ({})", error.reason_text()))
        }
        "Conflict" => CtlError::plain(format!("{}\n{}", error.reason_text(), owners::ADVICE)),
        _ => error,
    })?;
    if manager == "kubectl" && args.mode.dry_run == DryRun::None {
        result = owners::taken_over(session, target, &call, result).await?;
    }
    Ok(Applied { target: target.clone(), object: result, done: args.mode.done("serverside-applied") })
}

async fn apply_one(session: &Session, args: &ApplyArgs, target: &Target) -> Result<Applied> {
    let source = target.source.as_deref();
    if target.name.is_empty() {
        let object = target.object.as_ref().unwrap_or(&Value::Null);
        let base = object["metadata"]["generateName"].as_str().or(source).unwrap_or_default();
        return Err(CtlError::plain(format!("from {base}: cannot use generate name with apply")));
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

async fn create(session: &Session, args: &ApplyArgs, target: &Target, modified: &Value) -> Result<Applied> {
    let mut object = modified.clone();
    if !args.mode.client_only() {
        let call = Call::new(Method::POST, target.collection())
            .query("fieldManager", args.mode.manager(MANAGER))
            .query("fieldValidation", args.validate.level()?)
            .body(modified);
        let sent = session.api.json(&args.mode.mark(call)).await;
        object = sent.map_err(|error| error.during("creating", target.source.as_deref()))?;
    }
    Ok(Applied { target: target.clone(), object, done: args.mode.done("created") })
}

/// Patches until nobody else gets in between, a few times at most.
async fn patch(
    session: &Session,
    args: &ApplyArgs,
    target: &Target,
    modified: &Value,
    current: Value,
) -> Result<Applied> {
    let applied = |object: Value, word: &str| Applied { target: target.clone(), object, done: args.mode.done(word) };
    if args.mode.client_only() {
        return Ok(applied(modified.clone(), "configured"));
    }
    let mut current = current;
    let mut round = 0;
    loop {
        let (body, content_type) = three_way(target, modified, &current, args.overwrite)?;
        if body.as_object().is_some_and(Map::is_empty) {
            return Ok(applied(current, "unchanged"));
        }
        let call = Call::new(Method::PATCH, target.path())
            .query("fieldManager", args.mode.manager(MANAGER))
            .query("fieldValidation", args.validate.level()?)
            .body_as(content_type, &body);
        match session.api.json(&args.mode.mark(call)).await {
            Ok(result) => {
                // A patch that changes nothing, such as a warning's, is no change.
                let same = result["metadata"]["resourceVersion"] == current["metadata"]["resourceVersion"]
                    && args.mode.dry_run == DryRun::None;
                return Ok(applied(result, if same { "unchanged" } else { "configured" }));
            }
            Err(error) if error.is_conflict() && round < 5 => current = target.fetch(session).await?,
            Err(error) if args.force && matches!(error.reason(), "Conflict" | "Invalid") => {
                return force::replace(session, args, target, modified, current).await;
            }
            Err(error) => {
                let text = format!("{body}");
                let what = format!("applying patch:\n{text}\nto:\nResource: {:?}\nfor", target.resource.qualified());
                return Err(error.during(&what, target.source.as_deref()));
            }
        }
        round += 1;
    }
}

/// The patch from what was applied last and what is there to what is wanted, with its media type.
pub fn three_way(target: &Target, modified: &Value, current: &Value, overwrite: bool) -> Result<(Value, &'static str)> {
    let original = match current["metadata"]["annotations"][LAST_APPLIED].as_str() {
        Some(text) => serde_json::from_str(text)
            .map_err(|error| CtlError::plain(format!("the annotation {LAST_APPLIED} is not JSON: {error}")))?,
        None => json!({}),
    };
    match Shape::of_resource(&target.resource) {
        Some(shape) => {
            let patch = diff::three_way(&original, modified, current, &shape)
                .map_err(|reason| CtlError::plain(format!("creating patch for {}: {reason}", target.label())))?;
            if !overwrite {
                conflicts(&original, current, &patch, target)?;
            }
            Ok((patch, STRATEGIC))
        }
        None => Ok((diff::three_way_plain(&original, modified, current), MERGE)),
    }
}

/// Without --overwrite, what others changed since the last apply is not changed back.
fn conflicts(original: &Value, current: &Value, patch: &Value, target: &Target) -> Result<()> {
    fn clash(original: &Value, current: &Value, patch: &Value) -> bool {
        let Some(fields) = patch.as_object() else { return false };
        fields.iter().any(|(name, wanted)| {
            let (before, now) = (&original[name], &current[name]);
            match wanted {
                Value::Object(_) => clash(before, now, wanted),
                Value::Array(_) => false,
                wanted => !before.is_null() && before != now && now != wanted,
            }
        })
    }
    let mut patch = patch.clone();
    if let Some(annotations) = patch.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    match clash(original, current, &patch) {
        true => Err(CtlError::plain(format!(
            "creating patch for {}: others changed what this would change back; use --overwrite",
            target.label()
        ))),
        false => Ok(()),
    }
}

/// The object with itself in its annotation, byte for byte as kubectl would write it.
pub fn with_last_applied(object: &Value) -> Value {
    let text = if is_generated(object) {
        // kubectl takes these down as it made them: in their order, before a namespace comes in.
        let mut plain = object.clone();
        if let Some(metadata) = plain["metadata"].as_object_mut() {
            metadata.remove("namespace");
        }
        plain.to_string()
    } else {
        let mut plain = object.clone();
        if let Some(annotations) = annotations(&mut plain) {
            annotations.remove(LAST_APPLIED);
        }
        super::print::sorted(&plain).to_string()
    };
    let mut annotated = object.clone();
    if let Some(annotations) = annotations(&mut annotated) {
        annotations.insert(LAST_APPLIED.to_owned(), Value::from(text + "\n"));
    }
    annotated
}

/// Whether the object was made here from flags: those carry a time of creation that is null.
fn is_generated(object: &Value) -> bool {
    object["metadata"].get("creationTimestamp").is_some_and(Value::is_null)
        && object.as_object().and_then(|map| map.keys().next()).is_some_and(|key| key == "kind")
}

fn annotations(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations.as_object_mut()
}

//! `trictl label`, `annotate`, `scale`, `patch`, `cordon`, `uncordon`.

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use super::api::Call;
use super::apply::shape::Shape;
use super::errors::{CtlError, Result};
use super::get::show_result;
use super::manifest::Files;
use super::mutate::{self, JSON_PATCH, MERGE, Mode, STRATEGIC, split_pairs};
use super::print::emit;
use super::session::Session;
use super::targets::{self, Selection, Target};

/// Update the labels or annotations of objects.
#[derive(Debug, Clone, Default, Args)]
pub struct PairsArgs {
    /// TYPE NAME... or TYPE/NAME..., then KEY=VALUE to set and KEY- to remove
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub mode: Mode,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Field selector
    #[arg(long)]
    pub field_selector: Option<String>,
    /// All objects of the types
    #[arg(long)]
    pub all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Replace values that are there
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub overwrite: bool,
    /// Only show what is there
    #[arg(long)]
    pub list: bool,
    /// Only change this version of the object
    #[arg(long)]
    pub resource_version: Option<String>,
}

/// Which of the two verbs runs.
#[derive(Clone, Copy, PartialEq)]
pub enum Pairs {
    /// `label`
    Labels,
    /// `annotate`
    Annotations,
}

impl Pairs {
    fn field(self) -> &'static str {
        if self == Pairs::Labels { "labels" } else { "annotations" }
    }

    fn done(self, changed: bool, only_removed: bool) -> &'static str {
        match (self, changed, only_removed) {
            (Pairs::Labels, true, true) => "unlabeled",
            (Pairs::Labels, true, false) => "labeled",
            (Pairs::Labels, false, _) => "not labeled",
            (Pairs::Annotations, ..) => "annotated",
        }
    }
}

/// Runs `label` or `annotate`.
pub async fn pairs(session: &Session, args: &PairsArgs, what: Pairs) -> Result<()> {
    let (words, changes) = split_pairs(&args.words)?;
    if changes.is_empty() && !args.list {
        return Err(CtlError::plain(format!("at least one {} update is required", what.field().trim_end_matches('s'))));
    }
    let selection = Selection {
        labels: args.selector.clone(),
        fields: args.field_selector.clone(),
        all_namespaces: args.all_namespaces,
        all: args.all,
    };
    let (found, mut failures) = targets::resolve(session, &words, &args.files, &selection).await?;
    for target in found {
        if let Err(error) = pairs_one(session, args, what, &target, &changes).await {
            failures.push(error);
        }
    }
    CtlError::gather(failures)
}

async fn pairs_one(
    session: &Session,
    args: &PairsArgs,
    what: Pairs,
    target: &Target,
    changes: &[String],
) -> Result<()> {
    let current = target.fetch(session).await?;
    let had = &current["metadata"][what.field()];
    if args.list {
        let mut lines: Vec<String> =
            had.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}\n", text(value))).collect();
        lines.sort();
        return emit(&lines.concat());
    }
    let wanted = plan(had, changes, args.overwrite)?;
    let mut metadata = json!({ what.field(): wanted });
    if let Some(version) = &args.resource_version {
        metadata["resourceVersion"] = Value::from(version.clone());
    }
    let changed = wanted.iter().any(|(key, value)| had[key] != *value);
    let only_removed = wanted.values().all(Value::is_null);
    let format = args.mode.format()?;
    let done = args.mode.done(what.done(changed, only_removed));
    for (key, value) in &wanted {
        if value.is_null() && had[key].is_null() {
            emit(&format!("{} {key:?} not found.\n", what.field().trim_end_matches('s')))?;
        }
    }
    let result = if args.mode.client_only() || !changed {
        let mut result = current.clone();
        merge(&mut result, &json!({"metadata": {what.field(): wanted}}));
        result
    } else {
        let manager = if what == Pairs::Labels { "kubectl-label" } else { "kubectl-annotate" };
        mutate::patch(session, target, MERGE, &json!({ "metadata": metadata }), &args.mode, manager).await?
    };
    show_result(target, &result, &format, &done)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The changes as a merge patch of the map; a value in the way is an error.
fn plan(had: &Value, changes: &[String], overwrite: bool) -> Result<Map<String, Value>> {
    let mut wanted = Map::new();
    for change in changes {
        let (key, value) = match change.split_once('=') {
            Some((key, value)) => (key, Value::from(value)),
            None => (change.trim_end_matches('-'), Value::Null),
        };
        if wanted.contains_key(key) {
            return Err(CtlError::plain(format!("can not both modify and remove {key:?} in the same command")));
        }
        if !overwrite && !value.is_null() && !had[key].is_null() && had[key] != value {
            return Err(CtlError::plain(format!(
                "'{key}' already has a value ({}), and --overwrite is false",
                text(&had[key])
            )));
        }
        wanted.insert(key.to_owned(), value);
    }
    Ok(wanted)
}

/// Applies a JSON merge patch.
pub fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    if let Some(map) = into.as_object_mut() {
        for (key, value) in patch {
            if value.is_null() {
                map.remove(key);
            } else {
                merge(map.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

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
    #[arg(long, allow_negative_numbers = true)]
    pub replicas: i32,
    /// Only scale if this is the number now
    #[arg(long)]
    pub current_replicas: Option<i64>,
    /// Only scale this version of the object
    #[arg(long)]
    pub resource_version: Option<String>,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// All objects of the types
    #[arg(long)]
    pub all: bool,
}

/// Runs `scale`.
pub async fn scale(session: &Session, args: &ScaleArgs) -> Result<()> {
    if args.replicas < 0 {
        return Err(CtlError::plain(
            "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
        ));
    }
    let selection = Selection { labels: args.selector.clone(), all: args.all, ..Selection::default() };
    let (found, mut failures) = targets::resolve(session, &args.words, &args.files, &selection).await?;
    for target in found {
        if let Err(error) = scale_one(session, args, &target).await {
            failures.push(error);
        }
    }
    CtlError::gather(failures)
}

async fn scale_one(session: &Session, args: &ScaleArgs, target: &Target) -> Result<()> {
    let path = format!("{}/scale", target.path());
    if !target.resource.subresources.iter().any(|name| name == "scale") {
        // The object itself may be missing, which is the better complaint.
        target.fetch(session).await?;
        return Err(CtlError::plain(format!(
            "cannot scale {}: the server has no scale for it",
            target.resource.qualified()
        )));
    }
    let mut patch = json!({"spec": {"replicas": args.replicas}});
    let current = session.api.json(&Call::get(path.clone())).await?;
    if let Some(expected) = args.current_replicas {
        let actual = current["spec"]["replicas"].as_i64().unwrap_or_default();
        if actual != expected {
            return Err(CtlError::plain(format!("Expected replicas to be {expected}, was {actual}")));
        }
        patch["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
    }
    if let Some(version) = &args.resource_version {
        patch["metadata"]["resourceVersion"] = Value::from(version.clone());
    }
    let mut result = current;
    if args.mode.client_only() {
        merge(&mut result, &patch);
    } else {
        let call = Call::new(Method::PATCH, path).query("fieldManager", "kubectl-scale").body_as(MERGE, &patch);
        result = session.api.json(&args.mode.mark(call)).await?;
    }
    show_result(target, &result, &args.mode.format()?, &args.mode.done("scaled"))
}

/// Change fields of objects with a patch.
#[derive(Debug, Clone, Default, Args)]
pub struct PatchArgs {
    /// TYPE NAME or TYPE/NAME
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub mode: Mode,
    /// The patch, in JSON or YAML
    #[arg(short, long)]
    pub patch: Option<String>,
    /// A file with the patch
    #[arg(long)]
    pub patch_file: Option<String>,
    /// Kind of patch: json, merge or strategic
    #[arg(long, default_value = "strategic")]
    pub r#type: String,
    /// Patch this subresource instead
    #[arg(long)]
    pub subresource: Option<String>,
}

/// Runs `patch`.
pub async fn patch(session: &Session, args: &PatchArgs) -> Result<()> {
    let content_type = match args.r#type.as_str() {
        "json" => JSON_PATCH,
        "merge" => MERGE,
        "strategic" => STRATEGIC,
        other => return Err(CtlError::Usage(format!("--type must be one of [json merge strategic], not {other:?}"))),
    };
    let body = match (&args.patch, &args.patch_file) {
        (Some(_), Some(_)) => {
            return Err(CtlError::Usage("cannot specify --patch and --patch-file together".to_owned()));
        }
        (Some(patch), None) => patch.clone(),
        (None, Some(path)) => std::fs::read_to_string(path)
            .map_err(|error| CtlError::plain(format!("unable to read patch file: {path}: {error}")))?,
        (None, None) => {
            return Err(CtlError::Usage(
                "must specify --patch or --patch-file containing the contents of the patch".to_owned(),
            ));
        }
    };
    let body: Value =
        serde_norway::from_str(&body).map_err(|error| CtlError::plain(format!("unable to parse {body:?}: {error}")))?;
    let (found, mut failures) = targets::resolve(session, &args.words, &args.files, &Selection::default()).await?;
    for target in found {
        if let Err(error) = patch_one(session, args, &target, content_type, &body).await {
            failures.push(error);
        }
    }
    CtlError::gather(failures)
}

async fn patch_one(
    session: &Session,
    args: &PatchArgs,
    target: &Target,
    kind: &'static str,
    body: &Value,
) -> Result<()> {
    let path = match &args.subresource {
        Some(subresource) => format!("{}/{subresource}", target.path()),
        None => target.path(),
    };
    if args.mode.client_only() && kind != MERGE {
        return Err(CtlError::plain("--dry-run=client is only possible with --type=merge, use --dry-run=server"));
    }
    let current = target.fetch(session).await?;
    let result = if args.mode.client_only() {
        let mut result = current.clone();
        merge(&mut result, body);
        result
    } else {
        let call = Call::new(Method::PATCH, path).query("fieldManager", "kubectl-patch").body_as(kind, body);
        session.api.json(&args.mode.mark(call)).await?
    };
    let same = result["metadata"]["resourceVersion"] == current["metadata"]["resourceVersion"] && result == current;
    let word = if same { "patched (no change)" } else { "patched" };
    show_result(target, &result, &args.mode.format()?, &args.mode.done(word))
}

/// Mark nodes as unschedulable or schedulable.
#[derive(Debug, Clone, Default, Args)]
pub struct CordonArgs {
    /// NODE...
    pub nodes: Vec<String>,
    #[command(flatten)]
    pub mode: Mode,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
}

/// Runs `cordon` and `uncordon`.
pub async fn cordon(session: &Session, args: &CordonArgs, unschedulable: bool) -> Result<()> {
    let words: Vec<String> = std::iter::once("nodes".to_owned()).chain(args.nodes.clone()).collect();
    let selection = Selection { labels: args.selector.clone(), ..Selection::default() };
    let (found, mut failures) = targets::resolve(session, &words, &Files::default(), &selection).await?;
    let word = if unschedulable { "cordoned" } else { "uncordoned" };
    for target in found {
        let outcome = async {
            let node = target.fetch(session).await?;
            if node["spec"]["unschedulable"].as_bool().unwrap_or_default() == unschedulable {
                return show_result(&target, &node, &args.mode.format()?, &format!("already {word}"));
            }
            let body = json!({"spec": {"unschedulable": if unschedulable { json!(true) } else { Value::Null }}});
            let node = match args.mode.client_only() {
                true => node,
                false => mutate::patch(session, &target, STRATEGIC, &body, &args.mode, "kubectl-cordon").await?,
            };
            show_result(&target, &node, &args.mode.format()?, &args.mode.done(word))
        };
        if let Err(error) = outcome.await {
            failures.push(error);
        }
    }
    CtlError::gather(failures)
}

/// The patch between two versions of an object, with its media type.
pub fn difference(target: &Target, before: &Value, after: &Value) -> Result<(Value, &'static str)> {
    match Shape::of_resource(&target.resource) {
        Some(shape) => super::apply::diff::two_way(before, after, &shape)
            .map(|patch| (patch, STRATEGIC))
            .map_err(|reason| CtlError::plain(format!("creating patch for {}: {reason}", target.label()))),
        None => Ok((super::apply::diff::three_way_plain(before, after, before), MERGE)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn changes_become_a_patch() {
        let had = json!({"a": "1", "b": "2"});
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            Value::Object(plan(&had, &words("a=1 b- c=x"), false).unwrap()),
            json!({"a": "1", "b": null, "c": "x"})
        );
        assert_eq!(
            plan(&had, &words("a=2"), false).unwrap_err().text(),
            "error: 'a' already has a value (1), and --overwrite is false\n"
        );
        assert!(plan(&had, &words("a=2"), true).is_ok());
        assert!(plan(&had, &words("a=2 a-"), true).is_err());
    }
}

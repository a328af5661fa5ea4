//! `trictl diff`: what an apply would change. Exits with 0 without differences, with 1 with some, with more on errors.

use std::path::Path;
use std::process::Command;

use clap::Args;
use http::Method;
use serde_json::{Map, Value};

use super::api::Call;
use super::apply::{LAST_APPLIED, three_way, with_last_applied};
use super::errors::{CtlError, Result};
use super::manifest::Files;
use super::print::{self, emit, yaml};
use super::session::Session;
use super::targets::{self, Target};

/// Diff the live version against a would-be applied version.
#[derive(Debug, Clone, Default, Args)]
pub struct DiffArgs {
    /// None is expected
    #[arg(hide = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    /// Label selector: only objects with these labels
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Name of the manager used to track field ownership
    #[arg(long, default_value = "kubectl-client-side-apply")]
    pub field_manager: String,
    /// Not supported yet: differences are those of an apply from the client's side
    #[arg(long)]
    pub server_side: bool,
    /// With --server-side
    #[arg(long)]
    pub force_conflicts: bool,
    /// Objects that are compared at once (one after the other here)
    #[arg(long, default_value_t = 1)]
    pub concurrency: i64,
    /// Include what would be deleted by pruning
    #[arg(long)]
    pub prune: bool,
    /// Kinds that may be pruned: group/version/kind
    #[arg(long)]
    pub prune_allowlist: Vec<String>,
    /// Keep managedFields in the diff
    #[arg(long)]
    pub show_managed_fields: bool,
}

/// Runs the verb; its failures have exit codes above 1.
pub async fn run(session: &Session, args: &DiffArgs) -> Result<()> {
    match compare(session, args).await {
        Err(error @ CtlError::Exit(_)) => Err(error),
        Err(error) => {
            eprint!("{}", error.text());
            Err(CtlError::Exit(2))
        }
        Ok(()) => Ok(()),
    }
}

async fn compare(session: &Session, args: &DiffArgs) -> Result<()> {
    if !args.words.is_empty() {
        return Err(CtlError::usage(format!("Unexpected args: [{}]", args.words.join(" "))));
    }
    if args.files.is_empty() {
        return Err(CtlError::plain("must specify one of -f and -k"));
    }
    if args.server_side || args.prune {
        return Err(CtlError::plain("--server-side and --prune are not supported with diff"));
    }
    let folder = |prefix: &str| tempfile::Builder::new().prefix(prefix).tempdir();
    let (live, merged) = (folder("LIVE-")?, folder("MERGED-")?);
    let (live, merged) = (live.path(), merged.path());
    let (found, mut failures) = targets::from_files(session, &args.files).await?;
    for target in found {
        if !super::create::selected(args.selector.as_deref(), &target)? {
            continue;
        }
        match one(session, args, &target).await {
            Ok((mut before, mut after)) => {
                // What a secret holds is not for the terminal.
                if target.resource.kind == "Secret" && target.resource.group.is_empty() {
                    mask(before.as_mut(), &mut after);
                }
                write(live, &target, before, args.show_managed_fields)?;
                write(merged, &target, Some(after), args.show_managed_fields)?;
            }
            Err(error) => failures.push(error),
        }
    }
    CtlError::gather(failures)?;
    differences(live, merged)
}

/// The object as it is and as it would be.
async fn one(session: &Session, args: &DiffArgs, target: &Target) -> Result<(Option<Value>, Value)> {
    let modified = with_last_applied(target.object.as_ref().unwrap_or(&Value::Null));
    let current = match session.api.json(&Call::get(target.path())).await {
        Ok(current) => current,
        Err(error) if error.is_not_found() => {
            let call = Call::new(Method::POST, target.collection())
                .query("dryRun", "All")
                .query("fieldManager", &args.field_manager)
                .body(&modified);
            return Ok((None, session.api.json(&call).await?));
        }
        Err(error) => return Err(error),
    };
    // What an apply would remember of itself is no difference.
    let mut modified = modified;
    let had = &current["metadata"]["annotations"][LAST_APPLIED];
    match modified.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        Some(annotations) if had.is_null() => drop(annotations.remove(LAST_APPLIED)),
        Some(annotations) => drop(annotations.insert(LAST_APPLIED.to_owned(), had.clone())),
        None => {}
    }
    let (patch, content_type) = three_way(target, &modified, &current, true)?;
    if patch.as_object().is_some_and(Map::is_empty) {
        return Ok((Some(current.clone()), current));
    }
    let call = Call::new(Method::PATCH, target.path())
        .query("dryRun", "All")
        .query("fieldManager", &args.field_manager)
        .body_as(content_type, &patch);
    Ok((Some(current), session.api.json(&call).await?))
}

fn write(folder: &Path, target: &Target, object: Option<Value>, managed_fields: bool) -> Result<()> {
    let Some(mut object) = object else { return Ok(()) };
    targets::stamp(&mut object, &target.resource);
    if !managed_fields {
        print::forget_managers(&mut object);
    }
    let group = match target.resource.group.as_str() {
        "" => target.resource.version.clone(),
        group => format!("{group}.{}", target.resource.version),
    };
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let file = folder.join(format!("{group}.{}.{namespace}.{}", target.resource.kind, target.name));
    Ok(std::fs::write(file, yaml::document(&object))?)
}

/// Hides what a secret holds, but not whether that changes.
fn mask(before: Option<&mut Value>, after: &mut Value) {
    fn data(object: &mut Value) -> Option<&mut Map<String, Value>> {
        if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        object.get_mut("data").and_then(Value::as_object_mut)
    }
    let (mut none, mut nothing) = (Map::new(), Map::new());
    let from = before.and_then(data).unwrap_or(&mut none);
    let to = data(after).unwrap_or(&mut nothing);
    for (key, old) in from.iter_mut() {
        let new = to.get_mut(key);
        let changes = new.as_ref().is_some_and(|new| *new != old);
        *old = Value::from(if changes { "*** (before)" } else { "***" });
        if let (Some(new), true) = (new, changes) {
            *new = Value::from("*** (after)");
        }
    }
    for (_, new) in to.iter_mut().filter(|(_, new)| *new != "*** (after)") {
        *new = Value::from("***");
    }
}

/// Runs `$KUBECTL_EXTERNAL_DIFF`, or `diff -u -N`.
fn differences(live: &Path, merged: &Path) -> Result<()> {
    let program = std::env::var("KUBECTL_EXTERNAL_DIFF").ok().filter(|text| !text.trim().is_empty());
    let words: Vec<String> = match &program {
        // Only plain words, so that nothing else can be smuggled in.
        Some(text) => text.split_whitespace().map(str::to_owned).collect(),
        None => ["diff", "-u", "-N"].map(str::to_owned).to_vec(),
    };
    let (name, arguments) = words.split_first().ok_or_else(|| CtlError::plain("no program to compare with"))?;
    let output = Command::new(name)
        .args(arguments)
        .arg(live)
        .arg(merged)
        .stdin(std::process::Stdio::inherit())
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                CtlError::plain(format!("failed to run {name:?}: executable file not found in $PATH"))
            }
            _ => CtlError::plain(format!("failed to run {name:?}: {error}")),
        })?;
    emit(&String::from_utf8_lossy(&output.stdout))?;
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(CtlError::Exit(1)),
        code => Err(CtlError::plain(format!(
            "failed to run {name:?}: exit status {}",
            code.map_or("unknown".to_owned(), |code| code.to_string())
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_is_hidden_but_not_that_it_changes() {
        let mut before = json!({"metadata": {"annotations": {LAST_APPLIED: "x", "a": "b"}},
            "data": {"same": "YQ==", "other": "YQ==", "gone": "YQ=="}});
        let mut after = json!({"metadata": {}, "data": {"same": "YQ==", "other": "Yg==", "new": "YQ=="}});
        mask(Some(&mut before), &mut after);
        assert_eq!(before["metadata"], json!({"annotations": {"a": "b"}}));
        assert_eq!(before["data"], json!({"same": "***", "other": "*** (before)", "gone": "***"}));
        assert_eq!(after["metadata"], json!({}));
        assert_eq!(after["data"], json!({"same": "***", "other": "*** (after)", "new": "***"}));
        let (mut fresh, mut empty) = (json!({"metadata": {}, "data": {"a": "YQ=="}}), json!({"metadata": {}}));
        mask(None, &mut fresh);
        mask(None, &mut empty);
        assert_eq!(fresh["data"]["a"], "***");
    }
}

//! Earlier revisions: those of a deployment are its replica sets, those of stateful and daemon sets stand in
//! ControllerRevisions, each with the patch that brings it back.

use http::Method;
use serde_json::{Value, json};

use super::super::api::Call;
use super::super::change::patched;
use super::super::errors::{CtlError, Result};
use super::super::get::show_result;
use super::super::mutate::{DryRun, JSON_PATCH, STRATEGIC};
use super::super::pods::selector_of;
use super::super::print::{Formats, emit};
use super::super::session::Session;
use super::super::targets::{self, Selection, Target};
use super::{HistoryArgs, UndoArgs, is_deployment};

const CAUSE: &str = "kubernetes.io/change-cause";
const REVISION: &str = "deployment.kubernetes.io/revision";

/// One revision.
struct Past {
    revision: i64,
    /// What `-o` shows: the replica set, or the workload as it was.
    target: Target,
    object: Value,
    cause: Option<String>,
    /// What brings it back; none for a replica set.
    patch: Option<Value>,
}

impl Past {
    /// The pod template as a page.
    fn template(&self) -> String {
        let mut template = self.object["spec"]["template"].clone();
        if let Some(cause) = self.cause.as_ref().filter(|_| self.patch.is_none()) {
            template["metadata"]["annotations"][CAUSE] = json!(cause);
        }
        super::super::describe::pod_template(&template)
    }
}

/// The revision of a deployment or a replica set.
pub fn revision(object: &Value) -> i64 {
    object["metadata"]["annotations"][REVISION].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn cause(object: &Value) -> Option<String> {
    object["metadata"]["annotations"][CAUSE].as_str().map(str::to_owned)
}

/// A workload with its revisions, oldest first.
async fn revisions(session: &Session, target: &Target) -> Result<(Value, Vec<Past>)> {
    let object = target.fetch(session).await?;
    let kept_in = if is_deployment(target) { "replicasets.apps" } else { "controllerrevisions.apps" };
    let resource = session.discovery().await?.need(kept_in)?;
    let selection = Selection { labels: selector_of(&object), ..Selection::default() };
    let uid = &object["metadata"]["uid"];
    let mut all = Vec::new();
    for kept in targets::list(session, &resource, &selection).await? {
        let owners = kept["metadata"]["ownerReferences"].as_array();
        if !owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == *uid)) {
            continue;
        }
        all.push(if is_deployment(target) {
            let target = targets::of_object(&resource, kept.clone());
            Past { revision: revision(&kept), target, cause: cause(&kept), object: kept, patch: None }
        } else {
            let before = patched(target, &object, STRATEGIC, &kept["data"])?;
            let (revision, patch) = (kept["revision"].as_i64().unwrap_or_default(), Some(kept["data"].clone()));
            Past { revision, target: target.clone(), cause: cause(&kept), object: before, patch }
        });
    }
    all.retain(|past| past.revision > 0);
    all.sort_by_key(|past| past.revision);
    Ok((object, all))
}

fn has_history(target: &Target) -> bool {
    target.resource.group == "apps"
        && matches!(target.resource.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet")
}

/// `rollout history`
pub async fn history(session: &Session, args: &HistoryArgs, target: &Target) -> Result<()> {
    let printer = args.print.printer(Formats::Objects)?;
    if !has_history(target) {
        target.fetch(session).await?;
        let (kind, group) = (kind_of(target), &target.resource.group);
        return Err(CtlError::plain(match is_visited(target) {
            true => format!("no history viewer has been implemented for {kind:?}"),
            false => format!(
                "error retrieving history for {kind:?}, no visitor method exists for {{{group} {}}}",
                target.resource.kind
            ),
        }));
    }
    let (_, all) = revisions(session, target).await?;
    let wanted = |past: &&Past| args.revision == 0 || past.revision == args.revision;
    if !printer.is_table() {
        if args.revision > 0 && !all.iter().any(|past| wanted(&past)) {
            return Err(CtlError::plain("unable to find the specified revision"));
        }
        for past in all.iter().filter(wanted) {
            show_result(&past.target, &past.object, &printer, "")?;
        }
        return Ok(());
    }
    let name = target.label();
    if args.revision > 0 {
        let text = match all.iter().find(wanted) {
            Some(past) => past.template(),
            None if all.is_empty() => "No rollout history found.".to_owned(),
            None => return Err(CtlError::plain("unable to find the specified revision")),
        };
        return emit(&format!("{name} with revision #{}\n{text}\n", args.revision));
    }
    if all.is_empty() {
        return emit(&format!("{name} \nNo rollout history found.\n"));
    }
    let row = |past: &Past| format!("{:<8}  {}\n", past.revision, past.cause.as_deref().unwrap_or("<none>"));
    emit(&format!("{name} \nREVISION  CHANGE-CAUSE\n{}\n", all.iter().map(row).collect::<String>()))
}

/// `Kind`, or `Kind.group`.
fn kind_of(target: &Target) -> String {
    match target.resource.group.as_str() {
        "" => target.resource.kind.clone(),
        group => format!("{}.{group}", target.resource.kind),
    }
}

/// Whether kubectl knows the kind as one with pods, though not as one with revisions.
fn is_visited(target: &Target) -> bool {
    let kind = (target.resource.group.as_str(), target.resource.kind.as_str());
    matches!(kind, ("", "Pod" | "ReplicationController") | ("apps", "ReplicaSet") | ("batch", "Job" | "CronJob"))
}

/// The revision to go back to.
fn chosen<'a>(all: &'a [Past], args: &UndoArgs, target: &Target) -> Result<&'a Past> {
    let wanted = match args.to_revision {
        0 if all.len() < 2 && is_deployment(target) => {
            return Err(CtlError::plain(format!("no rollout history found for deployment {:?}", target.name)));
        }
        0 if all.len() < 2 => return Err(CtlError::plain("no last revision to roll back to")),
        0 => return Ok(&all[all.len() - 2]),
        revision => revision,
    };
    all.iter()
        .find(|past| past.revision == wanted)
        .ok_or_else(|| CtlError::plain(format!("unable to find specified revision {wanted} in history")))
}

/// `rollout undo`
pub async fn undo(session: &Session, args: &UndoArgs, target: &Target) -> Result<()> {
    let printer = args.print.printer(Formats::Objects)?;
    if !has_history(target) {
        target.fetch(session).await?;
        let (kind, group) = (&target.resource.kind, &target.resource.group);
        return Err(CtlError::plain(match is_visited(target) {
            true => format!("no rollbacker has been implemented for {:?}", kind_of(target)),
            false => format!(
                "error retrieving rollbacker for {:?}, no visitor method exists for {{{group} {kind}}}",
                kind_of(target)
            ),
        }));
    }
    let (object, all) = revisions(session, target).await?;
    let past = chosen(&all, args, target)?;
    if object["spec"]["paused"] == true {
        return Err(CtlError::plain(
            "you cannot rollback a paused deployment; resume it first with 'trictl rollout resume' and try again",
        ));
    }
    if args.dry_run == DryRun::Client {
        let will = if past.patch.is_some() { "will roll back to " } else { "" };
        return show_result(target, &object, &printer, &format!("{will}{} (dry run)", past.template()));
    }
    let mut template = past.object["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut().filter(|_| past.patch.is_none()) {
        labels.remove("pod-template-hash");
    }
    if template == object["spec"]["template"] {
        let revision = past.revision;
        let done = format!("skipped rollback (current template already matches revision {revision})");
        return show_result(target, &object, &printer, &done);
    }
    // The test makes sure that nobody changed the template in between.
    let body = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": object["metadata"]["resourceVersion"]},
        {"op": "replace", "path": "/spec/template", "value": template},
    ]);
    let (kind, body) = match &past.patch {
        Some(patch) => (STRATEGIC, patch),
        None => (JSON_PATCH, &body),
    };
    let mut call = Call::new(Method::PATCH, target.path()).query("fieldManager", "kubectl-rollout");
    if args.dry_run == DryRun::Server {
        call = call.query("dryRun", "All");
    }
    let result = session.api.json(&call.body_as(kind, body)).await?;
    show_result(target, &result, &printer, &args.dry_run.done("rolled back"))
}

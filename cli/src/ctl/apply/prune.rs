//! `apply --prune`: what was applied before and is not in the files any more goes.

use serde_json::Value;

use super::super::delete::{Options, await_gone, propagation, remove};
use super::super::errors::{CtlError, Result};
use super::super::mutate::DryRun;
use super::super::print::emit;
use super::super::session::Session;
use super::super::targets::{self, Selection};
use super::{Applied, ApplyArgs, LAST_APPLIED};

/// What may go where no list is given: kubectl's kinds, of which the server need not have all.
const KINDS: &[(&str, &str, &str)] = &[
    ("", "v1", "ConfigMap"),
    ("", "v1", "Endpoints"),
    ("", "v1", "Namespace"),
    ("", "v1", "PersistentVolumeClaim"),
    ("", "v1", "PersistentVolume"),
    ("", "v1", "Pod"),
    ("", "v1", "ReplicationController"),
    ("", "v1", "Secret"),
    ("", "v1", "Service"),
    ("batch", "v1", "Job"),
    ("batch", "v1", "CronJob"),
    ("networking.k8s.io", "v1", "Ingress"),
    ("apps", "v1", "DaemonSet"),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "ReplicaSet"),
    ("apps", "v1", "StatefulSet"),
];

/// Deletes what is not among the applied objects.
pub(super) async fn run(session: &Session, args: &ApplyArgs, applied: &[Applied]) -> Result<()> {
    let discovery = session.discovery().await?;
    let mut resources = Vec::new();
    if args.prune_allowlist.is_empty() {
        for (group, version, kind) in KINDS {
            let version = if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") };
            resources.extend(discovery.by_kind(&version, kind));
        }
    }
    for text in &args.prune_allowlist {
        let parts: Vec<&str> = text.split('/').collect();
        let [group, version, kind] = parts.as_slice() else {
            return Err(CtlError::plain(format!(
                "invalid GroupVersionKind format: {text}, please follow <group/version/kind>"
            )));
        };
        let version = if *group == "core" { (*version).to_owned() } else { format!("{group}/{version}") };
        let found = discovery.by_kind(&version, kind);
        resources.push(found.ok_or_else(|| {
            CtlError::plain(format!("error retrieving RESTMappings to prune: invalid resource {text}: no matches for kind {kind:?} in version {version:?}"))
        })?);
    }
    let mut namespaces: Vec<String> = applied.iter().filter_map(|one| one.target.namespace.clone()).collect();
    namespaces.sort();
    namespaces.dedup();
    let uids: Vec<&Value> = applied.iter().map(|one| &one.object["metadata"]["uid"]).collect();
    let options = Options {
        grace_period: Some(args.grace_period).filter(|seconds| *seconds >= 0),
        propagation: propagation(&args.cascade)?,
        dry_run: args.mode.dry_run == DryRun::Server,
    };
    for resource in resources {
        let scopes: Vec<String> = if resource.namespaced { namespaces.clone() } else { vec![String::new()] };
        for namespace in scopes {
            let path = resource.path(Some(&namespace));
            let selection = Selection { labels: args.selector.clone(), ..Selection::default() };
            for object in targets::list_at(session, &resource, &path, &selection).await? {
                let metadata = &object["metadata"];
                if metadata["annotations"][LAST_APPLIED].is_null()
                    || uids.contains(&&metadata["uid"])
                    || !metadata["deletionTimestamp"].is_null()
                {
                    continue;
                }
                let target = targets::of_object(&resource, object);
                if !args.mode.client_only() {
                    let uid = remove(session, &target, &options).await?;
                    if args.wait && !options.dry_run {
                        await_gone(session, &target, &uid, None).await?;
                    }
                }
                emit(&format!("{} {}\n", target.label(), args.mode.done("pruned")))?;
            }
        }
    }
    Ok(())
}

//! `trictl describe`: fetching an object and what belongs to it; the texts are made by pure functions below.

mod core;
mod generic;
mod network;
mod node;
mod pod;
mod template;
#[cfg(test)]
mod tests;
mod workload;
mod writer;

use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use self::writer::Page;
pub use self::writer::last_seen;
use super::api::Call;
use super::discovery::Resource;
use super::errors::{CtlError, Result};
use super::manifest::Files;
use super::pods::selector_of;
use super::print::emit;
use super::session::Session;
use super::targets::{self, Query, Selection, Target};

/// Show details of one or many resources.
#[derive(Debug, Clone, Default, Args)]
pub struct DescribeArgs {
    /// TYPE [NAME or its beginning...] or TYPE/NAME...
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Objects per page; 0 is all at once
    #[arg(long, default_value_t = 500)]
    pub chunk_size: i64,
    /// Show events
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub show_events: bool,
}

/// An object with what belongs to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Subject {
    /// The object.
    pub object: Value,
    /// Its events, oldest first; none if they are not wanted.
    pub events: Option<Vec<Value>>,
    /// Pods of a workload or node.
    pub pods: Vec<Value>,
    /// Replica sets of a deployment.
    pub sets: Vec<Value>,
    /// Endpoint slices of a service.
    pub slices: Vec<Value>,
    /// Lease of a node.
    pub lease: Value,
    /// Quotas of a namespace, where the server has them.
    pub quotas: Option<Vec<Value>>,
    /// Limit ranges of a namespace, where the server has them.
    pub limits: Option<Vec<Value>>,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &DescribeArgs) -> Result<()> {
    let (found, mut failures) = find(session, args).await?;
    let by_prefix = found.iter().any(|(_, by_prefix)| *by_prefix);
    if found.is_empty() && failures.is_empty() {
        eprintln!("No resources found in {} namespace.", session.namespace);
    }
    let mut first = true;
    for (target, _) in found {
        match subject(session, &target, args.show_events).await {
            Ok(subject) => {
                let gap = if std::mem::take(&mut first) { "" } else { "\n\n" };
                let end = if by_prefix { "\n" } else { "" };
                emit(&format!("{}{}{end}", if by_prefix { "" } else { gap }, render(&subject, Timestamp::now())))?;
            }
            Err(error) => failures.push(error),
        }
    }
    CtlError::gather(failures)
}

/// What to describe; the flag tells those of which only the beginning of the name was given.
async fn find(session: &Session, args: &DescribeArgs) -> Result<(Vec<(Target, bool)>, Vec<CtlError>)> {
    if !args.files.is_empty() {
        let (mut found, failures) = targets::from_files(session, &args.files).await?;
        found.iter_mut().for_each(|target| target.object = None);
        return Ok((found.into_iter().map(|target| (target, false)).collect(), failures));
    }
    if args.words.is_empty() {
        return Err(CtlError::plain(
            "You must specify the type of resource to describe. Use \"trictl api-resources\" for a complete list of supported resources.",
        ));
    }
    let discovery = session.discovery().await?;
    let selection = Selection {
        labels: args.selector.clone(),
        all_namespaces: args.all_namespaces,
        chunk: Some(args.chunk_size),
        ..Selection::default()
    };
    let (queries, _) = targets::parse(&discovery, &args.words)?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for query in queries {
        match query {
            Query::Every(resource) => {
                let objects = targets::list(session, &resource, &selection).await?;
                found.extend(objects.into_iter().map(|object| (targets::of_object(&resource, object), false)));
            }
            Query::Named(..) if args.selector.is_some() => {
                return Err(CtlError::plain("name cannot be provided when a selector is specified"));
            }
            Query::Named(resource, names) => {
                for name in names {
                    match named(session, &resource, &name).await {
                        Ok(targets) => found.extend(targets.into_iter().map(|target| {
                            let by_prefix = target.name != name;
                            (target, by_prefix)
                        })),
                        Err(error) => failures.push(error),
                    }
                }
            }
        }
    }
    Ok((found, failures))
}

/// The object of that name, or all whose names begin so.
async fn named(session: &Session, resource: &Arc<Resource>, name: &str) -> Result<Vec<Target>> {
    let namespace = resource.namespaced.then(|| session.namespace.clone());
    let target = Target { resource: resource.clone(), namespace, name: name.to_owned(), object: None, source: None };
    match target.fetch(session).await {
        Ok(object) => Ok(vec![Target { object: Some(object), ..target }]),
        Err(error) if error.is_not_found() => {
            let all = targets::list(session, resource, &Selection::default()).await?;
            let begins =
                |object: &Value| object["metadata"]["name"].as_str().is_some_and(|known| known.starts_with(name));
            let matching: Vec<Target> =
                all.into_iter().filter(begins).map(|object| targets::of_object(resource, object)).collect();
            if matching.is_empty() { Err(error) } else { Ok(matching) }
        }
        Err(error) => Err(error),
    }
}

/// Fetches what belongs to the object. What is not allowed or not there is left out.
async fn subject(session: &Session, target: &Target, show_events: bool) -> Result<Subject> {
    let object = match &target.object {
        Some(object) => object.clone(),
        None => target.fetch(session).await?,
    };
    let mut subject = Subject { object, ..Subject::default() };
    let namespace = target.namespace.as_deref();
    let matching = selector_of(&subject.object);
    match (target.resource.group.as_str(), target.resource.kind.as_str()) {
        ("apps", "Deployment") => {
            let sets = related(session, "replicasets.apps", namespace, "labelSelector", matching.as_deref()).await;
            let uid = subject.object["metadata"]["uid"].clone();
            subject.sets = sets.into_iter().filter(|set| owned_by(set, &uid)).collect();
        }
        ("apps", "ReplicaSet" | "DaemonSet" | "StatefulSet") | ("", "ReplicationController") => {
            let pods = related(session, "pods", namespace, "labelSelector", matching.as_deref()).await;
            let uid = subject.object["metadata"]["uid"].clone();
            subject.pods = pods.into_iter().filter(|pod| owned_by(pod, &uid)).collect();
        }
        ("", "Service") => {
            let selector = format!("kubernetes.io/service-name={}", target.name);
            subject.slices =
                related(session, "endpointslices.discovery.k8s.io", namespace, "labelSelector", Some(&selector)).await;
        }
        ("", "Node") => {
            let on_node = format!("spec.nodeName={}", target.name);
            subject.pods = related(session, "pods", None, "fieldSelector", Some(&on_node)).await;
            let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", target.name);
            subject.lease = session.api.json(&Call::get(path)).await.unwrap_or_default();
        }
        ("", "Namespace") => {
            subject.quotas = inside(session, "resourcequotas", &target.name).await;
            subject.limits = inside(session, "limitranges", &target.name).await;
        }
        _ => {}
    }
    if show_events {
        subject.events = Some(events(session, target, &subject.object).await);
    }
    Ok(subject)
}

/// A namespace's objects of a type, unless the server does not have it.
async fn inside(session: &Session, resource: &str, namespace: &str) -> Option<Vec<Value>> {
    let resource = session.discovery().await.ok()?.find(resource)?;
    let mut list = session.api.json(&Call::get(resource.path(Some(namespace)))).await.ok()?;
    Some(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

fn owned_by(object: &Value, uid: &Value) -> bool {
    let mut owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.any(|owner| owner["controller"] == true && owner["uid"] == *uid)
}

async fn related(
    session: &Session,
    resource: &str,
    namespace: Option<&str>,
    selector: &str,
    value: Option<&str>,
) -> Vec<Value> {
    let Ok(discovery) = session.discovery().await else { return Vec::new() };
    let (Some(resource), Some(value)) = (discovery.find(resource), value) else { return Vec::new() };
    let call = Call::get(resource.path(namespace)).query(selector, value);
    match session.api.json(&call).await {
        Ok(mut list) => list["items"].as_array_mut().map(std::mem::take).unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

async fn events(session: &Session, target: &Target, object: &Value) -> Vec<Value> {
    let mut selector = format!("involvedObject.name={},involvedObject.kind={}", target.name, target.resource.kind);
    if let Some(namespace) = &target.namespace {
        selector.push_str(&format!(",involvedObject.namespace={namespace}"));
    }
    // Events of nodes carry the node's name as its uid, as upstream's kubelet writes them.
    if let Some(uid) = object["metadata"]["uid"].as_str().filter(|_| target.resource.kind != "Node") {
        selector.push_str(&format!(",involvedObject.uid={uid}"));
    }
    let mut found = related(session, "events", target.namespace.as_deref(), "fieldSelector", Some(&selector)).await;
    found.sort_by_key(|event| writer::last_seen(event).to_owned());
    found
}

/// The text that describes a subject.
pub(super) fn render(subject: &Subject, now: Timestamp) -> String {
    let object = &subject.object;
    let group = object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |pair| pair.0);
    let mut page = Page::new(now);
    match (group, object["kind"].as_str().unwrap_or_default()) {
        ("", "Pod") => pod::describe(&mut page, object),
        ("", "Node") => node::describe(&mut page, subject),
        ("", "Service") => self::core::service(&mut page, subject),
        ("", "Namespace") => return self::core::namespace(page, subject),
        ("", "Endpoints") => network::endpoints(&mut page, object),
        ("discovery.k8s.io", "EndpointSlice") => network::slice(&mut page, object),
        ("scheduling.k8s.io", "PriorityClass") => network::priority_class(&mut page, object),
        ("", "ConfigMap") => self::core::config_map(&mut page, object),
        ("", "Secret") => return self::core::secret(page, object),
        ("", "ServiceAccount") => self::core::service_account(&mut page, object),
        ("apps", "Deployment") => workload::deployment(&mut page, subject),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => workload::replicas(&mut page, subject),
        _ => generic::describe(&mut page, object),
    }
    if let Some(events) = &subject.events {
        page.events(events);
    }
    page.finish()
}

/// A pod template alone, as `rollout history --revision` shows it.
pub fn pod_template(template: &Value) -> String {
    let mut page = Page::new(Timestamp::UNIX_EPOCH);
    template::describe(&mut page, template);
    page.unaligned()
}

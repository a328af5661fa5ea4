//! `trictl describe`: fetching an object and what belongs to it; the texts are made by pure functions below.

mod batch;
mod core;
mod generic;
mod ingress;
mod network;
mod node;
mod pod;
mod policy;
mod quota;
mod rbac;
mod request;
mod storage;
mod template;
#[cfg(test)]
mod tests;
mod volumes;
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
    /// Services that an ingress sends to.
    pub backends: Vec<Backend>,
    /// Secrets beside a service account, where they may be seen.
    pub secrets: Option<Vec<Value>>,
}

/// A service that an ingress sends to.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    /// Its name.
    pub name: String,
    /// The service with its endpoint slices, or why it cannot be seen.
    pub found: std::result::Result<(Value, Vec<Value>), String>,
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
        let text = subject(session, &target, args.show_events).await;
        match text.and_then(|subject| render(&subject, Timestamp::now())) {
            Ok(text) => {
                let gap = if std::mem::take(&mut first) { "" } else { "\n\n" };
                let end = if by_prefix { "\n" } else { "" };
                emit(&format!("{}{text}{end}", if by_prefix { "" } else { gap }))?;
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
    let object = newest(session, target, object).await;
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
            subject.slices = slices(session, namespace, &target.name).await;
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
        ("", "PersistentVolumeClaim") => {
            let pods = inside(session, "pods", namespace.unwrap_or_default()).await.unwrap_or_default();
            subject.pods = pods.into_iter().filter(|pod| uses(pod, &subject.object)).collect();
        }
        ("", "ServiceAccount") => subject.secrets = inside(session, "secrets", namespace.unwrap_or_default()).await,
        ("networking.k8s.io", "Ingress") => {
            for name in ingress::services(&subject.object) {
                let found = backend(session, namespace, &name).await;
                subject.backends.push(Backend { name, found });
            }
        }
        _ => {}
    }
    if show_events {
        subject.events = Some(events(session, target, &subject.object).await);
    }
    Ok(subject)
}

/// Autoscalers are shown as their newest version has them, whichever was asked for.
async fn newest(session: &Session, target: &Target, object: Value) -> Value {
    if object["apiVersion"] != "autoscaling/v1" {
        return object;
    }
    let path = target.path().replace("/apis/autoscaling/v1/", "/apis/autoscaling/v2/");
    session.api.json(&Call::get(path)).await.unwrap_or(object)
}

async fn slices(session: &Session, namespace: Option<&str>, service: &str) -> Vec<Value> {
    let selector = format!("kubernetes.io/service-name={service}");
    related(session, "endpointslices.discovery.k8s.io", namespace, "labelSelector", Some(&selector)).await
}

/// A service of an ingress with its endpoints.
async fn backend(
    session: &Session,
    namespace: Option<&str>,
    name: &str,
) -> std::result::Result<(Value, Vec<Value>), String> {
    let path = format!("/api/v1/namespaces/{}/services/{name}", namespace.unwrap_or_default());
    let service = session.api.json(&Call::get(path)).await.map_err(|error| error.reason_text())?;
    Ok((service, slices(session, namespace, name).await))
}

/// Whether a pod uses a claim: by one of its volumes, or because the claim was made for it.
fn uses(pod: &Value, claim: &Value) -> bool {
    let name = &claim["metadata"]["name"];
    let mut volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut owners = claim["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    volumes.any(|volume| volume["persistentVolumeClaim"]["claimName"] == *name)
        || owners.any(|owner| owner["kind"] == "Pod" && owner["uid"] == pod["metadata"]["uid"])
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
    if target.resource.kind == "Node" {
        // The controllers' events first, then the agent's.
        let is_of = |event: &Value, uid: &Value| event["involvedObject"]["uid"] == *uid;
        let (uid, name) = (&object["metadata"]["uid"], &object["metadata"]["name"]);
        found.retain(|event| is_of(event, uid) || is_of(event, name));
        found.sort_by_key(|event| !is_of(event, uid));
    }
    found.sort_by_key(|event| event["lastTimestamp"].as_str().unwrap_or_default().to_owned());
    found
}

/// The text that describes a subject.
pub(super) fn render(subject: &Subject, now: Timestamp) -> Result<String> {
    let object = &subject.object;
    let group = object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |pair| pair.0);
    let mut page = Page::new(now);
    match (group, object["kind"].as_str().unwrap_or_default()) {
        ("", "Namespace") => return Ok(self::core::namespace(page, subject)),
        ("", "Secret") => return Ok(self::core::secret(page, object)),
        ("networking.k8s.io", "NetworkPolicy") => return Ok(policy::network_policy(page, object)),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => return Ok(rbac::role(page, object)),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => return Ok(rbac::binding(page, object)),
        ("", "ResourceQuota") => {
            quota::quota(&mut page, object);
            return Ok(page.finish());
        }
        ("", "LimitRange") => {
            quota::limit_range(&mut page, object);
            return Ok(page.finish());
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            request::describe(&mut page, object).map_err(CtlError::plain)?;
        }
        (group, kind) => one(&mut page, group, kind, subject),
    }
    if let Some(events) = &subject.events {
        page.events(events);
    }
    Ok(page.finish())
}

/// The page of a kind that ends with events.
fn one(page: &mut Page, group: &str, kind: &str, subject: &Subject) {
    let object = &subject.object;
    match (group, kind) {
        ("", "Pod") => pod::describe(page, object),
        ("", "Node") => node::describe(page, subject),
        ("", "Service") => self::core::service(page, subject),
        ("", "Endpoints") => network::endpoints(page, object),
        ("", "ConfigMap") => self::core::config_map(page, object),
        ("", "ServiceAccount") => self::core::service_account(page, subject),
        ("", "PersistentVolume") => storage::volume(page, object),
        ("", "PersistentVolumeClaim") => storage::claim(page, subject),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => workload::replicas(page, subject),
        ("apps", "Deployment") => workload::deployment(page, subject),
        ("apps", "StatefulSet") => workload::stateful_set(page, subject),
        ("apps", "DaemonSet") => workload::daemon_set(page, subject),
        ("batch", "Job") => batch::job(page, object),
        ("batch", "CronJob") => batch::cron_job(page, object),
        ("autoscaling", "HorizontalPodAutoscaler") => policy::autoscaler(page, object),
        ("policy", "PodDisruptionBudget") => policy::disruption_budget(page, object),
        ("networking.k8s.io", "Ingress") => ingress::ingress(page, subject),
        ("networking.k8s.io", "IngressClass") => ingress::ingress_class(page, object),
        ("networking.k8s.io", "IPAddress") => ingress::ip_address(page, object),
        ("networking.k8s.io", "ServiceCIDR") => ingress::service_cidr(page, object),
        ("discovery.k8s.io", "EndpointSlice") => network::slice(page, object),
        ("scheduling.k8s.io", "PriorityClass") => network::priority_class(page, object),
        ("storage.k8s.io", "StorageClass") => storage::storage_class(page, object),
        ("storage.k8s.io", "VolumeAttributesClass") => storage::attributes_class(page, object),
        ("storage.k8s.io", "CSINode") => rbac::csi_node(page, object),
        _ => generic::describe(page, object),
    }
}

/// A pod template alone, as `rollout history --revision` shows it.
pub fn pod_template(template: &Value) -> String {
    let mut page = Page::new(Timestamp::UNIX_EPOCH);
    template::describe(&mut page, template);
    page.unaligned()
}

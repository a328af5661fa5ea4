//! The Namespace controller: empties a namespace that is being deleted, tells what remains, then lets it go.

mod plan;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::core::Request;
use serde_json::Value;
use trireme_client::informer::{Informers, Meta, ObjectKey};

use crate::discovery::{Served, discover, list_meta};
use crate::pods;
use crate::runtime::{Context, Next, Part, ReconcileError, Reconciler, Runner, Writer, is_conflict, is_not_found};
use plan::{Findings, with_conditions};

const FINALIZER: &str = "kubernetes";
/// How often to look at what remains while nothing tells of it.
const RECHECK: Duration = Duration::from_secs(1);

struct Namespaces {
    context: Context,
}

/// The loop that empties namespaces.
pub(crate) async fn run(context: Context) {
    let informers = context.informers.clone();
    let (for_pods, all) = (informers.clone(), informers.namespaces.clone());
    let all = move || all.list().iter().map(|namespace| ObjectKey::of(&namespace.metadata)).collect();
    let config = context.config.clone();
    Runner::new(Namespaces { context }, &config, all)
        .on(&informers.namespaces, |namespace: &Namespace| vec![ObjectKey::of(&namespace.metadata)])
        .on_change(&informers.pods, move |old: Option<&Pod>, new| emptied(&for_pods, old, new))
        .run()
        .await;
}

/// A namespace that waits for its pods is looked at when one is gone.
fn emptied(informers: &Informers, old: Option<&Pod>, new: Option<&Pod>) -> Vec<ObjectKey> {
    let (Some(gone), None) = (old, new) else { return Vec::new() };
    let key = ObjectKey::new("", pods::namespace(&gone.metadata));
    let terminating = |key: &ObjectKey| {
        informers.namespaces.get(key).is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    };
    Some(key).filter(terminating).into_iter().collect()
}

impl Reconciler for Namespaces {
    type Key = ObjectKey;
    const NAME: &'static str = "namespace";

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let namespaces = &self.context.informers.namespaces;
        let Some(namespace) = namespaces.get(&key) else { return Ok(Next::Done) };
        let ours = |namespace: &Namespace| {
            let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
            finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == FINALIZER))
        };
        if namespace.metadata.deletion_timestamp.is_none() || !ours(&namespace) {
            return Ok(Next::Done);
        }
        let findings = self.empty(&key.name).await?;
        let told = with_conditions(&namespace, &findings, Timestamp::now());
        let writer = Writer::new(&self.context.client, namespaces);
        let written = writer.update(Part::Status, &*namespace, &told).await?;
        if !findings.is_empty() {
            return Ok(Next::After(RECHECK));
        }
        self.finalize(written.unwrap_or_else(|| Namespace::clone(&namespace))).await
    }
}

impl Namespaces {
    /// Deletes everything in a namespace, pods before anything they may depend on, and tells what is left.
    async fn empty(&self, namespace: &str) -> Result<Findings, ReconcileError> {
        let (served, undiscovered) = discover(&self.context.client).await?;
        let mut findings = Findings { undiscovered, ..Findings::default() };
        let mut kinds: Vec<Served> = served.into_iter().filter(|kind| kind.namespaced && kind.can("delete")).collect();
        // An event is the last thing: what is deleted may still be told of.
        kinds.sort_by_key(|kind| (kind.plural != "pods", kind.plural == "events"));
        for kind in kinds {
            if let Err(error) = self.empty_of(&kind, namespace, &mut findings).await {
                findings.failures.push(format!("{}.{}: {error}", kind.plural, kind.group));
            }
            if kind.plural == "pods" && !findings.remaining.is_empty() {
                break;
            }
        }
        Ok(findings)
    }

    async fn empty_of(&self, kind: &Served, namespace: &str, findings: &mut Findings) -> Result<(), kube::Error> {
        let client = &self.context.client;
        let path = kind.path(namespace);
        let left = list_meta(client, &path).await?;
        if left.is_empty() {
            return Ok(());
        }
        if kind.can("deletecollection") {
            let request = Request::new(&path).delete_collection(&DeleteParams::background(), &ListParams::default());
            client.request::<Value>(request.map_err(kube::Error::BuildRequest)?).await?;
        } else {
            for object in &left {
                delete_one(client, &path, object).await?;
            }
        }
        for object in list_meta(client, &path).await? {
            *findings.remaining.entry(format!("{}.{}", kind.plural, kind.group)).or_default() += 1;
            for finalizer in object.metadata.finalizers.into_iter().flatten() {
                *findings.finalizers.entry(finalizer).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Takes our finalizer away, upon which the namespace goes.
    async fn finalize(&self, mut namespace: Namespace) -> Result<Next, ReconcileError> {
        let key = ObjectKey::of(&namespace.metadata);
        let uid = pods::uid(&namespace.metadata).to_owned();
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let path = format!("/api/v1/namespaces/{}/finalize", key.name);
        let body = serde_json::to_vec(&namespace)?;
        let request = http::Request::put(path).header(http::header::CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|error| ReconcileError::Api(kube::Error::HttpError(error)))?;
        match self.context.client.request::<Value>(request).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            // Something else wrote it meanwhile: what was found may not hold any more.
            Err(error) if is_conflict(&error) => return Ok(Next::After(RECHECK / 10)),
            Err(error) => return Err(error.into()),
        }
        self.context.informers.namespaces.wait_deleting(&key, &uid).await;
        Ok(Next::Done)
    }
}

async fn delete_one(client: &kube::Client, path: &str, object: &Meta) -> Result<(), kube::Error> {
    let request = Request::new(path).delete(pods::name(&object.metadata), &DeleteParams::background());
    match client.request::<Value>(request.map_err(kube::Error::BuildRequest)?).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

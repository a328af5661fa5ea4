//! Garbage collection: deletes what has lost its owners, in the background, before its owner, or lets it live on,
//! as the deletion of the owner asked for.
//!
//! An owner in a cache that exists and is not being deleted is believed. Everything else is verified by a live read
//! and by uid before anything is deleted.

mod kinds;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, Preconditions};
use kube::core::Request;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_client::events::EventType;
use trireme_client::informer::{Meta, ObjectKey};

use crate::discovery::{Served, discover};
use crate::pods;
use crate::runtime::{Context, Next, ReconcileError, Reconciler, Runner, is_not_found};
use kinds::{Item, Kinds, Mapper};
use plan::{Action, FOREGROUND, ORPHAN, Owner, decide, has_finalizer, is_waiting, matters};

/// How often to ask for kinds that have come or gone.
const REDISCOVERY: Duration = Duration::from_secs(30);
/// Kinds that neither own nor are owned, and change all the time.
const IGNORED: [&str; 1] = ["events"];

pub(crate) struct Garbage {
    context: Context,
    kinds: Arc<Kinds>,
}

/// The loop that collects garbage; begins anew when the kinds that are served change.
pub(crate) async fn run(context: Context) {
    let mut known: Vec<Served> = collectable(&context).await;
    loop {
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone().drop_guard();
        let kinds = Arc::new(Kinds::new(&known, &context.informers, &context.client, &shutdown));
        tokio::select! {
            () = collect(context.clone(), kinds) => {}
            changed = changed(&context, &known) => known = changed,
        }
        drop(stop);
    }
}

/// The kinds that are served and can be collected.
async fn collectable(context: &Context) -> Vec<Served> {
    loop {
        match discover(&context.client).await {
            Ok((mut served, _)) => {
                served.retain(|kind| ["list", "watch", "delete"].iter().all(|verb| kind.can(verb)));
                served.retain(|kind| !IGNORED.contains(&kind.plural.as_str()));
                return served;
            }
            Err(error) => {
                tracing::warn!(%error, "kinds cannot be discovered: trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn changed(context: &Context, known: &[Served]) -> Vec<Served> {
    loop {
        tokio::time::sleep(REDISCOVERY).await;
        let now = collectable(context).await;
        if now != known {
            return now;
        }
    }
}

async fn collect(context: Context, kinds: Arc<Kinds>) {
    // Before all is known, dependents could be overlooked.
    futures::future::join_all(kinds.iter().map(|(_, kind)| kind.view.synced())).await;
    let config = context.config.clone();
    let for_all = kinds.clone();
    let all = move || {
        let of_kind = |(at, kind): (usize, &kinds::Kind)| {
            kind.view.all().into_iter().map(|key| for_all.item(at, key)).collect::<Vec<_>>()
        };
        for_all.iter().flat_map(of_kind).collect()
    };
    let garbage = Garbage { context, kinds: kinds.clone() };
    let mut runner = Runner::new(garbage, &config, all);
    for (at, kind) in kinds.iter() {
        runner = kind.view.follow(runner, concerned(&kinds, at));
    }
    runner.run().await;
}

/// The objects that a change of one object of this kind concerns.
fn concerned(kinds: &Arc<Kinds>, kind: usize) -> Mapper {
    let kinds = kinds.clone();
    Box::new(move |old, new| {
        if let (Some(old), Some(new)) = (old, new)
            && !matters(old, new)
        {
            return Vec::new();
        }
        let mut items: Vec<Item> = Vec::new();
        for meta in [old, new].into_iter().flatten() {
            // Its owners may wait for it.
            let owners = meta.owner_references.iter().flatten();
            items.extend(owners.filter_map(|reference| kinds.owner(reference, pods::namespace(meta))));
        }
        let gone = old.filter(|old| new.is_none_or(|new| new.uid != old.uid));
        for meta in gone.into_iter().chain(new.filter(|new| new.deletion_timestamp.is_some())) {
            items.extend(kinds.dependents(pods::uid(meta)).into_iter().map(|(item, _)| item));
        }
        items.extend(new.map(|meta| kinds.item(kind, ObjectKey::of(meta))));
        items
    })
}

impl Reconciler for Garbage {
    type Key = Item;
    const NAME: &'static str = "garbage";

    async fn reconcile(&self, item: Item) -> Result<Next, ReconcileError> {
        let Some(meta) = self.kinds.get(item.kind).view.get(&item.key) else { return Ok(Next::Done) };
        if meta.deletion_timestamp.is_some() {
            self.release(&item, &meta).await?;
            return Ok(Next::Done);
        }
        if meta.owner_references.as_ref().is_none_or(Vec::is_empty) {
            return Ok(Next::Done);
        }
        let owners = self.look_at_owners(&item, &meta).await?;
        if owners.iter().all(|(_, owner)| *owner == Owner::Solid) {
            return Ok(Next::Done);
        }
        self.act(&item, &meta).await
    }
}

impl Garbage {
    /// Something seems to be wrong with an object's owners: decides by what the API says now.
    async fn act(&self, item: &Item, cached: &ObjectMeta) -> Result<Next, ReconcileError> {
        let Some(live) = self.read(item).await? else { return Ok(Next::Done) };
        if live.uid != cached.uid || live.deletion_timestamp.is_some() {
            // The informer will tell of it.
            return Ok(Next::Done);
        }
        let owners = self.look_at_owners(item, &live).await?;
        let dependents = self.kinds.dependents(pods::uid(&live));
        let metas: Vec<ObjectMeta> = dependents.iter().map(|(_, meta)| meta.clone()).collect();
        match decide(&live, &owners, &metas) {
            Action::Keep => {}
            Action::Drop(uids) => {
                let references = live.owner_references.clone().unwrap_or_default();
                let kept = references.into_iter().filter(|reference| !uids.contains(&reference.uid)).collect();
                self.write_owners(item, &live, kept).await?;
            }
            Action::Delete { policy, unblock } => {
                for (dependent, meta) in dependents.iter().filter(|_| unblock) {
                    self.unblock(dependent, meta, pods::uid(&live)).await?;
                }
                let preconditions =
                    Preconditions { uid: live.uid.clone(), resource_version: live.resource_version.clone() };
                let params = DeleteParams {
                    propagation_policy: Some(policy),
                    preconditions: Some(preconditions),
                    ..DeleteParams::default()
                };
                let request = Request::new(self.path(item)).delete(&item.key.name, &params);
                tracing::debug!(%item, "deleted: its owners are gone");
                self.send(request.map_err(kube::Error::BuildRequest)?).await?;
            }
        }
        Ok(Next::Done)
    }

    /// What can be said about the owners of an object.
    async fn look_at_owners(
        &self,
        item: &Item,
        meta: &ObjectMeta,
    ) -> Result<Vec<(OwnerReference, Owner)>, ReconcileError> {
        let mut owners = Vec::new();
        for reference in meta.owner_references.iter().flatten() {
            owners.push((reference.clone(), self.look_at(item, reference, meta).await?));
        }
        Ok(owners)
    }

    /// Tells of a reference from a cluster-wide object to a namespaced one.
    fn tell_invalid_owner(&self, item: &Item, reference: &OwnerReference, meta: &ObjectMeta) {
        let served = &self.kinds.get(item.kind).served;
        let version = match served.group.as_str() {
            "" => served.version.clone(),
            group => format!("{group}/{}", served.version),
        };
        let about = ObjectReference {
            api_version: Some(version),
            kind: Some(served.kind.clone()),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            ..ObjectReference::default()
        };
        let OwnerReference { api_version, kind, name, uid, .. } = reference;
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: , name: {name}, uid: {uid}] does not exist in namespace \"\""
        );
        self.context.recorder.record_for(about, EventType::Warning, "OwnerRefInvalidNamespace", &message);
    }

    async fn look_at(
        &self,
        item: &Item,
        reference: &OwnerReference,
        meta: &ObjectMeta,
    ) -> Result<Owner, ReconcileError> {
        let namespace = pods::namespace(meta);
        let Some(owner) = self.kinds.owner(reference, namespace) else {
            // Not served: perhaps not yet. Nothing is deleted because of it.
            let (version, kind) = (&reference.api_version, &reference.kind);
            return Err(ReconcileError::Object(format!("owner {} has unknown kind {version} {kind}", reference.name)));
        };
        if self.kinds.get(owner.kind).served.namespaced && namespace.is_empty() {
            // A cluster-wide object cannot be owned by a namespaced one; nothing can be concluded.
            self.tell_invalid_owner(item, reference, meta);
            return Ok(Owner::Solid);
        }
        let cached = self.kinds.get(owner.kind).view.get(&owner.key);
        if cached.is_some_and(|found| found.uid.as_ref() == Some(&reference.uid) && found.deletion_timestamp.is_none())
        {
            return Ok(Owner::Solid);
        }
        let live = self.read(&owner).await?;
        Ok(match live.filter(|live| live.uid.as_ref() == Some(&reference.uid)) {
            None => Owner::Absent,
            Some(live) if is_waiting(&live) => Owner::Waiting,
            Some(_) => Owner::Solid,
        })
    }

    /// An object that is being deleted and waits for us: lets its dependents go, or waits for them.
    async fn release(&self, item: &Item, meta: &ObjectMeta) -> Result<(), ReconcileError> {
        let dependents = self.kinds.dependents(pods::uid(meta));
        if has_finalizer(meta, ORPHAN) {
            for (dependent, owned) in &dependents {
                let references = owned.owner_references.clone().unwrap_or_default();
                let kept = references.into_iter().filter(|reference| Some(&reference.uid) != meta.uid.as_ref());
                self.write_owners(dependent, owned, kept.collect()).await?;
            }
            return self.remove_finalizer(item, meta, ORPHAN).await;
        }
        let blocks = |owned: &ObjectMeta| {
            let mut references = owned.owner_references.iter().flatten();
            references.any(|reference| {
                Some(&reference.uid) == meta.uid.as_ref() && reference.block_owner_deletion == Some(true)
            })
        };
        if is_waiting(meta) && !dependents.iter().any(|(_, owned)| blocks(owned)) {
            return self.remove_finalizer(item, meta, FOREGROUND).await;
        }
        Ok(())
    }

    fn path(&self, item: &Item) -> String {
        self.kinds.get(item.kind).served.path(&item.key.namespace)
    }

    async fn read(&self, item: &Item) -> Result<Option<ObjectMeta>, ReconcileError> {
        let request = Request::new(self.path(item)).get(&item.key.name, &GetParams::default());
        match self.context.client.request::<Meta>(request.map_err(kube::Error::BuildRequest)?).await {
            Ok(live) => Ok(Some(live.metadata)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<(), ReconcileError> {
        match self.context.client.request::<Value>(request).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn patch(&self, item: &Item, meta: &ObjectMeta, mut metadata: Value) -> Result<(), ReconcileError> {
        metadata["uid"] = json!(meta.uid);
        metadata["resourceVersion"] = json!(meta.resource_version);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let request = Request::new(self.path(item)).patch(&item.key.name, &PatchParams::default(), &patch);
        self.send(request.map_err(kube::Error::BuildRequest)?).await
    }

    async fn write_owners(
        &self,
        item: &Item,
        meta: &ObjectMeta,
        references: Vec<OwnerReference>,
    ) -> Result<(), ReconcileError> {
        self.patch(item, meta, json!({ "ownerReferences": references })).await
    }

    /// Lets the owner of this uid go before this dependent.
    async fn unblock(&self, item: &Item, meta: &ObjectMeta, owner: &str) -> Result<(), ReconcileError> {
        let mut references = meta.owner_references.clone().unwrap_or_default();
        for reference in references.iter_mut().filter(|reference| reference.uid == owner) {
            reference.block_owner_deletion = Some(false);
        }
        self.write_owners(item, meta, references).await
    }

    async fn remove_finalizer(&self, item: &Item, meta: &ObjectMeta, finalizer: &str) -> Result<(), ReconcileError> {
        let finalizers = meta.finalizers.clone().unwrap_or_default();
        let kept: Vec<String> = finalizers.into_iter().filter(|own| own != finalizer).collect();
        self.patch(item, meta, json!({ "finalizers": kept })).await
    }
}

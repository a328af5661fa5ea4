//! Gives every namespace what pods count on: the service account `default` and the cluster's CA.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use trireme_client::informer::{Informer, Meta, ObjectKey, revision_of};

use crate::pods;
use crate::runtime::{Context, Next, ReconcileError, Reconciler, Runner};

const ACCOUNT: &str = "default";
const CA: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";
const CA_DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

struct Furnisher {
    context: Context,
}

/// The loop that furnishes namespaces.
pub(crate) async fn run(context: Context) {
    let informers = context.informers.clone();
    let all = informers.namespaces.clone();
    let all = move || all.list().iter().map(|namespace| ObjectKey::of(&namespace.metadata)).collect();
    let config = context.config.clone();
    let namespace_of = |name: &'static str| {
        move |object: &Meta| -> Vec<ObjectKey> {
            let ours = pods::name(&object.metadata) == name;
            let key = ObjectKey::new("", pods::namespace(&object.metadata));
            Some(key).filter(|_| ours).into_iter().collect()
        }
    };
    Runner::new(Furnisher { context }, &config, all)
        .on(&informers.namespaces, |namespace: &Namespace| vec![ObjectKey::of(&namespace.metadata)])
        .on(&informers.service_accounts, namespace_of(ACCOUNT))
        .on(&informers.config_maps, namespace_of(CA))
        .run()
        .await;
}

impl Reconciler for Furnisher {
    type Key = ObjectKey;
    const NAME: &'static str = "serviceaccount";

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let informers = &self.context.informers;
        let Some(namespace) = informers.namespaces.get(&key) else { return Ok(Next::Done) };
        if namespace.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let metadata = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(key.name.to_string()),
            ..ObjectMeta::default()
        };
        if informers.service_accounts.find(&key.name, ACCOUNT).is_none() {
            let api: Api<ServiceAccount> = Api::namespaced(self.context.client.clone(), &key.name);
            let account = ServiceAccount { metadata: metadata(ACCOUNT), ..ServiceAccount::default() };
            let created = api.create(&PostParams::default(), &account).await;
            seen(created.map(|account| account.metadata), &informers.service_accounts).await?;
        }
        self.publish_ca(&key, metadata(CA)).await?;
        Ok(Next::Done)
    }
}

impl Furnisher {
    async fn publish_ca(&self, namespace: &ObjectKey, mut metadata: ObjectMeta) -> Result<(), ReconcileError> {
        let pem = &self.context.config.root_ca_pem;
        if pem.is_empty() {
            return Ok(());
        }
        let informer = &self.context.informers.config_maps;
        let api: Api<ConfigMap> = Api::namespaced(self.context.client.clone(), &namespace.name);
        if informer.find(&namespace.name, CA).is_none() {
            let description = ("kubernetes.io/description".to_owned(), CA_DESCRIPTION.to_owned());
            metadata.annotations = Some(BTreeMap::from([description]));
            let data = Some(BTreeMap::from([(CA_KEY.to_owned(), pem.clone())]));
            let map = ConfigMap { metadata, data, ..ConfigMap::default() };
            let created = api.create(&PostParams::default(), &map).await;
            return seen(created.map(|map| map.metadata), informer).await;
        }
        // The informer has metadata only: what somebody wrote into it is read here.
        let live = api.get_opt(CA).await?;
        if live.is_some_and(|live| live.data.and_then(|data| data.get(CA_KEY).cloned()).as_ref() != Some(pem)) {
            let patch = Patch::Merge(json!({"data": {CA_KEY: pem}}));
            let written = api.patch(CA, &PatchParams::default(), &patch).await;
            seen(written.map(|map| map.metadata), informer).await?;
        }
        Ok(())
    }
}

/// Waits until the informer shows a write. One that somebody else made first is as good.
async fn seen(written: Result<ObjectMeta, kube::Error>, informer: &Informer<Meta>) -> Result<(), ReconcileError> {
    match written {
        Ok(meta) => {
            informer.wait_for(revision_of(&meta)).await;
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("being terminated") => Ok(()),
        Err(error) => Err(error.into()),
    }
}

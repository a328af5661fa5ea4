//! Carries out decisions through the API, with the fenced client of the reign.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use trireme_client::events::{EventRecorder, EventType};

use crate::state::PodInfo;

/// How a binding ended.
#[derive(Debug)]
pub(crate) enum Bound {
    /// It is bound.
    Yes,
    /// It is not, or may not be.
    No(kube::Error),
    /// The pod is not there any more.
    Vanished,
}

/// Writes what the engine decided.
#[derive(Clone)]
pub(crate) struct Binder {
    pub(crate) client: Client,
    pub(crate) recorder: EventRecorder,
}

impl Binder {
    /// Binds a pod to a node.
    pub(crate) async fn bind(&self, pod: &PodInfo, node: &str) -> Bound {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.key.namespace);
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.key.name.to_string()),
                namespace: Some(pod.key.namespace.to_string()),
                // Another pod of the same name must not be bound in its stead.
                uid: Some(pod.uid.clone()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let params = PostParams::default();
        match api.create_subresource::<_, Value>("binding", &pod.key.name, &params, &binding).await {
            Ok(_) => {
                let message = format!("Successfully assigned {} to {node}", pod.key);
                self.recorder.record(&*pod.pod, EventType::Normal, "Scheduled", &message);
                Bound::Yes
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Bound::Vanished,
            Err(error) => Bound::No(error),
        }
    }

    /// Tells, in an event and in the pod's condition, that no node can take it.
    pub(crate) async fn explain(&self, pod: Arc<PodInfo>, message: String) {
        self.recorder.record(&*pod.pod, EventType::Warning, "FailedScheduling", &message);
        let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let known = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
        if known.is_some_and(|known| known.status == "False" && known.message.as_deref() == Some(&*message)) {
            return;
        }
        let since = known.filter(|known| known.status == "False").and_then(|known| known.last_transition_time.clone());
        let patch = json!({
            "metadata": {"uid": pod.uid},
            "status": {"conditions": [{
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
                "lastTransitionTime": since.unwrap_or(Time(Timestamp::now())),
            }]},
        });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.key.namespace);
        let written = api.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        if let Err(error) = written {
            tracing::debug!(pod = %pod.key, %error, "condition not written");
        }
    }
}

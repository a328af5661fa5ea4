//! Records Events about objects, as every component does: best effort, bounded, repeated ones counted.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

/// Whether an event tells of something ordinary or of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Ordinary.
    Normal,
    /// Trouble.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Takes events; cheap to clone, never waits.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    sender: mpsc::Sender<Record>,
}

#[derive(Debug)]
struct Record {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Writes what a recorder took. Drop it, and what is still waiting is dropped too.
pub struct EventWriter {
    client: Client,
    component: String,
    host: Option<String>,
    receiver: mpsc::Receiver<Record>,
    known: Known,
}

/// Events that may wait to be written; more are dropped.
const QUEUE: usize = 1024;
/// Events remembered so that a repetition is counted on the first one.
const REMEMBERED: usize = 1024;

impl EventRecorder {
    /// A recorder for the component of that name and the writer behind it, whose `run` must be driven.
    pub fn new(client: Client, component: &str, host: Option<&str>) -> (Self, EventWriter) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (component, host) = (component.to_owned(), host.map(str::to_owned));
        (Self { sender }, EventWriter { client, component, host, receiver, known: Known::default() })
    }

    /// Records an event about an object.
    pub fn record<K: Resource<DynamicType = ()>>(&self, about: &K, kind: EventType, reason: &str, message: &str) {
        self.record_for(about.object_ref(&()), kind, reason, message);
    }

    /// Records an event about a reference.
    pub fn record_for(&self, about: ObjectReference, kind: EventType, reason: &str, message: &str) {
        let (reason, message) = (reason.to_owned(), message.to_owned());
        let record = Record { about, kind, reason, message, at: Timestamp::now() };
        if let Err(error) = self.sender.try_send(record) {
            tracing::debug!(%error, "event dropped");
        }
    }
}

type Same = (Option<String>, Option<String>, EventType, String, String);

#[derive(Default)]
struct Known {
    events: HashMap<Same, (String, i32)>,
    order: VecDeque<Same>,
}

impl Known {
    fn of(record: &Record) -> Same {
        let about = &record.about;
        // The field path tells containers of one pod apart.
        let object = about.uid.clone().or_else(|| about.name.clone());
        (object, about.field_path.clone(), record.kind, record.reason.clone(), record.message.clone())
    }

    fn remember(&mut self, same: Same, name: String, count: i32) {
        if self.events.insert(same.clone(), (name, count)).is_none() {
            self.order.push_back(same);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.events.remove(&oldest);
        }
    }
}

impl EventWriter {
    /// Writes events until the last recorder is gone.
    pub async fn run(mut self) {
        while let Some(record) = self.receiver.recv().await {
            if let Err(error) = self.write(record).await {
                tracing::debug!(%error, "event not written");
            }
        }
    }

    async fn write(&mut self, record: Record) -> Result<(), kube::Error> {
        let namespace = record.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let same = Known::of(&record);
        if let Some((name, count)) = self.known.events.get(&same).cloned() {
            let patch = json!({ "count": count + 1, "lastTimestamp": Time(record.at) });
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {
                    self.known.remember(same, name, count + 1);
                    return Ok(());
                }
                // Expired meanwhile: begin a new one.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let event = self.event(record, namespace);
        api.create(&PostParams::default(), &event).await?;
        self.known.remember(same, event.metadata.name.unwrap_or_default(), 1);
        Ok(())
    }

    fn event(&self, record: Record, namespace: String) -> Event {
        let about = record.about;
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or(""), record.at.as_nanosecond());
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: about,
            type_: Some(record.kind.as_str().to_owned()),
            reason: Some(record.reason),
            message: Some(record.message),
            count: Some(1),
            first_timestamp: Some(Time(record.at)),
            last_timestamp: Some(Time(record.at)),
            source: Some(EventSource { component: Some(self.component.clone()), host: self.host.clone() }),
            reporting_component: Some(self.component.clone()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_a_bounded_number() {
        let mut known = Known::default();
        for n in 0..(REMEMBERED + 10) {
            let same = (Some(n.to_string()), None, EventType::Normal, String::new(), String::new());
            known.remember(same, "e".to_owned(), 1);
        }
        assert_eq!(known.events.len(), REMEMBERED);
        assert_eq!(known.order.len(), REMEMBERED);
    }
}

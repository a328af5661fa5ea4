//! The list and watch that feed a store.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::header::{ACCEPT, HeaderValue};
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::{ListMeta, Request};
use rand::Rng;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::entry::Raw;
use super::subscription::Subscription;
use super::{Object, Store};

/// What an informer lists and watches.
#[derive(Clone, Debug)]
pub struct Source {
    path: String,
    field_selector: Option<String>,
    label_selector: Option<String>,
    metadata_only: bool,
    optional: bool,
}

impl Source {
    /// A collection by its path, for example `/api/v1/pods`.
    pub fn path(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            field_selector: None,
            label_selector: None,
            metadata_only: false,
            optional: false,
        }
    }

    /// Only objects that match a field selector.
    #[must_use]
    pub fn fields(mut self, selector: &str) -> Self {
        self.field_selector = Some(selector.to_owned());
        self
    }

    /// Only objects that match a label selector.
    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        self.label_selector = Some(selector.to_owned());
        self
    }

    /// Asks for metadata only, from servers that can.
    #[must_use]
    pub fn metadata_only(mut self) -> Self {
        self.metadata_only = true;
        self
    }

    /// A server that does not serve the kind counts as one without objects: nobody waits for them.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// A store of one kind and the task that keeps it up to date. Clones share both.
pub struct Informer<K: Object> {
    store: Arc<Store<K>>,
}

impl<K: Object> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone() }
    }
}

impl<K: Object> std::ops::Deref for Informer<K> {
    type Target = Store<K>;

    fn deref(&self) -> &Store<K> {
        &self.store
    }
}

impl<K: Object> Informer<K> {
    /// Starts an informer; it runs until `shutdown`.
    pub fn start(client: &Client, source: Source, shutdown: &CancellationToken) -> Self {
        Self::start_with(client, source, false, shutdown)
    }

    /// Starts an informer whose objects are indexed by the node in `spec.nodeName`.
    pub fn start_by_node(client: &Client, source: Source, shutdown: &CancellationToken) -> Self {
        Self::start_with(client, source, true, shutdown)
    }

    fn start_with(client: &Client, source: Source, by_node: bool, shutdown: &CancellationToken) -> Self {
        let store = Arc::new(Store::new(by_node));
        let feed = Feed { client: client.clone(), source, store: store.clone(), state: State::Empty, failures: 0 };
        let shutdown = shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(feed.run()).await });
        Self { store }
    }

    /// Follows the changes; the first notice is the whole content.
    pub fn subscribe(&self) -> Subscription<K> {
        Subscription::new(self.store.clone())
    }
}

/// Where a feed stands.
enum State {
    /// Nothing known, or what is known is too old to resume from.
    Empty,
    /// Complete up to this revision.
    At(u64),
}

/// A page of a list.
#[derive(Deserialize)]
struct Page<K> {
    #[serde(default)]
    metadata: ListMeta,
    items: Option<Vec<Raw<K>>>,
}

struct Feed<K: Object> {
    client: Client,
    source: Source,
    store: Arc<Store<K>>,
    state: State,
    failures: u32,
}

const PAGE: u32 = 500;
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Until a kind that is not served is asked for again.
const UNSERVED_WAIT: Duration = Duration::from_secs(30);

impl<K: Object> Feed<K> {
    async fn run(mut self) {
        loop {
            let began = Instant::now();
            let was_watching = matches!(self.state, State::At(_));
            let result = match self.state {
                State::Empty => self.list().await,
                State::At(revision) => self.watch(revision).await,
            };
            match result {
                // A server that ends watches at once must not be asked again in a tight loop.
                Ok(()) if was_watching && began.elapsed() < SHORTEST_WAIT => self.pause().await,
                Ok(()) => {}
                Err(error) if is_expired(&error) => {
                    tracing::info!(path = self.source.path, "watch too old to resume: listing again");
                    // A second "expired" in a row waits like any other failure.
                    self.state = State::Empty;
                    if !was_watching {
                        self.pause().await;
                    }
                }
                Err(error) if self.source.optional && is_unserved(&error) => {
                    self.store.advance(u64::MAX);
                    tokio::time::sleep(UNSERVED_WAIT).await;
                }
                Err(error) => {
                    tracing::debug!(path = self.source.path, %error, "list or watch failed");
                    self.pause().await;
                }
            }
        }
    }

    async fn pause(&mut self) {
        let longest = backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
        let jittered = longest.mul_f64(rand::rng().random_range(0.5..=1.0));
        tokio::time::sleep(jittered).await;
    }

    async fn list(&mut self) -> Result<(), kube::Error> {
        let mut objects = Vec::new();
        let mut params = ListParams {
            field_selector: self.source.field_selector.clone(),
            label_selector: self.source.label_selector.clone(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        let revision = loop {
            let request = Request::new(&self.source.path).list(&params).map_err(kube::Error::BuildRequest)?;
            let page: Page<K> = self.client.request(self.accepting(request, "PartialObjectMetadataList")).await?;
            objects.extend(page.items.into_iter().flatten());
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break page.metadata.resource_version.and_then(|v| v.parse().ok()).unwrap_or(0),
            }
        };
        self.store.replace(objects, revision);
        self.state = State::At(revision);
        Ok(())
    }

    async fn watch(&mut self, from: u64) -> Result<(), kube::Error> {
        // Spread over time, so that watches which began together do not end together.
        let seconds = rand::rng().random_range(200..=290);
        let params = WatchParams {
            field_selector: self.source.field_selector.clone(),
            label_selector: self.source.label_selector.clone(),
            timeout: Some(seconds),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = Request::new(&self.source.path).watch(&params, &from.to_string());
        let request = self.accepting(request.map_err(kube::Error::BuildRequest)?, "PartialObjectMetadata");
        let events = events::<K>(&self.client, request).await?;
        futures::pin_mut!(events);
        let deadline = Instant::now() + Duration::from_secs(u64::from(seconds) + 15);
        while let Ok(Some(event)) = tokio::time::timeout_at(deadline, events.next()).await {
            self.take(event?)?;
            self.failures = 0;
        }
        Ok(())
    }

    fn take(&mut self, event: WatchEvent<Raw<K>>) -> Result<(), kube::Error> {
        let revision = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let revision = object.revision();
                self.store.upsert(object);
                revision
            }
            WatchEvent::Deleted(object) => {
                self.store.delete(&object);
                object.revision()
            }
            WatchEvent::Bookmark(bookmark) => {
                let revision = bookmark.metadata.resource_version.parse().unwrap_or(0);
                self.store.advance(revision);
                revision
            }
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        };
        if let State::At(last) = &mut self.state {
            *last = (*last).max(revision);
        }
        Ok(())
    }

    /// Asks for metadata only where that is enough; full objects are understood too.
    fn accepting(&self, mut request: http::Request<Vec<u8>>, kind: &str) -> http::Request<Vec<u8>> {
        // They would be thrown away as soon as they are read.
        request.headers_mut().insert(trireme_api::apply::OMIT_HEADER, HeaderValue::from_static("true"));
        if self.source.metadata_only {
            let accept = format!("application/json;as={kind};g=meta.k8s.io;v=v1, application/json");
            if let Ok(value) = HeaderValue::from_str(&accept) {
                request.headers_mut().insert(ACCEPT, value);
            }
        }
        request
    }
}

async fn events<K: Object>(
    client: &Client,
    request: http::Request<Vec<u8>>,
) -> Result<impl futures::Stream<Item = Result<WatchEvent<Raw<K>>, kube::Error>> + use<K>, kube::Error> {
    client.request_events::<Raw<K>>(request).await
}

fn is_expired(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410)
}

fn is_unserved(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The longest wait after this many failures in a row.
fn backoff(failures: u32) -> Duration {
    SHORTEST_WAIT.saturating_mul(1 << failures.min(10)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests;

//! watch: a stream of changes from a revision on, from the cache's window or, further back, from the store's history.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use rand::Rng;
use serde_json::json;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, Sleep};
use tokio_stream::wrappers::ReceiverStream;
use trireme_api::status::Status;
use trireme_raftstore::{Event, KeyRange, StoreError, Watch, WatchRequest};

use super::ctx::Ctx;
use super::encode;
use super::filter::Filter;
use super::read::{not_older_than, revision_parameter};
use super::walk::Walk;
use crate::error::{ApiResult, corrupt, store_status};
use crate::request::accept::{Encoding, Shape};
use crate::storage::cache::{Signal, Subscription};
use crate::storage::object::{Change, EventType, Form, Object, json_frame};

/// Frames that wait for a client; a client that takes none for [`STALL`] is cut.
const FRAMES: usize = 128;
const STALL: Duration = Duration::from_secs(60);
/// Changes that are sent before a watcher looks at anything else.
const AT_ONCE: usize = 64;

/// Why a watch ends; the client resumes or, after an error event, lists anew.
enum End {
    /// The client went away.
    Gone,
    /// Time is up, or the client has to resume.
    Quiet,
    /// Told to the client as an ERROR event.
    Error(Box<Status>),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Error(Box::new(status))
    }
}

/// GET with `watch`.
pub(crate) async fn watch(ctx: Ctx) -> ApiResult<Response<Body>> {
    let filter = Filter::of(&ctx)?;
    if ctx.accept.encoding == Encoding::Yaml {
        return Err(Status::not_acceptable(&["application/json"]));
    }
    let bookmarks = ctx.query.flag("allowWatchBookmarks");
    let initial = ctx.query.option_flag("sendInitialEvents");
    let revision = revision_parameter(&ctx)?;
    match revision {
        None => drop(ctx.server.barrier().await?),
        Some(0) => not_older_than(&ctx, 0).await?,
        Some(revision) if initial == Some(true) => not_older_than(&ctx, revision).await?,
        Some(_) => {}
    }
    let deadline = Instant::now() + timeout(&ctx)?;
    let (sender, receiver) = mpsc::channel(FRAMES);
    let mut watcher = Watcher { ctx, filter, sender, bookmarks, deadline, sent: 0, header_row: true };
    let start = match (revision, initial) {
        (_, Some(true)) => Start::Snapshot { announce_end: true },
        (Some(revision), _) if revision > 0 => Start::After(revision),
        (_, Some(false)) => Start::Now,
        _ => Start::Snapshot { announce_end: false },
    };
    tokio::spawn(async move {
        if let Err(End::Error(status)) = watcher.run(start).await {
            let _ = watcher.send(error_frame(&status)).await;
        }
    });
    let stream = ReceiverStream::new(receiver).map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

fn timeout(ctx: &Ctx) -> ApiResult<Duration> {
    let asked = ctx.query.integer("timeoutSeconds").map_err(Status::bad_request)?;
    Ok(match asked {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds as u64),
        // Spread, so that not all clients come back at once.
        _ => Duration::from_secs(rand::rng().random_range(1800..3600)),
    })
}

enum Start {
    /// Synthetic ADDED events for what there is, then the changes.
    Snapshot { announce_end: bool },
    /// The changes from now on.
    Now,
    /// The changes after a revision.
    After(u64),
}

struct Watcher {
    ctx: Ctx,
    filter: Filter,
    sender: mpsc::Sender<Bytes>,
    bookmarks: bool,
    deadline: Instant,
    /// Revision of the last event or bookmark sent.
    sent: u64,
    /// Whether the next table frame has to define the columns.
    header_row: bool,
}

impl Watcher {
    async fn run(&mut self, start: Start) -> Result<(), End> {
        let mut signals = match start {
            Start::Snapshot { announce_end } => {
                let mut walk = Walk::newest(&self.ctx, &self.filter, "");
                let revision = walk.revision();
                while let Some(object) = walk.next().await? {
                    let frame = self.object_frame(EventType::Added, &object, object.revision)?;
                    self.send(frame).await?;
                }
                self.sent = revision;
                if announce_end && self.bookmarks {
                    self.bookmark(revision, true).await?;
                }
                self.caught_up(revision).await?
            }
            Start::Now => {
                self.sent = self.ctx.cache.newest(self.ctx.server.inner.feed.revision());
                self.caught_up(self.sent).await?
            }
            Start::After(revision) => {
                self.sent = revision;
                let mut signals = self.resume(revision).await?;
                // A bookmark that was pushed while the client was away would otherwise be missed.
                self.progress(&mut signals).await?;
                signals
            }
        };
        self.live(&mut signals).await
    }

    /// The subscription to what follows a revision that was current when this watch began. What was pushed meanwhile,
    /// such as a bookmark for a new fence, must not be missed.
    async fn caught_up(&mut self, revision: u64) -> Result<broadcast::Receiver<Signal>, End> {
        let mut signals = self.resume(revision).await?;
        if self.ctx.server.inner.feed.revision() > revision {
            self.progress(&mut signals).await?;
        }
        Ok(signals)
    }

    /// Sends what was missed and returns the subscription to what follows.
    async fn resume(&mut self, after: u64) -> Result<broadcast::Receiver<Signal>, End> {
        let feed = self.ctx.server.inner.feed.clone();
        if feed.wait(1, STALL).await.is_err() {
            return Err(Status::too_many_requests("storage is (re)initializing", 1).into());
        }
        let mut reached = after;
        loop {
            match self.ctx.cache.subscribe(reached) {
                Subscription::Live { missed, signals } => {
                    for change in missed {
                        self.change(&change).await?;
                    }
                    return Ok(signals);
                }
                Subscription::TooOld { floor } => reached = self.replay(reached, floor).await?,
            }
        }
    }

    /// Sends the store's history after a revision until the cache's window covers the rest.
    async fn replay(&mut self, after: u64, floor: u64) -> Result<u64, End> {
        let request = WatchRequest {
            range: KeyRange::Prefix(Bytes::copy_from_slice(self.ctx.cache.prefix.as_bytes())),
            start_revision: Some(after + 1),
        };
        let store_end = |error: StoreError| match error {
            StoreError::Compacted { requested, compacted } => {
                End::from(Status::expired(format!("too old resource version: {} ({compacted})", requested - 1)))
            }
            StoreError::SlowWatcher(_) => End::Quiet,
            other => End::from(store_status(&other)),
        };
        let mut history: Watch = self.ctx.server.inner.store.watch(request).await.map_err(store_end)?;
        let mut reached = after;
        while reached < floor {
            let batch = tokio::select! {
                batch = history.next() => batch,
                () = self.sender.closed() => return Err(End::Gone),
                () = tokio::time::sleep(STALL) => return Err(End::Quiet),
            };
            let Some(batch) = batch else { return Err(End::Quiet) };
            let batch = batch.map_err(store_end)?;
            for event in &batch.events {
                let change = self.read(event)?;
                self.change(&change).await?;
            }
            reached = reached.max(batch.revision);
        }
        Ok(reached)
    }

    fn read(&self, event: &Event) -> Result<Change, End> {
        let cache = &self.ctx.cache;
        let key = String::from_utf8_lossy(&event.kv.key[cache.prefix.len()..]).into_owned();
        let read = |kv: &trireme_raftstore::KeyValue| {
            Object::read(cache, Arc::from(key.as_str()), &kv.value, kv.mod_revision)
                .map(Arc::new)
                .map_err(|e| End::from(corrupt(e)))
        };
        let new = if event.deleted { None } else { Some(read(&event.kv)?) };
        let old = event.previous.as_ref().map(read).transpose()?;
        if old.is_none() && (event.deleted || event.kv.version > 1) {
            // What was there before is compacted: nobody can say whether it was selected.
            return Err(Status::expired("too old resource version: the state before it is compacted").into());
        }
        Ok(Change::new(event.kv.mod_revision, new, old))
    }

    async fn live(&mut self, signals: &mut broadcast::Receiver<Signal>) -> Result<(), End> {
        let (sender, stopping) = (self.sender.clone(), self.ctx.server.inner.stopping.clone());
        let interval = self.ctx.server.inner.config.bookmark_interval;
        let next: Sleep = tokio::time::sleep(interval);
        let deadline = tokio::time::sleep_until(self.deadline);
        // Made once: thousands of watchers that join and leave the same queue at each change would wait for each other.
        let (gone, stopped) = (sender.closed(), stopping.cancelled());
        tokio::pin!(next, deadline, gone, stopped);
        loop {
            tokio::select! {
                signal = signals.recv() => {
                    self.signal(signal).await?;
                    self.queued(signals, AT_ONCE).await?;
                }
                () = &mut gone => return Err(End::Gone),
                () = &mut stopped => return Err(End::Quiet),
                () = &mut deadline => {
                    self.progress(signals).await?;
                    return Err(End::Quiet);
                }
                () = &mut next => {
                    self.progress(signals).await?;
                    next.as_mut().reset(Instant::now() + interval);
                }
            }
        }
    }

    /// Sends what is queued, but no more than so many changes.
    async fn queued(&mut self, signals: &mut broadcast::Receiver<Signal>, most: usize) -> Result<(), End> {
        for _ in 0..most {
            match signals.try_recv() {
                Ok(signal) => self.signal(Ok(signal)).await?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => self.signal(Err(RecvError::Closed)).await?,
                Err(TryRecvError::Lagged(by)) => self.signal(Err(RecvError::Lagged(by))).await?,
            }
        }
        Ok(())
    }

    async fn signal(&mut self, signal: Result<Signal, RecvError>) -> Result<(), End> {
        match signal {
            Ok(Signal::Change(change)) => self.change(&change).await,
            Ok(Signal::Bookmark(revision)) => self.bookmark(revision, false).await,
            Ok(Signal::Cut) | Err(RecvError::Closed) => Err(End::Quiet),
            Err(RecvError::Lagged(_)) => {
                self.ctx.server.inner.metrics.slow_watchers.inc();
                Err(End::Quiet)
            }
        }
    }

    /// A bookmark for everything up to now, after what is still queued before it.
    async fn progress(&mut self, signals: &mut broadcast::Receiver<Signal>) -> Result<(), End> {
        let revision = self.ctx.server.inner.feed.revision();
        self.queued(signals, usize::MAX).await?;
        self.bookmark(revision, false).await
    }

    /// Translates a change into what the selection sees of it.
    async fn change(&mut self, change: &Change) -> Result<(), End> {
        if change.revision <= self.sent {
            return Ok(());
        }
        let selected = |o: &Option<Arc<Object>>| o.as_ref().is_some_and(|o| self.filter.matches(o));
        let kind = match (selected(&change.old), selected(&change.new)) {
            (false, false) => return Ok(()),
            (false, true) => EventType::Added,
            (true, true) => EventType::Modified,
            (true, false) => EventType::Deleted,
        };
        let frame = match self.form() {
            // One for all who watch in this form.
            Some(form) => change.frame(kind, form).map_err(corrupt)?,
            None => {
                let Some(object) = change.shown(kind) else { return Ok(()) };
                self.object_frame(kind, object, change.revision)?
            }
        };
        self.sent = change.revision;
        self.send(frame).await
    }

    /// The form of frames that are copied from what is stored, without being parsed.
    fn form(&self) -> Option<Form> {
        let accept = &self.ctx.accept;
        let copied = matches!(accept.shape, Shape::Native | Shape::Metadata) && !self.ctx.resource.converts();
        copied.then_some(Form { metadata: accept.shape == Shape::Metadata, managers: accept.managers })
    }

    fn object_frame(&mut self, kind: EventType, object: &Object, revision: u64) -> Result<Bytes, End> {
        if let Some(form) = self.form() {
            return Ok(json_frame(kind, &object.stored, revision, form).map_err(corrupt)?);
        }
        let ctx = &self.ctx;
        let mut value = ctx.served(object)?;
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        let shown = match ctx.accept.shape {
            Shape::Table => {
                let first = std::mem::replace(&mut self.header_row, false);
                let mut meta = serde_json::Map::new();
                meta.insert("resourceVersion".into(), revision.to_string().into());
                encode::rows(ctx, &[value], meta, first)?
            }
            _ => encode::shaped(ctx, value)?,
        };
        Ok(Bytes::from(format!("{}\n", json!({"type": kind.text(), "object": shown}))))
    }

    async fn bookmark(&mut self, revision: u64, initial_end: bool) -> Result<(), End> {
        if !self.bookmarks || revision < self.sent {
            return Ok(());
        }
        self.sent = revision;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let resource = &self.ctx.resource;
        let object = json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata});
        let object = match self.ctx.accept.shape {
            Shape::Native => object,
            _ => encode::shaped(&self.ctx, object)?,
        };
        self.send(Bytes::from(format!("{}\n", json!({"type": "BOOKMARK", "object": object})))).await
    }

    async fn send(&self, frame: Bytes) -> Result<(), End> {
        let frame = match self.sender.try_send(frame) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(End::Gone),
            Err(TrySendError::Full(frame)) => frame,
        };
        match tokio::time::timeout(STALL, self.sender.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => {
                self.ctx.server.inner.metrics.slow_watchers.inc();
                Err(End::Gone)
            }
        }
    }
}

fn error_frame(status: &Status) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status.to_value()})))
}

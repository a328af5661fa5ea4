//! The loop of one controller: notices of informers become keys, keys are worked off in parallel.

use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{SelectAll, StreamExt};
use futures::{FutureExt, Stream};
use rand::Rng;
use tokio::task::JoinSet;
use trireme_client::informer::{Change, Informer, Notice, Object};

use super::queue::{KeyQueue, Outcome};
use super::{ReconcileError, is_conflict, is_in_vain};
use crate::Config;
use crate::metrics::QueueMetrics;

/// What a successful reconciliation asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing until something changes.
    Done,
    /// To be looked at again after this time.
    After(Duration),
}

/// Brings the world in line with one object, knowing nothing but its key.
pub(crate) trait Reconciler: Send + Sync + 'static {
    /// What names an object.
    type Key: Clone + Eq + Hash + Display + Send + Sync + 'static;

    /// For logs.
    const NAME: &'static str;

    /// Reconciles. Dropped at any await when the reign ends.
    fn reconcile(&self, key: Self::Key) -> impl Future<Output = Result<Next, ReconcileError>> + Send;
}

type Keys<K> = Pin<Box<dyn Stream<Item = Vec<K>> + Send>>;
type AllKeys<K> = Box<dyn Fn() -> Vec<K> + Send>;

/// One closed set of things that can happen to the loop.
enum Event<K> {
    Keys(Vec<K>),
    Finished(K, Outcome),
    Due,
    Resync,
}

/// The loop of one controller.
pub(crate) struct Runner<R: Reconciler> {
    reconciler: Arc<R>,
    concurrency: usize,
    resync: Duration,
    all: AllKeys<R::Key>,
    sources: SelectAll<Keys<R::Key>>,
    queue: KeyQueue<R::Key>,
    workers: JoinSet<(R::Key, Outcome)>,
    metrics: QueueMetrics,
}

impl<R: Reconciler> Runner<R> {
    /// A loop for this reconciler. `all` gives the keys of everything it is responsible for.
    pub(crate) fn new(reconciler: R, config: &Config, all: impl Fn() -> Vec<R::Key> + Send + 'static) -> Self {
        Self {
            reconciler: Arc::new(reconciler),
            concurrency: config.concurrency,
            resync: config.resync_period,
            all: Box::new(all),
            sources: SelectAll::new(),
            queue: KeyQueue::default(),
            workers: JoinSet::new(),
            metrics: config.metrics.queue(R::NAME),
        }
    }

    /// Follows an informer: `keys` tells which keys an object, as it was and as it is, concerns.
    pub(crate) fn on<K: Object>(
        self,
        informer: &Informer<K>,
        keys: impl Fn(&K) -> Vec<R::Key> + Send + 'static,
    ) -> Self {
        self.on_change(informer, move |old, new| old.into_iter().chain(new).flat_map(&keys).collect())
    }

    /// Follows an informer: `keys` tells which keys a change from one object to the other concerns. When everything
    /// is new, each object counts as created.
    pub(crate) fn on_change<K: Object>(
        mut self,
        informer: &Informer<K>,
        keys: impl Fn(Option<&K>, Option<&K>) -> Vec<R::Key> + Send + 'static,
    ) -> Self {
        let notices = informer.subscribe().into_stream();
        self.sources.push(Box::pin(notices.map(move |notice| match notice {
            Notice::Change(Change { old, new }) => keys(old.as_deref(), new.as_deref()),
            Notice::Resync(all) => all.iter().flat_map(|object| keys(None, Some(object))).collect(),
        })));
        self
    }

    /// Works until dropped.
    pub(crate) async fn run(mut self) {
        let mut resync = tokio::time::interval(self.resync);
        loop {
            let event = self.event(&mut resync).await;
            let now = Instant::now();
            match event {
                Event::Keys(keys) => self.add(keys, now),
                Event::Finished(key, outcome) => {
                    if outcome == Outcome::Failed {
                        self.metrics.retries.inc();
                    }
                    self.queue.finish(key, outcome, now, rand::rng().random());
                }
                Event::Due => {}
                Event::Resync => self.add((self.all)(), now),
            }
            self.queue.tick(now);
            self.dispatch();
            self.metrics.depth.set(self.queue.depth() as i64);
        }
    }

    fn add(&mut self, keys: Vec<R::Key>, now: Instant) {
        self.metrics.adds.inc_by(keys.len() as u64);
        keys.into_iter().for_each(|key| self.queue.add(key, now));
    }

    async fn event(&mut self, resync: &mut tokio::time::Interval) -> Event<R::Key> {
        let due = self.queue.next_due();
        let due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(keys) = self.sources.next() => Event::Keys(keys),
            Some(joined) = self.workers.join_next() => match joined {
                Ok((key, outcome)) => Event::Finished(key, outcome),
                // Workers catch panics themselves and are aborted only together with the loop.
                Err(_) => Event::Due,
            },
            () = due => Event::Due,
            _ = resync.tick() => Event::Resync,
        }
    }

    fn dispatch(&mut self) {
        while self.workers.len() < self.concurrency {
            let Some((key, since)) = self.queue.next() else { return };
            self.metrics.waited.observe(since.elapsed().as_secs_f64());
            let (reconciler, worked) = (self.reconciler.clone(), self.metrics.worked.clone());
            self.workers.spawn(async move {
                let begun = Instant::now();
                let work = std::panic::AssertUnwindSafe(reconciler.reconcile(key.clone())).catch_unwind();
                let outcome = match work.await {
                    Ok(result) => outcome::<R>(&key, result),
                    Err(_) => {
                        tracing::error!(controller = R::NAME, %key, "reconciliation panicked");
                        Outcome::Failed
                    }
                };
                worked.observe(begun.elapsed().as_secs_f64());
                (key, outcome)
            });
        }
    }
}

fn outcome<R: Reconciler>(key: &R::Key, result: Result<Next, ReconcileError>) -> Outcome {
    match result {
        Ok(Next::Done) => Outcome::Done,
        Ok(Next::After(wait)) => Outcome::After(wait),
        Err(ReconcileError::Api(error)) if is_conflict(&error) => {
            tracing::debug!(controller = R::NAME, %key, %error, "changed meanwhile: trying again");
            Outcome::Failed
        }
        Err(ReconcileError::Api(error)) if is_in_vain(&error) => {
            tracing::debug!(controller = R::NAME, %key, %error, "nothing is created here any more");
            Outcome::Done
        }
        Err(error) => {
            tracing::warn!(controller = R::NAME, %key, %error, "reconciliation failed: trying again");
            Outcome::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    struct Nothing;

    impl Reconciler for Nothing {
        type Key = String;
        const NAME: &'static str = "nothing";

        async fn reconcile(&self, _: String) -> Result<Next, ReconcileError> {
            Ok(Next::Done)
        }
    }

    #[test]
    fn what_a_terminating_namespace_refuses_is_not_tried_again() {
        let ended = |causes: Value| {
            let status = json!({"status": "Failure", "message": "m", "reason": "Forbidden", "code": 403,
                "details": {"causes": causes}});
            let error = kube::Error::Api(serde_json::from_value(status).unwrap());
            outcome::<Nothing>(&"k".to_owned(), Err(error.into()))
        };
        assert_eq!(ended(json!([{"reason": "NamespaceTerminating"}])), Outcome::Done);
        assert_eq!(ended(json!([])), Outcome::Failed);
    }
}

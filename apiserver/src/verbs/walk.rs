//! What a list or the beginning of a watch shows: the selected objects of a kind at one revision, one after the other, in
//! bounded memory however many there are.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use trireme_raftstore::{Consistency, KeyRange, RangeRequest, RangeStream, Revision};

use super::ctx::Ctx;
use super::filter::Filter;
use crate::error::{ApiResult, corrupt, store_status};
use crate::server::ApiServer;
use crate::storage::cache::KindCache;
use crate::storage::cache::page::{PageBound, after};
use crate::storage::keys;
use crate::storage::object::Object;

/// The cache waits with changes while a page is taken.
const PAGE: PageBound = PageBound { looks: 2_000, objects: 256 };

/// Where objects come from.
enum Source {
    /// From the cache, from this key on.
    Cache(String),
    /// From the store's history: the window of the cache does not reach back far enough.
    History(Box<RangeStream>),
    /// From nowhere any more.
    Ended,
}

/// A walk through the objects.
pub(crate) struct Walk {
    server: ApiServer,
    cache: Arc<KindCache>,
    filter: Filter,
    revision: Revision,
    source: Source,
    ready: VecDeque<Arc<Object>>,
}

impl Walk {
    /// Through the newest state that the cache has, from a key on.
    pub(crate) fn newest(ctx: &Ctx, filter: &Filter, from: &str) -> Self {
        let revision = ctx.cache.newest(ctx.server.inner.feed.revision());
        Self::new(ctx, filter, revision, Source::Cache(from.to_owned()))
    }

    /// Through the state at a revision, which may be compacted or not have happened yet.
    pub(crate) fn at(ctx: &Ctx, filter: &Filter, revision: Revision, from: &str) -> Self {
        let server = &ctx.server.inner;
        // What is compacted is gone, also where the cache happens to know it still.
        let known = revision <= server.feed.revision() && revision >= server.store.status().compacted;
        let source = match known && ctx.cache.reaches(revision) {
            true => Source::Cache(from.to_owned()),
            false => Source::History(history(&ctx.server, &ctx.cache, filter, revision, from)),
        };
        Self::new(ctx, filter, revision, source)
    }

    fn new(ctx: &Ctx, filter: &Filter, revision: Revision, source: Source) -> Self {
        Self {
            server: ctx.server.clone(),
            cache: ctx.cache.clone(),
            filter: filter.clone(),
            revision,
            source,
            ready: VecDeque::new(),
        }
    }

    /// The revision that is shown.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Another walk the same way, from a key on.
    pub(crate) fn again(&self, from: &str) -> Self {
        let source = match self.source {
            Source::History(_) => {
                Source::History(history(&self.server, &self.cache, &self.filter, self.revision, from))
            }
            _ => Source::Cache(from.to_owned()),
        };
        Self {
            server: self.server.clone(),
            cache: self.cache.clone(),
            filter: self.filter.clone(),
            revision: self.revision,
            source,
            ready: VecDeque::new(),
        }
    }

    /// The next object; `None` after the last. Nothing follows an error.
    pub(crate) async fn next(&mut self) -> ApiResult<Option<Arc<Object>>> {
        while self.ready.is_empty() {
            match &mut self.source {
                Source::Ended => return Ok(None),
                Source::Cache(from) => {
                    let from = std::mem::take(from);
                    self.read_cache(from).await;
                }
                Source::History(_) => self.read_history().await?,
            }
        }
        Ok(self.ready.pop_front())
    }

    async fn read_cache(&mut self, from: String) {
        let keep = |object: &Object| self.filter.selected(object);
        let Some(page) = self.cache.page(&self.filter.part, self.revision, &from, PAGE, keep) else {
            // Changes have come faster than this walk went on.
            self.source = Source::History(history(&self.server, &self.cache, &self.filter, self.revision, &from));
            return;
        };
        self.ready.extend(page.objects);
        self.source = page.next.map_or(Source::Ended, Source::Cache);
        // Others want to be served too.
        tokio::task::yield_now().await;
    }

    async fn read_history(&mut self) -> ApiResult<()> {
        let Source::History(stream) = &mut self.source else { return Ok(()) };
        let piece = match stream.next().await {
            None => {
                self.source = Source::Ended;
                return Ok(());
            }
            Some(Ok(piece)) => piece,
            Some(Err(error)) => {
                self.source = Source::Ended;
                return Err(store_status(&error));
            }
        };
        for kv in &piece.kvs {
            let suffix = String::from_utf8_lossy(&kv.key[self.cache.prefix.len()..]);
            let object = Object::read(&self.cache, Arc::from(&*suffix), &kv.value, kv.mod_revision);
            let object = object.map_err(corrupt)?;
            if self.filter.matches(&object) {
                self.ready.push_back(Arc::new(object));
            }
        }
        Ok(())
    }

    /// How many objects there are after a key, selected or not.
    pub(crate) async fn rest(&self, key: &str) -> ApiResult<u64> {
        let from = after(key);
        if !matches!(self.source, Source::History(_))
            && let Some(count) = self.cache.count(&self.filter.part, self.revision, &from)
        {
            return Ok(count);
        }
        let request = request(&self.cache, &self.filter, self.revision, &from, 1, true);
        let page = self.server.inner.store.range(request).await.map_err(|e| store_status(&e))?;
        Ok(page.count)
    }
}

fn history(server: &ApiServer, cache: &KindCache, filter: &Filter, revision: Revision, from: &str) -> Box<RangeStream> {
    Box::new(server.inner.store.stream(request(cache, filter, revision, from, 0, false)))
}

fn request(
    cache: &KindCache,
    filter: &Filter,
    revision: Revision,
    from: &str,
    limit: usize,
    keys_only: bool,
) -> RangeRequest {
    let scope = match &filter.part.namespace {
        Some(namespace) => format!("{}{namespace}/", cache.prefix),
        None => cache.prefix.clone(),
    };
    let end = keys::prefix_end(scope.as_bytes());
    let start = Bytes::from(scope).max(cache.store_key(from)).min(end.clone());
    RangeRequest {
        range: KeyRange::Range { start, end },
        revision: Some(revision),
        limit,
        consistency: Consistency::Linearizable,
        keys_only,
    }
}

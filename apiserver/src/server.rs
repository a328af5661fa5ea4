//! The handle on an API server and what its parts share.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use trireme_api::catalogue::Catalogue;
use trireme_api::status::Status;
use trireme_raftstore::{Revision, Store, StoreError};

use crate::audit::Audit;
use crate::bootstrap::Announced;
use crate::config::{Cidr, Config};
use crate::error::{ApiResult, ServerError, store_status};
use crate::fence::{self, Fence};
use crate::identity::{Caller, UserInfo};
use crate::in_process::InProcess;
use crate::metrics::Metrics;
use crate::nonresource::documents::Documents;
use crate::pki::Pki;
use crate::storage::cache::WindowBound;
use crate::storage::feed::Feed;
use crate::tokens::Tokens;

/// An API server. Cloning it is cheap; all clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) pki: Pki,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) service_cidr: Cidr,
    pub(crate) tokens: Tokens,
    pub(crate) metrics: Metrics,
    pub(crate) audit: Arc<Audit>,
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) long_running: Arc<Semaphore>,
    pub(crate) documents: Documents,
    /// TLS towards node agents.
    pub(crate) agent_tls: ArcSwap<rustls::ClientConfig>,
    /// TLS of this server.
    pub(crate) server_tls: ArcSwap<rustls::ServerConfig>,
    /// Cancelled when the server begins to shut down: watches end, readyz fails.
    pub(crate) stopping: CancellationToken,
    /// Which masters are endpoints of the service `kubernetes`.
    pub(crate) announced: Mutex<Announced>,
    _feed: DropGuard,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("advertise_url", &self.inner.config.advertise_url).finish_non_exhaustive()
    }
}

/// How long a read waits for this master's caches to catch up.
const CATCH_UP: Duration = Duration::from_secs(5);

impl ApiServer {
    /// Builds a server over a store and begins to fill its caches. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// When the configuration or the keys cannot work.
    pub fn new(config: Config, store: Store, pki: Pki) -> Result<Self, ServerError> {
        config.validate()?;
        let chosen = Catalogue::chosen(&config.runtime_config);
        let catalogue = chosen.map_err(|e| ServerError::Config(format!("runtime-config: {e}")))?;
        let window = WindowBound { events: config.limits.window_events, bytes: config.limits.window_bytes };
        let feed = Arc::new(Feed::new(&catalogue, window, config.limits.watcher_backlog));
        let stop = CancellationToken::new();
        tokio::spawn(feed.clone().run(store.clone(), stop.clone()));
        let agent_tls = pki.kubelet_client_config().map_err(|e| ServerError::Tls(e.to_string()))?;
        let audit = Audit::open(config.audit.as_ref())?;
        let metrics = Metrics::new(&store, &feed, &audit);
        let server_tls = pki.server_config().map_err(|e| ServerError::Tls(e.to_string()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                service_cidr: config.service_cidr.parse()?,
                tokens: Tokens::new(&config, pki.service_account_key_pem())?,
                in_flight: Arc::new(Semaphore::new(config.limits.in_flight)),
                long_running: Arc::new(Semaphore::new(config.limits.long_running)),
                config,
                store,
                pki,
                catalogue,
                feed,
                metrics,
                audit,
                documents: Documents::default(),
                agent_tls: ArcSwap::from(agent_tls),
                server_tls: ArcSwap::from(server_tls),
                stopping: CancellationToken::new(),
                announced: Mutex::default(),
                _feed: stop.drop_guard(),
            }),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The store below.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The cluster's keys.
    pub fn pki(&self) -> &Pki {
        &self.inner.pki
    }

    /// Shows the certificates that the key folder holds now; connections that are open stay.
    ///
    /// # Errors
    /// When they cannot be used; the old ones then stay in use.
    pub fn reload_certificates(&self) -> Result<(), ServerError> {
        let unusable = |e: crate::pki::PkiError| ServerError::Tls(e.to_string());
        let server = self.inner.pki.server_config().map_err(unusable)?;
        let agents = self.inner.pki.kubelet_client_config().map_err(unusable)?;
        self.inner.server_tls.store(server);
        self.inner.agent_tls.store(agents);
        Ok(())
    }

    /// Serves TLS connections from a bound listener until `shutdown` is cancelled, then lets requests in work finish.
    ///
    /// # Errors
    /// When the TLS configuration is unusable.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServerError> {
        crate::listener::serve(self.clone(), listener, shutdown).await
    }

    /// The same request pipeline for a component of this process, as a service for `kube::Client::new`. Identity and
    /// fence are fixed here; nothing in a request can change them.
    pub fn in_process(&self, identity: UserInfo, fence: Option<Fence>) -> InProcess {
        InProcess::new(self.clone(), Caller { user: identity, fence })
    }

    /// Begins a reign: from here on, everything that carries an older fence fails.
    ///
    /// # Errors
    /// When the store has no quorum.
    pub async fn acquire_fence(&self) -> Result<Fence, ServerError> {
        let holder = &self.inner.config.advertise_url;
        let fence = fence::acquire(&self.inner.store, holder).await?;
        self.inner.audit.fence(holder, fence);
        Ok(fence)
    }

    /// Creates what every cluster has: the system namespaces, the service `kubernetes` and its endpoints. Idempotent;
    /// run by the leader under its fence, also after each change of membership; without a fence only where a cluster is founded.
    ///
    /// # Errors
    /// When the store has no quorum or refuses.
    pub async fn bootstrap(&self, fence: Option<Fence>) -> Result<(), ServerError> {
        crate::bootstrap::run(self, fence).await
    }

    /// Brings the endpoints of the service `kubernetes` in line with which masters are well. Run by the leader under its
    /// fence, often.
    ///
    /// # Errors
    /// When the store has no quorum or refuses.
    pub async fn announce_masters(&self, fence: Fence) -> Result<(), ServerError> {
        crate::bootstrap::announce(self, Some(fence)).await
    }

    /// Lets another part of this process tell its metrics under `/metrics` too.
    pub fn add_metrics(&self, register: impl FnOnce(&mut Registry)) {
        self.inner.metrics.add(register);
    }

    /// Waits until this master's caches are loaded for the first time.
    pub async fn wait_synced(&self) {
        while self.inner.feed.wait(1, Duration::from_secs(60)).await.is_err() {}
    }

    /// A revision at least as new as everything acknowledged before the call, reached by the caches.
    pub(crate) async fn barrier(&self) -> ApiResult<Revision> {
        let revision = self.inner.store.linearizable_revision().await.map_err(|error| {
            let mut status = store_status(&error);
            if matches!(error, StoreError::Unavailable { .. }) {
                status.message += "; reads with resourceVersion=0 are answered with what this master has";
            }
            status
        })?;
        self.caught_up(revision).await?;
        Ok(revision)
    }

    /// Waits until the caches have a revision that is known to exist.
    pub(crate) async fn caught_up(&self, revision: Revision) -> ApiResult<()> {
        self.inner.feed.wait(revision, CATCH_UP).await.map_err(|now| {
            Status::timeout(&format!("this master's caches are behind: at revision {now}, need {revision}"), 1)
        })
    }
}

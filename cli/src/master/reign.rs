//! From Raft leadership to the right to act: commits the fence, hands fenced clients to the control loops, and takes
//! them back the moment leadership or contact to a quorum is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_apiserver::{ApiServer, Fence, UserInfo};
use trireme_client::leadership::{LeadershipRx, Reign};
use trireme_raftstore::{Leadership, Store};

/// Who gets told of a reign. Each acts under its own name, so that audit and authorization can tell them apart.
pub struct Heralds {
    controllers: watch::Sender<Option<Arc<Reign>>>,
    scheduler: watch::Sender<Option<Arc<Reign>>>,
}

/// The receiving ends.
pub struct Loops {
    /// For the controllers.
    pub controllers: LeadershipRx,
    /// For the scheduler.
    pub scheduler: LeadershipRx,
}

/// The channels between the leadership loop and the control loops; nobody reigns at first.
pub fn channel() -> (Heralds, Loops) {
    let (controllers, controllers_rx) = watch::channel(None);
    let (scheduler, scheduler_rx) = watch::channel(None);
    (Heralds { controllers, scheduler }, Loops { controllers: controllers_rx, scheduler: scheduler_rx })
}

impl Heralds {
    fn begin(&self, server: &ApiServer, fence: Fence) {
        let fence_revision = fence.revision();
        for (channel, name) in
            [(&self.controllers, "system:kube-controller-manager"), (&self.scheduler, "system:kube-scheduler")]
        {
            let service = server.in_process(UserInfo::component(name), Some(fence));
            let client = kube::Client::new(service, "default");
            channel.send_replace(Some(Arc::new(Reign { client, fence_revision })));
        }
    }

    fn end(&self) {
        self.controllers.send_replace(None);
        self.scheduler.send_replace(None);
    }
}

/// Follows the store's leadership until `stop`.
pub async fn run(server: ApiServer, store: Store, heralds: Heralds, stop: CancellationToken) {
    let mut leadership = store.leadership();
    loop {
        // Whatever changed, an earlier reign is over: a leader may have been deposed and elected again in between.
        heralds.end();
        let now = *leadership.borrow_and_update();
        let reign = async {
            if let Leadership::Leader { term } = now {
                rule(&server, &store, &heralds, term).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            changed = leadership.changed() => if changed.is_err() { break },
            () = reign => {}
        }
    }
    heralds.end();
}

/// How often the cluster's own objects are looked at although nothing is known to have changed.
const REPAIR: Duration = Duration::from_secs(10);
/// How often it is looked which masters are well enough to be announced.
const ANNOUNCE: Duration = Duration::from_secs(2);

/// Commits the fence, opens the gate, and keeps what every cluster must have in place.
async fn rule(server: &ApiServer, store: &Store, heralds: &Heralds, term: u64) {
    let mut pause = Duration::from_millis(20);
    let fence = loop {
        match server.acquire_fence().await {
            Ok(fence) => break fence,
            Err(error) => tracing::warn!(term, %error, "cannot commit the fence yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    };
    tracing::info!(term, fence = fence.revision(), "leading; the control loops may act");
    heralds.begin(server, fence);
    let mut members = store.members_changed();
    loop {
        let mut pause = Duration::from_millis(50);
        members.mark_unchanged();
        while let Err(error) = server.bootstrap(Some(fence)).await {
            tracing::warn!(%error, "cannot put the cluster's own objects in place yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        tokio::select! {
            changed = members.changed() => if changed.is_err() { return },
            // What somebody deleted by mistake comes back.
            () = tokio::time::sleep(REPAIR) => {}
            () = announce(server, fence) => {}
        }
    }
}

/// Keeps it known which masters are well, for as long as it is polled.
async fn announce(server: &ApiServer, fence: Fence) {
    loop {
        tokio::time::sleep(ANNOUNCE).await;
        if let Err(error) = server.announce_masters(fence).await {
            tracing::debug!(%error, "the masters that are well are not announced");
        }
    }
}

//! Who may act: the reign of the leading master, and work that lives only as long as it.

use std::future::Future;
use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::informer::Informers;

/// One reign of this process as leader. Every write of a leader-only loop must go through its client, which makes
/// the write conditional on the fence: once another leader has committed its own, all of them fail.
pub struct Reign {
    /// The fenced client.
    pub client: Client,
    /// The revision of the fence; caches that have not reached it must not be acted on.
    pub fence_revision: u64,
}

impl std::fmt::Debug for Reign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reign").field("fence_revision", &self.fence_revision).finish_non_exhaustive()
    }
}

/// The present reign, or none while another master leads.
pub type LeadershipRx = watch::Receiver<Option<Arc<Reign>>>;

/// Runs `body` anew for each reign, once the informers have reached its fence, and drops it, with everything it is
/// doing, as soon as that reign ends or is replaced. Returns at `shutdown` or when the sender is gone.
pub async fn while_reigning<F, Fut>(
    mut leadership: LeadershipRx,
    informers: Arc<Informers>,
    shutdown: CancellationToken,
    body: F,
) where
    F: Fn(Arc<Reign>) -> Fut,
    Fut: Future<Output = ()>,
{
    loop {
        let reign = leadership.borrow_and_update().clone();
        let work = async {
            if let Some(reign) = reign {
                informers.wait_for(reign.fence_revision).await;
                body(reign).await;
            }
            // Finished or not leading: only a change of leadership gives more to do.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
            () = work => {}
        }
    }
}

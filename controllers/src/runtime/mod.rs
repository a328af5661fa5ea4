//! What every controller stands on: queues of keys, the loop that works them off, and how writes are made.

mod queue;
mod runner;
mod write;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use thiserror::Error;
use trireme_client::events::EventRecorder;
use trireme_client::informer::Informers;

use crate::Config;

pub(crate) use runner::{Next, Reconciler, Runner};
pub(crate) use write::{Part, Writer, is_conflict, is_in_vain, is_not_found};

/// What the controllers of one reign share.
#[derive(Clone)]
pub(crate) struct Context {
    /// The fenced client of the reign.
    pub(crate) client: Client,
    /// The shared informers.
    pub(crate) informers: Arc<Informers>,
    /// The settings.
    pub(crate) config: Arc<Config>,
    /// Where this controller's events go.
    pub(crate) recorder: EventRecorder,
}

/// Why a reconciliation failed; it is tried again after a while.
#[derive(Debug, Error)]
pub(crate) enum ReconcileError {
    /// The API refused or could not be reached.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// An object cannot be acted on as it is.
    #[error("{0}")]
    Object(String),
    /// An object could not be written as JSON.
    #[error("{0}")]
    Encode(#[from] serde_json::Error),
}

/// Waits between tries of a failing key: doubling from the first to the last.
pub(crate) const FIRST_RETRY: Duration = Duration::from_millis(5);
pub(crate) const LAST_RETRY: Duration = Duration::from_secs(60);

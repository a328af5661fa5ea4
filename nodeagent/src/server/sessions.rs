//! How many connections and sessions there are at one time, also of those that have left HTTP behind.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::Extensions;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

/// Sessions of one pod at one time. Each holds a connection to the pod's shim, which has far more: its probes and its end never
/// wait for those who look on.
const MAX_PER_POD: usize = 100;

/// A connection's place among those that are served at one time. It is free again when the last copy is gone: what a connection
/// becomes after an upgrade keeps one.
#[derive(Clone)]
pub(super) struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Place {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Place {
        Place { _permit: Arc::new(permit) }
    }

    /// The place of the connection that a request came over.
    pub(super) fn of(extensions: &Extensions) -> Option<Place> {
        extensions.get().cloned()
    }
}

/// The sessions of all pods, by uid.
#[derive(Clone, Default)]
pub(super) struct Sessions {
    open: Arc<Mutex<HashMap<String, usize>>>,
}

impl Sessions {
    /// Counts one more; `None` if the pod has enough of them.
    pub(super) fn begin(&self, pod: &str) -> Option<Running> {
        let mut open = self.open.lock();
        let count = open.entry(pod.to_owned()).or_default();
        if *count >= MAX_PER_POD {
            return None;
        }
        *count += 1;
        Some(Running { all: self.clone(), pod: pod.to_owned() })
    }
}

/// A session, for as long as it is kept.
pub(super) struct Running {
    all: Sessions,
    pod: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut open = self.all.open.lock();
        if let Some(count) = open.get_mut(&self.pod) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.pod);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn each_pod_has_its_own_limit() {
        let sessions = Sessions::default();
        let mut running: Vec<_> = (0..MAX_PER_POD).map(|_| sessions.begin("a").unwrap()).collect();
        assert!(sessions.begin("a").is_none());
        assert!(sessions.begin("b").is_some());
        running.pop();
        assert!(sessions.begin("a").is_some());
        running.clear();
        assert!(sessions.open.lock().is_empty());
    }

    #[tokio::test]
    async fn a_place_is_free_when_its_last_copy_is_gone() {
        let permits = Arc::new(Semaphore::new(1));
        let mut extensions = Extensions::new();
        assert!(Place::of(&extensions).is_none());
        extensions.insert(Place::new(permits.clone().acquire_owned().await.unwrap()));
        let upgraded = Place::of(&extensions);
        drop(extensions);
        assert_eq!(permits.available_permits(), 0);
        drop(upgraded);
        assert_eq!(permits.available_permits(), 1);
    }
}

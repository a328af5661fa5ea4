//! What watches told.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};

use crate::watching::Seen;

/// Revisions of ConfigMaps, as one watch told of them.
#[derive(Debug, Default)]
pub struct Configs {
    /// Every change.
    pub changes: HashSet<(String, u64)>,
    /// Names whose deletion was told.
    pub deleted: HashSet<String>,
}

impl Configs {
    /// Takes an event.
    pub fn note(&mut self, seen: &Seen<ConfigMap>) {
        let name = seen.object.metadata.name.clone().unwrap_or_default();
        if seen.deleted {
            self.deleted.insert(name);
        } else {
            self.changes.insert((name, seen.revision));
        }
    }
}

/// One state of a pod.
#[derive(Clone, Debug)]
pub struct Observed {
    /// When the watch told of it.
    pub at: Instant,
    /// Its revision.
    pub revision: u64,
    /// Which pod.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// Where it is bound to.
    pub node: Option<String>,
    /// Whether it runs.
    pub running: bool,
}

/// The states of all pods, as one watch told of them.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    all: Arc<Mutex<Vec<Observed>>>,
}

impl Pods {
    /// Takes an event.
    pub fn note(&self, seen: &Seen<Pod>) {
        let (metadata, spec, status) = (&seen.object.metadata, &seen.object.spec, &seen.object.status);
        let observed = Observed {
            at: seen.at,
            revision: seen.revision,
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            node: spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()),
            running: status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"),
        };
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(observed);
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Observed> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the first pod was seen bound at a revision beyond the given one.
    pub fn first_bound(&self, beyond: u64) -> Option<Instant> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unbound: BTreeMap<&str, bool> = BTreeMap::new();
        for seen in all.iter() {
            let before = unbound.insert(&seen.uid, seen.node.is_some());
            if seen.node.is_some() && before != Some(true) && seen.revision > beyond {
                return Some(seen.at);
            }
        }
        None
    }

    /// When a pod was first seen running.
    pub fn running(&self, wanted: impl Fn(&str) -> bool) -> Option<Instant> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|seen| seen.running && wanted(&seen.name)).map(|seen| seen.at)
    }
}

/// Pods whose node changed once it was set.
pub fn moved(observed: &[Observed]) -> Vec<String> {
    let mut nodes: BTreeMap<&str, &str> = BTreeMap::new();
    let mut found = Vec::new();
    for seen in observed {
        match (nodes.get(seen.uid.as_str()), seen.node.as_deref()) {
            (Some(before), now) if now != Some(*before) => {
                found.push(format!("pod {} was bound to {before} and then to {now:?}", seen.name));
            }
            (None, Some(now)) => drop(nodes.insert(&seen.uid, now)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(uid: &str, revision: u64, node: Option<&str>) -> Observed {
        Observed {
            at: Instant::now(),
            revision,
            name: uid.to_owned(),
            uid: uid.to_owned(),
            node: node.map(str::to_owned),
            running: false,
        }
    }

    #[test]
    fn a_pod_is_bound_once() {
        let good = [seen("a", 1, None), seen("a", 2, Some("n1")), seen("b", 3, None), seen("a", 4, Some("n1"))];
        assert!(moved(&good).is_empty());
        for wrong in [Some("n2"), None] {
            assert_eq!(moved(&[seen("a", 2, Some("n1")), seen("a", 5, wrong)]).len(), 1);
        }
        let pods = Pods::default();
        pods.all.lock().unwrap_or_else(PoisonError::into_inner).extend(good);
        assert!(pods.first_bound(1).is_some());
        assert!(pods.first_bound(2).is_none(), "the state of revision 4 is not a binding");
    }
}

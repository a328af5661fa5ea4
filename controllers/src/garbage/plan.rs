//! What to do about one object whose owners have been looked at. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// What was found out about an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// It exists, and does not wait for this object to go.
    Solid,
    /// It is being deleted in the foreground: this object must go before it.
    Waiting,
    /// It does not exist, or another of its name does.
    Absent,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Nothing.
    Keep,
    /// Take these owners' uids out of the object's references; others keep it alive.
    Drop(Vec<String>),
    /// Delete it. `unblock` says to let it go first from those of its dependents that wait for each other in a circle.
    Delete { policy: PropagationPolicy, unblock: bool },
}

/// Whether an object carries a finalizer.
pub(super) fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.as_ref().is_some_and(|all| all.iter().any(|own| own == finalizer))
}

/// Whether an object is being deleted after its dependents.
pub(super) fn is_waiting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some() && has_finalizer(meta, FOREGROUND)
}

/// Decides about an object with owners. `dependents` are the objects that name it as their owner.
pub(super) fn decide(meta: &ObjectMeta, owners: &[(OwnerReference, Owner)], dependents: &[ObjectMeta]) -> Action {
    if owners.is_empty() {
        return Action::Keep;
    }
    if owners.iter().any(|owner| owner.1 == Owner::Solid) {
        let others = owners.iter().filter(|owner| owner.1 != Owner::Solid);
        let others: Vec<String> = others.map(|(reference, _)| reference.uid.clone()).collect();
        return if others.is_empty() { Action::Keep } else { Action::Drop(others) };
    }
    if owners.iter().any(|owner| owner.1 == Owner::Waiting) && !dependents.is_empty() {
        // Objects that wait for each other would wait for ever.
        let unblock = dependents.iter().any(is_waiting);
        return Action::Delete { policy: PropagationPolicy::Foreground, unblock };
    }
    let policy = if has_finalizer(meta, ORPHAN) {
        PropagationPolicy::Orphan
    } else if has_finalizer(meta, FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    Action::Delete { policy, unblock: false }
}

/// Whether what changed between two states of an object can matter to owners or dependents.
pub(super) fn matters(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    old.uid != new.uid
        || old.owner_references != new.owner_references
        || old.finalizers != new.finalizers
        || old.deletion_timestamp.is_some() != new.deletion_timestamp.is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn owners(list: &str) -> Vec<(OwnerReference, Owner)> {
        list.split_whitespace()
            .map(|word| {
                let (uid, state) = word.split_once('=').unwrap();
                let state = match state {
                    "solid" => Owner::Solid,
                    "waiting" => Owner::Waiting,
                    _ => Owner::Absent,
                };
                (OwnerReference { uid: uid.to_owned(), ..OwnerReference::default() }, state)
            })
            .collect()
    }

    fn meta(finalizers: &str, deleting: bool) -> ObjectMeta {
        let finalizers: Vec<String> = finalizers.split_whitespace().map(str::to_owned).collect();
        let at = serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
        ObjectMeta { finalizers: Some(finalizers), deletion_timestamp: deleting.then_some(at), ..ObjectMeta::default() }
    }

    fn delete(policy: PropagationPolicy, unblock: bool) -> Action {
        Action::Delete { policy, unblock }
    }

    #[test]
    fn decides_as_upstream() {
        use PropagationPolicy::{Background, Foreground, Orphan};
        let waiting = meta(FOREGROUND, true);
        let plain = meta("", false);
        let cases: [(&str, ObjectMeta, &[ObjectMeta], Action); 10] = [
            ("", plain.clone(), &[], Action::Keep),
            ("a=solid", plain.clone(), &[], Action::Keep),
            ("a=solid b=absent c=waiting", plain.clone(), &[], Action::Drop(vec!["b".to_owned(), "c".to_owned()])),
            ("a=absent", plain.clone(), &[], delete(Background, false)),
            ("a=absent b=waiting", plain.clone(), &[], delete(Background, false)),
            ("a=absent", meta(ORPHAN, false), &[], delete(Orphan, false)),
            ("a=absent", meta(FOREGROUND, false), &[], delete(Foreground, false)),
            ("a=waiting", plain.clone(), std::slice::from_ref(&plain), delete(Foreground, false)),
            ("a=waiting", plain.clone(), std::slice::from_ref(&waiting), delete(Foreground, true)),
            ("a=absent", plain.clone(), std::slice::from_ref(&plain), delete(Background, false)),
        ];
        for (list, meta, dependents, want) in cases {
            assert_eq!(decide(&meta, &owners(list), dependents), want, "{list}");
        }
    }

    #[test]
    fn status_changes_do_not_matter() {
        let (a, mut b) = (meta("", false), meta("", false));
        b.resource_version = Some("7".to_owned());
        b.labels = Some([("a".to_owned(), "b".to_owned())].into());
        assert!(!matters(&a, &b));
        assert!(matters(&a, &meta("", true)) && matters(&a, &meta("x", false)));
    }
}

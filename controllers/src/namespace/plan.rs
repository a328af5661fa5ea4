//! What a round of emptying a namespace says about it. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What was found in a namespace, and what went wrong.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Groups that could not be asked for their kinds.
    pub(super) undiscovered: Vec<String>,
    /// Why kinds could not be deleted.
    pub(super) failures: Vec<String>,
    /// How many objects are left, by `plural.group`.
    pub(super) remaining: BTreeMap<String, usize>,
    /// How many objects wait for a finalizer.
    pub(super) finalizers: BTreeMap<String, usize>,
}

impl Findings {
    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.undiscovered.is_empty() && self.failures.is_empty() && self.remaining.is_empty()
    }
}

/// The namespace with conditions that tell what was found.
pub(super) fn with_conditions(namespace: &Namespace, findings: &Findings, now: Timestamp) -> Namespace {
    let mut next = namespace.clone();
    let status = next.status.get_or_insert_default();
    status.phase = Some("Terminating".to_owned());
    let conditions = status.conditions.get_or_insert_default();
    for (kind, bad, reason, message) in verdicts(findings) {
        let value = if bad { "True" } else { "False" };
        let known = conditions.iter_mut().find(|condition| condition.type_ == kind);
        let (reason, message) = (Some(reason.to_owned()), Some(message));
        match known {
            Some(known) => {
                if known.status != value {
                    known.last_transition_time = Some(Time(now));
                }
                known.status = value.to_owned();
                (known.reason, known.message) = (reason, message);
            }
            None => conditions.push(NamespaceCondition {
                type_: kind.to_owned(),
                status: value.to_owned(),
                last_transition_time: Some(Time(now)),
                reason,
                message,
            }),
        }
    }
    next
}

fn verdicts(findings: &Findings) -> [(&'static str, bool, &'static str, String); 5] {
    let list = |counts: &BTreeMap<String, usize>, form: fn(&str, usize) -> String| {
        counts.iter().map(|(name, count)| form(name, *count)).collect::<Vec<_>>().join(", ")
    };
    let choose = |kind, bad: bool, yes: (&'static str, String), no: (&'static str, &str)| {
        if bad { (kind, true, yes.0, yes.1) } else { (kind, false, no.0, no.1.to_owned()) }
    };
    let discovery = format!(
        "Discovery failed for some groups, {} failing: {}",
        findings.undiscovered.len(),
        findings.undiscovered.join(", ")
    );
    let failures = format!(
        "Failed to delete all resource types, {} remaining: {}",
        findings.failures.len(),
        findings.failures.join(", ")
    );
    let remaining = list(&findings.remaining, |name, count| format!("{name} has {count} resource instances"));
    let finalizers = list(&findings.finalizers, |name, count| format!("{name} in {count} resource instances"));
    [
        choose(
            "NamespaceDeletionDiscoveryFailure",
            !findings.undiscovered.is_empty(),
            ("DiscoveryFailed", discovery),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        choose(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            ("GroupVersionParsingFailed", String::new()),
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        choose(
            "NamespaceDeletionContentFailure",
            !findings.failures.is_empty(),
            ("ContentDeletionFailed", failures),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        choose(
            "NamespaceContentRemaining",
            !findings.remaining.is_empty(),
            ("SomeResourcesRemain", format!("Some resources are remaining: {remaining}")),
            ("ContentRemoved", "All content successfully removed"),
        ),
        choose(
            "NamespaceFinalizersRemaining",
            !findings.finalizers.is_empty(),
            ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {finalizers}")),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn show(namespace: &Namespace) -> Vec<String> {
        let conditions = namespace.status.as_ref().unwrap().conditions.clone().unwrap();
        let line = |c: &NamespaceCondition| format!("{} {}", c.status, c.message.clone().unwrap());
        conditions.iter().map(line).collect()
    }

    #[test]
    fn conditions_tell_what_remains() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let findings = Findings {
            remaining: BTreeMap::from([("pods.".to_owned(), 2), ("deployments.apps".to_owned(), 1)]),
            finalizers: BTreeMap::from([("example.com/hold".to_owned(), 1)]),
            ..Findings::default()
        };
        let namespace = with_conditions(&Namespace::default(), &findings, now);
        assert_eq!(namespace.status.as_ref().unwrap().phase.as_deref(), Some("Terminating"));
        assert_eq!(
            show(&namespace),
            [
                "False All resources successfully discovered",
                "False All legacy kube types successfully parsed",
                "False All content successfully deleted, may be waiting on finalization",
                "True Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances",
                "True Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
            ]
        );
        let again = with_conditions(&namespace, &findings, "2026-01-01T00:01:00Z".parse().unwrap());
        assert_eq!(again, namespace, "nothing new to write");
        let empty = with_conditions(&namespace, &Findings::default(), now);
        assert_eq!(show(&empty)[3], "False All content successfully removed");
    }
}

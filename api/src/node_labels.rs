//! Which labels a node may give itself: upstream's lists for kubelets and for its admission plugin NodeRestriction.

use serde_json::Value;
use std::collections::BTreeSet;

/// Labels of Kubernetes' own domains that an agent sets.
const OWN: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// Domains, and all below them, in which an agent sets what it wants.
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Kubernetes' domains.
const DOMAINS: [&str; 2] = ["kubernetes.io", "k8s.io"];
/// The domain that is kept from agents, so that what is in it can be trusted.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

fn within(key: &str, domain: &str) -> bool {
    let own = key.split_once('/').map_or("", |(prefix, _)| prefix);
    own.strip_suffix(domain).is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

/// Whether a label is in one of Kubernetes' domains and not among those that agents set.
pub fn unknown(key: &str) -> bool {
    let own = OWN.contains(&key) || OWN_DOMAINS.iter().any(|domain| within(key, domain));
    DOMAINS.iter().any(|domain| within(key, domain)) && !own
}

/// Whether a node may neither set, change nor remove a label of its own.
pub fn forbidden(key: &str) -> bool {
    within(key, RESTRICTED) || unknown(key)
}

/// Which labels differ that a node may not touch, in order.
pub fn forbidden_changes<'a>(new: &'a Value, old: &'a Value) -> Vec<&'a str> {
    let keys = |labels: &'a Value| labels.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str));
    let all: BTreeSet<&str> = keys(new).chain(keys(old)).collect();
    all.into_iter().filter(|key| new.get(*key) != old.get(*key) && forbidden(key)).collect()
}

/// What is wrong with labels that an agent is told to set by `flag`, in the kubelet's words.
pub fn refused<'a>(flag: &str, keys: impl Iterator<Item = &'a str>) -> Option<String> {
    let keys: BTreeSet<&str> = keys.filter(|key| forbidden(key)).collect();
    let keys: Vec<&str> = keys.into_iter().collect();
    (!keys.is_empty()).then(|| {
        format!(
            "unknown 'kubernetes.io' or 'k8s.io' labels specified with {flag}: [{}]\n{flag} in the 'kubernetes.io' namespace \
             must begin with an allowed prefix ({}) or be in the specifically allowed set ({})",
            keys.join(" "),
            OWN_DOMAINS.join(", "),
            OWN.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_kept_from_nodes() {
        for key in [
            "node-restriction.kubernetes.io/a",
            "x.node-restriction.kubernetes.io/a",
            "kubernetes.io/a",
            "k8s.io/a",
            "node-role.kubernetes.io/control-plane",
            "other.k8s.io/a",
            "xnode.kubernetes.io/a",
        ] {
            assert!(forbidden(key), "{key}");
        }
        for key in [
            "a",
            "e.com/a",
            "kubernetes.io",
            "xkubernetes.io/a",
            "k8s.io.e.com/a",
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
            "node.kubernetes.io/a",
            "x.node.kubernetes.io/a",
            "kubelet.kubernetes.io/a",
        ] {
            assert!(!forbidden(key), "{key}");
        }
    }

    #[test]
    fn changes_count_and_what_stays_does_not() {
        let old = json!({"k8s.io/gone": "1", "k8s.io/stays": "1", "k8s.io/other": "1", "a": "1"});
        let new = json!({"k8s.io/stays": "1", "k8s.io/other": "2", "k8s.io/new": "", "b": "1"});
        assert_eq!(forbidden_changes(&new, &old), ["k8s.io/gone", "k8s.io/new", "k8s.io/other"]);
        assert_eq!(forbidden_changes(&Value::Null, &json!({"a": "b"})), Vec::<&str>::new());
        let said = refused("--label", ["a", "k8s.io/b", "k8s.io/a"].into_iter());
        assert!(said.is_some_and(|said| said.contains("--label: [k8s.io/a k8s.io/b]\n")));
    }
}

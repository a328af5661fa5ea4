//! Required affinity and anti-affinity between pods.

use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use crate::filter::Refusal;
use crate::state::{Cluster, NodeInfo, PodInfo};

/// One required term: pods of these namespaces that match, within one topology domain.
#[derive(Debug)]
pub(crate) struct Term {
    selector: Option<Selector>,
    /// None for all namespaces.
    namespaces: Option<Vec<String>>,
    topology_key: String,
}

/// The terms a pod requires.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    pub(crate) together: Vec<Term>,
    pub(crate) apart: Vec<Term>,
}

impl Terms {
    /// The terms of a pod.
    pub(crate) fn of(pod: &Pod) -> Self {
        let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
        let own = pod.metadata.namespace.as_deref().unwrap_or("");
        let terms = |required: Option<&Vec<PodAffinityTerm>>| -> Vec<Term> {
            required.into_iter().flatten().map(|term| Term::new(term, own)).collect()
        };
        let together = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        Self {
            together: terms(together.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            apart: terms(apart.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.together.is_empty() && self.apart.is_empty()
    }
}

impl Term {
    fn new(term: &PodAffinityTerm, own: &str) -> Self {
        let named = term.namespaces.clone().unwrap_or_default();
        let namespaces = match &term.namespace_selector {
            Some(selector) if *selector == LabelSelector::default() => None,
            None if named.is_empty() => Some(vec![own.to_owned()]),
            // Labels of namespaces are not known here: only those that are named count.
            _ => Some(named),
        };
        Self {
            selector: term.label_selector.clone().and_then(|selector| Selector::try_from(selector).ok()),
            namespaces,
            topology_key: term.topology_key.clone(),
        }
    }

    fn matches(&self, pod: &PodInfo) -> bool {
        let here = self.namespaces.as_ref().is_none_or(|all| all.iter().any(|name| **name == *pod.key.namespace));
        let empty = Default::default();
        let labels = pod.pod.metadata.labels.as_ref().unwrap_or(&empty);
        // A term without a selector matches nothing.
        here && self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    fn domain<'a>(&self, node: &'a Node) -> Option<&'a String> {
        node.metadata.labels.as_ref()?.get(&self.topology_key)
    }
}

/// Whether a node is allowed by what the pod requires of others and what others require of it.
pub(crate) fn allowed(pod: &PodInfo, info: &NodeInfo, cluster: &Cluster) -> Result<(), Refusal> {
    let Some(node) = &info.node else { return Ok(()) };
    // The other side first, as upstream.
    for (other_node, other) in cluster.picky() {
        let bothered = other.terms.apart.iter().any(|term| {
            let domain = term.domain(node);
            domain.is_some() && domain == other_node.node.as_ref().and_then(|n| term.domain(n)) && term.matches(pod)
        });
        if bothered {
            return refuse("node(s) didn't satisfy existing pods anti-affinity rules");
        }
    }
    for term in &pod.terms.apart {
        let domain = term.domain(node);
        if domain.is_some() && matching(term, cluster).any(|other| other == domain) {
            return refuse("node(s) didn't match pod anti-affinity rules");
        }
    }
    for term in &pod.terms.together {
        let domain = term.domain(node);
        // The first of a group that wants to be together has nobody to join yet.
        let first = term.matches(pod) && matching(term, cluster).next().is_none();
        if domain.is_none() || !(first || matching(term, cluster).any(|other| other == domain)) {
            return refuse("node(s) didn't match pod affinity rules");
        }
    }
    Ok(())
}

/// The domains of the pods that match a term.
fn matching<'a>(term: &'a Term, cluster: &'a Cluster) -> impl Iterator<Item = Option<&'a String>> {
    cluster.nodes.values().flat_map(move |info| {
        let domain = info.node.as_ref().and_then(|node| term.domain(node));
        info.pods.values().filter(|pod| term.matches(pod)).map(move |_| domain)
    })
}

fn refuse(reason: &str) -> Result<(), Refusal> {
    Err(Refusal { reasons: vec![reason.to_owned()], preemption_may_help: true })
}

//! Which nodes can take a pod, and why the others cannot, in upstream's words.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

use crate::state::{NodeInfo, PodInfo};

/// Why a node cannot take a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// One or more reasons.
    pub(crate) reasons: Vec<String>,
    /// Whether taking pods away from the node could help.
    pub(crate) preemption_may_help: bool,
}

impl Refusal {
    fn of_the_node(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], preemption_may_help: false }
    }
}

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Whether a node can take a pod: the first check that fails answers, as upstream.
pub(crate) fn filter(pod: &PodInfo, info: &NodeInfo) -> Result<(), Refusal> {
    let (Some(spec), Some(node)) = (pod.pod.spec.as_ref(), info.node.as_ref()) else {
        return Err(Refusal::of_the_node("node(s) had no object"));
    };
    unschedulable(spec, node)?;
    untolerated_taint(spec, node)?;
    if !matches_affinity(spec, node) {
        return Err(Refusal::of_the_node("node(s) didn't match Pod's node affinity/selector"));
    }
    let taken = info.pods.values().flat_map(|other| &other.ports);
    if taken.into_iter().any(|port| pod.ports.iter().any(|wanted| wanted.conflicts(port))) {
        let reason = "node(s) didn't have free ports for the requested pod ports".to_owned();
        return Err(Refusal { reasons: vec![reason], preemption_may_help: true });
    }
    fits(pod, info)
}

fn tolerations(spec: &PodSpec) -> &[Toleration] {
    spec.tolerations.as_deref().unwrap_or(&[])
}

fn unschedulable(spec: &PodSpec, node: &Node) -> Result<(), Refusal> {
    let off = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let taint = Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    if off && !tolerations(spec).iter().any(|toleration| tolerates(toleration, &taint)) {
        return Err(Refusal::of_the_node("node(s) were unschedulable"));
    }
    Ok(())
}

fn untolerated_taint(spec: &PodSpec, node: &Node) -> Result<(), Refusal> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    let mut hard = taints.filter(|taint| matches!(&*taint.effect, "NoSchedule" | "NoExecute"));
    let untolerated = hard.find(|taint| !tolerations(spec).iter().any(|toleration| tolerates(toleration, taint)));
    match untolerated {
        None => Ok(()),
        Some(taint) => {
            let value = taint.value.as_deref().unwrap_or("");
            Err(Refusal::of_the_node(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)))
        }
    }
}

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or("");
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => {
            !key.is_empty() && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
        }
        _ => false,
    }
}

fn matches_affinity(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let selector = spec.node_selector.iter().flatten();
    if !selector.into_iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches_term(term, node)))
}

/// Whether a node matches a term; an empty term matches none.
pub(crate) fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&NONE);
    let expressions = term.match_expressions.as_deref().unwrap_or(&[]);
    let fields = term.match_fields.as_deref().unwrap_or(&[]);
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = node.metadata.name.as_ref();
    expressions.iter().all(|requirement| matches_requirement(requirement, labels.get(&requirement.key)))
        && fields.iter().all(|requirement| requirement.key == "metadata.name" && matches_requirement(requirement, name))
}

fn matches_requirement(requirement: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or(&[]);
    let compare = |holds: fn(i64, i64) -> bool| {
        let (Some(value), [bound]) = (value, values) else { return false };
        matches!((value.parse(), bound.parse()), (Ok(value), Ok(bound)) if holds(value, bound))
    };
    match &*requirement.operator {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|value, bound| value > bound),
        "Lt" => compare(|value, bound| value < bound),
        _ => false,
    }
}

fn fits(pod: &PodInfo, info: &NodeInfo) -> Result<(), Refusal> {
    let mut reasons = Vec::new();
    if info.pods.len() as i64 + 1 > info.allocatable.get("pods") {
        reasons.push("Too many pods".to_owned());
    }
    let wanted = pod.requests.0.iter().filter(|(_, amount)| **amount > 0);
    for (name, amount) in wanted {
        if *amount > info.allocatable.get(name) - info.requested.get(name) {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(Refusal { reasons, preemption_may_help: true }) }
}

/// The message of a pod that no node can take.
pub(crate) fn explain(refusals: &[Refusal]) -> String {
    let total = refusals.len();
    if total == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let reasons = refusals.iter().flat_map(|refusal| refusal.reasons.iter().map(String::as_str));
    let preemption = refusals.iter().map(|refusal| {
        if refusal.preemption_may_help {
            "No preemption victims found for incoming pod"
        } else {
            "Preemption is not helpful for scheduling"
        }
    });
    format!(
        "0/{total} nodes are available: {}. preemption: 0/{total} nodes are available: {}.",
        histogram(reasons),
        histogram(preemption)
    )
}

fn histogram<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut lines: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    lines.sort();
    lines.join(", ")
}

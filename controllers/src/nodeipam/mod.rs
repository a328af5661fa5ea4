//! Gives every node a range of pod addresses of its own out of the cluster's range.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Node;
use trireme_client::events::EventType;
use trireme_client::informer::ObjectKey;

use crate::Config;
use crate::config::parse_network;
use crate::runtime::{Context, Next, Part, ReconcileError, Reconciler, Runner, Writer};

struct NodeIpam {
    context: Context,
}

/// The loop that hands out ranges. One node at a time: each choice must see the one before.
pub(crate) async fn run(context: Context) {
    let nodes = context.informers.nodes.clone();
    let all = nodes.clone();
    let all = move || all.list().iter().map(|node| ObjectKey::of(&node.metadata)).collect();
    let config = Config { concurrency: 1, ..Config::clone(&context.config) };
    Runner::new(NodeIpam { context }, &config, all)
        .on(&nodes, |node: &Node| vec![ObjectKey::of(&node.metadata)])
        .run()
        .await;
}

impl Reconciler for NodeIpam {
    type Key = ObjectKey;
    const NAME: &'static str = "node-ipam";

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let nodes = &self.context.informers.nodes;
        let Some(node) = nodes.get(&key) else { return Ok(Next::Done) };
        if !needs_range(&node) {
            return Ok(Next::Done);
        }
        let config = &self.context.config;
        let cluster = config.network().map_err(|error| ReconcileError::Object(error.to_string()))?;
        let all = nodes.list();
        let taken = all.iter().flat_map(|node| ranges_of(node)).filter_map(parse_network);
        let Some(range) = free_range(cluster, config.node_cidr_mask_size, taken) else {
            let message = "Node status is now: CIDRNotAvailable";
            self.context.recorder.record(&*node, EventType::Normal, "CIDRNotAvailable", message);
            return Err(ReconcileError::Object(format!(
                "no free range left in {} for node {key}",
                config.cluster_cidr
            )));
        };
        let mut wanted = Node::clone(&node);
        let spec = wanted.spec.get_or_insert_default();
        spec.pod_cidr = Some(range.clone());
        spec.pod_cidrs = Some(vec![range]);
        Writer::new(&self.context.client, nodes).update(Part::Main, &*node, &wanted).await?;
        Ok(Next::Done)
    }
}

fn needs_range(node: &Node) -> bool {
    node.metadata.deletion_timestamp.is_none() && ranges_of(node).next().is_none()
}

fn ranges_of(node: &Node) -> impl Iterator<Item = &str> {
    let spec = node.spec.as_ref();
    let one = spec.and_then(|spec| spec.pod_cidr.as_deref()).filter(|range| !range.is_empty());
    let many = spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten().map(String::as_str);
    one.into_iter().chain(many)
}

/// The first range of that size within the cluster's that overlaps none of those taken.
fn free_range((base, prefix): (Ipv4Addr, u8), size: u8, taken: impl Iterator<Item = (Ipv4Addr, u8)>) -> Option<String> {
    let step = 1u64 << (32 - u32::from(size));
    let (from, count) = (u64::from(u32::from(base)), 1u64 << (size - prefix));
    let mut used = BTreeSet::new();
    for (address, length) in taken {
        let first = u64::from(u32::from(address));
        let last = first + (1u64 << (32 - u32::from(length))) - 1;
        if last < from || first >= from + count * step {
            continue;
        }
        let (low, high) = (first.saturating_sub(from) / step, (last - from) / step);
        used.extend(low..=high.min(count - 1));
    }
    let free = (0..count).find(|index| !used.contains(index))?;
    let address = Ipv4Addr::from(u32::try_from(from + free * step).ok()?);
    Some(format!("{address}/{size}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn free(cluster: &str, size: u8, taken: &[&str]) -> Option<String> {
        free_range(parse_network(cluster).unwrap(), size, taken.iter().filter_map(|range| parse_network(range)))
    }

    #[test]
    fn ranges_are_unique_and_holes_are_filled() {
        let cases: [(&str, u8, &[&str], Option<&str>); 7] = [
            ("10.244.0.0/16", 24, &[], Some("10.244.0.0/24")),
            ("10.244.0.0/16", 24, &["10.244.0.0/24", "10.244.0.0/24", "10.244.1.0/24"], Some("10.244.2.0/24")),
            ("10.244.0.0/16", 24, &["10.244.0.0/24", "10.244.2.0/24"], Some("10.244.1.0/24")),
            ("10.244.0.0/16", 24, &["10.244.0.0/23", "192.168.0.0/16"], Some("10.244.2.0/24")),
            ("10.244.0.0/23", 24, &["10.244.0.0/24", "10.244.1.0/24"], None),
            ("10.244.0.0/16", 24, &["10.244.0.128/25"], Some("10.244.1.0/24")),
            ("10.0.0.0/8", 24, &["10.0.0.0/9"], Some("10.128.0.0/24")),
        ];
        for (cluster, size, taken, want) in cases {
            assert_eq!(free(cluster, size, taken).as_deref(), want, "{cluster} {taken:?}");
        }
    }

    #[test]
    fn a_node_with_a_range_keeps_it() {
        let mut node = Node::default();
        assert!(needs_range(&node));
        node.spec.get_or_insert_default().pod_cidr = Some("10.244.3.0/24".to_owned());
        assert!(!needs_range(&node));
    }
}

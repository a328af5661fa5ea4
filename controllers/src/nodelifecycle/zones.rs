//! How fast lost nodes may lose their pods. Pure: the time is passed in.
//!
//! As upstream: a zone's nodes are taken one by one at a rate; where most of a small zone is lost, none is, and where
//! most of a large one is, slower ones are; where nothing at all is left, everything stays where it is, and after that
//! the nodes get their grace period anew.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;

use super::plan::{is_losing_pods, readiness};
use crate::Config;
use crate::pods;

/// Nodes with this label count for nothing here.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
/// How often to look again where nothing may be taken at present; changes are heard of besides.
const RECHECK: Duration = Duration::from_secs(10);

/// Whether a lost node may lose its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evict {
    Now,
    /// To be asked again after this time.
    Later(Duration),
    /// Not as things are; it is asked again when they change.
    Never,
}

/// How many nodes of each zone are ready, and how many are not.
#[derive(Debug, Default)]
pub(super) struct Survey(HashMap<String, (usize, usize)>);

/// Counts nodes.
pub(super) fn survey<'a>(nodes: impl Iterator<Item = &'a Node>) -> Survey {
    let mut survey = Survey::default();
    for node in nodes.filter(|node| !pods::labels(&node.metadata).contains_key(EXCLUDED)) {
        let count = survey.0.entry(zone(node)).or_default();
        if readiness(node) == "True" { count.0 += 1 } else { count.1 += 1 }
    }
    survey
}

fn zone(node: &Node) -> String {
    let label = |key: &str| pods::labels(&node.metadata).get(key).map_or("", String::as_str);
    format!("{}\0{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

impl Survey {
    fn all_lost(&self) -> bool {
        self.0.values().all(|(ready, _)| *ready == 0)
    }

    /// Nodes per second that a zone may lose.
    fn rate(&self, zone: &str, config: &Config) -> f64 {
        let (ready, lost) = self.0.get(zone).copied().unwrap_or_default();
        let share = lost as f64 / (ready + lost).max(1) as f64;
        let mostly = ready > 0 && lost > 2 && share >= config.unhealthy_zone_threshold;
        match mostly {
            false => config.node_eviction_rate,
            true if ready + lost > config.large_zone => config.secondary_node_eviction_rate,
            true => 0.0,
        }
    }
}

/// What is remembered between decisions.
#[derive(Debug, Default)]
pub(super) struct Zones {
    /// When each zone's last node was taken, and which it was until it has its taint: the write may have failed.
    taken: HashMap<String, (Instant, Option<String>)>,
    /// Nothing was ready when it was last looked.
    all_lost: bool,
    /// When that ended.
    recovered: Option<Instant>,
}

impl Zones {
    /// Whether this lost node may lose its pods now. An answer of `Now` counts as used, and stands until the node is tainted.
    pub(super) fn may_evict(&mut self, node: &Node, survey: &Survey, config: &Config, now: Instant) -> Evict {
        if survey.all_lost() {
            self.all_lost = true;
            return Evict::Never;
        }
        if std::mem::take(&mut self.all_lost) {
            self.recovered = Some(now);
        }
        let (zone, name) = (zone(node), pods::name(&node.metadata));
        let turn = self.taken.get_mut(&zone).filter(|(_, owner)| owner.as_deref() == Some(name));
        if is_losing_pods(node) {
            turn.into_iter().for_each(|(_, owner)| *owner = None);
            return Evict::Now;
        }
        let has_turn = turn.is_some();
        let calm = self.recovered.map_or(now, |at| at + config.node_monitor_grace_period);
        if calm > now {
            return Evict::Later(calm - now);
        }
        let rate = survey.rate(&zone, config);
        if rate <= 0.0 {
            return Evict::Later(RECHECK);
        }
        if has_turn {
            return Evict::Now;
        }
        let pause = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
        let since = self.taken.get(&zone).map_or(Duration::MAX, |(at, _)| now.saturating_duration_since(*at));
        if since < pause {
            return Evict::Later((pause - since).min(RECHECK));
        }
        self.taken.insert(zone, (now, Some(name.to_owned())));
        Evict::Now
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn node(name: &str, zone: &str, ready: &str, tainted: bool) -> Node {
        let taints = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]);
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
            "spec": {"taints": if tainted { taints } else { json!([]) }},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    /// So many ready and lost nodes of a zone.
    fn some(zone: &str, ready: usize, lost: usize) -> Vec<Node> {
        let ready = (0..ready).map(|n| node(&format!("{zone}-r{n}"), zone, "True", false));
        ready.chain((0..lost).map(|n| node(&format!("{zone}-l{n}"), zone, "Unknown", false))).collect()
    }

    fn ask(zones: &mut Zones, nodes: &[Node], of: &str, now: Instant) -> Evict {
        let node = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(of)).unwrap();
        zones.may_evict(node, &survey(nodes.iter()), &Config::default(), now)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_node_at_a_time_in_each_zone() {
        let (mut zones, now) = (Zones::default(), Instant::now());
        let nodes = [some("a", 3, 2), some("b", 1, 1)].concat();
        assert_eq!(ask(&mut zones, &nodes, "a-l0", now), Evict::Now);
        assert_eq!(ask(&mut zones, &nodes, "a-l1", now + 4 * SECOND), Evict::Later(6 * SECOND));
        assert_eq!(ask(&mut zones, &nodes, "b-l0", now + 4 * SECOND), Evict::Now);
        assert_eq!(ask(&mut zones, &nodes, "a-l1", now + 10 * SECOND), Evict::Now);
        let under_way = [some("a", 3, 0), vec![node("x", "a", "Unknown", true)]].concat();
        assert_eq!(ask(&mut zones, &under_way, "x", now + 11 * SECOND), Evict::Now, "what has begun goes on");
    }

    #[test]
    fn a_turn_whose_write_failed_is_not_lost() {
        let (mut zones, now) = (Zones::default(), Instant::now());
        let nodes = some("a", 3, 2);
        assert_eq!(ask(&mut zones, &nodes, "a-l0", now), Evict::Now);
        assert_eq!(ask(&mut zones, &nodes, "a-l0", now + SECOND), Evict::Now, "it has no taint yet");
        assert_eq!(ask(&mut zones, &nodes, "a-l1", now + 4 * SECOND), Evict::Later(6 * SECOND), "that was one turn");
        let tainted = some("a", 3, 2).into_iter().map(|each| match &each.metadata.name {
            Some(name) if name == "a-l0" => node(name, "a", "Unknown", true),
            _ => each,
        });
        assert_eq!(ask(&mut zones, &tainted.collect::<Vec<_>>(), "a-l0", now + 5 * SECOND), Evict::Now);
        // It came back, and is lost anew: that is another turn.
        assert_eq!(ask(&mut zones, &nodes, "a-l0", now + 6 * SECOND), Evict::Later(4 * SECOND));
    }

    #[test]
    fn a_small_zone_that_is_mostly_lost_keeps_its_pods() {
        let (mut zones, now) = (Zones::default(), Instant::now());
        assert_eq!(ask(&mut zones, &some("a", 2, 3), "a-l0", now), Evict::Later(RECHECK));
        assert_eq!(ask(&mut zones, &some("a", 1, 2), "a-l0", now), Evict::Now, "two are not many");
        // A zone without any ready node is lost itself, while others live: its pods go.
        let nodes = [some("b", 0, 4), some("c", 1, 0)].concat();
        assert_eq!(ask(&mut zones, &nodes, "b-l0", now), Evict::Now);
        let large = some("d", 20, 40);
        assert_eq!(ask(&mut zones, &large, "d-l0", now), Evict::Now);
        assert_eq!(ask(&mut zones, &large, "d-l1", now + 99 * SECOND), Evict::Later(SECOND), "a tenth of the rate");
    }

    #[test]
    fn where_nothing_is_left_everything_stays_and_gets_its_time_anew() {
        let (mut zones, now) = (Zones::default(), Instant::now());
        let lost = vec![node("x", "a", "Unknown", true), node("y", "b", "False", false)];
        assert_eq!(ask(&mut zones, &lost, "x", now), Evict::Never, "also what had begun");
        let back = vec![node("x", "a", "Unknown", false), node("y", "b", "True", false)];
        assert_eq!(ask(&mut zones, &back, "x", now + 9 * SECOND), Evict::Later(40 * SECOND));
        assert_eq!(ask(&mut zones, &back, "x", now + 48 * SECOND), Evict::Later(SECOND));
        assert_eq!(ask(&mut zones, &back, "x", now + 49 * SECOND), Evict::Now);
    }
}

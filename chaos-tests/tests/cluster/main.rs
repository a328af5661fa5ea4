//! Whole clusters of real processes, driven by what a user types: `trireme`, every kubectl on the machine, `trictl`.
//!
//! The scenarios share one cluster, booted in a temporary folder under a name of this run.

mod first_look;
mod joining;
mod masters;
mod nodes;
mod refusals;
mod workloads;

use trireme_chaos_tests::Options;
use trireme_chaos_tests::suite::{self, Scenario};

/// In this order: what only looks comes first, what kills comes last.
const SCENARIOS: &[Scenario] = &[
    ("every_kubectl_reads_from_every_master", first_look::reads),
    ("every_kubectl_applies_through_every_master", first_look::applies),
    ("a_deployment_of_web_servers_behaves_as_upstream", workloads::web),
    ("pods_on_different_nodes_reach_each_other", workloads::across_nodes),
    ("a_replication_controller_keeps_its_replicas", workloads::replication_controller),
    ("bad_manifests_are_refused_and_change_nothing", refusals::manifests),
    ("strangers_are_refused", refusals::strangers),
    ("bad_joins_are_refused_and_leave_nothing", joining::refused),
    ("tokens_are_listed_and_deleted", joining::tokens),
    ("up_on_a_running_cluster_changes_nothing", masters::up_again),
    ("any_master_may_die", masters::any_master_may_die),
    ("containers_outlive_their_agent", nodes::agent_dies),
    ("clusters_live_side_by_side", nodes::side_by_side),
    ("down_leaves_nothing", nodes::down_leaves_nothing),
];

fn main() {
    suite::main(SCENARIOS, &Options::default())
}

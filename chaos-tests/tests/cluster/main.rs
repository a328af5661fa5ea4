//! Whole clusters of real processes, driven by what a user types: `trireme`, every kubectl on the machine, `trictl`.
//!
//! The scenarios share one cluster, booted in a temporary folder under a name of this run.

mod beside;
mod eyes;
mod first_look;
mod garbage;
mod joining;
mod masters;
mod node_loss;
mod nodes;
mod operations;
mod parity;
mod refusals;
mod rollouts;
mod status;
mod streams;
mod trouble;
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
    ("a_rolling_update_and_its_rollback_keep_their_promises", rollouts::rolling_update),
    ("recreate_never_runs_two_versions", rollouts::recreate),
    ("rollouts_pause_fail_and_forget", rollouts::pause_deadline_history),
    ("deletions_cascade_as_asked", garbage::cascades),
    ("dependents_block_their_owner_only_if_they_say_so", garbage::blocking),
    ("odd_owners_are_dealt_with", garbage::odd_owners),
    ("a_namespace_tells_what_keeps_it", garbage::namespace),
    ("every_client_streams_through_every_master", streams::clients),
    ("bad_manifests_are_refused_and_change_nothing", refusals::manifests),
    ("strangers_are_refused", refusals::strangers),
    ("bad_joins_are_refused_and_leave_nothing", joining::refused),
    ("tokens_are_listed_and_deleted", joining::tokens),
    ("status_of_a_healthy_cluster", status::healthy),
    ("trictl_has_every_flag_of_kubectl", parity::every_flag),
    ("trictl_shows_what_kubectl_shows", parity::reads),
    ("trictl_changes_what_kubectl_changes", parity::changes),
    ("trictl_administers_as_kubectl_does", parity::admin),
    ("up_on_a_running_cluster_changes_nothing", masters::up_again),
    ("any_master_may_die", masters::any_master_may_die),
    ("garbage_is_collected_although_the_leader_dies", garbage::leader_dies),
    ("sessions_end_with_their_agent", streams::sessions_end_with_their_agent),
    ("logs_go_on_when_their_master_dies", streams::logs_go_on),
    ("containers_outlive_their_agent", nodes::agent_dies),
    ("a_node_that_is_back_in_time_loses_nothing", node_loss::back_in_time),
    ("pods_of_a_host_that_is_cut_off_run_elsewhere_and_nothing_twice", node_loss::cut_off),
    ("a_host_that_dies_while_cut_off_comes_back_empty", node_loss::cut_off_and_killed),
    ("deleting_a_dead_node_frees_its_pods", node_loss::deleted_node),
    ("status_of_a_dead_master_and_a_dead_agent", status::losses),
    ("status_without_a_quorum", status::without_quorum),
    ("status_is_watched", status::watch),
    ("certificates_are_renewed_and_machines_reset", status::certificates),
    ("snapshots_recoveries_and_replacements", operations::the_store),
    ("clusters_live_side_by_side", nodes::side_by_side),
    ("down_leaves_nothing", nodes::down_leaves_nothing),
];

/// Lost nodes are dealt with sooner than by default.
fn settings() -> Options {
    let stay = node_loss::STAY;
    Options {
        master_args: vec![
            format!("--node-monitor-grace-period={}s", node_loss::GRACE),
            format!("--default-unreachable-toleration-seconds={stay}"),
            format!("--default-not-ready-toleration-seconds={stay}"),
            // Scenarios follow each other faster than nodes are lost elsewhere.
            "--node-eviction-rate=10".to_owned(),
        ],
        node_args: vec!["--node-lease-duration-seconds=4".to_owned(), "--node-status-update-frequency=1s".to_owned()],
        ..Options::default()
    }
}

fn main() {
    suite::main(SCENARIOS, &settings())
}

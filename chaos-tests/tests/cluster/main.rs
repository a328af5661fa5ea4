//! Whole clusters of real processes, driven by what a user types: `trireme`, every kubectl on the machine, `trictl`.
//!
//! The scenarios share one cluster, booted in a temporary folder under a name of this run. Before each of them
//! `trireme up` brings back what the one before has killed; at the end, and whatever happens, the cluster is taken down.
//! Arguments are those of the standard test harness as far as they make sense: `--list`, `--exact`, `--skip`, filters.

mod first_look;
mod harness;
mod joining;
mod masters;
mod nodes;
mod refusals;
mod workloads;

use std::time::Instant;

use anyhow::Result;
use harness::Cluster;

type Scenario = (&'static str, fn(&Cluster) -> Result<()>);

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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let chosen = select(&arguments);
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return;
    }
    println!("\nrunning {} tests", chosen.len());
    let start = Instant::now();
    let failed = if chosen.is_empty() { 0 } else { run(&chosen) };
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        chosen.len() - failed,
        SCENARIOS.len() - chosen.len(),
        start.elapsed().as_secs_f64()
    );
    std::process::exit(if failed == 0 { 0 } else { 101 });
}

fn select(arguments: &[String]) -> Vec<Scenario> {
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let matches = |name: &str, filter: &String| if exact { name == filter } else { name.contains(filter.as_str()) };
    let mut filters = Vec::new();
    let mut skips = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--skip" => skips.extend(rest.next()),
            "--format" | "--test-threads" | "--color" | "-Z" | "--logfile" => drop(rest.next()),
            flag if flag.starts_with('-') => {}
            _ => filters.push(argument),
        }
    }
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| matches(name, filter));
    let skipped = |name: &str| skips.iter().any(|skip| matches(name, skip));
    SCENARIOS.iter().filter(|(name, _)| wanted(name) && !skipped(name)).copied().collect()
}

/// Runs scenarios on one cluster; how many failed.
fn run(scenarios: &[Scenario]) -> usize {
    let cluster = match Cluster::boot() {
        Ok(cluster) => cluster,
        Err(error) => {
            println!("the cluster does not boot: {error:#}");
            return scenarios.len();
        }
    };
    let mut failed = 0;
    for (name, scenario) in scenarios {
        let start = Instant::now();
        let outcome = cluster.mend().and_then(|()| guarded(*scenario, &cluster));
        match outcome {
            Ok(()) => println!("test {name} ... ok ({:.1} s)", start.elapsed().as_secs_f64()),
            Err(error) => {
                failed += 1;
                println!(
                    "test {name} ... FAILED ({:.1} s)\n---- {name} ----\n{error:#}",
                    start.elapsed().as_secs_f64()
                );
                cluster.print_logs();
            }
        }
    }
    if let Err(error) = cluster.down() {
        println!("taking the cluster down: {error:#}");
        failed = failed.max(1);
    }
    failed
}

/// A panic is a failure of its scenario alone.
fn guarded(scenario: fn(&Cluster) -> Result<()>, cluster: &Cluster) -> Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scenario(cluster)))
        .unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")))
}

//! The main function of a suite of scenarios that share a cluster.
//!
//! Before each scenario `trireme up` brings back what the one before has killed; at the end, and whatever happens, the
//! cluster is taken down. Arguments are those of the standard test harness as far as they make sense: `--list`,
//! `--exact`, `--skip`, filters.

use std::time::Instant;

use anyhow::Result;

use crate::cluster::{Cluster, Options};

/// A name and what it does.
pub type Scenario = (&'static str, fn(&Cluster) -> Result<()>);

/// Runs what the program's arguments choose, and ends the program.
pub fn main(scenarios: &[Scenario], options: &Options) -> ! {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let chosen = select(scenarios, &arguments);
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        std::process::exit(0);
    }
    println!("\nrunning {} tests", chosen.len());
    let start = Instant::now();
    let failed = if chosen.is_empty() { 0 } else { run(&chosen, options) };
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        chosen.len() - failed,
        scenarios.len() - chosen.len(),
        start.elapsed().as_secs_f64()
    );
    std::process::exit(if failed == 0 { 0 } else { 101 });
}

fn select(scenarios: &[Scenario], arguments: &[String]) -> Vec<Scenario> {
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
    scenarios.iter().filter(|(name, _)| wanted(name) && !skipped(name)).copied().collect()
}

/// Runs scenarios on one cluster; how many failed.
fn run(scenarios: &[Scenario], options: &Options) -> usize {
    let cluster = match Cluster::boot(options) {
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

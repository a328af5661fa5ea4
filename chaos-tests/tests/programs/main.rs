//! Short forms of the programs that measure and judge, so that they and what they check do not rot.

use std::time::Duration;

use anyhow::Result;
use trireme_chaos_tests::suite::{self, Scenario};
use trireme_chaos_tests::{Cluster, Options, failover, soak};

const SCENARIOS: &[Scenario] = &[
    ("killed_leaders_lose_nothing", killed_leaders_lose_nothing),
    ("a_minute_of_chaos_leaves_nothing", a_minute_of_chaos_leaves_nothing),
];

fn main() {
    suite::main(SCENARIOS, &Options { prefix: "p", ..failover::options() })
}

fn wait<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// `make failover` with three kills.
fn killed_leaders_lose_nothing(cluster: &Cluster) -> Result<()> {
    wait(async {
        failover::run(cluster, 3).await?;
        failover::tidy_up(cluster).await
    })
}

/// `make soak` of less than a minute.
fn a_minute_of_chaos_leaves_nothing(cluster: &Cluster) -> Result<()> {
    wait(soak::run(cluster, Duration::from_secs(45), rand::random::<u32>().into())).map(drop)
}

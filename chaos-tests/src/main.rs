//! `trireme-bench bench|failover|soak`: programs that boot a cluster of the built program, measure it and judge it.
//! `trireme-bench bench-store`: the store alone, beside etcd. `trireme-bench chaos [FILE | proofs [WORD]]`: the store alone,
//! under faults; `sim`: the same, simulated; a file is a history that was kept, and proofs are that known bugs are seen.
//!
//! `trireme-bench bench-api`: what requests to the API cost.
//!
//! `trireme-bench compat [KUBECONFIG]`: every stable operation of upstream's API with real requests, each effect read back.
//!
//! `trireme-bench schemathesis`: requests made out of our own OpenAPI document; none may find the server at fault.
//!
//! Settings come from the environment: `COUNT`, `SECONDS`, `SEED`, `RUNS`, `KEYS`, `MIB`, `ONLY`; `TRIREME_BIN` chooses another binary.

use std::process::ExitCode;

use anyhow::{Result, bail};
use trireme_chaos_tests::{bench, compat, failover, schemathesis, soak, store};

fn main() -> ExitCode {
    let chosen = std::env::args().nth(1).unwrap_or_default();
    match run(&chosen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{chosen}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chosen: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match chosen {
        "bench" => runtime.block_on(bench::program()),
        "bench-api" => runtime.block_on(bench::api::program()),
        "failover" => runtime.block_on(failover::program()),
        "soak" => runtime.block_on(soak::program()),
        "compat" => runtime.block_on(compat::program(std::env::args().nth(2).map(Into::into))),
        "schemathesis" => schemathesis::program(),
        "chaos" => runtime.block_on(store::run::program(&std::env::args().skip(2).collect::<Vec<_>>())),
        "sim" => store::sim::program(),
        "bench-store" => runtime.block_on(store::bench::program()),
        other => bail!(
            "{other:?} is none of bench, bench-api, failover, soak, compat, schemathesis, chaos, sim, bench-store"
        ),
    }
}

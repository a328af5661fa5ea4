//! `trireme status`: one screen that says whether a cluster is well, and what to type if it is not.
//!
//! [`collect`] asks, [`build`] and [`judge`] make a [`report`] of the answers, [`render`] writes it; the last three are
//! pure. [`watch`] does it again whenever something changes.

mod build;
pub(crate) mod collect;
mod judge;
mod render;
mod report;
mod target;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;

use crate::admin::member::Output;
use crate::ctl::time::duration;
use collect::{Agent, Answer, Collector, Facts};
use report::{Report, Verdict};
use target::Target;

/// Exit code for what could not even be tried.
pub const UNUSABLE: u8 = 2;

/// `trireme status`
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit codes: 0 the cluster is well, 1 it is degraded, 2 it cannot be reached or the command cannot \
                        be carried out.\nWithout --name and --kubeconfig: the cluster of $KUBECONFIG, else the local cluster \
                        \"default\", else that of ~/.kube/config."
)]
pub struct Args {
    /// Name of a local cluster, as made by `trireme up`.
    #[arg(long)]
    pub name: Option<String>,
    /// Folder that holds the local clusters [default: .trireme].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Kubeconfig of an administrator; any master that it names will do.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "dir"])]
    pub kubeconfig: Option<PathBuf>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Go on, and show what changes until Ctrl-C: in place on a terminal, else one report after the other.
    #[arg(short, long)]
    pub watch: bool,
    /// How long to wait for an answer.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub timeout: Duration,
}

/// Runs the command.
///
/// # Errors
/// When there is nothing to ask.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let target = Target::choose(&args)?;
    let mut collector = Collector::new(target.access.clone(), args.timeout)?;
    if args.watch {
        return watch::run(&args, &target, collector).await;
    }
    let report = once(&target, &mut collector).await?;
    print(&report, args.output)?;
    Ok(ExitCode::from(report.verdict.code()))
}

/// Asks everybody once.
async fn once(target: &Target, collector: &mut Collector) -> anyhow::Result<Report> {
    let masters = collector.masters().await?;
    if masters.iter().all(|answer| answer.status.is_err()) {
        return Ok(make(target, &masters, Err("no master answers"), &BTreeMap::new()));
    }
    // Without a quorum a master tells what it knows by itself.
    let stale = masters.iter().all(|answer| answer.ready.is_err());
    let facts = collector.facts(stale).await;
    let agents = match &facts {
        Ok(facts) => collector.agents(names(facts)).await,
        Err(_) => BTreeMap::new(),
    };
    Ok(make(target, &masters, facts.as_ref().map_err(String::as_str), &agents))
}

fn names(facts: &Facts) -> Vec<String> {
    facts.nodes.iter().filter_map(|node| node.metadata.name.clone()).collect()
}

/// The judged report.
fn make(
    target: &Target,
    masters: &[Answer],
    facts: Result<&Facts, &str>,
    agents: &BTreeMap<String, Result<Agent, String>>,
) -> Report {
    let hosts = target.local.as_ref().map(|local| local.hosts());
    let up = target.local.as_ref().map(|local| local.up());
    let mut report = build::build(&build::Found {
        cluster: &target.name,
        masters,
        facts,
        agents,
        hosts: hosts.as_deref(),
        credential: target.credential.as_ref(),
        now: Timestamp::now(),
    });
    judge::judge(&mut report, up.as_deref());
    if let (Err(why), true) = (facts, report.verdict != Verdict::Unreachable) {
        let hint = "ask again; if it stays so, look at the masters' logs".to_owned();
        report.problems.push(report::Finding { about: "api".to_owned(), what: why.to_owned(), hint });
        report.verdict = Verdict::Degraded;
    }
    report
}

fn print(report: &Report, output: Output) -> anyhow::Result<()> {
    let text = match output {
        Output::Json => serde_json::to_string_pretty(report)? + "\n",
        Output::Table => render::text(report),
    };
    // Whoever reads may have seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

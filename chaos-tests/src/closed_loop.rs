//! Closed loops of clients, each of which asks again as soon as it has its answer, and the choice among workloads: what the
//! programs that measure the API and the store have in common.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{report, usage};

/// Workloads that `ONLY` names by parts of their names, or as `name=number`; without it, all.
#[derive(Clone, Debug, Default)]
pub struct Only(Vec<String>);

impl Only {
    /// From the environment.
    pub fn from_environment() -> Self {
        Self::of(&std::env::var("ONLY").unwrap_or_default())
    }

    fn of(words: &str) -> Self {
        Self(words.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect())
    }

    /// Whether a workload of this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        // With a number a word means just that: "puts=1" is not "puts=16".
        let means =
            |word: &String| if word.contains('=') { name.ends_with(word) } else { name.contains(word.as_str()) };
        self.0.is_empty() || self.0.iter().any(means)
    }
}

/// Somebody who asks.
pub trait Client: Send + 'static {
    /// Asks once, and waits for the answer.
    fn once(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// What one run found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Answers in a second.
    pub ops: f64,
    /// Milliseconds.
    pub p50: f64,
    /// Milliseconds.
    pub p99: f64,
    /// Processor time of all who serve for one answer, in microseconds.
    pub cpu: f64,
    /// That of the clients.
    pub client_cpu: f64,
}

/// Milliseconds of each answer that came within the time.
async fn answers(mut client: impl Client, from: Instant, until: Instant) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    loop {
        let begun = Instant::now();
        if begun >= until {
            return Ok(took);
        }
        client.once().await?;
        let end = Instant::now();
        if end >= from && end < until {
            took.push(report::ms(end - begun));
        }
    }
}

/// Lets clients work for some time after a warm-up; `cpu` is what those who serve have used.
///
/// # Errors
/// When anything is not answered as it should be.
pub async fn run<C: Client>(
    clients: Vec<C>,
    warm_up: Duration,
    time: Duration,
    cpu: impl Fn() -> Result<Duration>,
) -> Result<Run> {
    let from = Instant::now() + warm_up;
    let until = from + time;
    let tasks: Vec<_> = clients.into_iter().map(|client| tokio::spawn(answers(client, from, until))).collect();
    let own = std::process::id() as i32;
    tokio::time::sleep_until(from.into()).await;
    let before = (cpu()?, usage::cpu(own)?);
    tokio::time::sleep_until(until.into()).await;
    let after = (cpu()?, usage::cpu(own)?);
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    let count = took.len().max(1) as f64;
    Ok(Run {
        ops: took.len() as f64 / time.as_secs_f64(),
        p50: report::percentile(&took, 50.0),
        p99: report::percentile(&took, 99.0),
        cpu: after.0.saturating_sub(before.0).as_secs_f64() * 1e6 / count,
        client_cpu: after.1.saturating_sub(before.1).as_secs_f64() * 1e6 / count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_choose_workloads() {
        let wants = |words: &str, name: &str| Only::of(words).wants(name);
        assert!(wants("", "puts=16") && wants("puts", "puts=16") && wants("gets,puts=16", "create puts=16"));
        assert!(!wants("puts=1", "puts=16") && !wants("gets", "puts=16") && !wants("puts=16", "puts"));
    }
}

//! Memory of masters and agents over the lives of their processes.
//!
//! The rule: of a process that lived for at least a third of the run, the median of the last quarter of its samples may
//! exceed the median of the second quarter by a fifth and 8 MiB. The first quarter is not counted: caches fill then. Nor
//! are runs of less than a quarter of an hour judged at all: masters keep a history of five minutes, which fills first.
//! In a longer one there has to be a master and an agent that could be judged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::report::{median, table};
use crate::usage;

/// What may be added besides a fifth, in MiB.
const SLACK: f64 = 8.0;
/// How long a run has to last.
const SHORTEST: Duration = Duration::from_secs(900);
/// Fewer samples tell nothing.
const FEWEST: usize = 12;
/// Samples in a run.
const SAMPLES: u32 = 120;

/// PSS in MiB of each process, by host and pid, with the seconds since the beginning.
pub type Samples = BTreeMap<(String, i32), Vec<(f64, f64)>>;

/// Samples until stopped.
pub async fn sample(cluster: &Cluster, time: Duration, stop: CancellationToken) -> Samples {
    let (begun, mut samples) = (Instant::now(), Samples::new());
    let pause = (time / SAMPLES).max(Duration::from_secs(1));
    loop {
        for host in cluster.hosts() {
            if let Ok(pid) = cluster.pid(host)
                && let Ok(memory) = usage::memory(pid)
                && memory.pss > 0.0
            {
                let seconds = begun.elapsed().as_secs_f64();
                samples.entry((host.clone(), pid)).or_default().push((seconds, memory.pss));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return samples,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Prints the samples of a run that was to last so long; rows, and what is wrong: who has grown, who was not judged.
pub fn judge(samples: &Samples, time: Duration) -> (Vec<Value>, Vec<String>) {
    let (mut rows, mut lines, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    let mut unjudged = if time < SHORTEST { vec![] } else { vec!["master", "node"] };
    for ((host, pid), taken) in samples {
        let values: Vec<f64> = taken.iter().map(|(_, pss)| *pss).collect();
        let life = taken.last().map_or(0.0, |last| last.0) - taken.first().map_or(0.0, |first| first.0);
        let counts = values.len() >= FEWEST && life >= time.as_secs_f64() / 3.0;
        let verdict = match growth(&values) {
            Some((early, late)) if time < SHORTEST => format!("{early:.1} to {late:.1}: too short a run"),
            Some((early, late)) if counts => {
                let flat = late <= early * 1.2 + SLACK;
                unjudged.retain(|kind| !host.starts_with(*kind));
                if !flat {
                    wrong.push(format!("{host} (pid {pid}) has grown from {early:.1} to {late:.1} MiB"));
                }
                format!("{early:.1} to {late:.1}: {}", if flat { "flat" } else { "GROWN" })
            }
            _ => "too short a life".to_owned(),
        };
        let shown: Vec<String> = spread(&values, 8).iter().map(|value| format!("{value:.0}")).collect();
        lines.push(vec![host.clone(), pid.to_string(), format!("{life:.0}"), shown.join(" "), verdict]);
        rows.push(json!({"workload": "soak memory", "host": host, "pid": pid, "samples": taken}));
    }
    println!("\nPSS in MiB; flat: the last quarter's median at most a fifth and {SLACK} MiB above the second's");
    table(&["host", "pid", "lived, s", "samples", "second to last quarter"], &lines);
    println!();
    wrong.extend(unjudged.iter().map(|kind| format!("no {kind} lived long enough to be judged")));
    (rows, wrong)
}

/// Medians of the second and the last quarter.
fn growth(values: &[f64]) -> Option<(f64, f64)> {
    let quarter = values.len() / 4;
    (quarter > 0).then(|| (median(&values[quarter..2 * quarter]), median(&values[values.len() - quarter..])))
}

/// At most so many values, evenly chosen, the last among them.
fn spread(values: &[f64], count: usize) -> Vec<f64> {
    if values.len() <= count {
        return values.to_vec();
    }
    (0..count).map(|index| values[index * (values.len() - 1) / (count - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_from_filling_caches() {
        let lives = |hosts: &[&str], values: Vec<f64>| {
            let taken: Vec<(f64, f64)> =
                values.into_iter().enumerate().map(|(minute, pss)| (minute as f64 * 60.0, pss)).collect();
            let time = Duration::from_secs(taken.len() as u64 * 60);
            judge(&hosts.iter().map(|host| (((*host).to_owned(), 7), taken.clone())).collect(), time).1
        };
        let both = ["master-1", "node-1"];
        let flat: Vec<f64> = (0..40).map(|n| 30.0 + f64::from(n.min(10)) * 4.0).collect();
        assert!(lives(&both, flat.clone()).is_empty());
        assert_eq!(lives(&both, (0..40).map(|n| 30.0 + f64::from(n) * 2.0).collect()).len(), 2);
        assert!(lives(&both, (0..14).map(|n| 30.0 + f64::from(n) * 9.0).collect()).is_empty(), "too short a run");
        assert_eq!(lives(&["master-1"], flat.clone()), ["no node lived long enough to be judged"]);
        assert_eq!(lives(&[], flat).len(), 2, "nobody was judged");
    }
}

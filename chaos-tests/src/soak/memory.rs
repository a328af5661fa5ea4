//! Memory of masters and agents over the lives of their processes.
//!
//! The rule: of a process that lived for at least a third of the run, the median of the last quarter of its samples may
//! exceed the median of the second quarter by a fifth and 8 MiB. The first quarter is not counted: caches fill then. Nor
//! are runs of less than a quarter of an hour judged at all: masters keep a history of five minutes, which fills first.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::report::{median, table};
use crate::usage;

/// What may be added besides a fifth, in MiB.
const SLACK: f64 = 8.0;
/// Seconds that a run has to last.
const SHORTEST: f64 = 900.0;
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

/// Prints the samples; rows, and who has grown.
pub fn judge(samples: &Samples) -> (Vec<Value>, Vec<String>) {
    let ends = samples.values().flatten().map(|(seconds, _)| *seconds);
    let whole = ends.fold(0.0, f64::max);
    let (mut rows, mut lines, mut grown) = (Vec::new(), Vec::new(), Vec::new());
    for ((host, pid), taken) in samples {
        let values: Vec<f64> = taken.iter().map(|(_, pss)| *pss).collect();
        let life = taken.last().map_or(0.0, |last| last.0) - taken.first().map_or(0.0, |first| first.0);
        let counts = values.len() >= FEWEST && life >= whole / 3.0;
        let verdict = match growth(&values) {
            Some((early, late)) if whole < SHORTEST => format!("{early:.1} to {late:.1}: too short a run"),
            Some((early, late)) if counts => {
                let flat = late <= early * 1.2 + SLACK;
                if !flat {
                    grown.push(format!("{host} (pid {pid}) from {early:.1} to {late:.1} MiB"));
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
    (rows, grown)
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
        let life = |values: Vec<f64>| {
            let taken = values.into_iter().enumerate().map(|(minute, pss)| (minute as f64 * 60.0, pss)).collect();
            judge(&Samples::from([(("master-1".to_owned(), 7), taken)])).1
        };
        assert!(life((0..40).map(|n| 30.0 + f64::from(n.min(10)) * 4.0).collect()).is_empty());
        assert_eq!(life((0..40).map(|n| 30.0 + f64::from(n) * 2.0).collect()).len(), 1);
        assert!(life((0..14).map(|n| 30.0 + f64::from(n) * 9.0).collect()).is_empty(), "too short a run");
    }
}

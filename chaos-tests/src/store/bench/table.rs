//! What was measured, as a table for people and as rows for programs.

use serde_json::{Value, json};

use super::group::Side;
use super::load::Run;
use crate::report::{self, median};

/// The runs of one workload.
struct Line {
    name: String,
    clients: usize,
    ours: Vec<Run>,
    etcd: Vec<Run>,
}

/// Memory of a side with some keys: PSS, and what is backed by no file.
struct Memory {
    side: Side,
    keys: u64,
    pss: f64,
    anonymous: f64,
}

/// All of it.
pub struct Table {
    versions: [String; 2],
    lines: Vec<Line>,
    memory: Vec<Memory>,
    /// Pauses of ours and etcd's.
    failovers: [Vec<f64>; 2],
}

fn of(runs: &[Run], part: fn(&Run) -> f64) -> f64 {
    median(&runs.iter().map(part).collect::<Vec<f64>>())
}

/// A figure of both sides, and their ratio.
fn both(ours: f64, etcd: f64, digits: usize) -> [String; 2] {
    [format!("{ours:.digits$} / {etcd:.digits$}"), format!("{:.2}", ours / etcd)]
}

impl Table {
    /// An empty one.
    pub fn new(versions: [String; 2]) -> Self {
        Self { versions, lines: Vec::new(), memory: Vec::new(), failovers: Default::default() }
    }

    /// A run of a workload.
    pub fn add(&mut self, name: &str, clients: usize, side: Side, run: Run) {
        let known = self.lines.iter_mut().position(|line| line.name == name && line.clients == clients);
        let at = known.unwrap_or_else(|| {
            self.lines.push(Line { name: name.to_owned(), clients, ours: Vec::new(), etcd: Vec::new() });
            self.lines.len() - 1
        });
        match side {
            Side::Ours => self.lines[at].ours.push(run),
            Side::Etcd => self.lines[at].etcd.push(run),
        }
    }

    /// Memory once there are so many keys.
    pub fn remember(&mut self, side: Side, keys: u64, pss: f64, anonymous: f64) {
        self.memory.push(Memory { side, keys, pss, anonymous });
    }

    /// A pause after a kill of the leader.
    pub fn add_failover(&mut self, side: Side, pause: f64) {
        self.failovers[usize::from(side == Side::Etcd)].push(pause);
    }

    /// Prints everything: medians, ratios, and each run.
    pub fn print(&self) {
        let [ours, etcd] = &self.versions;
        println!("\nEach figure: trireme {ours} / etcd {etcd}, medians of the runs, then the ratio.\n");
        let head = [
            "workload",
            "clients",
            "ops/s",
            "x",
            "p50 ms",
            "x",
            "p99 ms",
            "x",
            "cpu us/op",
            "x",
            "clients'",
            "PSS MiB",
        ];
        let rows = self.lines.iter().filter(|line| !line.ours.is_empty() && !line.etcd.is_empty()).map(|line| {
            let figures = |part: fn(&Run) -> f64, digits| both(of(&line.ours, part), of(&line.etcd, part), digits);
            let mut row = vec![line.name.clone(), line.clients.to_string()];
            row.extend(figures(|r| r.ops, 0));
            row.extend(figures(|r| r.p50, 2));
            row.extend(figures(|r| r.p99, 2));
            row.extend(figures(|r| r.cpu, 0));
            row.push(figures(|r| r.client_cpu, 0)[0].clone());
            row.push(figures(|r| r.pss, 0)[0].clone());
            row
        });
        report::table(&head, &rows.collect::<Vec<_>>());
        println!("\nRuns, ops/s:");
        for line in &self.lines {
            let runs = |runs: &[Run]| runs.iter().map(|r| format!("{:.0}", r.ops)).collect::<Vec<_>>().join(" ");
            println!("  {}, {}: {} / {}", line.name, line.clients, runs(&line.ours), runs(&line.etcd));
        }
        for m in &self.memory {
            println!(
                "memory of {} with {} keys: {:.0} MiB, {:.0} anonymous",
                m.side.name(),
                m.keys,
                m.pss,
                m.anonymous
            );
        }
        for (side, pauses) in ["trireme", "etcd"].iter().zip(&self.failovers).filter(|(_, p)| !p.is_empty()) {
            let all: Vec<String> = pauses.iter().map(|pause| format!("{pause:.0}")).collect();
            let worst = report::percentile(pauses, 100.0);
            println!("failover of {side}: median {:.0} ms, worst {worst:.0} ms; {}", median(pauses), all.join(" "));
        }
        println!();
    }

    fn version(&self, side: Side) -> &str {
        &self.versions[usize::from(side == Side::Etcd)]
    }

    /// A row for each side of each workload.
    pub fn rows(&self) -> Vec<Value> {
        let row = |line: &Line, side: Side, runs: &[Run]| {
            json!({
                "workload": line.name, "clients": line.clients, "side": side.name(), "version": self.version(side),
                "ops_per_s": of(runs, |r| r.ops), "p50_ms": of(runs, |r| r.p50), "p99_ms": of(runs, |r| r.p99),
                "cpu_us_per_op": of(runs, |r| r.cpu), "client_cpu_us_per_op": of(runs, |r| r.client_cpu),
                "pss_mib": of(runs, |r| r.pss), "runs_ops_per_s": runs.iter().map(|r| r.ops).collect::<Vec<_>>(),
            })
        };
        let mut rows = Vec::new();
        for line in &self.lines {
            for (side, runs) in [(Side::Ours, &line.ours), (Side::Etcd, &line.etcd)] {
                if !runs.is_empty() {
                    rows.push(row(line, side, runs));
                }
            }
        }
        rows.extend(self.memory.iter().map(|m| {
            json!({
                "workload": format!("memory with {} keys", m.keys), "side": m.side.name(),
                "version": self.version(m.side), "pss_mib": m.pss, "anonymous_mib": m.anonymous,
            })
        }));
        for (side, pauses) in [Side::Ours, Side::Etcd].into_iter().zip(&self.failovers) {
            if !pauses.is_empty() {
                rows.push(json!({
                    "workload": "failover", "side": side.name(), "version": self.version(side),
                    "p50_ms": median(pauses), "max_ms": report::percentile(pauses, 100.0), "runs_ms": pauses,
                }));
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_carry_medians_versions_and_all_runs() {
        let mut table = Table::new(["1".to_owned(), "2".to_owned()]);
        for (side, ops) in [(Side::Ours, 10.0), (Side::Etcd, 5.0), (Side::Ours, 30.0), (Side::Etcd, 7.0)] {
            table.add("puts", 16, side, Run { ops, ..Run::default() });
        }
        table.remember(Side::Etcd, 100, 9.0, 8.0);
        for pause in [3.0, 1.0, 8.0] {
            table.add_failover(Side::Ours, pause);
        }
        let rows = table.rows();
        assert_eq!(rows.len(), 4);
        assert_eq!((&rows[0]["side"], &rows[0]["version"]), (&json!("trireme"), &json!("1")));
        assert_eq!((&rows[0]["ops_per_s"], &rows[0]["runs_ops_per_s"]), (&json!(20.0), &json!([10.0, 30.0])));
        assert_eq!((&rows[1]["side"], &rows[1]["version"]), (&json!("etcd"), &json!("2")));
        assert_eq!(rows[1]["ops_per_s"], json!(6.0));
        assert_eq!(rows[2]["pss_mib"], json!(9.0));
        assert_eq!((&rows[3]["p50_ms"], &rows[3]["max_ms"]), (&json!(3.0), &json!(8.0)));
    }
}

//! What was measured, as tables for people and as rows for programs.

use serde_json::{Value, json};

use super::lists::{Answer, Question};
use super::watches::Told;
use crate::closed_loop::Run;
use crate::report::{self, judge, median, percentile};

/// What is aimed at for a workload of requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aims {
    /// At least so many answers in a second.
    pub ops: Option<f64>,
    /// At most so many milliseconds.
    pub p99: Option<f64>,
    /// At most so many microseconds of all masters' processors for one.
    pub cpu: Option<f64>,
}

/// All of it.
#[derive(Default)]
pub struct Table {
    requests: Vec<(String, usize, Aims, Vec<Run>)>,
    lists: Vec<(Question, Answer)>,
    watches: Vec<(usize, Told)>,
}

fn of(runs: &[Run], part: fn(&Run) -> f64) -> f64 {
    median(&runs.iter().map(part).collect::<Vec<f64>>())
}

/// The verdicts on figures that have an aim.
fn verdicts(all: &[(&str, f64, Option<f64>, bool)]) -> String {
    let told = all.iter().filter_map(|(what, value, aim, more)| {
        let aim = (*aim)?;
        let judged = if *more { judge(aim, *value) } else { judge(*value, aim) };
        let sign = if *more { ">=" } else { "<=" };
        Some(format!("{what} {sign} {aim:.0}: {judged}"))
    });
    told.collect::<Vec<_>>().join("; ")
}

fn row(cells: &[&dyn std::fmt::Display]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

impl Table {
    /// The runs of one workload.
    pub fn requests(&mut self, name: String, clients: usize, aims: Aims, runs: Vec<Run>) {
        self.requests.push((name, clients, aims, runs));
    }

    /// A list.
    pub fn list(&mut self, question: Question, answer: Answer) {
        self.lists.push((question, answer));
    }

    /// Watchers.
    pub fn watch(&mut self, watchers: usize, told: Told) {
        self.watches.push((watchers, told));
    }

    /// Prints everything.
    pub fn print(&self) {
        if !self.requests.is_empty() {
            self.print_requests();
        }
        if !self.lists.is_empty() {
            self.print_lists();
        }
        if !self.watches.is_empty() {
            self.print_watches();
        }
    }

    fn print_requests(&self) {
        let head = ["requests", "connections", "in a second", "p50 ms", "p99 ms", "cpu us", "clients' us", "aims"];
        let rows = self.requests.iter().map(|(name, clients, aims, runs)| {
            let (ops, p99, cpu) = (of(runs, |r| r.ops), of(runs, |r| r.p99), of(runs, |r| r.cpu));
            let judged =
                verdicts(&[("/s", ops, aims.ops, true), ("p99", p99, aims.p99, false), ("cpu", cpu, aims.cpu, false)]);
            let figures = [(ops, 0), (of(runs, |r| r.p50), 2), (p99, 2), (cpu, 0), (of(runs, |r| r.client_cpu), 0)];
            let mut row = row(&[name, clients]);
            row.extend(figures.iter().map(|(value, digits)| format!("{value:.digits$}")));
            row.push(judged);
            row
        });
        println!("\nMedians of the runs; \"cpu\" is that of all three masters for one request.\n");
        report::table(&head, &rows.collect::<Vec<_>>());
        println!("\nRuns, in a second:");
        for (name, clients, _, runs) in &self.requests {
            let all = runs.iter().map(|r| format!("{:.0}", r.ops)).collect::<Vec<_>>().join(" ");
            println!("  {name}, {clients}: {all}");
        }
    }

    fn print_lists(&self) {
        let head = ["lists", "ms", "slowest", "MiB", "memory above idle, MiB", "cpu ms", "aims"];
        let rows = self.lists.iter().map(|(question, answer)| {
            let ms = median(&answer.ms);
            let judged = verdicts(&[("ms", ms, question.aim_ms, false), ("MiB", answer.mib, question.aim_mib, false)]);
            let figures = [ms, percentile(&answer.ms, 100.0), answer.bytes as f64 / f64::from(1 << 20), answer.mib];
            let mut row = vec![question.name.clone()];
            row.extend(figures.iter().map(|value| format!("{value:.1}")));
            row.extend([format!("{:.1}", answer.cpu_ms), judged]);
            row
        });
        println!("\nA list is read whole by one client; medians.\n");
        report::table(&head, &rows.collect::<Vec<_>>());
    }

    fn print_watches(&self) {
        let head = ["watchers", "to the last, p50 ms", "p99 ms", "cpu us per event", "clients' us", "KiB per watch"];
        let rows = self.watches.iter().map(|(watchers, told)| {
            let mut row = row(&[watchers]);
            let figures = [median(&told.ms), percentile(&told.ms, 99.0), told.cpu, told.client_cpu, told.kib];
            row.extend(figures.iter().map(|value| format!("{value:.1}")));
            row
        });
        println!("\nFrom the beginning of a write until the last watcher knows.\n");
        report::table(&head, &rows.collect::<Vec<_>>());
    }

    /// A row for each line.
    pub fn rows(&self) -> Vec<Value> {
        let requests = self.requests.iter().map(|(name, clients, _, runs)| {
            json!({
                "workload": name, "clients": clients, "ops_per_s": of(runs, |r| r.ops), "p50_ms": of(runs, |r| r.p50),
                "p99_ms": of(runs, |r| r.p99), "cpu_us_per_op": of(runs, |r| r.cpu),
                "client_cpu_us_per_op": of(runs, |r| r.client_cpu),
                "runs_ops_per_s": runs.iter().map(|r| r.ops).collect::<Vec<_>>(),
            })
        });
        let lists = self.lists.iter().map(|(question, answer)| {
            json!({
                "workload": question.name, "clients": 1, "p50_ms": median(&answer.ms),
                "p99_ms": percentile(&answer.ms, 99.0), "bytes": answer.bytes, "anonymous_mib_above_idle": answer.mib,
                "cpu_us_per_op": answer.cpu_ms * 1000.0, "runs_ms": answer.ms,
            })
        });
        let watches = self.watches.iter().map(|(watchers, told)| {
            json!({
                "workload": "watch fan-out", "clients": watchers, "p50_ms": median(&told.ms),
                "p99_ms": percentile(&told.ms, 99.0), "cpu_us_per_op": told.cpu,
                "client_cpu_us_per_op": told.client_cpu, "kib_per_watch": told.kib,
            })
        });
        requests.chain(lists).chain(watches).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aims_are_judged_in_their_direction() {
        let all = [("/s", 1000.0, Some(2000.0), true), ("p99", 10.0, Some(20.0), false), ("cpu", 1.0, None, false)];
        assert_eq!(verdicts(&all), "/s >= 2000: missed (2.0 times); p99 <= 20: met");
    }

    #[test]
    fn rows_carry_medians_and_all_runs() {
        let mut table = Table::default();
        let runs = [10.0, 30.0].map(|ops| Run { ops, ..Run::default() });
        table.requests("create pods".into(), 32, Aims::default(), runs.to_vec());
        table.list(Question::new("list", "/x", 1), Answer { ms: vec![3.0, 1.0, 2.0], bytes: 7, ..Answer::default() });
        table.watch(1000, Told { ms: vec![5.0], ..Told::default() });
        let rows = table.rows();
        assert_eq!((&rows[0]["ops_per_s"], &rows[0]["runs_ops_per_s"]), (&json!(20.0), &json!([10.0, 30.0])));
        assert_eq!((&rows[1]["p50_ms"], &rows[1]["bytes"]), (&json!(2.0), &json!(7)));
        assert_eq!((&rows[2]["clients"], &rows[2]["p50_ms"]), (&json!(1000), &json!(5.0)));
    }
}

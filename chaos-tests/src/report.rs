//! Tables for people, rows for programs, and the words about the machine that figures need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::run;

/// Prints columns that line up; the first is left-aligned, the others right-aligned.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        println!("| {} |", padded.collect::<Vec<_>>().join(" | "));
    };
    line(head.to_vec());
    let rules = widths.iter().enumerate().map(|(column, width)| match column {
        0 => "-".repeat(width + 2),
        _ => format!("{}:", "-".repeat(width + 1)),
    });
    println!("|{}|", rules.collect::<Vec<_>>().join("|"));
    rows.iter().for_each(|row| line(row.iter().map(String::as_str).collect()));
}

/// The value in the middle; of an even number the mean of the two.
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The value that this share of all does not exceed (nearest rank).
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let sorted = sorted(values);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Whether a figure is as good as what is aimed at, in words.
pub fn judge(value: f64, aim: f64) -> String {
    if value <= aim { "met".to_owned() } else { format!("missed ({:.1} times)", value / aim) }
}

/// What the figures were taken on and with.
pub struct Machine {
    /// Processors, memory, kernel.
    pub hardware: String,
    /// Version of the program, and whether it was optimised.
    pub version: String,
}

impl Machine {
    /// This machine and this program.
    ///
    /// # Errors
    /// When the program does not tell its version.
    pub fn of(bin: &Path) -> Result<Machine> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let field = |name: &str| {
            let line = cpus.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
        let memory = fs::read_to_string("/proc/meminfo")?;
        let kib: f64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let version = run(Command::new(bin).arg("--version"))?.ok()?;
        Ok(Machine {
            hardware: format!(
                "{count} x {}, {:.1} GiB, Linux {}",
                field("model name"),
                kib / 1024.0 / 1024.0,
                kernel.trim()
            ),
            version: version.trim().to_owned(),
        })
    }

    /// Says it, and how busy the machine is with other things.
    pub fn print(&self) {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split_whitespace().next().unwrap_or("?").to_owned();
        println!("{}; {}; load before: {load}", self.version, self.hardware);
    }
}

/// Where builds go: the folder above the one that this program lies in, unless that is one of tests.
///
/// # Errors
/// When this program lies nowhere.
pub fn target() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let mut folder = exe.parent().context("no folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("no folder")?;
    }
    Ok(folder.parent().context("no folder")?.to_path_buf())
}

/// Leaves rows in `target/bench/<name>.json`.
///
/// # Errors
/// When they cannot be written.
pub fn leave(name: &str, machine: &Machine, rows: &[Value]) -> Result<()> {
    let folder = target()?.join("bench");
    fs::create_dir_all(&folder)?;
    let complete: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut row = row.clone();
            if row.get("side").is_none() {
                row["side"] = json!("trireme");
                row["version"] = json!(machine.version);
            }
            row["machine"] = json!(machine.hardware);
            row
        })
        .collect();
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, serde_json::to_vec_pretty(&complete)?).with_context(|| path.display().to_string())?;
    println!("rows: {}", path.display());
    Ok(())
}

/// A number from the environment.
///
/// # Errors
/// When it is not one.
pub fn setting(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{name}={text:?} is not a number")),
        _ => Ok(default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles() {
        let values: Vec<f64> = (1..=50).rev().map(f64::from).collect();
        assert!((median(&values) - 25.5).abs() < 1e-9);
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((percentile(&values, 99.0) - 50.0).abs() < 1e-9);
        assert!((percentile(&values, 50.0) - 25.0).abs() < 1e-9);
        assert!(median(&[]).is_nan() && percentile(&[], 99.0).is_nan());
    }
}

//! Memory and processor time of processes, as the kernel counts them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Memory of a process, in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// Its own pages, and of those shared with others its share.
    pub pss: f64,
    /// Of that, what is not backed by files.
    pub anonymous: f64,
    /// All resident pages.
    pub rss: f64,
}

/// Memory of a process.
///
/// # Errors
/// When there is no such process.
pub fn memory(pid: i32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).context(path)?;
    Ok(parse_rollup(&text))
}

fn parse_rollup(text: &str) -> Memory {
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let kib: f64 = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default();
        kib / 1024.0
    };
    Memory { pss: field("Pss:"), anonymous: field("Pss_Anon:"), rss: field("Rss:") }
}

/// Processor time that a process has used since its start.
///
/// # Errors
/// When there is no such process.
pub fn cpu(pid: i32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let ticks = parse_stat(&text).with_context(|| path.clone())?;
    let rate = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock rate")?;
    Ok(Duration::from_secs_f64(ticks as f64 / rate as f64))
}

/// utime and stime; the name before them may hold blanks and parentheses.
fn parse_stat(text: &str) -> Option<u64> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// When the kernel started a process, in its ticks; `None` if there is none, or only what its parent has not asked for.
pub fn started(pid: i32) -> Option<u64> {
    parse_started(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_started(text: &str) -> Option<u64> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ended = matches!(*fields.first()?, "Z" | "X");
    if ended { None } else { fields.get(19)?.parse().ok() }
}

/// How many files, sockets and the like a process has open.
///
/// # Errors
/// When there is no such process.
pub fn descriptors(pid: i32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).context(path)?.count())
}

/// Processes that run this program with this word as their first argument.
pub fn running(program: &Path, verb: &str) -> Vec<i32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let exe = exe.to_string_lossy().into_owned();
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Path::new(exe.trim_end_matches(" (deleted)")) == program
            && words.split(|byte| *byte == 0).nth(1) == Some(verb.as_bytes())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let text = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  20480 kB\nPss:  10240 kB\nPss_Anon:  5120 kB\n";
        assert_eq!(parse_rollup(text), Memory { pss: 10.0, anonymous: 5.0, rss: 20.0 });
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194560 1 0 0 0 7 3 0 0 20 0 9 0 987654 1000 5 1";
        assert_eq!(parse_stat(stat), Some(10));
        assert_eq!(parse_started(stat), Some(987_654));
        assert_eq!(parse_started(&stat.replace(" S 1", " Z 1")), None);
        let own = std::process::id() as i32;
        assert!(memory(own).unwrap().pss > 0.1);
        assert!(cpu(own).is_ok() && cpu(i32::MAX).is_err());
        assert!(started(own).is_some() && started(i32::MAX).is_none());
        assert!(descriptors(own).unwrap() > 2 && descriptors(i32::MAX).is_err());
    }
}

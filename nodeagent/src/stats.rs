//! What node and pods use, in the shape of the kubelet's `/stats/summary`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::pods::{Context, PodView, resources};
use crate::runtime::cgroups::Usage;

/// A rate over less time than this says nothing.
const LEAST: Duration = Duration::from_millis(900);
/// Ticks a second in /proc/stat; the same on all architectures of Linux.
const TICKS: u64 = 100;

/// Turns counters of CPU time into rates, from one request to the next.
#[derive(Default)]
pub(crate) struct Sampler {
    samples: Mutex<HashMap<String, Sample>>,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    total_ns: u64,
    rate: Option<u64>,
}

impl Sampler {
    /// Nanoseconds of CPU time a second since an earlier request.
    fn rate(&self, key: &str, total_ns: u64, now: Instant) -> Option<u64> {
        let mut samples = self.samples.lock();
        let Some(old) = samples.get(key).copied() else {
            samples.insert(key.to_owned(), Sample { at: now, total_ns, rate: None });
            return None;
        };
        let passed = now.saturating_duration_since(old.at);
        if passed < LEAST {
            return old.rate;
        }
        let used = total_ns.saturating_sub(old.total_ns);
        let rate = Some((used as f64 / passed.as_secs_f64()) as u64);
        samples.insert(key.to_owned(), Sample { at: now, total_ns, rate });
        rate
    }

    /// Forgets what is not there any more.
    fn keep(&self, keys: &[String]) {
        self.samples.lock().retain(|key, _| key.is_empty() || keys.contains(key));
    }
}

/// The whole summary, or only what `kubectl top` wants of it.
pub(crate) fn summary(context: &Context, sampler: &Sampler, only_cpu_and_memory: bool) -> Value {
    let now = Instant::now();
    let mut keys = Vec::new();
    let mut pods = Vec::new();
    for view in context.register.all() {
        pods.push(pod(context, sampler, &view, now, &mut keys));
    }
    sampler.keep(&keys);
    json!({"node": node(context, sampler, now, only_cpu_and_memory), "pods": pods})
}

fn time() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

fn node(context: &Context, sampler: &Sampler, now: Instant, only_cpu_and_memory: bool) -> Value {
    let stat = read("/proc/stat");
    let meminfo = read("/proc/meminfo");
    let mut node = Map::new();
    node.insert("nodeName".into(), json!(context.config.node_name));
    node.insert("startTime".into(), json!(boot_time(&stat)));
    let total = busy_ns(&stat);
    node.insert("cpu".into(), cpu(total, sampler.rate("", total, now)));
    node.insert("memory".into(), memory(&meminfo));
    if only_cpu_and_memory {
        return Value::Object(node);
    }
    node.insert("network".into(), network(&read("/proc/self/net/dev")));
    let images = context.images.list().iter().map(|image| image.size).sum::<u64>();
    node.insert("fs".into(), file_system(&context.config.data_dir, None));
    let image_fs = file_system(&context.config.data_dir.join("images"), Some(images));
    node.insert("runtime".into(), json!({"imageFs": image_fs}));
    node.insert("rlimit".into(), rlimit());
    Value::Object(node)
}

fn pod(context: &Context, sampler: &Sampler, view: &PodView, now: Instant, keys: &mut Vec<String>) -> Value {
    let meta = &view.pod.metadata;
    let base = resources::pod_cgroup(&context.config.cgroup_root, &view.pod);
    let mut used = |path: String| {
        let usage = context.cgroups.usage(&path);
        let rate = sampler.rate(&path, usage.cpu_ns, now);
        keys.push(path);
        (cpu(usage.cpu_ns, rate), pod_memory(&usage))
    };
    let statuses = view.pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let started: HashMap<&str, String> = statuses
        .filter_map(|status| {
            let running = status.state.as_ref()?.running.as_ref()?;
            Some((status.name.as_str(), running.started_at.as_ref()?.0.to_string()))
        })
        .collect();
    let mut names: Vec<_> = view.containers.iter().collect();
    names.sort_by_key(|(name, _)| name.as_str());
    let mut containers = Vec::new();
    for (name, container) in names {
        let Some(id) = &container.running else { continue };
        let (cpu, memory) = used(format!("{base}/{id}"));
        let start = started.get(name.as_str());
        containers.push(json!({"name": name, "startTime": start, "cpu": cpu, "memory": memory}));
    }
    let (cpu, memory) = used(base.clone());
    json!({
        "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "startTime": view.pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0.to_string()),
        "containers": containers,
        "cpu": cpu,
        "memory": memory,
        "process_stats": {"process_count": context.cgroups.usage(&base).pids},
    })
}

fn cpu(total: u64, rate: Option<u64>) -> Value {
    let mut cpu = json!({"time": time(), "usageCoreNanoSeconds": total});
    if let Some(rate) = rate {
        cpu["usageNanoCores"] = json!(rate);
    }
    cpu
}

fn pod_memory(usage: &Usage) -> Value {
    json!({"time": time(), "usageBytes": usage.memory_bytes, "workingSetBytes": usage.working_set_bytes})
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A line of /proc/meminfo, in bytes.
fn meminfo_bytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn memory(meminfo: &str) -> Value {
    let (total, free) = (meminfo_bytes(meminfo, "MemTotal"), meminfo_bytes(meminfo, "MemFree"));
    let available = meminfo_bytes(meminfo, "MemAvailable");
    json!({
        "time": time(),
        "availableBytes": available,
        "usageBytes": total.saturating_sub(free),
        "workingSetBytes": total.saturating_sub(available),
        "rssBytes": meminfo_bytes(meminfo, "AnonPages"),
    })
}

/// CPU time of the machine that was not idle.
fn busy_ns(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let fields: Vec<u64> = line.unwrap_or_default().split_whitespace().filter_map(|f| f.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is contained in the first two.
    let busy: u64 = fields.iter().take(8).enumerate().filter(|(n, _)| *n != 3 && *n != 4).map(|(_, ticks)| ticks).sum();
    busy * (1_000_000_000 / TICKS)
}

fn boot_time(stat: &str) -> Option<String> {
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok())?;
    Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

fn file_system(path: &Path, used: Option<u64>) -> Value {
    let Ok(stat) = rustix::fs::statvfs(path) else { return json!({"time": time()}) };
    let (capacity, free) = (stat.f_blocks * stat.f_frsize, stat.f_bfree * stat.f_frsize);
    json!({
        "time": time(),
        "availableBytes": stat.f_bavail * stat.f_frsize,
        "capacityBytes": capacity,
        "usedBytes": used.unwrap_or(capacity.saturating_sub(free)),
        "inodesFree": stat.f_ffree,
        "inodes": stat.f_files,
        "inodesUsed": stat.f_files.saturating_sub(stat.f_ffree),
    })
}

fn network(dev: &str) -> Value {
    let interfaces: Vec<Value> = dev
        .lines()
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let name = name.trim();
            let numbers: Vec<u64> = counters.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            // Links to pods are counted with the pods, which come and go.
            if name == "lo" || name.starts_with("trv") || numbers.len() < 11 {
                return None;
            }
            Some(json!({
                "name": name,
                "rxBytes": numbers[0], "rxErrors": numbers[2], "txBytes": numbers[8], "txErrors": numbers[10],
            }))
        })
        .collect();
    let mut network = interfaces.first().cloned().unwrap_or_else(|| json!({}));
    network["time"] = json!(time());
    network["interfaces"] = json!(interfaces);
    network
}

fn rlimit() -> Value {
    let max = read("/proc/sys/kernel/pid_max").trim().parse::<u64>().ok();
    let running =
        read("/proc/loadavg").split_whitespace().nth(3).and_then(|f| f.split('/').nth(1)?.parse::<u64>().ok());
    json!({"time": time(), "maxpid": max, "curproc": running})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_texts_are_read() {
        let stat = "cpu  100 10 50 1000 20 3 2 1 7 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nbtime 1700000000\n";
        assert_eq!(busy_ns(stat), 166 * 10_000_000);
        assert_eq!(boot_time(stat).as_deref(), Some("2023-11-14T22:13:20Z"));
        let meminfo = "MemTotal:        1000 kB\nMemFree:  200 kB\nMemAvailable:     600 kB\nAnonPages: 5 kB\n";
        let memory = memory(meminfo);
        assert_eq!((&memory["availableBytes"], &memory["workingSetBytes"]), (&json!(614_400), &json!(409_600)));
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 1 2 0 0 0 0 0 30 1 4 0 0 0 0 0\n";
        let network = network(dev);
        assert_eq!(
            (&network["name"], &network["rxBytes"], &network["txErrors"]),
            (&json!("eth0"), &json!(10), &json!(4))
        );
        assert_eq!(network["interfaces"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn rates_come_from_two_samples() {
        let (sampler, start) = (Sampler::default(), Instant::now());
        assert_eq!(sampler.rate("a", 1_000, start), None);
        assert_eq!(sampler.rate("a", 2_000, start + Duration::from_millis(100)), None);
        assert_eq!(sampler.rate("a", 2_000_001_000, start + Duration::from_secs(2)), Some(1_000_000_000));
        // Too soon for a new one: the last stands.
        assert_eq!(sampler.rate("a", 9, start + Duration::from_millis(2100)), Some(1_000_000_000));
        sampler.keep(&[]);
        assert_eq!(sampler.rate("a", 5, start + Duration::from_secs(9)), None);
    }
}

//! The screen. Pure: a report in, text out.

use trireme_apiserver::join::wire::DiskInfo;

use super::report::{Certificate, Finding, Master, Node, Process, Report, Verdict};
use crate::admin::table::{age, render as table};

/// The report for people.
pub fn text(report: &Report) -> String {
    let mut out = verdict(report);
    out.push_str(&masters(report));
    if report.stale {
        out.push_str("\nWithout a quorum nothing below is certain: it is what was known before.\n");
    }
    out.push_str(&nodes(report));
    out.push_str(&workloads(report));
    out.push_str(&certificates(&report.certificates));
    if !report.events.is_empty() {
        out.push_str("\nRECENT WARNINGS\n");
        for event in &report.events {
            let times = if event.count > 1 { format!(" (x{})", event.count) } else { String::new() };
            let ago = age(event.age_seconds);
            out.push_str(&format!(
                "  {ago:>4}  {}  {}: {}{times}\n",
                event.about,
                event.reason,
                one_line(&event.message)
            ));
        }
    }
    out
}

fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= 110 { line.to_owned() } else { line.chars().take(109).chain(['…']).collect() }
}

fn verdict(report: &Report) -> String {
    let name = &report.cluster;
    let mut out = match report.verdict {
        Verdict::Healthy => {
            let nodes = report.nodes.as_ref().map_or(0, Vec::len);
            let look = match report.warnings.len() {
                0 => String::new(),
                1 => "; 1 thing to look at".to_owned(),
                n => format!("; {n} things to look at"),
            };
            format!("{name} is healthy: {} and {}{look}\n", count(report.masters.len(), "master"), count(nodes, "node"))
        }
        Verdict::Degraded => format!("{name} is DEGRADED: {}\n", count(report.problems.len(), "problem")),
        Verdict::Unreachable => format!("{name} is UNREACHABLE: no master answers\n"),
    };
    for (mark, findings) in [("!", &report.problems), ("-", &report.warnings)] {
        findings.iter().for_each(|finding| out.push_str(&line(mark, finding)));
    }
    out
}

fn line(mark: &str, finding: &Finding) -> String {
    format!("  {mark} {}: {}  ->  {}\n", finding.about, one_line(&finding.what), finding.hint)
}

fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

fn masters(report: &Report) -> String {
    if report.masters.is_empty() {
        return String::new();
    }
    let quorum = &report.quorum;
    let title = match (quorum.present, quorum.voters) {
        (_, 0) => "quorum unknown".to_owned(),
        (true, _) => {
            let tolerates = match quorum.tolerates {
                0 => "tolerates no loss".to_owned(),
                n => format!("tolerates the loss of {n}"),
            };
            format!("quorum {} of {}, {tolerates}", quorum.reachable, quorum.voters)
        }
        (false, _) => format!("NO QUORUM: {} of {}, {} needed", quorum.reachable, quorum.voters, quorum.needed),
    };
    let local = report.masters.iter().any(|master| master.process.is_some());
    let mut head =
        vec!["NAME", "ADDRESS", "ROLE", "HEALTHY", "TERM", "REV/INDEX", "LAG", "DB", "DISK FREE", "MEM", "CERT"];
    head.extend(["VERSION", "UP"]);
    head.extend(local.then_some("PID"));
    let rows: Vec<Vec<String>> = report.masters.iter().map(|master| master_row(master, local)).collect();
    format!("\nMASTERS  {title}\n{}", indent(&table(&head, &rows)))
}

fn master_row(master: &Master, local: bool) -> Vec<String> {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let size = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), bytes);
    let mut row = vec![
        master.name.clone(),
        master.address.trim_start_matches("https://").to_owned(),
        master.role.clone(),
        if master.healthy { "yes" } else { "NO" }.to_owned(),
        number(master.term),
        match (master.revision, master.applied_index) {
            (Some(revision), Some(index)) => format!("{revision}/{index}"),
            _ => "-".to_owned(),
        },
        number(master.lag),
        size(master.db_size_bytes),
        disk(master.disk.as_ref()),
        size(master.resident_bytes),
        master.certificate_seconds.map_or_else(|| "-".to_owned(), left),
        master.version.clone().unwrap_or_else(|| "-".to_owned()),
        master.uptime_seconds.map_or_else(|| "-".to_owned(), age),
    ];
    row.extend(local.then(|| pid(master.process.as_ref())));
    row
}

fn nodes(report: &Report) -> String {
    let Some(nodes) = &report.nodes else { return String::new() };
    if nodes.is_empty() {
        return "\nNODES  none has joined yet\n".to_owned();
    }
    let ready = nodes.iter().filter(|node| node.ready).count();
    let local = nodes.iter().any(|node| node.process.is_some());
    let mut head = vec!["NAME", "ADDRESS", "READY", "PODS", "DISK FREE", "MEM FREE", "CERT", "VERSION", "HEARTBEAT"];
    head.extend(local.then_some("PID"));
    let rows: Vec<Vec<String>> = nodes.iter().map(|node| node_row(node, local)).collect();
    format!("\nNODES  {ready} of {} ready\n{}", nodes.len(), indent(&table(&head, &rows)))
}

fn node_row(node: &Node, local: bool) -> Vec<String> {
    let memory = node.memory.as_ref();
    let memory = memory.map(|m| DiskInfo { total_bytes: m.total_bytes, available_bytes: m.available_bytes });
    let ready = match (node.ready, node.schedulable) {
        (true, true) => "yes",
        (true, false) => "yes, cordoned",
        (false, _) => "NO",
    };
    let mut row = vec![
        node.name.clone(),
        node.address.clone(),
        ready.to_owned(),
        format!("{}/{}", node.pods_running, node.pods_capacity),
        disk(node.disk.as_ref()),
        disk(memory.as_ref()),
        node.certificate_seconds.map_or_else(|| "-".to_owned(), left),
        node.version.clone(),
        node.heartbeat_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{} ago", age(seconds))),
    ];
    row.extend(local.then(|| pid(node.process.as_ref())));
    row
}

fn pid(process: Option<&Process>) -> String {
    match process {
        None => "-".to_owned(),
        Some(Process { pid: Some(pid) }) => pid.to_string(),
        Some(Process { pid: None }) => "not running".to_owned(),
    }
}

fn workloads(report: &Report) -> String {
    let mut out = String::new();
    if let Some(pods) = &report.pods {
        let mut parts = vec![format!("{} in all, {} running, {} pending", pods.total, pods.running, pods.pending)];
        for (number, word) in
            [(pods.succeeded, "succeeded"), (pods.failed, "failed"), (pods.crash_looping, "crash-looping")]
        {
            if number > 0 {
                parts.push(format!("{number} {word}"));
            }
        }
        out.push_str(&format!("\nPODS  {}\n", parts.join(", ")));
        for pod in &pods.worst {
            let node = if pod.node.is_empty() { "no node" } else { &pod.node };
            let restarts = match pod.restarts {
                0 => String::new(),
                n => format!(", {}", count(usize::try_from(n).unwrap_or(0), "restart")),
            };
            out.push_str(&format!("  {}/{}  {}{restarts} ({node})\n", pod.namespace, pod.name, pod.reason));
        }
        if pods.troubled > pods.worst.len() {
            out.push_str(&format!("  … and {} more\n", pods.troubled - pods.worst.len()));
        }
    }
    if let Some(deployments) = &report.deployments {
        let bad = deployments.incomplete.len();
        out.push_str(&format!("DEPLOYMENTS  {} of {} complete\n", deployments.total - bad, deployments.total));
        for deployment in deployments.incomplete.iter().take(5) {
            let reason = deployment.reason.as_ref().map(|reason| format!("  {reason}")).unwrap_or_default();
            out.push_str(&format!(
                "  {}/{}  {} of {} updated, {} available{reason}\n",
                deployment.namespace, deployment.name, deployment.updated, deployment.desired, deployment.available
            ));
        }
    }
    out
}

/// For each kind of owner the one that runs out first.
fn certificates(all: &[Certificate]) -> String {
    let first = |keep: &dyn Fn(&Certificate) -> bool| {
        all.iter().filter(|c| keep(c)).min_by_key(|certificate| certificate.seconds_left)
    };
    let host = |c: &Certificate| !matches!(c.owner.as_str(), "cluster" | "kubeconfig");
    let kinds: [(&str, Option<&Certificate>); 4] = [
        ("authorities", first(&|c| c.owner == "cluster")),
        ("masters", first(&|c| host(c) && c.name != "node")),
        ("nodes", first(&|c| host(c) && c.name == "node")),
        ("this kubeconfig", first(&|c| c.owner == "kubeconfig")),
    ];
    let parts: Vec<String> = kinds
        .into_iter()
        .filter_map(|(kind, certificate)| Some(format!("{kind} {}", left(certificate?.seconds_left))))
        .collect();
    if parts.is_empty() { String::new() } else { format!("CERTIFICATES  valid for: {}\n", parts.join(", ")) }
}

fn left(seconds: i64) -> String {
    if seconds <= 0 { "EXPIRED".to_owned() } else { age(seconds) }
}

fn disk(disk: Option<&DiskInfo>) -> String {
    disk.map_or_else(
        || "-".to_owned(),
        |disk| format!("{} of {}", bytes(disk.available_bytes), bytes(disk.total_bytes)),
    )
}

/// `512B`, `1.5MiB`, `64GiB`.
fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if value < 10.0 && unit != "B" { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1}TiB")
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Cuts the screen to a terminal's size, so that what is drawn over it covers it.
pub fn fit(text: &str, columns: usize, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let shown = if lines.len() > rows { rows.saturating_sub(1) } else { lines.len() };
    let cut = |line: &str| match line.chars().count() > columns {
        true => line.chars().take(columns.saturating_sub(1)).chain(['…']).collect::<String>(),
        false => line.to_owned(),
    };
    let mut out: Vec<String> = lines[..shown].iter().map(|line| cut(line)).collect();
    if shown < lines.len() {
        out.push(cut(&format!("… {} more lines", lines.len() - shown)));
    }
    out.join("\n")
}

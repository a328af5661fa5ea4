//! From what was found to a verdict: what is wrong, and what to type. Pure.

use super::report::{Finding, Report, Verdict};
use crate::admin::table::age;

/// Entries behind the leader that are worth a word.
pub const LAG: u64 = 1000;
/// A certificate with less left is worth a word.
const CERTIFICATE_SECONDS: i64 = 30 * 86_400;
/// Percent of a disk that should stay free, and below which things break.
const DISK_LOW: u64 = 15;
const DISK_FULL: u64 = 5;

/// Fills in verdict, problems and warnings. `up` is what brings a local cluster back.
pub fn judge(report: &mut Report, up: Option<&str>) {
    let mut findings = Findings { problems: Vec::new(), warnings: Vec::new(), up };
    if report.masters.iter().all(|master| master.term.is_none()) {
        report.verdict = Verdict::Unreachable;
        for master in &report.masters {
            let reason = master.reason.as_deref().unwrap_or("no answer");
            findings.problem(&master.name, reason, findings.start("start the masters; is the address right?"));
        }
        report.problems = findings.problems;
        return;
    }
    findings.quorum(report);
    findings.masters(report);
    findings.nodes(report);
    findings.workloads(report);
    findings.certificates(report);
    report.verdict = if findings.problems.is_empty() { Verdict::Healthy } else { Verdict::Degraded };
    (report.problems, report.warnings) = (findings.problems, findings.warnings);
}

struct Findings<'a> {
    problems: Vec<Finding>,
    warnings: Vec<Finding>,
    up: Option<&'a str>,
}

fn finding(about: &str, what: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { about: about.to_owned(), what: what.into(), hint: hint.into() }
}

impl Findings<'_> {
    fn problem(&mut self, about: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(finding(about, what, hint));
    }

    fn warning(&mut self, about: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(finding(about, what, hint));
    }

    /// What brings back what has died.
    fn start(&self, elsewhere: &str) -> String {
        self.up.map_or_else(|| elsewhere.to_owned(), str::to_owned)
    }

    fn quorum(&mut self, report: &Report) {
        let quorum = &report.quorum;
        if quorum.present {
            return;
        }
        let what = if quorum.reachable < quorum.needed {
            format!("no quorum: {} of {} masters, {} are needed", quorum.reachable, quorum.voters, quorum.needed)
        } else {
            "no leader at the moment".to_owned()
        };
        let hint = self.start("start the masters that are down; until then nothing can be changed");
        self.problem("quorum", what, hint);
    }

    fn masters(&mut self, report: &Report) {
        for master in &report.masters {
            let name = &master.name;
            if let Some(reason) = &master.reason {
                let gone =
                    format!("look at its log and start it; if it is gone for good: trireme member remove {name}");
                let hint = if master.term.is_none() { self.start(&gone) } else { "look at its log".to_owned() };
                // Without a quorum no master is ready; that is said once.
                if master.term.is_none() || report.quorum.present {
                    self.problem(name, reason.clone(), hint);
                }
            }
            for alarm in &master.alarms {
                self.problem(name, alarm.clone(), "see docs/store.md");
            }
            if master.role == "learner" {
                self.warning(name, "still catches up, and has no vote yet", "wait; trireme member list shows its lag");
            }
            if let Some(lag) = master.lag.filter(|lag| *lag > LAG) {
                self.warning(name, format!("is {lag} entries behind the leader"), "is its disk or its network slow?");
            }
            if let Some(disk) = &master.disk {
                self.disk(name, disk.available_bytes, disk.total_bytes);
            }
        }
        let mut versions: Vec<&str> = report.masters.iter().filter_map(|master| master.version.as_deref()).collect();
        versions.sort_unstable();
        versions.dedup();
        if versions.len() > 1 {
            self.warning("masters", format!("run different versions: {}", versions.join(", ")), "finish the upgrade");
        }
    }

    fn disk(&mut self, about: &str, available: u64, total: u64) {
        let percent = (available * 100).checked_div(total).unwrap_or(100);
        let what = format!("only {percent} % of its disk is free");
        if percent < DISK_FULL {
            self.problem(about, what, "make room");
        } else if percent < DISK_LOW {
            self.warning(about, what, "make room");
        }
    }

    fn nodes(&mut self, report: &Report) {
        for node in report.nodes.iter().flatten() {
            if !node.ready {
                let reason = node.reason.clone().unwrap_or_else(|| "not ready".to_owned());
                let dead = node.process.as_ref().is_some_and(|process| process.pid.is_none());
                let look = format!("kubectl describe node {}; is its agent running?", node.name);
                let hint = if dead { self.start(&look) } else { look };
                self.problem(&node.name, reason, hint);
            }
            if let Some(disk) = &node.disk {
                self.disk(&node.name, disk.available_bytes, disk.total_bytes);
            }
            if !node.schedulable {
                let hint = format!("kubectl uncordon {}", node.name);
                self.warning(&node.name, "takes no new pods (cordoned)", hint);
            }
        }
    }

    fn workloads(&mut self, report: &Report) {
        for pod in report.pods.iter().flat_map(|pods| &pods.worst) {
            let about = format!("pod {}/{}", pod.namespace, pod.name);
            let restarts = match pod.restarts {
                0 => String::new(),
                1 => ", 1 restart".to_owned(),
                n => format!(", {n} restarts"),
            };
            let hint = match pod.reason.as_str() {
                "CrashLoopBackOff" => format!("kubectl logs -n {} {} --previous", pod.namespace, pod.name),
                _ => format!("kubectl describe pod -n {} {}", pod.namespace, pod.name),
            };
            self.warning(&about, format!("{}{restarts}", pod.reason), hint);
        }
        for deployment in report.deployments.iter().flat_map(|all| &all.incomplete) {
            let about = format!("deployment {}/{}", deployment.namespace, deployment.name);
            let reason = deployment.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let what = format!(
                "{} of {} updated, {} available{reason}",
                deployment.updated, deployment.desired, deployment.available
            );
            let hint = format!("kubectl rollout status -n {} deployment/{}", deployment.namespace, deployment.name);
            self.warning(&about, what, hint);
        }
    }

    fn certificates(&mut self, report: &Report) {
        for certificate in &report.certificates {
            let left = certificate.seconds_left;
            // One that lives for a day is renewed in its last hours.
            if left >= CERTIFICATE_SECONDS.min(certificate.lifetime_seconds / 12) {
                continue;
            }
            let hint = match (certificate.owner.as_str(), certificate.name.as_str()) {
                ("kubeconfig", _) => "make a new one, on a master: trireme kubeconfig -o FILE".to_owned(),
                ("cluster", _) => "an authority cannot be renewed yet: plan for a new cluster".to_owned(),
                (owner, "node") if left <= 0 => format!("let {owner} join again, with a token"),
                (owner, _) => format!("it should have been renewed by now: look at the log of {owner}"),
            };
            let about = format!("{}'s {} certificate", certificate.owner, certificate.name);
            if left <= 0 {
                self.problem(&about, format!("has expired {} ago", age(-left)), hint);
            } else {
                self.warning(&about, format!("expires in {}", age(left)), hint);
            }
        }
    }
}

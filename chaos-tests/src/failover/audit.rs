//! The masters' audit logs: which fence each write of a leader was conditional on, and at which revision it came about.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use super::AUDIT;
use crate::cluster::Cluster;

/// Users that may write under a fence only.
const LEADERS: [&str; 2] = ["system:kube-scheduler", "system:kube-controller-manager"];

/// A committed write that was conditional on a fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// Revision of the fence.
    pub fence: u64,
    /// Revision of the write.
    pub revision: u64,
    /// Who did what.
    pub what: String,
}

/// All logs together, as far as they were read.
#[derive(Debug, Default)]
pub struct Audit {
    files: Vec<(PathBuf, u64)>,
    /// Requests of leaders' loops in each master's log, whatever became of them.
    pub attempts: Vec<usize>,
    /// Lines of each master's log.
    pub lines: Vec<usize>,
    /// Revisions of all fences.
    pub fences: BTreeSet<u64>,
    /// When each was committed, in seconds since the epoch.
    pub fence_times: BTreeMap<u64, f64>,
    /// Writes under a fence.
    pub fenced: Vec<Fenced>,
    /// Writes of a leader's loops without a fence.
    pub unfenced: Vec<String>,
    /// Revisions of the bindings of each pod.
    pub bindings: BTreeMap<String, Vec<u64>>,
    /// Lines.
    pub records: usize,
    /// Lines that a killed master did not complete.
    pub broken: usize,
}

impl Audit {
    /// Reads nothing yet.
    pub fn of(cluster: &Cluster) -> Audit {
        let masters = cluster.hosts().iter().filter(|host| host.starts_with("master-"));
        let files: Vec<(PathBuf, u64)> = masters.map(|host| (cluster.root().join(host).join(AUDIT), 0)).collect();
        let none = vec![0; files.len()];
        Audit { files, attempts: none.clone(), lines: none, ..Audit::default() }
    }

    /// Reads what has been added.
    pub fn read(&mut self) -> Result<()> {
        for index in 0..self.files.len() {
            let (path, from) = self.files[index].clone();
            let mut file = File::open(&path).with_context(|| path.display().to_string())?;
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { continue };
            self.files[index].1 += end as u64 + 1;
            for line in bytes[..end].split(|byte| *byte == b'\n') {
                self.records += 1;
                self.lines[index] += 1;
                match serde_json::from_slice::<Value>(line) {
                    Ok(event) => {
                        let user = event["user"]["username"].as_str().unwrap_or_default();
                        self.attempts[index] += usize::from(LEADERS.contains(&user));
                        self.take(&event);
                    }
                    Err(_) => self.broken += 1,
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, event: &Value) {
        let annotation = |name: &str| event["annotations"][name].as_str().unwrap_or_default();
        let revisions: Vec<u64> =
            annotation("trireme.io/revision").split(',').filter_map(|text| text.parse().ok()).collect();
        let fence: Option<u64> = annotation("trireme.io/fence").parse().ok();
        let object = &event["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let user = text(&event["user"]["username"]);
        let what = format!("{user} {} {}", text(&event["verb"]), text(&event["requestURI"]));
        if let Some(fence) = fence {
            self.fences.insert(fence);
            if event["verb"] == "fence" {
                let time: Option<jiff::Timestamp> = event["stageTimestamp"].as_str().and_then(|time| time.parse().ok());
                self.fence_times.insert(fence, time.map_or(f64::NAN, |time| time.as_nanosecond() as f64 / 1e9));
            } else {
                let fenced = |revision: &u64| Fenced { fence, revision: *revision, what: what.clone() };
                self.fenced.extend(revisions.iter().map(fenced));
            }
        } else if !revisions.is_empty() && LEADERS.contains(&user.as_str()) {
            self.unfenced.push(what);
        }
        if object["subresource"] == "binding" && !revisions.is_empty() {
            self.bindings.entry(text(&object["name"])).or_default().extend(revisions);
        }
    }

    /// Writes that were committed though another reign had begun.
    pub fn after_their_fence(&self) -> Vec<String> {
        let superseded = |write: &&Fenced| self.fences.range(write.fence + 1..write.revision).next().is_some();
        self.fenced
            .iter()
            .filter(superseded)
            .map(|write| format!("{} at revision {}, under the fence of {}", write.what, write.revision, write.fence))
            .collect()
    }

    /// Pods that were bound more than once.
    pub fn bound_twice(&self) -> Vec<String> {
        let twice = self.bindings.iter().filter(|(_, revisions)| revisions.len() > 1);
        twice.map(|(pod, revisions)| format!("pod {pod} was bound at the revisions {revisions:?}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(user: &str, verb: &str, fence: &str, revision: &str) -> Value {
        json!({"verb": verb, "user": {"username": user}, "requestURI": "/x", "stageTimestamp": "2026-11-21T15:30:00.5Z",
               "objectRef": {"resource": "pods", "subresource": "binding", "name": "p"},
               "annotations": {"trireme.io/fence": fence, "trireme.io/revision": revision}})
    }

    #[test]
    fn late_writes_and_second_bindings_are_found() {
        let mut audit = Audit::default();
        for (fence, revision) in [("10", "10"), ("20", "20")] {
            audit.take(&event("system:apiserver", "fence", fence, revision));
        }
        audit.bindings.clear();
        audit.take(&event(LEADERS[0], "create", "10", "15"));
        audit.take(&event(LEADERS[0], "create", "20", "25,26"));
        assert!(audit.after_their_fence().is_empty());
        assert_eq!(audit.bound_twice().len(), 1);
        audit.take(&event(LEADERS[1], "update", "10", "21"));
        assert_eq!(audit.after_their_fence().len(), 1);
        assert!(audit.unfenced.is_empty());
        audit.take(&event(LEADERS[1], "update", "", "30"));
        assert_eq!(audit.unfenced.len(), 1);
        assert_eq!(audit.fence_times.len(), 2);
    }
}

//! Which of a node's pods are taken off it, and which of them forbid that it is drained at all.

use jiff::Timestamp;
use serde_json::Value;

const DAEMON_SET: &str = "DaemonSet-managed Pods (use --ignore-daemonsets to ignore)";
const LOCAL_DATA: &str = "Pods with local storage (use --delete-emptydir-data to override)";
const UNMANAGED: &str = "cannot delete Pods that declare no controller (use --force to override)";

/// What was allowed on the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// Pods that nothing makes again.
    pub force: bool,
    /// Pods of daemon sets may stay.
    pub ignore_daemon_sets: bool,
    /// Data in emptyDir volumes may be lost.
    pub delete_local_data: bool,
    /// Seconds after which a pod that does not end is left alone; 0 is never.
    pub skip_after: i64,
}

/// A node's pods by what becomes of them; texts with the pods that they are about, in the order they came up.
#[derive(Debug, Default)]
pub struct Choice {
    /// These go.
    pub pods: Vec<Value>,
    /// Said, and no hindrance.
    pub warnings: Vec<(String, Vec<String>)>,
    /// Why the node is not drained.
    pub refusals: Vec<(String, Vec<String>)>,
}

/// What becomes of one pod.
#[derive(Debug, PartialEq)]
enum Fate {
    Goes,
    Stays,
    GoesWith(String),
    StaysWith(String),
    Forbids(String),
}

impl Choice {
    /// Decides about a pod. `missing` is what the server says of its daemon set, if it is not there or not shown.
    pub fn add(&mut self, pod: Value, missing: Option<&(String, bool)>, flags: &Flags, now: Timestamp) {
        let metadata = &pod["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let name = format!("{}/{}", text("namespace"), text("name"));
        match fate(&pod, missing, flags, now) {
            Fate::Goes => self.pods.push(pod),
            Fate::Stays => {}
            Fate::GoesWith(why) => {
                note(&mut self.warnings, why, name);
                self.pods.push(pod);
            }
            Fate::StaysWith(why) => note(&mut self.warnings, why, name),
            Fate::Forbids(why) => note(&mut self.refusals, why, name),
        }
    }

    /// `ignoring …: a/b, a/c`
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.iter().map(|(why, names)| format!("{why}: {}", names.join(", "))).collect()
    }

    /// `cannot delete …: a/b, a/c`
    pub fn refusals(&self) -> Vec<String> {
        let line = |(why, names): &(String, Vec<String>)| {
            let head = if why.to_lowercase().starts_with("cannot delete") { "" } else { "cannot delete " };
            format!("{head}{why}: {}", names.join(", "))
        };
        self.refusals.iter().map(line).collect()
    }
}

fn note(list: &mut Vec<(String, Vec<String>)>, why: String, name: String) {
    match list.iter_mut().find(|(known, _)| *known == why) {
        Some((_, names)) => names.push(name),
        None => list.push((why, vec![name])),
    }
}

/// Name of the daemon set that a pod belongs to, if that matters for it.
pub fn daemon_set(pod: &Value) -> Option<&str> {
    let owner = controller(pod).filter(|owner| owner["kind"] == "DaemonSet" && !is_finished(pod))?;
    owner["name"].as_str()
}

fn controller(pod: &Value) -> Option<&Value> {
    pod["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == true)
}

fn is_finished(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// Whether a pod was to be gone more than so many seconds ago.
pub fn is_overdue(pod: &Value, seconds: i64, now: Timestamp) -> bool {
    let deleted = pod["metadata"]["deletionTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    seconds > 0 && deleted.is_some_and(|at| now.as_second() - at.as_second() > seconds)
}

fn fate(pod: &Value, missing: Option<&(String, bool)>, flags: &Flags, now: Timestamp) -> Fate {
    if is_overdue(pod, flags.skip_after, now) {
        return Fate::Stays;
    }
    if daemon_set(pod).is_some() {
        match missing {
            // A pod that has lost its daemon set is like any other.
            Some((_, true)) if flags.force => {}
            Some((why, _)) => return Fate::Forbids(why.clone()),
            None if flags.ignore_daemon_sets => return Fate::StaysWith("ignoring DaemonSet-managed Pods".to_owned()),
            None => return Fate::Forbids(DAEMON_SET.to_owned()),
        }
    }
    if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return Fate::Stays;
    }
    if is_finished(pod) {
        return Fate::Goes;
    }
    let volumes = pod["spec"]["volumes"].as_array();
    let local = volumes.into_iter().flatten().any(|volume| volume["emptyDir"].is_object());
    if local && !flags.delete_local_data {
        return Fate::Forbids(LOCAL_DATA.to_owned());
    }
    match (controller(pod), flags.force) {
        (Some(_), _) => Fate::Goes,
        (None, true) => Fate::GoesWith("deleting Pods that declare no controller".to_owned()),
        (None, false) => Fate::Forbids(UNMANAGED.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn pod(owner: Option<&str>) -> Value {
        let mut pod = json!({"metadata": {"namespace": "n", "name": "p"}, "spec": {}, "status": {"phase": "Running"}});
        if let Some(kind) = owner {
            pod["metadata"]["ownerReferences"] = json!([{"kind": kind, "name": "o", "controller": true}]);
        }
        pod
    }

    #[test]
    fn pods_without_a_controller_go_by_force_only() {
        let judge = |pod: &Value, flags: &Flags| fate(pod, None, flags, now());
        let force = Flags { force: true, ..Flags::default() };
        assert_eq!(judge(&pod(Some("ReplicaSet")), &Flags::default()), Fate::Goes);
        assert_eq!(judge(&pod(None), &Flags::default()), Fate::Forbids(UNMANAGED.to_owned()));
        assert!(matches!(judge(&pod(None), &force), Fate::GoesWith(_)));
        let mut done = pod(None);
        done["status"]["phase"] = json!("Succeeded");
        assert_eq!(judge(&done, &Flags::default()), Fate::Goes);
        let mut mirror = pod(None);
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        assert_eq!(judge(&mirror, &force), Fate::Stays);
    }

    #[test]
    fn daemon_sets_and_local_data_need_flags() {
        let of_set = pod(Some("DaemonSet"));
        let ignore = Flags { ignore_daemon_sets: true, ..Flags::default() };
        assert_eq!(fate(&of_set, None, &Flags::default(), now()), Fate::Forbids(DAEMON_SET.to_owned()));
        assert!(matches!(fate(&of_set, None, &ignore, now()), Fate::StaysWith(_)));
        let gone = ("daemonsets.apps \"o\" not found".to_owned(), true);
        assert_eq!(fate(&of_set, Some(&gone), &ignore, now()), Fate::Forbids(gone.0.clone()));
        let force = Flags { force: true, ..Flags::default() };
        assert_eq!(fate(&of_set, Some(&gone), &force, now()), Fate::Goes);
        let mut local = pod(Some("ReplicaSet"));
        local["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
        assert_eq!(fate(&local, None, &force, now()), Fate::Forbids(LOCAL_DATA.to_owned()));
        let lose = Flags { delete_local_data: true, ..Flags::default() };
        assert_eq!(fate(&local, None, &lose, now()), Fate::Goes);
    }

    #[test]
    fn pods_that_do_not_end_are_left_alone_on_request() {
        let mut late = pod(None);
        late["metadata"]["deletionTimestamp"] = json!("2026-11-22T11:59:00Z");
        assert!(is_overdue(&late, 59, now()) && !is_overdue(&late, 60, now()) && !is_overdue(&late, 0, now()));
        let skip = Flags { skip_after: 10, ..Flags::default() };
        assert_eq!(fate(&late, None, &skip, now()), Fate::Stays);
    }

    #[test]
    fn reasons_gather_their_pods() {
        let mut choice = Choice::default();
        for name in ["a", "b"] {
            let mut pod = pod(None);
            pod["metadata"]["name"] = json!(name);
            choice.add(pod, None, &Flags::default(), now());
        }
        choice.add(pod(Some("DaemonSet")), None, &Flags::default(), now());
        assert_eq!(choice.refusals(), [format!("{UNMANAGED}: n/a, n/b"), format!("cannot delete {DAEMON_SET}: n/p")]);
        assert!(choice.pods.is_empty() && choice.warnings().is_empty());
    }
}

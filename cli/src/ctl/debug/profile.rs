//! What a debugging container may do, and what a copied pod loses for it.

use serde_json::{Value, json};

/// Upstream's profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As it was before there were profiles.
    Legacy,
    /// May trace processes.
    General,
    /// No rights of its own.
    Baseline,
    /// May change the network.
    NetAdmin,
    /// As little as possible.
    Restricted,
    /// Everything.
    SysAdmin,
}

/// Where the container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// In a pod of its own, for a node.
    Node,
    /// In a copy of a pod.
    Copy,
    /// In the pod itself.
    Ephemeral,
}

/// What a copy keeps of the pod.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    /// Labels.
    pub labels: bool,
    /// Annotations.
    pub annotations: bool,
    /// Liveness probes.
    pub liveness: bool,
    /// Readiness probes.
    pub readiness: bool,
    /// Startup probes.
    pub startup: bool,
    /// Init containers.
    pub init_containers: bool,
}

impl Profile {
    /// By its name.
    pub fn parse(name: &str) -> Option<Profile> {
        Some(match name {
            "legacy" => Profile::Legacy,
            "general" => Profile::General,
            "baseline" => Profile::Baseline,
            "netadmin" => Profile::NetAdmin,
            "restricted" => Profile::Restricted,
            "sysadmin" => Profile::SysAdmin,
            _ => return None,
        })
    }

    /// Gives the container its rights and the pod what it needs for them.
    pub fn apply(self, keep: &Keep, pod: &mut Value, container: &str, style: Style) {
        if let Some(container) = named(pod, container) {
            self.rights(container, style);
        }
        match style {
            Style::Node => {
                if matches!(self, Profile::Legacy | Profile::General | Profile::NetAdmin | Profile::SysAdmin) {
                    for field in ["hostNetwork", "hostPID", "hostIPC"] {
                        pod["spec"][field] = json!(true);
                    }
                }
                if matches!(self, Profile::Legacy | Profile::General | Profile::SysAdmin) {
                    mount_root(pod, container);
                }
            }
            Style::Copy if self == Profile::Legacy => {
                if !keep.labels {
                    remove(&mut pod["metadata"], "labels");
                }
            }
            Style::Copy => {
                keep.strip(pod);
                if pod["spec"]["shareProcessNamespace"].is_null() {
                    pod["spec"]["shareProcessNamespace"] = json!(true);
                }
            }
            Style::Ephemeral => {}
        }
    }

    fn rights(self, container: &mut Value, style: Style) {
        match self {
            Profile::Legacy => {}
            Profile::General if style == Style::Node => remove(container, "securityContext"),
            Profile::General => allow(container, &["SYS_PTRACE"]),
            Profile::Baseline => remove(container, "securityContext"),
            Profile::NetAdmin => allow(container, &["NET_ADMIN", "NET_RAW"]),
            Profile::Restricted => {
                container["securityContext"] = json!({
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
                    "seccompProfile": {"type": "RuntimeDefault"},
                });
            }
            Profile::SysAdmin => container["securityContext"]["privileged"] = json!(true),
        }
    }
}

impl Keep {
    fn strip(&self, pod: &mut Value) {
        for (keep, field) in [(self.labels, "labels"), (self.annotations, "annotations")] {
            if !keep {
                remove(&mut pod["metadata"], field);
            }
        }
        if !self.init_containers {
            remove(&mut pod["spec"], "initContainers");
        }
        let probes =
            [(self.liveness, "livenessProbe"), (self.readiness, "readinessProbe"), (self.startup, "startupProbe")];
        for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
            for (_, field) in probes.iter().filter(|(keep, _)| !keep) {
                remove(container, field);
            }
        }
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

/// A container of either sort.
fn named<'a>(pod: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let spec = pod["spec"].as_object_mut()?;
    let lists = spec.iter_mut().filter(|(field, _)| matches!(field.as_str(), "containers" | "ephemeralContainers"));
    lists.flat_map(|(_, list)| list.as_array_mut().into_iter().flatten()).find(|container| container["name"] == name)
}

fn allow(container: &mut Value, capabilities: &[&str]) {
    let added = &mut container["securityContext"]["capabilities"]["add"];
    let mut all = added.as_array().cloned().unwrap_or_default();
    all.extend(capabilities.iter().map(|name| json!(name)));
    *added = json!(all);
}

fn mount_root(pod: &mut Value, container: &str) {
    let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    let root = json!({"name": "host-root", "hostPath": {"path": "/"}});
    pod["spec"]["volumes"] = json!([volumes, vec![root]].concat());
    if let Some(container) = named(pod, container) {
        container["volumeMounts"] = json!([{"name": "host-root", "mountPath": "/host"}]);
    }
}

/// Whether the pod's user takes away what the container was allowed.
pub fn is_hindered(pod: &Value, container: &str) -> bool {
    let user = |holder: &Value| holder["securityContext"]["runAsUser"].as_i64();
    let lists = ["containers", "ephemeralContainers"].into_iter();
    let mut all = lists.flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    let Some(container) = all.find(|known| known["name"] == container) else { return false };
    let context = &container["securityContext"];
    let added = context["capabilities"]["add"].as_array().is_some_and(|added| !added.is_empty());
    user(&pod["spec"]).is_some_and(|user| user != 0)
        && user(container) != Some(0)
        && (context["privileged"] == true || added)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"labels": {"a": "b"}, "annotations": {"x": "1"}}, "spec": {
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "m", "livenessProbe": {}, "readinessProbe": {}, "startupProbe": {},
                            "securityContext": {"capabilities": {"add": ["SYS_TIME"]}}}]}})
    }

    #[test]
    fn copies_lose_what_they_are_not_to_keep() {
        let copy = |profile: Profile, keep: &Keep| {
            let mut pod = pod();
            profile.apply(keep, &mut pod, "m", Style::Copy);
            pod
        };
        let bare = copy(Profile::General, &Keep::default());
        assert_eq!(bare["metadata"], json!({}));
        assert_eq!(bare["spec"]["containers"][0].as_object().map(serde_json::Map::len), Some(2));
        assert_eq!(
            bare["spec"]["containers"][0]["securityContext"]["capabilities"]["add"],
            json!(["SYS_TIME", "SYS_PTRACE"])
        );
        assert_eq!((&bare["spec"]["shareProcessNamespace"], bare["spec"].get("initContainers")), (&json!(true), None));
        let all = Keep {
            labels: true,
            annotations: true,
            liveness: true,
            readiness: true,
            startup: true,
            init_containers: true,
        };
        let kept = copy(Profile::SysAdmin, &all);
        assert_eq!(
            (&kept["metadata"], &kept["spec"]["initContainers"]),
            (&pod()["metadata"], &pod()["spec"]["initContainers"])
        );
        let old = copy(Profile::Legacy, &Keep::default());
        assert_eq!((&old["metadata"], &old["spec"]), (&json!({"annotations": {"x": "1"}}), &pod()["spec"]));
    }

    #[test]
    fn nodes_show_their_files_to_some() {
        for (name, host, root) in [
            ("legacy", true, true),
            ("general", true, true),
            ("baseline", false, false),
            ("restricted", false, false),
            ("netadmin", true, false),
            ("sysadmin", true, true),
        ] {
            let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "d"}]}});
            Profile::parse(name).unwrap_or(Profile::Legacy).apply(&Keep::default(), &mut pod, "d", Style::Node);
            assert_eq!((pod["spec"]["hostPID"] == true, pod["spec"]["volumes"].is_array()), (host, root), "{name}");
            assert_eq!(pod["spec"]["containers"][0]["volumeMounts"].is_array(), root, "{name}");
        }
        assert_eq!(Profile::parse("nope"), None);
    }

    #[test]
    fn users_other_than_root_hinder() {
        let mut pod = json!({"spec": {"securityContext": {"runAsUser": 1000}, "containers": [{"name": "d"}]}});
        assert!(!is_hindered(&pod, "d"));
        Profile::NetAdmin.apply(&Keep::default(), &mut pod, "d", Style::Ephemeral);
        assert!(is_hindered(&pod, "d"));
        pod["spec"]["containers"][0]["securityContext"]["runAsUser"] = json!(0);
        assert!(!is_hindered(&pod, "d"));
    }
}

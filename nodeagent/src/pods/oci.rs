//! The OCI configuration of a container. Pure.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};

use crate::images::ImageConfig;
use crate::runtime::cgroups::{CPU_PERIOD_US, Limits};

/// A bind mount into the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    /// `private`, `rslave` or `rshared`.
    pub(crate) propagation: &'static str,
}

/// Everything the configuration is made from.
pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) image: &'a ImageConfig,
    pub(crate) env: &'a [(String, String)],
    pub(crate) args: Vec<String>,
    pub(crate) binds: &'a [Bind],
    pub(crate) cgroup: &'a str,
    pub(crate) limits: Limits,
    pub(crate) oom_score: Option<i64>,
    pub(crate) v2: bool,
    /// Capabilities that this process has itself and so may give on.
    pub(crate) grantable: &'a [&'static str],
}

const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// All capabilities in the order of their numbers.
const ALL_CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capabilities in a mask such as `/proc/self/status` shows.
pub(crate) fn capabilities_of(mask: u64) -> Vec<&'static str> {
    ALL_CAPABILITIES.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| *name).collect()
}

fn privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|context| context.privileged).unwrap_or(false)
}

fn capabilities(container: &Container, grantable: &[&'static str]) -> Vec<String> {
    let wanted: Vec<&str> = if privileged(container) {
        grantable.to_vec()
    } else {
        let change = container.security_context.as_ref().and_then(|context| context.capabilities.as_ref());
        let list = |names: Option<&Vec<String>>| -> Vec<String> {
            let plain = |name: &String| name.trim_start_matches("CAP_").to_ascii_uppercase();
            names.into_iter().flatten().map(plain).collect()
        };
        let add = list(change.and_then(|c| c.add.as_ref()));
        let drop = list(change.and_then(|c| c.drop.as_ref()));
        let has = |names: &[String], name: &str| names.iter().any(|n| n == name);
        let keep = |name: &str| match (has(&add, name), has(&drop, name)) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => has(&add, "ALL") || (DEFAULT_CAPABILITIES.contains(&name) && !has(&drop, "ALL")),
        };
        grantable.iter().copied().filter(|name| keep(name)).collect()
    };
    wanted.into_iter().map(|name| format!("CAP_{name}")).collect()
}

/// What the container runs: the pod's words if it has any, else the image's.
pub(crate) fn command(command: &[String], args: &[String], image: &ImageConfig) -> Vec<String> {
    let mut all = if command.is_empty() { image.entrypoint.clone() } else { command.to_vec() };
    match (command.is_empty(), args.is_empty()) {
        (_, false) => all.extend_from_slice(args),
        (true, true) => all.extend_from_slice(&image.cmd),
        (false, true) => {}
    }
    all
}

/// The whole `config.json`. User and groups are filled in once the root file system is there.
pub(crate) fn config(inputs: &Inputs<'_>) -> Value {
    let Inputs { pod, container, image, .. } = inputs;
    let security = container.security_context.as_ref();
    let privileged = privileged(container);
    let capabilities = capabilities(container, inputs.grantable);
    let cwd = match (&container.working_dir, image.working_dir.as_str()) {
        (Some(dir), _) if !dir.is_empty() => dir.as_str(),
        (_, "") => "/",
        (_, dir) => dir,
    };
    let env: Vec<String> = inputs.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let escalate = security.and_then(|s| s.allow_privilege_escalation).unwrap_or(true);
    let mut process = json!({
        "terminal": container.tty.unwrap_or(false),
        "user": {"uid": 0, "gid": 0},
        "args": inputs.args,
        "env": env,
        "cwd": cwd,
        "capabilities": {
            "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            "inheritable": [], "ambient": [],
        },
        "noNewPrivileges": !escalate,
    });
    if let Some(score) = inputs.oom_score {
        process["oomScoreAdj"] = json!(score);
    }
    let read_only = security.and_then(|s| s.read_only_root_filesystem).unwrap_or(false);
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": read_only},
        "process": process,
        "mounts": mounts(inputs, privileged),
        "linux": linux(inputs, pod, privileged),
    })
}

fn linux(inputs: &Inputs<'_>, pod: &Pod, privileged: bool) -> Value {
    let spec = pod.spec.as_ref();
    let mut namespaces = vec![json!({"type": "mount"})];
    if !spec.and_then(|s| s.host_pid).unwrap_or(false) {
        namespaces.push(json!({"type": "pid"}));
    }
    if inputs.v2 && !privileged {
        namespaces.push(json!({"type": "cgroup"}));
    }
    let devices = if privileged {
        json!([{"allow": true, "access": "rwm"}])
    } else {
        // Terminals, null, zero, full, random, urandom, and making any node.
        let rule = |major: i64, minor: Option<i64>| match minor {
            Some(minor) => json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}),
            None => json!({"allow": true, "type": "c", "major": major, "access": "rwm"}),
        };
        let mut rules = vec![
            json!({"allow": false, "access": "rwm"}),
            json!({"allow": true, "type": "c", "access": "m"}),
            json!({"allow": true, "type": "b", "access": "m"}),
        ];
        rules.extend([3, 5, 7, 8, 9].map(|minor| rule(1, Some(minor))));
        rules.extend([rule(5, Some(0)), rule(5, Some(1)), rule(5, Some(2)), rule(136, None)]);
        Value::Array(rules)
    };
    let limits = inputs.limits;
    let mut cpu = json!({"shares": limits.cpu_shares.unwrap_or(2)});
    if let Some(quota) = limits.cpu_quota_us {
        cpu["quota"] = json!(quota);
        cpu["period"] = json!(CPU_PERIOD_US);
    }
    let mut resources = json!({"devices": devices, "cpu": cpu});
    if let Some(bytes) = limits.memory_bytes {
        resources["memory"] = json!({"limit": bytes});
    }
    if let Some(pids) = limits.pids {
        resources["pids"] = json!({"limit": pids});
    }
    let mut linux = json!({"cgroupsPath": inputs.cgroup, "namespaces": namespaces, "resources": resources});
    if !privileged {
        linux["maskedPaths"] = json!([
            "/proc/asound",
            "/proc/acpi",
            "/proc/interrupts",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/sys/firmware",
            "/sys/devices/virtual/powercap",
        ]);
        linux["readonlyPaths"] = json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
    }
    let sysctls = spec.and_then(|s| s.security_context.as_ref()).and_then(|s| s.sysctls.as_ref());
    if let Some(sysctls) = sysctls.filter(|list| !list.is_empty()) {
        linux["sysctl"] = sysctls.iter().map(|s| (s.name.clone(), Value::String(s.value.clone()))).collect();
    }
    linux
}

fn mounts(inputs: &Inputs<'_>, privileged: bool) -> Vec<Value> {
    let system = if privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", system]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", system]}),
    ];
    // A mount must not hide one that was made before it.
    let mut binds: Vec<&Bind> = inputs.binds.iter().collect();
    binds.sort_by_key(|bind| bind.target.split('/').count());
    for bind in binds {
        let access = if bind.read_only { "ro" } else { "rw" };
        mounts.push(json!({"destination": bind.target, "type": "bind", "source": bind.source,
            "options": ["rbind", bind.propagation, access]}));
    }
    mounts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn command_and_args_override_the_image() {
        let image = ImageConfig { entrypoint: vec!["e".into()], cmd: vec!["c".into()], ..ImageConfig::default() };
        let run = |command_: &[&str], args: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            command(&owned(command_), &owned(args), &image).join(" ")
        };
        assert_eq!(run(&[], &[]), "e c");
        assert_eq!(run(&["x"], &[]), "x");
        assert_eq!(run(&[], &["y"]), "e y");
        assert_eq!(run(&["x"], &["y"]), "x y");
    }

    #[test]
    fn capabilities_are_added_and_dropped_within_what_can_be_given() {
        let container = |text: &str| -> Container {
            serde_json::from_str(&format!(r#"{{"name":"a","securityContext":{text}}}"#)).unwrap()
        };
        let all = capabilities_of((1 << 41) - 1);
        let drop_all = container(r#"{"capabilities":{"drop":["ALL"],"add":["NET_BIND_SERVICE"]}}"#);
        assert_eq!(capabilities(&drop_all, &all), ["CAP_NET_BIND_SERVICE"]);
        assert_eq!(capabilities(&container(r#"{"privileged":true}"#), &all).len(), 41);
        assert_eq!(capabilities(&container("{}"), &all).len(), DEFAULT_CAPABILITIES.len());
        let few = capabilities_of(1);
        assert_eq!(capabilities(&container(r#"{"capabilities":{"add":["ALL"]}}"#), &few), ["CAP_CHOWN"]);
    }
}

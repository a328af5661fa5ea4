//! What the machine tells about itself.

use std::fs;

use k8s_openapi::api::core::v1::NodeSystemInfo;

use crate::config::Config;

/// What is known about the machine; does not change while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) cpus: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) info: NodeSystemInfo,
    /// Capabilities of this process, as bits.
    pub(crate) capabilities: u64,
}

/// Reads the facts.
pub(crate) fn collect(config: &Config) -> Facts {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let meminfo = read("/proc/meminfo");
    let memory =
        meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    let status = read("/proc/self/status");
    let capabilities =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let machine_id = read("/etc/machine-id").trim().to_owned();
    let info = NodeSystemInfo {
        architecture: architecture.to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
        container_runtime_version: format!("trireme://{}", config.runtime_version),
        kernel_version: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        kube_proxy_version: String::new(),
        kubelet_version: config.kubelet_version.clone(),
        system_uuid: system_uuid(&machine_id),
        machine_id,
        operating_system: "linux".to_owned(),
        os_image: os_image(&read("/etc/os-release")),
        ..NodeSystemInfo::default()
    };
    Facts {
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as i64),
        memory_bytes: memory.unwrap_or(0_i64) * 1024,
        info,
        capabilities: capabilities.unwrap_or(0),
    }
}

fn system_uuid(machine_id: &str) -> String {
    let product = fs::read_to_string("/sys/class/dmi/id/product_uuid").unwrap_or_default();
    match product.trim() {
        "" => machine_id.to_owned(),
        uuid => uuid.to_owned(),
    }
}

fn os_image(release: &str) -> String {
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_system() {
        assert_eq!(
            os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(os_image(""), "Linux");
    }
}

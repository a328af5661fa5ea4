//! Requests and limits: QoS class, cgroup paths and what goes into the cgroups. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};
use trireme_api::quantity::Quantity;

use crate::runtime::cgroups::{CPU_PERIOD_US, Limits};

/// What one container asks for and may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) request_cpu_milli: i64,
    pub(crate) request_memory: i64,
    pub(crate) limit_cpu_milli: i64,
    pub(crate) limit_memory: i64,
}

/// A container's amounts; a missing request is its limit. 0 stands for none.
pub(crate) fn amounts(container: &Container) -> Amounts {
    let resources = container.resources.as_ref();
    let get = |limits: bool, name: &str| {
        let map = resources.and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() })?;
        Quantity::parse(&map.get(name)?.0).ok()
    };
    let cpu = |limits| get(limits, "cpu").map(|q| q.milli_value());
    let memory = |limits| get(limits, "memory").map(|q| q.value());
    let (limit_cpu, limit_memory) = (cpu(true), memory(true));
    Amounts {
        request_cpu_milli: cpu(false).or(limit_cpu).unwrap_or(0),
        request_memory: memory(false).or(limit_memory).unwrap_or(0),
        limit_cpu_milli: limit_cpu.unwrap_or(0),
        limit_memory: limit_memory.unwrap_or(0),
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let all: Vec<Amounts> = containers(pod).map(amounts).collect();
    if all.iter().all(|a| *a == Amounts::default()) {
        return "BestEffort";
    }
    let guaranteed = all.iter().all(|a| {
        a.limit_cpu_milli > 0
            && a.limit_memory > 0
            && a.limit_cpu_milli == a.request_cpu_milli
            && a.limit_memory == a.request_memory
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

/// The pod's cgroup below the node's root.
pub(crate) fn pod_cgroup(root: &str, pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    match qos_class(pod) {
        "Guaranteed" => format!("{root}/pods/pod{uid}"),
        "Burstable" => format!("{root}/pods/burstable/pod{uid}"),
        _ => format!("{root}/pods/besteffort/pod{uid}"),
    }
}

fn shares(milli: i64) -> u64 {
    u64::try_from(milli * 1024 / 1000).unwrap_or(0).clamp(2, 262_144)
}

fn limits(total: Amounts) -> Limits {
    let quota = total.limit_cpu_milli * i64::try_from(CPU_PERIOD_US).unwrap_or(100_000) / 1000;
    Limits {
        cpu_shares: Some(shares(total.request_cpu_milli)),
        cpu_quota_us: (quota > 0).then(|| quota.max(1000)),
        memory_bytes: (total.limit_memory > 0).then_some(total.limit_memory),
        pids: None,
    }
}

/// Limits of a container's own cgroup.
pub(crate) fn container_limits(container: &Container) -> Limits {
    limits(amounts(container))
}

/// Limits of the pod's cgroup: the sum of its containers, as far as all of them have a limit.
pub(crate) fn pod_limits(pod: &Pod) -> Limits {
    let apps: Vec<Amounts> = pod.spec.iter().flat_map(|spec| &spec.containers).map(amounts).collect();
    let init: Vec<Amounts> =
        pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).map(amounts).collect();
    let largest = |of: fn(&Amounts) -> i64| {
        let sum: i64 = apps.iter().map(of).sum();
        init.iter().map(of).max().unwrap_or(0).max(sum)
    };
    let all = |of: fn(&Amounts) -> i64| apps.iter().chain(&init).all(|a| of(a) > 0);
    let capped = |of: fn(&Amounts) -> i64| if all(of) { largest(of) } else { 0 };
    limits(Amounts {
        request_cpu_milli: largest(|a| a.request_cpu_milli),
        request_memory: 0,
        limit_cpu_milli: capped(|a| a.limit_cpu_milli),
        limit_memory: capped(|a| a.limit_memory),
    })
}

/// How likely the kernel is to kill a container when memory runs out.
pub(crate) fn oom_score(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let share = 1000 * amounts(container).request_memory / memory_capacity.max(1);
            (1000 - share).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(resources: &str) -> Pod {
        let text =
            format!(r#"{{"metadata":{{"uid":"u"}},"spec":{{"containers":[{{"name":"a","resources":{resources}}}]}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn classes_and_paths() {
        let none = pod("{}");
        assert_eq!((qos_class(&none), pod_cgroup("/t", &none).as_str()), ("BestEffort", "/t/pods/besteffort/podu"));
        let some = pod(r#"{"requests":{"cpu":"100m"}}"#);
        assert_eq!((qos_class(&some), pod_cgroup("/t", &some).as_str()), ("Burstable", "/t/pods/burstable/podu"));
        let full = pod(r#"{"limits":{"cpu":"1","memory":"64Mi"}}"#);
        assert_eq!((qos_class(&full), pod_cgroup("/t", &full).as_str()), ("Guaranteed", "/t/pods/podu"));
    }

    #[test]
    fn limits_come_from_requests_and_limits() {
        let pod = pod(r#"{"requests":{"cpu":"250m"},"limits":{"cpu":"500m","memory":"64Mi"}}"#);
        let expected =
            Limits { cpu_shares: Some(256), cpu_quota_us: Some(50_000), memory_bytes: Some(64 << 20), pids: None };
        assert_eq!(pod_limits(&pod), expected);
    }
}

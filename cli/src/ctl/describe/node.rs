//! Nodes.

use serde_json::Value;
use trireme_api::Quantity;

use super::super::time;
use super::writer::{Page, items, plain, some};
use super::{Subject, template};

/// A node with its pods and what they ask for.
pub fn describe(page: &mut Page, subject: &Subject) {
    let node = &subject.object;
    let (metadata, spec, status) = (&node["metadata"], &node["spec"], &node["status"]);
    page.field(0, "Name", &plain(&metadata["name"]));
    page.field(0, "Roles", &roles(&metadata["labels"]));
    page.marked(node);
    page.field(0, "CreationTimestamp", &time::long(&plain(&metadata["creationTimestamp"])));
    let taints = items(&spec["taints"]).map(|taint| {
        let value = plain(&taint["value"]);
        let value = if value.is_empty() { value } else { format!("={value}") };
        format!("{}{value}:{}", plain(&taint["key"]), plain(&taint["effect"]))
    });
    page.multiline("", "Taints", "\t", taints.collect());
    page.field(0, "Unschedulable", if spec["unschedulable"] == true { "true" } else { "false" });
    lease(page, &subject.lease);
    conditions(page, &status["conditions"]);
    page.line(0, "Addresses:");
    items(&status["addresses"]).for_each(|entry| page.field(1, &plain(&entry["type"]), &plain(&entry["address"])));
    template::amounts(page, 0, "Capacity", &status["capacity"]);
    template::amounts(page, 0, "Allocatable", &status["allocatable"]);
    system_info(page, &status["nodeInfo"]);
    page.field_some(0, "PodCIDR", &spec["podCIDR"]);
    if some(&spec["podCIDRs"]) {
        page.field(0, "PodCIDRs", &items(&spec["podCIDRs"]).map(plain).collect::<Vec<_>>().join(","));
    }
    page.field_some(0, "ProviderID", &spec["providerID"]);
    let ended = |pod: &Value| pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
    let running: Vec<&Value> = subject.pods.iter().filter(|pod| !ended(pod)).collect();
    pods(page, &running, &status["allocatable"]);
    allocated(page, &running, &status["allocatable"]);
}

fn roles(labels: &Value) -> String {
    let mut roles: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role.to_owned()),
            _ if key == "kubernetes.io/role" => Some(plain(value)),
            _ => None,
        })
        .collect();
    roles.sort();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn lease(page: &mut Page, lease: &Value) {
    page.line(0, "Lease:");
    let field = |name: &str| match plain(&lease["spec"][name]) {
        text if text.is_empty() => "<unset>".to_owned(),
        text if name.ends_with("Time") => time::long(&text),
        text => text,
    };
    page.field(1, "HolderIdentity", &field("holderIdentity"));
    page.field(1, "AcquireTime", &field("acquireTime"));
    page.field(1, "RenewTime", &field("renewTime"));
}

fn conditions(page: &mut Page, conditions: &Value) {
    if !some(conditions) {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    page.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for condition in items(conditions) {
        let cell = |field: &str| plain(&condition[field]);
        let stamp = |field: &str| time::long(&cell(field));
        let (kind, status, reason, message) = (cell("type"), cell("status"), cell("reason"), cell("message"));
        let (beat, change) = (stamp("lastHeartbeatTime"), stamp("lastTransitionTime"));
        page.line(1, &format!("{kind} \t{status} \t{beat} \t{change} \t{reason} \t{message}"));
    }
}

fn system_info(page: &mut Page, info: &Value) {
    page.line(0, "System Info:");
    for (name, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
        ("Kube-Proxy Version", "kubeProxyVersion"),
    ] {
        page.field(1, name, &plain(&info[field]));
    }
}

/// An amount in thousandths of CPUs, or in bytes.
fn amount(value: &Value, resource: &str) -> i64 {
    let quantity = Quantity::from_value(value);
    quantity.map_or(0, |quantity| if resource == "cpu" { quantity.milli_value() } else { quantity.value() })
}

/// What a pod asks for: the sum of its containers, or the largest init container if that is more.
fn asked(pod: &Value, what: &str, resource: &str) -> i64 {
    let of = |container: &Value| amount(&container["resources"][what][resource], resource);
    let sum: i64 = items(&pod["spec"]["containers"]).map(of).sum();
    sum.max(items(&pod["spec"]["initContainers"]).map(of).max().unwrap_or_default())
}

fn share(asked: i64, resource: &str, allocatable: &Value) -> String {
    let text = if resource == "cpu" { cpu(asked) } else { bytes(asked) };
    let all = amount(&allocatable[resource], resource);
    let percent = if all > 0 { asked.saturating_mul(100) / all } else { 0 };
    format!("{text} ({percent}%)")
}

fn cpu(milli: i64) -> String {
    if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") }
}

fn bytes(bytes: i64) -> String {
    let units = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let fits = units.into_iter().find(|(_, size)| bytes != 0 && bytes % size == 0);
    fits.map_or_else(|| bytes.to_string(), |(unit, size)| format!("{}{unit}", bytes / size))
}

fn pods(page: &mut Page, pods: &[&Value], allocatable: &Value) {
    let kinds = [("cpu", "requests"), ("cpu", "limits"), ("memory", "requests"), ("memory", "limits")];
    page.field(0, "Non-terminated Pods", &format!("({} in total)", pods.len()));
    page.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    page.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    for pod in pods {
        let cell = |(resource, what): &(&str, &str)| share(asked(pod, what, resource), resource, allocatable);
        let cells: Vec<String> = kinds.iter().map(cell).collect();
        let age = time::age(pod["metadata"]["creationTimestamp"].as_str(), page.now);
        let (namespace, name) = (plain(&pod["metadata"]["namespace"]), plain(&pod["metadata"]["name"]));
        page.line(1, &format!("{namespace}\t{name}\t\t{}\t{age}", cells.join("\t")));
    }
}

fn allocated(page: &mut Page, pods: &[&Value], allocatable: &Value) {
    page.line(0, "Allocated resources:");
    page.line(1, "(Total limits may be over 100 percent, i.e., overcommitted.)");
    page.line(1, "Resource\tRequests\tLimits");
    page.line(1, "--------\t--------\t------");
    let standard = ["cpu", "memory", "ephemeral-storage"];
    let mut more: Vec<&str> = allocatable.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    more.retain(|name| *name != "pods" && !standard.contains(name));
    more.sort_unstable();
    for resource in standard.into_iter().chain(more) {
        let total = |what: &str| {
            let sum: i64 = pods.iter().map(|pod| asked(pod, what, resource)).sum();
            // Devices are counted, they have no share.
            let counted = !standard.contains(&resource) && !resource.starts_with("hugepages-");
            if counted { sum.to_string() } else { share(sum, resource, allocatable) }
        };
        page.line(1, &format!("{resource}\t{}\t{}", total("requests"), total("limits")));
    }
}

//! Pod templates, containers and volumes: what pods and workloads have in common.

use serde_json::Value;

use super::super::time;
use super::volumes::volumes;
use super::writer::{Page, items, label_selector, plain, some};

/// Containers with their statuses, if there are any.
pub struct Containers<'a> {
    /// From the spec.
    pub specs: &'a Value,
    /// From the status; none in templates.
    pub statuses: Option<&'a Value>,
    /// What stands before names.
    pub indent: &'a str,
    /// The pod whose fields variables take; none in templates.
    pub pod: Option<&'a Value>,
}

/// `Pod Template:`
pub fn describe(page: &mut Page, template: &Value) {
    page.line(0, "Pod Template:");
    page.labels("  Labels", &template["metadata"]["labels"]);
    if template["metadata"]["annotations"].is_object() {
        page.annotations("  Annotations", &template["metadata"]["annotations"]);
    }
    let spec = &template["spec"];
    page.field_some(1, "Service Account", &spec["serviceAccountName"]);
    for (name, field) in [("Init Containers", "initContainers"), ("Containers", "containers")] {
        if some(&spec[field]) {
            page.line(1, &format!("{name}:"));
            containers(page, &Containers { specs: &spec[field], statuses: None, indent: "   ", pod: None });
        }
    }
    volumes(page, &spec["volumes"], 1);
    spread(page, &spec["topologySpreadConstraints"], "  ");
    page.field_some(1, "Priority Class Name", &spec["priorityClassName"]);
    page.labels("  Node-Selectors", &spec["nodeSelector"]);
    super::pod::tolerations(page, &spec["tolerations"], "  ");
}

/// `Topology Spread Constraints:`, if there are any.
pub fn spread(page: &mut Page, constraints: &Value, before: &str) {
    let mut all: Vec<&Value> = items(constraints).collect();
    all.sort_by_key(|constraint| plain(&constraint["topologyKey"]));
    let line = |constraint: &&Value| {
        let (key, skew) = (plain(&constraint["topologyKey"]), plain(&constraint["maxSkew"]));
        let selector = &constraint["labelSelector"];
        let selector = match selector.is_object() {
            true => format!(" for selector {}", label_selector(selector, "<none>")),
            false => String::new(),
        };
        format!("{key}:{} when max skew {skew} is exceeded{selector}", plain(&constraint["whenUnsatisfiable"]))
    };
    if !all.is_empty() {
        page.multiline(before, "Topology Spread Constraints", "\t", all.iter().map(line).collect());
    }
}

/// `SeccompProfile:` of a pod or a container.
pub fn seccomp(page: &mut Page, level: usize, inner: usize, context: &Value) {
    let profile = &context["seccompProfile"];
    page.field_some(level, "SeccompProfile", &profile["type"]);
    page.field_some(inner, "LocalhostProfile", &profile["localhostProfile"]);
}

/// Containers one below the other.
pub fn containers(page: &mut Page, containers: &Containers<'_>) {
    for spec in items(containers.specs) {
        let name = plain(&spec["name"]);
        // A container that the node has not looked at yet has no status.
        let status =
            containers.statuses.and_then(|statuses| items(statuses).find(|status| status["name"] == name.as_str()));
        page.raw(&format!("{}{name}:\n", containers.indent));
        if let Some(status) = status {
            page.field(2, "Container ID", &plain(&status["containerID"]));
        }
        page.field(2, "Image", &plain(&spec["image"]));
        if let Some(status) = status {
            page.field(2, "Image ID", &plain(&status["imageID"]));
        }
        ports(page, &spec["ports"]);
        seccomp(page, 2, 3, &spec["securityContext"]);
        words(page, "Command", &spec["command"]);
        words(page, "Args", &spec["args"]);
        if let Some(status) = status {
            state(page, "State", &status["state"]);
            if status["lastState"]["terminated"].is_object() {
                state(page, "Last State", &status["lastState"]);
            }
            page.field(2, "Ready", if status["ready"] == true { "True" } else { "False" });
            page.field(2, "Restart Count", &status["restartCount"].as_i64().unwrap_or_default().to_string());
        }
        amounts(page, 2, "Limits", &spec["resources"]["limits"]);
        amounts(page, 2, "Requests", &spec["resources"]["requests"]);
        let probes = [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")];
        for (name, field) in probes {
            if spec[field].is_object() {
                page.field(2, name, &probe(&spec[field]));
            }
        }
        environment(page, spec, containers.pod);
        mounts(page, &spec["volumeMounts"]);
        devices(page, &spec["volumeDevices"]);
    }
}

fn ports(page: &mut Page, ports: &Value) {
    let shown = |field: &str| -> Vec<String> {
        let text = |port: &Value| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            format!("{}/{protocol}", port[field].as_i64().unwrap_or_default())
        };
        items(ports).map(text).collect()
    };
    let (inner, host) = (shown("containerPort"), shown("hostPort"));
    let plural = if inner.len() > 1 { "s" } else { "" };
    let join = |list: Vec<String>| if list.is_empty() { "<none>".to_owned() } else { list.join(", ") };
    page.field(2, &format!("Port{plural}"), &join(inner));
    page.field(2, &format!("Host Port{plural}"), &join(host));
}

fn words(page: &mut Page, name: &str, words: &Value) {
    if !some(words) {
        return;
    }
    page.line(2, &format!("{name}:"));
    for word in items(words) {
        plain(word).split('\n').for_each(|line| page.line(3, line));
    }
}

fn state(page: &mut Page, name: &str, state: &Value) {
    let stamp = |value: &Value| value.as_str().map(time::long).unwrap_or_default();
    if state["running"].is_object() {
        page.field(2, name, "Running");
        page.field(3, "Started", &stamp(&state["running"]["startedAt"]));
    } else if state["terminated"].is_object() {
        let end = &state["terminated"];
        page.field(2, name, "Terminated");
        page.field_some(3, "Reason", &end["reason"]);
        page.field_some(3, "Message", &end["message"]);
        page.field(3, "Exit Code", &end["exitCode"].as_i64().unwrap_or_default().to_string());
        if end["signal"].as_i64().unwrap_or_default() > 0 {
            page.field_some(3, "Signal", &end["signal"]);
        }
        page.field(3, "Started", &stamp(&end["startedAt"]));
        page.field(3, "Finished", &stamp(&end["finishedAt"]));
    } else {
        page.field(2, name, "Waiting");
        page.field_some(3, "Reason", &state["waiting"]["reason"]);
    }
}

/// Quantities by name, if there are any.
pub fn amounts(page: &mut Page, level: usize, name: &str, amounts: &Value) {
    let mut pairs: Vec<(&String, &Value)> = amounts.as_object().into_iter().flatten().collect();
    if pairs.is_empty() {
        return;
    }
    pairs.sort_by_key(|(key, _)| *key);
    page.line(level, &format!("{name}:"));
    pairs.into_iter().for_each(|(key, value)| page.field(level + 1, key, &plain(value)));
}

fn probe(probe: &Value) -> String {
    let number = |field: &str, default: i64| probe[field].as_i64().unwrap_or(default);
    let timing = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    );
    let kind = if probe["exec"].is_object() {
        let words: Vec<String> = items(&probe["exec"]["command"]).map(plain).collect();
        format!("exec [{}]", words.join(" "))
    } else if probe["httpGet"].is_object() {
        let get = &probe["httpGet"];
        let scheme = get["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
        let path = plain(&get["path"]);
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("http-get {scheme}://{}:{}{slash}{path}", plain(&get["host"]), plain(&get["port"]))
    } else if probe["tcpSocket"].is_object() {
        format!("tcp-socket {}:{}", plain(&probe["tcpSocket"]["host"]), plain(&probe["tcpSocket"]["port"]))
    } else if probe["grpc"].is_object() {
        format!("grpc <pod>:{} {}", plain(&probe["grpc"]["port"]), plain(&probe["grpc"]["service"]))
    } else {
        "unknown".to_owned()
    };
    format!("{kind} {timing}")
}

fn environment(page: &mut Page, spec: &Value, pod: Option<&Value>) {
    if some(&spec["envFrom"]) {
        page.line(2, "Environment Variables from:");
        for source in items(&spec["envFrom"]) {
            let (kind, reference) = match source["configMapRef"].is_object() {
                true => ("ConfigMap", &source["configMapRef"]),
                false => ("Secret", &source["secretRef"]),
            };
            let optional = reference["optional"] == true;
            let prefix = match source["prefix"].as_str().filter(|prefix| !prefix.is_empty()) {
                Some(prefix) => format!(" with prefix '{prefix}'"),
                None => String::new(),
            };
            page.line(3, &format!("{}\t{kind}{prefix}\tOptional: {optional}", plain(&reference["name"])));
        }
    }
    if !some(&spec["env"]) {
        page.field(2, "Environment", "<none>");
        return;
    }
    page.line(2, "Environment:");
    for variable in items(&spec["env"]) {
        page.line(3, &format!("{}:\t{}", plain(&variable["name"]), variable_value(variable, spec, pod)));
    }
}

fn variable_value(variable: &Value, spec: &Value, pod: Option<&Value>) -> String {
    let from = &variable["valueFrom"];
    let key_of = |kind: &str, reference: &Value| {
        let (key, name) = (plain(&reference["key"]), plain(&reference["name"]));
        let of = if kind == "secret" { "in" } else { "of" };
        format!("<set to the key '{key}' {of} {kind} '{name}'>\tOptional: {}", reference["optional"] == true)
    };
    if from["fieldRef"].is_object() {
        let reference = &from["fieldRef"];
        let path = plain(&reference["fieldPath"]);
        let value = pod.map(|pod| field_of(pod, &path)).unwrap_or_default();
        format!("{value} ({}:{path})", reference["apiVersion"].as_str().unwrap_or("v1"))
    } else if from["configMapKeyRef"].is_object() {
        key_of("config map", &from["configMapKeyRef"])
    } else if from["secretKeyRef"].is_object() {
        key_of("secret", &from["secretKeyRef"])
    } else if from["resourceFieldRef"].is_object() {
        let reference = &from["resourceFieldRef"];
        let resource = plain(&reference["resource"]);
        let value = match resource_value(spec, &resource, &reference["divisor"]) {
            value if value == "0" && matches!(resource.as_str(), "limits.cpu" | "limits.memory") => {
                "node allocatable".to_owned()
            }
            value => value,
        };
        format!("{value} ({resource})")
    } else {
        plain(&variable["value"]).replace('\n', "\n      \t")
    }
}

/// `limits.cpu` of a container in units of the divisor, rounded up.
fn resource_value(spec: &Value, resource: &str, divisor: &Value) -> String {
    let (kind, name) = resource.split_once('.').unwrap_or((resource, ""));
    let amount = plain(&spec["resources"][kind][name]);
    let read =
        |text: &str| trireme_api::quantity::Quantity::parse(text).ok().map(|quantity| quantity.milli_value() as f64);
    let unit = read(&plain(divisor)).filter(|unit| *unit > 0.0).unwrap_or(1000.0);
    match read(&amount) {
        Some(amount) => format!("{}", (amount / unit).ceil()),
        None => "0".to_owned(),
    }
}

/// A pod's field by the path of a `fieldRef`: `metadata.name`, `metadata.labels['app']`.
fn field_of(pod: &Value, path: &str) -> String {
    let (path, key) = match path.split_once("['") {
        Some((path, rest)) => (path, Some(rest.trim_end_matches("']"))),
        None => (path, None),
    };
    let value = path.split('.').fold(pod, |value, name| &value[name]);
    match key {
        Some(key) => plain(&value[key]),
        None if value.is_object() => String::new(),
        None => plain(value),
    }
}

fn mounts(page: &mut Page, mounts: &Value) {
    if !some(mounts) {
        page.field(2, "Mounts", "<none>");
        return;
    }
    page.line(2, "Mounts:");
    let mut lines: Vec<String> = items(mounts)
        .map(|mount| {
            let mut flags = vec![if mount["readOnly"] == true { "ro" } else { "rw" }.to_owned()];
            if let Some(path) = mount["subPath"].as_str() {
                flags.push(format!("path={path:?}"));
            }
            format!("{} from {} ({})", plain(&mount["mountPath"]), plain(&mount["name"]), flags.join(","))
        })
        .collect();
    lines.sort();
    lines.iter().for_each(|line| page.line(3, line));
}

fn devices(page: &mut Page, devices: &Value) {
    if !some(devices) {
        return;
    }
    page.line(2, "Devices:");
    let mut lines: Vec<String> = items(devices)
        .map(|device| format!("{} from {}", plain(&device["devicePath"]), plain(&device["name"])))
        .collect();
    lines.sort();
    lines.iter().for_each(|line| page.line(3, line));
}

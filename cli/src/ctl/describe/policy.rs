//! Network policies, disruption budgets, autoscalers.

use serde_json::Value;

use super::writer::{Page, items, label_selector, or_unset, plain, some};

const NONE: &str = "<none>";

/// A network policy.
pub fn network_policy(mut page: Page, object: &Value) -> String {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    page.named(object);
    let created = plain(&metadata["creationTimestamp"]);
    page.field(0, "Created on", &created.replace('T', " ").replace('Z', " +0000 UTC"));
    page.marked(object);
    page.line(0, "Spec:");
    let all = "<none> (Allowing the specific traffic to all pods in this namespace)";
    page.line(1, &format!("PodSelector:     {}", label_selector(&spec["podSelector"], all)));
    for (kind, field, peers, word, end) in
        [("Ingress", "ingress", "from", "From", "source"), ("Egress", "egress", "to", "To", "destination")]
    {
        if !items(&spec["policyTypes"]).any(|known| known == kind) {
            page.line(1, &format!("Not affecting {field} traffic"));
            continue;
        }
        page.line(1, &format!("Allowing {field} traffic:"));
        if !some(&spec[field]) {
            page.line(2, &format!("<none> (Selected pods are isolated for {field} connectivity)"));
        }
        for (index, rule) in items(&spec[field]).enumerate() {
            if index > 0 {
                page.line(2, "----------");
            }
            ports(&mut page, &rule["ports"]);
            if !some(&rule[peers]) {
                page.line(2, &format!("{word}: <any> (traffic not restricted by {end})"));
            }
            for peer in items(&rule[peers]) {
                page.line(2, &format!("{word}:"));
                self::peer(&mut page, peer);
            }
        }
    }
    let types: Vec<String> = items(&spec["policyTypes"]).map(plain).collect();
    let types = if types.is_empty() { NONE.to_owned() } else { types.join(", ") };
    page.line(1, &format!("Policy Types: {types}"));
    page.finish()
}

fn ports(page: &mut Page, ports: &Value) {
    if !some(ports) {
        page.line(2, "To Port: <any> (traffic allowed to all ports)");
    }
    for port in items(ports) {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        // Go says so for a pointer to nothing.
        let number = if port["port"].is_null() { "<nil>".to_owned() } else { plain(&port["port"]) };
        match port["endPort"].as_i64() {
            Some(end) => page.line(2, &format!("To Port Range: {number}-{end}/{protocol}")),
            None => page.line(2, &format!("To Port: {number}/{protocol}")),
        }
    }
}

fn peer(page: &mut Page, peer: &Value) {
    for (name, field) in [("NamespaceSelector", "namespaceSelector"), ("PodSelector", "podSelector")] {
        if peer[field].is_object() {
            page.line(3, &format!("{name}: {}", label_selector(&peer[field], NONE)));
        }
    }
    let block = &peer["ipBlock"];
    if block.is_object() {
        page.line(3, "IPBlock:");
        page.line(4, &format!("CIDR: {}", plain(&block["cidr"])));
        let except: Vec<String> = items(&block["except"]).map(plain).collect();
        page.line(4, &format!("Except: {}", except.join(", ")));
    }
}

/// A disruption budget.
pub fn disruption_budget(page: &mut Page, object: &Value) {
    let (spec, status) = (&object["spec"], &object["status"]);
    page.named(object);
    if spec["minAvailable"].is_null() {
        page.field_some(0, "Max unavailable", &spec["maxUnavailable"]);
    } else {
        page.field_some(0, "Min available", &spec["minAvailable"]);
    }
    let selector = &spec["selector"];
    page.field(0, "Selector", &if selector.is_null() { "<unset>".to_owned() } else { label_selector(selector, NONE) });
    page.line(0, "Status:");
    let counts = [
        ("Allowed disruptions", "disruptionsAllowed"),
        ("Current", "currentHealthy"),
        ("Desired", "desiredHealthy"),
        ("Total", "expectedPods"),
    ];
    for (name, field) in counts {
        page.field(2, name, &status[field].as_i64().unwrap_or_default().to_string());
    }
}

/// An autoscaler, of version 2.
pub fn autoscaler(page: &mut Page, object: &Value) {
    let (spec, status) = (&object["spec"], &object["status"]);
    page.metadata(object);
    page.created(object);
    let target = &spec["scaleTargetRef"];
    page.field(0, "Reference", &format!("{}/{}", plain(&target["kind"]), plain(&target["name"])));
    page.field(0, "Metrics", "( current / target )");
    for (index, metric) in items(&spec["metrics"]).enumerate() {
        page.line(1, &self::metric(metric, &status["currentMetrics"][index]));
    }
    page.field(0, "Min replicas", &or_unset(&spec["minReplicas"]));
    page.field(0, "Max replicas", &plain(&spec["maxReplicas"]));
    if spec["behavior"].is_object() {
        page.line(0, "Behavior:");
        direction(page, "Scale Up", &spec["behavior"]["scaleUp"]);
        direction(page, "Scale Down", &spec["behavior"]["scaleDown"]);
    }
    let count = |field: &str| status[field].as_i64().unwrap_or_default();
    let counts = format!("{} current / {} desired", count("currentReplicas"), count("desiredReplicas"));
    page.field(0, &format!("{} pods", plain(&target["kind"])), &counts);
    if some(&status["conditions"]) {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus\tReason\tMessage");
        page.line(1, "----\t------\t------\t-------");
        for condition in items(&status["conditions"]) {
            let cells: Vec<String> =
                ["type", "status", "reason", "message"].iter().map(|field| plain(&condition[*field])).collect();
            page.line(1, &cells.join("\t"));
        }
    }
}

/// What a metric is and has to be.
fn metric(metric: &Value, now: &Value) -> String {
    let kind = plain(&metric["type"]);
    let mut field = kind.clone();
    if let Some(first) = field.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    let (source, current) = (&metric[&field], &now[&field]["current"]);
    let target = &source["target"];
    let by_average = !target["averageValue"].is_null();
    let value = if by_average || kind == "Pods" { "averageValue" } else { "value" };
    let is = |text: String| if text.is_empty() { "<unknown>".to_owned() } else { text };
    let pair = || format!("{} / {}", is(plain(&current[value])), plain(&target[value]));
    let name = plain(&source["metric"]["name"]);
    let how = if by_average { "(target average value)" } else { "(target value)" };
    match kind.as_str() {
        "External" => format!("{name:?} {how}:\t{}", pair()),
        "Pods" => format!("{name:?} on pods:\t{}", pair()),
        "Object" => {
            let on = &source["describedObject"];
            format!("\"{name}\" on {}/{} {how}:\t{}", plain(&on["kind"]), plain(&on["name"]), pair())
        }
        "Resource" | "ContainerResource" => {
            let container = match source["container"].as_str() {
                Some(container) => format!(" of container \"{container}\""),
                None => String::new(),
            };
            let what = format!("resource {}{container} on pods", plain(&source["name"]));
            if by_average {
                return format!("{what}:\t{}", pair());
            }
            let used = match current["averageUtilization"].as_i64() {
                Some(percent) => format!("{percent}% ({})", plain(&current["averageValue"])),
                None => "<unknown>".to_owned(),
            };
            let wanted = target["averageUtilization"].as_i64();
            let wanted = wanted.map_or("<auto>".to_owned(), |percent| format!("{percent}%"));
            format!("{what}  (as a percentage of request):\t{used} / {wanted}")
        }
        _ => format!("<unknown metric type {kind:?}>"),
    }
}

fn direction(page: &mut Page, name: &str, rules: &Value) {
    if !rules.is_object() {
        return;
    }
    page.line(1, &format!("{name}:"));
    if let Some(seconds) = rules["stabilizationWindowSeconds"].as_i64() {
        page.line(2, &format!("Stabilization Window: {seconds} seconds"));
    }
    if some(&rules["policies"]) {
        page.line(2, &format!("Select Policy: {}", rules["selectPolicy"].as_str().unwrap_or("Max")));
        page.line(2, "Policies:");
        for policy in items(&rules["policies"]) {
            let (kind, value, period) = (&policy["type"], &policy["value"], &policy["periodSeconds"]);
            let line = format!("- Type: {}\tValue: {}\tPeriod: {} seconds", plain(kind), plain(value), plain(period));
            page.line(3, &line);
        }
    }
}

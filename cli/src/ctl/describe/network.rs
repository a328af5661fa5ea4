//! Endpoints and endpoint slices, and the other small kinds.

use serde_json::Value;

use super::writer::{Page, items, plain, some};

/// Endpoints.
pub fn endpoints(page: &mut Page, object: &Value) {
    page.metadata(object);
    page.raw("Subsets:\n");
    for subset in items(&object["subsets"]) {
        let addresses = |field: &str| {
            let list: Vec<String> = items(&subset[field]).map(|entry| plain(&entry["ip"])).collect();
            if list.is_empty() { "<none>".to_owned() } else { list.join(",") }
        };
        page.field(1, "Addresses", &addresses("addresses"));
        page.field(1, "NotReadyAddresses", &addresses("notReadyAddresses"));
        if some(&subset["ports"]) {
            page.line(1, "Ports:");
            ports(page, 2, &subset["ports"]);
        }
        page.raw("\n");
    }
}

fn ports(page: &mut Page, level: usize, ports: &Value) {
    page.line(level, "Name\tPort\tProtocol");
    page.line(level, "----\t----\t--------");
    for port in items(ports) {
        let name = port["name"].as_str().filter(|name| !name.is_empty()).unwrap_or("<unset>");
        let number = port["port"].as_i64().map_or("<unset>".to_owned(), |number| number.to_string());
        page.line(level, &format!("{name}\t{number}\t{}", port["protocol"].as_str().unwrap_or("TCP")));
    }
}

/// An endpoint slice.
pub fn slice(page: &mut Page, object: &Value) {
    page.metadata(object);
    page.field(0, "AddressType", &plain(&object["addressType"]));
    if some(&object["ports"]) {
        page.line(0, "Ports:");
        ports(page, 1, &object["ports"]);
    } else {
        page.line(0, "Ports: <unset>");
    }
    if !some(&object["endpoints"]) {
        page.line(0, "Endpoints: <none>");
        return;
    }
    page.line(0, "Endpoints:");
    for endpoint in items(&object["endpoints"]) {
        let addresses: Vec<String> = items(&endpoint["addresses"]).map(plain).collect();
        page.line(1, &format!("- Addresses:\t{}", addresses.join(", ")));
        page.line(2, "Conditions:");
        let ready = &endpoint["conditions"]["ready"];
        page.field(3, "Ready", &if ready.is_null() { "<unset>".to_owned() } else { plain(ready) });
        let or_unset = |value: &Value| if value.is_null() { "<unset>".to_owned() } else { plain(value) };
        page.field(2, "Hostname", &or_unset(&endpoint["hostname"]));
        if endpoint["targetRef"].is_object() {
            let target = &endpoint["targetRef"];
            page.field(2, "TargetRef", &format!("{}/{}", plain(&target["kind"]), plain(&target["name"])));
        }
        page.field(2, "NodeName", &or_unset(&endpoint["nodeName"]));
        page.field(2, "Zone", &or_unset(&endpoint["zone"]));
    }
}

/// A priority class.
pub fn priority_class(page: &mut Page, object: &Value) {
    page.field(0, "Name", &plain(&object["metadata"]["name"]));
    page.field(0, "Value", &plain(&object["value"]));
    page.field(0, "GlobalDefault", if object["globalDefault"] == true { "true" } else { "false" });
    page.field(0, "PreemptionPolicy", object["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority"));
    page.field(0, "Description", &plain(&object["description"]));
    let mut pairs: Vec<String> = object["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", plain(value)))
        .collect();
    pairs.sort();
    page.field(0, "Annotations", &if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") });
}

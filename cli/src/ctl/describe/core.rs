//! Services, namespaces, config maps, secrets and service accounts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::print::table::labels;
use super::super::time;
use super::Subject;
use super::writer::{Page, items, plain, some};

/// A service.
pub fn service(page: &mut Page, subject: &Subject) {
    let object = &subject.object;
    let spec = &object["spec"];
    page.metadata(object);
    page.field(0, "Selector", &labels(&spec["selector"]));
    page.field(0, "Type", &plain(&spec["type"]));
    page.field_some(0, "IP Family Policy", &spec["ipFamilyPolicy"]);
    let list = |value: &Value| items(value).map(plain).collect::<Vec<_>>().join(",");
    let or_nothing = |value: &Value| if some(value) { list(value) } else { "<none>".to_owned() };
    page.field(0, "IP Families", &or_nothing(&spec["ipFamilies"]));
    page.field(0, "IP", &plain(&spec["clusterIP"]));
    page.field(0, "IPs", &or_nothing(&spec["clusterIPs"]));
    if some(&spec["externalIPs"]) {
        page.field(0, "External IPs", &list(&spec["externalIPs"]));
    }
    page.field_some(0, "External Name", &spec["externalName"]);
    let ingress: Vec<String> = items(&object["status"]["loadBalancer"]["ingress"])
        .map(|entry| plain(if entry["ip"].is_null() { &entry["hostname"] } else { &entry["ip"] }))
        .collect();
    if !ingress.is_empty() {
        page.field(0, "LoadBalancer Ingress", &ingress.join(", "));
    }
    for port in items(&spec["ports"]) {
        service_port(page, subject, port);
    }
    page.field(0, "Session Affinity", &plain(&spec["sessionAffinity"]));
    page.field_some(0, "External Traffic Policy", &spec["externalTrafficPolicy"]);
    page.field_some(0, "Internal Traffic Policy", &spec["internalTrafficPolicy"]);
}

fn service_port(page: &mut Page, subject: &Subject, port: &Value) {
    let name = port["name"].as_str().filter(|name| !name.is_empty()).unwrap_or("<unset>");
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    page.field(0, "Port", &format!("{name}\t{}/{protocol}", plain(&port["port"])));
    page.field(0, "TargetPort", &format!("{}/{protocol}", plain(&port["targetPort"])));
    if port["nodePort"].as_i64().unwrap_or_default() > 0 {
        page.field(0, "NodePort", &format!("{name}\t{}/{protocol}", plain(&port["nodePort"])));
    }
    let mut found = addresses(subject, port["name"].as_str().unwrap_or_default());
    let more = found.len().saturating_sub(3);
    found.truncate(3);
    let mut text = if found.is_empty() { "<none>".to_owned() } else { found.join(",") };
    if more > 0 {
        text.push_str(&format!(" + {more} more..."));
    }
    page.field(0, "Endpoints", &text);
}

/// Ready endpoints of a port, by its name.
fn addresses(subject: &Subject, port: &str) -> Vec<String> {
    let mut found = Vec::new();
    for slice in &subject.slices {
        let ports = items(&slice["ports"]).filter(|entry| entry["name"].as_str().unwrap_or_default() == port);
        for number in ports.filter_map(|entry| entry["port"].as_i64()) {
            let ready = items(&slice["endpoints"]).filter(|endpoint| endpoint["conditions"]["ready"] != false);
            found.extend(ready.flat_map(|endpoint| items(&endpoint["addresses"])).map(|address| {
                match plain(address) {
                    text if text.contains(':') => format!("[{text}]:{number}"),
                    text => format!("{text}:{number}"),
                }
            }));
        }
    }
    found
}

/// A namespace with its quotas, where the server has such.
pub fn namespace(mut page: Page, subject: &Subject) -> String {
    let object = &subject.object;
    page.metadata(object);
    page.field(0, "Status", &plain(&object["status"]["phase"]));
    if some(&object["status"]["conditions"]) {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
        page.line(1, "----\t------\t------------------\t------\t-------");
        for condition in items(&object["status"]["conditions"]) {
            let cell = |field: &str| plain(&condition[field]);
            let since = time::long(&cell("lastTransitionTime"));
            let (kind, status, reason, message) = (cell("type"), cell("status"), cell("reason"), cell("message"));
            page.line(1, &format!("{kind}\t{status}\t{since}\t{reason}\t{message}"));
        }
    }
    match subject.quotas.as_deref() {
        None => {}
        Some([]) => page.raw("\nNo resource quota.\n"),
        Some(quotas) => resource_quotas(&mut page, quotas),
    }
    match subject.limits.as_deref() {
        None => {}
        Some([]) => page.raw("\nNo LimitRange resource.\n"),
        Some(limits) => limit_ranges(&mut page, limits),
    }
    page.finish()
}

fn resource_quotas(page: &mut Page, quotas: &[Value]) {
    page.raw("\nResource Quotas\n");
    for quota in quotas {
        page.field(1, "Name", &plain(&quota["metadata"]["name"]));
        page.line(1, "Resource\tUsed\tHard");
        page.line(1, "--------\t---\t---");
        for (name, hard) in in_order(&quota["status"]["hard"]) {
            page.line(1, &format!("{name}\t{}\t{}", plain(&quota["status"]["used"][name]), plain(hard)));
        }
    }
}

fn limit_ranges(page: &mut Page, ranges: &[Value]) {
    page.raw("\nResource Limits\n");
    page.line(1, "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
    page.line(1, "----\t--------\t---\t---\t---------------\t-------------\t-----------------------");
    let fields = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
    for limit in ranges.iter().flat_map(|range| items(&range["spec"]["limits"])) {
        let mut names: Vec<&String> = fields
            .iter()
            .flat_map(|field| limit[*field].as_object().into_iter().flatten())
            .map(|(name, _)| name)
            .collect();
        names.sort();
        names.dedup();
        for name in names {
            let cell = |field: &&str| match plain(&limit[*field][name]) {
                text if text.is_empty() => "-".to_owned(),
                text => text,
            };
            let cells: Vec<String> = fields.iter().map(cell).collect();
            page.line(1, &format!("{}\t{name}\t{}", plain(&limit["type"]), cells.join("\t")));
        }
    }
}

fn in_order(map: &Value) -> Vec<(&String, &Value)> {
    let mut entries: Vec<(&String, &Value)> = map.as_object().into_iter().flatten().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// A config map.
pub fn config_map(page: &mut Page, object: &Value) {
    page.metadata(object);
    page.raw("\nData\n====\n");
    for (key, value) in in_order(&object["data"]) {
        // The user's tabs are not columns.
        page.raw(&format!("{key}:\n----\n{}\n\n", plain(value).replace('\t', "        ")));
    }
    page.raw("\nBinaryData\n====\n");
    for (key, value) in in_order(&object["binaryData"]) {
        page.raw(&format!("{key}: {} bytes\n", decoded_len(value)));
    }
    page.raw("\n");
}

fn decoded_len(value: &Value) -> usize {
    value.as_str().and_then(|text| STANDARD.decode(text).ok()).map_or(0, |bytes| bytes.len())
}

/// A secret: names and sizes, never the values.
pub fn secret(mut page: Page, object: &Value) -> String {
    page.metadata(object);
    page.raw(&format!("\nType:\t{}\n\nData\n====\n", plain(&object["type"])));
    for (key, value) in in_order(&object["data"]) {
        page.raw(&format!("{key}:\t{} bytes\n", decoded_len(value)));
    }
    page.finish()
}

/// A service account.
pub fn service_account(page: &mut Page, object: &Value) {
    page.metadata(object);
    let names = |field: &str| items(&object[field]).map(|entry| plain(&entry["name"])).collect::<Vec<_>>();
    page.multiline("", "Image pull secrets", "\t", names("imagePullSecrets"));
    page.multiline("", "Mountable secrets", "\t", names("secrets"));
    page.multiline("", "Tokens", "\t", Vec::new());
}

//! Services, namespaces, config maps, secrets and service accounts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::print::table::labels;
use super::ingress::transitions;
use super::writer::{Page, in_order, items, plain, some};
use super::{Subject, quota};

/// Endpoints of a port that are shown.
const SHOWN: usize = 3;

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
    page.field_some(0, "Desired LoadBalancer IP", &spec["loadBalancerIP"]);
    page.field_some(0, "External Name", &spec["externalName"]);
    let address = |entry: &Value| match (entry["ip"].as_str(), entry["ipMode"].as_str()) {
        (Some(ip), Some(mode)) => format!("{ip} ({mode})"),
        (Some(ip), None) => ip.to_owned(),
        (None, _) => plain(&entry["hostname"]),
    };
    let ingress: Vec<String> = items(&object["status"]["loadBalancer"]["ingress"]).map(address).collect();
    if !ingress.is_empty() {
        page.field(0, "LoadBalancer Ingress", &ingress.join(", "));
    }
    for port in items(&spec["ports"]) {
        service_port(page, subject, port);
    }
    page.field(0, "Session Affinity", &plain(&spec["sessionAffinity"]));
    page.field_some(0, "External Traffic Policy", &spec["externalTrafficPolicy"]);
    page.field_some(0, "Internal Traffic Policy", &spec["internalTrafficPolicy"]);
    page.field_some(0, "HealthCheck NodePort", &spec["healthCheckNodePort"]);
    if some(&spec["loadBalancerSourceRanges"]) {
        page.field(0, "LoadBalancer Source Ranges", &list(&spec["loadBalancerSourceRanges"]));
    }
}

fn service_port(page: &mut Page, subject: &Subject, port: &Value) {
    let name = port["name"].as_str().filter(|name| !name.is_empty()).unwrap_or("<unset>");
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    page.field(0, "Port", &format!("{name}\t{}/{protocol}", plain(&port["port"])));
    page.field(0, "TargetPort", &format!("{}/{protocol}", plain(&port["targetPort"])));
    if port["nodePort"].as_i64().unwrap_or_default() > 0 {
        page.field(0, "NodePort", &format!("{name}\t{}/{protocol}", plain(&port["nodePort"])));
    }
    let name = port["name"].as_str().unwrap_or_default();
    page.field(0, "Endpoints", &endpoints(&subject.slices, name));
}

/// The first ready endpoints of a port, by its name; all of them where slices have no ports.
pub fn endpoints(slices: &[Value], port: &str) -> String {
    if slices.is_empty() {
        return "<none>".to_owned();
    }
    let (mut shown, mut count, mut more): (Vec<String>, usize, bool) = (Vec::new(), 0, false);
    let mut see = |endpoint: &Value, number: Option<i64>| {
        more |= shown.len() == SHOWN;
        if endpoint["conditions"]["ready"] == false {
            return;
        }
        let address = plain(&endpoint["addresses"][0]);
        if !more {
            shown.push(match number {
                None => address,
                Some(number) if address.contains(':') => format!("[{address}]:{number}"),
                Some(number) => format!("{address}:{number}"),
            });
        }
        count += 1;
    };
    for slice in slices {
        if !some(&slice["ports"]) {
            items(&slice["endpoints"]).for_each(|endpoint| see(endpoint, None));
        }
        for entry in items(&slice["ports"]).filter(|entry| entry["name"].as_str().unwrap_or_default() == port) {
            let number = Some(entry["port"].as_i64().unwrap_or_default());
            items(&slice["endpoints"]).for_each(|endpoint| see(endpoint, number));
        }
    }
    let text = shown.join(",");
    if more { format!("{text} + {} more...", count - SHOWN) } else { text }
}

/// A namespace with its quotas, where the server has such.
pub fn namespace(mut page: Page, subject: &Subject) -> String {
    let object = &subject.object;
    page.metadata(object);
    page.field(0, "Status", &plain(&object["status"]["phase"]));
    if some(&object["status"]["conditions"]) {
        transitions(&mut page, &object["status"]["conditions"]);
    }
    match subject.quotas.as_deref() {
        None => {}
        Some([]) => page.raw("\nNo resource quota.\n"),
        Some(quotas) => quota::quotas(&mut page, quotas),
    }
    match subject.limits.as_deref() {
        None => {}
        Some([]) => page.raw("\nNo LimitRange resource.\n"),
        Some(limits) => quota::limit_ranges(&mut page, limits),
    }
    page.finish()
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

/// A service account, with the secrets of its namespace where they may be seen.
pub fn service_account(page: &mut Page, subject: &Subject) {
    let object = &subject.object;
    page.metadata(object);
    let missing = |name: &String| {
        let known =
            subject.secrets.as_ref().is_none_or(|all| all.iter().any(|s| s["metadata"]["name"] == name.as_str()));
        if known { name.clone() } else { format!("{name} (not found)") }
    };
    let names =
        |field: &str| -> Vec<String> { items(&object[field]).map(|entry| missing(&plain(&entry["name"]))).collect() };
    page.multiline("", "Image pull secrets", "\t", names("imagePullSecrets"));
    page.multiline("", "Mountable secrets", "\t", names("secrets"));
    let is_token = |secret: &&Value| {
        let annotations = &secret["metadata"]["annotations"];
        secret["type"] == "kubernetes.io/service-account-token"
            && annotations["kubernetes.io/service-account.name"] == object["metadata"]["name"]
            && annotations["kubernetes.io/service-account.uid"] == object["metadata"]["uid"]
    };
    let tokens = subject.secrets.iter().flatten().filter(is_token);
    page.multiline("", "Tokens", "\t", tokens.map(|secret| plain(&secret["metadata"]["name"])).collect());
}

//! Ingresses, and what else of the network has a page.

use serde_json::Value;

use super::super::time;
use super::core::endpoints;
use super::writer::{Page, items, plain, some};
use super::{Backend, Subject};

/// An ingress, with the endpoints of its services.
pub fn ingress(page: &mut Page, subject: &Subject) {
    let object = &subject.object;
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    page.field(0, "Name", &plain(&metadata["name"]));
    page.labels("Labels", &metadata["labels"]);
    page.field(0, "Namespace", &plain(&metadata["namespace"]));
    let ingress = items(&object["status"]["loadBalancer"]["ingress"]);
    let mut addresses: Vec<String> =
        ingress.map(|entry| plain(if entry["ip"].is_null() { &entry["hostname"] } else { &entry["ip"] })).collect();
    addresses.sort();
    addresses.dedup();
    page.field(0, "Address", &addresses.join(","));
    page.field(0, "Ingress Class", spec["ingressClassName"].as_str().unwrap_or("<none>"));
    let default = &spec["defaultBackend"];
    let default = if default.is_object() { backend(default, &subject.backends) } else { "<default>".to_owned() };
    page.field(0, "Default backend", &default);
    if some(&spec["tls"]) {
        page.line(0, "TLS:");
    }
    for entry in items(&spec["tls"]) {
        let hosts = items(&entry["hosts"]).map(plain).collect::<Vec<_>>().join(",");
        match plain(&entry["secretName"]) {
            secret if secret.is_empty() => page.line(1, &format!("SNI routes {hosts}")),
            secret => page.line(1, &format!("{secret} terminates {hosts}")),
        }
    }
    page.line(0, "Rules:");
    page.line(1, "Host\tPath\tBackends");
    page.line(1, "----\t----\t--------");
    let mut any = false;
    for rule in items(&spec["rules"]).filter(|rule| rule["http"].is_object()) {
        any = true;
        let host = plain(&rule["host"]);
        page.line(1, &format!("{}\t", if host.is_empty() { "*" } else { &host }));
        for path in items(&rule["http"]["paths"]) {
            let backend = backend(&path["backend"], &subject.backends);
            page.line(2, &format!("\t{} \t{backend}", plain(&path["path"])));
        }
    }
    if !any {
        page.line(1, &format!("*\t*\t{default}"));
    }
    page.annotations("Annotations", &metadata["annotations"]);
}

/// The names of the services that an ingress sends to, each once.
pub fn services(ingress: &Value) -> Vec<String> {
    let spec = &ingress["spec"];
    let paths = items(&spec["rules"]).flat_map(|rule| items(&rule["http"]["paths"])).map(|path| &path["backend"]);
    let names = std::iter::once(&spec["defaultBackend"]).chain(paths).map(|backend| plain(&backend["service"]["name"]));
    let mut names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
    names.sort();
    names.dedup();
    names
}

fn backend(backend: &Value, known: &[Backend]) -> String {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    if resource.is_object() {
        let group = resource["apiGroup"].as_str().unwrap_or("<none>");
        return format!("APIGroup: {group}, Kind: {}, Name: {}", plain(&resource["kind"]), plain(&resource["name"]));
    }
    let (name, port) = (plain(&service["name"]), &service["port"]);
    let number = port["number"].as_i64().unwrap_or_default();
    let shown = if number != 0 { number.to_string() } else { plain(&port["name"]) };
    let Some(found) = known.iter().find(|known| known.name == name) else { return String::new() };
    let (of, slices) = match &found.found {
        Ok(found) => found,
        Err(why) => return format!("{name}:{shown} (<error: {why}>)"),
    };
    let wanted = plain(&port["name"]);
    let is_it = |entry: &&Value| match number {
        0 => !wanted.is_empty() && entry["name"] == wanted.as_str(),
        number => entry["port"] == number,
    };
    let port = items(&of["spec"]["ports"]).find(is_it).map(|entry| plain(&entry["name"])).unwrap_or_default();
    format!("{name}:{shown} ({})", endpoints(slices, &port))
}

fn head(page: &mut Page, object: &Value) {
    page.field(0, "Name", &plain(&object["metadata"]["name"]));
    page.marked(object);
}

/// A class of ingresses.
pub fn ingress_class(page: &mut Page, object: &Value) {
    head(page, object);
    page.field(0, "Controller", &plain(&object["spec"]["controller"]));
    let parameters = &object["spec"]["parameters"];
    if parameters.is_object() {
        page.line(0, "Parameters:");
        page.field_some(1, "APIGroup", &parameters["apiGroup"]);
        page.field(1, "Kind", &plain(&parameters["kind"]));
        page.field(1, "Name", &plain(&parameters["name"]));
    }
}

/// An address that a service has.
pub fn ip_address(page: &mut Page, object: &Value) {
    head(page, object);
    let parent = &object["spec"]["parentRef"];
    if parent.is_object() {
        page.line(0, "Parent Reference:");
        for (name, field) in
            [("Group", "group"), ("Resource", "resource"), ("Namespace", "namespace"), ("Name", "name")]
        {
            page.field(1, name, &plain(&parent[field]));
        }
    }
}

/// A range for the addresses of services.
pub fn service_cidr(page: &mut Page, object: &Value) {
    head(page, object);
    page.field(0, "CIDRs", &items(&object["spec"]["cidrs"]).map(plain).collect::<Vec<_>>().join(", "));
    if some(&object["status"]["conditions"]) {
        page.line(0, "Status:");
        transitions(page, &object["status"]["conditions"]);
    }
}

/// `Conditions:` with the time of their last change.
pub fn transitions(page: &mut Page, conditions: &Value) {
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
    page.line(1, "----\t------\t------------------\t------\t-------");
    for condition in items(conditions) {
        let cell = |field: &str| plain(&condition[field]);
        let since = time::long(&cell("lastTransitionTime"));
        let (kind, status, reason, message) = (cell("type"), cell("status"), cell("reason"), cell("message"));
        page.line(1, &format!("{kind}\t{status}\t{since}\t{reason}\t{message}"));
    }
}

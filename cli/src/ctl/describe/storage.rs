//! Persistent volumes, claims and classes.

use serde_json::Value;

use super::super::print::table::labels;
use super::super::time;
use super::Subject;
use super::volumes;
use super::writer::{Page, bracketed, entries, items, plain, some};

fn class(object: &Value) -> String {
    let annotation = &object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    plain(if annotation.is_null() { &object["spec"]["storageClassName"] } else { annotation })
}

/// `RWO,ROX`, each once, in kubectl's order.
fn modes(modes: &Value) -> String {
    let known =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |name: &str| items(modes).any(|mode| mode == name);
    known.iter().filter(|(name, _)| has(name)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn phase(page: &mut Page, object: &Value) {
    let text = match object["metadata"]["deletionTimestamp"].as_str() {
        Some(deleted) => format!("Terminating (lasts {})", time::age(Some(deleted), page.now)),
        None => plain(&object["status"]["phase"]),
    };
    page.field(0, "Status", &text);
}

/// A persistent volume.
pub fn volume(page: &mut Page, object: &Value) {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    page.field(0, "Name", &plain(&metadata["name"]));
    page.marked(object);
    page.field(0, "Finalizers", &bracketed(&metadata["finalizers"]));
    page.field(0, "StorageClass", &class(object));
    phase(page, object);
    let claim = &spec["claimRef"];
    let claim = match claim.is_object() {
        true => format!("{}/{}", plain(&claim["namespace"]), plain(&claim["name"])),
        false => String::new(),
    };
    page.field(0, "Claim", &claim);
    page.field(0, "Reclaim Policy", &plain(&spec["persistentVolumeReclaimPolicy"]));
    page.field(0, "Access Modes", &modes(&spec["accessModes"]));
    page.field_some(0, "VolumeMode", &spec["volumeMode"]);
    page.field(0, "Capacity", &plain(&spec["capacity"]["storage"]));
    affinity(page, &spec["nodeAffinity"]["required"]);
    page.field(0, "Message", &plain(&object["status"]["message"]));
    volumes::persistent(page, spec);
}

fn affinity(page: &mut Page, required: &Value) {
    if !required.is_object() {
        page.field(0, "Node Affinity", "<none>");
        return;
    }
    page.field(0, "Node Affinity", "");
    let none = if some(&required["nodeSelectorTerms"]) { "" } else { "<none>" };
    page.field(1, "Required Terms", none);
    for (index, term) in items(&required["nodeSelectorTerms"]).enumerate() {
        let line = |term: &Value| {
            let operator = plain(&term["operator"]).to_lowercase();
            let values: Vec<String> = items(&term["values"]).map(plain).collect();
            match values.is_empty() {
                true => format!("{} {operator}", plain(&term["key"])),
                false => format!("{} {operator} [{}]", plain(&term["key"]), values.join(", ")),
            }
        };
        terms(page, 2, index, items(&term["matchExpressions"]).map(line).collect());
    }
}

fn terms(page: &mut Page, level: usize, index: usize, lines: Vec<String>) {
    page.multiline(&"  ".repeat(level), &format!("Term {index}"), "\t", lines);
}

/// A claim, with the pods that use it.
pub fn claim(page: &mut Page, subject: &Subject) {
    let object = &subject.object;
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    page.named(object);
    page.field(0, "StorageClass", &class(object));
    phase(page, object);
    page.field(0, "Volume", &plain(&spec["volumeName"]));
    page.marked(object);
    page.field(0, "Finalizers", &bracketed(&metadata["finalizers"]));
    let is_bound = !plain(&spec["volumeName"]).is_empty();
    let capacity = if is_bound { plain(&status["capacity"]["storage"]) } else { String::new() };
    let modes = if is_bound { modes(&status["accessModes"]) } else { String::new() };
    claim_end(page, 0, spec, &capacity, &modes);
    let mut pods: Vec<String> = subject.pods.iter().map(|pod| plain(&pod["metadata"]["name"])).collect();
    pods.sort();
    page.multiline("", "Used By", "\t", pods);
    if !some(&status["conditions"]) {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tLastProbeTime\tLastTransitionTime\tReason\tMessage");
    page.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for condition in items(&status["conditions"]) {
        let cell = |field: &str| plain(&condition[field]);
        // Go's zero time stands where there is none.
        let at = |field: &str| time::long(condition[field].as_str().unwrap_or("0001-01-01T00:00:00Z"));
        let (kind, status, reason, message) = (cell("type"), cell("status"), cell("reason"), cell("message"));
        let (probe, change) = (at("lastProbeTime"), at("lastTransitionTime"));
        page.line(1, &format!("{kind} \t{status} \t{probe} \t{change} \t{reason} \t{message}"));
    }
}

fn claim_end(page: &mut Page, level: usize, spec: &Value, capacity: &str, modes: &str) {
    page.field(level, "Capacity", capacity);
    page.field(level, "Access Modes", modes);
    page.field_some(level, "VolumeMode", &spec["volumeMode"]);
    let source = &spec["dataSource"];
    if source.is_object() {
        page.line(level, "DataSource:");
        page.field_some(level + 1, "APIGroup", &source["apiGroup"]);
        page.field(level + 1, "Kind", &plain(&source["kind"]));
        page.field(level + 1, "Name", &plain(&source["name"]));
    }
}

/// The claim of an ephemeral volume, inside of a pod's page: kubectl indents each part of a line anew.
pub fn claim_template(page: &mut Page, template: &Value) {
    let (metadata, spec) = (&template["metadata"], &template["spec"]);
    page.field(2, "StorageClass", &class(template));
    page.field(2, "Volume", &plain(&spec["volumeName"]));
    for (name, map, between) in [("Labels", "labels", "="), ("Annotations", "annotations", ": ")] {
        let pairs = entries(&metadata[map], |key, value| vec![format!("    {key}{between}{value}")]);
        match pairs.is_empty() {
            true => page.field(2, name, "    <none>"),
            false => page.multiline("    ", name, "\t", pairs),
        }
    }
    claim_end(page, 2, spec, "", "");
}

/// `Volume Claims:` of a stateful set.
pub fn claims(page: &mut Page, templates: &Value) {
    if !some(templates) {
        page.field(0, "Volume Claims", "<none>");
        return;
    }
    page.line(0, "Volume Claims:");
    for template in items(templates) {
        let (metadata, spec) = (&template["metadata"], &template["spec"]);
        page.field(1, "Name", &plain(&metadata["name"]));
        page.field(1, "StorageClass", &class(template));
        for (name, map) in [("Labels", "labels"), ("Annotations", "annotations")] {
            let pairs = entries(&metadata[map], |key, value| vec![format!("{key}={value}")]);
            page.multiline("  ", name, "\t", pairs);
        }
        let capacity = spec["resources"]["requests"]["storage"].as_str().unwrap_or("<default>");
        page.field(1, "Capacity", capacity);
        page.field(1, "Access Modes", &bracketed(&spec["accessModes"]));
    }
}

/// A storage class.
pub fn storage_class(page: &mut Page, object: &Value) {
    let annotations = &object["metadata"]["annotations"];
    let default = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let is_default = default.iter().any(|key| annotations[*key] == "true");
    page.field(0, "Name", &plain(&object["metadata"]["name"]));
    page.field(0, "IsDefaultClass", if is_default { "Yes" } else { "No" });
    page.field(0, "Annotations", &labels(annotations));
    page.field(0, "Provisioner", &plain(&object["provisioner"]));
    page.field(0, "Parameters", &labels(&object["parameters"]));
    page.field(0, "AllowVolumeExpansion", page.truth(&object["allowVolumeExpansion"]));
    if some(&object["mountOptions"]) {
        page.line(0, "MountOptions:");
        items(&object["mountOptions"]).for_each(|option| page.line(1, &plain(option)));
    } else {
        page.field(0, "MountOptions", "<none>");
    }
    page.field_some(0, "ReclaimPolicy", &object["reclaimPolicy"]);
    page.field_some(0, "VolumeBindingMode", &object["volumeBindingMode"]);
    if object["allowedTopologies"].is_array() {
        page.field(0, "AllowedTopologies", if some(&object["allowedTopologies"]) { "" } else { "<none>" });
        for (index, term) in items(&object["allowedTopologies"]).enumerate() {
            let line = |term: &Value| {
                let values: Vec<String> = items(&term["values"]).map(plain).collect();
                let list = if values.is_empty() { String::new() } else { format!(" [{}]", values.join(", ")) };
                format!("{} in{list}", plain(&term["key"]))
            };
            terms(page, 1, index, items(&term["matchLabelExpressions"]).map(line).collect());
        }
    }
}

/// A class of volume attributes.
pub fn attributes_class(page: &mut Page, object: &Value) {
    page.field(0, "Name", &plain(&object["metadata"]["name"]));
    page.field(0, "Annotations", &labels(&object["metadata"]["annotations"]));
    page.field(0, "DriverName", &plain(&object["driverName"]));
    page.field(0, "Parameters", &labels(&object["parameters"]));
}

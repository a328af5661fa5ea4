//! Upstream's roles and bindings, from tables.

use serde_json::{Value, json};

const TABLES: [&str; 2] = [include_str!("roles.txt"), include_str!("controllers.txt")];
const API: &str = "rbac.authorization.k8s.io";
const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];

fn metadata(name: &str) -> Value {
    json!({
        "name": name, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
    })
}

fn aggregates_to(role: &str) -> String {
    format!("{API}/aggregate-to-{role}")
}

fn role(words: &[&str]) -> Value {
    let mut metadata = metadata(words[0]);
    let mut role = json!({"apiVersion": format!("{API}/v1"), "kind": "ClusterRole", "metadata": {}, "rules": []});
    for word in &words[1..] {
        match word.split_once('=') {
            Some(("to", other)) => metadata["labels"][aggregates_to(other)] = "true".into(),
            Some((_, other)) => {
                let labels = json!({"matchLabels": {aggregates_to(other): "true"}});
                role["aggregationRule"] = json!({"clusterRoleSelectors": [labels]});
            }
            None => {}
        }
    }
    role["metadata"] = metadata;
    role
}

/// The words of a list, with short forms written out.
fn words(list: &str) -> Vec<&str> {
    let mut all: Vec<&str> = Vec::new();
    for word in list.split(',') {
        match word {
            "READ" => all.extend(READ),
            "WRITE" => all.extend(WRITE),
            "ALL" => all.extend(READ.iter().chain(&WRITE)),
            "core" => all.push(""),
            word => all.push(word),
        }
    }
    all.sort_unstable();
    all
}

fn rule(parts: &[&str]) -> Value {
    let [verbs, groups, resources, names @ ..] = parts else { return Value::Null };
    if *groups == "url" {
        return json!({"verbs": words(verbs), "nonResourceURLs": words(resources)});
    }
    let mut rule = json!({"verbs": words(verbs), "apiGroups": words(groups), "resources": words(resources)});
    if let Some(names) = names.first().and_then(|names| names.strip_prefix('=')) {
        rule["resourceNames"] = words(names).into();
    }
    rule
}

fn binding(words: &[&str]) -> Value {
    let subject = |text: &&str| match text.split_once(':') {
        Some(("ServiceAccount", name)) => json!({"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}),
        Some((kind, name)) => json!({"kind": kind, "name": name, "apiGroup": API}),
        None => Value::Null,
    };
    let mut binding = json!({
        "apiVersion": format!("{API}/v1"), "kind": "ClusterRoleBinding", "metadata": metadata(words[0]),
        "roleRef": {"apiGroup": API, "kind": "ClusterRole", "name": words[1]},
    });
    if words.len() > 2 {
        binding["subjects"] = words[2..].iter().map(subject).collect();
    }
    binding
}

/// The same inside of a namespace.
fn local(namespace: &str, mut object: Value) -> Value {
    object["metadata"]["namespace"] = namespace.into();
    object["kind"] = object["kind"].as_str().unwrap_or_default().trim_start_matches("Cluster").into();
    if object["roleRef"].is_object() {
        object["roleRef"]["kind"] = "Role".into();
    }
    object
}

/// All roles, those that are made of others with their rules, and all bindings.
pub fn all() -> Vec<Value> {
    let (mut all, mut bindings): (Vec<Value>, Vec<Value>) = Default::default();
    for line in TABLES.iter().flat_map(|table| table.lines()).filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with(' ') {
            if let Some(rules) = all.last_mut().and_then(|role| role["rules"].as_array_mut()) {
                rules.push(rule(&parts));
            }
            continue;
        }
        match parts.as_slice() {
            ["role", rest @ ..] if !rest.is_empty() => all.push(role(rest)),
            ["binding", rest @ ..] if rest.len() > 1 => bindings.push(binding(rest)),
            ["controller", name] => {
                let (role_name, account) = (format!("system:controller:{name}"), format!("ServiceAccount:{name}"));
                all.push(role(&[role_name.as_str()]));
                bindings.push(binding(&[role_name.as_str(), role_name.as_str(), account.as_str()]));
            }
            ["local", namespace, name] => all.push(local(namespace, role(&[*name]))),
            ["local-binding", namespace, rest @ ..] if rest.len() > 1 => {
                bindings.push(local(namespace, binding(rest)));
            }
            _ => {}
        }
    }
    // No controller adds roles up yet: the sums are written out.
    for sum in ["view", "edit", "admin"] {
        let label = aggregates_to(sum);
        let part = |role: &&Value| role["metadata"]["labels"][&label] == "true";
        let rules = |role: &Value| role["rules"].as_array().cloned().unwrap_or_default();
        let rules: Vec<Value> = all.iter().filter(part).flat_map(rules).collect();
        if let Some(role) = all.iter_mut().find(|role| role["metadata"]["name"] == sum) {
            role["rules"] = rules.into();
        }
    }
    all.extend(bindings);
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn roles_are_made_of_others_and_read_from_the_table() {
        let all = all();
        let find = |name: &str, kind: &str| {
            all.iter().find(|one| one["metadata"]["name"] == name && one["kind"] == kind).unwrap()
        };
        let rules = |name: &str| find(name, "ClusterRole")["rules"].as_array().unwrap().len();
        assert_eq!(rules("edit"), rules("system:aggregate-to-edit") + rules("view"));
        assert_eq!(rules("admin"), rules("system:aggregate-to-admin") + rules("edit"));
        let approver = find("system:certificates.k8s.io:kubelet-serving-approver", "ClusterRole");
        let names = json!(["kubernetes.io/kubelet-serving"]);
        assert_eq!(approver["rules"][0]["resourceNames"], names);
        let binding = find("cluster-admin", "ClusterRoleBinding");
        assert_eq!(binding["subjects"], json!([{"kind": "Group", "name": "system:masters", "apiGroup": API}]));
        assert!(all.iter().flat_map(|one| one["rules"].as_array()).flatten().all(Value::is_object));
    }

    #[test]
    fn controllers_have_roles_and_namespaces_have_theirs() {
        let all = all();
        let find = |kind: &str, namespace: Option<&str>, name: &str| {
            let meta =
                |one: &Value| (one["metadata"]["name"] == name, one["metadata"]["namespace"].as_str() == namespace);
            all.iter().find(|one| meta(one) == (true, true) && one["kind"] == kind).cloned().unwrap_or_default()
        };
        let name = "system:controller:disruption-controller";
        assert_eq!(find("ClusterRole", None, name)["rules"][7]["resources"], json!(["*/scale"]));
        let subject = json!([{"kind": "ServiceAccount", "name": "disruption-controller", "namespace": "kube-system"}]);
        let binding = find("ClusterRoleBinding", None, name);
        assert_eq!((&binding["subjects"], &binding["roleRef"]["name"]), (&subject, &json!(name)));
        let reader = "extension-apiserver-authentication-reader";
        let names = &find("Role", Some("kube-system"), reader)["rules"][0]["resourceNames"];
        assert_eq!(*names, json!(["extension-apiserver-authentication"]));
        let binding = find("RoleBinding", Some("kube-system"), &format!("system::{reader}"));
        assert_eq!((&binding["roleRef"]["kind"], &binding["roleRef"]["name"]), (&json!("Role"), &json!(reader)));
        let signer = "system:controller:bootstrap-signer";
        for namespace in ["kube-system", "kube-public"] {
            assert!(find("Role", Some(namespace), signer)["rules"][0].is_object(), "{namespace}");
        }
        let count = |kind: &str| all.iter().filter(|one| one["kind"] == kind).count();
        let counted = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"].map(count);
        assert_eq!(counted, [68, 50, 7, 7]);
    }
}

//! Roles and their bindings.

use serde_json::Value;

use super::writer::{Page, bracketed, items, plain};

/// One line of a role: what, and what may be done with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rule {
    group: String,
    /// Empty for a URL.
    resource: String,
    name: Option<String>,
    url: Option<String>,
    verbs: Vec<String>,
}

impl Rule {
    fn is_about(&self, other: &Rule) -> bool {
        self.url.is_none()
            && other.url.is_none()
            && (&self.group, &self.resource, &self.name) == (&other.group, &other.resource, &other.name)
    }

    /// kubectl sorts rules by how Go prints them.
    fn sort_key(&self) -> String {
        let list = |item: &Option<String>| item.clone().unwrap_or_default();
        format!(
            "Verbs:[{}],APIGroups:[{}],Resources:[{}],ResourceNames:[{}],NonResourceURLs:[{}],",
            self.verbs.join(" "),
            self.group,
            self.resource,
            list(&self.name),
            list(&self.url)
        )
    }

    /// `deployments.apps/scale`
    fn resource(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        match self.resource.split_once('/') {
            _ if self.resource.is_empty() => String::new(),
            Some((resource, sub)) => format!("{resource}{group}/{sub}"),
            None => format!("{}{group}", self.resource),
        }
    }
}

/// Rules with one resource each, in kubectl's order.
fn rules(role: &Value) -> Vec<Rule> {
    let mut all: Vec<Rule> = Vec::new();
    for rule in items(&role["rules"]) {
        let verbs: Vec<String> = items(&rule["verbs"]).map(plain).collect();
        for (group, resource) in items(&rule["apiGroups"]).flat_map(|group| {
            let group = plain(group);
            items(&rule["resources"]).map(move |resource| (group.clone(), plain(resource)))
        }) {
            let names: Vec<Option<String>> = items(&rule["resourceNames"]).map(|name| Some(plain(name))).collect();
            for name in if names.is_empty() { vec![None] } else { names } {
                let (group, resource) = (group.clone(), resource.clone());
                add(&mut all, Rule { group, resource, name, url: None, verbs: verbs.clone() });
            }
        }
        for url in items(&rule["nonResourceURLs"]).map(plain) {
            let one = |verb: &String| Rule { url: Some(url.clone()), verbs: vec![verb.clone()], ..Rule::default() };
            all.extend(verbs.iter().map(one));
        }
    }
    all.sort_by_cached_key(Rule::sort_key);
    all
}

fn add(all: &mut Vec<Rule>, rule: Rule) {
    match all.iter_mut().find(|known| known.is_about(&rule)) {
        Some(known) => {
            for verb in rule.verbs {
                if !known.verbs.contains(&verb) {
                    known.verbs.push(verb);
                }
            }
        }
        None => all.push(rule),
    }
}

fn head(page: &mut Page, object: &Value) {
    page.field(0, "Name", &plain(&object["metadata"]["name"]));
    page.marked(object);
}

/// A role, of a namespace or of the cluster.
pub fn role(mut page: Page, object: &Value) -> String {
    head(&mut page, object);
    page.line(0, "PolicyRule:");
    page.line(1, "Resources\tNon-Resource URLs\tResource Names\tVerbs");
    page.line(1, "---------\t-----------------\t--------------\t-----");
    for rule in rules(object) {
        let list = |item: &Option<String>| format!("[{}]", item.clone().unwrap_or_default());
        let verbs = format!("[{}]", rule.verbs.join(" "));
        page.line(1, &format!("{}\t{}\t{}\t{verbs}", rule.resource(), list(&rule.url), list(&rule.name)));
    }
    page.finish()
}

/// A binding, of a namespace or of the cluster.
pub fn binding(mut page: Page, object: &Value) -> String {
    head(&mut page, object);
    page.line(0, "Role:");
    page.field(1, "Kind", &plain(&object["roleRef"]["kind"]));
    page.field(1, "Name", &plain(&object["roleRef"]["name"]));
    page.line(0, "Subjects:");
    page.line(1, "Kind\tName\tNamespace");
    page.line(1, "----\t----\t---------");
    for subject in items(&object["subjects"]) {
        let cell = |field: &str| plain(&subject[field]);
        page.line(1, &format!("{}\t{}\t{}", cell("kind"), cell("name"), cell("namespace")));
    }
    page.finish()
}

/// A node's storage drivers.
pub fn csi_node(page: &mut Page, object: &Value) {
    head(page, object);
    page.created(object);
    page.line(0, "Spec:");
    if !object["spec"]["drivers"].is_array() {
        return;
    }
    page.line(1, "Drivers:");
    for driver in items(&object["spec"]["drivers"]) {
        page.line(2, &format!("{}:", plain(&driver["name"])));
        page.field(3, "Node ID", &plain(&driver["nodeID"]));
        if !driver["allocatable"]["count"].is_null() {
            page.line(3, "Allocatables:");
            page.field(4, "Count", &plain(&driver["allocatable"]["count"]));
        }
        if driver["topologyKeys"].is_array() {
            page.field(3, "Topology Keys", &bracketed(&driver["topologyKeys"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_of_one_resource_are_put_together() {
        let role = json!({"rules": [
            {"apiGroups": ["", "apps"], "resources": ["pods/log"], "verbs": ["get", "list"], "resourceNames": ["a"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["*", "get"]},
            {"nonResourceURLs": ["/x"], "verbs": ["get", "put"]},
        ]});
        let lines: Vec<String> = rules(&role)
            .iter()
            .map(|rule| format!("{} {:?} {:?} {:?}", rule.resource(), rule.url, rule.name, rule.verbs.join(" ")))
            .collect();
        let expected = [
            "pods/log None Some(\"a\") \"get list\"",
            "pods.apps/log None Some(\"a\") \"get list\"",
            " Some(\"/x\") None \"get\"",
            "pods None None \"get *\"",
            " Some(\"/x\") None \"put\"",
        ];
        let mut sorted = expected.to_vec();
        sorted.sort_unstable();
        let mut found = lines.clone();
        found.sort_unstable();
        assert_eq!(found, sorted);
        assert_eq!(lines.last().map(String::as_str), Some(expected[4]));
    }
}

//! Rules of roles: taken apart, compared, and shown.

use serde_json::{Value, json};

use super::super::print::table::aligned;

/// `[a b]`, as Go prints a list.
pub fn words(list: &Value) -> String {
    let words: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!("[{}]", words.join(" "))
}

fn texts(rule: &Value, field: &str) -> Vec<String> {
    rule[field].as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// A rule as rules of one verb, one resource and at most one name each.
pub fn broken_down(rule: &Value) -> Vec<Value> {
    let (verbs, names) = (texts(rule, "verbs"), texts(rule, "resourceNames"));
    let mut parts = Vec::new();
    for group in texts(rule, "apiGroups") {
        for resource in texts(rule, "resources") {
            for verb in &verbs {
                let part = json!({"verbs": [verb], "apiGroups": [group], "resources": [resource]});
                if names.is_empty() {
                    parts.push(part);
                    continue;
                }
                parts.extend(names.iter().map(|name| {
                    let mut part = part.clone();
                    part["resourceNames"] = json!([name]);
                    part
                }));
            }
        }
    }
    for path in texts(rule, "nonResourceURLs") {
        parts.extend(verbs.iter().map(|verb| json!({"verbs": [verb], "nonResourceURLs": [path]})));
    }
    parts
}

/// The parts of `wanted` that `given` does not allow.
pub fn uncovered(given: &[Value], wanted: &[Value]) -> Vec<Value> {
    let parts = wanted.iter().flat_map(broken_down);
    parts.filter(|part| !given.iter().any(|rule| covers(rule, part))).collect()
}

/// Whether a rule allows what a part says.
fn covers(rule: &Value, part: &Value) -> bool {
    let has_all = |field: &str| {
        let own = texts(rule, field);
        own.iter().any(|word| word == "*") || texts(part, field).iter().all(|word| own.contains(word))
    };
    let resources = texts(rule, "resources");
    let resource = |wanted: &String| {
        let any_of_sub = wanted.split_once('/').map(|(_, sub)| format!("*/{sub}"));
        resources.iter().any(|known| known == "*" || known == wanted || Some(known) == any_of_sub.as_ref())
    };
    let paths = texts(rule, "nonResourceURLs");
    let path = |wanted: &String| {
        paths.iter().any(|known| {
            known == wanted
                || known.strip_suffix('*').is_some_and(|head| wanted.starts_with(head.trim_end_matches('*')))
        })
    };
    let names = texts(rule, "resourceNames");
    let wanted_names = texts(part, "resourceNames");
    let name = names.is_empty() || !wanted_names.is_empty() && wanted_names.iter().all(|name| names.contains(name));
    has_all("verbs")
        && has_all("apiGroups")
        && texts(part, "resources").iter().all(resource)
        && texts(part, "nonResourceURLs").iter().all(path)
        && name
}

/// Rules that differ by their verbs only become one.
fn compact(parts: Vec<Value>) -> Vec<Value> {
    let mut rules: Vec<Value> = Vec::new();
    for part in parts {
        let same = |rule: &&mut Value| {
            part["nonResourceURLs"].is_null()
                && ["apiGroups", "resources", "resourceNames", "nonResourceURLs"].iter().all(|f| rule[*f] == part[*f])
        };
        match rules.iter_mut().find(same) {
            Some(rule) => {
                if let (Some(into), Some(from)) = (rule["verbs"].as_array_mut(), part["verbs"].as_array()) {
                    into.extend(from.iter().cloned());
                }
            }
            None => rules.push(part),
        }
    }
    rules
}

/// A rule in the notation of Go's protobuf types, by which kubectl sorts and in which it tells of them.
pub fn notation(rule: &Value) -> String {
    let fields = [
        ("Verbs", "verbs"),
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("ResourceNames", "resourceNames"),
        ("NonResourceURLs", "nonResourceURLs"),
    ];
    let fields: String = fields.iter().map(|(head, field)| format!("{head}:{},", words(&rule[*field]))).collect();
    format!("&PolicyRule{{{fields}}}")
}

/// The table of `auth can-i --list`.
pub fn table(status: &Value, heads: bool) -> String {
    let all = ["resourceRules", "nonResourceRules"].iter().flat_map(|f| status[*f].as_array().into_iter().flatten());
    let mut rules = compact(all.flat_map(broken_down).collect());
    rules.sort_by_key(notation);
    let mut rows: Vec<Vec<String>> = Vec::new();
    if heads {
        rows.push(["Resources", "Non-Resource URLs", "Resource Names", "Verbs"].map(str::to_owned).to_vec());
    }
    rows.extend(rules.iter().map(|rule| {
        vec![resource(rule), words(&rule["nonResourceURLs"]), words(&rule["resourceNames"]), words(&rule["verbs"])]
    }));
    aligned(&rows)
}

/// `deployments.apps/scale`
fn resource(rule: &Value) -> String {
    let Some(resource) = rule["resources"][0].as_str() else { return String::new() };
    let (plural, sub) = resource.split_once('/').map_or((resource, String::new()), |(p, s)| (p, format!("/{s}")));
    match rule["apiGroups"][0].as_str().filter(|group| !group.is_empty()) {
        Some(group) => format!("{plural}.{group}{sub}"),
        None => format!("{plural}{sub}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_gathered_and_sorted() {
        let status = json!({
            "resourceRules": [
                {"verbs": ["list", "get"], "apiGroups": ["apps"], "resources": ["deployments", "deployments/scale"]},
                {"verbs": ["create"], "apiGroups": ["apps"], "resources": ["deployments"]},
                {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"]}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}],
        });
        assert_eq!(
            table(&status, true),
            "Resources                Non-Resource URLs   Resource Names   Verbs\n                         \
             [/healthz]          []               [get]\nsecrets                  []                  [a]              \
             [get]\nsecrets                  []                  [b]              [get]\ndeployments.apps         \
             []                  []               [list get create]\ndeployments.apps/scale   []                  \
             []               [list get]\n"
        );
    }

    #[test]
    fn rules_cover_each_other() {
        let rule = |verbs: &str, group: &str, resource: &str| json!({"verbs": verbs.split(',').collect::<Vec<_>>(), "apiGroups": [group], "resources": [resource]});
        assert!(uncovered(&[rule("*", "*", "*")], &[rule("get,list", "apps", "deployments/scale")]).is_empty());
        assert!(uncovered(&[rule("get", "", "*/status")], &[rule("get", "", "pods/status")]).is_empty());
        let missing = uncovered(&[rule("get", "", "pods")], &[rule("get,list", "", "pods")]);
        assert_eq!(missing, [rule("list", "", "pods")]);
        assert_eq!(
            notation(&missing[0]),
            "&PolicyRule{Verbs:[list],APIGroups:[],Resources:[pods],ResourceNames:[],NonResourceURLs:[],}"
        );
        let mut named = rule("get", "", "pods");
        named["resourceNames"] = json!(["a"]);
        assert_eq!(uncovered(&[named.clone()], &[rule("get", "", "pods")]).len(), 1);
        assert!(uncovered(&[rule("get", "", "pods")], &[named]).is_empty());
        let path = |path: &str| json!({"verbs": ["get"], "nonResourceURLs": [path]});
        assert!(uncovered(&[path("/logs/*")], &[path("/logs/a")]).is_empty());
        assert_eq!(uncovered(&[path("/logs/a")], &[path("/logs/*")]).len(), 1);
    }
}

//! Names and namespaces that change, and the fields of other objects that hold them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::Tables;
use super::{Item, text};

/// What became of an object.
#[derive(Debug, Clone)]
struct Fate {
    name: String,
    namespace: String,
    /// All namespaces that it was in, the last one too.
    namespaces: Vec<String>,
    cluster_wide: bool,
}

/// New names by kind and old name.
#[derive(Debug, Default)]
pub struct Renames {
    fates: BTreeMap<(String, String), Vec<Fate>>,
}

/// A namespace that is not named is the default one.
fn effective(namespace: &str) -> &str {
    if namespace.is_empty() { "default" } else { namespace }
}

impl Renames {
    /// Gives an object another name.
    pub fn rename(&mut self, item: &mut Item, name: impl FnOnce(&str) -> String) {
        let old = item.name().to_owned();
        item.object["metadata"]["name"] = Value::from(name(&old));
        self.note(item, &old);
    }

    /// Notes that an object got another name or namespace.
    pub fn note(&mut self, item: &mut Item, old: &str) {
        let namespace = item.namespace().to_owned();
        if item.name() == old && item.namespaces.contains(&namespace) {
            return;
        }
        item.namespaces.push(namespace.clone());
        let fate = Fate {
            name: item.name().to_owned(),
            namespace,
            namespaces: item.namespaces.clone(),
            cluster_wide: item.is_cluster_wide(),
        };
        self.fates.entry((item.kind().to_owned(), old.to_owned())).or_default().push(fate);
    }

    /// Changes what refers to the objects that were renamed.
    pub fn apply(&self, tables: &Tables, items: &mut [Item]) {
        if self.fates.is_empty() {
            return;
        }
        let builtin = &Tables::builtin().names;
        for item in items {
            let referrer = Referrer {
                kind: item.kind().to_owned(),
                namespace: item.namespace().to_owned(),
                cluster_wide: item.is_cluster_wide(),
                points_at: ["roleRef", "scaleTargetRef"].iter().find_map(|field| {
                    let of = [&item.object[*field]["kind"], &item.object["spec"][*field]["kind"]];
                    of.into_iter().find_map(Value::as_str).map(str::to_owned)
                }),
            };
            for reference in builtin.iter().chain(&tables.names) {
                let mut change = |slot: &mut Value| self.put(reference.kind(), &referrer, slot);
                reference.fields.iter().for_each(|field| field.change(item, &mut change));
            }
        }
    }

    fn put(&self, kind: &str, referrer: &Referrer, slot: &mut Value) {
        let old = slot.as_str().unwrap_or_else(|| text(slot, "name")).to_owned();
        let Some(fates) = self.fates.get(&(kind.to_owned(), old)) else { return };
        if slot.is_object() {
            // Subjects of other kinds than accounts are no names of objects.
            if slot["kind"].as_str().is_some_and(|of| of != kind) {
                return;
            }
            let namespace = slot["namespace"].as_str();
            let fits = |fate: &&Fate| {
                namespace.is_none_or(|wanted| fate.namespaces.iter().any(|was| effective(was) == effective(wanted)))
            };
            let Some(fate) = fates.iter().rfind(fits) else { return };
            slot["name"] = Value::from(fate.name.clone());
            if !fate.namespace.is_empty() {
                slot["namespace"] = Value::from(fate.namespace.clone());
            }
        } else if let Some(fate) = fates.iter().rfind(|fate| referrer.sees(kind, fate)) {
            *slot = Value::from(fate.name.clone());
        }
    }
}

/// The object that holds a name.
struct Referrer {
    kind: String,
    namespace: String,
    cluster_wide: bool,
    /// The kind of what it binds to or scales.
    points_at: Option<String>,
}

impl Referrer {
    fn sees(&self, kind: &str, fate: &Fate) -> bool {
        if self.points_at.as_ref().is_some_and(|other| other != kind) {
            return false;
        }
        self.cluster_wide
            || fate.cluster_wide
            || self.kind == "RoleBinding"
            || effective(&self.namespace) == effective(&fate.namespace)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_change_where_they_mean_the_renamed_object() {
        let object = |kind: &str, more: Value| {
            let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}});
            super::super::super::change::merge(&mut object, &more);
            Item::new(object)
        };
        let pod = |namespace: &str| {
            let spec = json!({"volumes": [{"configMap": {"name": "a"}}, {"secret": {"secretName": "a"}}]});
            object("Pod", json!({"metadata": {"namespace": namespace}, "spec": spec}))
        };
        let mut items = [object("ConfigMap", json!({})), pod("default"), pod("other")];
        let mut renames = Renames::default();
        renames.rename(&mut items[0], |name| format!("x-{name}"));
        renames.apply(&Tables::default(), &mut items);
        let volumes = |item: &Item| item.object["spec"]["volumes"].clone();
        assert_eq!(volumes(&items[1]), json!([{"configMap": {"name": "x-a"}}, {"secret": {"secretName": "a"}}]));
        assert_eq!(volumes(&items[2])[0], json!({"configMap": {"name": "a"}}));
    }
}

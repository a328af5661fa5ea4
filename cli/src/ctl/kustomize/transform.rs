//! What is changed in many objects at once: namespaces, names, labels, annotations, numbers of replicas, images.

use serde_json::{Map, Value, json};

use super::super::errors::{CtlError, Result};
use super::fields::{Field, Tables};
use super::names::Renames;
use super::{Item, text};

/// Which subjects of role bindings get the namespace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Subjects {
    /// The account `default`.
    Default,
    /// Every account.
    All,
    /// None.
    Nobody,
}

/// Puts all objects into a namespace.
pub fn namespace(
    namespace: &str,
    fields: &[Field],
    unset_only: bool,
    subjects: Subjects,
    items: &mut [Item],
) -> Renames {
    let mut renames = Renames::default();
    for item in items.iter_mut() {
        let old = item.name().to_owned();
        if !item.is_cluster_wide() && (!unset_only || item.namespace().is_empty()) {
            item.object["metadata"]["namespace"] = json!(namespace);
        }
        let mut put = |slot: &mut Value| {
            if !unset_only || slot.as_str().is_none_or(str::is_empty) {
                *slot = json!(namespace);
            }
        };
        fields.iter().for_each(|field| field.change(item, &mut put));
        if item.kind().ends_with("RoleBinding") {
            for subject in item.object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
                let is_meant = match subjects {
                    Subjects::Default => subject["name"] == "default",
                    Subjects::All => true,
                    Subjects::Nobody => false,
                };
                if is_meant && subject["kind"] == "ServiceAccount" {
                    subject["namespace"] = json!(namespace);
                }
            }
        }
        renames.note(item, &old);
    }
    renames
}

/// Puts something before and behind the names of objects; those of namespaces and definitions stay.
pub fn affix(prefix: (&str, &[Field]), suffix: (&str, &[Field]), items: &mut [Item]) -> Renames {
    let mut renames = Renames::default();
    let fixed = ["Namespace", "CustomResourceDefinition", "APIService"];
    for item in items.iter_mut().filter(|item| !fixed.contains(&item.kind())) {
        let old = item.name().to_owned();
        for field in prefix.1.iter().filter(|_| !prefix.0.is_empty()) {
            field.change(item, &mut |slot| *slot = json!(format!("{}{}", prefix.0, plain(slot))));
        }
        for field in suffix.1.iter().filter(|_| !suffix.0.is_empty()) {
            field.change(item, &mut |slot| *slot = json!(format!("{}{}", plain(slot), suffix.0)));
        }
        renames.note(item, &old);
    }
    renames
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Puts pairs into maps: labels and annotations.
pub fn pairs(pairs: &Value, fields: &[Field], items: &mut [Item]) {
    let Some(pairs) = pairs.as_object().filter(|pairs| !pairs.is_empty()) else { return };
    for item in items {
        for field in fields {
            field.change(item, &mut |slot| {
                if slot.is_null() {
                    *slot = json!({});
                }
                if let Some(map) = slot.as_object_mut() {
                    map.extend(pairs.iter().map(|(key, value)| (key.clone(), Value::from(plain(value)))));
                }
            });
        }
    }
}

/// Where the entries of `labels` go.
pub fn label_fields(entry: &Value, tables: &Tables) -> Result<Vec<Field>> {
    let own = entry["fields"].as_array().into_iter().flatten().map(Field::read);
    let mut fields = own.collect::<Result<Vec<_>>>()?;
    let builtin = Tables::builtin();
    if entry["includeSelectors"] == true {
        fields.extend(builtin.labels.iter().chain(&tables.labels).cloned());
    } else {
        if entry["includeTemplates"] == true {
            fields.extend(builtin.templates.iter().chain(&tables.templates).cloned());
        }
        fields.push(Field::of("", "+metadata/labels"));
    }
    Ok(fields)
}

/// Sets the number of replicas of what has a name.
pub fn replicas(rule: &Value, fields: &[Field], items: &mut [Item]) -> Result<()> {
    let name = text(rule, "name");
    let mut found = false;
    for item in items.iter_mut().filter(|item| item.original == name || item.name() == name) {
        for field in fields.iter() {
            found |= field.is_of(item);
            field.change(item, &mut |slot| *slot = rule["count"].clone());
        }
    }
    if found {
        return Ok(());
    }
    let kinds: Vec<String> = fields.iter().map(Field::kinds).collect();
    Err(CtlError::plain(format!(
        "resource with name {name} does not match a config with the following GVK [{}]",
        kinds.join(" ")
    )))
}

/// Changes an image in every list of containers, wherever it is, and in the fields.
pub fn image(rule: &Value, fields: &[Field], items: &mut [Item]) {
    for item in items {
        containers(&mut item.object, rule);
        for field in fields {
            field.change(item, &mut |slot| put(slot, rule));
        }
    }
}

fn put(slot: &mut Value, rule: &Value) {
    if let Some(new) = slot.as_str().and_then(|image| changed(image, rule)) {
        *slot = json!(new);
    }
}

fn containers(value: &mut Value, rule: &Value) {
    match value {
        Value::Object(fields) => {
            for (field, inner) in fields.iter_mut() {
                if matches!(field.as_str(), "containers" | "initContainers") {
                    let list = inner.as_array_mut().into_iter().flatten();
                    list.filter_map(|container| container.get_mut("image")).for_each(|slot| put(slot, rule));
                }
                containers(inner, rule);
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|inner| containers(inner, rule)),
        _ => {}
    }
}

/// An image as the rule wants it, if it is for it.
fn changed(image: &str, rule: &Value) -> Option<String> {
    let (rest, digest) = image.split_once('@').map_or((image, ""), |(rest, digest)| (rest, digest));
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (rest, ""),
    };
    if text(rule, "name") != name {
        return None;
    }
    let given = |field: &str| rule.get(field).map(plain).filter(|text| !text.is_empty() && text != "null");
    let name = given("newName").unwrap_or_else(|| name.to_owned());
    let (mut tag, mut digest) = (tag.to_owned(), digest.to_owned());
    match (given("newTag"), given("digest"), given("tagSuffix")) {
        (Some(new), other, _) => (tag, digest) = (new, other.unwrap_or_default()),
        (None, Some(new), _) => (tag, digest) = (String::new(), new),
        (None, None, Some(suffix)) => (tag, digest) = (tag + &suffix, String::new()),
        (None, None, None) => {}
    }
    let tag = if tag.is_empty() { tag } else { format!(":{tag}") };
    let digest = if digest.is_empty() { digest } else { format!("@{digest}") };
    Some(format!("{name}{tag}{digest}"))
}

/// Adds a map's pairs to another's.
pub fn extend(into: &mut Value, pairs: &Map<String, Value>) {
    if !into.is_object() {
        *into = json!({});
    }
    if let Some(map) = into.as_object_mut() {
        map.extend(pairs.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_changed_by_their_names() {
        let tag = json!({"name": "a", "newTag": "2"});
        let other = json!({"name": "r:5000/b", "newName": "c"});
        let digest = json!({"name": "d", "digest": "sha256:x"});
        let both = json!({"name": "d", "digest": "sha256:x", "newTag": 3});
        for (image, rule, new) in [
            ("a", &tag, Some("a:2")),
            ("a:1", &tag, Some("a:2")),
            ("a@sha256:y", &tag, Some("a:2")),
            ("r:5000/b:1", &other, Some("c:1")),
            ("r:5000/b", &other, Some("c")),
            ("r:5000/b@sha256:y", &other, Some("c@sha256:y")),
            ("d:1", &digest, Some("d@sha256:x")),
            ("d:1", &both, Some("d:3@sha256:x")),
            ("x/a:1", &tag, None),
        ] {
            assert_eq!(changed(image, rule).as_deref(), new, "{image}");
        }
    }
}

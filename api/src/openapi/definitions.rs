//! The definitions of OpenAPI documents: k8s-openapi's schemas with list types, the extensions of our table of facts, and
//! the groups, versions and kinds that clients find types by.

use crate::catalogue::Catalogue;
use crate::schema::{Facts, ListType};
use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.";
const ANYTHING: [&str; 4] = ["JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray"];

/// Which dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    pub(super) fn reference(self, name: &str) -> Value {
        let prefix = match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        };
        json!({"$ref": format!("{prefix}{name}")})
    }
}

/// All definitions of a catalogue.
pub(super) fn all(catalogue: &Catalogue, dialect: Dialect) -> Map<String, Value> {
    let facts = Facts::embedded();
    let mut out = Map::new();
    let served: Vec<String> = catalogue
        .resources()
        .iter()
        .filter_map(|r| r.definition.rsplit_once('.').map(|(of, _)| format!("{of}.")))
        .collect();
    for (name, mut schema) in crate::schema::definitions() {
        let unstable = [".v1alpha", ".v1beta", ".v2alpha", ".v2beta"].iter().any(|part| name.contains(part));
        if unstable && !served.iter().any(|of| name.starts_with(of.as_str())) {
            continue;
        }
        add_facts(&name, &mut schema, &facts);
        special(&name, &mut schema, dialect);
        rewrite(&mut schema, dialect);
        out.insert(name, schema);
    }
    for resource in catalogue.resources() {
        let gvk = |kind: &str| json!([{"group": resource.group, "version": resource.version, "kind": kind}]);
        if resource.has_verb("list") {
            let mut list = list_of(&resource.kind, &resource.list_kind, &resource.definition);
            rewrite(&mut list, dialect);
            list["x-kubernetes-group-version-kind"] = gvk(&resource.list_kind);
            out.insert(format!("{}List", resource.definition), list);
        }
        if let Some(own) = out.get_mut(resource.definition.as_ref()) {
            own["x-kubernetes-group-version-kind"] = gvk(&resource.kind);
        }
    }
    kinds(catalogue, &mut out);
    out.sort_keys();
    out
}

/// Groups with a version each.
type Versions<'a> = &'a [(&'a str, &'a str)];

/// Kinds that are no resources.
fn kinds(catalogue: &Catalogue, out: &mut Map<String, Value>) {
    let everywhere: Vec<(&str, &str)> =
        catalogue.groups().into_iter().flat_map(|(g, versions)| versions.into_iter().map(move |v| (g, v))).collect();
    let core = [("", "v1")];
    let policy = [("policy", "v1")];
    let scaling = [("autoscaling", "v1")];
    let authentication = [("authentication.k8s.io", "v1")];
    let cases: [(String, &str, Versions<'_>); 10] = [
        (format!("{META}.DeleteOptions"), "DeleteOptions", &everywhere),
        (format!("{META}.WatchEvent"), "WatchEvent", &everywhere),
        (format!("{META}.Status"), "Status", &core),
        (format!("{META}.APIGroup"), "APIGroup", &core),
        (format!("{META}.APIGroupList"), "APIGroupList", &core),
        (format!("{META}.APIResourceList"), "APIResourceList", &core),
        (format!("{META}.APIVersions"), "APIVersions", &core),
        ("io.k8s.api.policy.v1.Eviction".into(), "Eviction", &policy),
        ("io.k8s.api.autoscaling.v1.Scale".into(), "Scale", &scaling),
        ("io.k8s.api.authentication.v1.TokenRequest".into(), "TokenRequest", &authentication),
    ];
    for (name, kind, versions) in cases {
        if let Some(own) = out.get_mut(&name) {
            let one = |(group, version): &(&str, &str)| json!({"group": group, "version": version, "kind": kind});
            own["x-kubernetes-group-version-kind"] = versions.iter().map(one).collect();
        }
    }
}

fn list_of(kind: &str, list_kind: &str, definition: &str) -> Value {
    let item = |name: &str| json!({"$ref": format!("#/$defs/{name}")});
    let mut metadata = item(&format!("{META}.ListMeta"));
    metadata["description"] = "Standard list metadata.".into();
    json!({
        "description": format!("{list_kind} is a list of {kind} objects."),
        "type": "object",
        "properties": {
            "apiVersion": {
                "description": "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
                "type": "string",
            },
            "items": {"description": format!("The {kind} objects."), "type": "array", "items": item(definition)},
            "kind": {
                "description": "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
                "type": "string",
            },
            "metadata": metadata,
        },
        "required": ["items"],
    })
}

fn add_facts(name: &str, schema: &mut Value, facts: &Facts) {
    let own = facts.definition(name);
    if own.atomic {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    if let (Some(required), Some(map)) = (&own.required, schema.as_object_mut()) {
        map.shift_remove("required");
        if !required.is_empty() {
            map.insert("required".into(), required.clone().into());
        }
    }
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (property, schema) in properties.iter_mut() {
        let Some(fact) = facts.property(name, property) else { continue };
        if fact.listed {
            let text = match fact.list_type {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            };
            schema["x-kubernetes-list-type"] = text.into();
        }
        if fact.atomic || fact.granular {
            schema["x-kubernetes-map-type"] = if fact.atomic { "atomic" } else { "granular" }.into();
        }
        if !fact.keys.is_empty() {
            schema["x-kubernetes-list-map-keys"] = fact.keys.clone().into();
        }
        if let Some(key) = fact.strategy.key {
            schema["x-kubernetes-patch-merge-key"] = key.into();
        }
        let strategy = fact.strategy;
        let words = [("merge", strategy.merge), ("replace", strategy.replace), ("retainKeys", strategy.retain_keys)];
        let words: Vec<&str> = words.iter().filter(|(_, on)| *on).map(|(word, _)| *word).collect();
        if !words.is_empty() {
            schema["x-kubernetes-patch-strategy"] = words.join(",").into();
        }
    }
}

/// Types that are more than one JSON type.
fn special(name: &str, schema: &mut Value, dialect: Dialect) {
    let Some(map) = schema.as_object_mut() else { return };
    // What is any JSON, or one of two types, is left open as upstream leaves it.
    if ANYTHING.iter().any(|one| name.strip_prefix(EXTENSIONS).is_some_and(|rest| rest == *one)) {
        map.retain(|key, _| key == "description");
        return;
    }
    let either = match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => "number",
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => "integer",
        _ => return,
    };
    map.shift_remove("x-kubernetes-int-or-string");
    if either == "integer" {
        map.insert("format".into(), "int-or-string".into());
    }
    match dialect {
        Dialect::V2 => map.insert("type".into(), "string".into()),
        Dialect::V3 => map.insert("oneOf".into(), json!([{"type": either}, {"type": "string"}])),
    };
}

/// References into the document; version 3 allows nothing beside a reference, hence `allOf`.
fn rewrite(schema: &mut Value, dialect: Dialect) {
    match schema {
        Value::Object(map) => {
            map.values_mut().for_each(|value| rewrite(value, dialect));
            let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) else {
                return;
            };
            let reference = dialect.reference(name);
            if dialect == Dialect::V2 || map.len() == 1 {
                map.insert("$ref".into(), reference["$ref"].clone());
            } else {
                map.shift_remove("$ref");
                map.insert("allOf".into(), Value::Array(vec![reference]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, dialect)),
        _ => {}
    }
}

/// The names that a value refers to.
pub(super) fn references<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(text) if key == "$ref" => out.extend(text.rsplit('/').next()),
                    _ => references(value, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}

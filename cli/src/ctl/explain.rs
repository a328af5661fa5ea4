//! `trictl explain`: a type's documentation, from the server's OpenAPI v3 documents.

use clap::Args;
use serde_json::Value;

use super::api::Call;
use super::discovery::Resource;
use super::errors::{CtlError, Result};
use super::print::emit;
use super::session::Session;

/// Get the documentation of a resource or of its fields.
#[derive(Debug, Clone, Default, Args)]
pub struct ExplainArgs {
    /// TYPE[.fieldPath]
    pub words: Vec<String>,
    /// Show all fields below, without their descriptions
    #[arg(long)]
    pub recursive: bool,
    /// Format of the page: plaintext or plaintext-openapiv2 (the same here)
    #[arg(long, default_value = "plaintext")]
    pub output: String,
    /// Use this group and version
    #[arg(long)]
    pub api_version: Option<String>,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &ExplainArgs) -> Result<()> {
    let path = match args.words.as_slice() {
        [path] => path.as_str(),
        [] => {
            return Err(CtlError::plain(
                "You must specify the type of resource to explain. Use \"trictl api-resources\" for a complete list of \
                 supported resources.",
            ));
        }
        _ => return Err(CtlError::plain("We accept only this format: explain RESOURCE")),
    };
    if !matches!(args.output.as_str(), "plaintext" | "plaintext-openapiv2") {
        return Err(CtlError::plain(format!("unrecognized format: {}", args.output)));
    }
    let discovery = session.discovery().await?;
    let (name, fields) = match path.split_once('.') {
        Some((name, fields)) => (name, fields.split('.').filter(|field| !field.is_empty()).collect()),
        None => (path, Vec::new()),
    };
    let resource = match &args.api_version {
        None => discovery.need(name).map_err(|error| CtlError::bare(error.reason_text()))?,
        Some(version) => {
            let known = discovery.need(name)?;
            discovery.by_kind(version, &known.kind).ok_or_else(|| {
                CtlError::plain(format!("couldn't find resource for \"{version}, Resource={}\"", known.plural))
            })?
        }
    };
    let path = match resource.group.as_str() {
        "" => format!("/openapi/v3/api/{}", resource.version),
        group => format!("/openapi/v3/apis/{group}/{}", resource.version),
    };
    let document = session.api.json(&Call::get(path)).await?;
    emit(&head(&resource))?;
    emit(&page(&document, &resource, &fields, args.recursive)?)
}

fn head(resource: &Resource) -> String {
    let kind = format!("KIND:       {}\nVERSION:    {}\n\n", resource.kind, resource.version);
    if resource.group.is_empty() { kind } else { format!("GROUP:      {}\n{kind}", resource.group) }
}

/// The documentation's text below its head.
pub fn page(document: &Value, resource: &Resource, fields: &[&str], recursive: bool) -> Result<String> {
    let schemas = &document["components"]["schemas"];
    let root = schemas.as_object().into_iter().flatten().find(|(_, schema)| {
        schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten().any(|kind| {
            kind["kind"] == resource.kind.as_str()
                && kind["group"].as_str().unwrap_or_default() == resource.group
                && kind["version"] == resource.version.as_str()
        })
    });
    let (_, mut schema) =
        root.ok_or_else(|| CtlError::plain(format!("couldn't find resource for {:?}", resource.api_version())))?;
    let mut field: Option<(&str, &Value)> = None;
    for name in fields {
        let property = properties(schemas, schema).and_then(|found| found.get(*name));
        let property = property.ok_or_else(|| CtlError::plain(format!("field {name:?} does not exist")))?;
        field = Some((name, property));
        schema = resolve(schemas, property);
    }
    let mut out = String::new();
    if let Some((name, property)) = field {
        out.push_str(&format!("FIELD: {name} <{}>\n\n\n", type_name(schemas, property)));
    }
    // A field's own words come first, then those of its type.
    let own = field.and_then(|(_, property)| property["description"].as_str());
    let texts: Vec<&str> = own.into_iter().chain(schema["description"].as_str()).collect();
    out.push_str("DESCRIPTION:\n");
    match texts.as_slice() {
        [] => wrap("<empty>", 4, &mut out),
        [own, of_type] if own == of_type => wrap(own, 4, &mut out),
        texts => texts.iter().for_each(|text| wrap(text, 4, &mut out)),
    }
    out.push_str("    \n");
    if properties(schemas, schema).is_some() {
        out.push_str("FIELDS:\n");
        list(schemas, schema, recursive, 2, &mut Vec::new(), &mut out);
    }
    out.push('\n');
    Ok(out)
}

/// Follows references, lists and maps to the type that has fields.
fn resolve<'a>(schemas: &'a Value, mut schema: &'a Value) -> &'a Value {
    loop {
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
        schema = match reference {
            Some(reference) => &schemas[reference.rsplit('/').next().unwrap_or_default()],
            None if schema["items"].is_object() => &schema["items"],
            None if schema["additionalProperties"].is_object() => &schema["additionalProperties"],
            None => return schema,
        };
    }
}

fn properties<'a>(schemas: &'a Value, schema: &'a Value) -> Option<&'a serde_json::Map<String, Value>> {
    resolve(schemas, schema)["properties"].as_object()
}

fn type_name(schemas: &Value, schema: &Value) -> String {
    if schema["items"].is_object() {
        return format!("[]{}", type_name(schemas, &schema["items"]));
    }
    if schema["additionalProperties"].is_object() {
        return format!("map[string]{}", type_name(schemas, &schema["additionalProperties"]));
    }
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    if let Some(reference) = reference {
        let name = reference.rsplit('/').next().unwrap_or_default();
        let target = &schemas[name];
        return match target["properties"].is_object() {
            true => name.rsplit('.').next().unwrap_or(name).to_owned(),
            // Quantities and the like are texts with a name.
            false => named_scalar(name, target),
        };
    }
    match schema["type"].as_str() {
        Some("object") => "Object".to_owned(),
        Some(scalar) => scalar.to_owned(),
        None => "Object".to_owned(),
    }
}

fn named_scalar(name: &str, schema: &Value) -> String {
    let short = name.rsplit('.').next().unwrap_or(name);
    match (short, schema["type"].as_str()) {
        ("Quantity" | "IntOrString" | "FieldsV1" | "RawExtension", _) | (_, None) => short.to_owned(),
        (_, Some(scalar)) => scalar.to_owned(),
    }
}

fn list(schemas: &Value, schema: &Value, recursive: bool, depth: usize, above: &mut Vec<String>, out: &mut String) {
    let resolved = resolve(schemas, schema);
    let required: Vec<&str> = resolved["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut entries: Vec<(&String, &Value)> = resolved["properties"].as_object().into_iter().flatten().collect();
    entries.sort_by_key(|(name, _)| *name);
    for (name, property) in entries {
        let mark = if required.contains(&name.as_str()) { " -required-" } else { "" };
        out.push_str(&format!("{:depth$}{name}\t<{}>{mark}\n", "", type_name(schemas, property)));
        if !recursive {
            let text = property["description"].as_str().or_else(|| resolve(schemas, property)["description"].as_str());
            wrap(text.unwrap_or("<no description>"), depth + 2, out);
            out.push('\n');
            continue;
        }
        // Types can hold themselves (JSON schemas do): once is enough.
        let kind = type_name(schemas, property);
        if properties(schemas, property).is_some() && !above.contains(&kind) {
            above.push(kind);
            list(schemas, property, true, depth + 2, above, out);
            above.pop();
        }
    }
}

/// Breaks lines at 80 columns where there are spaces; spaces inside a line stay as they are.
fn wrap(text: &str, indent: usize, out: &mut String) {
    for paragraph in text.split('\n') {
        let mut line = String::new();
        let mut gap = String::new();
        for piece in paragraph.split_inclusive(' ') {
            let word = piece.trim_end_matches(' ');
            if word.is_empty() {
                gap.push_str(piece);
                continue;
            }
            if !line.is_empty() && line.len() + gap.len() + word.len() > 80 - indent {
                out.push_str(&format!("{:indent$}{line}\n", ""));
                line.clear();
                gap.clear();
            }
            line.push_str(&gap);
            line.push_str(word);
            gap = piece[word.len()..].to_owned();
        }
        out.push_str(&format!("{:indent$}{line}\n", ""));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_listed() {
        let document = json!({"components": {"schemas": {
            "io.k8s.Pod": {"description": "A pod.", "x-kubernetes-group-version-kind": [{"group": "", "kind": "Pod", "version": "v1"}],
                "properties": {"spec": {"allOf": [{"$ref": "#/components/schemas/io.k8s.PodSpec"}], "description": "Wanted."}}},
            "io.k8s.PodSpec": {"description": "Spec.", "required": ["containers"], "properties": {
                "containers": {"type": "array", "items": {"$ref": "#/components/schemas/io.k8s.Container"}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}}}},
            "io.k8s.Container": {"description": "C.", "properties": {"name": {"type": "string", "description": "N."}}}}}});
        let pod = Resource { version: "v1".into(), kind: "Pod".into(), ..Resource::default() };
        let text = page(&document, &pod, &["spec"], false).unwrap();
        assert!(text.starts_with("FIELD: spec <PodSpec>\n\n\nDESCRIPTION:\n    Wanted.\n    Spec.\n"), "{text}");
        assert!(
            text.contains("  containers\t<[]Container> -required-\n    C.\n\n  labels\t<map[string]string>\n"),
            "{text}"
        );
        let text = page(&document, &pod, &[], true).unwrap();
        assert!(
            text.contains("  spec\t<PodSpec>\n    containers\t<[]Container> -required-\n      name\t<string>\n"),
            "{text}"
        );
        assert!(page(&document, &pod, &["nope"], false).unwrap_err().text().contains("field \"nope\" does not exist"));
    }
}

//! Generators, transformers and validators that files describe: those that are built into kustomize. Nothing else is run.

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::errors::{CtlError, Result};
use super::fields::Field;
use super::load::Step;
use super::names::Renames;
use super::patches::{self, Patcher, Target};
use super::place::Place;
use super::transform::{self, Subjects};
use super::{Item, generate, load, marks, openapi, replacements, strings, text};

/// A description with the file that it stands in.
type Described = (String, Value);

/// What a list of files, folders and texts describes.
fn described(place: &Place, list: &Value) -> Result<Vec<Described>> {
    let mut all = Vec::new();
    for entry in strings(list) {
        if place.is_folder(entry) {
            let loaded = load::top(&place.root.join(entry), false)?;
            all.extend(loaded.items.into_iter().map(|item| (entry.to_owned(), item.object)));
            continue;
        }
        let is_text = !place.has(entry) && entry.contains(':');
        let written = if is_text { entry.to_owned() } else { place.text(entry)? };
        for document in serde_norway::Deserializer::from_str(&written) {
            let object = Value::deserialize(document)
                .map_err(|error| CtlError::plain(format!("unable to load what {entry} describes: {error}")))?;
            if !object.is_null() {
                all.push((if is_text { "kustomization.yaml" } else { entry }.to_owned(), object));
            }
        }
    }
    for (_, object) in &all {
        if object["apiVersion"] != "builtin" {
            let kind = text(object, "kind");
            return Err(CtlError::plain(format!("external plugins disabled; unable to load external plugin '{kind}'")));
        }
    }
    Ok(all)
}

fn unknown(kind: &str) -> CtlError {
    CtlError::plain(format!("unable to load builtin {kind}.builtin.[noGrp]"))
}

/// Adds what the files of `generators` describe.
pub fn generators(place: &Place, config: &Value, items: &mut Vec<Item>) -> Result<()> {
    for (file, object) in described(place, &config["generators"])? {
        let kind = match text(&object, "kind") {
            "ConfigMapGenerator" => "ConfigMap",
            "SecretGenerator" => "Secret",
            other => return Err(unknown(other)),
        };
        let mut entry = object.clone();
        for field in ["name", "namespace"] {
            entry[field] = object["metadata"][field].clone();
        }
        let origin = marks::by(place, &file, text(&object, "kind"), text(&object["metadata"], "name"));
        generate::one(place, &entry, kind, &Value::Null, &origin, items)?;
    }
    Ok(())
}

/// Does what the files of `transformers` describe.
pub fn transformers(step: &mut Step<'_>, config: &Value) -> Result<()> {
    for (file, object) in described(step.place, &config["transformers"])? {
        let renames = transformed(step, &object, &config["openapi"])?;
        step.follow(&renames);
        step.note(&file, text(&object, "kind"), text(&object["metadata"], "name"));
    }
    Ok(())
}

/// Those of `validators` must not change anything.
pub fn validators(step: &Step<'_>, config: &Value) -> Result<()> {
    for (_, object) in described(step.place, &config["validators"])? {
        let mut items = step.items.clone();
        let Step { place, file, tables, above, notes, .. } = *step;
        let mut tried = Step { place, file, tables, above, notes, items: &mut items };
        transformed(&mut tried, &object, &config["openapi"])?;
        let different = |(before, after): (&Item, &Item)| before.object != after.object;
        if items.len() != step.items.len() || step.items.iter().zip(&items).any(different) {
            return Err(CtlError::plain(format!(
                "validator shouldn't modify the resource map: {} {:?} does",
                text(&object, "kind"),
                text(&object["metadata"], "name")
            )));
        }
    }
    Ok(())
}

fn transformed(step: &mut Step<'_>, of: &Value, schemas: &Value) -> Result<Renames> {
    let specs = of["fieldSpecs"].as_array().into_iter().flatten().map(Field::read);
    let fields = specs.collect::<Result<Vec<Field>>>()?;
    match text(of, "kind") {
        "PrefixTransformer" | "SuffixTransformer" | "PrefixSuffixTransformer" => {
            let (prefix, suffix) = (text(of, "prefix"), text(of, "suffix"));
            return Ok(transform::affix((prefix, &fields), (suffix, &fields), step.items));
        }
        "NamespaceTransformer" => {
            let subjects = match of["setRoleBindingSubjects"].as_str().unwrap_or("defaultOnly") {
                "defaultOnly" => Subjects::Default,
                "allServiceAccounts" => Subjects::All,
                "none" => Subjects::Nobody,
                other => {
                    return Err(CtlError::plain(format!(
                        "invalid value {other:?} for setRoleBindingSubjects: must be one of defaultOnly, allServiceAccounts \
                         or none"
                    )));
                }
            };
            let namespace = text(&of["metadata"], "namespace");
            return Ok(transform::namespace(namespace, &fields, of["unsetOnly"] == true, subjects, step.items));
        }
        "LabelTransformer" => transform::pairs(&of["labels"], &fields, step.items),
        "AnnotationsTransformer" => transform::pairs(&of["annotations"], &fields, step.items),
        "ImageTagTransformer" => transform::image(&of["imageTag"], &fields, step.items),
        "ReplicaCountTransformer" => transform::replicas(&of["replica"], &fields, step.items)?,
        "ReplacementTransformer" => replacements::run(step.place, &of["replacements"], step.items)?,
        "PatchTransformer" | "PatchJson6902Transformer" | "PatchStrategicMergeTransformer" => {
            let schema = openapi::read(step.place, schemas)?;
            return patched(step, of, &schema);
        }
        "ValueAddTransformer" => value_added(of, step.items)?,
        "HashTransformer" => return Ok(hashed(step.items)),
        other => return Err(unknown(other)),
    }
    Ok(Renames::default())
}

fn patched(step: &mut Step<'_>, of: &Value, schema: &openapi::Schema) -> Result<Renames> {
    let place = step.place;
    let mut patcher = Patcher::new(step.items, schema);
    if text(of, "kind") == "PatchStrategicMergeTransformer" {
        let inline = of["patches"].as_str().into_iter();
        for entry in strings(&of["paths"]).chain(inline) {
            patcher.strategic(place, entry)?;
        }
        return Ok(patcher.renames);
    }
    let mut entry = of.clone();
    if let Some(operations) = of["jsonOp"].as_str() {
        entry["patch"] = json!(operations);
    }
    patches::entry(place, &mut patcher, &entry, "patches")?;
    Ok(patcher.renames)
}

/// Sets a value in fields.
fn value_added(of: &Value, items: &mut [Item]) -> Result<()> {
    for target in of["targets"].as_array().into_iter().flatten() {
        let choice = |field: &str| match target[field].is_object() {
            true => Target::new(&target[field]).map(Some),
            false => Ok(None),
        };
        let (wanted, rejected) = (choice("selector")?, choice("notSelector")?);
        let field = Field::of("", &format!("+{}", text(target, "fieldPath")));
        for item in items.iter_mut() {
            let is_wanted = wanted.as_ref().is_none_or(|choice| choice.means(item));
            if is_wanted && !rejected.as_ref().is_some_and(|choice| choice.means(item)) {
                field.change(item, &mut |slot| *slot = of["value"].clone());
            }
        }
    }
    Ok(())
}

/// Puts the hashes behind names at once.
fn hashed(items: &mut [Item]) -> Renames {
    let mut renames = Renames::default();
    for item in items.iter_mut().filter(|item| item.hashed) {
        let hash = generate::hash(&item.object);
        item.hashed = false;
        renames.rename(item, |name| format!("{name}-{hash}"));
    }
    renames
}

//! Patches of a kustomization: strategic merge patches and JSON patches.

use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};
use trireme_api::selector::LabelSelector;

use super::super::change::patched;
use super::super::errors::{CtlError, Result};
use super::super::mutate::{JSON_PATCH, STRATEGIC};
use super::super::targets;
use super::load::Step;
use super::names::Renames;
use super::openapi::Schema;
use super::place::Place;
use super::{Item, strings, text};

/// Applies the patches of a kustomization that come first, in their order; the answer is which names have changed.
pub fn run(step: &mut Step<'_>, config: &Value, schema: &Schema) -> Result<Renames> {
    let mut renames = Renames::default();
    let place = step.place;
    if config["patchesStrategicMerge"].as_array().is_some_and(|list| !list.is_empty()) {
        let mut patcher = Patcher { renames, ..Patcher::new(step.items, schema) };
        strings(&config["patchesStrategicMerge"]).try_for_each(|entry| patcher.strategic(place, entry))?;
        renames = patcher.renames;
        step.done("PatchStrategicMergeTransformer");
    }
    all(step, &config["patches"], ("patches", "PatchTransformer"), schema, renames)
}

/// Applies the JSON patches that come later, as [`run`].
pub fn json(step: &mut Step<'_>, config: &Value, schema: &Schema) -> Result<Renames> {
    let field = "patchesJson6902";
    all(step, &config[field], (field, "PatchJson6902Transformer"), schema, Renames::default())
}

fn all(
    step: &mut Step<'_>,
    list: &Value,
    (field, kind): (&str, &str),
    schema: &Schema,
    mut renames: Renames,
) -> Result<Renames> {
    for written in list.as_array().into_iter().flatten() {
        let mut patcher = Patcher { renames, ..Patcher::new(step.items, schema) };
        entry(step.place, &mut patcher, written, field)?;
        renames = patcher.renames;
        step.done(kind);
    }
    Ok(renames)
}

/// One patch with its target and options.
pub fn entry(place: &Place, patcher: &mut Patcher<'_>, entry: &Value, field: &str) -> Result<()> {
    let written = match (entry["path"].as_str(), entry["patch"].as_str()) {
        (Some(path), None) => place.text(path)?,
        (None, Some(patch)) => patch.to_owned(),
        _ => return Err(CtlError::plain(format!("{field}: exactly one of patch and path has to be given"))),
    };
    let options = &entry["options"];
    let freedom = Freedom { name: options["allowNameChange"] == true, kind: options["allowKindChange"] == true };
    patcher.apply(&written, &entry["target"], freedom)
}

/// What a patch may change beside the contents.
#[derive(Debug, Clone, Copy, Default)]
struct Freedom {
    name: bool,
    kind: bool,
}

/// The objects, and the names that patches gave them.
pub struct Patcher<'a> {
    items: &'a mut Vec<Item>,
    schema: &'a Schema,
    /// Which names have changed.
    pub renames: Renames,
}

impl<'a> Patcher<'a> {
    /// Nothing is changed yet.
    pub fn new(items: &'a mut Vec<Item>, schema: &'a Schema) -> Patcher<'a> {
        Patcher { items, schema, renames: Renames::default() }
    }

    /// A strategic merge patch: a file, or the patch itself.
    pub fn strategic(&mut self, place: &Place, entry: &str) -> Result<()> {
        let is_text = !place.has(entry) && entry.contains(':');
        let written = if is_text { entry.to_owned() } else { place.text(entry)? };
        self.apply(&written, &Value::Null, Freedom::default())
    }

    fn apply(&mut self, written: &str, target: &Value, freedom: Freedom) -> Result<()> {
        for document in serde_norway::Deserializer::from_str(written) {
            let patch = Value::deserialize(document).map_err(|error| {
                CtlError::plain(format!("unable to parse SM or JSON patch from [{written}]: {error}"))
            })?;
            match patch {
                Value::Null => {}
                Value::Array(_) if target.is_null() => {
                    return Err(CtlError::plain("must specify a target for JSON patch"));
                }
                patch if target.is_null() => self.by_name(&patch, freedom)?,
                patch => self.by_target(&patch, target, freedom)?,
            }
        }
        Ok(())
    }

    /// A patch for the object that it names.
    fn by_name(&mut self, patch: &Value, freedom: Freedom) -> Result<()> {
        let (kind, version) = (text(patch, "kind"), text(patch, "apiVersion"));
        let (name, namespace) = (text(&patch["metadata"], "name"), text(&patch["metadata"], "namespace"));
        let group = |version: &str| version.split_once('/').map_or("", |(group, _)| group).to_owned();
        let mut matching = self.items.iter().enumerate().filter(|(_, item)| {
            item.kind() == kind
                && group(text(&item.object, "apiVersion")) == group(version)
                && (item.original == name || item.name() == name)
                && (namespace.is_empty() || item.namespaces.iter().any(|known| known == namespace))
        });
        let Some((index, _)) = matching.next() else {
            let (group, version) = version.split_once('/').unwrap_or(("[noGrp]", version));
            let namespace = if namespace.is_empty() { "[noNs]" } else { namespace };
            let id = format!("{kind}.{version}.{group}/{name}.{namespace}");
            return Err(CtlError::plain(format!(
                "no resource matches strategic merge patch {id:?}: no matches for Id {id}; failed to find unique target for \
             patch {id}"
            )));
        };
        self.one(index, patch, freedom)
    }

    /// A patch for every object that a selector means.
    fn by_target(&mut self, patch: &Value, target: &Value, freedom: Freedom) -> Result<()> {
        let wanted = Target::new(target)?;
        // From the last one on, since an object may go.
        for index in (0..self.items.len()).rev() {
            if wanted.means(&self.items[index]) {
                self.one(index, patch, freedom)?;
            }
        }
        Ok(())
    }

    /// Patches one object; it goes if the patch says so.
    fn one(&mut self, index: usize, patch: &Value, freedom: Freedom) -> Result<()> {
        if patch["$patch"] == "delete" {
            self.items.remove(index);
            return Ok(());
        }
        let item = &mut self.items[index];
        let old = item.name().to_owned();
        let resource = targets::guess(&item.object);
        let of = targets::of_object(&resource.into(), item.object.clone());
        if patch.is_array() {
            item.object = patched(&of, &item.object, JSON_PATCH, patch)?;
        } else {
            let mut patch = patch.clone();
            // What a patch is called does not rename what it is for, unless it may.
            let kinds = ["apiVersion", "kind"].map(|field| (field, item.object[field].clone()));
            let wanted = patch["kind"].clone();
            kinds.into_iter().for_each(|(field, value)| patch[field] = value);
            if !freedom.name || text(&patch["metadata"], "name").is_empty() {
                patch["metadata"]["name"] = json!(old);
            }
            if !self.schema.merge(item, &patch) {
                item.object = patched(&of, &item.object, STRATEGIC, &patch)?;
            }
            if freedom.kind && wanted.is_string() {
                item.object["kind"] = wanted;
            }
        }
        self.renames.note(item, &old);
        Ok(())
    }
}

/// Which objects a patch or a replacement is for: by patterns for what they are, and by selectors.
pub struct Target {
    fields: Vec<(&'static str, Regex)>,
    labels: Option<LabelSelector>,
    annotations: Option<LabelSelector>,
}

impl Target {
    /// Reads a selector.
    pub fn new(target: &Value) -> Result<Target> {
        let mut fields = Vec::new();
        for field in ["group", "version", "kind", "name", "namespace"] {
            if let Some(pattern) = target[field].as_str().filter(|pattern| !pattern.is_empty()) {
                let regex = Regex::new(&format!("^(?:{pattern})$"))
                    .map_err(|error| CtlError::plain(format!("invalid {field} {pattern:?} of a target: {error}")))?;
                fields.push((field, regex));
            }
        }
        let selector = |field: &str| match target[field].as_str() {
            Some(text) => LabelSelector::parse(text).map(Some).map_err(|error| CtlError::plain(error.to_string())),
            None => Ok(None),
        };
        Ok(Target { fields, labels: selector("labelSelector")?, annotations: selector("annotationSelector")? })
    }

    /// Whether an object is meant.
    pub fn means(&self, item: &Item) -> bool {
        let object = &item.object;
        let version = text(object, "apiVersion");
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let field = |(name, regex): &(&str, Regex)| match *name {
            "group" => regex.is_match(group),
            "version" => regex.is_match(version),
            "kind" => regex.is_match(item.kind()),
            "name" => regex.is_match(item.name()) || regex.is_match(&item.original),
            _ => regex.is_match(text(&object["metadata"], "namespace")),
        };
        let selected = |selector: &Option<LabelSelector>, map: &str| {
            let pairs = &object["metadata"][map];
            selector.as_ref().is_none_or(|selector| selector.matches_by(|key| pairs[key].as_str()))
        };
        self.fields.iter().all(field) && selected(&self.labels, "labels") && selected(&self.annotations, "annotations")
    }
}

//! Patches of a kustomization: strategic merge patches and JSON patches.

use std::path::Path;

use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};
use trireme_api::selector::LabelSelector;

use super::super::change::patched;
use super::super::errors::{CtlError, Result};
use super::super::mutate::{JSON_PATCH, STRATEGIC};
use super::super::targets;
use super::names::Renames;
use super::{Item, read, strings, text};

/// Applies all patches, in their order.
pub fn run(folder: &Path, config: &Value, items: &mut Vec<Item>) -> Result<()> {
    let mut patcher = Patcher { items, renames: Renames::default() };
    patcher.run(folder, config)?;
    patcher.renames.apply(items);
    Ok(())
}

/// What a patch may change beside the contents.
#[derive(Debug, Clone, Copy, Default)]
struct Freedom {
    name: bool,
    kind: bool,
}

/// The objects, and the names that patches gave them.
struct Patcher<'a> {
    items: &'a mut Vec<Item>,
    renames: Renames,
}

impl Patcher<'_> {
    fn run(&mut self, folder: &Path, config: &Value) -> Result<()> {
        for entry in strings(&config["patchesStrategicMerge"]) {
            let written = if entry.contains('\n') { entry.to_owned() } else { contents(&folder.join(entry))? };
            self.apply(&written, &Value::Null, Freedom::default())?;
        }
        for field in ["patches", "patchesJson6902"] {
            for entry in config[field].as_array().into_iter().flatten() {
                let written = match (entry["path"].as_str(), entry["patch"].as_str()) {
                    (Some(path), None) => contents(&folder.join(path))?,
                    (None, Some(patch)) => patch.to_owned(),
                    _ => {
                        return Err(CtlError::plain(format!("{field}: exactly one of patch and path has to be given")));
                    }
                };
                let options = &entry["options"];
                let freedom =
                    Freedom { name: options["allowNameChange"] == true, kind: options["allowKindChange"] == true };
                self.apply(&written, &entry["target"], freedom)?;
            }
        }
        Ok(())
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
                && (namespace.is_empty() || text(&item.object["metadata"], "namespace") == namespace)
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
            let wanted = kinds.clone().map(|(field, _)| (field, patch[field].clone()));
            kinds.into_iter().for_each(|(field, value)| patch[field] = value);
            if !freedom.name || text(&patch["metadata"], "name").is_empty() {
                patch["metadata"]["name"] = json!(old);
            }
            item.object = patched(&of, &item.object, STRATEGIC, &patch)?;
            if freedom.kind {
                wanted
                    .into_iter()
                    .filter(|(_, value)| value.is_string())
                    .for_each(|(field, value)| item.object[field] = value);
            }
        }
        self.renames.note(item, &old);
        Ok(())
    }
}

fn contents(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&read(path)?).into_owned())
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

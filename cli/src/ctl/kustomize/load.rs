//! Reads kustomizations, and does what they say in kustomize's order.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::errors::{CtlError, Result};
use super::super::manifest;
use super::fields::Tables;
use super::place::Place;
use super::transform::{self, Subjects};
use super::vars::{self, Var};
use super::{Item, builtin, crds, generate, marks, openapi, patches, replacements, strings, text};

/// What kustomize knows and this does not; nothing in them asks for nothing.
const REFUSED: [(&str, &str); 3] = [
    ("helmCharts", "charts are not inflated: render them with helm template and list the file as a resource"),
    ("helmGlobals", "charts are not inflated: render them with helm template and list the file as a resource"),
    ("helmChartInflationGenerator", "charts are not inflated: render them with helm template and list the file"),
];

const KNOWN: [&str; 31] = [
    "apiVersion",
    "kind",
    "metadata",
    "resources",
    "bases",
    "components",
    "namespace",
    "namePrefix",
    "nameSuffix",
    "commonLabels",
    "commonAnnotations",
    "labels",
    "images",
    "imageTags",
    "replicas",
    "configMapGenerator",
    "secretGenerator",
    "generatorOptions",
    "patches",
    "patchesStrategicMerge",
    "patchesJson6902",
    "replacements",
    "vars",
    "sortOptions",
    "buildMetadata",
    "configurations",
    "crds",
    "openapi",
    "generators",
    "transformers",
    "validators",
];

/// Old fields, and what to write instead.
const DEPRECATED: [(&str, &str); 5] = [
    ("bases", "resources"),
    ("commonLabels", "labels"),
    ("patchesJson6902", "patches"),
    ("patchesStrategicMerge", "patches"),
    ("vars", "replacements"),
];

/// A kustomization that has been done.
pub struct Loaded {
    /// What its file says.
    pub config: Value,
    /// Its objects.
    pub items: Vec<Item>,
    /// Its tables of fields, with those of the kustomizations that it has as resources.
    pub tables: Tables,
    /// Its variables, and theirs.
    pub vars: Vec<Var>,
}

/// Reads a folder's kustomization; the answer has the name of the file too.
fn config_of(place: &Place) -> Result<(Value, &'static str)> {
    let names = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
    let Some(file) = names.into_iter().find(|name| place.root.join(name).is_file()) else {
        let folder = place.root.display();
        return Err(CtlError::plain(match place.root.is_dir() {
            true => format!(
                "unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory '{folder}'"
            ),
            false => format!(
                "must build at directory: not a valid directory: evalsymlink failure on '{folder}' : lstat {folder}: no such \
                 file or directory"
            ),
        }));
    };
    let contents = place.text(file)?;
    let config: Value = serde_norway::from_str(&contents)
        .map_err(|error| CtlError::plain(format!("invalid Kustomization: {error}")))?;
    let fields = config.as_object().into_iter().flatten();
    let mut content = fields.clone().filter(|(field, _)| !matches!(field.as_str(), "apiVersion" | "kind"));
    if content.all(|(_, value)| is_empty(value)) {
        return Err(CtlError::plain("kustomization.yaml is empty"));
    }
    check_kind(place, &config)?;
    for (field, value) in fields {
        let refused = REFUSED.iter().find(|(known, _)| known == field).map(|(_, why)| *why);
        match refused {
            None if KNOWN.contains(&field.as_str()) => {}
            Some(_) if is_empty(value) => {}
            Some(why) => {
                return Err(CtlError::plain(format!(
                    "{}: the field {field:?} is not supported by trictl: {why}",
                    place.root.join(file).display()
                )));
            }
            None => return Err(CtlError::plain(format!("invalid Kustomization: json: unknown field {field:?}"))),
        }
    }
    Ok((config, file))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        value => value.is_null(),
    }
}

/// Says which fields are old.
fn warn(config: &Value) {
    for (old, new) in DEPRECATED.iter().filter(|(old, _)| !config[*old].is_null()) {
        let mark = if *old == "vars" { "[EXPERIMENTAL] " } else { "" };
        eprintln!(
            "# Warning: '{old}' is deprecated. Please use '{new}' instead. {mark}Run 'kustomize edit fix' to update \
             your Kustomization automatically."
        );
    }
}

/// Whether a file is for kustomize at all.
fn check_kind(place: &Place, config: &Value) -> Result<()> {
    let version = match config["kind"].as_str().unwrap_or("Kustomization") {
        "Kustomization" => "kustomize.config.k8s.io/v1beta1",
        "Component" => "kustomize.config.k8s.io/v1alpha1",
        _ => return Err(unfit(place, "kind should be Kustomization or Component")),
    };
    match config["apiVersion"].as_str() {
        Some(other) if other != version && !other.is_empty() => {
            let kind = config["kind"].as_str().unwrap_or("Kustomization");
            Err(unfit(place, &format!("apiVersion for {kind} should be {version}")))
        }
        _ => Ok(()),
    }
}

fn unfit(place: &Place, why: &str) -> CtlError {
    CtlError::plain(format!("Failed to read kustomization file under {}:\n{why}", place.root.display()))
}

/// Does the kustomization that is built.
pub fn top(folder: &Path, free: bool) -> Result<Loaded> {
    let place = Place::top(folder, free);
    let (config, _) = config_of(&place)?;
    let mut loader = Loader { within: Vec::new(), notes: marks::wants(&config, "transformerAnnotations") };
    let mut items = Vec::new();
    let loaded = loader.load(&place, Role::Resource, &Tables::default(), &mut items)?;
    Ok(Loaded { items, ..loaded })
}

/// What a kustomization is to another one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    /// One of its resources: it has objects of its own.
    Resource,
    /// One of its components: it changes what was there before.
    Component,
}

/// Goes through kustomizations.
struct Loader {
    within: Vec<PathBuf>,
    /// What changes objects is noted at them.
    notes: bool,
}

impl Loader {
    /// Adds what a kustomization holds, and changes it as it says. `above` are the tables of those that have it.
    fn load(&mut self, place: &Place, role: Role, above: &Tables, items: &mut Vec<Item>) -> Result<Loaded> {
        let here = place.root.clone();
        if self.within.contains(&here) {
            let here = here.display();
            return Err(CtlError::plain(format!(
                "cycle detected: candidate root '{here}' contains visited root '{here}'"
            )));
        }
        let (config, file) = config_of(place)?;
        warn(&config);
        let kind = config["kind"].as_str().unwrap_or("Kustomization");
        match (role, kind) {
            (Role::Resource, "Component") if !self.within.is_empty() => {
                return Err(CtlError::plain(format!("expected kind != 'Component' for path '{}'", here.display())));
            }
            (Role::Component, other) if other != "Component" => {
                return Err(CtlError::plain(format!(
                    "expected kind 'Component' for path '{}' but got '{other}'",
                    here.display()
                )));
            }
            _ => {}
        }
        self.within.push(here);
        let mut tables = own_tables(place, &config)?;
        let mut vars = vars::of(&config);
        let mut all = tables.clone();
        all.merge(above.clone());
        for resource in strings(&config["resources"]).chain(strings(&config["bases"])) {
            let inner = self.resource(place, resource, &all, items)?;
            if let Some(inner) = inner {
                tables.merge(inner.tables);
                vars.extend(inner.vars);
            }
        }
        unique(items)?;
        generate::run(place, file, &config, items)?;
        builtin::generators(place, &config, items)?;
        unique(items)?;
        for component in strings(&config["components"]) {
            let inner = self.load(&place.within(component), Role::Component, &all, items)?;
            tables.merge(inner.tables);
            vars.extend(inner.vars);
        }
        let mut step = Step { place, file, tables: &tables, above, notes: self.notes, items };
        step.run(&config)?;
        builtin::transformers(&mut step, &config)?;
        builtin::validators(&step, &config)?;
        self.within.pop();
        Ok(Loaded { config, items: Vec::new(), tables, vars })
    }

    fn resource(&mut self, place: &Place, name: &str, all: &Tables, items: &mut Vec<Item>) -> Result<Option<Loaded>> {
        if place.is_folder(name) {
            let mut inner = Vec::new();
            let loaded = self.load(&place.within(name), Role::Resource, all, &mut inner)?;
            items.extend(inner);
            return Ok(Some(loaded));
        }
        let elsewhere = name.contains(".git") || name.starts_with("github.com/");
        if name.contains("://") || !place.has(name) && elsewhere {
            return Err(CtlError::plain(format!("{name}: nothing is fetched from elsewhere: download it first")));
        }
        let contents = place.text(name)?;
        for document in manifest::parse(&contents, &place.root.join(name).display().to_string()) {
            let mut item = Item::new(document?.object);
            if item.name().is_empty() && text(&item.object["metadata"], "generateName").is_empty() {
                return Err(CtlError::plain(format!(
                    "accumulating resources from '{name}': missing metadata.name in object"
                )));
            }
            item.origin = serde_json::json!({"path": place.seen_from_top(name)});
            items.push(item);
        }
        Ok(None)
    }
}

/// What a kustomization adds to the tables.
fn own_tables(place: &Place, config: &Value) -> Result<Tables> {
    let mut tables = Tables::default();
    for file in strings(&config["configurations"]) {
        let written: Value =
            serde_norway::from_str(&place.text(file)?).map_err(|error| CtlError::plain(format!("{file}: {error}")))?;
        tables.read(&written)?;
    }
    for file in strings(&config["crds"]) {
        tables.merge(crds::tables(&place.text(file)?, file)?);
    }
    Ok(tables)
}

/// Objects with what is needed to change them.
pub struct Step<'a> {
    /// Where files are.
    pub place: &'a Place,
    /// The kustomization's file.
    pub file: &'a str,
    /// The tables of the kustomization.
    pub tables: &'a Tables,
    /// Those of the kustomizations that have it.
    pub above: &'a Tables,
    /// What changes objects is noted at them.
    pub notes: bool,
    /// The objects.
    pub items: &'a mut Vec<Item>,
}

impl Step<'_> {
    /// Notes what has changed the objects.
    pub fn note(&mut self, file: &str, kind: &str, name: &str) {
        if self.notes {
            let by = marks::by(self.place, file, kind, name);
            self.items.iter_mut().for_each(|item| item.changed_by.push(by.clone()));
        }
    }

    /// Notes what a field of the kustomization has changed.
    pub fn done(&mut self, kind: &str) {
        self.note(self.file, kind, "");
    }

    /// Changes what holds the names that changed.
    pub fn follow(&mut self, renames: &super::names::Renames) {
        let mut tables = self.tables.clone();
        tables.merge(self.above.clone());
        renames.apply(&tables, self.items);
    }

    /// What the fields of a kustomization ask for.
    fn run(&mut self, config: &Value) -> Result<()> {
        let schema = openapi::read(self.place, &config["openapi"])?;
        let renames = patches::run(self, config, &schema)?;
        self.follow(&renames);
        self.names(config);
        self.labels(config)?;
        let renames = patches::json(self, config, &schema)?;
        self.follow(&renames);
        let builtin = Tables::builtin();
        let list = |field: &str| config[field].as_array().cloned().unwrap_or_default();
        for rule in list("replicas") {
            let fields = [&builtin.replicas[..], &self.tables.replicas].concat();
            transform::replicas(&rule, &fields, self.items)?;
            self.done("ReplicaCountTransformer");
        }
        for rule in list("images") {
            let fields = [&builtin.images[..], &self.tables.images].concat();
            transform::image(&rule, &fields, self.items);
            self.done("ImageTagTransformer");
        }
        if !is_empty(&config["replacements"]) {
            replacements::run(self.place, &config["replacements"], self.items)?;
            self.done("ReplacementTransformer");
        }
        Ok(())
    }

    fn names(&mut self, config: &Value) {
        let builtin = Tables::builtin();
        let namespace = text(config, "namespace");
        if !namespace.is_empty() {
            let fields = [&builtin.namespace[..], &self.tables.namespace].concat();
            let renames = transform::namespace(namespace, &fields, false, Subjects::Default, self.items);
            self.follow(&renames);
            self.done("NamespaceTransformer");
        }
        let (prefix, suffix) = (text(config, "namePrefix"), text(config, "nameSuffix"));
        let first = [&builtin.prefix[..], &self.tables.prefix].concat();
        let last = [&builtin.suffix[..], &self.tables.suffix].concat();
        let renames = transform::affix((prefix, &first), (suffix, &last), self.items);
        self.follow(&renames);
        for (given, kind) in [(prefix, "PrefixTransformer"), (suffix, "SuffixTransformer")] {
            if !given.is_empty() {
                self.done(kind);
            }
        }
    }

    fn labels(&mut self, config: &Value) -> Result<()> {
        let builtin = Tables::builtin();
        let entries = config["labels"].as_array().cloned().unwrap_or_default();
        for entry in &entries {
            transform::pairs(&entry["pairs"], &transform::label_fields(entry, self.tables)?, self.items);
            self.done("LabelTransformer");
        }
        if !entries.is_empty() || !is_empty(&config["commonLabels"]) {
            let fields = [&builtin.labels[..], &self.tables.labels].concat();
            transform::pairs(&config["commonLabels"], &fields, self.items);
            self.done("LabelTransformer");
        }
        if !is_empty(&config["commonAnnotations"]) {
            let fields = [&builtin.annotations[..], &self.tables.annotations].concat();
            transform::pairs(&config["commonAnnotations"], &fields, self.items);
            self.done("AnnotationsTransformer");
        }
        Ok(())
    }
}

/// Two objects of the same name cannot be told apart.
pub fn unique(items: &[Item]) -> Result<()> {
    let id = |item: &Item| {
        let (group, version) = item.group_version();
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let (group, namespace) = (or(group, "[noGrp]"), or(item.namespace(), "[noNs]"));
        format!("{}.{version}.{group}/{}.{namespace}", item.kind(), item.name())
    };
    let mut seen = std::collections::BTreeSet::new();
    match items.iter().map(id).find(|id| !seen.insert(id.clone())) {
        Some(twice) => Err(CtlError::plain(format!("may not add resource with an already registered id: {twice}"))),
        None => Ok(()),
    }
}

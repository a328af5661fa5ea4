//! `-k` and `trictl kustomize`: resources and components, generators, patches, labels, annotations, names, namespaces, images,
//! replicas, replacements, variables, tables of one's own, as kustomize does them. What is not understood is refused by name.

mod builtin;
mod crds;
mod fields;
mod generate;
mod load;
mod marks;
mod names;
mod openapi;
mod patches;
mod place;
mod replacements;
#[cfg(test)]
mod tests;
mod transform;
mod vars;

use std::path::Path;

use clap::Args;
use serde_json::Value;

use self::names::Renames;
use super::errors::{CtlError, Result};
use super::print::{emit, os_reason, yaml};

/// Kinds in the order in which objects are written; others come behind them, webhooks last.
const ORDER: [&str; 22] = [
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];

/// Build a kustomization directory.
#[derive(Debug, Clone, Default, Args)]
pub struct KustomizeArgs {
    /// DIR
    pub folders: Vec<std::path::PathBuf>,
    /// Write to this file instead, or each object to a file in this folder
    #[arg(short, long)]
    pub output: Option<std::path::PathBuf>,
    /// LoadRestrictionsNone: files may be anywhere; LoadRestrictionsRootOnly: only in the kustomization's folder or below
    #[arg(long, default_value = "LoadRestrictionsRootOnly")]
    pub load_restrictor: String,
    #[command(flatten)]
    pub others: Others,
}

/// Flags for what is refused by name if a kustomization asks for it: charts and plugins.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Accepted for kubectl's sake, without effect")]
pub struct Others {
    /// No functions are run
    #[arg(long)]
    pub as_current_user: bool,
    /// No plugins are run
    #[arg(long)]
    pub enable_alpha_plugins: bool,
    /// No charts are inflated
    #[arg(long)]
    pub enable_helm: bool,
    /// No functions are run
    #[arg(short, long)]
    pub env: Vec<String>,
    /// No charts are inflated
    #[arg(long)]
    pub helm_api_versions: Vec<String>,
    /// No charts are inflated
    #[arg(long)]
    pub helm_command: Option<String>,
    /// No charts are inflated
    #[arg(long)]
    pub helm_debug: bool,
    /// No charts are inflated
    #[arg(long)]
    pub helm_kube_version: Option<String>,
    /// No functions are run
    #[arg(long)]
    pub mount: Vec<String>,
    /// No functions are run
    #[arg(long)]
    pub network: bool,
    /// No functions are run
    #[arg(long)]
    pub network_name: Option<String>,
}

/// Runs the verb.
pub fn run(args: &KustomizeArgs) -> Result<()> {
    let folder = match args.folders.as_slice() {
        [] => Path::new("."),
        [folder] => folder,
        _ => return Err(CtlError::plain("specify one path to kustomization.yaml")),
    };
    let free = match args.load_restrictor.as_str() {
        "LoadRestrictionsNone" => true,
        "LoadRestrictionsRootOnly" => false,
        other => {
            return Err(CtlError::plain(format!(
                "illegal flag value --load-restrictor {other}; legal values: [LoadRestrictionsRootOnly LoadRestrictionsNone]"
            )));
        }
    };
    let objects = built(folder, free)?;
    let texts: Vec<String> = objects.iter().map(yaml::document).collect();
    let Some(output) = &args.output else { return emit(&texts.join("---\n")) };
    let failed =
        |path: &Path, error: &std::io::Error| CtlError::plain(format!("open {}: {}", path.display(), os_reason(error)));
    if !output.is_dir() {
        return std::fs::write(output, texts.join("---\n")).map_err(|error| failed(output, &error));
    }
    for (object, text) in objects.iter().zip(&texts) {
        let field = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
        let version = field(&object["apiVersion"]).replace('/', "_");
        let kind = field(&object["kind"]);
        let path = output.join(format!("{version}_{kind}_{}.yaml", field(&object["metadata"]["name"])));
        std::fs::write(&path, text).map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

/// An object on its way through kustomizations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Item {
    /// The object as it stands.
    pub object: Value,
    /// The name that it had at first.
    pub original: String,
    /// The namespaces that it was in.
    pub namespaces: Vec<String>,
    /// A hash of its contents is put behind its name at the end.
    pub hashed: bool,
    /// Where it comes from.
    pub origin: Value,
    /// What has changed it, if that is to be noted.
    pub changed_by: Vec<Value>,
}

/// A field of an object as text.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

impl Item {
    fn new(object: Value) -> Item {
        let original = text(&object["metadata"], "name").to_owned();
        let namespaces = vec![text(&object["metadata"], "namespace").to_owned()];
        Item { object, original, namespaces, ..Item::default() }
    }

    /// The kind.
    pub fn kind(&self) -> &str {
        text(&self.object, "kind")
    }

    /// The name as it is now.
    pub fn name(&self) -> &str {
        text(&self.object["metadata"], "name")
    }

    /// The namespace as it is now.
    pub fn namespace(&self) -> &str {
        text(&self.object["metadata"], "namespace")
    }

    /// Group and version.
    pub fn group_version(&self) -> (&str, &str) {
        let version = text(&self.object, "apiVersion");
        version.split_once('/').unwrap_or(("", version))
    }

    /// Whether objects of its kind are in no namespace.
    pub fn is_cluster_wide(&self) -> bool {
        let (group, version) = self.group_version();
        let known = trireme_api::Catalogue::builtin().by_kind(group, version, self.kind());
        known.is_some_and(|resource| resource.scope == trireme_api::catalogue::Scope::Cluster)
    }
}

/// The objects of a kustomization.
pub fn build(folder: &Path) -> Result<Vec<Value>> {
    built(folder, false)
}

fn built(folder: &Path, free: bool) -> Result<Vec<Value>> {
    let load::Loaded { config, mut items, tables, vars } = load::top(folder, free)?;
    let mut renames = Renames::default();
    for item in items.iter_mut().filter(|item| item.hashed) {
        let hash = generate::hash(&item.object);
        renames.rename(item, |name| format!("{name}-{hash}"));
    }
    renames.apply(&tables, &mut items);
    vars::resolve(&vars, &tables, &mut items)?;
    marks::write(&config["buildMetadata"], &mut items);
    sort(&config["sortOptions"], &mut items)?;
    Ok(items.into_iter().map(|item| item.object).collect())
}

/// By kinds in the order in which they need each other, unless the kustomization wants another one.
fn sort(options: &Value, items: &mut [Item]) -> Result<()> {
    let legacy = &options["legacySortOptions"];
    match options["order"].as_str() {
        Some("fifo") if !legacy.is_null() => {
            return Err(CtlError::plain(
                "the field 'sortOptions.legacySortOptions' is set but the selected sort order is 'fifo', not 'legacy'",
            ));
        }
        Some("fifo") => return Ok(()),
        Some("legacy") => {}
        None if options.is_null() => {}
        _ => return Err(CtlError::plain("the field 'sortOptions.order' must be one of [fifo, legacy]")),
    }
    in_order(legacy, items);
    Ok(())
}

/// Sorts by lists of kinds, those of kustomize if there are none.
fn in_order(legacy: &Value, items: &mut [Item]) {
    let list = |field: &str, default: &[&str]| -> Vec<String> {
        match legacy[field].as_array() {
            Some(kinds) => kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None => default.iter().map(|kind| (*kind).to_owned()).collect(),
        }
    };
    let first = list("orderFirst", &ORDER);
    let last = list("orderLast", &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]);
    let place = |kind: &str| {
        let within = |kinds: &[String]| kinds.iter().position(|known| known == kind);
        within(&first).or(within(&last).map(|at| first.len() + 1 + at)).unwrap_or(first.len())
    };
    items.sort_by_cached_key(|item| {
        // Those without a namespace come behind those with one.
        let namespace = if item.namespace().is_empty() { "~X" } else { item.namespace() }.to_owned();
        // So do kinds without a group.
        let (group, version) = item.group_version();
        let group = if group.is_empty() { "~G" } else { group }.to_owned();
        let (version, kind, name) = (version.to_owned(), item.kind().to_owned(), item.name().to_owned());
        (place(item.kind()), group, version, kind, namespace, name)
    });
}

/// The texts of a list.
pub fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

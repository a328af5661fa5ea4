//! `-k` and `trictl kustomize`: resources and components, generators, patches, labels, annotations, names, namespaces, images,
//! replicas, replacements, variables, as kustomize does them. What is not understood is refused by name.

mod generate;
mod names;
mod patches;
mod replacements;
mod transform;
mod vars;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use self::names::Renames;
use self::vars::Var;
use super::errors::{CtlError, Result};
use super::manifest;
use super::print::{emit, os_reason, yaml};

const KNOWN: &[&str] = &[
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
];

/// What kustomize knows and this does not; nothing in them asks for nothing.
const REFUSED: [(&str, &str); 9] = [
    ("helmCharts", "charts are not inflated: render them with helm template and list the file as a resource"),
    ("helmGlobals", "charts are not inflated: render them with helm template and list the file as a resource"),
    ("helmChartInflationGenerator", "charts are not inflated: render them with helm template and list the file"),
    ("crds", "fields of custom resources that hold names are not looked for"),
    ("openapi", "schemas of custom resources are not read: patches replace their lists whole"),
    ("configurations", "fields of one's own that hold names, labels or images are not looked for"),
    ("generators", "plugins are not run"),
    ("transformers", "plugins are not run"),
    ("validators", "plugins are not run"),
];

/// Old fields, and what to write instead.
const DEPRECATED: [(&str, &str); 5] = [
    ("bases", "resources"),
    ("commonLabels", "labels"),
    ("patchesJson6902", "patches"),
    ("patchesStrategicMerge", "patches"),
    ("vars", "replacements"),
];

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
    /// Files may be anywhere
    #[arg(long)]
    pub load_restrictor: Option<String>,
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
    let objects = build(folder)?;
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
#[derive(Debug, Clone)]
pub struct Item {
    /// The object as it stands.
    pub object: Value,
    /// The name that it had at first.
    pub original: String,
    /// A hash of its contents is put behind its name at the end.
    pub hashed: bool,
}

/// A field of an object as text.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

impl Item {
    fn new(object: Value) -> Item {
        let original = text(&object["metadata"], "name").to_owned();
        Item { object, original, hashed: false }
    }

    /// The kind.
    pub fn kind(&self) -> &str {
        text(&self.object, "kind")
    }

    /// The name as it is now.
    pub fn name(&self) -> &str {
        text(&self.object["metadata"], "name")
    }
}

/// The objects of a kustomization.
pub fn build(folder: &Path) -> Result<Vec<Value>> {
    let (mut items, mut vars) = (Vec::new(), Vec::new());
    let config = load(folder, &mut Vec::new(), &mut items, &mut vars)?;
    let mut renames = Renames::default();
    for item in items.iter_mut().filter(|item| item.hashed) {
        let hash = generate::hash(&item.object);
        renames.rename(item, |name| format!("{name}-{hash}"));
    }
    renames.apply(&mut items);
    vars::resolve(&vars, &mut items)?;
    sort(&config["sortOptions"], &mut items)?;
    Ok(items.into_iter().map(|item| item.object).collect())
}

/// By kinds in the order in which they need each other, unless the kustomization wants another one.
fn sort(options: &Value, items: &mut [Item]) -> Result<()> {
    match options["order"].as_str().unwrap_or("legacy") {
        "fifo" => return Ok(()),
        "legacy" => {}
        other => {
            return Err(CtlError::plain(format!(
                "the field 'sortOptions.order' must be one of [fifo, legacy], got {other:?}"
            )));
        }
    }
    let legacy = &options["legacySortOptions"];
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
        let namespace = text(&item.object["metadata"], "namespace");
        // Those without a namespace come behind those with one.
        let namespace = if namespace.is_empty() { "~X" } else { namespace }.to_owned();
        let version = text(&item.object, "apiVersion").to_owned();
        (place(item.kind()), item.kind().to_owned(), version, namespace, item.name().to_owned())
    });
    Ok(())
}

/// Reads a folder's kustomization.
fn config_of(folder: &Path) -> Result<Value> {
    let names = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
    let Some(file) = names.iter().map(|name| folder.join(name)).find(|path| path.is_file()) else {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        return Err(CtlError::plain(format!(
            "unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory '{}'",
            folder.display()
        )));
    };
    let contents = read(&file)?;
    let contents = String::from_utf8_lossy(&contents);
    let config: Value = serde_norway::from_str(&contents)
        .map_err(|error| CtlError::plain(format!("invalid Kustomization: {error}")))?;
    if config.is_null() {
        return Err(CtlError::plain("kustomization.yaml is empty"));
    }
    let empty = |value: &Value| match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        value => value.is_null(),
    };
    for (field, value) in config.as_object().into_iter().flatten() {
        if KNOWN.contains(&field.as_str()) {
            continue;
        }
        if field == "buildMetadata" && empty(value) {
            continue;
        }
        let refused = REFUSED.iter().find(|(known, _)| known == field).map(|(_, why)| *why);
        match refused.or((field == "buildMetadata").then_some("where objects come from is not noted")) {
            Some(_) if empty(value) => {}
            Some(why) => {
                return Err(CtlError::plain(format!(
                    "{}: the field {field:?} is not supported by trictl: {why}",
                    file.display()
                )));
            }
            None => {
                return Err(CtlError::plain(format!("invalid Kustomization: json: unknown field {field:?}")));
            }
        }
    }
    for (old, new) in DEPRECATED.iter().filter(|(old, _)| !config[*old].is_null()) {
        let mark = if *old == "vars" { "[EXPERIMENTAL] " } else { "" };
        eprintln!(
            "# Warning: '{old}' is deprecated. Please use '{new}' instead. {mark}Run 'kustomize edit fix' to update \
             your Kustomization automatically."
        );
    }
    Ok(config)
}

/// Adds what a kustomization holds, and changes it as it says; a component changes what was there before too.
fn load(folder: &Path, within: &mut Vec<PathBuf>, items: &mut Vec<Item>, all: &mut Vec<Var>) -> Result<Value> {
    let here = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    if within.contains(&here) {
        let here = here.display();
        return Err(CtlError::plain(format!("cycle detected: candidate root '{here}' contains visited root '{here}'")));
    }
    let config = config_of(folder)?;
    within.push(here);
    all.extend(vars::of(&config));
    for resource in strings(&config["resources"]).chain(strings(&config["bases"])) {
        let path = folder.join(resource);
        if path.is_dir() {
            let mut inner = Vec::new();
            load(&path, within, &mut inner, all)?;
            items.extend(inner);
            continue;
        }
        if resource.contains("://")
            || !path.exists() && (resource.contains(".git") || resource.starts_with("github.com/"))
        {
            return Err(CtlError::plain(format!("{resource}: nothing is fetched from elsewhere: download it first")));
        }
        let contents = read(&path)?;
        for document in manifest::parse(&String::from_utf8_lossy(&contents), &path.display().to_string()) {
            items.push(Item::new(document?.object));
        }
    }
    for component in strings(&config["components"]) {
        load(&folder.join(component), within, items, all)?;
    }
    unique(items)?;
    generate::run(folder, &config, items)?;
    patches::run(folder, &config, items)?;
    transform::run(&config, items)?;
    replacements::run(folder, &config, items)?;
    within.pop();
    Ok(config)
}

/// Two objects of the same name cannot be told apart.
fn unique(items: &[Item]) -> Result<()> {
    let id = |item: &Item| {
        let version = text(&item.object, "apiVersion");
        let (group, version) = version.split_once('/').unwrap_or(("[noGrp]", version));
        let namespace = item.object["metadata"]["namespace"].as_str().unwrap_or("[noNs]");
        format!("{}.{version}.{group}/{}.{namespace}", item.kind(), item.name())
    };
    let mut seen = std::collections::BTreeSet::new();
    match items.iter().map(id).find(|id| !seen.insert(id.clone())) {
        Some(twice) => Err(CtlError::plain(format!("may not add resource with an already registered id: {twice}"))),
        None => Ok(()),
    }
}

/// A file's contents.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| CtlError::plain(format!("open {}: {}", path.display(), os_reason(&error))))
}

/// The texts of a list.
pub fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    const BASE: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: runner
      containers:
      - {name: c, image: busybox:1, envFrom: [{configMapRef: {name: conf}}]}
      - {name: d, image: 'r.io:5000/a/b:1'}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: runner}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: rb}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: role}
subjects: [{kind: ServiceAccount, name: runner}, {kind: ServiceAccount, name: default}, {kind: User, name: u}]
";
    const OVERLAY: &str = "
resources: [../base]
namespace: prod
namePrefix: p-
nameSuffix: -s
labels:
- {pairs: {env: prod}, includeSelectors: true}
- {pairs: {tier: t}, includeTemplates: true}
- {pairs: {team: x}}
commonAnnotations: {note: n1}
images: [{name: busybox, newName: my/busybox, newTag: '2'}, {name: 'r.io:5000/a/b', digest: 'sha256:abc'}]
replicas: [{name: web, count: 3}]
configMapGenerator: [{name: conf, behavior: merge, literals: [c=changed]}]
patches:
- path: patch.yaml
- target: {kind: Service, name: w.*}
  patch: '[{\"op\": \"replace\", \"path\": \"/spec/ports/0/port\", \"value\": 8080}]'
";
    const PATCH: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: c, tty: true}, {name: d, $patch: delete}]}}}
";

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in [
            ("base/app.yaml", BASE),
            (
                "base/kustomization.yaml",
                "resources: [app.yaml]\nconfigMapGenerator: [{name: conf, literals: [a=b, c=d], files: [file.txt], options: {labels: {g: h}}}]\ngeneratorOptions: {annotations: {gen: one}}\n",
            ),
            ("base/file.txt", "hello\n"),
            ("over/kustomization.yaml", OVERLAY),
            ("over/patch.yaml", PATCH),
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }
        folder
    }

    #[test]
    fn an_overlay_as_kustomize_makes_it() {
        let folder = folder();
        let objects = build(&folder.path().join("over")).unwrap();
        let names: Vec<&str> = objects.iter().map(|object| text(&object["metadata"], "name")).collect();
        assert_eq!(names[..2], ["p-runner-s", "p-rb-s"]);
        assert!(names[2].starts_with("p-conf-s-") && names[2].len() == 19, "{}", names[2]);
        let (binding, map, service, deployment) = (&objects[1], &objects[2], &objects[3], &objects[4]);
        assert_eq!(
            binding["subjects"],
            json!([{"kind": "ServiceAccount", "name": "p-runner-s", "namespace": "prod"},
                   {"kind": "ServiceAccount", "name": "default", "namespace": "prod"}, {"kind": "User", "name": "u"}])
        );
        assert_eq!(map["data"], json!({"a": "b", "c": "changed", "file.txt": "hello\n"}));
        assert_eq!(service["spec"], json!({"selector": {"app": "web", "env": "prod"}, "ports": [{"port": 8080}]}));
        assert_eq!(deployment["spec"]["replicas"], 3);
        let pod = &deployment["spec"]["template"];
        assert_eq!(
            pod["metadata"],
            json!({"labels": {"app": "web", "env": "prod", "tier": "t"}, "annotations": {"note": "n1"}})
        );
        let containers = pod["spec"]["containers"].as_array().unwrap();
        assert_eq!(
            (containers.len(), &containers[0]["image"], &containers[0]["tty"]),
            (1, &json!("my/busybox:2"), &json!(true))
        );
        assert_eq!(containers[0]["envFrom"][0]["configMapRef"]["name"], names[2]);
        assert_eq!(
            (&pod["spec"]["serviceAccountName"], &deployment["metadata"]["labels"]["team"]),
            (&json!("p-runner-s"), &json!("x"))
        );
    }

    #[test]
    fn values_of_one_object_go_into_others() {
        let folder = folder();
        let config = "
resources: [base]
namePrefix: p-
vars: [{name: SVC, objref: {kind: Service, name: web, apiVersion: v1}}]
patches:
- target: {kind: Deployment}
  patch: '[{\"op\": \"add\", \"path\": \"/spec/template/spec/containers/0/args\", \"value\": [\"$(SVC):80\", \"$(HOME)\"]}]'
replacements:
- source: {kind: Service, name: web, fieldPath: 'spec.ports.0.port'}
  targets:
  - select: {kind: Deployment}
    fieldPaths: ['spec.template.spec.containers.[name=c].image']
    options: {delimiter: ':', index: 1}
sortOptions: {order: fifo}
";
        std::fs::write(folder.path().join("kustomization.yaml"), config).unwrap();
        let objects = build(folder.path()).unwrap();
        assert_eq!(objects[0]["kind"], "Deployment");
        let container = &objects[0]["spec"]["template"]["spec"]["containers"][0];
        assert_eq!((&container["image"], &container["args"]), (&json!("busybox:80"), &json!(["p-web:80", "$(HOME)"])));
    }

    #[test]
    fn hashes_are_kustomizes() {
        let folder = tempfile::tempdir().unwrap();
        let config = "configMapGenerator: [{name: conf, literals: [a=b, c=changed]}]\nsecretGenerator: [{name: sec, literals: [p=pw], type: my/type}]\n";
        std::fs::write(folder.path().join("kustomization.yaml"), config).unwrap();
        let objects = build(folder.path()).unwrap();
        let name = |index: usize| text(&objects[index]["metadata"], "name").to_owned();
        assert_eq!((name(0), name(1)), ("conf-dgc92k4d57".to_owned(), "sec-h9fkk89c7d".to_owned()));
    }

    #[test]
    fn mistakes_are_named() {
        let folder = folder();
        let said = |config: &str| {
            std::fs::write(folder.path().join("kustomization.yaml"), config).unwrap();
            build(folder.path()).unwrap_err().reason_text()
        };
        assert!(said("helmCharts: [{name: x}]\n").contains("helm template"));
        assert!(said("resourses: []\n").ends_with("unknown field \"resourses\""));
        assert!(said("").contains("is empty"));
        assert!(said("resources: [base]\nsortOptions: {order: nope}\n").contains("[fifo, legacy]"));
        assert!(
            said("resources: [base]\nreplacements: [{source: {kind: Nope}, targets: []}]\n")
                .contains("nothing selected by Nope.")
        );
        assert!(said("resources: [base]\nvars: [{name: X, objref: {kind: Service, name: no}}]\n").contains("var 'X'"));
        assert!(said("resources: [nope.yaml]\n").ends_with("no such file or directory"));
        assert!(said("resources: [base/app.yaml, base/app.yaml]\n").contains("already registered id"));
        assert!(
            said("resources: [base]\npatches: [{patch: '{kind: Pod, apiVersion: v1, metadata: {name: x}}'}]\n")
                .contains("no matches for Id")
        );
        assert!(said("resources: [base]\nreplicas: [{name: nope, count: 1}]\n").contains("nope"));
        assert!(said("resources: ['.']\n").contains("cycle detected"));
        assert!(
            build(Path::new("/nowhere")).unwrap_err().text().contains("unable to find one of 'kustomization.yaml'")
        );
    }
}

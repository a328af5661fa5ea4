//! Where things are in objects: kustomize's tables of fields, which `configurations` and `crds` add to.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::super::errors::{CtlError, Result};
use super::{Item, text};

/// A field of the objects of some kinds; what is empty means any.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Field {
    group: String,
    version: String,
    kind: String,
    path: Vec<String>,
    create: bool,
}

impl Field {
    /// A field of a kind; a group stands behind a dot, a `+` before the path means that what is missing is made.
    pub fn of(kind: &str, path: &str) -> Field {
        let (kind, group) = kind.split_once('.').unwrap_or((kind, ""));
        let (path, create) = path.strip_prefix('+').map_or((path, false), |path| (path, true));
        Field { group: group.to_owned(), version: String::new(), kind: kind.to_owned(), path: parts(path), create }
    }

    /// A field as kustomizations write it.
    pub fn read(written: &Value) -> Result<Field> {
        known(written, &["group", "version", "kind", "path", "create"])?;
        Ok(Field {
            group: text(written, "group").to_owned(),
            version: text(written, "version").to_owned(),
            kind: text(written, "kind").to_owned(),
            path: parts(text(written, "path")),
            create: written["create"] == true,
        })
    }

    /// Whether objects like this one have the field.
    pub fn is_of(&self, item: &Item) -> bool {
        let (group, version) = item.group_version();
        let same = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        same(&self.kind, item.kind()) && same(&self.group, group) && same(&self.version, version)
    }

    /// How kustomize names the kinds that have the field.
    pub fn kinds(&self) -> String {
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let (kind, version, group) =
            (or(&self.kind, "[noKind]"), or(&self.version, "[noVer]"), or(&self.group, "[noGrp]"));
        format!("{kind}.{version}.{group}")
    }

    /// Changes every place of an object that the field means.
    pub fn change(&self, item: &mut Item, change: &mut dyn FnMut(&mut Value)) {
        if self.is_of(item) {
            visit(&mut item.object, &self.path, self.create, change);
        }
    }
}

fn visit(value: &mut Value, path: &[String], create: bool, change: &mut dyn FnMut(&mut Value)) {
    if let Value::Array(list) = value {
        return list.iter_mut().for_each(|entry| visit(entry, path, create, change));
    }
    let Some((part, rest)) = path.split_first() else {
        if create || !value.is_null() {
            change(value);
        }
        return;
    };
    let name = part.strip_suffix("[]").unwrap_or(part);
    // Lists are not made: nothing says what would be in them.
    let is_made = create && name.len() == part.len();
    if is_made && value.is_null() {
        *value = json!({});
    }
    let Some(map) = value.as_object_mut() else { return };
    if is_made {
        visit(map.entry(name).or_insert(Value::Null), rest, create, change);
    } else if let Some(inner) = map.get_mut(name) {
        visit(inner, rest, create, change);
    }
}

/// `a/b\/c/d` in its parts.
fn parts(path: &str) -> Vec<String> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let mut letters = path.trim_start_matches('/').chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if letters.peek() == Some(&'/') => part.extend(letters.next()),
            '/' => parts.push(std::mem::take(&mut part)),
            letter => part.push(letter),
        }
    }
    parts.push(part);
    parts
}

/// Refuses fields that kustomize does not know.
pub fn known(written: &Value, names: &[&str]) -> Result<()> {
    if !written.is_object() && !written.is_null() {
        return Err(CtlError::plain("error unmarshaling JSON: while decoding JSON: json: this is no object"));
    }
    let unknown = written.as_object().into_iter().flatten().find(|(name, _)| !names.contains(&name.as_str()));
    match unknown {
        Some((name, _)) => {
            Err(CtlError::plain(format!("error unmarshaling JSON: while decoding JSON: json: unknown field {name:?}")))
        }
        None => Ok(()),
    }
}

/// Fields that hold names of objects of a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    kind: String,
    /// The fields.
    pub fields: Vec<Field>,
}

impl Reference {
    /// Fields that hold names of this kind.
    pub fn new(kind: &str, fields: Vec<Field>) -> Reference {
        Reference { kind: kind.to_owned(), fields }
    }

    /// Whose names they are.
    pub fn kind(&self) -> &str {
        &self.kind
    }
}

/// All tables.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// What gets a prefix.
    pub prefix: Vec<Field>,
    /// What gets a suffix.
    pub suffix: Vec<Field>,
    /// What holds the namespace besides an object's own.
    pub namespace: Vec<Field>,
    /// Where labels go that select too.
    pub labels: Vec<Field>,
    /// Where labels go in templates.
    pub templates: Vec<Field>,
    /// Where annotations go.
    pub annotations: Vec<Field>,
    /// Images besides those of containers.
    pub images: Vec<Field>,
    /// Numbers of replicas.
    pub replicas: Vec<Field>,
    /// Where variables are looked for.
    pub variables: Vec<Field>,
    /// What holds names.
    pub names: Vec<Reference>,
}

/// A table with the name that it has in a file.
type Named<'a> = (&'static str, &'a mut Vec<Field>);

impl Tables {
    fn by_name(&mut self) -> [Named<'_>; 9] {
        [
            ("namePrefix", &mut self.prefix),
            ("nameSuffix", &mut self.suffix),
            ("namespace", &mut self.namespace),
            ("commonLabels", &mut self.labels),
            ("templateLabels", &mut self.templates),
            ("commonAnnotations", &mut self.annotations),
            ("images", &mut self.images),
            ("replicas", &mut self.replicas),
            ("varReference", &mut self.variables),
        ]
    }

    /// Adds what a file of `configurations` says.
    pub fn read(&mut self, written: &Value) -> Result<()> {
        let mut names: Vec<&str> = Tables::default().by_name().iter().map(|(name, _)| *name).collect();
        names.extend(["nameReference", "labels"]);
        known(written, &names)?;
        let fields = |list: &Value| list.as_array().into_iter().flatten().map(Field::read).collect::<Result<Vec<_>>>();
        for (name, table) in self.by_name() {
            table.extend(fields(&written[name])?);
        }
        for reference in written["nameReference"].as_array().into_iter().flatten() {
            known(reference, &["group", "version", "kind", "fieldSpecs"])?;
            self.names.push(Reference::new(text(reference, "kind"), fields(&reference["fieldSpecs"])?));
        }
        Ok(())
    }

    /// Adds other tables to these.
    pub fn merge(&mut self, mut other: Tables) {
        for ((_, own), (_, more)) in self.by_name().into_iter().zip(other.by_name()) {
            let new: Vec<Field> = more.drain(..).filter(|field| !own.contains(field)).collect();
            own.extend(new);
        }
        let names = std::mem::take(&mut other.names);
        self.names.extend(names);
    }

    /// What kustomize knows by itself.
    pub fn builtin() -> &'static Tables {
        static TABLES: LazyLock<Tables> = LazyLock::new(builtin);
        &TABLES
    }
}

/// Kinds with pods, and where.
const PODS: [(&str, &str); 9] = [
    ("Pod", "spec"),
    ("PodTemplate", "template/spec"),
    ("Deployment", "spec/template/spec"),
    ("ReplicaSet", "spec/template/spec"),
    ("ReplicationController", "spec/template/spec"),
    ("DaemonSet", "spec/template/spec"),
    ("StatefulSet", "spec/template/spec"),
    ("Job", "spec/template/spec"),
    ("CronJob", "spec/jobTemplate/spec/template/spec"),
];

/// Where templates of pods have their metadata.
const TEMPLATES: [(&str, &str); 8] = [
    ("ReplicationController", "spec/template/metadata"),
    ("Deployment", "spec/template/metadata"),
    ("ReplicaSet", "spec/template/metadata"),
    ("DaemonSet", "spec/template/metadata"),
    ("StatefulSet.apps", "spec/template/metadata"),
    ("Job.batch", "spec/template/metadata"),
    ("CronJob.batch", "spec/jobTemplate/metadata"),
    ("CronJob.batch", "spec/jobTemplate/spec/template/metadata"),
];

/// Selectors of pods; those of workloads with affinity come from elsewhere.
const SELECTORS: [(&str, &str); 12] = [
    ("Service", "+spec/selector"),
    ("ReplicationController", "+spec/selector"),
    ("Deployment", "+spec/selector/matchLabels"),
    ("ReplicaSet", "+spec/selector/matchLabels"),
    ("DaemonSet", "+spec/selector/matchLabels"),
    ("StatefulSet.apps", "+spec/selector/matchLabels"),
    ("Job.batch", "spec/selector/matchLabels"),
    ("CronJob.batch", "spec/jobTemplate/spec/selector/matchLabels"),
    ("PodDisruptionBudget.policy", "spec/selector/matchLabels"),
    ("NetworkPolicy.networking.k8s.io", "spec/podSelector/matchLabels"),
    ("NetworkPolicy.networking.k8s.io", "spec/ingress/from/podSelector/matchLabels"),
    ("NetworkPolicy.networking.k8s.io", "spec/egress/to/podSelector/matchLabels"),
];

/// Selectors inside a pod.
const AFFINITY: [&str; 5] = [
    "affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
    "affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
    "affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
    "affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
    "topologySpreadConstraints/labelSelector/matchLabels",
];

/// What pods refer to, by name.
const OF_PODS: [(&str, &str); 17] = [
    ("ConfigMap", "volumes/configMap/name"),
    ("ConfigMap", "containers/env/valueFrom/configMapKeyRef/name"),
    ("ConfigMap", "initContainers/env/valueFrom/configMapKeyRef/name"),
    ("ConfigMap", "containers/envFrom/configMapRef/name"),
    ("ConfigMap", "initContainers/envFrom/configMapRef/name"),
    ("ConfigMap", "volumes/projected/sources/configMap/name"),
    ("Secret", "volumes/secret/secretName"),
    ("Secret", "containers/env/valueFrom/secretKeyRef/name"),
    ("Secret", "initContainers/env/valueFrom/secretKeyRef/name"),
    ("Secret", "containers/envFrom/secretRef/name"),
    ("Secret", "initContainers/envFrom/secretRef/name"),
    ("Secret", "imagePullSecrets/name"),
    ("Secret", "volumes/projected/sources/secret/name"),
    ("ServiceAccount", "serviceAccountName"),
    ("PersistentVolumeClaim", "volumes/persistentVolumeClaim/claimName"),
    ("PriorityClass", "priorityClassName"),
    ("ConfigMap", "ephemeralContainers/envFrom/configMapRef/name"),
];

/// What others refer to: whose name, who has it, where.
const OTHERS: [(&str, &str, &str); 40] = [
    ("Deployment", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("ReplicationController", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("ReplicaSet", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("StatefulSet", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("ConfigMap", "Node", "spec/configSource/configMap"),
    ("ConfigMap", "Role", "rules/resourceNames"),
    ("ConfigMap", "ClusterRole", "rules/resourceNames"),
    ("ConfigMap", "Ingress", r"metadata/annotations/nginx.ingress.kubernetes.io\/fastcgi-params-configmap"),
    ("Secret", "Ingress", "spec/tls/secretName"),
    ("Secret", "Ingress", r"metadata/annotations/ingress.kubernetes.io\/auth-secret"),
    ("Secret", "Ingress", r"metadata/annotations/nginx.ingress.kubernetes.io\/auth-secret"),
    ("Secret", "Ingress", r"metadata/annotations/nginx.ingress.kubernetes.io\/auth-tls-secret"),
    ("Secret", "ServiceAccount", "imagePullSecrets/name"),
    ("Secret", "StorageClass", "parameters/secretName"),
    ("Secret", "StorageClass", "parameters/adminSecretName"),
    ("Secret", "StorageClass", "parameters/userSecretName"),
    ("Secret", "StorageClass", "parameters/secretRef"),
    ("Secret", "Role", "rules/resourceNames"),
    ("Secret", "ClusterRole", "rules/resourceNames"),
    ("Secret", "Service.serving.knative.dev", "spec/template/spec/containers/env/valueFrom/secretKeyRef/name"),
    ("Secret", "PersistentVolume", "spec/azureFile/secretName"),
    ("Service", "StatefulSet.apps", "spec/serviceName"),
    ("Service", "Ingress", "spec/rules/http/paths/backend/serviceName"),
    ("Service", "Ingress", "spec/backend/serviceName"),
    ("Service", "Ingress", "spec/rules/http/paths/backend/service/name"),
    ("Service", "Ingress", "spec/defaultBackend/service/name"),
    ("Service", "APIService.apiregistration.k8s.io", "spec/service/name"),
    ("Service", "HTTPRoute", "spec/rules/backendRefs/name"),
    ("Service", "ValidatingWebhookConfiguration.admissionregistration.k8s.io", "webhooks/clientConfig/service"),
    ("Service", "MutatingWebhookConfiguration.admissionregistration.k8s.io", "webhooks/clientConfig/service"),
    ("ServiceAccount", "RoleBinding.rbac.authorization.k8s.io", "subjects"),
    ("ServiceAccount", "ClusterRoleBinding.rbac.authorization.k8s.io", "subjects"),
    ("Role", "RoleBinding.rbac.authorization.k8s.io", "roleRef/name"),
    ("ClusterRole", "RoleBinding.rbac.authorization.k8s.io", "roleRef/name"),
    ("ClusterRole", "ClusterRoleBinding.rbac.authorization.k8s.io", "roleRef/name"),
    ("PersistentVolume", "PersistentVolumeClaim", "spec/volumeName"),
    ("PersistentVolume", "ClusterRole", "rules/resourceNames"),
    ("StorageClass", "PersistentVolume", "spec/storageClassName"),
    ("StorageClass", "PersistentVolumeClaim", "spec/storageClassName"),
    ("StorageClass", "StatefulSet", "spec/volumeClaimTemplates/spec/storageClassName"),
];

/// Where variables are looked for inside a pod.
const VARIABLES: [&str; 9] = [
    "containers/args",
    "containers/command",
    "containers/env/value",
    "containers/volumeMounts/mountPath",
    "initContainers/args",
    "initContainers/command",
    "initContainers/env/value",
    "initContainers/volumeMounts/mountPath",
    "volumes/nfs/server",
];

fn builtin() -> Tables {
    let of = |(kind, path): &(&str, &str)| Field::of(kind, path);
    let behind = |list: &[(&str, &str)], tail: &str| -> Vec<Field> {
        list.iter().map(|(kind, path)| Field::of(kind, &format!("+{path}/{tail}"))).collect()
    };
    let mut templates = behind(&TEMPLATES, "labels");
    templates.push(Field::of("StatefulSet.apps", "+spec/volumeClaimTemplates[]/metadata/labels"));
    let mut labels: Vec<Field> = SELECTORS.iter().map(of).collect();
    for kind in ["Deployment.apps", "StatefulSet.apps"] {
        labels.extend(AFFINITY.iter().map(|path| Field::of(kind, &format!("spec/template/spec/{path}"))));
    }
    labels.push(Field::of("", "+metadata/labels"));
    labels.extend(templates.clone());
    let mut annotations = vec![Field::of("", "+metadata/annotations")];
    annotations.extend(behind(&TEMPLATES, "annotations"));
    let mut variables: Vec<Field> = Vec::new();
    for (kind, pod) in PODS.iter().filter(|(kind, _)| !matches!(*kind, "PodTemplate" | "ReplicationController")) {
        variables.extend(VARIABLES.iter().map(|path| Field::of(kind, &format!("{pod}/{path}"))));
    }
    let others = [
        ("Ingress", "spec/rules/host"),
        ("Ingress", "spec/tls/hosts"),
        ("Ingress", "spec/tls/secretName"),
        ("Service", "spec/ports/port"),
        ("Service", "spec/ports/targetPort"),
        ("StatefulSet", "spec/volumeClaimTemplates/spec/nfs/server"),
        ("PersistentVolume", "spec/nfs/server"),
        ("", "metadata/labels"),
        ("", "metadata/annotations"),
    ];
    variables.extend(others.iter().map(of));
    let mut names = Vec::new();
    for (whose, path) in OF_PODS {
        names.push(Reference::new(
            whose,
            PODS.iter().map(|(kind, pod)| Field::of(kind, &format!("{pod}/{path}"))).collect(),
        ));
    }
    names.extend(OTHERS.iter().map(|(whose, kind, path)| Reference::new(whose, vec![Field::of(kind, path)])));
    let scaled = ["Deployment", "ReplicationController", "ReplicaSet", "StatefulSet"];
    Tables {
        prefix: vec![Field::of("", "metadata/name")],
        suffix: vec![Field::of("", "metadata/name")],
        namespace: vec![
            Field::of("Namespace", "+metadata/name"),
            Field::of("APIService.apiregistration.k8s.io", "+spec/service/namespace"),
            Field::of(
                "CustomResourceDefinition.apiextensions.k8s.io",
                "spec/conversion/webhook/clientConfig/service/namespace",
            ),
        ],
        labels,
        templates,
        annotations,
        images: ["spec", "spec/template/spec", "spec/jobTemplate/spec/template/spec"]
            .iter()
            .flat_map(|pod| ["containers", "initContainers"].map(|list| Field::of("", &format!("{pod}/{list}/image"))))
            .collect(),
        replicas: scaled.iter().map(|kind| Field::of(kind, "+spec/replicas")).collect(),
        variables,
        names,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn fields_are_found_in_lists_and_made_in_maps() {
        let change = |object: Value, field: &Field| {
            let mut item = Item::new(object);
            field.change(&mut item, &mut |slot| *slot = json!("new"));
            item.object
        };
        let object = json!({"kind": "K", "apiVersion": "g/v1", "a": [{"b": "x"}, {}]});
        let changed = change(object.clone(), &Field::of("K.g", "a/b"));
        assert_eq!(changed["a"], json!([{"b": "new"}, {}]));
        assert_eq!(change(object.clone(), &Field::of("", "+a/b"))["a"], json!([{"b": "new"}, {"b": "new"}]));
        assert_eq!(change(object.clone(), &Field::of("K.other", "a/b")), object);
        assert_eq!(change(object.clone(), &Field::of("", "+c/d"))["c"], json!({"d": "new"}));
        assert_eq!(change(object.clone(), &Field::of("", "+c[]/d")), object);
        assert_eq!(parts(r"a/b\/c"), ["a", "b/c"]);
    }

    #[test]
    fn a_file_adds_to_the_tables() {
        let mut tables = Tables::default();
        let file = json!({"images": [{"path": "spec/image", "kind": "Bee"}],
            "nameReference": [{"kind": "Secret", "fieldSpecs": [{"path": "spec/secret"}]}]});
        tables.read(&file).unwrap();
        assert_eq!((tables.images.len(), tables.names[0].kind()), (1, "Secret"));
        let error = tables.read(&json!({"nope": []})).unwrap_err();
        assert!(error.reason_text().ends_with("unknown field \"nope\""));
    }
}

//! Kustomizations and what kustomize makes of them.

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
    for (config, said) in [
        ("resources: [base]\nhelmCharts: [{name: x}]\n", "helm template"),
        ("resourses: [base]\n", "unknown field \"resourses\""),
        ("", "is empty"),
        ("kind: Kustomization\n", "is empty"),
        ("kind: Nope\nresources: [base]\n", "kind should be Kustomization or Component"),
        ("apiVersion: a/v1\nresources: [base]\n", "should be kustomize.config.k8s.io/v1beta1"),
        ("resources: [base]\nsortOptions: {order: nope}\n", "[fifo, legacy]"),
        ("resources: [base]\nsortOptions: {order: fifo, legacySortOptions: {}}\n", "is set but the selected"),
        ("resources: [base]\nreplacements: [{source: {kind: Nope}, targets: []}]\n", "nothing selected by Nope."),
        ("resources: [base]\nvars: [{name: X, objref: {kind: Service, name: no}}]\n", "var 'X'"),
        ("resources: [nope.yaml]\n", "no such file or directory"),
        ("resources: [base/app.yaml, base/app.yaml]\n", "already registered id"),
        (
            "resources: [base]\npatches: [{patch: '{kind: Pod, apiVersion: v1, metadata: {name: x}}'}]\n",
            "no matches for Id",
        ),
        ("resources: [base]\nreplicas: [{name: nope, count: 1}]\n", "nope"),
        ("resources: ['.']\n", "cycle detected"),
        ("resources: [base]\ncomponents: [base]\n", "expected kind 'Component'"),
        ("configMapGenerator: [{literals: [a=b]}]\n", "a configmap must have a name"),
        ("secretGenerator: [{name: s, literals: [a=b, a=c]}]\n", "secret s illegally repeats the key `a`"),
        ("resources: [base]\nopenapi: {version: v1.20.4}\n", "not built in"),
        ("resources: [base]\ntransformers: ['{apiVersion: builtin, kind: X}']\n", "unable to load builtin X.builtin"),
        ("resources: [base]\ntransformers: ['{apiVersion: a/v1, kind: X}']\n", "external plugins disabled"),
        ("resources: [base]\nconfigurations: [base/file.txt]\n", "while decoding JSON"),
    ] {
        std::fs::write(folder.path().join("kustomization.yaml"), config).unwrap();
        let error = build(folder.path()).unwrap_err().reason_text();
        assert!(error.contains(said), "{config}: {error}");
    }
    assert!(build(Path::new("/nowhere")).unwrap_err().text().contains("not a valid directory"));
}

#[test]
fn files_outside_are_refused() {
    let folder = folder();
    let config = "resources: [../base/app.yaml]\n";
    std::fs::write(folder.path().join("over/kustomization.yaml"), config).unwrap();
    let error = built(&folder.path().join("over"), false).unwrap_err().reason_text();
    assert!(error.starts_with("security; file '") && error.contains("is not in or below"), "{error}");
    assert!(built(&folder.path().join("over"), true).is_ok());
}

#[test]
fn tables_transformers_and_marks_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let bee = "{apiVersion: example.com/v1, kind: Bee, metadata: {name: bee}, spec: {image: 'hive:1', map: {name: m}, n: 1}}\n";
    let config = "
resources: [bee.yaml]
configMapGenerator: [{name: m, literals: [a=b]}]
namePrefix: p-
images: [{name: hive, newTag: '2'}]
configurations: [tables.yaml]
transformers:
- |-
  {apiVersion: builtin, kind: ValueAddTransformer, metadata: {name: v}, value: 7, targets: [{selector: {kind: Bee}, fieldPath: spec/n}]}
validators: ['{apiVersion: builtin, kind: LabelTransformer, metadata: {name: l}, labels: {}}']
buildMetadata: [originAnnotations, managedByLabel]
";
    let tables = "nameReference: [{kind: ConfigMap, fieldSpecs: [{kind: Bee, path: spec/map/name}]}]\nimages: [{kind: Bee, path: spec/image}]\n";
    for (name, text) in [("bee.yaml", bee), ("kustomization.yaml", config), ("tables.yaml", tables)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let objects = build(folder.path()).unwrap();
    let (map, bee) = (&objects[0], &objects[1]);
    assert_eq!(bee["spec"], json!({"image": "hive:2", "map": {"name": map["metadata"]["name"]}, "n": 7}));
    assert_eq!(bee["metadata"]["annotations"]["config.kubernetes.io/origin"], "path: bee.yaml\n");
    let made = "configuredIn: kustomization.yaml\nconfiguredBy:\n  apiVersion: builtin\n  kind: ConfigMapGenerator\n";
    assert_eq!(map["metadata"]["annotations"]["config.kubernetes.io/origin"], made);
    assert_eq!(map["metadata"]["labels"]["app.kubernetes.io/managed-by"], "kustomize-(devel)");
    let changing = config.replace("labels: {}", "labels: {a: b}, fieldSpecs: [{path: metadata/labels, create: true}]");
    std::fs::write(folder.path().join("kustomization.yaml"), changing).unwrap();
    assert!(build(folder.path()).unwrap_err().reason_text().starts_with("validator shouldn't modify"));
}

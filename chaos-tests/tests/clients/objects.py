"""Objects: made from YAML and models, read, listed, changed, deleted."""

import datetime
import json
import pathlib
import tempfile
from decimal import Decimal

from kubernetes import client, dynamic, utils
from kubernetes.dynamic.exceptions import BadRequestError
from kubernetes.utils.quantity import parse_quantity

from suite import case, config_map, eventually, pod, refused

MANIFEST = """
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: listed}
  data: {a: "1"}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: runner}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: "busybox:1.35", command: [sleep, "1000"], resources: {requests: {cpu: 100m, memory: 64Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


@case
def python_creates_from_yaml(namespace):
    api = client.ApiClient()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "all.yaml")
        path.write_text(MANIFEST)
        made = utils.create_from_yaml(api, str(path), namespace=namespace)
        kinds = [item.kind for group in made for item in group]
        assert kinds == ["ConfigMap", "ServiceAccount", "Deployment", "Service"], kinds
        try:
            utils.create_from_yaml(api, str(path), namespace=namespace)
            raise AssertionError("made twice")
        except utils.FailToCreateError as error:
            reasons = [json.loads(e.body)["reason"] for e in error.api_exceptions]
            assert reasons == ["AlreadyExists"] * 4, reasons
    service = client.CoreV1Api().read_namespaced_service("web", namespace)
    assert service.spec.cluster_ip.startswith("10.") and service.spec.ports[0].target_port == 8080, service
    container = client.AppsV1Api().read_namespaced_deployment("web", namespace).spec.template.spec.containers[0]
    assert parse_quantity(container.resources.requests["cpu"]) == Decimal("0.1")
    assert parse_quantity(container.resources.requests["memory"]) == 64 * 1024 * 1024


@case
def python_life_of_an_object(namespace):
    core = client.CoreV1Api()
    made = core.create_namespaced_config_map(namespace, config_map("life", a="1"))
    meta = made.metadata
    assert meta.uid and meta.resource_version and meta.namespace == namespace, meta
    age = datetime.datetime.now(datetime.timezone.utc) - meta.creation_timestamp
    assert abs(age.total_seconds()) < 60, age
    assert core.read_namespaced_config_map("life", namespace) == made
    made.data["a"] = "2"
    changed = core.replace_namespaced_config_map("life", namespace, made)
    assert changed.data == {"a": "2"} and changed.metadata.resource_version != meta.resource_version
    # The object as it was before the change is refused.
    body = refused(409, "Conflict", core.replace_namespaced_config_map, "life", namespace, made)
    assert body["details"] == {"name": "life", "kind": "configmaps"}, body
    assert "the object has been modified; please apply your changes to the latest version" in body["message"], body
    body = refused(409, "AlreadyExists", core.create_namespaced_config_map, namespace, config_map("life"))
    assert body["message"] == 'configmaps "life" already exists', body
    status = core.delete_namespaced_config_map("life", namespace)
    status = status if isinstance(status, dict) else status.to_dict()
    assert (status["status"], status["details"]["name"], status["details"]["kind"]) == ("Success", "life", "configmaps"), status
    body = refused(404, "NotFound", core.read_namespaced_config_map, "life", namespace)
    assert body["message"] == 'configmaps "life" not found' and body["details"]["name"] == "life", body


@case
def python_generates_names(namespace):
    core = client.CoreV1Api()
    names = set()
    for _ in range(5):
        meta = client.V1ObjectMeta(generate_name="some-")
        names.add(core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=meta)).metadata.name)
    assert len(names) == 5 and all(n.startswith("some-") and len(n) == 10 for n in names), names


@case
def python_patches(namespace):
    apps = client.AppsV1Api()
    made = pod("x", ["sleep", "1"])["spec"]
    made.pop("restartPolicy")
    apps.create_namespaced_deployment(namespace, {
        "metadata": {"name": "patched"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}},
                 "template": {"metadata": {"labels": {"a": "b"}}, "spec": made}}})
    # A dictionary goes as strategic merge: containers are found by their name.
    env = {"spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]}}}}
    patched = apps.patch_namespaced_deployment("patched", namespace, env)
    container = patched.spec.template.spec.containers[0]
    assert container.image == "busybox:1.35" and container.env[0].value == "1", container
    # A list goes as JSON patch.
    operations = [{"op": "add", "path": "/metadata/labels", "value": {"by": "json"}},
                  {"op": "test", "path": "/spec/replicas", "value": 0}]
    patched = apps.patch_namespaced_deployment("patched", namespace, operations)
    assert patched.metadata.labels == {"by": "json"}, patched.metadata
    failing = [{"op": "test", "path": "/spec/replicas", "value": 9}]
    refused(422, "Invalid", apps.patch_namespaced_deployment, "patched", namespace, failing)
    # Merge patch replaces lists, and null removes.
    merge = {"metadata": {"labels": None, "annotations": {"merged": "yes"}}}
    patched = apps.patch_namespaced_deployment("patched", namespace, merge, _content_type="application/merge-patch+json")
    assert not patched.metadata.labels and patched.metadata.annotations["merged"] == "yes", patched.metadata
    scale = apps.read_namespaced_deployment_scale("patched", namespace)
    assert (scale.spec.replicas, scale.status.replicas) == (0, 0), scale
    scaled = apps.patch_namespaced_deployment_scale("patched", namespace, {"spec": {"replicas": 0}})
    assert scaled.spec.replicas == 0
    body = refused(404, "NotFound", apps.patch_namespaced_deployment, "none", namespace, merge)
    assert body["message"] == 'deployments.apps "none" not found' and body["details"]["group"] == "apps", body


@case
def python_lists_by_selector_and_page(namespace):
    core = client.CoreV1Api()
    for i in range(7):
        # Secrets: of config maps every namespace has one of its own.
        meta = client.V1ObjectMeta(name="page-%d" % i, labels={"half": str(i % 2), "n": str(i)})
        core.create_namespaced_secret(namespace, client.V1Secret(metadata=meta))

    def names(listed):
        return [item.metadata.name for item in listed.items]

    def select(**kwargs):
        return names(core.list_namespaced_secret(namespace, **kwargs))

    assert select(label_selector="half=0") == ["page-0", "page-2", "page-4", "page-6"]
    assert select(label_selector="half!=0,n notin (1,3)") == ["page-5"]
    assert select(label_selector="!half") == []
    assert select(field_selector="metadata.name=page-3") == ["page-3"]
    body = refused(400, "BadRequest", core.list_namespaced_secret, namespace, label_selector="a in")
    assert "unable to parse requirement" in body["message"], body
    refused(400, "BadRequest", core.list_namespaced_secret, namespace, field_selector="spec.nope=1")
    page = core.list_namespaced_secret(namespace, limit=3)
    version, seen = page.metadata.resource_version, names(page)
    assert page.metadata.remaining_item_count == 4, page.metadata
    core.delete_namespaced_secret("page-6", namespace)
    while page.metadata._continue:
        page = core.list_namespaced_secret(namespace, limit=3, _continue=page.metadata._continue)
        assert page.metadata.resource_version == version
        seen += names(page)
    assert seen == ["page-%d" % i for i in range(7)], seen
    refused(400, "BadRequest", core.list_namespaced_secret, namespace, limit=3, _continue="nonsense")
    everywhere = core.list_secret_for_all_namespaces(field_selector="metadata.namespace=" + namespace)
    assert len(everywhere.items) == 6


@case
def python_deletes_with_propagation(namespace):
    core, apps = client.CoreV1Api(), client.AppsV1Api()
    spec = pod("x", ["sleep", "1"])["spec"]
    spec.pop("restartPolicy")

    def made(name):
        body = {"metadata": {"name": name}, "spec": {
            "replicas": 1, "selector": {"matchLabels": {"set": name}},
            "template": {"metadata": {"labels": {"set": name}}, "spec": spec}}}
        apps.create_namespaced_replica_set(namespace, body)
        eventually(lambda: core.list_namespaced_pod(namespace, label_selector="set=" + name).items, what="pod of " + name)

    def pods(name):
        listed = core.list_namespaced_pod(namespace, label_selector="set=" + name).items
        return [p for p in listed if not p.metadata.deletion_timestamp]

    for name in ("orphaned", "foreground", "background"):
        made(name)
    apps.delete_namespaced_replica_set("orphaned", namespace, propagation_policy="Orphan")
    apps.delete_namespaced_replica_set("foreground", namespace, body=client.V1DeleteOptions(propagation_policy="Foreground"))
    apps.delete_namespaced_replica_set("background", namespace, propagation_policy="Background")
    eventually(lambda: not pods("background") and not pods("foreground"), what="dependents go")
    eventually(lambda: not apps.list_namespaced_replica_set(namespace).items, what="the sets go")
    left = pods("orphaned")
    assert len(left) == 1 and not left[0].metadata.owner_references, left
    wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another"))
    body = refused(409, "Conflict", core.delete_namespaced_pod, left[0].metadata.name, namespace, body=wrong)
    assert "the UID in the precondition (another) does not match the UID in record" in body["message"], body


@case
def python_deletes_collections(namespace):
    core = client.CoreV1Api()
    for i in range(4):
        core.create_namespaced_config_map(namespace, config_map("c-%d" % i, {"odd": str(i % 2)}))
    core.delete_collection_namespaced_config_map(namespace, label_selector="odd=1", dry_run="All")
    assert len(core.list_namespaced_config_map(namespace, label_selector="odd").items) == 4
    core.delete_collection_namespaced_config_map(namespace, label_selector="odd=1")
    assert [m.metadata.name for m in core.list_namespaced_config_map(namespace, label_selector="odd").items] == ["c-0", "c-2"]


@case
def python_sees_errors_as_they_are(namespace):
    core = client.CoreV1Api()
    body = refused(422, "Invalid", core.create_namespaced_config_map, namespace, config_map("Not_A_Name"))
    cause = body["details"]["causes"][0]
    assert cause["field"] == "metadata.name" and cause["reason"] == "FieldValueInvalid", body
    assert "a lowercase RFC 1123 subdomain must consist of" in cause["message"], cause
    other = config_map("elsewhere")
    other.metadata.namespace = "default"
    refused(400, "BadRequest", core.create_namespaced_config_map, namespace, other)
    versioned = config_map("versioned")
    versioned.metadata.resource_version = "5"
    body = refused(400, "BadRequest", core.create_namespaced_config_map, namespace, versioned)
    assert body["message"] == "resourceVersion should not be set on objects to be created", body
    refused(404, "NotFound", core.create_namespaced_config_map, "no-such-namespace", config_map("a"))
    made = core.create_namespaced_config_map(namespace, config_map("named"))
    refused(400, "BadRequest", core.replace_namespaced_config_map, "other", namespace, made)
    refused(422, "Invalid", core.create_namespaced_config_map, namespace, config_map("dry"), dry_run="Some")
    core.create_namespaced_config_map(namespace, config_map("dry"), dry_run="All")
    refused(404, "NotFound", core.read_namespaced_config_map, "dry", namespace)
    strict = pod("strict", ["true"])
    strict["spec"]["containerz"] = []
    path = "/api/v1/namespaces/%s/pods" % namespace
    try:
        dynamic.DynamicClient(client.ApiClient()).request(
            "post", path, body=strict, query_params=[("fieldValidation", "Strict")])
        raise AssertionError("an unknown field is taken")
    except BadRequestError as error:
        assert 'unknown field "spec.containerz"' in json.loads(error.body)["message"], error


@case
def python_holds_by_finalizers(namespace):
    core = client.CoreV1Api()
    held = config_map("held")
    held.metadata.finalizers = ["example.com/hold"]
    core.create_namespaced_config_map(namespace, held)
    core.delete_namespaced_config_map("held", namespace)
    deleting = core.read_namespaced_config_map("held", namespace)
    assert deleting.metadata.deletion_timestamp and deleting.metadata.finalizers == ["example.com/hold"], deleting
    deleting.metadata.finalizers = None
    core.replace_namespaced_config_map("held", namespace, deleting)
    refused(404, "NotFound", core.read_namespaced_config_map, "held", namespace)

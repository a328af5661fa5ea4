"""What the server tells about itself, and clients that learn from it."""

from kubernetes import client, config, dynamic
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, ResourceNotFoundError

from suite import case, refused


@case
def python_reads_version_and_groups(_namespace):
    code = client.VersionApi().get_code()
    assert (code.major, code.minor) == ("1", "36") and code.git_version.startswith("v1.36"), code
    groups = {g.name: g.preferred_version.version for g in client.ApisApi().get_api_versions().groups}
    assert groups["apps"] == "v1" and groups["coordination.k8s.io"] == "v1", groups
    assert client.CoreApi().get_api_versions().versions == ["v1"]
    resources = {r.name: r for r in client.CoreV1Api().get_api_resources().resources}
    pods = resources["pods"]
    assert pods.kind == "Pod" and pods.namespaced and "po" in pods.short_names and "watch" in pods.verbs, pods
    assert "pods/exec" in resources and not resources["nodes"].namespaced
    assert client.AppsV1Api().get_api_resources().group_version == "apps/v1"
    refused(404, "NotFound", client.CustomObjectsApi().get_api_resources, "none.example.com", "v1")


@case
def python_finds_contexts_in_the_kubeconfig(_namespace):
    contexts, active = config.list_kube_config_contexts()
    assert active in contexts and active["context"]["cluster"], active
    api = config.new_client_from_config(context=active["name"])
    assert client.CoreV1Api(api).list_node(limit=1).items


@case
def python_reads_openapi(_namespace):
    api = dynamic.DynamicClient(client.ApiClient())

    def read(path):
        return api.request("get", path, serializer=lambda _client, document: document)

    definition = read("/openapi/v2")["definitions"]["io.k8s.api.core.v1.Pod"]
    assert {"group": "", "kind": "Pod", "version": "v1"} in definition["x-kubernetes-group-version-kind"]
    paths = read("/openapi/v3")["paths"]
    assert "apis/apps/v1" in paths and "hash=" in paths["api/v1"]["serverRelativeURL"], paths
    assert "Deployment" in str(read(paths["apis/apps/v1"]["serverRelativeURL"])["components"]["schemas"].keys())


@case
def python_custom_objects_that_are_not_there(namespace):
    custom = client.CustomObjectsApi()
    arguments = ("example.com", "v1", namespace, "widgets")
    body = refused(404, "NotFound", custom.list_namespaced_custom_object, *arguments)
    assert body["message"] == "the server could not find the requested resource", body
    refused(404, "NotFound", custom.get_namespaced_custom_object, *arguments, "one")
    # The same calls on a kind that is there.
    leases = ("coordination.k8s.io", "v1", namespace, "leases")
    made = custom.create_namespaced_custom_object(*leases, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}})
    assert made["spec"]["holderIdentity"] == "me"
    patched = custom.patch_namespaced_custom_object(*leases, "l", {"spec": {"holderIdentity": "you"}})
    assert patched["spec"]["holderIdentity"] == "you", patched
    custom.delete_namespaced_custom_object(*leases, "l")
    assert custom.list_namespaced_custom_object(*leases)["items"] == []


@case
def python_dynamic_client(namespace):
    api = dynamic.DynamicClient(client.ApiClient())
    assert api.version["kubernetes"]["gitVersion"].startswith("v1.36")
    maps = api.resources.get(api_version="v1", kind="ConfigMap")
    body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "dyn", "labels": {"a": "b"}}, "data": {"k": "1"}}
    made = maps.create(body=body, namespace=namespace)
    assert made.metadata.name == "dyn" and made.data.k == "1"
    assert maps.get(name="dyn", namespace=namespace).data.k == "1"
    assert len(maps.get(namespace=namespace, label_selector="a=b").items) == 1
    maps.patch(body={"metadata": {"name": "dyn"}, "data": {"k": "2"}}, namespace=namespace)
    maps.patch(body={"metadata": {"name": "dyn"}, "data": {"m": "3"}}, namespace=namespace,
               content_type="application/merge-patch+json")
    read = maps.get(name="dyn", namespace=namespace)
    assert (read.data.k, read.data.m) == ("2", "3"), read
    body["metadata"]["resourceVersion"] = made.metadata.resourceVersion
    try:
        maps.replace(body=body, namespace=namespace)
        raise AssertionError("an old version is taken")
    except ConflictError as error:
        assert error.status == 409 and "the object has been modified" in error.summary(), error.summary()
    maps.delete(name="dyn", namespace=namespace)
    try:
        maps.get(name="dyn", namespace=namespace)
        raise AssertionError("it is still there")
    except NotFoundError as error:
        assert error.status == 404
    try:
        api.resources.get(api_version="example.com/v1", kind="Widget")
        raise AssertionError("an unknown kind is found")
    except ResourceNotFoundError:
        pass
    deployments = api.resources.get(api_version="apps/v1", kind="Deployment")
    assert deployments.namespaced and "scale" in deployments.subresources, deployments.subresources
    assert api.resources.get(api_version="v1", kind="Node").get().items[0].metadata.name

"""Watches, informers, and a leader elected through a Lease."""

import threading
import time

from kubernetes import client, watch

from suite import case, config_map, eventually


@case
def python_watches_and_resumes(namespace):
    core = client.CoreV1Api()
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    made = core.create_namespaced_config_map(namespace, config_map("w", a="1"))
    core.patch_namespaced_config_map("w", namespace, {"data": {"a": "2"}})
    core.delete_namespaced_config_map("w", namespace)

    def events(version, **more):
        stream = watch.Watch()
        found = []
        for event in stream.stream(core.list_namespaced_config_map, namespace, resource_version=version,
                                   field_selector="metadata.name=w", timeout_seconds=5, **more):
            found.append((event["type"], (event["object"].data or {}).get("a")))
            if event["type"] == "DELETED":
                stream.stop()
        return found

    assert events(start) == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")], events(start)
    # From the version of one event on, what came after it.
    assert events(made.metadata.resource_version) == [("MODIFIED", "2"), ("DELETED", "2")]


@case
def python_watch_ends_when_its_time_is_over(namespace):
    core = client.CoreV1Api()
    begun = time.monotonic()
    for event in watch.Watch().stream(core.list_namespaced_secret, namespace, timeout_seconds=1):
        raise AssertionError("nothing is here, but: %s" % event)
    assert 0.5 < time.monotonic() - begun < 5


@case
def python_watch_of_an_old_version_is_expired(namespace):
    core = client.CoreV1Api()
    try:
        for event in watch.Watch().stream(core.list_namespaced_config_map, namespace, resource_version="abc",
                                          timeout_seconds=1):
            raise AssertionError(event)
        raise AssertionError("a version that is none is taken")
    except client.exceptions.ApiException as error:
        assert error.status == 400, error


@case
def python_streams_initial_events(namespace):
    core = client.CoreV1Api()
    for name in ("a", "b"):
        core.create_namespaced_config_map(namespace, config_map(name, {"s": "1"}))
    stream, seen = watch.Watch(), []
    for event in stream.stream(core.list_namespaced_config_map, namespace, send_initial_events=True, label_selector="s",
                               resource_version_match="NotOlderThan", allow_watch_bookmarks=True, timeout_seconds=5):
        raw = event["raw_object"]
        seen.append((event["type"], raw["metadata"].get("name")))
        if event["type"] == "BOOKMARK":
            assert raw["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true", raw
            assert raw["metadata"]["resourceVersion"] == stream.resource_version
            stream.stop()
    assert seen == [("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", None)], seen


@case
def python_informer(namespace):
    from kubernetes.informer import ADDED, DELETED, MODIFIED, SharedInformer
    core = client.CoreV1Api()
    core.create_namespaced_config_map(namespace, config_map("before", {"i": "1"}))
    informer = SharedInformer(core.list_namespaced_config_map, namespace=namespace, label_selector="i")
    seen = []
    for kind in (ADDED, MODIFIED, DELETED):
        informer.add_event_handler(kind, lambda obj, kind=kind: seen.append((kind, obj.metadata.name)))
    informer.start()
    try:
        eventually(lambda: seen == [("ADDED", "before")], what="the initial list")
        core.create_namespaced_config_map(namespace, config_map("after", {"i": "1"}))
        core.patch_namespaced_config_map("before", namespace, {"data": {"k": "v"}})
        # Leaves the selection, which is a deletion for who watches it.
        core.patch_namespaced_config_map("after", namespace, {"metadata": {"labels": {"i": None}}})
        expected = [("ADDED", "before"), ("ADDED", "after"), ("MODIFIED", "before"), ("DELETED", "after")]
        eventually(lambda: len(seen) >= 4, what="changes: %s" % seen)
        assert seen == expected, seen
        assert [m.data for m in informer.cache.list()] == [{"k": "v"}]
    finally:
        informer.stop()


@case
def python_elects_a_leader(namespace):
    from kubernetes.leaderelection import electionconfig, leaderelection
    from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
    led, stop = [], threading.Event()

    def candidate(name):
        lock = LeaseLock("leader", namespace, name)
        settings = electionconfig.Config(
            lock, lease_duration=4, renew_deadline=3, retry_period=1, onstopped_leading=lambda: None,
            onstarted_leading=lambda: led.append(name))
        election = leaderelection.LeaderElection(settings)
        renew = election.try_acquire_or_renew
        election.try_acquire_or_renew = lambda: not (stop.is_set() and name == "first") and renew()
        threading.Thread(target=election.run, daemon=True).start()
        return lock

    candidate("first")
    eventually(lambda: led == ["first"], what="the first leads")
    candidate("second")
    lease = client.CoordinationV1Api().read_namespaced_lease("leader", namespace)
    assert lease.spec.holder_identity == "first" and lease.spec.lease_duration_seconds == 4, lease.spec
    time.sleep(2)
    assert led == ["first"], led
    renewed = client.CoordinationV1Api().read_namespaced_lease("leader", namespace)
    assert renewed.spec.renew_time > lease.spec.renew_time
    # Who stops renewing is followed by the other one.
    stop.set()
    eventually(lambda: led == ["first", "second"], limit=15, what="the second follows")

"""Runs cases: functions marked with @case, each in a namespace of its own, which is deleted whatever happens.

    python suite.py KUBECONFIG

prints the names of all cases as a line of JSON, then runs those whose names it reads, and prints a line about each.
`python.rs` is the other end.
"""

import importlib
import io
import json
import signal
import sys
import time
import traceback
import uuid
from contextlib import redirect_stderr, redirect_stdout

from kubernetes import client, config

CASES = {}
LIMIT = 40
FILES = ["objects", "watches", "sessions", "discovery"]


def case(function):
    """Marks a function as a case; it gets the name of its namespace."""
    CASES[function.__name__] = function
    return function


class TookTooLong(BaseException):
    pass


def _alarm(*_):
    raise TookTooLong("the case took longer than %d s" % LIMIT)


def eventually(check, limit=30, what="it"):
    """Tries until the check returns something true."""
    deadline = time.monotonic() + limit
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, "%s: not within %d s" % (what, limit)
        time.sleep(0.05)


def refused(status, reason, function, *args, **kwargs):
    """Expects an ApiException with this code and reason; returns the Status in its body."""
    try:
        answer = function(*args, **kwargs)
    except client.exceptions.ApiException as error:
        body = json.loads(error.body)
        assert (error.status, body["reason"]) == (status, reason), error
        assert (body["kind"], body["code"], body["status"]) == ("Status", status, "Failure"), body
        return body
    raise AssertionError("should be refused with %s, but: %s" % (reason, answer))


def config_map(name, labels=None, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)


def pod(name, command, labels=None, **spec):
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}},
        "spec": {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [
            {"name": "main", "image": "busybox:1.35", "imagePullPolicy": "IfNotPresent", "command": command}], **spec},
    }


def running(namespace, name, command, **spec):
    """Makes a pod and waits until it runs."""
    core = client.CoreV1Api()
    core.create_namespaced_pod(namespace, pod(name, command, **spec))
    eventually(lambda: core.read_namespaced_pod(name, namespace).status.phase == "Running", what="pod " + name)
    return core


def _run(function):
    core = client.CoreV1Api()
    namespace = "py-" + uuid.uuid4().hex[:8]
    signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(LIMIT)
    try:
        core.create_namespace({"metadata": {"name": namespace}})
        function(namespace)
    finally:
        signal.alarm(0)
        core.delete_namespace(namespace, _request_timeout=10)


def main():
    config.load_kube_config(config_file=sys.argv[1])
    # The cases import this file under its name, which is another module than the running one.
    cases = importlib.import_module("suite").CASES
    for file in FILES:
        importlib.import_module(file)
    print(json.dumps(sorted(cases)), flush=True)
    for name in sys.stdin:
        begun, said, why = time.monotonic(), io.StringIO(), None
        try:
            with redirect_stdout(said), redirect_stderr(said):
                _run(cases[name.strip()])
        except (Exception, TookTooLong):
            why = said.getvalue()[-4000:] + traceback.format_exc()[-6000:]
        print(json.dumps({"case": name.strip(), "seconds": time.monotonic() - begun, "why": why}), flush=True)


if __name__ == "__main__":
    main()

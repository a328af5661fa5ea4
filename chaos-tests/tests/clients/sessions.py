"""Into containers: exec, attach, logs, port-forward."""

import json

from kubernetes import client, watch
from kubernetes.stream import portforward, stream
from kubernetes.stream.ws_client import ERROR_CHANNEL

from suite import case, eventually, pod, running


@case
def python_exec(namespace):
    core = running(namespace, "x", ["sleep", "1000"])

    def command(*words, **more):
        options = {"stderr": True, "stdin": False, "stdout": True, "tty": False, **more}
        return stream(core.connect_get_namespaced_pod_exec, "x", namespace, command=list(words), **options)

    assert command("sh", "-c", "echo out; echo err >&2; exit 0", stderr=False) == "out\n"
    assert sorted(command("sh", "-c", "echo out; echo err >&2").split()) == ["err", "out"]
    big = command("sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x")
    assert big == "x" * 300000, len(big)
    session = command("sh", "-c", "echo out; echo err >&2; exit 3", _preload_content=False)
    session.run_forever(timeout=10)
    assert (session.read_stdout(), session.read_stderr(), session.returncode) == ("out\n", "err\n", 3)
    status = command("true", _preload_content=False)
    status.run_forever(timeout=10)
    assert json.loads(status.read_channel(ERROR_CHANNEL))["status"] == "Success"
    binary = command("printf", "\\377\\000\\376", binary=True)
    assert binary == b"\xff\x00\xfe", binary


@case
def python_exec_interactively(namespace):
    core = running(namespace, "x", ["sleep", "1000"])
    shell = stream(core.connect_get_namespaced_pod_exec, "x", namespace, command=["sh"], stderr=True, stdin=True,
                   stdout=True, tty=False, _preload_content=False)
    for line in ("date +%Y >&2", "echo one", "hostname"):
        shell.write_stdin(line + "\n")
    assert shell.readline_stdout(timeout=10) == "one"
    assert shell.readline_stdout(timeout=10) == "x"
    assert shell.readline_stderr(timeout=10).startswith("20")
    shell.write_stdin("exit 5\n")
    shell.run_forever(timeout=10)
    assert shell.returncode == 5, shell.returncode
    terminal = stream(core.connect_get_namespaced_pod_exec, "x", namespace, command=["sh"], stderr=False, stdin=True,
                      stdout=True, tty=True, _preload_content=False)
    terminal.write_channel(4, json.dumps({"Height": 33, "Width": 77}))
    terminal.write_stdin("until stty size | grep '33 77'; do sleep 0.1; done; exit\n")
    terminal.run_forever(timeout=10)
    assert "33 77\r\n" in terminal.read_stdout(), terminal.read_stdout()


@case
def python_exec_refused(namespace):
    core = running(namespace, "x", ["sleep", "1000"])
    options = {"command": ["true"], "stderr": True, "stdin": False, "stdout": True, "tty": False}
    for name, more, why in (("none", {}, 'pods \\"none\\" not found'), ("x", {"container": "other"}, "container other")):
        try:
            stream(core.connect_get_namespaced_pod_exec, name, namespace, **options, **more)
            raise AssertionError("exec into nothing")
        except client.exceptions.ApiException as error:
            assert "Handshake status 4" in error.reason and why in error.reason, error.reason
    missing = stream(core.connect_get_namespaced_pod_exec, "x", namespace, command=["/no/such"], stderr=True, stdin=False,
                     stdout=True, tty=False, _preload_content=False)
    missing.run_forever(timeout=10)
    said = json.loads(missing.read_channel(ERROR_CHANNEL))
    assert said["status"] == "Failure" and "/no/such" in said["message"], said


@case
def python_attach(namespace):
    core = client.CoreV1Api()
    spec = pod("y", ["sh", "-c", "while read line; do echo got $line; done; echo end"])
    spec["spec"]["containers"][0].update(stdin=True, stdinOnce=True)
    core.create_namespaced_pod(namespace, spec)
    eventually(lambda: core.read_namespaced_pod("y", namespace).status.phase == "Running", what="pod y")
    attached = stream(core.connect_get_namespaced_pod_attach, "y", namespace, stderr=True, stdin=True, stdout=True,
                      tty=False, _preload_content=False)
    attached.write_stdin("this\n")
    assert attached.readline_stdout(timeout=10) == "got this"
    attached.close()
    eventually(lambda: core.read_namespaced_pod("y", namespace).status.phase == "Succeeded", what="the end of stdin")


@case
def python_logs(namespace):
    core = running(namespace, "l", ["sh", "-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done"])
    followed = list(watch.Watch().stream(core.read_namespaced_pod_log, "l", namespace))
    assert followed == ["line %d" % i for i in range(1, 6)], followed
    assert core.read_namespaced_pod_log("l", namespace) == "".join("line %d\n" % i for i in range(1, 6))
    assert core.read_namespaced_pod_log("l", namespace, tail_lines=2) == "line 4\nline 5\n"
    stamped = core.read_namespaced_pod_log("l", namespace, timestamps=True, limit_bytes=40)
    assert stamped.startswith("20") and len(stamped) == 40, stamped
    assert core.read_namespaced_pod_log("l", namespace, follow=False, since_seconds=3600).count("line") == 5
    eventually(lambda: core.read_namespaced_pod("l", namespace).status.phase == "Succeeded", what="the pod's end")
    try:
        core.read_namespaced_pod_log("l", namespace, container="other")
        raise AssertionError("logs of no container")
    except client.exceptions.ApiException as error:
        assert error.status == 400 and "container other is not valid for pod l" in error.body, error


@case
def python_port_forward(namespace):
    core = running(namespace, "p", ["sh", "-c", "mkdir /w; echo hello > /w/index.html; exec httpd -f -p 8080 -h /w"])

    def fetch():
        forward = portforward(core.connect_get_namespaced_pod_portforward, "p", namespace, ports="8080")
        # It offers v5 too, in which upstream forwards no ports, and does not know of ends that it has not sent.
        assert forward.websocket.headers["sec-websocket-protocol"] == "v4.channel.k8s.io", forward.websocket.headers
        try:
            connection = forward.socket(8080)
            connection.settimeout(10)
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
            return answer
        finally:
            forward.close()

    answer = eventually(fetch, limit=10, what="an answer")
    assert b"200 OK" in answer and answer.endswith(b"hello\n"), answer
    forward = portforward(core.connect_get_namespaced_pod_portforward, "p", namespace, ports="81")
    connection = forward.socket(81)
    connection.settimeout(10)
    assert connection.recv(100) == b""
    assert "81" in forward.error(81), forward.error(81)


@case
def python_evicts(namespace):
    core = running(namespace, "e", ["sleep", "1000"])
    body = client.V1Eviction(metadata=client.V1ObjectMeta(name="e", namespace=namespace))
    core.create_namespaced_pod_eviction("e", namespace, body)

    def gone():
        return all(p.metadata.name != "e" for p in core.list_namespaced_pod(namespace).items)
    eventually(gone, what="the evicted pod goes")

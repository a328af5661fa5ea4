"""An informer on one master while others are killed.

    python survivor.py KUBECONFIG NAMESPACE

prints a line for each event as the informer's handlers see it, and ends when a config map with the name "end" is seen.
`masters.rs` judges them.
"""

import json
import sys
import threading

from kubernetes import client, config
from kubernetes.informer import ADDED, DELETED, ERROR, MODIFIED, SharedInformer


def main():
    kubeconfig, namespace = sys.argv[1:]
    config.load_kube_config(config_file=kubeconfig)
    informer = SharedInformer(client.CoreV1Api().list_namespaced_config_map, namespace=namespace, label_selector="kept")
    ended = threading.Event()

    def seen(kind, item):
        meta = item.metadata
        line = {"type": kind, "name": meta.name, "n": (item.data or {}).get("n"), "version": int(meta.resource_version)}
        print(json.dumps(line), flush=True)
        if meta.name == "end":
            ended.set()

    for kind in (ADDED, MODIFIED, DELETED):
        informer.add_event_handler(kind, lambda item, kind=kind: seen(kind, item))
    informer.add_event_handler(ERROR, lambda error: print("error: %s" % error, file=sys.stderr, flush=True))
    informer.start()
    ended.wait(90)
    informer.stop()


if __name__ == "__main__":
    main()

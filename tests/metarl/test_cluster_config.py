"""The processes of TF_CONFIG find each other, or say who is missing."""

import contextlib
import json
import socket
import threading
import time

import pytest

from metarl.experiment.errors import UserError, WorkerError
from metarl.scaling.cluster_config import Cluster, meet, require_cluster


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def clusters(ports):
    addresses = {f"worker {index}": ("127.0.0.1", port) for index, port in enumerate(ports)}
    return [
        Cluster(port, {name: address for name, address in addresses.items() if address[1] != port}) for port in ports
    ]


def test_tf_config_with_a_chief_names_the_others():
    described = {"cluster": {"chief": ["a:1"], "worker": ["b:2", "[::1]:3"]}, "task": {"type": "worker", "index": 0}}
    found = require_cluster({"TF_CONFIG": json.dumps(described)})
    assert found == Cluster(2, {"chief 0": ("a", 1), "worker 1": ("::1", 3)})


def test_three_that_come_one_after_the_other_meet():
    met = []
    all_met = threading.Barrier(3)

    def come(cluster):
        meet(cluster, 60.0)
        with socket.create_server(("", cluster.port)):  # as TensorFlow's server does next
            met.append(cluster.port)
            all_met.wait(60.0)

    threads = [threading.Thread(target=come, args=(one,)) for one in clusters(free_ports(3))]
    for thread in threads[:2]:
        thread.start()
    time.sleep(0.3)
    assert not met
    threads[2].start()
    for thread in threads:
        thread.join()
    assert len(met) == 3


def test_who_does_not_come_is_named():
    first, *_ = clusters(free_ports(2))
    with pytest.raises(WorkerError, match=r"did not start within 0.2 seconds: worker 1 at 127.0.0.1:\d+$"):
        meet(first, 0.2)
    with socket.create_server(("", first.port)), pytest.raises(UserError, match="is not free"):
        meet(first, 0.2)

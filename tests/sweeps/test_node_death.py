"""A node of a cluster dies while a sweep runs, and another one comes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.sweeps.faults import ARGUMENTS, FLAGS, assert_ends_like
from tests.sweeps.runs import finish, start, table_of, write_script

CLUSTER = """
    import atexit, sys, threading, time

    import psutil

    from sweeps import tuning

    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    atexit.register(cluster.shutdown)
    doomed = cluster.add_node(num_cpus=1)
    sys.argv += ["--address", cluster.address]

    def trains(node):
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return any(child.name().startswith("ray::ImplicitFunc") for child in raylet.children())

    def wait_for(what):
        deadline = time.monotonic() + 150
        while not what() and time.monotonic() < deadline:
            time.sleep(0.1)
        return what()

    def strike():
        if wait_for(lambda: trains(doomed)):
            time.sleep(1)  # in the middle of it
            print("trains" if trains(doomed) else "idle", "when its node dies", flush=True)
            cluster.remove_node(doomed, allow_graceful=False)
            other = cluster.add_node(num_cpus=1)
            print("the new node", "trains" if wait_for(lambda: trains(other)) else "idles", flush=True)

    # A node sets a signal handler, which only the main thread may; that one sweeps.
    ray._private.utils.set_sigterm_handler = lambda handler: None
    threading.Thread(target=strike).start()
"""


@pytest.mark.slow
def test_a_node_dies_and_another_comes(
    storage: str, tmp_path: Path, undisturbed: str, places: Mapping[str, str]
) -> None:
    script = write_script(tmp_path, ARGUMENTS, CLUSTER)
    status, output, complaints = finish(start(script, storage, *FLAGS, **places), seconds=300)
    assert status == 0, (output, complaints)
    assert "trains when its node dies" in output
    assert "the new node trains" in output
    assert table_of(storage, "s")["node"].n_unique() >= 2
    assert_ends_like(undisturbed, storage)

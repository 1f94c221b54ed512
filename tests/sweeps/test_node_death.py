"""A node of a cluster dies while a sweep runs, and another one comes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from sweeps.question.sweep import Sweep
from tests.sweeps.runs import finish, measured, run_here, start, statuses, write_script

ARGUMENTS = (
    "name='s', question='Does it end as it should?', schedulers=('none', 'step', 'exponential', 'plateau'), "
    "lrs=(0.01, 0.02, 0.04), epochs=4"
)

CLUSTER = """
    import atexit, sys, threading, time

    import psutil

    from analysis.store import SweepStore
    import sweeps.tuning

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
        while not what() and threading.main_thread().is_alive():  # till the sweep is over
            time.sleep(0.1)
        return what()

    def strike():
        store = SweepStore(sys.argv[2], "s")
        if wait_for(lambda: len(store.read_epochs()) > 4 and trains(doomed)):
            print("killing a node that trains", flush=True)
            cluster.remove_node(doomed, allow_graceful=False)
            other = cluster.add_node(num_cpus=1)
            print("the new node", "trains" if wait_for(lambda: trains(other)) else "idles", flush=True)

    # A node sets a signal handler, which only the main thread may; that one sweeps.
    ray._private.utils.set_sigterm_handler = lambda handler: None
    threading.Thread(target=strike).start()
"""


@pytest.mark.slow
def test_a_node_dies_and_another_comes(
    ray_cluster: None, storage: str, tmp_path: Path, places: Mapping[str, str]
) -> None:
    undisturbed = str(tmp_path / "undisturbed")
    assert run_here(eval(f"Sweep({ARGUMENTS})", {"Sweep": Sweep}), undisturbed, train_limit=3200)[0] == 0
    script = write_script(tmp_path, ARGUMENTS, CLUSTER)
    status, output, complaints = finish(start(script, storage, "--train-limit", "3200", **places), seconds=300)
    assert status == 0, (output, complaints)
    assert "killing a node that trains" in output
    assert "the new node trains" in output
    assert statuses(storage, "s") == ["completed"] * 12
    assert_frame_equal(measured(storage, "s"), measured(undisturbed, "s"), check_exact=True)

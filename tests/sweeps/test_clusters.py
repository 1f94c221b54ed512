"""Who may reach a sweep's Ray; several nodes; and fractions of GPUs."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
import torch
from polars.testing import assert_frame_equal
from ray.exceptions import RayError
from rich.console import Console

from analysis.store import SweepStore
from sweeps.ledger.ledger import Ledger
from sweeps.question.sweep import Sweep
from sweeps.runner import StoppedError
from sweeps.sharing.tree import ForkTree
from sweeps.tuning import execution, session
from sweeps.tuning.driver import Run
from sweeps.tuning.errors import PlacementError
from sweeps.tuning.placement import Placement
from sweeps.watching.progress import Progress
from tests.sweeps.runs import (
    files_with,
    finish,
    measured,
    run_here,
    start,
    statuses,
    table_of,
    without_ray,
    write_script,
)
from workloads.fingerprint import device
from workloads.trial import EpochRecord, TrialConfig

ASK = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).internal_kv_keys(b'', None, 5)"


def ask(address: str, **environment: str) -> str:
    """Returns how a Ray refuses a process that comes with a token or without one; nothing if it does not."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, address], env=without_ray() | environment, capture_output=True, text=True
    )
    return done.stderr if done.returncode else ""


def test_the_ray_of_a_sweep_is_nobody_elses(ray_cluster: None, storage: str) -> None:
    status, text = run_here(
        Sweep(name="s", question="Who listens?", lrs=(0.01,), epochs=1), storage, train_limit=320, preflight=False
    )
    assert status == 0, text
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        (member.name(), connection.laddr.ip.removeprefix("::ffff:"))
        for member in family
        for connection in member.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}
    assert [entry for entry in listening if entry[1] not in ("127.0.0.1", "::1")] == []

    import ray

    address = ray.get_runtime_context().gcs_address
    head = next(member for member in family if member.name() == "gcs_server")
    token = head.environ()["RAY_AUTH_TOKEN"]
    assert len(token) == 64
    assert ask(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token) == ""
    assert "uthenticat" in ask(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert "uthenticat" in ask(address, RAY_AUTH_MODE="disabled")
    assert token not in text
    assert files_with(token, storage) == []
    assert files_with(token, Path.home() / ".ray") == []


def test_ray_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.tuning.session.ray.is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"ray://127.0.0.1:{server.getsockname()[1]}"
        with (
            pytest.raises(PlacementError, match="ray job submit"),
            session.ray_session(Placement(address=address)),
        ):
            pass


def test_runs_of_one_process_have_one_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeps.tuning import session

    # Ray reads the token once: with another, the second run's driver could not talk to its own Ray.
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    tokens = []
    for _ in range(2):
        with session._private(Placement()):
            tokens.append(os.environ["RAY_AUTH_TOKEN"])
        assert "RAY_AUTH_TOKEN" not in os.environ
    assert tokens[0] == tokens[1]


def test_a_ray_that_ends_before_the_training_stops_the_sweep(
    ray_cluster: None, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(placement: Placement) -> None:
        raise RayError("the head is gone\nand more")

    monkeypatch.setattr(session, "check_placement", gone)
    sweep = Sweep(name="s", question="And then?", lrs=(0.01,), epochs=1)
    with pytest.raises(StoppedError, match=r"^Ray ended: the head is gone; .* run the same command to continue$"):
        run_here(sweep, storage, train_limit=320, preflight=False)


ARGUMENTS = "name='s', question='Does it end as it should?', lrs=(0.01, 0.02, 0.03, 0.04), epochs=2"
FLAGS = ("--train-limit", "640")
NODES = """
    import atexit
    import sys

    from sweeps.tuning import execution, session
    from sweeps.tuning.errors import PlacementError

    import ray
    from ray._private.internal_api import node_stats
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    atexit.register(cluster.shutdown)
    cluster.add_node(num_cpus=1)
    sys.argv += ["--address", cluster.address]

    def check_storage(store, check=session.check_storage):
        sees, home = session._sees, ray.get_runtime_context().get_node_id()
        session._sees = lambda path: ray.get_runtime_context().get_node_id() == home
        try:
            check(store)
        except PlacementError as error:
            print("refused:", error)
        session._sees = sees
        check(store)

    def run_tree(run, data, train=execution.run_tree):
        size = sum(array.nbytes for one in data.values() for array in (one.images, one.labels))
        train(run, data=data)
        for node in ray.nodes():
            stored = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False).store_stats
            print(f"received: {stored.cumulative_created_bytes / size:.4f} times the data")

    session.check_storage, execution.run_tree = check_storage, run_tree
"""


@pytest.mark.slow  # three hosts do the same in `test_hosts.py`, where that can be
def test_two_nodes_share_the_trials_and_get_the_data_once(ray_cluster: None, storage: str, tmp_path: Path) -> None:
    local = str(tmp_path / "local")
    assert run_here(eval(f"Sweep({ARGUMENTS})", {"Sweep": Sweep}), local, train_limit=640)[0] == 0
    script = write_script(tmp_path, ARGUMENTS, NODES)
    token, temporary = secrets.token_hex(32), tempfile.mkdtemp(prefix="rf")
    private = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    try:
        status, output, complaints = finish(start(script, storage, *FLAGS, **private, RAY_TMPDIR=temporary), 200)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    assert status == 0, (output, complaints)
    assert f"cannot see {storage}/s: on a cluster of several nodes" in output
    assert statuses(storage, "s") == ["completed"] * 4
    assert table_of(storage, "s")["node"].n_unique() == 2
    assert_frame_equal(measured(storage, "s"), measured(local, "s"), check_exact=True)
    received = [float(line.split()[1]) for line in output.splitlines() if line.startswith("received: ")]
    assert len(received) == 2
    assert all(1 <= times < 1.01 for times in received), "each node trained two trials, and has one copy"
    assert token not in output + complaints
    assert files_with(token, storage) == []


def a_quarter(config: TrialConfig, folder: Path) -> Iterator[EpochRecord]:
    """Stands in for a training: waits until as many others are there as fit, and notes what it was granted."""
    (folder / f"{config.seed}.on").touch()
    deadline = time.monotonic() + 150
    while len(list(folder.glob("*.on"))) < min(8, 10 - len(list(folder.glob("*.off")))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)  # time for one too many to appear
    at_once = len(list(folder.glob("*.on")))
    (granted,) = ray.get_runtime_context().get_accelerator_ids()["GPU"]  # variables differ between makers
    (folder / f"{config.seed}.granted-{granted}-{at_once}").touch()
    (folder / f"{config.seed}.on").rename(folder / f"{config.seed}.off")
    values = dict.fromkeys(EpochRecord.__dataclass_fields__, 0.5)
    yield EpochRecord(**values | {"trial_id": config.trial_id, "computed_by": config.trial_id, "epoch": 1})


def a_run(storage: str, trials: Sequence[TrialConfig], placement: Placement) -> Run:
    ledger = Ledger(SweepStore(storage, "s"), trials)
    Path(ledger.store.root).mkdir(parents=True)
    tree = ForkTree(ledger.members())
    assert list(tree.walk_known()) == []
    return Run(tree, ledger, placement, Progress(Console(file=io.StringIO()), {}))


@pytest.mark.parametrize(("limit", "room", "first", "then"), [(None, 1, 1, 1), (None, 4, 4, 1), (3, 4, 3, 0)])
def test_as_many_paths_wait_as_there_is_room_for_and_then_one(
    storage: str, limit: int | None, room: int, first: int, then: int
) -> None:
    trials = [TrialConfig(seed=seed, epochs=1) for seed in range(10)]
    run = a_run(storage, trials, Placement(max_concurrent=limit))
    run.room = room
    waiting = [str(number) for number in range(10) if run.next_job(str(number))]
    assert len(waiting) == first, "no worker has taken one up"
    for name in waiting:
        run.take_in(name, {"place": {"node": "here", "device": "cpu", "gpu_fraction": None}})
    assert len([number for number in range(10, 20) if run.next_job(str(number))]) == then, "all have been taken up"


def test_eight_quarters_run_at_once_on_two_declared_gpus_and_never_more(
    ray_cluster: None, storage: str, tmp_path: Path
) -> None:
    def stand_in(config: TrialConfig, *, hardware: Any, **_: Any) -> Iterator[EpochRecord]:
        assert hardware.gpu
        assert hardware.gpu_memory_fraction == 0.25
        assert "PL_DISABLE_FORK" not in os.environ, "a worker that Ray had ready"
        return a_quarter(config, tmp_path)

    trials = [TrialConfig(seed=seed, epochs=1, train_limit=320) for seed in range(10)]
    run = a_run(storage, trials, Placement(cpus_per_trial=0.1, gpus_per_trial=0.25))
    execution.run_tree(run, train=stand_in)

    ledger = run.ledger
    assert {status.status for status in ledger.statuses.values()} == {"completed"}, ledger.statuses
    granted = {path.name.partition(".")[0]: path.name.split("-")[1:] for path in tmp_path.glob("*.granted-*")}
    assert max(int(at_once) for _, at_once in granted.values()) == 8
    for trial in trials:
        status = ledger.statuses[trial.trial_id]
        assert (status.device, status.gpu_fraction) == (f"cuda:{granted[str(trial.seed)][0]}", 0.25)
    assert {status.device for status in ledger.statuses.values()} == {"cuda:0", "cuda:1"}
    assert max(status.neighbours for status in ledger.statuses.values()) == 3

    with pytest.raises(PlacementError, match=r"--gpus-per-trial 3 asks for more than any node has \(2 GPUs\)"):
        session.check_placement(Placement(gpus_per_trial=3))


def test_fraction_and_concurrency_may_change_when_a_sweep_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    one = SimpleNamespace(name="Tesla T4", major=7, minor=5, multi_processor_count=40)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: one)
    placements = [
        Placement(gpus_per_trial=0.25),
        Placement(gpus_per_trial=1),
        Placement(gpus_per_trial=0.5, max_concurrent=1),
    ]
    compared = [device(placement.hardware()) for placement in placements]
    assert compared[0] == compared[1] == compared[2]
    assert compared[0] != device(Placement().hardware())

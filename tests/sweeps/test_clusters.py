"""Other Rays than the local one: several nodes, a job server with tokens, and who may listen."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from polars.testing import assert_frame_equal

from analysis.store import SweepStore
from sweeps.placement import Placement
from sweeps.sweep import Sweep
from tests.sweeps.runs import ROOT, finish, free_port, measured, run_here, start, statuses, table_of, write_script

pytestmark = pytest.mark.slow  # minutes, with servers and clusters of their own: by hand

ARGUMENTS = "name='s', question='Does it end as it should?', lrs=(0.01, 0.02, 0.03, 0.04, 0.05, 0.06), epochs=3"
FLAGS = ("--train-limit", "3200")


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The storage path of the sweep as it ends on a local Ray."""
    storage = str(tmp_path_factory.mktemp("undisturbed"))
    status, text = run_here(eval(f"Sweep({ARGUMENTS})", {"Sweep": Sweep}), storage, train_limit=3200)
    assert status == 0, text
    return storage


def wait_for_records(storage: str, count: int, process: subprocess.Popen[str]) -> None:
    store = SweepStore(storage, "s")
    deadline = time.monotonic() + 90
    while len(store.read_epochs()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the sweep stores no records"
        time.sleep(0.1)


def files_with(text: str, folder: str) -> list[Path]:
    return [path for path in Path(folder).rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_local_ray_is_nobody_elses(storage: str, tmp_path: Path) -> None:
    script = write_script(tmp_path, ARGUMENTS)
    home = tmp_path / "home"
    home.mkdir()
    process = start(script, storage, *FLAGS, RAY_AUTH_MODE="token", HOME=str(home))
    wait_for_records(storage, 1, process)
    family = [child for child in psutil.Process(process.pid).children(recursive=True) if child.is_running()]
    listening = {
        (member.name(), connection.laddr.ip.removeprefix("::ffff:"))
        for member in [psutil.Process(process.pid), *family]
        for connection in member.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    head = next(child for child in family if child.name() == "gcs_server")
    token = head.environ()["RAY_AUTH_TOKEN"]
    status, output, complaints = finish(process)
    assert status == 0, (output, complaints)
    assert "gcs_server" in {name for name, _ in listening}
    assert [entry for entry in listening if entry[1] not in ("127.0.0.1", "::1")] == []
    assert len(token) == 64
    assert token not in output + complaints
    assert files_with(token, storage) == []
    assert list(home.rglob("auth_token")) == []


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
    assert len(tokens[0]) == 64


CLUSTER = """
    import atexit, threading, time
    import sweeps.tuning
    import ray
    from ray.cluster_utils import Cluster
    from analysis.store import SweepStore
    from sweeps.tuning import PlacementError, check_storage

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    doomed = cluster.add_node(num_cpus=1)
    atexit.register(cluster.shutdown)
    ray.init(address=cluster.address, log_to_driver=False)
    atexit.register(ray.shutdown)

    store = SweepStore(sys.argv[2], "s")
    sees = sweeps.tuning.session._sees
    head = ray.get_runtime_context().get_node_id()
    sweeps.tuning.session._sees = lambda path: ray.get_runtime_context().get_node_id() == head
    try:
        check_storage(store)
    except PlacementError as error:
        print("refused:", error)
    sweeps.tuning.session._sees = sees

    def strike():
        while not any(node.endswith(doomed.node_id[:8]) for node in store.read_statuses()["node"]):
            time.sleep(0.1)
        cluster.remove_node(doomed, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        print("struck", flush=True)

    # Ray's node sets a signal handler, which only the main thread may; that one sweeps.
    ray._private.utils.set_sigterm_handler = lambda handler: None
    threading.Thread(target=strike, daemon=True).start()
"""


def test_a_cluster_of_two_nodes_one_of_which_dies(storage: str, tmp_path: Path, undisturbed: str) -> None:
    script = write_script(tmp_path, ARGUMENTS, "import sys" + CLUSTER.replace("\n    ", "\n"))
    token = secrets.token_hex(32)
    process = start(script, storage, *FLAGS, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
    status, output, complaints = finish(process, seconds=200)
    assert status == 0, (output, complaints)
    assert f"cannot see {storage}/s: on a cluster of several nodes" in output
    assert "struck" in output
    assert statuses(storage, "s") == ["completed"] * 6
    assert table_of(storage, "s")["node"].n_unique() >= 2
    assert_frame_equal(measured(storage, "s"), measured(undisturbed, "s"), check_exact=True)
    assert files_with(token, storage) == []
    assert token not in output + complaints


GPUS = """
    import time
    from pathlib import Path
    from rich.console import Console
    from analysis.store import SweepStore
    from sweeps import tuning
    from sweeps.ledger import Ledger
    from sweeps.placement import Placement
    from sweeps.progress import Progress
    from sweeps.trajectories import ForkTree
    from workloads.trial import EpochRecord, TrialConfig

    def stand_in(config, *, save, test_epochs, images, hardware, start):
        assert images is None and hardware.gpu and hardware.gpu_memory_fraction == 0.25
        here = Path({folder!r})
        (here / f"{{config.seed}}.on").touch()
        deadline = time.monotonic() + 60
        while len(list(here.glob("*.on"))) < min(8, 10 - len(list(here.glob("*.off")))):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.0)
        (here / f"{{config.seed}}.most-{{len(list(here.glob('*.on')))}}").touch()
        (here / f"{{config.seed}}.on").rename(here / f"{{config.seed}}.off")
        yield EpochRecord(**{record!r} | {{"trial_id": config.trial_id, "computed_by": config.trial_id}})

    trials = [TrialConfig(**{config!r} | {{"seed": seed}}) for seed in range(10)]
    placement = Placement(cpus_per_trial=0.1, gpus_per_trial=0.25)
    ledger = Ledger(SweepStore({storage!r}, "s"), trials)
    Path(ledger.store.root).mkdir(parents=True)
    tree = ForkTree(ledger.members())
    assert list(tree.walk_known()) == []
    run = tuning.Run(tree, ledger, placement, Progress(Console(), {{}}))
    with tuning.ray_session(placement, num_cpus=2, num_gpus=2):
        tuning.run_tree(run, train=stand_in, load_data=False)
        try:
            tuning.check_placement(Placement(gpus_per_trial=3))
        except tuning.PlacementError as error:
            print(error)
    for status in ledger.statuses.values():
        print(status.status, status.device, status.gpu_fraction, status.concurrent, status.error or "")
"""


def test_eight_quarters_run_at_once_on_two_declared_gpus_and_never_more(storage: str, tmp_path: Path) -> None:
    measures = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
    record = dict.fromkeys((*measures, "lr", "lr_last", "train_seconds", "eval_seconds"), 0.5)
    record |= {"epoch": 1, "function_evaluations": 1}
    config = {"optimizer": "sgd", "scheduler": "none", "lr": 0.5, "epochs": 1, "train_limit": 640}
    code = textwrap.dedent(GPUS).format(folder=str(tmp_path), record=record, config=config, storage=storage)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert "--gpus-per-trial 3 asks for more than any node has (2 GPUs)" in lines
    told = [line.split() for line in lines if "cuda:" in line or "ailed" in line]
    assert {tuple(words[:3]) for words in told} == {("completed", device, "0.25") for device in ("cuda:0", "cuda:1")}
    assert len(told) == 10
    assert max(int(words[3]) for words in told) == 8
    assert max(int(path.name.rpartition("-")[2]) for path in tmp_path.glob("*.most-*")) == 8


# -- a job server ---------------------------------------------------------------------------------------------------


class Head:
    """A Ray head with a job server that asks for a token, on this machine only."""

    def __init__(self, folder: Path) -> None:
        self.temporary = tempfile.mkdtemp(prefix="rf")
        self.token = folder / "token"
        keep = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = keep | {
            "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        default = folder / ".ray" / "auth_token"
        self.token.write_text(self.ray("get-auth-token", "--generate", RAY_AUTH_TOKEN_PATH=str(default)).split()[-1])
        ports = [free_port() for _ in range(5)]
        self.address = f"http://127.0.0.1:{ports[1]}"
        names = (
            "port",
            "dashboard-port",
            "dashboard-agent-listen-port",
            "dashboard-agent-grpc-port",
            "metrics-export-port",
        )
        flags = [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
        command = ["ray", "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={self.temporary}", *flags]
        self.process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def ray(self, *words: str, **environment: str) -> str:
        """Returns what a `ray` command prints."""
        done = subprocess.run(
            ["ray", *words], env=self.environment | environment, capture_output=True, text=True, timeout=120, cwd=ROOT
        )
        return done.stdout + done.stderr

    def job(self, *words: str) -> str:
        """Returns what a `ray job` command prints."""
        return self.ray("job", words[0], "--address", self.address, *words[1:])

    def close(self) -> None:
        """Ends Ray and what it started."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        shutil.rmtree(self.temporary, ignore_errors=True)


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    head = Head(tmp_path)
    try:
        deadline = time.monotonic() + 90
        while "Error" in (answer := head.job("list")) or "error" in answer or "refused" in answer:
            assert head.process.poll() is None
            assert time.monotonic() < deadline, answer
            time.sleep(1)
        yield head
    finally:
        head.close()


def test_a_submitted_job_is_stopped_submitted_again_and_finished(head: Head, storage: str) -> None:
    sweep = [
        "python",
        "sweeps/optimizers.py",
        "--optimizers",
        "sgd",
        "--lrs",
        "0.01",
        "0.1",
        "--epochs",
        "6",
        "--train-limit",
        "3200",
        "--name",
        "s",
    ]
    command = ("--working-dir", ".", "--", *sweep, "--storage-path", storage)
    refused = head.ray("job", "list", "--address", head.address, RAY_AUTH_MODE="disabled")
    assert "uthentic" in refused

    head.job("submit", "--submission-id", "first", "--no-wait", *command)
    store = SweepStore(storage, "s")
    deadline = time.monotonic() + 120
    while len(store.read_epochs()) < 2:
        assert time.monotonic() < deadline, head.job("logs", "first")
        time.sleep(0.5)
    head.job("stop", "first")
    assert "was stopped" in head.job("status", "first")
    assert 0 < len(store.read_epochs()) < 12, "stopped in the middle"

    output = head.job("submit", "--submission-id", "second", *command)
    assert "succeeded" in output
    assert "Ray's dashboard: http://127.0.0.1:" in output
    assert f"{storage}/s/report.html" in output
    assert statuses(storage, "s") == ["completed"] * 2
    token = head.token.read_text()
    assert token not in output
    assert files_with(token, storage) == []

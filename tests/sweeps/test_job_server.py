"""A job server with tokens, and nodes that an autoscaler starts: minutes each, by hand."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)

from analysis.store import SweepStore
from tests.sweeps.runs import ROOT, files_with, free_port, statuses, table_of, without_ray
from tests.sweeps.test_own_workload import write

pytestmark = pytest.mark.slow


class Head:
    """A Ray head with a job server that asks for a token, on this machine only.

    Args:
        folder: The home of whoever started it; the token is there.
        types: Types of nodes that it may start, without cloud; none for a head that stays alone.
        cpus: Of the head.
    """

    def __init__(self, folder: Path, types: dict[str, Any] | None = None, cpus: int = 2) -> None:
        self.temporary = tempfile.mkdtemp(prefix="rf")
        self.token = folder / "token"
        self.environment = without_ray() | {
            "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        default = folder / ".ray" / "auth_token"
        self.token.write_text(self.ray("get-auth-token", "--generate", RAY_AUTH_TOKEN_PATH=str(default)).split()[-1])
        names = (
            "port",
            "dashboard-port",
            "dashboard-agent-listen-port",
            "dashboard-agent-grpc-port",
            "metrics-export-port",
        )
        ports = {name: free_port() for name in names}
        self.gcs, self.address = f"127.0.0.1:{ports['port']}", f"http://127.0.0.1:{ports['dashboard-port']}"
        flags = [f"--num-cpus={cpus}", f"--temp-dir={self.temporary}", *(f"--{n}={port}" for n, port in ports.items())]
        if types is not None:
            description = folder / "cluster.json"
            description.write_text(json.dumps(self.describe(types)))
            flags.append(f"--autoscaling-config={description}")
            self.environment |= {
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "RAY_FAKE_CLUSTER": "1",
                "RAY_enable_autoscaler_v2": "1",  # as `ray up` has it
                "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            }
        self.log = folder / "head.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["ray", "start", "--head", "--block", *flags],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def describe(self, types: dict[str, Any]) -> dict[str, Any]:
        """Returns what `cluster.yaml` would say of a cloud whose machines are processes of this one."""
        provider = {
            "type": "external",
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
            "gcs_address": self.gcs,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        }
        head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
        return {
            "cluster_name": "pretended",
            "provider": provider,
            "auth": {},
            "max_workers": sum(kind["max_workers"] for kind in types.values()),
            "idle_timeout_minutes": 0.1,
            "available_node_types": {FAKE_HEAD_NODE_TYPE: head} | types,
            "head_node_type": FAKE_HEAD_NODE_TYPE,
            **{f"{where}setup_commands": [] for where in ("", "head_", "worker_")},
            "cluster_synced_files": [],
        }

    def ray(self, *words: str, **environment: str) -> str:
        """Returns what a `ray` command prints."""
        done = subprocess.run(
            ["ray", *words], env=self.environment | environment, capture_output=True, text=True, timeout=300, cwd=ROOT
        )
        return done.stdout + done.stderr

    def nodes(self) -> list[str]:
        """Returns the nodes that are up."""
        return re.findall(r"^ 1 node_(\w+)$", self.ray("status", "--address", self.gcs), re.MULTILINE)

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


@contextlib.contextmanager
def running(head: Head) -> Iterator[Head]:
    """Waits until a head answers, and ends it at last."""
    try:
        deadline = time.monotonic() + 90
        while "Error" in (answer := head.job("list")):
            assert head.process.poll() is None, head.log.read_text()
            assert time.monotonic() < deadline, answer
            time.sleep(1)
        yield head
    finally:
        head.close()


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    with running(Head(tmp_path)) as head:
        yield head


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
        "20",
        "--train-limit",
        "6400",
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
    assert 0 < len(store.read_epochs()) < 40, "stopped in the middle"

    output = head.job("submit", "--submission-id", "second", *command)
    assert "succeeded" in output
    assert "Ray's dashboard: http://127.0.0.1:" in output
    assert f"{storage}/s/report.html" in output
    assert statuses(storage, "s") == ["completed"] * 2
    token = head.token.read_text()
    assert token not in output
    assert files_with(token, storage) == []


def test_a_workload_of_one_s_own_is_submitted_from_its_folder(head: Head, storage: str, tmp_path: Path) -> None:
    """The module beside the script, and the data, come with the folder; the workers are handed what they need."""
    script = write(tmp_path / "files", count=400)
    command = ("--working-dir", str(script.parent), "--", "python", script.name, "--epochs", "2")
    output = head.job("submit", *command, "--storage-path", storage)
    assert "succeeded" in output, output
    assert statuses(storage, "s") == ["completed"] * 4
    assert "final validation mean absolute error" in output


def test_an_autoscaler_starts_nodes_for_what_waits_and_stops_them(storage: str, tmp_path: Path) -> None:
    types = {"worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2}}
    with running(Head(tmp_path, types, cpus=0)) as head:
        sweep = ("--optimizers", "sgd", "--lrs", "0.01", "0.1", "--epochs", "6", "--train-limit", "3200", "--name", "s")
        command = [sys.executable, "sweeps/optimizers.py", *sweep, "--storage-path", storage, "--address", head.gcs]
        done = subprocess.run(
            command, env=head.environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert statuses(storage, "s") == ["completed"] * 2
        # The pretended nodes' names differ in their ends only, which no record has.
        assert table_of(storage, "s")["neighbours"].max() == 1, "both were trained at once, on nodes with a CPU each"
        deadline = time.monotonic() + 120
        while (left := head.nodes()) != [FAKE_HEAD_NODE_ID]:
            assert time.monotonic() < deadline, left
            time.sleep(1)

"""A small real sweep, what can befall it, and how it must end all the same."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil
from polars.testing import assert_frame_equal

from analysis.store import SweepStore
from sweeps.question.sweep import Sweep
from sweeps.runner import INTERRUPTED
from tests.sweeps.runs import measured, run_here, statuses

ARGUMENTS = (
    "name='s', question='Does it end as it should?', schedulers=('none', 'step', 'exponential', 'plateau'), "
    "lrs=(0.01,), epochs=5"
)
SWEEP: Sweep = eval(f"Sweep({ARGUMENTS})", {"Sweep": Sweep})
RECORDS = 20
TRAIN_LIMIT = 3200
FLAGS = ("--train-limit", str(TRAIN_LIMIT))
FAST_RAY = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
"""How soon a driver gives up on a Ray that is gone: by default only after a minute."""

Process = subprocess.Popen[str]


# -- what can befall it ---------------------------------------------------------------------------------------------


def descendants(process: Process) -> list[psutil.Process]:
    """Returns the processes that a sweep started, and those that they did."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kills processes, some of which may be gone already."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def kill_worker(process: Process) -> None:
    """Kills a worker that trains, in the middle of whatever it does; while none does, nothing happens."""
    workers = [child for child in descendants(process) if child.name().startswith("ray::ImplicitFunc")]
    kill(workers[:1])


def kill_driver(process: Process) -> None:
    """Kills the sweep itself, and what its Ray then leaves behind: agents that nobody tells to end."""
    children = descendants(process)
    process.kill()
    kill(psutil.wait_procs(children, timeout=5)[1])


def kill_ray(process: Process) -> None:
    """Kills the sweep's Ray: all of its processes."""
    kill(descendants(process))


def interrupt(process: Process) -> None:
    """Sends what Ctrl-C does: to the sweep and to whatever it started in its own process group."""
    os.killpg(process.pid, signal.SIGINT)


def terminate(process: Process) -> None:
    """Sends what `kill` and job servers do."""
    process.send_signal(signal.SIGTERM)


FAULTS: Mapping[str, tuple[Callable[[Process], None], tuple[int, ...]]] = {
    "worker killed": (kill_worker, (0,)),
    "driver killed": (kill_driver, (-signal.SIGKILL,)),
    "Ctrl-C": (interrupt, (INTERRUPTED,)),
    "SIGTERM": (terminate, (INTERRUPTED,)),
    "Ray killed": (kill_ray, (1,)),
}
"""Fault -> what does it, and the exit statuses of a sweep struck while it trains."""


def damage(path: Path, chance: random.Random) -> None:
    """Cuts a file short or flips one of its bits."""
    content = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        content = content[: chance.randrange(len(content))]
    else:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(content))


# -- how it goes and ends -------------------------------------------------------------------------------------------


def count_records(storage: str) -> int:
    """Returns how many whole records a sweep has stored."""
    return len(SweepStore(storage, "s").read_epochs())


def wait_for_records(storage: str, count: int, process: Process, seconds: float = 300) -> None:
    """Waits until a running sweep has stored that many records."""
    deadline = time.monotonic() + seconds
    while count_records(storage) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the sweep stores no records"
        time.sleep(0.05)


def end_here(storage: str) -> None:
    """Gives the same command once more, in this process, and sees it succeed."""
    status, text = run_here(SWEEP, storage, train_limit=TRAIN_LIMIT)
    assert status == 0, text


def assert_ends_like(undisturbed: str, storage: str) -> None:
    """Compares a sweep with one that nothing befell: its answers, and that nothing else stays behind."""
    assert statuses(storage, "s") == ["completed"] * 4
    assert_frame_equal(measured(storage, "s"), measured(undisturbed, "s"), check_exact=True)
    leftover = [path.name for path in (Path(storage) / "s").rglob("*") if path.name.startswith(".")]
    assert leftover == [], "no lock and no half-written file stays behind"

"""A training that hangs, in whatever, is ended and leaves where; one that was stopped, or waits, is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from analysis.store import SweepStore
from tests.sweeps.runs import ROOT

WORKER = """
import ctypes, sys, time
from types import SimpleNamespace
from analysis.store import SweepStore
from sweeps.tuning.watchdog import Watchdog

job = SimpleNamespace(
    storage_path=sys.argv[1],
    name="s",
    run=sys.argv[2],
    timeout=float(sys.argv[3]),
    config=SimpleNamespace(trial_id="t"),
)
watchdog = Watchdog(job, SweepStore(job.storage_path, job.name))
bitten = watchdog.bites()
if bitten is not None:
    sys.exit(f"hung: {bitten}")

def lost_in_here():
"""
HANGS = {
    "waits": "time.sleep(60)",
    "computes": "while True: pass",
    "holds the interpreter's lock in C": "while True: ctypes.PyDLL(None).sleep(60)",
}
GOES_ON = """
    for epoch in range(4):
        print(epoch, flush=True)
        time.sleep(0.2)
        watchdog.feed()
    with watchdog.paused():
        time.sleep(2)
    print("done")
"""


def start(body: str, storage: str, seconds: float, run: str = "run") -> subprocess.Popen[str]:
    code = f"{WORKER}{textwrap.indent(textwrap.dedent(body), '    ')}\n\nwith watchdog:\n    lost_in_here()\n"
    command = [sys.executable, "-c", code, storage, run, str(seconds)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sees that nothing stays in the temporary folder."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield
    assert list(folder.iterdir()) == []


def test_whatever_it_hangs_in_it_is_ended_and_the_next_worker_knows_where(temporary: None, tmp_path: Path) -> None:
    storages = [str(tmp_path / what) for what in HANGS]
    workers = [start(body, storage, 1.0) for body, storage in zip(HANGS.values(), storages, strict=True)]
    for worker, storage in zip(workers, storages, strict=True):
        output = worker.communicate(timeout=60)
        assert worker.returncode == -signal.SIGKILL, output
        store = SweepStore(storage, "s")
        assert store.files() == [], "the note is no part of the sweep"
        other = start("pass", storage, 1.0, run="a later run")
        assert other.communicate(timeout=60) == ("", ""), "what hung in a run that was stopped is no news of another"
        again = start("pass", storage, 1.0)
        assert "in lost_in_here" in again.communicate(timeout=60)[1]
        assert again.returncode == 1
        assert list(Path(store.root).iterdir()) == [], "told once"


def test_a_process_that_was_stopped_has_not_hung(temporary: None, storage: str) -> None:
    worker = start(GOES_ON, storage, 1.2)
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "0\n"
        for stop, go_on in ((group_signal, group_signal), (worker_signal, worker_signal)):
            stop(worker, signal.SIGSTOP)
            time.sleep(2.5)
            go_on(worker, signal.SIGCONT)
        output, complaints = worker.communicate(timeout=60)
        assert (worker.returncode, complaints) == (0, "")
        assert output.endswith("done\n"), "waiting for others is not hanging either"
    finally:
        worker.kill()


def group_signal(worker: subprocess.Popen[str], number: int) -> None:
    os.killpg(worker.pid, number)


def worker_signal(worker: subprocess.Popen[str], number: int) -> None:
    os.kill(worker.pid, number)


def test_the_watcher_ends_with_its_worker_and_nobody_sees_what_it_was_told(storage: str) -> None:
    worker = start("print(1, flush=True); time.sleep(60)", storage, 600)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "1\n"
    (watcher,) = psutil.Process(worker.pid).children()
    assert storage not in " ".join(watcher.cmdline())
    worker.kill()
    worker.communicate()
    assert psutil.wait_procs([watcher], timeout=10)[1] == []

"""In a worker: has it ended when an epoch takes too long."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from analysis.store import TEMPORARY, SweepStore
from sweeps.tuning import watcher

if TYPE_CHECKING:
    from sweeps.tuning.job import Job


class Watchdog:
    """Has this process ended when an epoch takes too long, whatever it hangs in.

    Only the training's own time counts: neither what the worker waits for others (the driver, the storage), nor the
    time in which it is stopped. Tune then starts the path again in a new worker, maybe on another node, which finds in
    the sweep's folder where the old one hung, and reports the trial as failed.

    Args:
        job: What is trained; without a timeout nothing is watched.
        store: The sweep's files.
    """

    def __init__(self, job: Job, store: SweepStore) -> None:
        self._job = job
        self._store = store
        # The run is part of the name: what a run leaves behind that was stopped is no news of another.
        self._note = f"{TEMPORARY}timeout-{job.run}-{job.config.trial_id}"
        self._watcher: subprocess.Popen[bytes] | None = None
        self._dump: int | None = None

    def bites(self) -> str | None:
        """Returns where the last worker on this path hung, as far as that could be found out; None if it did not."""
        if self._job.timeout is None:
            return None
        try:
            stack = self._store.read(self._note)
        except FileNotFoundError:
            return None
        self._store.delete(self._note)
        return stack.decode()

    def __enter__(self) -> Watchdog:
        if self._job.timeout is not None:
            reading, self._dump = os.pipe()
            faulthandler.register(watcher.DUMP_SIGNAL, file=self._dump, all_threads=True)
            self._watcher = subprocess.Popen(
                [sys.executable, "-P", "-m", watcher.__name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(reading,),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            os.close(reading)
            # Not on its command line, which everybody on the machine sees: the path may hold credentials.
            told = {"storage_path": self._job.storage_path, "name": self._job.name, "note": self._note}
            self._order(json.dumps(told | {"seconds": self._job.timeout, "dump": reading}).encode() + b"\n")
            self.feed()
        return self

    def feed(self) -> None:
        """Starts the time anew."""
        self._order(watcher.GO)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Lets no time pass while the worker waits for others; then starts it anew."""
        self._order(watcher.PAUSE)
        try:
            yield
        finally:
            self.feed()

    def _order(self, given: bytes) -> None:
        if self._watcher is not None and self._watcher.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # killed: then nobody watches
                self._watcher.stdin.write(given)
                self._watcher.stdin.flush()

    def __exit__(self, *_: object) -> None:
        if self._watcher is not None and self._dump is not None:
            with contextlib.suppress(BrokenPipeError):
                self._watcher.communicate()  # it ends with its input
            faulthandler.unregister(watcher.DUMP_SIGNAL)
            os.close(self._dump)
            self._watcher = None

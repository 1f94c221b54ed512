"""In a worker: trains one path and reports each of its epochs."""

from __future__ import annotations

import faulthandler
import json
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import ray
from ray import tune

from analysis.store import SweepStore
from sweeps.tuning.errors import StorageError
from sweeps.tuning.job import Job
from workloads.registry import WORKLOADS, WorkloadRow, dataset_of
from workloads.training import Images, State
from workloads.trial import Diverged, EpochRecord, digest

Train = Callable[..., Iterator[EpochRecord]]
"""`workloads.training.train`, or a stand-in with its arguments."""


_images: dict[tuple[str, str], Images] = {}
"""Data sets on this worker's device: an actor trains many paths, the data stays."""


def train_path(
    config: Mapping[str, str], data: Mapping[str, Any], train: Train, workloads: Mapping[str, WorkloadRow] | None = None
) -> None:
    """Trains one path in a worker and reports where, each epoch, and how it ended if not well.

    Args:
        config: The job.
        data: Name -> data set in Ray's store.
        train: The training function.
        workloads: Rows that the driver's script added to the table.
    """
    WORKLOADS.update(workloads or {})
    job = Job.from_json(config["job"])
    watchdog = Watchdog(job)
    try:
        if stack := watchdog.bites():
            _report(end="failed", error=f"no epoch within {job.timeout:g} s (--trial-timeout)", traceback=stack)
            return
        _report(place=_place(job))
        with watchdog:
            for record, checkpoint in _train_job(job, data, train):
                _report(record=record.to_json(), checkpoint=checkpoint)
                watchdog.feed()
    except Diverged as outcome:
        _report(end="diverged", error=str(outcome))
    except StorageError as error:
        _report(end="storage", error=str(error))
    except Exception as error:  # noqa: BLE001 - whatever a trial raises is its result, the others go on
        status = "out_of_memory" if type(error).__name__ == "OutOfMemoryError" else "failed"
        message = f"{type(error).__name__}: {error}".strip()
        _report(end=status, error=message.partition("\n")[0], traceback=traceback.format_exc())


def _place(job: Job) -> dict[str, Any]:
    """Returns where a path is trained, as fields of `TrialStatus`."""
    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    return {
        "node": f"{socket.gethostname()}/{context.get_node_id()[:8]}",
        "device": ", ".join(f"cuda:{number}" for number in gpus) if job.hardware.gpu else "cpu",
        "gpu_fraction": job.gpus,
    }


def _report(**news: Any) -> None:
    """Reports to the driver, as one text: Tune flattens anything richer, and hangs on to it."""
    tune.report({"news": json.dumps(news)})


def _train_job(job: Job, data: Mapping[str, Any], train: Train) -> Iterator[tuple[EpochRecord, str | None]]:
    """Yields the path's records that the driver does not have yet, each with its checkpoint if it has one."""
    store = SweepStore(job.storage_path, job.name)
    if store.is_local and not Path(store.root).is_dir():
        raise StorageError(f"{socket.gethostname()} cannot see {store.location}: give a --storage-path all nodes see")
    images = _images_for(job, data)
    start = _start(job, store)
    stored: dict[int, str] = {}

    def save(state: State) -> None:
        try:
            stored[state.epoch] = store.save_checkpoint(job.config.trial_id, state.epoch, state.to_bytes()).path
        except OSError as error:
            raise StorageError(f"cannot write to {store.location}: {error}") from error

    # Epochs that a checkpoint has seen but the driver has not: it was killed in between.
    for record in start.history[job.known :] if start else ():
        yield record, None
    for record in train(
        job.config, images=images, hardware=job.hardware, start=start, save=save, test_epochs=job.test_epochs
    ):
        yield record, stored.pop(record.epoch, None)


class Watchdog:
    """Ends this process when an epoch takes too long, whatever it hangs in.

    Python's own watcher thread (`faulthandler`) needs no cooperation of the one that hangs. Tune then starts the path
    again in a new worker, which finds where the old one hung and reports the trial as failed.

    Args:
        job: What is trained; without a timeout nothing is watched.
    """

    def __init__(self, job: Job) -> None:
        self._seconds = job.timeout
        run = digest(f"{job.storage_path}/{job.name}", 8)
        self._path = Path(tempfile.gettempdir()) / f"forksweep-timeout-{run}-{job.config.trial_id}"
        self._file: TextIO | None = None

    def bites(self) -> str | None:
        """Returns where the last worker on this path hung, if it did."""
        if self._seconds is None or not self._path.exists():
            return None
        stack = self._path.read_text()
        self._path.unlink()
        return stack or None

    def __enter__(self) -> None:
        if self._seconds is not None:
            self._file = self._path.open("w")
            self.feed()

    def feed(self) -> None:
        """Starts the time anew."""
        if self._file is not None and self._seconds is not None:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._file)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            self._path.unlink(missing_ok=True)


def _images_for(job: Job, data: Mapping[str, Any]) -> Images | None:
    name = dataset_of(job.config).name
    if name not in data:
        return None
    device = job.hardware.apply()
    key = (data[name].hex(), str(device))
    if key not in _images:
        _images[key] = Images(ray.get(data[name]), device)
    return _images[key]


def _start(job: Job, store: SweepStore) -> State | None:
    """Returns the state to go on from: the newest whole checkpoint of the path itself or of those it forked from."""
    own = store.list_checkpoints(job.config.trial_id)
    for checkpoint in sorted([*job.ancestors, *own], key=lambda c: -c.epoch):
        content = store.load_checkpoint(checkpoint)
        state = State.from_bytes(content) if content is not None else None
        if state and all(r.test_accuracy is not None for r in state.history[job.known :] if r.epoch in job.test_epochs):
            return state
    return None

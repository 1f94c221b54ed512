"""In a worker: trains one path and reports each of its epochs."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from analysis.store import Checkpoint, SweepStore, without_secrets
from sweeps.tuning.errors import StorageError
from sweeps.tuning.job import Job
from sweeps.tuning.watchdog import Watchdog
from workloads import blame
from workloads.fingerprint import device, probe_machine
from workloads.registry import WORKLOADS, WorkloadRow, dataset_of
from workloads.training import Images, State
from workloads.trial import Diverged, EpochRecord, Status

Train = Callable[..., Iterator[EpochRecord]]
"""`workloads.training.train`, or a stand-in with its arguments."""


_images: dict[tuple[str, str], Images] = {}
"""The data set on this worker's device, of the path it trained last: an actor trains many, the data stays."""


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
    if _BROKEN.is_set():
        _end_process()
    WORKLOADS.update(workloads or {})
    job = Job.from_json(config["job"])
    store = SweepStore(job.storage_path, job.name)
    watchdog = Watchdog(job, store)
    try:
        _check_machine(job)
        with _storage(store):
            stack = watchdog.bites()
        if stack is not None:
            _report(end="failed", error=f"no epoch within {job.timeout:g} s (--trial-timeout)", traceback=stack)
            return
        _report(place=_place(job))
        with watchdog:
            for record, checkpoint in _train_job(job, store, watchdog, data, train):
                with watchdog.paused():
                    _report(record=record.to_json(), checkpoint=checkpoint)
    except Diverged as outcome:
        _report(end="diverged", error=str(outcome))
    except StorageError as error:
        _report(end="storage", error=str(error))
    except Exception as error:  # noqa: BLE001 - whatever a trial raises is its result, the others go on
        message = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
        place = blame.where(error)
        if broken := breaks_gpu(error):
            _BROKEN.set()
        _report(
            end=status_of(error),
            error=f"{place}: {message}" if place else message,
            traceback=traceback.format_exc(),
            **{"broken": _place(job)} if broken else {},
        )
        if broken:
            _end_process()
    finally:
        if job.hardware.gpu:  # torch keeps what it once had, and others on the GPU could do with it
            torch.cuda.empty_cache()


def _check_machine(job: Job) -> None:
    """Refuses to train where the same steps may give other bits: epochs are shared, and go on, on one kind of machine.

    Raises:
        StorageError: It is another kind than the sweep started on; no trial's fault.
    """
    if job.device is not None and (here := device(job.hardware)) != job.device:
        raise StorageError(_OTHER_DEVICE.format(socket.gethostname(), here, job.device))
    if job.machine is not None and probe_machine(job.hardware) != job.machine:
        raise StorageError(_OTHER_MACHINE.format(socket.gethostname()))


_OTHER_DEVICE = "the node {} trains on {}, but this sweep started on {}; use nodes of one type"
_OTHER_MACHINE = (
    "the node {} is of another type than the one this sweep started on: the same steps give other bits there; "
    "use nodes of one type"
)

_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|_ALLOC_FAILED", re.IGNORECASE)
"""What torch's `RuntimeError` says when memory, a CPU's or a GPU's, is too small."""


def status_of(error: Exception) -> Status:
    """Returns the status of a trial that raised: memory that is too small may be larger another time."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory"
    return "out_of_memory" if isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) else "failed"


_GPU_ERROR = re.compile(r"\b(CUDA|HIP|cuDNN|MIOpen)( driver)? error\b|\b(CUDNN|CUBLAS|CUSPARSE|CUSOLVER)_STATUS_")
"""What torch says when a call to the GPU's libraries fails: an illegal address, an assertion in a kernel, ..."""


def breaks_gpu(error: Exception) -> bool:
    """Whether a process may be unable to use its GPU after an error.

    Most errors of CUDA leave a process's context broken: whatever it does next on the GPU fails at once, with the same
    error. Memory that is too small does not.
    """
    return isinstance(error, RuntimeError) and status_of(error) == "failed" and bool(_GPU_ERROR.search(str(error)))


_BROKEN = threading.Event()
"""Whether this worker's is: nobody hears the end of a training that is not needed any more, and the worker is kept."""


def _end_process() -> None:
    """Ends this worker at once, so that Tune starts a new one: a broken context is not to train the next path."""
    os._exit(1)


@contextlib.contextmanager
def _storage(store: SweepStore) -> Iterator[None]:
    """Tells errors of the storage, which are no trial's fault, from those of a training."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot use {store.location}: {without_secrets(str(error))}") from error


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


def _train_job(
    job: Job, store: SweepStore, watchdog: Watchdog, data: Mapping[str, Any], train: Train
) -> Iterator[tuple[EpochRecord, str | None]]:
    """Yields the path's records that the driver does not have yet, each with its checkpoint if it has one."""
    with watchdog.paused(), _storage(store):
        if store.is_local and not Path(store.root).is_dir():
            raise StorageError(
                f"{socket.gethostname()} cannot see {store.location}: give a --storage-path all nodes see"
            )
        own = store.list_checkpoints(job.config.trial_id)
        start = _start(job, own, store)
    images = _images_for(job, data)
    stored = {checkpoint.epoch: checkpoint.path for checkpoint in own}

    def save(state: State) -> None:
        with watchdog.paused(), _storage(store):
            stored[state.epoch] = store.save_checkpoint(job.config.trial_id, state.epoch, state.to_bytes()).path

    # Epochs that a checkpoint has seen but the driver has not: it, or the worker before, was killed in between.
    seen = start.history[job.known :] if start else ()
    new = train(job.config, images=images, hardware=job.hardware, start=start, save=save, test_epochs=job.test_epochs)
    for record in itertools.chain(seen, new):
        yield record, stored.get(record.epoch)
        if record.epoch == job.until:
            return


def _images_for(job: Job, data: Mapping[str, Any]) -> Images | None:
    name = dataset_of(job.config).name
    if name not in data:
        return None
    on = job.hardware.apply()
    key = (data[name].hex(), str(on))
    if key not in _images:
        # One at a time: what is on a GPU stays there as long as somebody holds it.
        _images.clear()
        _images[key] = Images(ray.get(data[name]), on)
    return _images[key]


def _start(job: Job, own: Sequence[Checkpoint], store: SweepStore) -> State | None:
    """Returns the state to go on from: the newest whole checkpoint of the path itself or of those it forked from."""
    for checkpoint in sorted([*job.ancestors, *own], key=lambda c: -c.epoch):
        content = store.load_checkpoint(checkpoint)
        state = State.from_bytes(content) if content is not None else None
        if state and all(r.test_accuracy is not None for r in state.history[job.known :] if r.epoch in job.test_epochs):
            return state
    return None

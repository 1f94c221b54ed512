"""In the driver: what connects a run to Ray Tune."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune import CLIReporter, FailureConfig, RunConfig, Stopper, TuneConfig, Tuner
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweeps.tuning.driver import MAX_FAILURES, ROOM_TO_GROW, Run
from sweeps.tuning.errors import StorageError
from sweeps.tuning.head import head_watched
from sweeps.tuning.session import check_placement, grows, slots
from sweeps.tuning.travel import own_code_travels
from sweeps.tuning.worker import Train, train_path
from workloads.datasets import Dataset
from workloads.own_data import OwnDataset
from workloads.registry import added_workloads
from workloads.training import train


class _Paths(Searcher):  # type: ignore[misc]
    """Hands Tune the run's paths, one trial each."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._run.is_over():
            finished: str = Searcher.FINISHED
            return finished
        job = self._run.next_job(trial_id)
        return None if job is None else {"job": job.to_json()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "news" in result:
            self._run.take_in(trial_id, json.loads(result["news"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._run.complete(trial_id, error=error)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: a run is planned anew from the ledger, never from Tune's snapshots."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing, as `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Stop(Stopper):  # type: ignore[misc]
    """Ends trainings that nobody needs, and Tune when the run is to stop; asked again and again, writes records due.

    Not a callback of Tune's: for a single one it imports every logger it knows, if installed (MLflow: 0.7 s).
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._run.is_needless(trial_id)

    def stop_all(self) -> bool:
        return self._run.beat()

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Fifo(FIFOScheduler):  # type: ignore[misc]
    """Starts trials in the order they come; knows why workers died: no memory on their node, or a broken GPU."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "broken" in json.loads(result.get("news", "{}")):
            trial.max_failures = 0  # its process is about to end, and the trial has its result
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return decision

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # `trial.get_error` looks where Tune is going to copy the file to.
        with contextlib.suppress(OSError, TypeError):
            if _LOW_ON_MEMORY in Path(trial.error_file).read_text().rpartition("Failure #")[2]:
                self._run.out_of_memory.add(trial.trial_id)

    def __getstate__(self) -> dict[str, Any]:
        return {}


_LOW_ON_MEMORY = "running low on memory"
"""What Ray's memory monitor says of a worker that it has killed."""


@contextlib.contextmanager
def stop_on_signals(run: Run) -> Iterator[None]:
    """Lets the first SIGINT or SIGTERM end the run in good order, and the second at once.

    Python lets only the main thread hear of signals: in another one, they are for whoever started it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: object) -> None:
        if run.interrupted:
            raise KeyboardInterrupt
        run.interrupt()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_tree(run: Run, *, train: Train = train, data: dict[str, Dataset | OwnDataset] | None = None) -> None:
    """Trains every path of a run's tree, on the Ray session that is there.

    Args:
        run: What to train; its ledger has the results afterwards.
        train: The training function.
        data: Name -> data set that workers are handed (a stand-in needs none); emptied, so that only Ray's copy stays.

    Raises:
        PlacementError: No node has what a trial asks for.
    """
    placement = run.placement
    check_placement(placement)
    run.progress.counts.slots = slots(placement)
    run.room = ROOM_TO_GROW if grows() else run.progress.counts.slots
    data = {} if data is None else data
    shared = {name: ray.put(data.pop(name)) for name in list(data)}
    with own_code_travels():
        trainable = tune.with_resources(
            tune.with_parameters(train_path, data=shared, train=train, workloads=added_workloads()),
            {"cpu": placement.cpus_per_trial, "gpu": placement.gpus_per_trial},
        )
    # What Tune sets for PyTorch Lightning, which is not here: workers would get an environment of their own, and those
    # that Ray has started with would wait in vain. It is a second of every start.
    class_cache.DEFAULT_ENV_VARS.clear()
    with (
        tempfile.TemporaryDirectory(prefix="forksweep-") as scratch,
        stop_on_signals(run),
        _quiet(),
        head_watched(run.progress.say),
    ):
        tuner = Tuner(
            trainable,
            tune_config=TuneConfig(search_alg=_Paths(run), scheduler=_Fifo(run), num_samples=-1, reuse_actors=True),
            run_config=RunConfig(
                name="tune",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                stop=_Stop(run),
                progress_reporter=CLIReporter(),  # the one for notebooks clears what is shown there
                verbose=0,
            ),
        )
        run.show()
        try:
            tuner.fit()
            run.end()
        except OSError as error:
            raise StorageError(f"cannot write to {run.store.location}: {error}") from error
        except RayError as error:
            raise StorageError(f"Ray ended: {str(error).partition(chr(10))[0]}") from error
        finally:
            run.close()
    if run.storage_error is not None:
        raise StorageError(run.storage_error)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Tune's notes to itself: what a person should know, progress and report say."""
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

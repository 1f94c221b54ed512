"""Runs the paths of a fork tree on Ray Tune: the only module that imports Ray.

The plan is the tree's, the execution Ray's. A `Searcher` hands Tune one path at a time; a worker trains it under the name
of its leader, stores a checkpoint after every epoch and reports each record; the driver tells the tree, which says whose
record it is and which trials fork off.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from analysis.store import Checkpoint, SweepStore
from sweeps.ledger import Ledger
from sweeps.placement import Placement, in_ray_job
from sweeps.progress import Progress
from sweeps.trajectories import CheckpointKey, ForkTree, Path
from workloads import datasets
from workloads.registry import dataset_of
from workloads.training import Hardware, Images, State, train
from workloads.trial import Diverged, EpochRecord, TrialConfig

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1000000000")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "1000000000")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, Stopper, TuneConfig, Tuner
from ray.tune.search import Searcher

Train = Callable[..., Iterator[EpochRecord]]
"""`workloads.training.train`, or a stand-in with its arguments."""

MAX_FAILURES = 2
"""How often a path is tried again after its worker died."""


class PlacementError(Exception):
    """The trials cannot run on the machines there are."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is told: train this path, from the best checkpoint there is."""

    config: TrialConfig
    known: int
    """Epochs the driver has records for."""
    ancestors: tuple[Checkpoint, ...]
    """Checkpoints of other paths to start from, the best first."""
    test_epochs: tuple[int, ...]
    storage_path: str
    name: str
    hardware: Hardware

    def to_json(self) -> str:
        """Returns the job as text: Tune flattens, copies and logs anything richer."""
        return json.dumps(asdict(self) | {"config": self.config.to_json()})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Returns the job that `to_json` described."""
        values = json.loads(text)
        values["config"] = TrialConfig.from_json(values["config"])
        values["ancestors"] = tuple(Checkpoint(**checkpoint) for checkpoint in values["ancestors"])
        values["test_epochs"] = tuple(values["test_epochs"])
        values["hardware"] = Hardware(**values["hardware"])
        return cls(**values)


# -- in a worker ----------------------------------------------------------------------------------------------------


_images: dict[tuple[str, str], Images] = {}
"""Data sets on this worker's device: an actor trains many paths, the data stays."""


def train_path(config: Mapping[str, str], data: Mapping[str, Any], train: Train) -> None:
    """Trains one path in a worker and reports each epoch, or how it ended."""
    job = Job.from_json(config["job"])
    store = SweepStore(job.storage_path, job.name)
    try:
        images = _images_for(job, data)
        start = _start(job, store)
        stored: dict[int, str] = {}

        def save(state: State) -> None:
            stored[state.epoch] = store.save_checkpoint(job.config.trial_id, state.epoch, state.to_bytes()).path

        # Epochs that a checkpoint has seen but the driver has not (it was killed in between).
        for record in start.history[job.known :] if start else ():
            _report(record=record.to_json())
        records = train(
            job.config, images=images, hardware=job.hardware, start=start, save=save, test_epochs=job.test_epochs
        )
        for record in records:
            _report(record=record.to_json(), checkpoint=stored.pop(record.epoch, None))
    except Diverged as outcome:
        _report(end="diverged", error=str(outcome))
    except Exception as error:  # noqa: BLE001 - whatever a trial raises is its result, the others go on
        status = "out_of_memory" if type(error).__name__ == "OutOfMemoryError" else "failed"
        message = f"{type(error).__name__}: {error}".strip()
        _report(end=status, error=message.partition("\n")[0], traceback=traceback.format_exc())


def _report(**news: Any) -> None:
    """Reports to the driver, as one text: Tune flattens anything richer, and hangs on to it."""
    tune.report({"news": json.dumps(news)})


def _images_for(job: Job, data: Mapping[str, Any]) -> Images | None:
    dataset = dataset_of(job.config.workload)
    if dataset.name not in data:
        return None
    device = job.hardware.apply()
    key = (dataset.digest, str(device))
    if key not in _images:
        _images[key] = Images(ray.get(data[dataset.name]), device)
    return _images[key]


def _start(job: Job, store: SweepStore) -> State | None:
    """Returns the state to go on from: the newest whole checkpoint of the path itself or of those it forked from."""
    own = store.list_checkpoints(job.config.trial_id)
    for checkpoint in sorted([*job.ancestors, *own], key=lambda c: -c.epoch):
        content = store.load_checkpoint(checkpoint)
        state = State.from_bytes(content) if content is not None else None
        if state and all(r.test_loss is not None for r in state.history[job.known :] if r.epoch in job.test_epochs):
            return state
    return None


# -- in the driver --------------------------------------------------------------------------------------------------


class Run:
    """One run of a sweep's open paths: takes in what workers report, and says what to train next.

    Args:
        tree: The paths.
        ledger: Where records and statuses go.
        placement: What each trial gets.
        progress: What a person watches.
    """

    def __init__(self, tree: ForkTree, ledger: Ledger, placement: Placement, progress: Progress) -> None:
        self.tree = tree
        self.ledger = ledger
        self.store = ledger.store
        self.placement = placement
        self.progress = progress
        self.stopping = False
        self.interrupted = False
        self.checkpoints: dict[CheckpointKey, Checkpoint] = {
            (checkpoint.trial_id, checkpoint.epoch): checkpoint for checkpoint in self.store.list_checkpoints()
        }
        self._leaders: dict[str, Path] = {}
        self.trained = 0

    def next_job(self, tune_id: str) -> Job | None:
        """Returns what to train next, or None when nothing can start now."""
        limit = self.placement.max_concurrent
        if limit is not None and len(self._leaders) >= limit:
            return None
        path = self.tree.take()
        if path is None:
            return None
        self._leaders[tune_id] = path
        self.progress.started(path.leader.trial_id, len(path.members))
        return Job(
            config=self.ledger.trials[path.leader.trial_id],
            known=path.epoch,
            ancestors=tuple(self.checkpoints[key] for key in path.ancestors() if key in self.checkpoints),
            test_epochs=tuple(path.test_epochs()),
            storage_path=self.store.storage_path,
            name=self.store.name,
            hardware=self.placement.hardware(),
        )

    def take_in(self, tune_id: str, result: Mapping[str, Any]) -> None:
        """Takes in what a worker reported."""
        path = self._leaders.get(tune_id)
        if path is None:
            return
        if "end" in result:
            self._end(tune_id, path, result)
        elif "record" in result:
            self._record(path, result["record"], result.get("checkpoint"))
        self._show()

    def _record(self, path: Path, record: Mapping[str, Any], checkpoint_path: str | None) -> None:
        leader = path.leader.trial_id
        checkpoint = None
        if checkpoint_path is not None:
            checkpoint = Checkpoint(leader, record["epoch"], checkpoint_path)
            self.checkpoints[leader, record["epoch"]] = checkpoint
        before = path.anchor
        delivery = self.tree.advance(leader, record)
        self.trained += 1
        self.progress.record(leader, record, len(path.members))
        if delivery is None:
            return
        self.ledger.deliver(delivery, checkpoint)
        self._drop_checkpoint(before)

    def _end(self, tune_id: str, path: Path, result: Mapping[str, Any]) -> None:
        leader, before = path.leader.trial_id, path.anchor
        if result["end"] == "diverged":
            for member in self.tree.diverge(leader):
                self.ledger.set_status(member.trial_id, "diverged", error=result["error"])
        else:
            self.tree.drop(leader)
            self.ledger.set_status(leader, result["end"], error=result["error"], traceback=result["traceback"])
        self._drop_checkpoint(before)
        self._forget(tune_id)

    def complete(self, tune_id: str, *, error: bool) -> None:
        """A worker is done with a path, or died on it once too often."""
        path = self._leaders.get(tune_id)
        if path is None:
            return
        if self.tree.is_live(path.leader.trial_id) and not self.stopping:
            message = f"the worker died {MAX_FAILURES + 1} times" if error else "the worker ended without a result"
            self._end(tune_id, path, {"end": "failed", "error": message, "traceback": None})
        self._forget(tune_id)
        self._show()

    def _forget(self, tune_id: str) -> None:
        path = self._leaders.pop(tune_id, None)
        if path is not None:
            self.progress.ended(path.leader.trial_id)

    def _drop_checkpoint(self, key: CheckpointKey | None) -> None:
        """Deletes a checkpoint that nobody could go on from, unless it is some trial's final one."""
        if key is None or key not in self.checkpoints or self.tree.needs(key):
            return
        if self.checkpoints[key].path not in self.ledger.final_checkpoints:
            self.store.delete(self.checkpoints.pop(key).path)

    def _show(self) -> None:
        statuses = self.ledger.counts()
        c = self.progress.counts
        c.trials = len(self.ledger.trials)
        c.trials_done = len(self.ledger.statuses)
        c.failed = statuses["failed"] + statuses["out_of_memory"]
        c.trial_epochs = sum(trial.epochs for trial in self.ledger.trials.values())
        c.delivered = self.ledger.delivered
        c.trained = self.trained
        c.running = min(len(self._leaders), c.slots)  # Tune asks for one path more than can run
        c.waiting = self.tree.waiting
        c.epochs_left = sum(path.remaining for path in self.tree.paths)
        self.progress.update()


class _Paths(Searcher):  # type: ignore[misc]
    """Hands Tune the run's paths, one trial each."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._run.stopping or self._run.tree.done:
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
    """Ends Tune when the run is to stop."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._run.stopping

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Beat(Callback):  # type: ignore[misc]
    """Writes records that are due, also while no new ones come in."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._run.ledger.flush(only_if_due=True)

    def __getstate__(self) -> dict[str, Any]:
        return {}


@contextlib.contextmanager
def stop_on_signals(run: Run) -> Iterator[None]:
    """Lets the first SIGINT or SIGTERM end the run in good order, and the second at once."""

    def stop(signum: int, frame: object) -> None:
        if run.interrupted:
            raise KeyboardInterrupt
        run.stopping = run.interrupted = True

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ray_session(placement: Placement, **init: Any) -> Iterator[None]:
    """Starts a local Ray, or joins the cluster of the address or of the job this is; leaves a Ray already joined alone.

    Raises:
        PlacementError: The address does not answer.
    """
    if ray.is_initialized():
        yield
        return
    address = placement.address or ("auto" if in_ray_job() else "local")
    if address == "local":
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        init.setdefault("include_dashboard", False)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **init)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise PlacementError(f"no Ray cluster answers at {address!r}: {str(error).partition(chr(10))[0]}") from None
    try:
        yield
    finally:
        ray.shutdown()


def check_placement(placement: Placement) -> None:
    """Refuses what Ray would wait for for ever.

    Raises:
        PlacementError: No node has what a trial asks for.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for resource, wanted in (("CPU", placement.cpus_per_trial), ("GPU", placement.gpus_per_trial)):
        most = max((node.get(resource, 0.0) for node in nodes), default=0.0)
        if wanted > most:
            flag = f"--{resource.lower()}s-per-trial"
            raise PlacementError(f"{flag} {wanted:g} asks for more than any node has ({most:g} {resource}s)")


def slots(placement: Placement) -> int:
    """Returns how many trials fit at once."""
    total = ray.cluster_resources()
    fits = [
        int(total.get(resource, 0.0) / wanted)
        for resource, wanted in (("CPU", placement.cpus_per_trial), ("GPU", placement.gpus_per_trial))
        if wanted > 0
    ]
    limit = placement.max_concurrent
    return max(1, min(fits + ([limit] if limit is not None else [])))


def run_tree(run: Run, *, train: Train = train, load_data: bool = True) -> None:
    """Trains every path of a run's tree, on the Ray session that is there.

    Args:
        run: What to train; its ledger has the results afterwards.
        train: The training function.
        load_data: Whether workers are handed the data sets (a stand-in needs none).

    Raises:
        PlacementError: No node has what a trial asks for.
        DataError: A data set's files are missing or damaged.
    """
    placement = run.placement
    check_placement(placement)
    run.progress.counts.slots = slots(placement)
    names = {dataset_of(trial.workload).name for trial in run.ledger.open} if load_data else set()
    data = {name: ray.put(datasets.load(name)) for name in names}
    trainable = tune.with_resources(
        tune.with_parameters(train_path, data=data, train=train),
        {"cpu": placement.cpus_per_trial, "gpu": placement.gpus_per_trial},
    )
    with tempfile.TemporaryDirectory(prefix="forksweep-") as scratch, stop_on_signals(run), _quiet():
        tuner = Tuner(
            trainable,
            tune_config=TuneConfig(search_alg=_Paths(run), num_samples=-1, reuse_actors=True),
            run_config=RunConfig(
                name="tune",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                stop=_Stop(run),
                callbacks=[_Beat(run)],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        finally:
            run.ledger.flush()


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

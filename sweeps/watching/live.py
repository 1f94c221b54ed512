"""Live logs: every logical trial, shared epochs too, to TensorBoard and MLflow while the sweep runs.

They are written by the driver as records come in. What they hold can always be made anew from the sweep's own files, so
a log that fails is given up with a warning, and the sweep goes on.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import textwrap
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from analysis.measures import tags
from analysis.schema import SCALARS
from analysis.store import SweepStore, TrialStatus
from workloads.errors import InputError
from workloads.measure import Measure
from workloads.registry import measure_of
from workloads.trial import FINAL_STATUSES, SETTINGS_OF, TrialConfig

FOLDER = "live"
"""In the sweep's folder: where the logs are."""
FINAL: Mapping[str, str] = {
    "val_accuracy": "final_val_accuracy",
    "val_loss": "final_val_loss",
    "test_accuracy": "test_accuracy",
    "test_loss": "test_loss",
}
"""Field of a trial's last record -> column of the trials table that it is the value of."""

Record = Mapping[str, Any]


class Log(Protocol):
    """Where trials are written."""

    def begin(self, trial: TrialConfig, records: Sequence[Record]) -> None:
        """Takes in a trial and the records it has from before; called once a trial, before anything else of it."""

    def record(self, trial_id: str, record: Record) -> None:
        """Takes in one more record."""

    def ended(self, trial_id: str, status: TrialStatus, last: Record | None) -> None:
        """Takes in how a trial ended, and its last record if it has one."""


class Live:
    """Hands records to logs; a log that fails is given up.

    Until `start`, everything is held back: before the sweep is stored, nothing may be in its folder.

    Args:
        logs: Name -> log.
        complain: Called with a sentence when a log is given up.
    """

    def __init__(self, logs: Mapping[str, Log], complain: Callable[[str], object] = print) -> None:
        self._logs = dict(logs)
        self._complain = complain
        self._trials: dict[str, TrialConfig] = {}
        self._last: dict[str, Record] = {}
        self._begun: set[str] = set()
        self._held_back: list[Callable[[], None]] | None = []

    def start(self) -> None:
        """Writes what was held back, and from now on what comes in."""
        held_back, self._held_back = self._held_back or [], None
        for action in held_back:
            action()

    def begin(
        self,
        trials: Iterable[TrialConfig],
        known: Mapping[str, Sequence[Record]],
        statuses: Mapping[str, TrialStatus],
    ) -> None:
        """Takes in trials, and what is known of them from before."""
        new = {trial.trial_id: trial for trial in trials}
        self._trials |= new
        for trial_id in new:
            if self._logs and (trial_id in known or trial_id in statuses):
                self._later(partial(self._begin, trial_id, known.get(trial_id, ())))
                if trial_id in statuses:
                    self.ended(statuses[trial_id])

    def record(self, record: Record) -> None:
        """Takes in one more record of a trial."""
        if self._logs:
            self._later(partial(self._record, record["trial_id"], record))

    def ended(self, status: TrialStatus) -> None:
        """Takes in how a trial ended."""
        if self._logs and status.trial_id in self._trials:
            self._later(partial(self._ended, status))

    def _later(self, action: Callable[[], None]) -> None:
        if self._held_back is None:
            action()
        else:
            self._held_back.append(action)

    def _record(self, trial_id: str, record: Record) -> None:
        self._begin(trial_id, ())
        self._last[trial_id] = record
        self._each(lambda log: log.record(trial_id, record))

    def _ended(self, status: TrialStatus) -> None:
        self._begin(status.trial_id, ())
        self._each(lambda log: log.ended(status.trial_id, status, self._last.get(status.trial_id)))

    def _begin(self, trial_id: str, records: Sequence[Record]) -> None:
        if trial_id in self._begun:
            return
        self._begun.add(trial_id)
        if records:
            self._last[trial_id] = records[-1]
        self._each(lambda log: log.begin(self._trials[trial_id], records))

    def _each(self, action: Callable[[Log], None]) -> None:
        for name, log in list(self._logs.items()):
            try:
                # What other packages warn of among themselves is of no use to the one who watches a sweep.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    action(log)
            except Exception as error:  # noqa: BLE001 - a log never stops a sweep
                del self._logs[name]
                reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
                self._complain(f"--log {name} failed and was disabled: {reason}")


def hyperparameters(trial: TrialConfig) -> dict[str, bool | int | float | str]:
    """Returns what a trial is, in plain values: fields by name, settings as `optimizer.momentum`; None is left out."""
    values = trial.to_json()
    flat = {name: value for name, value in values.items() if name not in SETTINGS_OF.values()}
    flat |= {f"{kind}.{name}": value for kind, field in SETTINGS_OF.items() for name, value in values[field].items()}
    return {
        name: json.dumps(value) if isinstance(value, list) else value
        for name, value in flat.items()
        if value is not None
    }


class TensorBoardLog:
    """Writes a run for each trial: scalars by epoch, hyperparameters and final metrics.

    Args:
        folder: For `tensorboard --logdir`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seconds: dict[str, float] = {}
        self._measures: dict[str, Measure] = {}

    def _path(self, trial_id: str) -> Path:
        return self._folder / trial_id / "events.out.tfevents.0.live"

    def begin(self, trial: TrialConfig, records: Sequence[Record]) -> None:
        """Starts a trial's file anew."""
        from analysis import event_files

        path = self._path(trial.trial_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(event_files.encoded([event_files.start_event(trial.trial_id, hyperparameters(trial))]))
        self._seconds[trial.trial_id] = 0.0
        self._measures[trial.trial_id] = measure_of(trial)
        for record in records:
            self.record(trial.trial_id, record)

    def record(self, trial_id: str, record: Record) -> None:
        """Appends an epoch's scalars."""
        from analysis import event_files

        self._seconds[trial_id] += record["train_seconds"]
        event = event_files.scalars_event(record, record["epoch"], self._seconds[trial_id], self._measures[trial_id])
        self._append(trial_id, event_files.encoded([event], first=False))

    def ended(self, trial_id: str, status: TrialStatus, last: Record | None) -> None:
        """Appends status and final metrics."""
        from analysis import event_files

        final = {column: last[name] if last else None for name, column in FINAL.items()}
        seconds, measure = self._seconds[trial_id], self._measures[trial_id]
        events = event_files.end_events(final, status.status, status.epochs_run, seconds, measure)
        self._append(trial_id, event_files.encoded(events, first=False))

    def _append(self, trial_id: str, content: bytes) -> None:
        with self._path(trial_id).open("ab") as file:
            file.write(content)


class MlflowLog:
    """Writes a run for each trial into one experiment: metrics by epoch, parameters, final metrics and status.

    Args:
        uri: The tracking server or store.
        experiment: Name of the experiment.
        sweep: Where the sweep is: a server may hold others of the same name.
    """

    TRIAL_TAG = "forksweep.trial_id"
    SWEEP_TAG = "forksweep.sweep"
    STATUS_TAG = "forksweep.status"

    def __init__(self, uri: str, experiment: str, sweep: str) -> None:
        self._uri = uri
        self._experiment = experiment
        self._sweep = sweep
        self._client: Any = None
        self._experiment_id = ""
        self._runs: dict[str, str] = {}
        self._measures: dict[str, Measure] = {}
        self._written: dict[str, str] = {}
        """Trial -> the status that its run has from an earlier start of the sweep."""

    def _connect(self) -> None:
        """Opens the store at the first trial: it takes seconds, and nothing may be written before the sweep starts."""
        for name, value in MLFLOW_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self._uri)
        if self._uri.startswith(_SQLITE):
            Path(self._uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        found = client.get_experiment_by_name(self._experiment)
        self._experiment_id = found.experiment_id if found else client.create_experiment(self._experiment)
        self._client = client

    def begin(self, trial: TrialConfig, records: Sequence[Record]) -> None:
        """Starts a trial's run; one of an earlier start goes on if it holds these records, and is replaced if not."""
        from mlflow.entities import Param, RunTag

        if self._client is None:
            self._connect()
        self._measures[trial.trial_id] = measure_of(trial)
        marks = {self.TRIAL_TAG: trial.trial_id, self.SWEEP_TAG: self._sweep}
        found = self._client.search_runs([self._experiment_id], f"tags.`{self.TRIAL_TAG}` = '{trial.trial_id}'")
        for run in (run for run in found if marks.items() <= run.data.tags.items()):
            if len(self._client.get_metric_history(run.info.run_id, SCALARS["val_loss"])) == len(records):
                self._runs[trial.trial_id] = run.info.run_id
                self._written[trial.trial_id] = run.data.tags.get(self.STATUS_TAG, "")
                return
            self._client.delete_run(run.info.run_id)
        name = f"{trial.optimizer}, {trial.scheduler}, lr {trial.lr:g}, seed {trial.seed}"
        run_id = self._client.create_run(self._experiment_id, run_name=name).info.run_id
        params = [Param(key, str(value)) for key, value in hyperparameters(trial).items()]
        self._client.log_batch(run_id, params=params, tags=[RunTag(tag, value) for tag, value in marks.items()])
        self._runs[trial.trial_id] = run_id
        for record in records:
            self.record(trial.trial_id, record)

    def record(self, trial_id: str, record: Record) -> None:
        """Logs an epoch's metrics."""
        self._log(trial_id, record, SCALARS)

    def ended(self, trial_id: str, status: TrialStatus, last: Record | None) -> None:
        """Logs final metrics and status, unless they are there."""
        if self._written.get(trial_id) == status.status:
            return
        if last is not None and status.status in FINAL_STATUSES:
            self._log(trial_id, last, FINAL)
        run_id = self._runs[trial_id]
        self._client.set_tag(run_id, self.STATUS_TAG, status.status)
        ends = dict.fromkeys(FINAL_STATUSES, "FINISHED") | {"cancelled": "KILLED", "early_stopped": "KILLED"}
        self._client.set_terminated(run_id, ends.get(status.status, "FAILED"))

    def _log(self, trial_id: str, record: Record, columns: Mapping[str, str]) -> None:
        """Logs some fields of a record under the names that `columns` gives them, said for the trial's measure."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        named = tags(columns, self._measures[trial_id]).items()
        metrics = [Metric(tag, record[name], now, record["epoch"]) for name, tag in named if record[name] is not None]
        self._client.log_batch(self._runs[trial_id], metrics=metrics)


MLFLOW_ENVIRONMENT: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # The sweep waits for the server: one that does not answer is given up in seconds, not minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""What MLflow is told, unless the user's environment says otherwise."""
_SQLITE = "sqlite:///"
_TRACKING_URI = "MLFLOW_TRACKING_URI"


def _tensorboard(store: SweepStore) -> Log:
    if not store.is_local:
        raise InputError(
            f"--log tensorboard needs a local folder, not {store.location}; analysis/export.py writes there"
        )
    return TensorBoardLog(Path(store.root) / FOLDER / "tensorboard")


def _mlflow(store: SweepStore) -> Log:
    uri = os.environ.get(_TRACKING_URI)
    if uri is None and not store.is_local:
        raise InputError(
            f"--log mlflow needs a local folder, not {store.location}, or a server named by {_TRACKING_URI}"
        )
    return MlflowLog(uri or f"{_SQLITE}{store.root}/{FOLDER}/mlflow.db", store.name, store.location)


LOGS: Mapping[str, Callable[[SweepStore], Log]] = {"tensorboard": _tensorboard, "mlflow": _mlflow}
"""Name of a log, its package and its extra -> what opens it."""


def open_logs(names: Iterable[str], store: SweepStore) -> dict[str, Log]:
    """Returns the logs of that name for a sweep; nothing is written yet.

    Raises:
        InputError: A package is not installed, or the sweep's folder is none a log can write to.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"--log {name} needs the package {name}: pip install -e '.[{name}]'")
    return {name: LOGS[name](store) for name in names}

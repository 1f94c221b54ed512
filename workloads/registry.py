"""WORKLOADS: what can be trained, one row each; and the code that completes and validates a trial's settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from torch import Generator, nn

from workloads.datasets import DATA_ROOT, SIZE, Dataset, DatasetRow, load
from workloads.errors import InputError
from workloads.lenet import LeNet, initialise
from workloads.measure import ACCURACY, Measure
from workloads.objectives import CLASSIFICATION, Objective
from workloads.optimizers import OPTIMIZERS
from workloads.own_data import OwnData, OwnDataset
from workloads.own_images import NAME as OWN_IMAGES
from workloads.own_images import absolute, own_images
from workloads.published import DATASETS
from workloads.rows import Default, NotApplicableError, Range, Refusals, Row, complete, find
from workloads.schedulers import SCHEDULERS, SCORES, UNSCHEDULED, Schedule, bare_optimizer
from workloads.trial import LEFT_TO_SEED, Setting, Settings, TrialConfig, canonical_json

SETTINGS: Mapping[str, Default] = {
    "label_smoothing": 0.0,
    "clip_norm": None,
    "shift": 0,
    "flip": False,
    "erasing": 0.0,
    "batch_norm": False,
    "balance": "none",
    "thin_classes": (),
    "thin_to": 1.0,
}
"""The settings every workload has; all are off by default. docs/data.md explains them."""

DataSource = DatasetRow | OwnData
"""What is known of a data set before it is read; both have `name, train, val, test, classes, digest`."""


@dataclass(frozen=True, kw_only=True, eq=False)  # known by identity: a user may change theirs and keep its name
class WorkloadRow(Row):
    """A network and the data set to train it on."""

    dataset: str
    """Name of the data set."""
    model: Callable[[DataSource, Settings], nn.Module]
    """Builds the network for a data set and the row's settings; its random draws are a function of the seed."""
    initialise: Callable[[nn.Module, Generator], None] | None = None
    """Sets initial weights from a generator seeded by the trial; None keeps those the network was built with."""
    settings: Mapping[str, Default] = field(default_factory=dict)
    """The network's own settings; `SETTINGS` are added, with their choices and refusals."""
    shared: frozenset[str] = frozenset(SETTINGS)
    """Which of `SETTINGS` make sense for it."""
    allowed: Mapping[str, Range] = field(default_factory=dict)
    """The numbers allowed for the network's own settings."""
    objective: Objective = CLASSIFICATION
    """What is minimised, and what configurations are ranked by."""
    data: OwnData | None = None
    """A user's own data; None for a data set of `DATASETS` or images in a CSV."""

    ranges: ClassVar[Mapping[str, Range]] = {
        "label_smoothing": Range(at_least=0, below=1),
        "clip_norm": Range(above=0),
        "shift": Range(at_least=0, below=SIZE),
        "erasing": Range(at_least=0, at_most=1),
        "thin_classes": Range(at_least=0),
        "thin_to": Range(above=0, at_most=1),
    }

    def __post_init__(self) -> None:
        shared = {"settings": SETTINGS, "choices": _CHOICES}
        for name, values in shared.items():
            kept = {setting: value for setting, value in values.items() if setting in self.shared}
            object.__setattr__(self, name, {**kept, **getattr(self, name)})
        if "thin_to" in self.shared:
            object.__setattr__(self, "refuses", {**_REFUSES, **self.refuses})
        object.__setattr__(self, "ranges", {**type(self).ranges, **self.allowed})


_CHOICES = {"balance": ("none", "oversample", "class_weights")}
_REFUSES: Refusals = {
    "thin_to has no effect unless thin_classes is set": lambda s: s["thin_to"] < 1 and not s["thin_classes"],
}


def _lenet(dataset: DataSource, settings: Settings) -> nn.Module:
    assert isinstance(dataset, DatasetRow)
    return LeNet(dataset.channels, len(dataset.classes), batch_norm=bool(settings["batch_norm"]))


def _on(dataset: str, doc: str, more: Mapping[str, Default]) -> WorkloadRow:
    return WorkloadRow(
        name=f"lenet_{dataset}",
        doc=f"LeNet, cross-entropy on logits. {doc}",
        dataset=dataset,
        model=_lenet,
        initialise=initialise,
        settings=more,
    )


WORKLOADS: dict[str, WorkloadRow] = {
    row.name: row
    for row in (
        *(_on(dataset.name, dataset.doc, {}) for dataset in DATASETS.values()),
        _on(OWN_IMAGES, "Your own images, listed in a CSV whose path is a setting.", {"path": ""}),
    )
}
"""Name -> row. A user script may add rows before it starts its sweep."""

_SHIPPED = dict(WORKLOADS)


def added_workloads() -> dict[str, WorkloadRow]:
    """Returns the rows added by a user script, which other processes do not have."""
    return {name: row for name, row in WORKLOADS.items() if _SHIPPED.get(name) is not row}


def dataset_of(config: TrialConfig) -> DataSource:
    """Returns where a trial's data set comes from.

    Raises:
        DataError: It is the user's own data set, and its CSV cannot be used.
    """
    row = WORKLOADS[config.workload]
    if row.data is not None:
        return row.data
    name = row.dataset
    return own_images(str(config.workload_settings.get("path", ""))) if name == OWN_IMAGES else DATASETS[name]


def data_of(source: DataSource, root: Path = DATA_ROOT) -> Dataset | OwnDataset:
    """Returns a data set, ready to train on.

    Args:
        source: Where it comes from.
        root: The folder of downloaded data sets.

    Raises:
        InputError: It cannot be read, or not be used.
    """
    return source.dataset if isinstance(source, OwnData) else load(source, root)


def objective_of_trial(config: TrialConfig) -> Objective:
    """Returns what a trial minimises and is ranked by."""
    return WORKLOADS[config.workload].objective


def measure_of(config: TrialConfig) -> Measure:
    """Returns what the configurations of a trial's workload are ranked by."""
    return objective_of_trial(config).measure


def settings_of(config: TrialConfig) -> dict[str, Setting]:
    """Returns a trial's workload settings, with those of `SETTINGS` that its workload lacks as they do nothing."""
    neutral: dict[str, Any] = dict(SETTINGS)
    return neutral | dict(config.workload_settings)


def about_imbalance(config: TrialConfig) -> bool:
    """Whether per-class metrics are recorded for a trial."""
    settings = settings_of(config)
    return settings["balance"] != "none" or bool(settings["thin_classes"])


def train_images(config: TrialConfig) -> int:
    """Returns the number of images the trial trains on."""
    available = dataset_of(config).train
    return available if config.train_limit is None else min(config.train_limit, available)


def steps_per_epoch(config: TrialConfig) -> int:
    """Returns the number of training steps per epoch; the last batch may be smaller."""
    return -(-train_images(config) // config.batch_size)


def resolve(config: TrialConfig) -> TrialConfig:
    """Returns the config with every setting filled in and validated, including by torch.

    Raises:
        InputError: A name or setting is unknown or out of range.
        NotApplicableError: The settings make no sense together.
    """
    workload = find("workload", WORKLOADS, config.workload)
    optimizer = find("optimizer", OPTIMIZERS, config.optimizer)
    scheduler = find("scheduler", SCHEDULERS, config.scheduler)
    if optimizer.not_applicable:
        raise NotApplicableError(f"optimizer {optimizer.name!r}: {optimizer.not_applicable}")
    config = config.replace(
        workload_settings=_placed(complete("workload", workload, config.workload_settings, config.epochs)),
        optimizer_settings=complete("optimizer", optimizer, config.optimizer_settings, config.epochs),
        scheduler_settings=complete("scheduler", scheduler, config.scheduler_settings, config.epochs),
    )
    if optimizer.unscheduled and (scheduler.name != UNSCHEDULED or config.scheduler_settings["warmup_epochs"]):
        raise NotApplicableError(f"optimizer {optimizer.name!r} with a schedule: {optimizer.unscheduled}")
    available = train_images(config)
    if config.batch_size > available:
        raise InputError(f"batch_size must be at most the {available} training images, not {config.batch_size}")
    _check_monitor(config, workload)
    chosen, classes = settings_of(config)["thin_classes"], len(dataset_of(config).classes)
    if isinstance(chosen, tuple) and max(chosen, default=-1) >= classes:
        raise InputError(f"workload.thin_classes must be classes from 0 to {classes - 1}, not {list(chosen)}")
    _check_order(config)
    if config.per_image and not workload.objective.each_right:
        raise InputError(
            f"per_image records which examples are right or wrong, and those of {config.workload!r} are not: they are "
            f"measured by {workload.objective.measure.name}; leave it out"
        )
    _try_settings(canonical_json(config.replace(seed=0, per_image=False, **LEFT_TO_SEED).to_json()), workload)
    return config


def _check_order(config: TrialConfig) -> None:
    """Refuses a change of the order that says nothing, or comes too late."""
    if config.reorder_from is None:
        return
    if config.order_seed is None:
        raise InputError(
            f"reorder_from {config.reorder_from} asks for another order of the images from that epoch on: say which "
            "with order_seed, e.g. order_seed=1,2"
        )
    if config.reorder_from > config.epochs:
        raise NotApplicableError(
            f"reorder_from must be at most the trial's {config.epochs} epochs, not {config.reorder_from}"
        )


def _check_monitor(config: TrialConfig, workload: WorkloadRow) -> None:
    """Refuses to monitor a measure that the workload is not measured by."""
    monitor, measure = config.scheduler_settings.get("monitor"), workload.objective.measure
    own = "val_score" if measure.higher_is_better else "val_error"
    fits = "val_accuracy" if measure.name == ACCURACY.name else own
    if monitor in SCORES and monitor != fits:
        raise NotApplicableError(
            f"scheduler.monitor {monitor} does not fit {config.workload!r}, which is measured by {measure.name}: "
            f"monitor {fits}, or a loss"
        )


def _placed(settings: Settings) -> Settings:
    """Returns a workload's settings with `path` made absolute, so that the same file gives the same trial."""
    return {name: absolute(str(value)) if name == "path" else value for name, value in settings.items()}


@cache
def _try_settings(config_json: str, workload: WorkloadRow) -> None:
    """Lets torch validate the settings now, as it would at the start of the trial and at the end of warm-up.

    Args:
        config_json: The trial.
        workload: Its row, whose data say how many steps an epoch has.
    """
    config = TrialConfig.from_json(json.loads(config_json))
    try:
        optimizer = bare_optimizer(config)
    except (ValueError, TypeError) as error:
        raise InputError(f"torch rejects the settings of optimizer {config.optimizer!r}: {error}") from None
    steps = steps_per_epoch(config)
    try:
        Schedule(config, optimizer, steps).skip_warmup()
    except NotApplicableError as error:
        raise NotApplicableError(
            f"scheduler {config.scheduler!r} with optimizer {config.optimizer!r}: {error}"
        ) from None
    except ZeroDivisionError:
        total = steps * config.epochs
        raise NotApplicableError(
            f"scheduler {config.scheduler!r} divides by zero with {total} training steps"
        ) from None
    except (ValueError, TypeError) as error:
        raise InputError(f"torch rejects the settings of scheduler {config.scheduler!r}: {error}") from None

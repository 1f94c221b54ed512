"""WORKLOADS: what can be trained, one row each, and how a trial's settings are completed and checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from torch import nn

from workloads.datasets import DATASETS, DatasetRow
from workloads.lenet import LeNet
from workloads.optimizers import OPTIMIZERS
from workloads.rows import NotApplicableError, Row, complete, find
from workloads.schedulers import SCHEDULERS, UNSCHEDULED, Schedule, bare_optimizer
from workloads.trial import Settings, TrialConfig, canonical_json


@dataclass(frozen=True, kw_only=True)
class WorkloadRow(Row):
    """What is trained: a network on a data set."""

    dataset: str
    """Name of the data set."""
    model: Callable[[DatasetRow, Settings], nn.Module]
    """Builds the network for a data set and the row's settings; its weights are initialised later."""


def _lenet(dataset: DatasetRow, settings: Settings) -> nn.Module:
    return LeNet(dataset.channels, len(dataset.classes))


WORKLOADS: Mapping[str, WorkloadRow] = {
    row.name: row
    for row in (
        WorkloadRow(
            name="lenet_fashion_mnist",
            doc="LeNet on Fashion-MNIST, cross-entropy on logits.",
            dataset="fashion_mnist",
            model=_lenet,
        ),
    )
}
"""Name -> row."""


def dataset_of(workload: str) -> DatasetRow:
    """Returns the row of a workload's data set."""
    return DATASETS[WORKLOADS[workload].dataset]


def train_images(config: TrialConfig) -> int:
    """Returns how many images the trial trains on."""
    available = dataset_of(config.workload).train
    return available if config.train_limit is None else min(config.train_limit, available)


def steps_per_epoch(config: TrialConfig) -> int:
    """Returns the number of training steps in an epoch; the last may have fewer images."""
    return -(-train_images(config) // config.batch_size)


def resolve(config: TrialConfig) -> TrialConfig:
    """Returns the config with every setting filled in, checked by those who will use them.

    Raises:
        ValueError: A name or setting is unknown or out of range.
        NotApplicableError: The settings make no sense together.
    """
    workload = find("workload", WORKLOADS, config.workload)
    optimizer = find("optimizer", OPTIMIZERS, config.optimizer)
    scheduler = find("scheduler", SCHEDULERS, config.scheduler)
    if optimizer.not_applicable:
        raise NotApplicableError(f"optimizer {optimizer.name!r}: {optimizer.not_applicable}")
    config = config.replace(
        workload_settings=complete("workload", workload, config.workload_settings, config.epochs),
        optimizer_settings=complete("optimizer", optimizer, config.optimizer_settings, config.epochs),
        scheduler_settings=complete("scheduler", scheduler, config.scheduler_settings, config.epochs),
    )
    if optimizer.unscheduled and (scheduler.name != UNSCHEDULED or config.scheduler_settings["warmup_epochs"]):
        raise NotApplicableError(f"optimizer {optimizer.name!r} with a schedule: {optimizer.unscheduled}")
    available = train_images(config)
    if config.batch_size > available:
        raise ValueError(f"batch_size must be at most the {available} training images, not {config.batch_size}")
    _try_settings(canonical_json(config.replace(seed=0).to_json()))
    return config


@cache
def _try_settings(config_json: str) -> None:
    """Lets torch check the settings, as it will when the trial starts and when its warm-up is over."""
    config = TrialConfig.from_json(json.loads(config_json))
    try:
        optimizer = bare_optimizer(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"optimizer {config.optimizer!r} refuses its settings: {error}") from None
    steps = steps_per_epoch(config)
    try:
        Schedule(config, optimizer, steps).skip_warmup()
    except NotApplicableError as error:
        raise NotApplicableError(
            f"scheduler {config.scheduler!r} with optimizer {config.optimizer!r}: {error}"
        ) from None
    except ZeroDivisionError:
        total = steps * config.epochs
        raise ValueError(f"scheduler {config.scheduler!r} cannot act on a training of {total} steps") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"scheduler {config.scheduler!r} refuses its settings: {error}") from None

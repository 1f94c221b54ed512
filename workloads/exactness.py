"""Is a user's network trained exactly: the same epoch from the same state, the same weights?

Epochs are shared, and sweeps go on after a stop, because an epoch is a function of the state before it, the seed and
its number. A network can break that: with a random generator or a counter of its own, with weights outside of its
state, with an operation that is not deterministic. Here two epochs are trained in one go, and the second one once more
from the checkpoint of the first; then weights and results are compared bit for bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from functools import cache

import torch

from workloads import blame
from workloads.own import _Build
from workloads.registry import WORKLOADS, WorkloadRow
from workloads.schedulers import UNSCHEDULED
from workloads.training import Hardware, Images, State, train
from workloads.trial import CLOCK_FIELDS, LEFT_TO_SEED, RECORD_FIELDS, TrialConfig, canonical_json

EXAMPLES = 192
"""How many examples of the sample an epoch has here."""


def inexact(trials: Iterable[TrialConfig], hardware: Hardware) -> str | None:
    """Returns why trials of a user's own workload cannot be trained exactly; None if they can, as far as is seen.

    Args:
        trials: The trials, with all settings filled in. For each workload and its settings, the first is looked at.
        hardware: What they are trained on.
    """
    seen: set[tuple[str, str]] = set()
    for trial in trials:
        row = WORKLOADS[trial.workload]
        key = (trial.workload, canonical_json(trial.to_json()["workload_settings"]))
        if row.data is None or key in seen:
            continue
        seen.add(key)
        if (difference := _difference(_small(trial, row), row, hardware)) is not None:
            return difference
    return None


def _small(trial: TrialConfig, row: WorkloadRow) -> TrialConfig:
    assert row.data is not None
    count = min(EXAMPLES, len(row.data.sample.parts["train"]))
    return trial.replace(
        scheduler=UNSCHEDULED,
        scheduler_settings={},
        epochs=2,
        train_limit=count,
        batch_size=min(trial.batch_size, max(2, math.ceil(count / 3))),
        test_every_epoch=False,
        **LEFT_TO_SEED,
    )


@cache
def _difference(trial: TrialConfig, row: WorkloadRow, hardware: Hardware) -> str | None:
    assert row.data is not None
    assert isinstance(row.model, _Build)
    threads = torch.get_num_threads()
    try:
        images = Images(row.data.sample, hardware.apply())
        whole = _states(trial, images, hardware)
        again = _states(trial, images, hardware, start=whole[0])
        anew = _states(trial, images, hardware, epochs=1)
    except Exception:  # noqa: BLE001 - it diverges, or the trial itself will raise and report the same error
        return None
    finally:
        torch.set_num_threads(threads)
    for what, (one, other) in {
        "trained again with the same seed": (whole[0], anew[0]),
        "gone on with from a checkpoint": (whole[1], again[0]),
    }.items():
        if (differs := _first_difference(one, other)) is not None:
            place = blame.place_of(row.model.network)
            return f"{f'{place}: ' if place else ''}{trial.workload} gives other numbers when {what}: {differs} differs"
    return None


def _states(
    trial: TrialConfig, images: Images, hardware: Hardware, start: State | None = None, epochs: int | None = None
) -> list[State]:
    """Returns the state after each epoch trained, at most so many."""
    states: list[State] = []
    for _ in itertools.islice(train(trial, images=images, hardware=hardware, start=start, save=states.append), epochs):
        pass
    return states


def _first_difference(one: State, other: State) -> str | None:
    for name, tensor in one.model.items():
        if name not in other.model or not torch.equal(tensor, other.model[name]):
            return name
    before, after = one.history[-1], other.history[-1]
    for name in RECORD_FIELDS:
        if name not in CLOCK_FIELDS and getattr(before, name) != getattr(after, name):
            return name
    return None

"""Sweeps made up in a moment: real files of a real store, with losses from a formula instead of a training."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from analysis.store import SweepSpec, SweepStore, TrialStatus
from workloads.trial import EpochRecord, TrialConfig

GOOD_LR: Mapping[str, float] = {"sgd": 0.1, "momentum": 0.02, "rmsprop": 0.001, "adam": 0.001}
"""Optimizer -> the learning rate that suits it here."""

DECAY: Mapping[str, Callable[[float], float]] = {
    "none": lambda done: 1.0,
    "step": lambda done: 0.5 ** int(3 * done),
    "exponential": lambda done: 0.9 ** (30 * done),
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "one_cycle": lambda done: 0.1 + 0.9 * (done / 0.3 if done < 0.3 else (1 - done) / 0.7),
    "time_based": lambda done: 1 / (1 + 15 * done),
}
"""Schedule -> factor of the learning rate after a fraction of the epochs."""


def optimizer_trials(seeds: Sequence[int] = (1, 2, 3), epochs: int = 10) -> list[TrialConfig]:
    """Returns four optimizers over six learning rates each: some diverge, one learns nothing."""
    return [
        TrialConfig(optimizer=name, lr=float(f"{good * factor:.3g}"), seed=seed, epochs=epochs)
        for (name, good), factor, seed in product(GOOD_LR.items(), (0.1, 0.3, 1, 3, 10, 30), seeds)
    ]


def schedule_trials(
    lrs: Sequence[float] = (0.02,), seeds: Sequence[int] = (1,), epochs: int = 30, names: Sequence[str] = tuple(DECAY)
) -> list[TrialConfig]:
    """Returns one optimizer with several schedules."""
    return [
        TrialConfig(optimizer="momentum", scheduler=name, lr=lr, seed=seed, epochs=epochs)
        for name, lr, seed in product(names, lrs, seeds)
    ]


def plateau_trials(seeds: Sequence[int] = (1,), epochs: int = 30) -> list[TrialConfig]:
    """Returns the grid of 48 plateau settings."""
    grid = product((0.1, 0.3, 0.5), (1, 2, 5, 10), (1e-4, 1e-3, 1e-2, 1e-1), seeds)
    return [
        TrialConfig(
            optimizer="momentum",
            lr=0.02,
            scheduler="plateau",
            scheduler_settings={"factor": factor, "patience": patience, "threshold": threshold},
            seed=seed,
            epochs=epochs,
        )
        for factor, patience, threshold, seed in grid
    ]


def store_sweep(
    storage_path: Path | str,
    name: str,
    trials: Sequence[TrialConfig],
    *,
    failed: Mapping[str, str] | None = None,
    pending: Sequence[str] = (),
    **spec: Any,
) -> str:
    """Writes a sweep as if it had run and returns its location.

    Args:
        storage_path: Folder of sweeps.
        name: The sweep's name.
        trials: What it trained.
        failed: Trial id -> why it failed; such trials have no records.
        pending: Ids of trials that have not run yet.
        **spec: Fields of `SweepSpec` other than the usual.
    """
    failed = failed or {}
    usual: dict[str, Any] = {
        "question": "Which optimizer trains LeNet best?",
        "command": f"python sweeps/optimizers.py --name {name}",
        "datasets": {"lenet_fashion_mnist": "fashion_mnist"},
        "fingerprint": {"code": "0123456789abcdef", "torch": "2.14.1", "device": "cpu"},
        "provenance": {
            "git": {"commit": "c1c3beb", "dirty": False},
            "host": "laptop",
            "created": "2025-11-22T03:00:00Z",
        },
    }
    store = SweepStore(str(storage_path), name)
    store.write_spec(SweepSpec(name=name, trials=tuple(trials), **(usual | spec)))
    run = list(records([t for t in trials if t.trial_id not in failed and t.trial_id not in pending]))
    store.append_epochs([record.to_json() for record in run if isinstance(record, EpochRecord)])
    store.append_statuses(
        [status for status in run if isinstance(status, TrialStatus)]
        + [
            TrialStatus(trial_id=id_, status="failed", epochs_run=0, error=why, traceback=f"Traceback\n  {why}")
            for id_, why in failed.items()
        ]
    )
    return store.location


@dataclass(frozen=True)
class _Branch:
    """Trials that have been the same training so far."""

    trials: tuple[TrialConfig, ...]
    rates: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    leaders: tuple[str, ...] = ()
    """For each epoch the trial that computed it."""


def records(trials: Sequence[TrialConfig]) -> Iterator[EpochRecord | TrialStatus]:
    """Yields what the made-up training records, shared epochs computed by their leaders, and then each trial's status."""
    starts: dict[Any, list[TrialConfig]] = {}
    for trial in trials:
        starts.setdefault((trial.optimizer, trial.lr, trial.seed, trial.epochs), []).append(trial)
    branches = [_Branch(tuple(group)) for group in starts.values()]
    while branches:
        branch = branches.pop()
        leader = branch.trials[0]
        epoch = len(branch.rates) + 1
        diverged = leader.lr / GOOD_LR[leader.optimizer] > 20 and epoch > 3
        if epoch > leader.epochs or diverged:
            yield from _outcome(branch, diverged)
            continue
        by_rate: dict[float, list[TrialConfig]] = {}
        for trial in branch.trials:
            by_rate.setdefault(_rate(trial, branch.losses), []).append(trial)
        for rate, group in by_rate.items():
            rates = (*branch.rates, rate)
            losses = (*branch.losses, _loss(leader, rates))
            branches.append(_Branch(tuple(group), rates, losses, (*branch.leaders, group[0].trial_id)))


def _rate(trial: TrialConfig, losses: Sequence[float]) -> float:
    if trial.scheduler != "plateau":
        return trial.lr * DECAY[trial.scheduler](len(losses) / trial.epochs)
    factor, patience, threshold = (trial.scheduler_settings[key] for key in ("factor", "patience", "threshold"))
    assert isinstance(factor, float) and isinstance(patience, int) and isinstance(threshold, float)
    rate, best, bad = trial.lr, math.inf, 0
    for loss in losses:
        better = loss < best * (1 - threshold)
        best, bad = (loss, 0) if better else (best, bad + 1)
        if bad > patience:
            rate, bad = rate * factor, 0
    return rate


def _noise(*key: object) -> float:
    return random.Random(repr(key)).gauss(0, 1)


def _loss(trial: TrialConfig, rates: Sequence[float]) -> float:
    strength = trial.lr / GOOD_LR[trial.optimizer]
    if trial.optimizer == "rmsprop" and strength > 5:
        return 2.303 + 0.001 * _noise(trial.seed, rates)  # learned nothing
    distance = abs(math.log10(strength))
    decayed = 1 - rates[-1] / trial.lr
    floor = 0.12 + 0.1 * distance + 0.06 * (1 - decayed) * min(strength, 2)
    waited = sum(rates) / trial.lr
    return floor + 0.8 * (waited + 0.2) ** -(1 / (1 + distance)) + 0.006 * _noise(trial.optimizer, trial.seed, rates)


def _outcome(branch: _Branch, diverged: bool) -> Iterator[EpochRecord | TrialStatus]:
    for trial in branch.trials:
        for epoch, (rate, loss, leader) in enumerate(zip(branch.rates, branch.losses, branch.leaders, strict=True), 1):
            right = min(0.999, 1 - 0.36 * loss) if loss < 2 else 0.1
            noise = 0.002 * _noise(trial.seed, branch.rates[:epoch])
            val = max(0.1, min(0.93, right - 0.012 * epoch / trial.epochs) + noise)
            last = epoch == trial.epochs
            yield EpochRecord(
                trial_id=trial.trial_id,
                epoch=epoch,
                lr=rate,
                lr_last=rate,
                train_loss=loss,
                train_accuracy=right,
                val_loss=loss * 1.05 + 0.02 * epoch / trial.epochs,
                val_accuracy=round(val * 5000) / 5000,
                test_loss=loss * 1.08 if last else None,
                test_accuracy=round((val - 0.003) * 10000) / 10000 if last else None,
                function_evaluations=860,
                train_seconds=6.5,
                eval_seconds=0.4,
                computed_by=leader,
            )
        yield TrialStatus(
            trial_id=trial.trial_id,
            status="diverged" if diverged else "completed",
            epochs_run=len(branch.rates),
            error="train loss became nan in epoch 4" if diverged else None,
        )

"""Sweeps of a few trials with every number written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from analysis.loading import SweepData, combine
from analysis.schema import EPOCH_COLUMNS, STATUS_COLUMNS, polars_schema
from analysis.store import SweepSpec
from workloads.trial import Status, TrialConfig, packed


@dataclass(frozen=True)
class Run:
    """What one trial recorded; what is left out is the same for every epoch."""

    val_accuracy: Sequence[float]
    """One value an epoch."""
    train_loss: Sequence[float] | None = None
    """1.0 when None."""
    lr: Sequence[float] | None = None
    """The initial one when None."""
    computed_by: Sequence[TrialConfig] | None = None
    """For each epoch the trial that trained it; itself when None."""
    balanced_accuracy: Sequence[float] | None = None
    """On the validation images; none was measured when None."""
    status: Status = "completed"
    right: Sequence[Sequence[bool]] | None = None
    """Which validation images were right after each epoch; not recorded when None."""


def handmade(runs: Mapping[TrialConfig, Run]) -> SweepData:
    """Returns the sweep of these trials."""
    rows = [
        {
            "sweep": "handmade",
            "trial_id": trial.trial_id,
            "epoch": index + 1,
            "lr": run.lr[index] if run.lr else trial.lr,
            "lr_last": run.lr[index] if run.lr else trial.lr,
            "train_loss": run.train_loss[index] if run.train_loss else 1.0,
            "train_accuracy": accuracy,
            "val_loss": 1 - accuracy,
            "val_accuracy": accuracy,
            "val_balanced_accuracy": run.balanced_accuracy[index] if run.balanced_accuracy else None,
            "val_right": packed(run.right[index]) if run.right else None,
            "train_seconds": 2.0,
            "eval_seconds": 0.5,
            "computed_by": (run.computed_by[index] if run.computed_by else trial).trial_id,
        }
        for trial, run in runs.items()
        for index, accuracy in enumerate(run.val_accuracy)
    ]
    statuses = [
        {
            "sweep": "handmade",
            "trial_id": trial.trial_id,
            "status": run.status,
            "epochs_run": len(run.val_accuracy),
            "error": None if run.status == "completed" else f"{run.status} by hand",
        }
        for trial, run in runs.items()
        if run.status != "pending"
    ]
    spec = SweepSpec(
        name="handmade",
        question="Which one?",
        command="python by_hand.py",
        trials=tuple(runs),
        datasets={trial.workload: "fashion_mnist" for trial in runs},
        fingerprint={},
    )
    epochs = pl.DataFrame(rows, schema=polars_schema(EPOCH_COLUMNS))
    return combine([(spec, epochs, pl.DataFrame(statuses, schema=polars_schema(STATUS_COLUMNS)))])

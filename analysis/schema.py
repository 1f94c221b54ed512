"""What the files of a sweep hold: every column with its type, unit and meaning, and the schema version.

`epochs.parquet` and `trials.parquet` are built from these tables; a trial's settings add one column each, named
`optimizer_<setting>`, `scheduler_<setting>` or `workload_<setting>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from workloads.trial import SETTINGS_OF, Setting, TrialConfig

SCHEMA_VERSION = 1
"""Raised when a column changes its meaning or leaves; files of another version are refused, never guessed at."""

Unit = Literal["", "nats", "fraction", "seconds", "epochs", "images"]


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    type: type[pl.DataType]
    doc: str
    unit: Unit = ""


EPOCH_COLUMNS: tuple[Column, ...] = (
    Column("sweep", pl.String, "name of the sweep"),
    Column("trial_id", pl.String, "the trial this row belongs to"),
    Column("epoch", pl.Int32, "counted from 1"),
    Column("lr", pl.Float64, "learning rate of the epoch's first step"),
    Column("lr_last", pl.Float64, "learning rate of the epoch's last step"),
    Column("train_loss", pl.Float64, "mean over the training images while training", "nats"),
    Column("train_accuracy", pl.Float64, "training images right while training", "fraction"),
    Column("val_loss", pl.Float64, "mean over the validation images after the epoch", "nats"),
    Column("val_accuracy", pl.Float64, "validation images right after the epoch", "fraction"),
    Column("test_loss", pl.Float64, "mean over the test images; null where not evaluated", "nats"),
    Column("test_accuracy", pl.Float64, "test images right; null where not evaluated", "fraction"),
    Column("function_evaluations", pl.Int64, "forward and backward passes of the epoch"),
    Column("train_seconds", pl.Float64, "wall time of the epoch's training", "seconds"),
    Column("eval_seconds", pl.Float64, "wall time of its evaluations", "seconds"),
    Column("computed_by", pl.String, "the trial whose training this row comes from"),
    Column("grad_norm", pl.Float64, "mean norm of the gradient before clipping; null where it is not clipped"),
    Column("val_balanced_accuracy", pl.Float64, "mean of the classes' accuracies; null but for imbalance", "fraction"),
    Column("val_class_accuracy", pl.String, "each class's accuracy, a JSON list; null likewise", "fraction"),
    Column("test_balanced_accuracy", pl.Float64, "on the test images; null where not evaluated", "fraction"),
    Column("test_class_accuracy", pl.String, "on the test images; null where not evaluated", "fraction"),
)
"""`epochs.parquet`: one row for each (trial, epoch)."""

SCALARS: Mapping[str, str] = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "test_loss": "loss/test",
    "train_accuracy": "accuracy/train",
    "val_accuracy": "accuracy/validation",
    "test_accuracy": "accuracy/test",
    "val_balanced_accuracy": "balanced_accuracy/validation",
    "test_balanced_accuracy": "balanced_accuracy/test",
    "grad_norm": "gradient_norm",
    "lr": "learning_rate",
}
"""Column of the epochs table -> what TensorBoard and MLflow call it."""

STATUS_COLUMNS: tuple[Column, ...] = (
    Column("sweep", pl.String, "name of the sweep"),
    Column("trial_id", pl.String, "the trial"),
    Column("status", pl.String, "its status from here on; the last row of a trial holds"),
    Column("epochs_run", pl.Int32, "records it had by then; with fewer at hand the status does not hold", "epochs"),
    Column("error", pl.String, "why, in one line; null when all is well"),
    Column("traceback", pl.String, "the traceback of a failed trial"),
    Column("checkpoint", pl.String, "its final checkpoint, relative to the sweep's folder"),
    Column("best_checkpoint", pl.String, "that of its best epoch; null unless such are kept"),
    Column("taken_from", pl.String, "the sweep its records were taken over from; null when trained here"),
    Column("node", pl.String, "machine and Ray node its last epoch was trained on; null when none was trained here"),
    Column("device", pl.String, "device of that node: cpu, or cuda:<number>"),
    Column("gpu_fraction", pl.Float64, "GPUs it was granted; null on the CPU"),
    Column("neighbours", pl.Int32, "other trainings of the sweep on that device (cpu: node) when that epoch ended"),
)
"""What happened to trials, in the order it happened; folded into `trials.parquet`."""

TRIAL_COLUMNS: tuple[Column, ...] = (
    Column("sweep", pl.String, "name of the sweep"),
    Column("trial_id", pl.String, "hash of the trial's configuration"),
    Column("workload", pl.String, "what was trained"),
    Column("dataset", pl.String, "the workload's data set"),
    Column("optimizer", pl.String, "row of the optimizer table"),
    Column("scheduler", pl.String, "row of the schedule table"),
    Column("lr", pl.Float64, "initial learning rate"),
    Column("batch_size", pl.Int32, "images per training step", "images"),
    Column("epochs", pl.Int32, "epochs planned", "epochs"),
    Column("seed", pl.Int64, "decides initial weights and order of the images"),
    Column("train_limit", pl.Int32, "trained on the first that many images; null for all", "images"),
    Column("test_every_epoch", pl.Boolean, "test images evaluated after every epoch"),
    Column("status", pl.String, "completed, early_stopped, diverged, out_of_memory, failed, cancelled or pending"),
    Column("error", pl.String, "why it did not complete, in one line"),
    Column("traceback", pl.String, "the traceback of a failed trial"),
    Column("epochs_run", pl.Int32, "epochs with a record", "epochs"),
    Column("final_train_loss", pl.Float64, "of the last epoch run", "nats"),
    Column("final_val_loss", pl.Float64, "of the last epoch run", "nats"),
    Column("final_val_accuracy", pl.Float64, "of the last epoch run", "fraction"),
    Column("final_balanced_accuracy", pl.Float64, "of the last epoch run; null but for imbalance", "fraction"),
    Column("best_val_accuracy", pl.Float64, "highest of all epochs (biased upwards)", "fraction"),
    Column("best_epoch", pl.Int32, "the first epoch with the highest validation accuracy"),
    Column("test_loss", pl.Float64, "after the last epoch of a completed trial", "nats"),
    Column("test_accuracy", pl.Float64, "after the last epoch of a completed trial", "fraction"),
    Column("lr_reductions", pl.Int32, "how often a plateau schedule lowered the rate; null for other schedules"),
    Column("first_reduction_epoch", pl.Int32, "the first epoch trained with a lowered rate"),
    Column("last_reduction_epoch", pl.Int32, "the last epoch at which the rate fell"),
    Column("train_seconds", pl.Float64, "training time as if the trial had run alone", "seconds"),
    Column("computed_seconds", pl.Float64, "training time of the epochs it computed itself", "seconds"),
    Column("shared_epochs", pl.Int32, "epochs taken from another trial's training", "epochs"),
    Column("checkpoint", pl.String, "final checkpoint, relative to the sweep's folder; null when none is kept"),
    Column("best_checkpoint", pl.String, "that of its best epoch; null unless such are kept (--keep-checkpoints)"),
    Column("taken_from", pl.String, "the sweep its records were taken over from; null when trained here"),
    Column("node", pl.String, "machine and Ray node its last epoch was trained on; null when none was trained here"),
    Column("device", pl.String, "device of that node: cpu, or cuda:<number>"),
    Column("gpu_fraction", pl.Float64, "GPUs it was granted; null on the CPU"),
    Column("neighbours", pl.Int32, "other trainings of the sweep on that device (cpu: node) when that epoch ended"),
)
"""`trials.parquet`: one row for each trial; the settings' columns follow."""


def polars_schema(columns: Iterable[Column]) -> dict[str, type[pl.DataType]]:
    """Returns the polars schema of a table of columns."""
    return {column.name: column.type for column in columns}


def setting_columns(trials: Iterable[TrialConfig]) -> dict[str, type[pl.DataType]]:
    """Returns the columns that the settings of these trials need, in order of name, with their types."""
    found: dict[str, set[type]] = {}
    for trial in trials:
        for kind, field in SETTINGS_OF.items():
            for key, value in getattr(trial, field).items():
                found.setdefault(f"{kind}_{key}", set()).add(type(value))
    return {name: _setting_type(found[name]) for name in sorted(found)}


def _setting_type(types: set[type]) -> type[pl.DataType]:
    types = types - {type(None)}
    if types and types <= {bool}:
        return pl.Boolean
    if types <= {int, float}:
        return pl.Float64
    return pl.String


def setting_value(value: Setting, type_: type[pl.DataType]) -> Any:
    """Returns a setting's value as its column holds it: tuples and mixed types as JSON text."""
    if value is None or type_ is not pl.String or isinstance(value, str):
        return value
    return json.dumps(list(value) if isinstance(value, tuple) else value)

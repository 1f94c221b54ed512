"""What the files of a sweep hold: every column with its type, unit and meaning, and the schema version.

`epochs.parquet`, `trials.parquet` and `summary.parquet` are built from these tables. docs/columns.md lists them:

    python -m analysis.schema > docs/columns.md

A trial's settings add one column each, named `optimizer_<setting>`, `scheduler_<setting>` or `workload_<setting>`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
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
    Column(
        "val_balanced_accuracy",
        pl.Float64,
        "mean of the classes' accuracies; null unless classes are rare or balanced",
        "fraction",
    ),
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
    Column("trial_id", pl.String, "hash of all that defines the trial"),
    Column("configuration", pl.Int32, "number of its configuration: all that it is but its seed"),
    Column("label", pl.String, "the settings that vary in this sweep, in words"),
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
    Column(
        "final_balanced_accuracy",
        pl.Float64,
        "of the last epoch run; null unless classes are rare or balanced",
        "fraction",
    ),
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


SUMMARY_COLUMNS: tuple[Column, ...] = (
    Column("configuration", pl.Int32, "number of the configuration, as in the trials table"),
    Column("label", pl.String, "the settings that vary, in words"),
    Column("dataset", pl.String, "its data set; places and ranks count within one"),
    Column("optimizer", pl.String, "row of the optimizer table"),
    Column("scheduler", pl.String, "row of the schedule table"),
    Column("lr", pl.Float64, "initial learning rate"),
    Column("position", pl.Int32, "place by `adjusted_mean`, shared by equals; null without a result"),
    Column(
        "adjusted_mean",
        pl.Float64,
        "mean final validation accuracy as if it had been run with every seed of its data set; "
        "the plain mean where all configurations have the same seeds",
        "fraction",
    ),
    Column(
        "rank",
        pl.Int32,
        "1 + how many are shown to be better than it, or than one that did at least as well; null where that is not "
        "known: fewer than 3 seeds in common with every other, a seed that diverged, or not among the best 500",
    ),
    Column("best_of_group", pl.Boolean, "whether it is the best of its optimizer and schedule"),
    Column("lr_edge", pl.String, "of those: `lowest` or `highest` where the best learning rate is an end of its grid"),
    Column("same_as", pl.Int32, "the first configuration whose training was the same, bit for bit, on every seed"),
    Column("alike", pl.Int32, "how many configurations were that same training, itself included"),
    Column("lr_reductions", pl.Float64, "mean over seeds of how often a plateau schedule lowered the rate"),
    Column("planned", pl.Int32, "trials planned: its seeds"),
    Column("n", pl.Int32, "trials that finished and count"),
    Column("diverged", pl.Int32, "trials that diverged: any puts a configuration below those with fewer"),
    Column("unfinished", pl.Int32, "trials without a result: pending, failed, cancelled or out of memory"),
)
"""The first columns of `summary.parquet`: one row for each configuration. The axes that are not among them follow, and
then `<metric>_<statistic>` for each of `METRICS` and `STATISTICS`, and `TARGET_COLUMNS` for some accuracies."""


@dataclass(frozen=True)
class Metric:
    """What is measured of each finished trial and described over seeds."""

    name: str
    doc: str
    unit: Unit
    least: float = 0.0
    """The lowest value that there can be."""
    most: float = math.inf
    """The highest."""


METRICS: tuple[Metric, ...] = (
    Metric("final_val_accuracy", "validation accuracy of the last epoch: what is ranked by", "fraction", most=1),
    Metric("final_val_loss", "validation loss of the last epoch", "nats"),
    Metric(
        "final_balanced_accuracy",
        "mean of the classes' validation accuracies, of the last epoch; null unless classes are rare or balanced",
        "fraction",
        most=1,
    ),
    Metric("final_test_accuracy", "test accuracy of the last epoch", "fraction", most=1),
    Metric("final_test_loss", "test loss of the last epoch", "nats"),
    Metric(
        "selected_val_accuracy",
        "validation accuracy of the epoch where it is highest (biased upwards)",
        "fraction",
        most=1,
    ),
    Metric("selected_val_loss", "validation loss of that epoch", "nats"),
    Metric("selected_test_accuracy", "test accuracy of that epoch; null unless tested every epoch", "fraction", most=1),
    Metric("selected_test_loss", "test loss of that epoch; null unless tested every epoch", "nats"),
    Metric(
        "val_accuracy_area",
        "area under the validation-accuracy curve, each epoch a bar of width 1 / epochs",
        "fraction",
        most=1,
    ),
    Metric("accuracy_gap", "training minus validation accuracy of the last epoch", "fraction", least=-1, most=1),
    Metric("loss_gap", "validation minus training loss of the last epoch", "nats", least=-math.inf),
)

STATISTICS: Mapping[str, str] = {
    "mean": "mean over seeds",
    "median": "median over seeds",
    "iqm": "interquartile mean over seeds: of the middle half",
    "sd": "standard deviation over seeds (n - 1); null with one seed",
    "low": "lower end of the 95% interval of the mean (Student's t, cut off where no value can be); null with one "
    "seed or where all agree",
    "high": "its upper end",
}
"""Name -> what it says of a metric."""

TARGET_COLUMNS: Mapping[str, str] = {
    "epochs_to_{target}": "epochs until that validation accuracy is first reached, median over seeds; null where fewer "
    "than half are known to reach it",
    "reached_{target}": "trials that reached it",
}
"""Form of a name -> what it says of a validation accuracy."""


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


def documentation() -> str:
    """Returns every column of every table for people, as Markdown: the content of docs/columns.md."""
    tables = {
        "summary.parquet": ("One row for each configuration, the best first.", SUMMARY_COLUMNS),
        "trials.parquet": ("One row for each trial.", TRIAL_COLUMNS),
        "epochs.parquet": ("One row for each trial and epoch.", EPOCH_COLUMNS),
    }
    after = {
        "summary.parquet": [
            "",
            "The settings that vary follow, named as in `trials.parquet`, and then `<metric>_<statistic>`, e.g.",
            "`final_val_accuracy_mean`, for each of these metrics:",
            "",
            *_markdown_table(("metric", "unit", "what it is"), [(f"`{m.name}`", m.unit, m.doc) for m in METRICS]),
            "",
            "and each of these statistics:",
            "",
            *_markdown_table(("statistic", "what it is"), [(f"`{name}`", doc) for name, doc in STATISTICS.items()]),
            "",
            "Last come, for a few validation accuracies such as 0.9:",
            "",
            *_markdown_table(
                ("column", "what it is"), [(f"`{f.format(target=0.9)}`", d) for f, d in TARGET_COLUMNS.items()]
            ),
        ],
        "trials.parquet": [
            "",
            "A column for each setting that any trial has follows: `optimizer_<setting>`, `scheduler_<setting>`,",
            "`workload_<setting>`.",
        ],
    }
    lines = [
        "# Columns of a sweep's tables",
        "",
        "Written by `python -m analysis.schema > docs/columns.md`. Losses are means over images in nats; what is",
        "missing is null. Summary and trials join on `configuration`, trials and epochs on `trial_id`.",
    ]
    for name, (doc, columns) in tables.items():
        rows = [(f"`{c.name}`", _TYPE_NAMES[c.type], c.unit, c.doc) for c in columns]
        lines += ["", f"## {name}", "", doc, "", *_markdown_table(("column", "type", "unit", "what it is"), rows)]
        lines += after.get(name, [])
    return "\n".join(lines) + "\n"


_TYPE_NAMES: dict[type[pl.DataType], str] = {
    pl.String: "text",
    pl.Float64: "number",
    pl.Int32: "whole number",
    pl.Int64: "whole number",
    pl.Boolean: "true or false",
}


def _markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heading, ["---"] * len(heading), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]


if __name__ == "__main__":
    print(documentation(), end="")

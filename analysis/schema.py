"""The schema of a sweep's files: every column with its type, unit and meaning, and the schema version.

`epochs.parquet`, `trials.parquet` and `summary.parquet` are built from these tables. docs/columns.md lists them:

    python -m analysis.schema > docs/columns.md

A trial's settings add one column each, named `optimizer_<setting>`, `scheduler_<setting>` or `workload_<setting>`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import polars as pl

from workloads.measure import ACCURACY, Measure
from workloads.trial import FIELDS, SETTINGS_OF, Setting, TrialConfig

SCHEMA_VERSION = 1
"""Increased when a column changes its meaning or is removed; files with another version are refused."""

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
    Column("trial_id", pl.String, "id of the trial"),
    Column("epoch", pl.Int32, "epoch, counted from 1"),
    Column("lr", pl.Float64, "learning rate of the epoch's first step"),
    Column("lr_last", pl.Float64, "learning rate of the epoch's last step"),
    Column("train_loss", pl.Float64, "mean training loss, measured while training", "nats"),
    Column("train_accuracy", pl.Float64, "training accuracy, measured while training", "fraction"),
    Column("val_loss", pl.Float64, "mean validation loss after the epoch", "nats"),
    Column("val_accuracy", pl.Float64, "validation accuracy after the epoch", "fraction"),
    Column("test_loss", pl.Float64, "mean test loss; null if not evaluated or not finite", "nats"),
    Column("test_accuracy", pl.Float64, "test accuracy; null if not evaluated", "fraction"),
    Column("function_evaluations", pl.Int64, "forward and backward passes in the epoch"),
    Column("train_seconds", pl.Float64, "wall time of training in the epoch", "seconds"),
    Column("eval_seconds", pl.Float64, "wall time of evaluation in the epoch", "seconds"),
    Column("computed_by", pl.String, "id of the trial that computed this epoch"),
    Column("grad_norm", pl.Float64, "mean gradient norm before clipping; null unless gradients are clipped"),
    Column(
        "val_balanced_accuracy",
        pl.Float64,
        "mean of the per-class validation accuracies; null unless classes are thinned or balanced",
        "fraction",
    ),
    Column(
        "val_class_accuracy",
        pl.String,
        "validation accuracy of each class, a JSON list; null unless classes are thinned or balanced",
        "fraction",
    ),
    Column("test_balanced_accuracy", pl.Float64, "the same on the test examples; null if not evaluated", "fraction"),
    Column("test_class_accuracy", pl.String, "the same on the test examples; null if not evaluated", "fraction"),
    Column(
        "val_right",
        pl.String,
        "which validation images are right: their number, a colon, and a bit for each in base64; null unless asked for "
        "(`--grid per_image=true`)",
    ),
    Column("state_before", pl.String, "digest of the training state it began with; null in records of older versions"),
    Column("state_after", pl.String, "digest of the training state it led to; null in records of older versions"),
    Column("test_digest", pl.String, "digest of `state_after` and of the test results; null if not evaluated"),
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
"""Column of the epochs table -> its name in TensorBoard and MLflow."""

STATUS_COLUMNS: tuple[Column, ...] = (
    Column("sweep", pl.String, "name of the sweep"),
    Column("trial_id", pl.String, "id of the trial"),
    Column("status", pl.String, "its new status; the last row of a trial counts"),
    Column("epochs_run", pl.Int32, "records it had by then; the status is ignored if there are fewer now", "epochs"),
    Column("error", pl.String, "the reason, in one line; null without an error"),
    Column("traceback", pl.String, "traceback of a failed trial"),
    Column("checkpoint", pl.String, "its final checkpoint, relative to the sweep's folder"),
    Column("best_checkpoint", pl.String, "checkpoint of its best epoch; null unless kept"),
    Column("taken_from", pl.String, "sweep its records were copied from; null if trained here"),
    Column("node", pl.String, "machine and Ray node that trained its last epoch; null if none was trained here"),
    Column("device", pl.String, "device on that node: cpu, or cuda:<number>"),
    Column("gpu_fraction", pl.Float64, "GPUs granted to it; null on the CPU"),
    Column("neighbours", pl.Int32, "other trials training on that device (cpu: node) when that epoch ended"),
)
"""Status changes of trials in order; merged into `trials.parquet`."""

DECISION_COLUMNS: tuple[Column, ...] = (
    Column("policy", pl.String, "hash of the policy that decided: of what it compares, and how"),
    Column("number", pl.Int32, "counted from 0, in the order in which they were taken"),
    Column("over", pl.Boolean, "whether nothing more was to be trained"),
    Column("reason", pl.String, "why, in words"),
    Column("add", pl.String, "the trials it added, as a JSON list"),
    Column("stop", pl.String, "the trials it stopped, each with the reason, as a JSON object"),
)
"""What a policy decided (`sweeps/policies/`), in order."""

_TYPES = {"str": pl.String, "float": pl.Float64, "int": pl.Int32, "int | None": pl.Int32, "bool": pl.Boolean}
_FIELD_COLUMNS = tuple(
    Column(
        f.name, pl.Int64 if f.name.endswith("seed") else _TYPES[str(f.type)], FIELDS[f.name].doc, FIELDS[f.name].unit
    )
    for f in fields(TrialConfig)
    if f.name in FIELDS
)

TRIAL_COLUMNS: tuple[Column, ...] = (
    Column("sweep", pl.String, "name of the sweep"),
    Column("trial_id", pl.String, "hash of everything that defines the trial"),
    Column("configuration", pl.Int32, "number of its configuration: everything except the seed"),
    Column("label", pl.String, "the settings that vary in this sweep, in words"),
    *_FIELD_COLUMNS[:1],
    Column("dataset", pl.String, "the workload's data set"),
    *_FIELD_COLUMNS[1:],
    Column(
        "fingerprint",
        pl.String,
        "digest of what determined its numbers (data, device, how it trains); trials with different ones are never "
        "averaged; null for sweeps of older versions",
    ),
    Column("status", pl.String, "completed, early_stopped, diverged, out_of_memory, failed, cancelled or pending"),
    Column("error", pl.String, "why it did not complete, in one line"),
    Column("traceback", pl.String, "traceback of a failed trial"),
    Column("epochs_run", pl.Int32, "epochs with a record", "epochs"),
    Column("final_train_loss", pl.Float64, "training loss of the last epoch run", "nats"),
    Column("final_val_loss", pl.Float64, "validation loss after the last epoch run", "nats"),
    Column("final_val_accuracy", pl.Float64, "validation accuracy after the last epoch run", "fraction"),
    Column(
        "final_balanced_accuracy",
        pl.Float64,
        "balanced validation accuracy after the last epoch run; null unless classes are thinned or balanced",
        "fraction",
    ),
    Column("best_val_accuracy", pl.Float64, "highest validation accuracy of any epoch (biased upwards)", "fraction"),
    Column("best_epoch", pl.Int32, "first epoch with the highest validation accuracy"),
    Column("test_loss", pl.Float64, "test loss after the last epoch of a completed trial", "nats"),
    Column("test_accuracy", pl.Float64, "test accuracy after the last epoch of a completed trial", "fraction"),
    Column("lr_reductions", pl.Int32, "times a plateau schedule lowered the rate; null for other schedules"),
    Column("first_reduction_epoch", pl.Int32, "first epoch trained with a lowered rate"),
    Column("last_reduction_epoch", pl.Int32, "last epoch that began with a lower rate than the one before"),
    Column("train_seconds", pl.Float64, "training time, including shared epochs", "seconds"),
    Column("computed_seconds", pl.Float64, "training time of the epochs it computed itself", "seconds"),
    Column("shared_epochs", pl.Int32, "epochs computed by another trial", "epochs"),
    Column("checkpoint", pl.String, "final checkpoint, relative to the sweep's folder; null if not kept"),
    Column("best_checkpoint", pl.String, "checkpoint of its best epoch; null unless kept (--keep-checkpoints)"),
    Column("taken_from", pl.String, "sweep its records were copied from; null if trained here"),
    Column("node", pl.String, "machine and Ray node that trained its last epoch; null if none was trained here"),
    Column("device", pl.String, "device on that node: cpu, or cuda:<number>"),
    Column("gpu_fraction", pl.Float64, "GPUs granted to it; null on the CPU"),
    Column("neighbours", pl.Int32, "other trials training on that device (cpu: node) when that epoch ended"),
)
"""`trials.parquet`: one row for each trial; the settings' columns follow."""


SUMMARY_COLUMNS: tuple[Column, ...] = (
    Column("configuration", pl.Int32, "number of the configuration, as in the trials table"),
    Column("label", pl.String, "the settings that vary, in words"),
    Column("dataset", pl.String, "its data set; positions and ranks are within a data set"),
    Column("optimizer", pl.String, "name of the optimizer"),
    Column("scheduler", pl.String, "name of the learning-rate schedule"),
    Column("lr", pl.Float64, "initial learning rate"),
    Column(
        "position",
        pl.Int32,
        "position by share of seeds that did not diverge, then by `adjusted_mean`; ties share one; "
        "null without a result, and for late forks (`reorder_from`)",
    ),
    Column(
        "adjusted_mean",
        pl.Float64,
        "mean final validation accuracy, estimated as if it had been run with every seed of its data set; "
        "the plain mean if all configurations have the same seeds",
        "fraction",
    ),
    Column(
        "rank",
        pl.Int32,
        "1 + number of configurations shown to be better than it, or than one that did at least as well; null if "
        "unknown: fewer than 3 seeds in common with every other, a seed that diverged, or not among the best 500",
    ),
    Column(
        "verdict",
        pl.String,
        "how it compares with the first of its data set: `differ` if it, or one that did at least as well, is shown to "
        "be worse than some other, `practically equal` if the difference is shown to be smaller than what matters "
        "(--care) or is 0 on every seed, else `cannot tell`; null for the first and without a rank",
    ),
    Column("best_of_group", pl.Boolean, "whether it is the best for its optimizer and schedule"),
    Column(
        "lr_edge",
        pl.String,
        "if so: `lowest` or `highest` if its learning rate is at that edge of the grid, or of its range",
    ),
    Column("same_as", pl.Int32, "first configuration with bitwise identical training on every seed"),
    Column("alike", pl.Int32, "number of configurations with that training, including itself"),
    Column("lr_reductions", pl.Float64, "times a plateau schedule lowered the rate, mean over seeds"),
    Column("planned", pl.Int32, "trials planned, one per seed"),
    Column("n", pl.Int32, "trials that finished, whose metrics count"),
    Column("diverged", pl.Int32, "trials that diverged"),
    Column("unfinished", pl.Int32, "trials without a result: pending, failed, cancelled or out of memory"),
)
"""The first columns of `summary.parquet`: one row for each configuration. They are followed by the other axes, then
`<metric>_<statistic>` for each of `METRICS` and `STATISTICS`, and `TARGET_COLUMNS` for some accuracies."""


@dataclass(frozen=True)
class Metric:
    """A metric of finished trials, summarised over seeds."""

    name: str
    doc: str
    unit: Unit
    least: float = 0.0
    """The lowest possible value."""
    most: float = math.inf
    """The highest possible value."""

    def bounds(self, measure: Measure) -> tuple[float, float]:
        """Returns the lowest and the highest possible value where configurations are ranked by that measure."""
        if self.name == "accuracy_gap":
            return measure.least - measure.most, measure.most - measure.least
        if self.unit == "fraction":
            return measure.least, measure.most
        # Of losses that are not ours, nothing is known.
        return (self.least if measure == ACCURACY else -math.inf), self.most


METRICS: tuple[Metric, ...] = (
    Metric("final_val_accuracy", "validation accuracy of the last epoch; used for ranking", "fraction", most=1),
    Metric("final_val_loss", "validation loss of the last epoch", "nats"),
    Metric(
        "final_balanced_accuracy",
        "balanced validation accuracy of the last epoch; null unless classes are thinned or balanced",
        "fraction",
        most=1,
    ),
    Metric("final_test_accuracy", "test accuracy of the last epoch", "fraction", most=1),
    Metric("final_test_loss", "test loss of the last epoch", "nats"),
    Metric(
        "selected_val_accuracy",
        "validation accuracy of the epoch with the highest one (biased upwards)",
        "fraction",
        most=1,
    ),
    Metric("selected_val_loss", "validation loss of that epoch", "nats"),
    Metric("selected_test_accuracy", "test accuracy of that epoch; null unless tested every epoch", "fraction", most=1),
    Metric("selected_test_loss", "test loss of that epoch; null unless tested every epoch", "nats"),
    Metric(
        "val_accuracy_area",
        "area under the validation-accuracy curve: mean over epochs",
        "fraction",
        most=1,
    ),
    Metric("accuracy_gap", "training minus validation accuracy of the last epoch", "fraction", least=-1, most=1),
    Metric("loss_gap", "validation minus training loss of the last epoch", "nats", least=-math.inf),
)

STATISTICS: Mapping[str, str] = {
    "mean": "mean over seeds",
    "median": "median over seeds",
    "iqm": "interquartile mean over seeds: mean of the middle half",
    "sd": "standard deviation over seeds (n - 1); null with one seed",
    "low": "lower end of the 95% interval of the mean (Student's t, clipped to possible values); null with one seed or "
    "if all seeds agree",
    "high": "upper end of that interval",
}
"""Statistic -> its description."""

TARGET_COLUMNS: Mapping[str, str] = {
    "epochs_to_{target}": "epochs until that validation accuracy is first reached, median over seeds; null if fewer "
    "than half are known to reach it",
    "reached_{target}": "trials that reached it",
}
"""Column name for a target validation accuracy -> its description."""


def polars_schema(columns: Iterable[Column]) -> dict[str, type[pl.DataType]]:
    """Returns the polars schema for some columns."""
    return {column.name: column.type for column in columns}


def setting_columns(trials: Iterable[TrialConfig]) -> dict[str, type[pl.DataType]]:
    """Returns the columns for these trials' settings, sorted by name, with their types."""
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
    """Converts a setting's value to its column's type: tuples and mixed types become JSON text."""
    if value is None or type_ is not pl.String or isinstance(value, str):
        return value
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def documentation() -> str:
    """Returns the documentation of all columns as Markdown: the content of docs/columns.md."""
    tables = {
        "summary.parquet": ("One row per configuration, best first.", SUMMARY_COLUMNS),
        "trials.parquet": ("One row per trial.", TRIAL_COLUMNS),
        "epochs.parquet": ("One row per trial and epoch.", EPOCH_COLUMNS),
    }
    after = {
        "summary.parquet": [
            "",
            "Next come the settings that vary, named as in `trials.parquet`, and `<metric>_<statistic>`, e.g.",
            "`final_val_accuracy_mean`, for each of these metrics:",
            "",
            *_markdown_table(("metric", "unit", "description"), [(f"`{m.name}`", m.unit, m.doc) for m in METRICS]),
            "",
            "and each of these statistics:",
            "",
            *_markdown_table(("statistic", "description"), [(f"`{name}`", doc) for name, doc in STATISTICS.items()]),
            "",
            "Last, for a few target validation accuracies such as 0.9:",
            "",
            *_markdown_table(
                ("column", "description"), [(f"`{f.format(target=0.9)}`", d) for f, d in TARGET_COLUMNS.items()]
            ),
        ],
        "trials.parquet": [
            "",
            "Next comes one column for each setting of any trial: `optimizer_<setting>`, `scheduler_<setting>`,",
            "`workload_<setting>`.",
        ],
    }
    decisions = [(f"`{c.name}`", _TYPE_NAMES[c.type], c.doc) for c in DECISION_COLUMNS]
    lines = [
        "# Columns of a sweep's tables",
        "",
        "Generated by `python -m analysis.schema > docs/columns.md`. Losses are means over examples in nats; missing",
        "values are null. Join summary and trials on `configuration`, trials and epochs on `trial_id`.",
        "",
        "Where networks are ranked by another measure than accuracy, columns say its name in place of `accuracy`, e.g.",
        "`final_val_mean_absolute_error_mean`, and hold its values; columns of balanced and per-class accuracies are",
        "left out, and losses are in the unit of the loss. If lower values are better, the best epoch has the lowest,",
        "a target is reached at or below it, and the gap to training is validation minus training.",
    ]
    for name, (doc, columns) in tables.items():
        rows = [(f"`{c.name}`", _TYPE_NAMES[c.type], c.unit, c.doc) for c in columns]
        lines += ["", f"## {name}", "", doc, "", *_markdown_table(("column", "type", "unit", "description"), rows)]
        lines += after.get(name, [])
    lines += [
        "",
        "## Decisions",
        "",
        "One row per decision of `--decide`, in order. They are kept in `parts/` only; `SweepStore.read_decisions` of",
        "`analysis/store.py` returns them.",
        "",
        *_markdown_table(("column", "type", "description"), decisions),
    ]
    return "\n".join(lines) + "\n"


_TYPE_NAMES: dict[type[pl.DataType], str] = {
    pl.String: "text",
    pl.Float64: "number",
    pl.Int32: "integer",
    pl.Int64: "integer",
    pl.Boolean: "boolean",
}


def _markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heading, ["---"] * len(heading), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]


if __name__ == "__main__":
    print(documentation(), end="")

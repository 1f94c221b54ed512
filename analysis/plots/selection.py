"""Which configurations a picture of lines shows when there are more than can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from analysis.loading import SweepData
from analysis.plots.scales import number
from analysis.plots.style import MAX_LINES

FAMILY = ("workload", "dataset", "optimizer", "scheduler")
"""Axes whose values are names: their combinations are compared, each at its best other settings."""

_OUTCOME = ("seed", "epochs_run", "final_train_loss", "final_val_loss", "final_val_accuracy")
_WORST = 3


@dataclass(frozen=True)
class Selection:
    """Configurations to draw, best first."""

    configurations: tuple[int, ...]
    labels: tuple[str, ...]
    note: str
    """What was left out, in a sentence; empty when nothing was."""


def families(sweep: SweepData) -> list[str]:
    """Returns the axes of the sweep whose values are names."""
    return [name for name in FAMILY if name in sweep.axes]


def by_family(sweep: SweepData, rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Returns rows by optimizer, schedule or what else has names in this sweep, with their labels, in order of rows."""
    names = families(sweep)
    if not names:
        return [("all", rows)]
    parts = rows.partition_by(names, maintain_order=True)
    return [(", ".join(str(value) for value in part.select(names).row(0)), part) for part in parts]


def best_and_worst(sweep: SweepData, summary: pl.DataFrame, at_most: int = MAX_LINES) -> Selection:
    """Returns the configurations that stand for a sweep.

    With several optimizers, schedules or data sets: each combination of them at its best configuration. Otherwise all
    configurations, those that were the same training as one. When there are still too many: the best, and the three
    worst.
    """
    trained = distinct(sweep, summary)
    names = [name for name in families(sweep) if trained[name].n_unique() > 1]
    notes = []
    if names:
        chosen = trained.unique(names, keep="first", maintain_order=True)
        labels = chosen["label"].to_list()
        if chosen.height < trained.height:
            notes.append(f"each {' and '.join(names)} at its best settings by validation accuracy")
    else:
        chosen = trained
        labels = [alike_label(*row) for row in chosen.select("label", "alike").iter_rows()]
    if chosen.height > at_most:
        best = at_most - _WORST
        notes.append(f"the best {best} and the worst {_WORST} of {chosen.height}")
        chosen, labels = pl.concat([chosen.head(best), chosen.tail(_WORST)]), labels[:best] + labels[-_WORST:]
    note = f"Shown: {', '.join(notes)}." if notes else ""
    return Selection(tuple(chosen["configuration"]), tuple(labels), note)


def distinct(sweep: SweepData, summary: pl.DataFrame) -> pl.DataFrame:
    """Returns the summary's rows that have records, one for each distinct training, with how many are `alike`.

    Configurations are the same training when every seed ended with the same losses to the last bit.
    """
    ended = (
        sweep.trials.filter(pl.col("epochs_run") > 0)
        .sort("configuration", "seed")
        .group_by("configuration", maintain_order=True)
        .agg(pl.concat_list(pl.col(name).cast(pl.Float64) for name in _OUTCOME).alias("outcomes"))
    )
    return (
        summary.join(ended, on="configuration", how="inner", maintain_order="left")
        .with_columns(alike=pl.len().over("outcomes"))
        .unique("outcomes", keep="first", maintain_order=True)
    )


def alike_label(label: str, alike: int) -> str:
    """Returns a configuration's label with how many others were the same training."""
    return label if alike == 1 else f"{label} (and {alike - 1} alike)"


def describe(sweep: SweepData, configurations: Sequence[int]) -> str:
    """Returns what some configurations have in common, e.g. `12 settings: patience 5, 10`.

    Axes on which they take every value that the others named allow are not named. `12 of 16 settings: patience 5, 10`
    says that they are not all with these values.
    """
    every = sweep.trials.unique("configuration", maintain_order=True)
    chosen = every.filter(pl.col("configuration").is_in(list(configurations)))
    if chosen.height == 1:
        return str(chosen["label"][0])
    parts, alike = [], every
    for axis in sweep.axes:
        values = chosen[axis].unique(maintain_order=True)
        if values.len() < alike[axis].n_unique():
            named = ", ".join(value_text(value) for value in values.sort())
            parts.append(named if axis in FAMILY else f"{axis_name(axis)} {named}")
            alike = alike.filter(pl.col(axis).is_in(values.implode(), nulls_equal=True))
    count = f"{chosen.height}" if alike.height == chosen.height else f"{chosen.height} of {alike.height}"
    return f"{count} settings" + (f": {'; '.join(parts)}" if parts else "")


def value_text(value: object) -> str:
    """Returns a setting's value as people write it."""
    return "none" if value is None else number(value) if isinstance(value, float) else str(value)


def axis_name(column: str) -> str:
    """Returns what people call an axis: its column without the kind of setting."""
    for prefix in ("scheduler_", "optimizer_", "workload_"):
        column = column.removeprefix(prefix)
    return "learning rate" if column == "lr" else column.replace("_", " ")

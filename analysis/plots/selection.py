"""Selects the configurations to show if a plot would have too many lines to tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from analysis.aggregate import CHOICE
from analysis.configurations import trainings
from analysis.loading import SweepData
from analysis.plots.scales import number
from analysis.plots.style import MAX_LINES
from workloads.measure import Measure

FAMILY = ("workload", "dataset", "optimizer", "scheduler")
"""Axes whose values are names: their combinations are compared, each at its best other settings."""

_WORST = 3
_USUAL_NOISE = 0.0025


@dataclass(frozen=True)
class Selection:
    """Configurations to draw, best first."""

    configurations: tuple[int, ...]
    labels: tuple[str, ...]
    note: str
    """A sentence on what is not shown; empty if everything is."""


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
    """Returns representative configurations of a sweep.

    With several optimizers, schedules or data sets, the best configuration of each combination of them. Otherwise all
    configurations, with identical training shown once. If these are still too many, the best and the three worst.
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
        labels = chosen["name"].to_list()
    if chosen.height > at_most:
        best = at_most - _WORST
        notes.append(f"the best {best} and the worst {_WORST} of {chosen.height}")
        chosen, labels = pl.concat([chosen.head(best), chosen.tail(_WORST)]), labels[:best] + labels[-_WORST:]
    note = f"Shown: {', '.join(notes)}." if notes else ""
    return Selection(tuple(chosen["configuration"]), tuple(labels), note)


def distinct(sweep: SweepData, summary: pl.DataFrame) -> pl.DataFrame:
    """Returns the summary's rows that have records, one for each distinct training, with the `name` it goes by.

    What was stopped early is left out: how it would have ended is not known.
    """
    ran = sweep.trials.filter((pl.col("epochs_run") > 0) & (pl.col("status") != "early_stopped")).select(
        "configuration"
    )
    return trainings(summary.join(ran, on="configuration", how="semi", maintain_order="left"))


def seed_noise(summary: pl.DataFrame, measure: Measure) -> float:
    """Returns the usual standard error of a configuration's mean final validation accuracy, from seed to seed.

    If no configuration has several seeds, it is unknown; `_USUAL_NOISE` is typical of small networks, and of another
    measure that share of the usual value.
    """
    errors = (
        summary.filter(pl.col("n") > 1).select(pl.col(f"{CHOICE}_sd") / pl.col("n").sqrt()).to_series().drop_nulls()
    )
    middle = errors.median()
    if isinstance(middle, float):
        return middle
    usual = 1.0 if measure.is_share else summary[f"{CHOICE}_mean"].abs().median()
    return _USUAL_NOISE * usual if isinstance(usual, float) else _USUAL_NOISE


def describe(sweep: SweepData, configurations: Sequence[int]) -> str:
    """Returns what some configurations have in common, e.g. `12 settings: patience 5, 10`.

    Axes are not named if the settings take every value compatible with the named ones. `12 of 16 settings: patience 5,
    10` means that 16 settings have these values, and 12 of them are meant.
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

"""The best that a budget of random trials finds: which optimizer, if you can afford 10 trials?"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from analysis.aggregate import SweepData
from analysis.budget import best_after
from analysis.plots import scales, style
from analysis.plots.selection import by_family, families

_FEWEST_TRIALS = 3


@dataclass(frozen=True)
class Group:
    """The best of k trials of one optimizer or schedule; budgets at which most often nothing is found are left out."""

    label: str
    budgets: tuple[int, ...]
    low: tuple[float, ...]
    """A tenth of the draws find no more."""
    median: tuple[float, ...]
    high: tuple[float, ...]
    """Nine tenths of the draws find no more."""


@dataclass(frozen=True)
class Budget:
    """Groups, the one that finds the most in all its trials first."""

    groups: tuple[Group, ...]
    note: str


def data(sweep: SweepData, summary: pl.DataFrame) -> Budget | None:
    """Returns the best found by budget for each optimizer or schedule, or None without a group of three trials."""
    del summary
    curves = best_after(sweep, families(sweep)).filter(
        (pl.col("trials") >= _FEWEST_TRIALS) & pl.col("median").is_not_null()
    )
    if curves.is_empty():
        return None
    groups = sorted((_group(*part) for part in by_family(sweep, curves)), key=lambda group: -group.median[-1])
    note = "Lines: median over random choices of trials; bands: from a tenth to nine tenths of them."
    if len(groups) > style.MAX_LINES:
        note += f" Shown: the best {style.MAX_LINES} of {len(groups)}."
    return Budget(tuple(groups[: style.MAX_LINES]), note)


def _group(label: str, part: pl.DataFrame) -> Group:
    found = part.with_columns(pl.col("low").fill_null(pl.col("median")))
    return Group(label, tuple(found["budget"]), tuple(found["low"]), tuple(found["median"]), tuple(found["high"]))


def draw(data: Budget, figure: Figure) -> None:
    """Draws the best found by budget on a logarithmic axis."""
    axes = figure.add_subplot()
    handles = []
    for index, group in enumerate(data.groups):
        look = style.line(index)
        marks = style.mark_every(len(group.budgets), index)
        handles += axes.plot(group.budgets, group.median, **look, markevery=marks, label=group.label)
        axes.fill_between(group.budgets, group.low, group.high, color=look["color"], alpha=0.13)
    scales.accuracy_axis(axes, [value for group in data.groups for value in (*group.low, *group.high)])
    scales.count_axis(axes, max(group.budgets[-1] for group in data.groups))
    axes.set_xlabel("random trials you can afford")
    axes.set_ylabel("best final validation accuracy found")
    style.title(figure, "What a budget of trials finds")
    if len(handles) > 1:
        style.legend(figure, handles)

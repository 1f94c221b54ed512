"""The best that a budget of random trials finds: which optimizer, if you can afford 10 trials?"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure

from analysis.loading import SweepData
from analysis.luck import about_luck
from analysis.measures import in_words
from analysis.plots import scales, style
from analysis.plots.selection import by_family, families
from analysis.statistics.budget import best_after
from workloads.measure import ACCURACY, Measure

_FEWEST_TRIALS = 3
_MOST_BANDS = 4


@dataclass(frozen=True)
class Group:
    """The best of k trials of one optimizer or schedule; budgets that usually find nothing are dropped."""

    label: str
    budgets: tuple[int, ...]
    low: tuple[float | None, ...]
    """10th percentile; None if it is no result, because all drawn trials diverged."""
    median: tuple[float, ...]
    high: tuple[float, ...]
    """90th percentile."""


@dataclass(frozen=True)
class Budget:
    """Groups, the one that finds the most in all its trials first."""

    groups: tuple[Group, ...]
    note: str
    measure: Measure = ACCURACY
    """What the accuracies are."""


def data(sweep: SweepData, summary: pl.DataFrame) -> Budget | None:
    """Returns the best found by budget for each optimizer or schedule, or None without a group of three trials."""
    del summary
    if about_luck(sweep):  # forks are no trials of their own
        return None
    curves = best_after(sweep, families(sweep)).filter(
        (pl.col("trials") >= _FEWEST_TRIALS) & pl.col("median").is_not_null()
    )
    if curves.is_empty():
        return None
    groups = sorted(
        (_group(*part) for part in by_family(sweep, curves)), key=lambda group: -sweep.measure.sign * group.median[-1]
    )
    bands = "; bands: 10th to 90th percentile" if len(groups) <= _MOST_BANDS else ""
    note = f"Lines: median over random draws of trials{bands}."
    if (sweep.trials["status"] == "early_stopped").any():
        note += " Trials that were stopped early count as tried, and as having found nothing."
    if len(groups) > style.MAX_LINES:
        note += f" Shown: the best {style.MAX_LINES} of {len(groups)}."
    return Budget(tuple(groups[: style.MAX_LINES]), note, sweep.measure)


def _group(label: str, part: pl.DataFrame) -> Group:
    return Group(label, tuple(part["budget"]), tuple(part["low"]), tuple(part["median"]), tuple(part["high"]))


def draw(data: Budget, figure: Figure) -> None:
    """Draws the best found by budget on a logarithmic axis."""
    axes = figure.add_subplot()
    handles = []
    for index, group in enumerate(data.groups):
        look = style.line(index)
        marks = style.mark_every(len(group.budgets), index)
        handles += axes.plot(group.budgets, group.median, **look, markevery=marks, label=group.label)
    shown = [value for group in data.groups for value in (*group.median, *group.high, *group.low) if value is not None]
    scales.accuracy_axis(axes, shown, "best final validation accuracy found", measure=data.measure)
    foot = axes.get_ylim()[0 if data.measure.higher_is_better else 1]
    banded = data.groups if len(data.groups) <= _MOST_BANDS else ()
    for group, handle in zip(banded, handles, strict=False):
        low = [foot if value is None else value for value in group.low]
        axes.fill_between(group.budgets, low, group.high, color=handle.get_color(), alpha=0.12)
    scales.count_axis(axes, max(group.budgets[-1] for group in data.groups))
    axes.set_xlabel("number of random trials")
    style.title(figure, in_words("Best accuracy by budget of trials", data.measure))
    if len(handles) > 1:
        style.legend(figure, handles)

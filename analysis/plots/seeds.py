"""Every seed as a point, with the mean and interval of its configuration; rank 1 is highlighted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.aggregate import CHOICE
from analysis.configurations import trainings
from analysis.loading import FINISHED, SweepData
from analysis.measures import in_words
from analysis.plots import scales, style
from workloads.measure import ACCURACY, Measure

_MOST_ROWS = 25


@dataclass(frozen=True)
class Row:
    """One configuration."""

    label: str
    accuracies: tuple[float, ...]
    """Final validation accuracy of each seed that finished, by seed."""
    mean: float
    low: float | None
    high: float | None
    rank: int | None
    """As in the summary; None where there is none."""
    diverged: int
    """Seeds that diverged."""


@dataclass(frozen=True)
class Seeds:
    """Configurations, the best first."""

    rows: tuple[Row, ...]
    note: str
    measure: Measure = ACCURACY
    """What the accuracies are."""


def data(sweep: SweepData, summary: pl.DataFrame) -> Seeds | None:
    """Returns the best configurations with their seeds, or None when fewer than two have finished."""
    finished = trainings(summary.filter(pl.col("n") > 0))
    if finished.height < 2:
        return None
    by_seed = sweep.trials.filter(pl.col("status").is_in(FINISHED)).sort("seed")
    accuracies = dict(by_seed.group_by("configuration", maintain_order=True).agg(CHOICE).iter_rows())
    shown = finished.head(_MOST_ROWS)
    rows = tuple(
        Row(
            label=row["name"],
            accuracies=tuple(accuracies[row["configuration"]]),
            mean=row[f"{CHOICE}_mean"],
            low=row[f"{CHOICE}_low"],
            high=row[f"{CHOICE}_high"],
            rank=row["rank"],
            diverged=row["diverged"],
        )
        for row in shown.iter_rows(named=True)
    )
    notes = []
    if any(row.rank == 1 for row in rows):
        notes.append("Rank 1: not shown to be worse than any other. The intervals are not for comparing.")
    if max(len(row.accuracies) for row in rows) == 1:
        notes.append("With one seed there is no interval.")
    if shown.height < finished.height:
        notes.append(f"Shown: the best {shown.height} of {finished.height}.")
    return Seeds(rows, " ".join(notes), sweep.measure)


def draw(data: Seeds, figure: Figure) -> None:
    """Draws one row for each configuration, the best on top."""
    style.size_for_rows(figure, [_name(row) for row in data.rows], extra=1.4)
    axes = figure.add_subplot()
    accuracies = [accuracy for row in data.rows for accuracy in row.accuracies]
    ends = [end for row in data.rows for end in (row.low, row.high) if end is not None]
    scales.accuracy_axis(axes, accuracies, "final validation accuracy", "x", ends=ends, measure=data.measure)
    for place, row in enumerate(data.rows):
        colour = style.ORANGE if row.rank == 1 else style.BLUE
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=6, alpha=0.4, solid_capstyle="butt")
        spread = np.linspace(-0.16, 0.16, len(row.accuracies)) if len(row.accuracies) > 1 else [0.0]
        axes.plot(
            row.accuracies, place + np.asarray(spread), linestyle="none", marker="o", markersize=4.5, color=colour
        )
        if len(row.accuracies) > 1:
            axes.plot([row.mean] * 2, [place - 0.3, place + 0.3], color=style.INK, linewidth=2)
    style.rows(axes, [_name(row) for row in data.rows])
    title = "Seeds, means and 95% intervals" if _several(data) else "Final validation accuracy"
    style.title(figure, in_words(title, data.measure))
    if handles := _handles(data):
        style.legend(figure, handles)


def _several(data: Seeds) -> bool:
    return any(len(row.accuracies) > 1 for row in data.rows)


def _name(row: Row) -> str:
    return row.label + (f" ({row.diverged} diverged)" if row.diverged else "")


def _handles(data: Seeds) -> list[Line2D]:
    dot: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 6}
    handles = []
    if any(row.rank == 1 for row in data.rows):
        handles.append(Line2D([], [], color=style.ORANGE, label="rank 1", **dot))
        handles.append(Line2D([], [], color=style.BLUE, label="others", **dot))
    if _several(data):
        bar: dict[str, Any] = {"linestyle": "none", "marker": "|", "markersize": 13, "markeredgewidth": 2}
        handles.append(Line2D([], [], color=style.INK, label="mean", **bar))
        handles.append(Line2D([], [], color=style.MUTED, linewidth=6, alpha=0.5, label="95% interval"))
    return handles

"""Final validation accuracy by learning rate: one line per optimizer or schedule, at its best other settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.loading import SweepData
from analysis.measures import in_words
from analysis.plots import scales, style
from analysis.plots.selection import by_family, families
from workloads.measure import ACCURACY, Measure

Edge = Literal["lowest", "highest"]


@dataclass(frozen=True)
class Series:
    """Accuracy by learning rate, rates ascending; the interval is None where there is none."""

    label: str
    lrs: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    diverged_lrs: tuple[float, ...]
    """Rates at which at least one seed diverged."""
    best_lr: float | None
    edge: Edge | None
    """Whether the best rate is at an edge of the grid: a better one may lie beyond it."""


@dataclass(frozen=True)
class ByRate:
    """One series for each optimizer or schedule, the best first."""

    series: tuple[Series, ...]
    note: str
    measure: Measure = ACCURACY
    """What the accuracies are."""
    drawn: bool = False
    """Whether rates are draws, each with other settings of its own: points that no line connects."""


def data(sweep: SweepData, summary: pl.DataFrame) -> ByRate | None:
    """Returns accuracy by learning rate, or None when only one rate was tried or nothing has finished."""
    ran = summary.filter(pl.col("n") + pl.col("diverged") > 0)
    if "lr" not in sweep.axes or ran["n"].sum() == 0:
        return None
    best = ran.unique([*families(sweep), "lr"], keep="first", maintain_order=True)
    groups = by_family(sweep, best)
    notes = []
    drawn = sweep.search is not None and "lr" in sweep.search.drawn
    if best.height < ran.height:
        notes.append("Each point uses the best other settings for its learning rate.")
    if len(groups) > style.MAX_LINES:
        notes.append(f"Shown: the best {style.MAX_LINES} of {len(groups)}.")
    series = tuple(_series(label, group) for label, group in groups[: style.MAX_LINES])
    if any(one.edge for one in series):
        edge = f"edge of their {'range' if drawn else 'grid'}"
        notes.append(f"Rings mark best learning rates at the {edge}: better ones may lie beyond it.")
    if drawn and sweep.search is not None and len(sweep.search.drawn) > 1:
        notes.append("Each point is a draw: its other settings differ too.")
    return ByRate(series, " ".join(notes), sweep.measure, drawn)


def _series(label: str, rows: pl.DataFrame) -> Series:
    finished = rows.filter(pl.col("n") > 0)
    ascending = finished.sort("lr")
    best = finished.row(0, named=True) if finished.height else {"lr": None, "lr_edge": None}
    return Series(
        label=label,
        lrs=tuple(ascending["lr"]),
        mean=tuple(ascending["final_val_accuracy_mean"]),
        low=tuple(ascending["final_val_accuracy_low"]),
        high=tuple(ascending["final_val_accuracy_high"]),
        diverged_lrs=tuple(rows.filter(pl.col("diverged") > 0)["lr"].sort()),
        best_lr=best["lr"],
        edge=best["lr_edge"],
    )


def draw(data: ByRate, figure: Figure) -> None:
    """Draws the series on a logarithmic axis; rates that diverged are crosses in a strip at the end of the worst."""
    axes = figure.add_subplot()
    diverged = [index for index, one in enumerate(data.series) if one.diverged_lrs]
    height = min(0.055, 0.25 / max(1, len(diverged)))
    means = [value for one in data.series for value in one.mean] or [0.0, 1.0]
    ends = [value for one in data.series for value in (*one.low, *one.high) if value is not None]
    scales.rate_axis(axes, [lr for one in data.series for lr in (*one.lrs, *one.diverged_lrs)])
    scales.accuracy_axis(
        axes, means, "final validation accuracy", ends=ends, foot=height * len(diverged), measure=data.measure
    )
    handles = [_draw_series(axes, one, index, data.drawn) for index, one in enumerate(data.series)]
    for level, index in enumerate(diverged):
        for lr in data.series[index].diverged_lrs:
            place = height * (level + 0.5)
            style.cross(
                axes,
                lr,
                place if data.measure.higher_is_better else 1 - place,
                style.line(index)["color"],
                at_foot=True,
            )
    if diverged:
        handles.append(style.cross_handle())
    if any(one.edge for one in data.series):
        handles.append(
            Line2D([], [], linestyle="none", label=f"best at edge of {'range' if data.drawn else 'grid'}", **_RING)
        )
    axes.set_xlabel("initial learning rate")
    style.title(figure, in_words("Final validation accuracy by learning rate", data.measure))
    if len(handles) > 1:
        style.legend(figure, handles)


_RING: dict[str, Any] = {"marker": "o", "markersize": 14, "markerfacecolor": "none", "markeredgecolor": style.INK}


def _draw_series(axes: Axes, one: Series, index: int, drawn: bool) -> Line2D:
    look = style.line(index) | ({"linestyle": "none"} if drawn else {})
    (handle,) = axes.plot(one.lrs, one.mean, **look, label=one.label)
    for lr, low, high in zip(one.lrs, one.low, one.high, strict=True):
        if low is not None and high is not None:
            axes.plot([lr, lr], [low, high], color=look["color"], linewidth=3.5, alpha=0.45, solid_capstyle="butt")
    if one.edge and one.best_lr is not None:
        axes.plot([one.best_lr], [one.mean[one.lrs.index(one.best_lr)]], linestyle="none", **_RING)
    return handle

"""Final validation accuracy by learning rate: one line an optimizer or schedule, each at its best other settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.aggregate import SweepData
from analysis.plots import style
from analysis.plots.selection import families

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
    """The best rate is an end of the grid: a better one may lie beyond."""


@dataclass(frozen=True)
class ByRate:
    """One series for each optimizer or schedule, the best first."""

    series: tuple[Series, ...]
    note: str


def data(sweep: SweepData, summary: pl.DataFrame) -> ByRate | None:
    """Returns accuracy by learning rate, or None when only one rate was tried or nothing has finished."""
    ran = summary.filter(pl.col("n") + pl.col("diverged") > 0)
    if "lr" not in sweep.axes or ran.is_empty():
        return None
    names = families(sweep)
    best = ran.unique([*names, "lr"], keep="first", maintain_order=True)
    groups = best.partition_by(names, maintain_order=True) if names else [best]
    notes = []
    if best.height < ran.height:
        notes.append("Each point is the best of the other settings at its rate.")
    if len(groups) > style.MAX_LINES:
        notes.append(f"Shown: the best {style.MAX_LINES} of {len(groups)}.")
    series = tuple(_series(group, names) for group in groups[: style.MAX_LINES])
    if any(one.edge for one in series):
        notes.append("A ring marks a best rate at the end of its grid: a better one may lie beyond.")
    return ByRate(series, " ".join(notes))


def _series(rows: pl.DataFrame, names: list[str]) -> Series:
    label = ", ".join(str(value) for value in rows.select(names).row(0)) or "all"
    lrs = sorted(rows["lr"])
    finished = rows.filter(pl.col("n") > 0)
    best = finished["lr"].first()
    ascending = finished.sort("lr")
    return Series(
        label,
        tuple(ascending["lr"]),
        *(tuple(ascending[f"final_val_accuracy_{name}"]) for name in ("mean", "low", "high")),
        diverged_lrs=tuple(rows.filter(pl.col("diverged") > 0)["lr"].sort()),
        best_lr=best if isinstance(best, float) else None,
        edge=None if len(lrs) < 2 or best not in (lrs[0], lrs[-1]) else "lowest" if best == lrs[0] else "highest",
    )


def draw(data: ByRate, figure: Figure) -> None:
    """Draws the series on a logarithmic axis; diverged rates are crosses at the foot."""
    axes = figure.add_subplot()
    accuracies = [value for one in data.series for value in (*one.mean, *(low for low in one.low if low is not None))]
    style.rate_axis(axes, [lr for one in data.series for lr in (*one.lrs, *one.diverged_lrs)])
    if accuracies:
        style.accuracy_axis(axes, accuracies)
    handles = [_draw_series(axes, one, index) for index, one in enumerate(data.series)]
    if any(one.edge for one in data.series):
        ring = {"marker": "o", "markersize": 13, "markerfacecolor": "none", "color": style.INK}
        handles.append(Line2D([], [], linestyle="none", label="best at end of grid", **ring))  # type: ignore[arg-type]
    if any(one.diverged_lrs for one in data.series):
        handles.append(style.cross_handle())
    axes.set_xlabel("initial learning rate")
    axes.set_ylabel("final validation accuracy")
    style.title(figure, "Final validation accuracy by learning rate")
    if len(handles) > 1:
        style.legend(figure, handles)


def _draw_series(axes: Axes, one: Series, index: int) -> Line2D:
    look = style.line(index)
    (handle,) = axes.plot(one.lrs, one.mean, **look, label=one.label)
    for lr, low, high in zip(one.lrs, one.low, one.high, strict=True):
        if low is not None and high is not None:
            axes.plot([lr, lr], [low, high], color=look["color"], linewidth=3.5, alpha=0.45, solid_capstyle="butt")
    if one.edge:
        ring = {"marker": "o", "markersize": 15, "markerfacecolor": "none", "markeredgecolor": style.INK}
        axes.plot([one.best_lr], [one.mean[one.lrs.index(one.best_lr)]], linestyle="none", markeredgewidth=1.8, **ring)
        # type: ignore[arg-type]
    for lr in one.diverged_lrs:
        style.cross_at_foot(axes, lr, index, look["color"])
    return handle

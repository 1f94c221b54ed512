"""Training loss above and the learning rate really applied below, on the same epochs."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.loading import SweepData
from analysis.plots import scales, style
from analysis.plots.learning_curves import Curves, curves, lines
from analysis.plots.selection import Selection, best_and_worst

_LOG_FROM = 50
"""Initial rates that differ by at least this factor are shown on a logarithmic axis."""
_LOG_DECADES = 4
_EXTREMES = 6


@dataclass(frozen=True)
class Rate:
    """The learning rate of one configuration: at the first and the last step of each epoch."""

    epochs: tuple[float, ...]
    """Two for each epoch: it begins at one less than its number and ends at its number."""
    rates: tuple[float, ...]


@dataclass(frozen=True)
class Applied:
    """Losses and rates of the same configurations, in the same order."""

    title: str
    losses: Curves
    rates: tuple[Rate, ...]
    note: str


def schedules(sweep: SweepData, summary: pl.DataFrame) -> Applied | None:
    """Returns each schedule at its best settings, or None when the sweep has only one schedule."""
    if "scheduler" not in sweep.axes:
        return None
    return _applied(sweep, best_and_worst(sweep, summary), "Training loss and learning rate by schedule")


def learning_rates(sweep: SweepData, summary: pl.DataFrame) -> Applied | None:
    """Returns the rates of a sweep with one schedule, or None when `schedules` or `plateau_extremes` shows them.

    None, too, when no rate ever changes.
    """
    changes = (pl.col("lr") != pl.col("lr_last")) | (pl.col("lr") != pl.col("lr").shift(1).over("trial_id"))
    shown_elsewhere = "scheduler" in sweep.axes or plateau_extremes(sweep, summary) is not None
    if shown_elsewhere or not sweep.epochs.select(changes.any()).item():
        return None
    return _applied(sweep, best_and_worst(sweep, summary), "Training loss and learning rate")


def plateau_extremes(sweep: SweepData, summary: pl.DataFrame) -> Applied | None:
    """Returns the best and the worst plateau settings, or None when only one thing was trained."""
    plateau = summary.filter(pl.col("scheduler") == "plateau")
    if not any(plateau[name].n_unique() > 1 for name in sweep.axes if name.startswith("scheduler_")):
        return None
    selection = best_and_worst(sweep, plateau, _EXTREMES)
    if len(selection.configurations) < 2:
        return None
    return _applied(sweep, selection, "Best and worst plateau settings")


def _applied(sweep: SweepData, selection: Selection, title: str) -> Applied | None:
    losses = curves(sweep, selection, "train_loss")
    if losses is None:
        return None
    first_seeds = (
        sweep.trials.filter(pl.col("epochs_run") > 0)
        .sort("seed")
        .unique("configuration", keep="first", maintain_order=True)
        .select("trial_id")
    )
    rows = sweep.epochs.join(first_seeds, on="trial_id", how="semi").sort("configuration", "epoch")
    rates = {
        key[0]: Rate(
            tuple(float(epoch - 1 + end) for epoch in group["epoch"] for end in (0, 1)),
            tuple(rate for pair in group.select("lr", "lr_last").iter_rows() for rate in pair),
        )
        for key, group in rows.group_by("configuration", maintain_order=True)
    }
    seed = "Learning rates are those of the first seed." if losses.seeds > 1 else ""
    note = " ".join(part for part in (selection.note, seed) if part)
    return Applied(title, losses, tuple(rates[c] for c in selection.configurations if c in rates), note)


def draw(data: Applied, figure: Figure) -> None:
    """Draws losses above rates, with one legend."""
    figure.set_size_inches(style.WIDTH, 6.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    handles = lines(above, data.losses)
    above.set_xlabel("")
    _rates(below, data.rates)
    last = max(len(curve.mean) for curve in data.losses.curves)
    scales.epoch_axis(below, last, first=0)
    below.set_xlabel("epoch")
    style.title(figure, data.title)
    style.legend(figure, handles)


def _rates(axes: Axes, rates: tuple[Rate, ...]) -> None:
    for index, one in enumerate(rates):
        look = style.line(index)
        axes.plot(one.epochs, one.rates, color=look["color"], linestyle=look["linestyle"])
    axes.set_ylabel("learning rate")
    highest = [max(one.rates) for one in rates]
    if max(highest) / min(highest) >= _LOG_FROM:
        lowest = max(min(min(one.rates) for one in rates), min(highest) / 10**_LOG_DECADES)
        scales.rate_axis(axes, [*highest, lowest], "y")
    else:
        axes.set_ylim(bottom=0)

"""A metric by epoch: the mean over seeds and its interval, one line for each chosen configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import schema
from analysis.loading import SweepData
from analysis.measures import in_words
from analysis.plots import scales, style
from analysis.plots.selection import Selection, best_and_worst
from analysis.statistics.intervals import mean_intervals
from workloads.measure import ACCURACY, Measure

METRICS = {
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "val_loss": "validation loss",
    "val_accuracy": "validation accuracy",
}
"""Column of the epochs table -> what the axis says."""


@dataclass(frozen=True)
class Curve:
    """One configuration's metric for epochs 1, 2, ...: as far as every seed has a record."""

    label: str
    mean: tuple[float, ...]
    low: tuple[float, ...] | None
    """Lower ends of the 95% intervals; None with a single seed."""
    high: tuple[float, ...] | None
    diverged: bool
    """At least one seed diverged, which is where the curve ends."""


@dataclass(frozen=True)
class Curves:
    """Learning curves, the best configuration first."""

    metric: str
    curves: tuple[Curve, ...]
    seeds: int
    """Most seeds of any configuration."""
    note: str
    measure: Measure = ACCURACY
    """What the accuracies are."""


def data(metric: str) -> Callable[[SweepData, pl.DataFrame], Curves | None]:
    """Returns the data function of a metric's curves."""

    def of_sweep(sweep: SweepData, summary: pl.DataFrame) -> Curves | None:
        return curves(sweep, best_and_worst(sweep, summary), metric)

    return of_sweep


def curves(sweep: SweepData, selection: Selection, metric: str) -> Curves | None:
    """Returns the curves of chosen configurations, or None when none has a record with that metric."""
    chosen = pl.DataFrame({"configuration": selection.configurations}, schema={"configuration": pl.Int32})
    rows = sweep.epochs.join(chosen, on="configuration", how="semi").sort("trial_id", "epoch")
    by_trial = rows.group_by("configuration", "trial_id", maintain_order=True).agg(metric)
    (of,) = (of for of in schema.METRICS if of.name == f"final_{metric.replace('train', 'val')}")
    bounds = of.bounds(sweep.measure)
    diverged = set(sweep.trials.filter(pl.col("status") == "diverged")["configuration"])
    found = []
    for configuration, label in zip(selection.configurations, selection.labels, strict=True):
        series = by_trial.filter(pl.col("configuration") == configuration)[metric].to_list()
        if series and not any(None in values for values in series):  # a measure of a whole split may be unknown
            found.append(_curve(label, series, configuration in diverged, bounds))
    seeds = int(by_trial.group_by("configuration").len()["len"].max() or 0)  # type: ignore[arg-type]
    return Curves(metric, tuple(found), seeds, selection.note, sweep.measure) if found else None


def _curve(label: str, series: list[list[float]], diverged: bool, bounds: tuple[float, float]) -> Curve:
    length = min(len(values) for values in series)
    values = np.array([seed[:length] for seed in series])
    mean = values.mean(axis=0)
    low, high = mean_intervals(values.T, *bounds)
    if np.isnan(low).all():
        return Curve(label, tuple(mean.tolist()), None, None, diverged)
    low, high = np.where(np.isnan(low), mean, low), np.where(np.isnan(high), mean, high)  # seeds that agree exactly
    return Curve(label, tuple(mean.tolist()), tuple(low.tolist()), tuple(high.tolist()), diverged)


def draw(data: Curves, figure: Figure) -> None:
    """Draws the curves with their legend beside or below them."""
    axes = figure.add_subplot()
    handles = lines(axes, data)
    name = in_words(METRICS[data.metric], data.measure)
    style.title(figure, f"{name[0].upper()}{name[1:]} by epoch")
    style.legend(figure, handles)


_FAR = 20
"""A curve that rises above this multiple of the usual maximum is cut off."""


def _value_axis(axes: Axes, data: Curves) -> None:
    """Sets up the vertical axis to include means and bands, except of curves that would squeeze the others."""
    label = METRICS[data.metric] + (", mean and 95% interval" if data.seeds > 1 else "")
    finite = [curve for curve in data.curves if not curve.diverged] or data.curves
    usual = float(np.quantile([max(curve.mean) for curve in finite], 0.5, method="lower"))
    most = _FAR * usual if usual > 0 else np.inf
    shown = [curve for curve in finite if max(curve.mean) <= most]
    means = [value for curve in shown for value in curve.mean]
    ends = [min(value, most) for curve in shown for end in (curve.low, curve.high) if end is not None for value in end]
    if data.metric.endswith("loss"):
        scales.loss_axis(axes, means, ends)
        axes.set_ylabel(label)
    else:
        scales.accuracy_axis(axes, means, label, ends=ends, measure=data.measure)


def lines(axes: Axes, data: Curves) -> list[Line2D]:
    """Draws the curves on axes and returns the legend's entries."""
    longest = max(len(curve.mean) for curve in data.curves)
    handles = []
    for index, curve in enumerate(data.curves):
        look = style.line(index)
        epochs = np.arange(1, len(curve.mean) + 1)
        marks = style.mark_every(longest, index)
        handles += axes.plot(epochs, curve.mean, **look, markevery=marks, label=curve.label)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(epochs, curve.low, curve.high, color=look["color"], alpha=0.18)
    scales.epoch_axis(axes, longest)
    _value_axis(axes, data)
    for curve, handle in zip(data.curves, handles, strict=True):
        if curve.diverged:
            style.cross(axes, len(curve.mean), min(curve.mean[-1], axes.get_ylim()[1]), str(handle.get_color()))
    if any(curve.diverged for curve in data.curves):
        handles.append(style.cross_handle())
    return handles

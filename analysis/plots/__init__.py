"""The plots of a sweep: one row per plot, one file per kind of plot.

A plot consists of a data function, which turns a sweep's tables into a small dataclass, and a function that draws it.
To add one, write both in a file here and add a row to `PLOTS`: report, command line and tests pick it up.
"""

from __future__ import annotations

import analysis.plots.untouched  # noqa: F401  (before anything that imports matplotlib)

# isort: split
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from analysis.loading import SweepData
from analysis.measures import in_words
from analysis.plots import (
    accuracy_by_lr,
    applied_rates,
    budget,
    cuts,
    effects,
    fork_tree,
    heat_map,
    learning_curves,
    luck,
    parallel_coordinates,
    plateau_reductions,
    race,
    seeds,
    targets,
)
from analysis.plots.style import Picture, drawn, picture
from workloads.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Plot:
    """One kind of plot."""

    name: str
    """Name of its files and for `--plot`."""
    caption: str
    """Caption, understandable on its own; of accuracy, whatever the sweep's measure."""
    data: Callable[[SweepData, pl.DataFrame], Any]
    """Sweep and its summary -> numbers with a `note`; None if the plot does not apply to this sweep."""
    draw: Callable[[Any, Figure], None]
    """Draws these numbers."""


@dataclass(frozen=True)
class Drawn:
    """A plot of a sweep."""

    name: str
    caption: str
    picture: Picture


@dataclass(frozen=True)
class Failure:
    """A plot that could not be drawn."""

    name: str
    error: str
    """The exception, in one line."""
    traceback: str


PLOTS: tuple[Plot, ...] = (
    Plot(
        "seeds",
        "Validation accuracy after the last epoch: a point per seed, the mean and its 95% interval (Student's t).",
        seeds.data,
        seeds.draw,
    ),
    Plot(
        "race",
        "Who was dropped after how many seeds; below, how far those that lasted are behind the leader. These intervals "
        "allow for a look after every seed.",
        race.data,
        race.draw,
    ),
    Plot(
        "accuracy_by_lr",
        "Validation accuracy after the last epoch for each learning rate.",
        accuracy_by_lr.data,
        accuracy_by_lr.draw,
    ),
    Plot(
        "schedules",
        "Training loss by epoch and, below, the learning rate applied by each schedule.",
        applied_rates.schedules,
        applied_rates.draw,
    ),
    Plot(
        "lr_by_schedule",
        "Validation accuracy after the last epoch for each learning rate and schedule.",
        heat_map.lr_by_schedule,
        heat_map.draw,
    ),
    Plot(
        "cuts",
        "Gain in validation accuracy after the last epoch from cutting the learning rate once, by the epoch after "
        "which it was cut.",
        cuts.data,
        cuts.draw,
    ),
    Plot(
        "plateau_pairs",
        "Validation accuracy after the last epoch for each pair of plateau settings.",
        heat_map.plateau_pairs,
        heat_map.draw,
    ),
    Plot(
        "plateau_reductions",
        "Epochs at which the plateau schedule lowered the learning rate, best result at the top.",
        plateau_reductions.data,
        plateau_reductions.draw,
    ),
    Plot(
        "plateau_extremes",
        "Training loss and learning rate by epoch for the best and the worst settings.",
        applied_rates.plateau_extremes,
        applied_rates.draw,
    ),
    Plot(
        "train_loss",
        "Mean training loss, measured while training.",
        learning_curves.data("train_loss"),
        learning_curves.draw,
    ),
    Plot(
        "val_loss",
        "Mean validation loss after each epoch.",
        learning_curves.data("val_loss"),
        learning_curves.draw,
    ),
    Plot(
        "train_accuracy",
        "Training accuracy, measured while training.",
        learning_curves.data("train_accuracy"),
        learning_curves.draw,
    ),
    Plot(
        "val_accuracy",
        "Validation accuracy after each epoch.",
        learning_curves.data("val_accuracy"),
        learning_curves.draw,
    ),
    Plot(
        "learning_rates",
        "Training loss by epoch and, below, the applied learning rate.",
        applied_rates.learning_rates,
        applied_rates.draw,
    ),
    Plot(
        "epochs_to_target",
        "Epochs until a validation accuracy is first reached, median over seeds.",
        targets.data,
        targets.draw,
    ),
    Plot(
        "effects",
        "Shares of the variance of the final validation accuracy over all finished trials, by axis, seed and pair.",
        effects.data,
        effects.draw,
    ),
    Plot(
        "budget",
        "Best validation accuracy found by a given number of trials, drawn at random from the sweep.",
        budget.data,
        budget.draw,
    ),
    Plot(
        "luck",
        "Shares of the variance of the final validation accuracy between trainings that differ in nothing but luck, "
        "and the standard deviation that is still open for trainings that part after some epochs in common; dashed: of "
        "all trainings. Bars are 95% intervals.",
        luck.data,
        luck.draw,
    ),
    Plot(
        "parallel_coordinates",
        "Every configuration as a line through its settings to its validation accuracy after the last epoch.",
        parallel_coordinates.data,
        parallel_coordinates.draw,
    ),
    Plot(
        "fork_tree",
        "Epochs trained once for several trials: the wider a line, the more trials share it.",
        fork_tree.data,
        fork_tree.draw,
    ),
)
"""Every plot, in the order of the report."""


def draw_figure(sweep: SweepData, summary: pl.DataFrame, name: str) -> Figure:
    """Returns one plot of a sweep, to go on from.

    Args:
        sweep: The sweep.
        summary: `summarise(sweep)`.
        name: Name of the plot.

    Raises:
        InputError: The name is unknown, or the plot does not apply to this sweep.
    """
    (plot,) = named([name])
    numbers = plot.data(sweep, summary)
    if numbers is None:
        fit = [one.name for one in PLOTS if one.data(sweep, summary) is not None]
        raise InputError(f"plot {name!r} does not apply to this sweep; those that do: {', '.join(fit) or 'none'}")
    return drawn(lambda figure: plot.draw(numbers, figure))


def named(names: Collection[str]) -> list[Plot]:
    """Returns the plots of these names.

    Raises:
        InputError: A name is unknown.
    """
    known = {plot.name: plot for plot in PLOTS}
    for name in names:
        if name not in known:
            raise InputError(f"unknown plot {name!r}{did_you_mean(str(name), known)}; known: {', '.join(known)}")
    return [known[name] for name in names]


def draw_plots(
    sweep: SweepData,
    summary: pl.DataFrame,
    names: Collection[str] | None = None,
    failures: list[Failure] | None = None,
) -> list[Drawn]:
    """Returns the plots that apply to a sweep, in the order of `PLOTS`.

    Args:
        sweep: The sweep.
        summary: `summarise(sweep)`.
        names: Only these plots; None means all.
        failures: Receives the plots that could not be drawn, so that the others still are; if None, the exception is
            raised.
    """
    pictures = []
    for plot in PLOTS:
        if names is None or plot.name in names:
            try:
                pictures.append(_drawn(plot, sweep, summary))
            except Exception as error:
                if failures is None:
                    raise
                line = " ".join(f"{type(error).__name__}: {error}".split())
                failures.append(Failure(plot.name, line, traceback.format_exc()))
    return [one for one in pictures if one is not None]


def _drawn(plot: Plot, sweep: SweepData, summary: pl.DataFrame) -> Drawn | None:
    numbers = plot.data(sweep, summary)
    if numbers is None:
        return None
    caption = in_words(f"{plot.caption} {numbers.note}".strip(), sweep.measure)
    return Drawn(plot.name, caption, picture(lambda figure: plot.draw(numbers, figure)))

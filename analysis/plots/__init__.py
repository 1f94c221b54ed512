"""The pictures of a sweep: one row a plot, one file a kind of plot.

A plot is a data function, from a sweep's tables to a small tuple of numbers, and a function that draws that tuple. To
add one, write both in a file here and add a row to `PLOTS`: report, command line and tests pick it up.
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
from analysis.plots import (
    accuracy_by_lr,
    applied_rates,
    budget,
    effects,
    fork_tree,
    heat_map,
    learning_curves,
    parallel_coordinates,
    plateau_reductions,
    seeds,
    targets,
)
from analysis.plots.style import Picture, picture


@dataclass(frozen=True)
class Plot:
    """One kind of picture."""

    name: str
    """Name of its files and of `--plot`."""
    caption: str
    """What it shows, for people who were not there."""
    data: Callable[[SweepData, pl.DataFrame], Any]
    """Sweep and its summary -> numbers with a `note`; None when the picture says nothing about this sweep."""
    draw: Callable[[Any, Figure], None]
    """Draws these numbers."""


@dataclass(frozen=True)
class Drawn:
    """A picture of a sweep."""

    name: str
    caption: str
    picture: Picture


@dataclass(frozen=True)
class Failure:
    """A picture that could not be drawn."""

    name: str
    error: str
    """What was raised, in one line."""
    traceback: str


PLOTS: tuple[Plot, ...] = (
    Plot(
        "seeds",
        "Validation accuracy after the last epoch: a point for each seed, the mean and its 95% interval (Student's t).",
        seeds.data,
        seeds.draw,
    ),
    Plot(
        "accuracy_by_lr",
        "Validation accuracy after the last epoch for each learning rate.",
        accuracy_by_lr.data,
        accuracy_by_lr.draw,
    ),
    Plot(
        "schedules",
        "Training loss by epoch and, below, the learning rate that each schedule really applied.",
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
        "plateau_pairs",
        "Validation accuracy after the last epoch for each pair of plateau settings.",
        heat_map.plateau_pairs,
        heat_map.draw,
    ),
    Plot(
        "plateau_reductions",
        "The epochs at which the plateau schedule lowered the learning rate, the best outcome on top.",
        plateau_reductions.data,
        plateau_reductions.draw,
    ),
    Plot(
        "plateau_extremes",
        "Training loss and learning rate by epoch of the settings that ended best and worst.",
        applied_rates.plateau_extremes,
        applied_rates.draw,
    ),
    Plot(
        "train_loss",
        "Mean loss over the training images, measured while training.",
        learning_curves.data("train_loss"),
        learning_curves.draw,
    ),
    Plot(
        "val_loss",
        "Mean loss over the validation images after each epoch.",
        learning_curves.data("val_loss"),
        learning_curves.draw,
    ),
    Plot(
        "train_accuracy",
        "Fraction of the training images right, measured while training.",
        learning_curves.data("train_accuracy"),
        learning_curves.draw,
    ),
    Plot(
        "val_accuracy",
        "Fraction of the validation images right after each epoch.",
        learning_curves.data("val_accuracy"),
        learning_curves.draw,
    ),
    Plot(
        "learning_rates",
        "Training loss by epoch and, below, the learning rate that was really applied.",
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
        "Shares of the variance of the final validation accuracy over all finished trials, by axis and pair of axes.",
        effects.data,
        effects.draw,
    ),
    Plot(
        "budget",
        "The best validation accuracy that so many trials find, drawn at random from the sweep's.",
        budget.data,
        budget.draw,
    ),
    Plot(
        "parallel_coordinates",
        "Every configuration as a line through its settings to its validation accuracy after the last epoch.",
        parallel_coordinates.data,
        parallel_coordinates.draw,
    ),
    Plot(
        "fork_tree",
        "Epochs that were trained once for several trials: a line is as wide as the number of trials that share it.",
        fork_tree.data,
        fork_tree.draw,
    ),
)
"""Every picture, in the order of the report."""


def draw_plots(
    sweep: SweepData,
    summary: pl.DataFrame,
    names: Collection[str] | None = None,
    failures: list[Failure] | None = None,
) -> list[Drawn]:
    """Returns the pictures that say something about a sweep, in the order of `PLOTS`.

    Args:
        sweep: The sweep.
        summary: `summarise(sweep)`.
        names: Only these plots; all when None.
        failures: Receives the pictures that could not be drawn, so that one does not cost the others; when None, what
            was raised is raised.
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
    caption = f"{plot.caption} {numbers.note}".strip()
    return Drawn(plot.name, caption, picture(lambda figure: plot.draw(numbers, figure)))

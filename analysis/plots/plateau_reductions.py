"""When plateau schedules lowered the learning rate: one row per setting, with a mark at each reduction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from analysis.aggregate import CHOICE
from analysis.loading import FINISHED, SweepData
from analysis.plots import scales, style
from analysis.plots.selection import describe, seed_noise
from workloads.measure import ACCURACY, Measure

_MOST_LINES = 30


@dataclass(frozen=True)
class Row:
    """Settings with identical training."""

    label: str
    epochs: int
    """Last epoch of any seed."""
    fell: tuple[tuple[int, ...], ...]
    """For each seed, the epochs that began with a lower rate than the one before."""
    accuracy: float | None
    """Mean final validation accuracy; None if every seed diverged."""
    diverged: bool


@dataclass(frozen=True)
class Timeline:
    """Reductions by epoch, the best outcome first."""

    rows: tuple[Row, ...]
    noise: float
    """Standard error of an accuracy, from seed to seed."""
    note: str
    measure: Measure = ACCURACY
    """What the accuracies are."""


def data(sweep: SweepData, summary: pl.DataFrame) -> Timeline | None:
    """Returns the reductions of every plateau setting, or None when no plateau schedule has run."""
    ran = sweep.trials.filter((pl.col("scheduler") == "plateau") & (pl.col("epochs_run") > 0))
    if ran.is_empty():
        return None
    fell = (
        sweep.epochs.join(ran.select("trial_id"), on="trial_id", how="semi")
        .sort("trial_id", "epoch")
        .with_columns(fell=(pl.col("lr") < pl.col("lr").shift(1).over("trial_id")).fill_null(value=False))
        .group_by("trial_id")
        .agg(pl.col("epoch").filter("fell").alias("fell"))
    )
    settings = (
        ran.join(fell, on="trial_id")
        .sort("configuration", "seed")
        .group_by("configuration", maintain_order=True)
        .agg(
            "fell",
            pl.col("epochs_run").max(),
            pl.col(CHOICE).filter(pl.col("status").is_in(FINISHED)).mean().alias("accuracy"),
            (pl.col("status") == "diverged").any().alias("diverged"),
            pl.col("final_train_loss").alias("losses"),
        )
        .group_by("fell", "epochs_run", "accuracy", "diverged", "losses", maintain_order=True)
        .agg("configuration")
        .sort(sweep.measure.sign * pl.col("accuracy"), descending=True, nulls_last=True, maintain_order=True)
    )
    shown = settings.head(_MOST_LINES)
    rows = tuple(
        Row(
            describe(sweep, row["configuration"]),
            row["epochs_run"],
            tuple(map(tuple, row["fell"])),
            row["accuracy"],
            row["diverged"],
        )
        for row in shown.iter_rows(named=True)
    )
    notes = []
    if settings.height < ran["configuration"].n_unique():
        notes.append("Settings with identical training share a row.")
    if shown.height < settings.height:
        notes.append(f"Shown: the best {shown.height} of {settings.height} rows.")
    if ran["seed"].n_unique() > 1:
        notes.append("Where seeds differ, each has its own line of marks.")
    return Timeline(rows, seed_noise(summary, sweep.measure), " ".join(notes), sweep.measure)


def draw(data: Timeline, figure: Figure) -> None:
    """Draws the timeline, coloured by final validation accuracy."""
    style.size_for_rows(figure, [row.label for row in data.rows], extra=1.7, width=10)
    axes = figure.add_subplot()
    colours = scales.AccuracyColours([row.accuracy for row in data.rows], data.noise, data.measure)
    for place, row in enumerate(data.rows):
        colour = style.MUTED if row.accuracy is None else colours(row.accuracy)
        axes.plot([1, row.epochs], [place, place], color=colour, linewidth=3, solid_capstyle="butt", zorder=2)
        differing = row.fell if len(set(row.fell)) > 1 else row.fell[:1]
        spread = np.linspace(-0.3, 0.3, len(differing)) if len(differing) > 1 else [0.0]
        size = max(14, 90 / len(differing))
        for offset, fell in zip(spread, differing, strict=True):
            axes.scatter(
                fell,
                np.full(len(fell), place + offset),
                marker="v",
                s=size,
                color=colour,
                edgecolors=style.INK,
                linewidths=0.9,
                zorder=3,
            )
        if row.diverged:
            style.cross(axes, row.epochs, place)
    scales.epoch_axis(axes, max(row.epochs for row in data.rows))
    style.rows(axes, [row.label for row in data.rows])
    colours.bar(figure, axes)
    style.title(figure, "Epochs at which the plateau schedule lowered the rate (▼)")

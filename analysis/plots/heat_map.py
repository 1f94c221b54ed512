"""Final accuracy over two axes of a sweep: learning rate x schedule, and each pair of plateau settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.aggregate import CHOICE
from analysis.loading import FINISHED, SweepData
from analysis.measures import in_words
from analysis.plots import scales, style
from analysis.plots.selection import axis_name, seed_noise, value_text
from workloads.measure import ACCURACY, Measure

_MOST_CELLS_WITH_TEXT = 12
_MOST_INCHES = 12
_MOST_PANELS = 6
_LONGEST_LEVEL = 7


@dataclass(frozen=True)
class Map:
    """Mean final validation accuracies over two axes."""

    x_name: str
    x: tuple[str, ...]
    y_name: str
    y: tuple[str, ...]
    y_named: bool
    """Whether rows are names rather than numbers: the first is then at the top."""
    values: tuple[tuple[float | None, ...], ...]
    """One row for each y; None where nothing completed."""
    diverged: tuple[tuple[bool, ...], ...]
    """Where at least one training diverged."""


@dataclass(frozen=True)
class Maps:
    """Heat maps on one colour scale."""

    title: str
    maps: tuple[Map, ...]
    noise: float
    """Standard error of a cell, from seed to seed."""
    note: str
    measure: Measure = ACCURACY
    """What the accuracies are."""


def lr_by_schedule(sweep: SweepData, summary: pl.DataFrame) -> Maps | None:
    """Returns learning rate x schedule, or None when either is only one."""
    if not {"lr", "scheduler"} <= set(_listed(sweep)):
        return None
    note = f"Each cell is the mean over seeds{' and all other settings' if len(sweep.axes) > 2 else ''}."
    grid = over(sweep.trials, "lr", "scheduler")
    title = "Final validation accuracy by learning rate and schedule"
    return _maps(title, (grid,), seed_noise(summary, sweep.measure), note, sweep.measure)


def plateau_pairs(sweep: SweepData, summary: pl.DataFrame) -> Maps | None:
    """Returns a map for each pair of plateau settings that vary, or None when fewer than two do."""
    trials = sweep.trials.filter(pl.col("scheduler") == "plateau")
    axes = [name for name in sweep.axes if trials[name].n_unique() > 1]
    settings = [name for name in _listed(sweep) if name in axes and name.startswith("scheduler_")]
    if len(settings) < 2:
        return None
    pairs = list(combinations(settings, 2))
    shown = pairs[:_MOST_PANELS]
    note = f"Each cell is the mean over seeds{' and all other settings' if len(axes) > 2 else ''}."
    if len(shown) < len(pairs):
        note += f" Shown: {len(shown)} of {len(pairs)} pairs."
    maps = tuple(over(trials, *pair) for pair in shown)
    plateau = summary.filter(pl.col("scheduler") == "plateau")
    return _maps(
        "Final validation accuracy by plateau settings", maps, seed_noise(plateau, sweep.measure), note, sweep.measure
    )


def _listed(sweep: SweepData) -> list[str]:
    """Returns the axes whose values are listed: what is drawn has hardly a value twice."""
    return [name for name in sweep.axes if sweep.search is None or name not in sweep.search.drawn]


def _maps(title: str, maps: tuple[Map, ...], noise: float, note: str, measure: Measure) -> Maps:
    values = _values(maps)
    if within_noise(values, noise):
        note += " The cells differ by no more than seed noise, so their colours barely differ."
    return Maps(in_words(title, measure), maps, noise, note, measure)


def within_noise(values: Sequence[float], noise: float) -> bool:
    """Whether values differ by no more than seed noise; also true for fewer than two values."""
    return len(values) < 2 or max(values) - min(values) < scales.NOISE_RANGE * noise


def _values(maps: tuple[Map, ...]) -> list[float]:
    return [value for one in maps for line in one.values for value in line if value is not None]


def over(trials: pl.DataFrame, x: str, y: str) -> Map:
    """Returns the mean final validation accuracy of finished trials over two columns of a trials table."""
    cells = trials.group_by(x, y).agg(
        pl.col(CHOICE).filter(pl.col("status").is_in(FINISHED)).mean().alias("value"),
        (pl.col("status") == "diverged").any().alias("diverged"),
    )
    found = {(row[0], row[1]): (row[2], row[3]) for row in cells.select(x, y, "value", "diverged").iter_rows()}
    xs, ys = _levels(trials, x), _levels(trials, y)
    empty = (None, False)
    return Map(
        x_name=axis_name(x),
        x=tuple(value_text(value) for value in xs),
        y_name=axis_name(y),
        y=tuple(value_text(value) for value in ys),
        y_named=trials[y].dtype == pl.String,
        values=tuple(tuple(found.get((i, j), empty)[0] for i in xs) for j in ys),
        diverged=tuple(tuple(found.get((i, j), empty)[1] for i in xs) for j in ys),
    )


def _levels(trials: pl.DataFrame, name: str) -> list[object]:
    """Returns a column's values: numbers rising, names as planned."""
    values = trials[name].unique(maintain_order=True)
    return (values if values.dtype == pl.String else values.sort(nulls_last=True)).to_list()


def draw(data: Maps, figure: Figure) -> None:
    """Draws the maps side by side on one colour scale, the best cells bold if they differ at all."""
    columns = min(len(data.maps), 2)
    rows = -(-len(data.maps) // columns)
    cells_wide = sum(len(one.x) for one in data.maps[:columns])
    cells_high = max(len(one.y) for one in data.maps)
    width = min(_MOST_INCHES, max(style.WIDTH, 0.72 * cells_wide + 1.6 * columns + 1))
    figure.set_size_inches(width, max(3.6, 0.5 * cells_high + 1.6) * rows)
    colours = scales.AccuracyColours(_values(data.maps), data.noise, data.measure)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, one in zip(panels.flat, data.maps, strict=False):
        _panel(axes, one, colours, data.noise)
    for axes in panels.flat[len(data.maps) :]:
        axes.set_visible(False)
    colours.bar(figure, panels)
    style.title(figure, data.title)


def _panel(axes: Axes, data: Map, colours: scales.AccuracyColours, noise: float) -> None:
    values = np.array([[np.nan if value is None else value for value in line] for line in data.values], dtype=float)
    shown = np.ma.masked_invalid(colours.measure.sign * values)
    axes.pcolormesh(
        shown,
        cmap=colours.map,
        norm=colours.scale,
        edgecolors=style.PAPER,
        linewidth=1.5 if len(data.x) <= _MOST_CELLS_WITH_TEXT else 0,
    )
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    places = np.arange(0, len(data.x), -(-len(data.x) // _MOST_CELLS_WITH_TEXT))
    axes.set_xticks(places + 0.5, [data.x[place] for place in places])
    if max(map(len, data.x)) > _LONGEST_LEVEL:
        axes.tick_params(axis="x", rotation=30)
    axes.set_yticks(np.arange(len(data.y)) + 0.5, data.y)
    if data.y_named:
        axes.invert_yaxis()
    axes.set_xlabel(data.x_name)
    axes.set_ylabel(data.y_name)
    if len(data.x) <= _MOST_CELLS_WITH_TEXT:
        _label_cells(axes, data, colours, noise)


def _label_cells(axes: Axes, data: Map, colours: scales.AccuracyColours, noise: float) -> None:
    values = [value for line in data.values for value in line if value is not None]
    best = None if within_noise(values, noise) else _cell(max(values, key=colours.position), colours.measure)
    for j, line in enumerate(data.values):
        for i, value in enumerate(line):
            number = "–" if value is None else _cell(value, colours.measure)
            text = number
            if data.diverged[j][i]:
                text = "×" if value is None else text + "×"
            dark = value is not None and colours.position(value) < 0.6
            colour = style.MUTED if value is None else style.ON_DARK if dark else style.ON_LIGHT
            weight = "bold" if number == best else "normal"
            axes.text(i + 0.5, j + 0.5, text, ha="center", va="center", fontsize=11, color=colour, fontweight=weight)


def _cell(value: float, measure: Measure) -> str:
    """Returns what a cell says: `.912`, `0.312`, `3120`."""
    return measure.text(value, 3).removeprefix("0" if measure.is_share else "")

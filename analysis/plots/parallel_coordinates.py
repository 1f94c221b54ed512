"""All axes of a sweep side by side: every configuration is a line through its values, coloured by its outcome."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import polars as pl
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from analysis.aggregate import CHOICE
from analysis.loading import SweepData
from analysis.measures import in_words
from analysis.plots import scales, style
from analysis.plots.selection import axis_name, value_text
from workloads.measure import ACCURACY, Measure
from workloads.spans import ScaleName, Span

_MOST_LINES = 400
_MOST_LEVELS = 16
_SPANS_MUCH = 10
"""Numbers whose largest is so many times the smallest are on a logarithmic axis."""
_LINE = 0.035
"""The height of a text, of an axis."""
_APART = 0.12
"""Between the numbers of an axis and what has no place among them."""


@dataclass(frozen=True)
class Axis:
    """One upright axis; positions run from 0 at its foot to 1 at its top."""

    name: str
    ticks: tuple[tuple[float, str], ...]
    """Position and text of each tick."""


@dataclass(frozen=True)
class Parallel:
    """Configurations as lines, the worst first so that the best are drawn over them."""

    axes: tuple[Axis, ...]
    lines: tuple[tuple[float, ...], ...]
    """For each configuration its position on each axis."""
    accuracies: tuple[float | None, ...]
    """Mean final validation accuracy of each; None where every seed diverged."""
    note: str
    measure: Measure = ACCURACY
    """What the accuracies are."""


def data(sweep: SweepData, summary: pl.DataFrame) -> Parallel | None:
    """Returns the configurations' values on all axes, or None with fewer than two axes or configurations."""
    ran = summary.filter(pl.col("n") + pl.col("diverged") > 0)
    if len(sweep.axes) < 2 or ran.height < 2:
        return None
    quality = sweep.measure.sign * pl.col(f"{CHOICE}_mean")
    shown = ran.sort(quality, descending=True, nulls_last=True).head(_MOST_LINES).reverse()
    columns = [_axis(name, sweep.trials[name], shown[name], _scale(sweep, name)) for name in sweep.axes]
    note = f"Shown: the best {shown.height} of {ran.height:,}." if shown.height < ran.height else ""
    return Parallel(
        axes=tuple(axis for axis, _ in columns),
        lines=tuple(zip(*(positions for _, positions in columns), strict=True)),
        accuracies=tuple(shown[f"{CHOICE}_mean"]),
        note=note,
        measure=sweep.measure,
    )


def _scale(sweep: SweepData, name: str) -> ScaleName | None:
    """Returns on which scale a column was drawn; None if it was not."""
    spaces = sweep.search.spaces.values() if sweep.search is not None else ()
    return next((space[name].scale for space in spaces if name in space), None)


def _axis(name: str, every: pl.Series, shown: pl.Series, scale: ScaleName | None) -> tuple[Axis, list[float]]:
    """Returns an axis and where on it the shown values are.

    Few values are spread evenly, in order. Many numbers keep their distances on the scale on which they were drawn, or
    else on a logarithmic one if they span much; what has no place on it, no value or a zero, is below them.
    """
    levels = every.unique(maintain_order=True)
    levels = levels if levels.dtype == pl.String else levels.sort(nulls_last=False)
    if not levels.dtype.is_numeric() or levels.len() <= _MOST_LEVELS:
        place = {level: index / max(1, levels.len() - 1) for index, level in enumerate(levels)}
        every_so_many = -(-levels.len() // _MOST_LEVELS)
        ticks = [(place[level], value_text(level)) for level in levels.to_list()[::every_so_many]]
        return Axis(axis_name(name), tuple(ticks)), [place[value] for value in shown]
    numbers: list[float] = levels.drop_nulls().to_list()
    positive = [level for level in numbers if level > 0]
    if scale is None:
        scale = "log" if numbers[0] >= 0 and positive[-1] / positive[0] >= _SPANS_MUCH else "linear"
    inside = positive if scale == "log" else numbers
    apart = [level for level in levels.to_list() if level not in inside]
    span, foot = Span(low=inside[0], high=inside[-1], scale=scale), len(apart) * _APART
    place = {level: index * _APART for index, level in enumerate(apart)}
    place |= {level: foot + (1 - foot) * span.place(level) for level in inside}
    ticks = [(place[level], value_text(level)) for level in apart]
    digits = 3 if scale == "1 - x log" else 2
    for level in (inside[round(k * (len(inside) - 1) / 6)] for k in range(7)):
        if not ticks or place[level] - ticks[-1][0] >= _LINE:
            ticks.append((place[level], f"{level:.{digits}g}"))
    return Axis(axis_name(name), tuple(ticks)), [place[value] for value in shown]


def draw(data: Parallel, figure: Figure) -> None:
    """Draws the axes from left to right and the outcome as the last."""
    figure.set_size_inches(max(style.WIDTH, 1.75 * (len(data.axes) + 1)), 5.6)
    axes = figure.add_subplot()
    colours = scales.AccuracyColours(data.accuracies, measure=data.measure)
    outcome = Axis(in_words("final validation accuracy", data.measure), _outcome_ticks(data, colours))
    ends = [_DIVERGED if one is None else colours.position(one) for one in data.accuracies]
    lines = [list(enumerate((*line, end))) for line, end in zip(data.lines, ends, strict=True)]
    shades = [style.MUTED if one is None else colours(one) for one in data.accuracies]
    alpha = 0.85 if len(lines) < 60 else 0.5
    axes.add_collection(LineCollection(lines, colors=shades, linewidths=1.8, alpha=alpha, zorder=2))
    for place, axis in enumerate((*data.axes, outcome)):
        axes.plot([place, place], [0, 1], color=style.INK, linewidth=1.2, zorder=3)
        for position, text in axis.ticks:
            axes.annotate(style.shortened(text, _LONGEST_VALUE), (place, position), **_BESIDE)
    axes.set_xticks(
        range(len(data.axes) + 1),
        [textwrap.fill(style.shortened(axis.name), _LONGEST_NAME) for axis in (*data.axes, outcome)],
    )
    axes.set_xlim(-0.1, len(data.axes) + 0.45)
    axes.set_ylim(min(ends) - 0.06 if min(ends) < 0 else -0.05, 1.05)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0, labelsize=12, labeltop=True, labelbottom=False)
    style.title(figure, "Every configuration and its outcome")


_DIVERGED = -0.12
_LONGEST_VALUE, _LONGEST_NAME = 22, 16
"""Characters: longer values lose their middle, longer names are broken into lines."""
_NARROW = 0.01
_BESIDE: dict[str, Any] = {
    "xytext": (6, 0),
    "textcoords": "offset points",
    "va": "center",
    "fontsize": 11,
    "zorder": 4,
    "bbox": {"boxstyle": "square,pad=0.12", "facecolor": style.PAPER, "edgecolor": "none", "alpha": 0.8},
}


def _outcome_ticks(data: Parallel, colours: scales.AccuracyColours) -> tuple[tuple[float, str], ...]:
    values = [one for one in data.accuracies if one is not None]
    if not values:
        return ((_DIVERGED, "diverged"),)
    measure = colours.measure
    room = (colours.high - colours.low) / (1.0 if measure.is_share else abs(colours.at(0.5)) or 1.0)
    digits = 3 if room > _NARROW else 4
    ticks = [(place, measure.text(colours.at(place), digits)) for place in (0.25, 0.5, 0.75, 1.0)]
    beyond = "≤ " if measure.higher_is_better else "≥ "
    worst = min(measure.sign * value for value in values)
    lowest = (0.0, f"{beyond if worst < colours.low else ''}{measure.text(colours.at(0.0), digits)}")
    diverged = [(_DIVERGED, "diverged")] if len(values) < len(data.accuracies) else []
    return (*diverged, lowest, *ticks)

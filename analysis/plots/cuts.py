"""What each cut of the learning rate gained, by the epoch after which it was made, and what plateau schedules did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.cuts import signed
from analysis.loading import SweepData
from analysis.measures import in_words
from analysis.plots import scales, style
from analysis.plots.selection import describe
from analysis.statistics.cuts import MeanDifference, Plateau, Trunk, trunks
from workloads.measure import ACCURACY, Measure

_MOST_ROWS = 10
_MOST_TICKS = 10


@dataclass(frozen=True)
class Line:
    """The gains of cuts by one factor."""

    label: str
    after: tuple[int, ...]
    """The epochs after which the rate was cut."""
    gain: tuple[float, ...]
    """Mean gain on never cutting."""
    low: tuple[float | None, ...]
    """Lower ends of intervals; None where there is none."""
    high: tuple[float | None, ...]
    best: int
    """The epoch with the highest gain."""


@dataclass(frozen=True)
class Row:
    """Plateau settings with identical training."""

    label: str
    epochs: int
    after: tuple[tuple[int, ...], ...]
    """For each seed, the epochs after which they cut the rate."""
    gain: float
    regret: float
    """How far they are behind the best moment."""


@dataclass(frozen=True)
class Cuts:
    """A line for each factor, and a row for each plateau training, the best first."""

    lines: tuple[Line, ...]
    rows: tuple[Row, ...]
    epochs: int
    note: str
    measure: Measure = ACCURACY
    """What the gains are of."""


def data(sweep: SweepData, summary: pl.DataFrame) -> Cuts | None:
    """Returns what cuts gained, or None where none was made beside a training that was never cut."""
    del summary
    found = trunks(sweep)
    if not found:
        return None
    lines = [_line(trunk, place) for trunk in found for place in range(len(trunk.factors))]
    shown = sorted(range(len(lines)), key=lambda i: -max(lines[i].gain))[: style.MAX_LINES]
    plateaus = sorted(
        ((trunk, plateau) for trunk in found for plateau in trunk.plateaus), key=lambda pair: pair[1].regret.mean
    )
    rows = tuple(_row(sweep, *pair) for pair in plateaus[:_MOST_ROWS])
    gains = [moment.gain for trunk in found for factor in trunk.factors for moment in factor.moments]
    notes = [_INTERVALS if any(gain.low is not None for gain in gains) else _few(gains)]
    if plateaus:
        notes.append(_PLATEAUS)
    if any(len(plateau.configurations) > 1 for _, plateau in plateaus):
        notes.append("Settings with identical training share a row.")
    if any(len(set(row.after)) > 1 for row in rows):
        notes.append("Where seeds differ, each has its own line of marks.")
    if len(plateaus) > len(rows):
        notes.append(f"Shown: the best {len(rows)} of {len(plateaus)} rows.")
    if len(lines) > len(shown):
        notes.append(f"Shown: the best {len(shown)} of {len(lines)} lines.")
    return Cuts(
        tuple(lines[i] for i in sorted(shown)),
        rows,
        max(trunk.epochs for trunk in found),
        " ".join(note for note in notes if note),
        sweep.measure,
    )


_INTERVALS = "Bars are 95% intervals for all cuts of a line together, which allow for looks at any number of seeds."

_PLATEAUS = (
    "Below, when plateau schedules cut it (▼), and how far that left them behind the best cut; as that one was picked, "
    "they look a little worse than they are."
)


def _few(gains: Sequence[MeanDifference]) -> str:
    seeds = max(gain.seeds for gain in gains)
    return "One seed, so no intervals." if seeds == 1 else f"{seeds} seeds set no limits to these gains yet."


def _line(trunk: Trunk, place: int) -> Line:
    factor = trunk.factors[place]
    return Line(
        f"{trunk.label}{', ' if trunk.label else ''}cut by {factor.factor:g}",
        tuple(moment.after for moment in factor.moments),
        tuple(moment.gain.mean for moment in factor.moments),
        tuple(moment.gain.low for moment in factor.moments),
        tuple(moment.gain.high for moment in factor.moments),
        factor.best.after,
    )


def _row(sweep: SweepData, trunk: Trunk, plateau: Plateau) -> Row:
    label = describe(sweep, plateau.configurations)
    return Row(label, trunk.epochs, plateau.after, plateau.gain.mean, plateau.regret.mean)


def draw(data: Cuts, figure: Figure) -> None:
    """Draws the gains above, and a row for each plateau training below, over the same epochs."""
    if data.rows:
        style.size_for_rows(figure, [row.label for row in data.rows], extra=0.5, width=10)
        below = figure.get_figheight()
        figure.set_figheight(style.HEIGHT + below)
        above, axes = figure.subplots(2, 1, sharex=True, height_ratios=[style.HEIGHT, below])
        _draw_rows(data, axes)
    else:
        above = axes = figure.add_subplot()
    handles = _draw_lines(data, above)
    scales.epoch_axis(axes, data.epochs)
    tried = sorted({data.epochs, *(epoch for line in data.lines for epoch in line.after)})
    if len(tried) <= _MOST_TICKS:
        axes.set_xticks(tried)
    axes.set_xlabel("epoch after which the rate was cut")
    style.title(figure, "What a cut was worth, by its moment")
    style.legend(figure, handles)


_ASIDE = 0.012
"""How far the bars of the outer lines stand from their epoch, as a share of all epochs."""
_RING: dict[str, Any] = {"marker": "o", "markersize": 14, "markerfacecolor": "none", "markeredgecolor": style.INK}
_DIAMOND: dict[str, Any] = {"marker": "d", "markersize": 7, "color": style.MUTED, "markeredgecolor": style.PAPER}


def _draw_lines(data: Cuts, axes: Axes) -> list[Line2D]:
    """Draws the gains of every line, the bars of several beside each other, and where plateau settings ended."""
    axes.axhline(0, color=style.INK, linewidth=1.2)
    aside = _ASIDE * data.epochs if len(data.lines) > 1 else 0.0
    beside = np.linspace(-aside, aside, len(data.lines))
    handles = []
    for index, (line, shift) in enumerate(zip(data.lines, beside, strict=True)):
        look = style.line(index)
        places = np.asarray(line.after) + shift
        handles += axes.plot(places, line.gain, **look, label=line.label, zorder=3)
        for place, low, high in zip(places, line.low, line.high, strict=True):
            if low is not None and high is not None:
                axes.plot([place] * 2, [low, high], color=look["color"], linewidth=3.5, alpha=0.45)
        best = line.after.index(line.best)
        axes.plot([places[best]], [line.gain[best]], linestyle="none", clip_on=False, **_RING)
    handles.append(Line2D([], [], linestyle="none", label="best moment", **_RING))
    acted = [row for row in data.rows if any(row.after)]
    for row in acted:
        first = np.mean([after[0] for after in row.after if after])
        axes.plot([first], [row.gain], linestyle="none", zorder=4, **_DIAMOND)
    if acted:
        handles.append(Line2D([], [], linestyle="none", label="plateau (first cut)", **_DIAMOND))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: scales.number(value)))
    axes.set_ylabel(in_words("gain in final validation accuracy\nagainst never cutting", data.measure))
    return handles


def _draw_rows(data: Cuts, axes: Axes) -> None:
    """Draws when each plateau setting cut, a line of marks for each seed where they differ, and its regret."""
    for place, row in enumerate(data.rows):
        axes.plot([1, row.epochs], [place, place], color=style.GRID, linewidth=3, solid_capstyle="butt", zorder=2)
        differing = row.after if len(set(row.after)) > 1 else row.after[:1]
        spread = np.linspace(-0.25, 0.25, len(differing)) if len(differing) > 1 else [0.0]
        for offset, after in zip(spread, differing, strict=True):
            axes.scatter(
                after,
                np.full(len(after), place + offset),
                marker="v",
                s=max(16, 70 / len(differing)),
                color=style.MUTED,
                linewidths=0,
                zorder=3,
            )
        _beside(axes, place, signed(row.regret, data.measure))
    _beside(axes, -0.75, "behind the\nbest cut by")
    style.rows(axes, [row.label for row in data.rows])


def _beside(axes: Axes, place: float, text: str) -> None:
    """Writes a text to the right of a row."""
    axes.annotate(
        text.replace("-", "−"),
        (1, place),
        xycoords=axes.get_yaxis_transform(),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=10.5,
        color=style.MUTED,
    )

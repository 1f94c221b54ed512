"""A race: who was dropped when, and how the intervals of those that lasted shrink with every seed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.loading import SweepData
from analysis.plots import scales, style
from analysis.race import Race
from analysis.statistics.rounds import Event, Standing
from workloads.measure import ACCURACY, Measure, rounded

_MOST_ROWS, _SHOWN_OF_MORE = 48, 30
_DENSE_FROM, _DENSE = 20, 0.75
"""Rows from which on they are closer together, and by how much."""
_MOST_PANELS, _FEWEST_LOOKS = 6, 3
_PANEL_HEIGHT = 2.2
_SHORT_TITLE, _LONG_TITLE, _LONGEST_TITLE = 25, 40, 80
"""Characters of a line over one of three panels in a row, over one of two; and in all."""
_WAITS: dict[str, Any] = {"linestyle": style.DASHES[2], "linewidth": 1.5}

_ORDER: tuple[Standing, ...] = ("leads", "practically equal", "same results", "in question")
_LOOK: dict[Standing, tuple[str, dict[str, Any], str]] = {
    "leads": (style.ORANGE, {"marker": "*", "markersize": 15}, "leads"),
    "practically equal": (style.GREEN, {"marker": "s", "markersize": 8}, "practically equal"),
    "same results": (style.GREEN, {"marker": "D", "markersize": 8}, "same results"),
    "in question": (style.BLUE, {"marker": ">", "markersize": 9}, "in question"),
    "worse": (style.MUTED, {"marker": "|", "markersize": 13, "markeredgewidth": 3}, "dropped: worse"),
    "diverges": (style.RED, {"marker": "X", "markersize": 10}, "dropped: diverges"),
    "no result": (style.MUTED, {"marker": "o", "markersize": 7, "fillstyle": "none"}, "dropped: no result"),
}
"""How a configuration ended -> colour, mark, and what the legend calls it."""


@dataclass(frozen=True)
class Row:
    """One configuration."""

    label: str
    standing: Standing
    seeds: int
    """That were trained for the race."""
    until: int
    """Seeds of the round that ended it; of those not dropped, of the last round."""
    behind: float | None
    """Mean of how far the one it was compared with last is ahead."""


@dataclass(frozen=True)
class Look:
    """What one round found about a configuration."""

    seeds: int
    """That it had in common with the leader."""
    mean: float
    """How far behind the leader, in accuracy; below 0 it is ahead."""
    low: float | None
    """Lower end of the interval; None where it excludes nothing."""
    high: float | None


@dataclass(frozen=True)
class Panel:
    """How a configuration's distance from the leader became known."""

    label: str
    standing: Standing
    looks: tuple[Look, ...]
    """One for each number of seeds, in order."""


@dataclass(frozen=True)
class Course:
    """A race to be drawn."""

    rows: tuple[Row, ...]
    """The leader, those that could be as good, those that are dropped; of these the last ones first."""
    panels: tuple[Panel, ...]
    """Those that had most seeds, in order of the rows; none where all were dropped at once."""
    rounds: int
    """Seeds of the last round."""
    care: float | None
    """The smallest difference that matters; None if any does."""
    note: str
    measure: Measure = ACCURACY
    """What the accuracies are."""


def data(sweep: SweepData, summary: pl.DataFrame) -> Course | None:
    """Returns a race, or None where there was none or no two configurations have been compared."""
    race = sweep.race
    if race is None or not race.course.looks:
        return None
    course = race.course
    rounds = max(course.round, *(one.round for one in course.looks))
    order = sorted(_rows(race, rounds), key=lambda pair: _place(pair[1]))
    shown = order if len(order) <= _MOST_ROWS else order[:_SHOWN_OF_MORE]
    return Course(
        rows=tuple(row for _, row in shown),
        panels=tuple(_panels(shown, course.looks)),
        rounds=rounds,
        care=race.care,
        note=_note(race, [row for _, row in shown]),
        measure=sweep.measure,
    )


def _rows(race: Race, rounds: int) -> list[tuple[int, Row]]:
    """Returns each configuration of the race, with its place in it."""
    course = race.course
    ended = {one.configuration: one for one in course.events}
    looked = {one.configuration: one for one in course.looks}
    found = []
    for one, (label, standing) in enumerate(zip(race.labels, course.standings, strict=True)):
        last = ended.get(one) if standing not in ("leads", "in question") else None
        told = looked.get(one) if last is None or last.difference is None else last
        found.append(
            (
                one,
                Row(
                    label=label,
                    standing=standing,
                    seeds=int(course.used[one].sum()),
                    until=rounds if last is None else last.round,
                    behind=told.difference if told and standing in _MEASURED else None,
                ),
            )
        )
    return found


_MEASURED: tuple[Standing, ...] = ("practically equal", "same results", "in question", "worse")


def _place(row: Row) -> tuple[int, int, float]:
    """Returns what rows are sorted by."""
    behind = np.inf if row.behind is None else row.behind
    return (_ORDER.index(row.standing), 0, behind) if row.standing in _ORDER else (len(_ORDER), -row.until, behind)


def _panels(rows: Sequence[tuple[int, Row]], looks: Iterable[Event]) -> list[Panel]:
    """Returns the panels of those that had most seeds, the first of equals."""
    by: dict[int, dict[int, Look]] = {}
    for one in looks:
        if one.difference is not None:
            look = Look(one.n, one.difference, one.low, one.high)
            by.setdefault(one.configuration, {})[one.n] = look
    could = [(one, row) for one, row in rows if row.standing in _MEASURED and len(by.get(one, ())) >= _FEWEST_LOOKS]
    chosen = {one for one, _ in sorted(could, key=lambda pair: -pair[1].seeds)[:_MOST_PANELS]}
    return [
        Panel(row.label, row.standing, tuple(by[one][n] for n in sorted(by[one])))
        for one, row in could
        if one in chosen
    ]


def _note(race: Race, shown: Sequence[Row]) -> str:
    course = race.course
    notes = []
    by_round = {one.round: one.against for one in course.looks}
    leaders = list(by_round.items())
    changes = [after for (_, old), (after, new) in pairwise(leaders) if old != new]
    if changes:
        notes.append(f"The lead changed after {_listed(changes)} seeds.")
    if any(_waits(row) for row in shown):
        notes.append("What waits is behind the leader of its own group, and the question is which group is best.")
    if len(shown) < len(race.labels):
        notes.append(f"Shown: the best {len(shown)} of {len(race.labels):,}.")
    return " ".join(notes)


def _waits(row: Row) -> bool:
    return row.until > row.seeds


def _listed(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def draw(data: Course, figure: Figure) -> None:
    """Draws a bar for each configuration, as long as it has seeds; below, intervals against the number of seeds."""
    style.size_for_rows(figure, [row.label for row in data.rows], extra=0)
    height = figure.get_figheight() * (_DENSE if len(data.rows) >= _DENSE_FROM else 1) + 1.4
    upper: Figure | SubFigure = figure
    if data.panels:
        columns = _columns(data.panels)
        panels = _PANEL_HEIGHT * -(-len(data.panels) // columns) + 1.2
        figure.set_figheight(height + panels)
        upper, lower = figure.subfigures(2, 1, height_ratios=[height, panels], squeeze=False)[:, 0]
        _draw_panels(data, lower, columns)
    else:
        figure.set_figheight(height)
    _draw_rows(data, upper.add_subplot())
    # Beside the rows only: the panels have the whole width.
    upper.legend(handles=_handles(data), loc="outside right upper", alignment="left")
    style.title(figure, "Who was dropped when")


def _draw_rows(data: Course, axes: Axes) -> None:
    for place, row in enumerate(data.rows):
        colour, mark, _ = _LOOK[row.standing]
        axes.plot([0, row.seeds], [place, place], color=colour, linewidth=5, alpha=0.45, solid_capstyle="butt")
        if _waits(row):
            axes.plot([row.seeds, row.until], [place, place], color=colour, **_WAITS)
        axes.plot([row.until], [place], color=colour, linestyle="none", zorder=4, clip_on=False, **mark)
        if row.behind is not None:
            _beside(axes, place, _behind(row.behind, data.measure).replace("-", "−"))
    if any(row.behind is not None for row in data.rows):
        _beside(axes, -0.75, "behind by")
    style.rows(axes, [row.label for row in data.rows])
    _seed_axis(axes, data.rounds, 10)
    axes.set_xlabel("seeds")


def _behind(value: float, measure: Measure) -> str:
    return f"{round(value, 4) + 0.0:.4f}" if measure.is_share else rounded(value, 3)  # 0 has no sign


def _beside(axes: Axes, place: float, text: str) -> None:
    """Writes a text to the right of a row."""
    axes.annotate(
        text,
        (1, place),
        xycoords=axes.get_yaxis_transform(),
        xytext=(58, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=10.5,
        color=style.MUTED,
    )


def _seed_axis(axes: Axes, last: int, ticks: int) -> None:
    axes.set_xlim(0, 1.03 * last)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True, steps=[1, 2, 5, 10]))


def _columns(panels: Sequence[Panel]) -> int:
    short = all(len(panel.label) <= _SHORT_TITLE for panel in panels)
    return min(3 if short else 2, len(panels))


def _draw_panels(data: Course, figure: SubFigure, columns: int) -> None:
    grid = figure.subplots(-(-len(data.panels) // columns), columns, squeeze=False, sharex=True, sharey=True)
    low, high = _limits(data)
    far = 100 * (high - low)
    for axes, panel in zip(grid.flat, data.panels, strict=False):
        colour, _, _ = _LOOK[panel.standing]
        seeds = [look.seeds for look in panel.looks]
        ends = (
            [-far if look.low is None else look.low for look in panel.looks],
            [far if look.high is None else look.high for look in panel.looks],
        )
        axes.fill_between(seeds, *ends, color=colour, alpha=0.3)
        axes.plot(seeds, [look.mean for look in panel.looks], color=colour, marker="o", markersize=4)
        axes.axhline(0, color=style.INK, linewidth=1.2)
        for care in () if data.care is None else (-data.care, data.care):
            axes.axhline(care, **_CARE)
        label = style.shortened(panel.label, _LONGEST_TITLE)
        axes.set_title(textwrap.fill(label, _LONG_TITLE), fontsize=11, fontweight="normal", pad=5)
        axes.set_ylim(low, high)
        _seed_axis(axes, data.rounds, 5)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: scales.number(value)))
    for place, axes in enumerate(grid.flat):
        if place >= len(data.panels):
            axes.remove()
        elif place + columns >= len(data.panels):
            axes.tick_params(labelbottom=True)  # nothing is below it
            axes.set_xlabel("seeds")
    figure.suptitle("How far behind the leader", x=0.01, ha="left", fontsize=13, fontweight="bold", color=style.INK)
    figure.supylabel(data.measure.name, fontsize=12)
    figure.legend(handles=_panel_handles(data), loc="outside lower left", ncols=3, alignment="left")


_CARE: dict[str, Any] = {"color": style.PURPLE, "linewidth": 1.4, "linestyle": style.DASHES[1]}


def _panel_handles(data: Course) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color=style.MUTED, marker="o", markersize=4, label="mean over seeds"),
        Patch(color=style.MUTED, alpha=0.3, label="its interval at each look"),
    ]
    if data.care is not None:
        handles.append(Line2D([], [], label=f"±{scales.number(data.care)}: what matters", **_CARE))
    return handles


def _limits(data: Course) -> tuple[float, float]:
    """Returns the vertical range of the panels: that of all but the first looks, whose intervals are far wider."""
    late = [look for panel in data.panels for look in panel.looks[len(panel.looks) // 3 :]]
    ends = [end for look in late for end in (look.low, look.mean, look.high) if end is not None]
    ends += [0.0] if data.care is None else [-1.3 * data.care, 1.3 * data.care]
    room = 0.08 * (max(ends) - min(ends)) or 1e-3
    return min(*ends, 0) - room, max(*ends, 0) + room


def _handles(data: Course) -> list[Line2D]:
    found = {row.standing for row in data.rows}
    handles = [
        Line2D([], [], color=colour, linestyle="none", label=says, **mark)
        for standing, (colour, mark, says) in _LOOK.items()
        if standing in found
    ]
    if any(_waits(row) for row in data.rows):
        handles.append(Line2D([], [], color=style.MUTED, label="waits", **_WAITS))
    return handles

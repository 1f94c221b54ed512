"""Shares of the variance explained by axes, the seed and pairs of them."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from analysis.loading import SweepData
from analysis.luck import about_luck
from analysis.measures import in_words
from analysis.plots import style
from analysis.plots.selection import axis_name
from analysis.statistics.effects import variance_shares
from analysis.statistics.surface import surface_shares
from workloads.measure import ACCURACY, Measure

_MOST_BARS = 15
_SMALLEST = 0.0005


@dataclass(frozen=True)
class Shares:
    """Terms and the share of the variance that each explains, the largest first."""

    terms: tuple[str, ...]
    shares: tuple[float, ...]
    note: str
    measure: Measure = ACCURACY
    """What the accuracies are."""


def data(sweep: SweepData, summary: pl.DataFrame) -> Shares | None:
    """Returns the shares, or None when only one thing varies or nothing differs."""
    del summary
    if about_luck(sweep):  # late forks are no trials of their own; `luck` shows what can be said
        return None
    searched = sweep.search is not None and not sweep.search.drawn.isdisjoint(sweep.axes)
    found = surface_shares(sweep, sweep.search) if sweep.search and searched else variance_shares(sweep)
    if found is None or found.height < 3:
        return None
    ordered = found.sort("share", descending=True, maintain_order=True)
    shown = ordered.filter(pl.col("share") >= _SMALLEST).head(_MOST_BARS)
    left_out = ordered.height - shown.height
    notes = [_SURFACE] if searched else []
    notes += [f"Smaller terms not shown: {left_out}."] if left_out else []
    terms = (" × ".join(axis_name(part) for part in term.split(" x ")) for term in shown["term"])
    return Shares(tuple(terms), tuple(shown["share"]), " ".join(notes), sweep.measure)


_SURFACE = (
    "A setting that was drawn has a linear and a quadratic term on its scale, for each optimizer or schedule its own; "
    "there are no pairs, and what chance would explain is left out."
)


def draw(data: Shares, figure: Figure) -> None:
    """Draws a bar for each term."""
    style.size_for_rows(figure, data.terms, extra=1.2)
    axes = figure.add_subplot()
    axes.barh(range(len(data.terms)), data.shares, color=style.BLUE, height=0.7)
    for row, share in enumerate(data.shares):
        axes.annotate(f"{share:.1%}", (share, row), xytext=(5, 0), textcoords="offset points", va="center")
    style.rows(axes, data.terms)
    axes.set_xlim(0, max(data.shares) * 1.12)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(in_words("share of the variance of the final validation accuracy", data.measure))
    style.title(figure, "Sources of variance")

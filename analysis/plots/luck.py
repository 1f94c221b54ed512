"""What luck is made of: components of the variance between trainings, and what is still open by epoch."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from analysis.loading import SweepData
from analysis.luck import Luck, lucks
from analysis.plots import style
from analysis.statistics.components import BOTH, ORDER, WEIGHTS, Estimate
from workloads.measure import ACCURACY, Measure

ROWS = {WEIGHTS: "initial weights", ORDER: "order of the images", BOTH: "only the pair of both"}
IMAGES = "choice of validation images"


@dataclass(frozen=True)
class Line:
    """The luck of one configuration."""

    label: str
    shares: tuple[Estimate | None, ...]
    """Of the variance, one for each row; None where it is not known."""
    deviation: Estimate
    """Of the final value, from training to training."""
    open: tuple[tuple[int, Estimate], ...]
    """The last epoch in common, and the standard deviation from there on."""


@dataclass(frozen=True)
class Components:
    """The luck of some configurations."""

    rows: tuple[str, ...]
    lines: tuple[Line, ...]
    epochs: int
    note: str
    measure: Measure = ACCURACY
    """What they end with."""


def data(sweep: SweepData, summary: pl.DataFrame) -> Components | None:
    """Returns what luck is made of, or None where nothing is known about it."""
    del summary
    found = lucks(sweep)
    if not found:
        return None
    shown = found[: style.MAX_LINES]
    with_images = any(one.images is not None for one in shown)
    notes = [f"Of {one.weights} initial weights with {one.orders} orders each." for one in shown[:1]]
    if with_images:
        notes.append(
            "The choice of validation images is no fourth part: it is in the other three, as noise of what they are "
            "measured by."
        )
    if len(shown) < len(found):
        notes.append(f"Shown: the first {len(shown)} of {len(found)} configurations.")
    return Components(
        rows=(*ROWS.values(), *([IMAGES] if with_images else [])),
        lines=tuple(_line(one, with_images=with_images) for one in shown),
        epochs=int(sweep.trials["epochs"].max()),  # type: ignore[arg-type]
        note=" ".join(notes),
        measure=sweep.measure,
    )


def _line(luck: Luck, *, with_images: bool) -> Line:
    images = [luck.images.share if luck.images is not None else None] if with_images else []
    shares = (*(luck.shares[name] for name in ROWS), *images)
    return Line(luck.label, shares, luck.deviation, tuple((one.epoch, one.deviation) for one in luck.open))


def draw(data: Components, figure: Figure) -> None:
    """Draws the components with their intervals and, beside them, what is open by epoch."""
    forked = any(len(line.open) > 1 for line in data.lines)
    figure.set_size_inches(11 if forked else style.WIDTH, 4.4)
    left, *right = figure.subplots(1, 2 if forked else 1, squeeze=False)[0]
    several = len(data.lines)
    for place, line in enumerate(data.lines):
        offset = 0.0 if several == 1 else 0.5 * (place / (several - 1) - 0.5)
        look = {"color": style.COLOURS[place], "marker": style.MARKERS[place], "capsize": 3.5, "elinewidth": 2}
        known = [(row + offset, share) for row, share in enumerate(line.shares) if share is not None]
        left.errorbar(
            [share.value for _, share in known],
            [row for row, _ in known],
            xerr=_lengths([share for _, share in known]),
            linestyle="none",
            **look,
        )
        for axes in right if len(line.open) > 1 else ():
            # Different lines side by side, not on each other.
            epochs = [epoch + 0.08 * (place - (several - 1) / 2) for epoch, _ in line.open]
            still = [deviation for _, deviation in line.open]
            axes.errorbar(epochs, [one.value for one in still], yerr=_lengths(still), linestyle="-", **look)
            axes.axhline(line.deviation.value, color=style.COLOURS[place], linestyle=style.DASHES[1], linewidth=1.4)
    style.rows(left, data.rows)
    left.set_xlim(-0.03, 1.03)
    left.xaxis.set_major_formatter(PercentFormatter(1))
    left.set_xlabel("share of the variance")
    for axes in right:
        axes.set_xlim(-0.4, data.epochs + 0.4)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epochs in common")
        axes.set_ylabel(f"deviation of the final {data.measure.name}")
    style.title(figure, "What luck is made of, and when it happens" if forked else "What luck is made of")
    if several > 1:
        handles = [
            Line2D([], [], color=style.COLOURS[i], marker=style.MARKERS[i], label=line.label)
            for i, line in enumerate(data.lines)
        ]
        style.legend(figure, handles)


def _lengths(shares: list[Estimate]) -> list[list[float]]:
    return [[share.value - share.low for share in shares], [share.high - share.value for share in shares]]

"""One look for every picture: colours, axes, legends, and how a figure becomes a file.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), told apart with any kind of colour vision; lines differ
in dash and marker too, so they survive a black-and-white printer. Figures use matplotlib's object interface: no
pyplot, no global settings.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

INK = "#1f2328"
MUTED = "#66707a"
GRID = "#dde1e6"
PAPER = "#ffffff"
ON_DARK = "#fffffe"
"""White text on a dark cell: unlike `PAPER` it stays white in dark mode."""
ON_LIGHT = "#1f2329"
"""Dark text on a light cell: unlike `INK` it stays dark in dark mode."""

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, INK, "#8a8a8a")
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (6, 1.5, 1.4, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
MAX_LINES = len(COLOURS)
"""More lines than this in one picture cannot be told apart."""

COLOUR_MAP = "cividis"
"""Heat maps: even in lightness and the same to any kind of colour vision."""

DARK = {
    INK: "#e6edf3",
    MUTED: "#9aa5b1",
    GRID: "#30363d",
    PAPER: "#12161c",
    BLUE: "#4aa8e0",
    GREEN: "#22b98d",
    RED: "#f0803c",
}
"""What a colour of a picture becomes where the reader prefers dark pages; the others serve both."""

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
    "patch.linewidth": 0,
    "svg.fonttype": "path",
    "svg.hashsalt": "forksweep",
    "path.simplify": True,
}

WIDTH, HEIGHT = 8.0, 5.0
"""Inches."""
_PIXELS_PER_INCH = 150


@dataclass(frozen=True)
class Picture:
    """A drawn plot as the content of its two files."""

    png: bytes
    svg: bytes


@contextmanager
def styled() -> Iterator[None]:
    """Within this context matplotlib draws in the project's style."""
    with mpl.rc_context(_SETTINGS):
        yield


def picture(draw: Callable[[Figure], None]) -> Picture:
    """Returns what a function draws on an empty figure.

    Args:
        draw: Receives the figure, `WIDTH` x `HEIGHT` inches unless it changes that.
    """
    with styled():
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        png, svg = io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png", dpi=_PIXELS_PER_INCH, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(png.getvalue(), svg.getvalue().encode())


def adaptive(svg: str) -> str:
    """Returns an SVG text whose colours follow the reader's preference for light or dark pages.

    The colours of `DARK` become CSS variables, which browsers know and other programs often do not. On paper they are
    always the light ones.
    """
    names = {light: f"--c{index}" for index, light in enumerate(DARK)}
    pattern = re.compile("|".join(names))
    light = "".join(f"{name}:{colour};" for colour, name in names.items())
    dark = "".join(f"{names[colour]}:{instead};" for colour, instead in DARK.items())
    style = f"<style>:root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    head, tag, rest = svg.partition("<defs>")
    return head + style + tag + pattern.sub(lambda match: f"var({names[match[0]]})", rest)


# -- numbers ----------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Returns a number as short as it can be read: `0.001`, `3e-5`."""
    return re.sub(r"e([+-])0*", lambda m: "e" + m[1].replace("+", ""), f"{value:.4g}")


def spaced(candidates: Iterable[float], taken: Callable[[float], float], gap: float) -> list[float]:
    """Returns, in order, the candidates that keep a distance, earlier ones before later ones.

    Args:
        candidates: Possible ticks, the most wanted first.
        taken: A tick's position on the axis.
        gap: The least distance between two positions.
    """
    kept: list[float] = []
    for value in candidates:
        if all(abs(taken(value) - taken(other)) >= gap for other in kept):
            kept.append(value)
    return sorted(kept)


# -- axes -------------------------------------------------------------------------------------------------------------


def epoch_axis(axes: Axes, last: int) -> None:
    """Sets up the horizontal axis for epochs 1 to `last`: whole numbers only."""
    axes.set_xlim(min(1, last) - 0.02 * last, last * 1.02 + 0.05)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch")


def rate_axis(axes: Axes, rates: Sequence[float], which: str = "x") -> None:
    """Makes an axis logarithmic, with its ticks at learning rates that were used, as many as there is room for."""
    low, high = min(rates), max(rates)
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    room = max(np.log10(high / low), 0.3)
    first = sorted({low, high}) + sorted(set(rates), key=lambda rate: (-_roundness(rate), rate))
    axis.set_major_locator(FixedLocator(spaced(first, lambda rate: float(np.log10(rate)), room / 7)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    margin = 10 ** (0.06 * room)
    (axes.set_xlim if which == "x" else axes.set_ylim)(low / margin, high * margin)


def loss_axis(axes: Axes, losses: Sequence[float]) -> None:
    """Sets up the vertical axis for losses: logarithmic when they span more than a factor of five."""
    low, high = min(losses), max(losses)
    if low <= 0 or high / low < 5:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        return
    axes.set_yscale("log")
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    wanted = [m * 10.0**d for m in (1, 3, 2, 5, 4, 7) for d in decades if low * 0.9 <= m * 10.0**d <= high * 1.1]
    span = np.log10(high / low)
    axes.yaxis.set_major_locator(FixedLocator(spaced(wanted, lambda loss: float(np.log10(loss)), span / 7)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.set_ylim(low * 0.93, high * 1.07)


def accuracy_axis(axes: Axes, accuracies: Sequence[float], which: str = "y") -> None:
    """Sets up an axis for accuracies.

    When they span more than a quarter it is logarithmic in the error (one minus accuracy): the gap between 0.90 and
    0.91 stays visible beside a trial that learned nothing.
    """
    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = min(accuracies), max(accuracies)
    if high - low < 0.25:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        return
    (axes.set_yscale if which == "y" else axes.set_xscale)("function", functions=(_stretched, _unstretched))
    top = _unstretched(_stretched(high) + 0.04)
    bottom = max(0.0, _unstretched(_stretched(low) - 0.04))
    (axes.set_ylim if which == "y" else axes.set_xlim)(bottom, top)
    steps = (0.1, 0.05, 0.01, 0.005, 0.001)
    wanted = [round(k * step, 3) for step in steps for k in range(round(1 / step)) if bottom <= k * step <= top]
    gap = (_stretched(top) - _stretched(bottom)) / 8
    axis.set_major_locator(FixedLocator(spaced(sorted(wanted[:10], reverse=True) + wanted[10:], _stretched, gap)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def _stretched(accuracy: Any) -> Any:
    return -np.log10(np.clip(1 - np.asarray(accuracy, dtype=float), 1e-4, None))


def _unstretched(position: Any) -> Any:
    return 1 - 10.0 ** (-np.asarray(position, dtype=float))


def _roundness(rate: float) -> int:
    """How round a learning rate reads: 2 for powers of ten, 1 for one other digit, else 0."""
    digits = f"{rate:.6e}".partition("e")[0].rstrip("0").rstrip(".")
    return 2 if digits == "1" else int("." not in digits)


# -- parts of pictures ------------------------------------------------------------------------------------------------


def title(figure: Figure, text: str) -> None:
    """Writes a picture's title over all of its axes."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)


def accuracy_colours(accuracies: Iterable[float | None]) -> ScalarMappable:
    """Returns the colours of accuracies.

    The range ends at the best and begins not far below the middle one, so that a few failures do not make all others
    look alike.
    """
    values = [value for value in accuracies if value is not None] or [0.0]
    high, middle = max(values), float(np.median(values))
    low = max(min(values), middle - 3 * max(high - middle, 1e-3))
    colours = ScalarMappable(Normalize(low, max(high, low + 1e-3)), COLOUR_MAP)
    colours.set_array(values)
    return colours


def accuracy_bar(figure: Figure, axes: Any, colours: ScalarMappable) -> None:
    """Adds the colour bar of `accuracy_colours` below axes."""
    lowest = float(np.min(colours.get_array()))  # type: ignore[arg-type]
    beyond = "min" if colours.norm.vmin is not None and lowest < colours.norm.vmin else "neither"
    bar = figure.colorbar(
        colours, ax=axes, location="bottom", extend=beyond, fraction=0.05, shrink=0.6, aspect=40, anchor=(0, 1)
    )
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label("final validation accuracy")
    bar.ax.xaxis.set_major_locator(MaxNLocator(nbins=5))


def rows(axes: Axes, labels: Sequence[str], *, right: bool = False) -> None:
    """Sets up the vertical axis for named rows, the first on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if right:
        axes.yaxis.tick_right()


def line(index: int) -> dict[str, Any]:
    """Returns the look of a picture's line: colour, dash and marker, all different from its neighbours'."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def mark_every(points: int, index: int) -> tuple[int, int]:
    """Returns which points of a line carry its marker: about eight, not under those of the other lines."""
    step = max(1, points // 8)
    return index % step, step


def legend(figure: Figure, handles: Sequence[Line2D], heading: str | None = None) -> None:
    """Puts the legend beside the axes, or below them when its labels are long; never on the curves."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    if longest <= 26:
        figure.legend(handles=handles, loc="outside right upper", title=heading, alignment="left")
    else:
        columns = 2 if longest <= 44 and len(handles) > 3 else 1
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, title=heading, alignment="left")
        rows = -(-len(handles) // columns)
        figure.set_figheight(figure.get_figheight() + 0.24 * rows)


def cross(axes: Axes, x: float, y: float, colour: str = INK) -> None:
    """Marks where a training diverged."""
    axes.plot([x], [y], marker="X", markersize=11, color=colour, markeredgecolor=PAPER, markeredgewidth=1.2, zorder=5)


def cross_at_foot(axes: Axes, x: float, index: int, colour: str) -> None:
    """Marks a rate that diverged, below the points, lines of several series side by side."""
    axes.plot(
        [x], [0.03 + 0.045 * index], marker="X", markersize=10, color=colour, markeredgecolor=PAPER,
        transform=axes.get_xaxis_transform(), zorder=5, clip_on=False,
    )  # fmt: skip


def cross_handle(label: str = "diverged") -> Line2D:
    """Returns the legend's entry of `cross`."""
    return Line2D([], [], linestyle="none", marker="X", markersize=10, color=MUTED, label=label)

"""One look for every picture: colours, axes, legends, and how a figure becomes a file.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), told apart with any kind of colour vision; lines differ
in dash and marker too, so they survive a black-and-white printer. Figures use matplotlib's object interface: no
pyplot, no global settings.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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

DARK = {
    INK: "#e6edf3",
    MUTED: "#9aa5b1",
    GRID: "#30363d",
    PAPER: "#12161c",
    BLUE: "#4aa8e0",
    GREEN: "#22b98d",
    RED: "#f0803c",
}
"""Replacements of colours in dark mode; other colours suit both modes."""

_SETTINGS: dict[str, Any] = {
    "text.parse_math": False,  # a dollar in a label is a dollar
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
_PIXELS_PER_INCH, _POINTS_PER_INCH = 150, 72


@dataclass(frozen=True)
class Picture:
    """A drawn plot as the content of its two files."""

    png: bytes
    svg: bytes
    wide: bool
    """Whether it needs more width than others to be readable."""


@contextmanager
def styled() -> Iterator[None]:
    """Within this context matplotlib draws in the project's style, whatever the user's settings are."""
    defaults = {name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"}
    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore", mpl.MatplotlibDeprecationWarning)  # of settings that are on their way out
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        mpl.rcParams.update(cast(Any, defaults | _SETTINGS | {"font.family": _fonts()}))
        yield


_OTHER_SCRIPTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "Arial Unicode MS", "PingFang SC", "Hiragino Sans"),
    *("Microsoft YaHei", "Malgun Gothic", "Segoe UI", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
)
"""Fonts with letters that DejaVu Sans lacks, where they are installed."""


@cache
def _fonts() -> list[str]:
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in installed)]


class ShownFigure(Figure):
    """A figure that a notebook shows as a picture, whether pyplot was imported there or not."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        with styled():
            self.savefig(png, format="png", dpi=_PIXELS_PER_INCH)
        return png.getvalue()


def drawn(draw: Callable[[Figure], None]) -> Figure:
    """Returns what a function draws on an empty figure, for people who go on from there; pyplot knows nothing of it.

    Args:
        draw: As of `picture`.
    """
    with styled():
        return _drawn(draw)


def _drawn(draw: Callable[[Figure], None]) -> Figure:
    figure = ShownFigure(figsize=(WIDTH, HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    return figure


def picture(draw: Callable[[Figure], None]) -> Picture:
    """Returns what a function draws on an empty figure.

    Args:
        draw: Receives the figure, `WIDTH` x `HEIGHT` inches unless it changes that.
    """
    with styled():
        figure = _drawn(draw)
        canvas: Any = figure.canvas
        png, svg = io.BytesIO(), io.StringIO()
        # What `savefig` does, but drawn once for each file instead of twice, and laid out once for both.
        figure.set_dpi(_PIXELS_PER_INCH)
        canvas.print_png(png, metadata={"Software": None})
        figure.set_layout_engine("none")
        figure.set_dpi(_POINTS_PER_INCH)
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(svg, metadata={"Date": None, "Creator": None})
    return Picture(png.getvalue(), svg.getvalue().encode(), wide=figure.get_figwidth() > 1.1 * WIDTH)


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


# -- parts of pictures ------------------------------------------------------------------------------------------------


LONGEST_TITLE = 44
"""Characters of a line of the title of a picture with a legend."""


def title(figure: Figure, text: str) -> None:
    """Writes a picture's title over all of its axes; up to `LONGEST_TITLE` it leaves room for a legend beside them."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)


_LONGEST_ROW = 46
_LONGEST_LABEL = 130
"""Characters of a label; longer ones lose their middle."""
_INCHES = 0.1
"""What a character takes, and a bit."""
_LONGEST_BESIDE, _LONGEST_OF_TWO, _LONGEST_BELOW = 26, 40, 74
"""Characters: legends with longer labels go below the axes, have one column, are broken into lines."""


def shortened(label: str, most: int = _LONGEST_LABEL) -> str:
    """Returns a label, without its middle if it is very long: what tells labels apart is mostly at either end."""
    return label if len(label) <= most else f"{label[: most // 2]} … {label[-(most // 2) :]}"


def size_for_rows(figure: Figure, labels: Sequence[str], extra: float, width: float = WIDTH) -> None:
    """Makes room in a figure for rows with these labels.

    Args:
        figure: The figure.
        labels: One for each row; long ones are broken into lines.
        extra: Inches needed above and below the rows.
        width: Inches when labels are short.
    """
    longest = max((len(label) for label in labels), default=0)
    lines = max((len(textwrap.wrap(shortened(label), _LONGEST_ROW)) for label in labels), default=1)
    width += _INCHES * max(0, min(longest, _LONGEST_ROW) - _LONGEST_BESIDE)
    figure.set_size_inches(width, extra + (0.17 + 0.19 * lines) * len(labels))


def rows(axes: Axes, labels: Sequence[str], *, right: bool = False) -> None:
    """Sets up the vertical axis for named rows, the first on top."""
    axes.set_yticks(range(len(labels)), [textwrap.fill(shortened(label), _LONGEST_ROW) for label in labels])
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
    if longest <= _LONGEST_BESIDE:
        if len(figure.get_suptitle()) > LONGEST_TITLE:
            title(figure, textwrap.fill(figure.get_suptitle(), LONGEST_TITLE))
        figure.legend(handles=handles, loc="outside right upper", title=heading, alignment="left")
    else:
        columns = 2 if longest <= _LONGEST_OF_TWO and len(handles) > 3 else 1
        for handle in handles:
            handle.set_label(textwrap.fill(shortened(str(handle.get_label())), _LONGEST_BELOW))
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, title=heading, alignment="left")
        lines = sum(str(handle.get_label()).count("\n") + 1 for handle in handles)
        figure.set_figheight(figure.get_figheight() + 0.24 * -(-lines // columns))


def cross(axes: Axes, x: float, y: float, colour: str = INK, *, at_foot: bool = False) -> None:
    """Marks where a training diverged; `at_foot`, y is a share of the axes' height."""
    axes.plot(
        [x],
        [y],
        marker="X",
        markersize=9 if at_foot else 11,
        color=colour,
        markeredgecolor=PAPER,
        markeredgewidth=1.2,
        zorder=5,
        transform=axes.get_xaxis_transform() if at_foot else axes.transData,
    )


def cross_handle(label: str = "diverged") -> Line2D:
    """Returns the legend's entry of `cross`."""
    return Line2D([], [], linestyle="none", marker="X", markersize=10, color=MUTED, label=label)

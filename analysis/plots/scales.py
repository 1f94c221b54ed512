"""Axes for the quantities of a sweep: epochs, learning rates, losses, accuracies; and colours for accuracies.

What holds accuracies may hold the values of another measure (`SweepData.measure`).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from analysis.measures import in_words
from workloads.measure import ACCURACY, Measure

Which = Literal["x", "y"]

_MOST_TICKS = 8
_NICE_STEPS = (1, 2, 2.5, 5, 10)
_LOG_LOSS_FROM = 5
"""Losses, and distances to a perfect value, that span at least this factor are shown on a logarithmic axis."""
_STRETCH_FROM = 0.1
"""Accuracies that span at least this much are shown on an axis that is logarithmic in the error."""
_FARTHEST_END = 5
"""Cuts off intervals that reach zero loss or zero error, which would dominate a logarithmic axis."""
_LONGEST_UPRIGHT = 30
"""Characters of a vertical axis's label that leave room for more on the line."""
_LONGEST_LINE: dict[Which, int] = {"x": 60, "y": 44}
"""Characters of a line of an axis's label."""
_MOST_DIGITS, _FEWEST_USED = 2, 3
"""Learning rates with more digits are no ticks; with fewer ticks than that, powers of ten help out."""
_SMALLEST_ERROR = 1e-4


def number(value: float) -> str:
    """Returns a number as short as it can be read: `0.001`, `3e-5`."""
    return re.sub(r"e([+-])0*", lambda match: "e" + match[1].replace("+", ""), f"{value:.4g}")


def spaced(candidates: Iterable[float], position: Callable[[float], float], gap: float) -> list[float]:
    """Returns, in order, those candidates that keep a distance from all that come before them.

    Args:
        candidates: Possible ticks, the most wanted first.
        position: Where on the axis a tick is.
        gap: The least distance between two positions.
    """
    kept: list[float] = []
    for value in candidates:
        if all(abs(position(value) - position(other)) >= gap for other in kept):
            kept.append(value)
    return sorted(kept)


def epoch_axis(axes: Axes, last: int, first: int = 1) -> None:
    """Sets up the horizontal axis for epochs: whole numbers only."""
    margin = 0.02 * (last - first) + 0.1 if last > first else 1.0
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=_MOST_TICKS, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch" if first else "epochs trained")


def rate_axis(axes: Axes, rates: Sequence[float], which: Which = "x") -> None:
    """Makes an axis logarithmic, with ticks at round learning rates that were used, as many as there is room for."""
    low, high = min(rates), max(rates)
    span = max(float(np.log10(high / low)), 0.5)
    margin = 10 ** (0.05 * span)
    used = {rate for rate in rates if len(number(rate).strip("0.")) <= _MOST_DIGITS}
    if len(used) < _FEWEST_USED:
        used |= {digit * 10.0**decade for digit in (1, 3) for decade in _decades(low, high)}
    inside = [rate for rate in used if low / margin <= rate <= high * margin]
    wanted = sorted(inside, key=lambda rate: (-_roundness(rate), rate not in (low, high), rate))
    _scale(axes, which, "log", low / margin, high * margin)
    _ticks(axes, which, spaced(wanted, lambda rate: float(np.log10(rate)), span / _MOST_TICKS))


def count_axis(axes: Axes, highest: int) -> None:
    """Makes the horizontal axis logarithmic for counts from 1 on."""
    wanted = [digit * 10**decade for digit in (1, 2, 5, 3, 7, 4) for decade in range(len(str(highest)))]
    span = max(float(np.log10(highest)), 0.3)
    _scale(axes, "x", "log", 10 ** (-0.03 * span), highest * 10 ** (0.03 * span))
    inside = [count for count in wanted if count <= highest]
    _ticks(axes, "x", spaced(inside, lambda count: float(np.log10(count)), span / _MOST_TICKS))


def _roundness(rate: float) -> int:
    """How round a number reads: 2 for powers of ten, 1 for another single digit, else 0."""
    digits = f"{rate:.6e}".partition("e")[0].rstrip("0").rstrip(".")
    return 2 if digits == "1" else int("." not in digits)


def _decades(low: float, high: float) -> range:
    """Returns the powers of ten around a range."""
    return range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)


def loss_axis(axes: Axes, losses: Sequence[float], ends: Sequence[float] = ()) -> None:
    """Sets up the vertical axis for losses, logarithmic when they span a large factor.

    Args:
        axes: The axes.
        losses: What is to be shown.
        ends: Ends of their intervals, shown too; on a logarithmic axis as far as a factor of `_FARTHEST_END` from it.
    """
    low, high = min(losses), max(losses)
    logarithmic = low > 0 and high / low >= _LOG_LOSS_FROM
    if logarithmic:
        ends = [min(max(end, low / _FARTHEST_END), high * _FARTHEST_END) for end in ends]
    low, high = min(low, *ends, high), max(high, *ends, low)
    if not logarithmic:
        room = 0.05 * (high - low) or 0.05 * (abs(high) or 1.0)
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=_MOST_TICKS, steps=_NICE_STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        return
    span = float(np.log10(high / low))
    margin = 10 ** (0.04 * span)
    wanted = [digit * 10.0**decade for digit in (1, 2, 5, 3, 1.5, 7, 4) for decade in _decades(low, high)]
    inside = [loss for loss in wanted if low / margin <= loss <= high * margin]
    _scale(axes, "y", "log", low / margin, high * margin)
    _ticks(axes, "y", spaced(inside, lambda loss: float(np.log10(loss)), span / _MOST_TICKS))


def accuracy_axis(
    axes: Axes,
    accuracies: Sequence[float],
    label: str,
    which: Which = "y",
    *,
    ends: Sequence[float] = (),
    foot: float = 0.0,
    measure: Measure = ACCURACY,
) -> None:
    """Sets up an axis for accuracies.

    When they span much it is logarithmic in the error (one minus accuracy), which its label says: the gap between 0.90
    and 0.91 stays visible beside a trial that learned nothing. That of another measure is logarithmic in the distance
    to a perfect value, if there is one and distances span a large factor.

    Args:
        axes: The axes.
        accuracies: What is to be shown.
        label: What the axis says, of accuracy.
        which: The axis.
        ends: Ends of their intervals, shown too; on a logarithmic axis up to a `_FARTHEST_END`th of the smallest error.
        foot: Share of the axis to leave free at the end of the worst.
        measure: What the accuracies are.
    """
    label = in_words(label, measure)
    if not measure.is_share:
        _measure_axis(axes, accuracies, label, which, ends, foot, measure)
        return
    low, high = min(*accuracies, *ends, 1.0), max(*accuracies, *ends, 0.0)
    stretch = high - low >= _STRETCH_FROM
    if stretch:
        best = max(accuracies)
        high = max(best, min(high, 1 - (1 - best) / _FARTHEST_END))
    upright = "\n" if which == "y" and len(label) > _LONGEST_UPRIGHT else " "
    _label(axes, which, f"{label}{upright}(logarithmic in the error)" if stretch else label)
    position, accuracy = (_stretched, _accuracy) if stretch else (_same, _same)
    start, end = position(low), position(high)
    room = max(end - start, 1e-3)
    start, end = start - 0.05 * room, end + 0.05 * room
    bottom, top = accuracy(start - foot / (1 - foot) * (end - start)), min(accuracy(end), 1 + 0.02 * room)
    _scale(axes, which, "function" if stretch else "linear", bottom, top, (position, accuracy))
    if not stretch:
        ticks = MaxNLocator(nbins=_MOST_TICKS, steps=_NICE_STEPS).tick_values(low, high)
        _ticks(axes, which, [tick for tick in ticks if accuracy(start) <= tick <= top])
        return
    _ticks(axes, which, round_accuracies(max(0.0, accuracy(start)), min(top, 1 - _SMALLEST_ERROR), _MOST_TICKS))


def _measure_axis(
    axes: Axes,
    values: Sequence[float],
    label: str,
    which: Which,
    ends: Sequence[float],
    foot: float,
    measure: Measure,
) -> None:
    """Sets up an axis for a measure that is no share; arguments as of `accuracy_axis`."""
    stretch = _spans_much(values, measure)
    if stretch:
        errors = [_error(value, measure) for value in values]
        near, far = min(errors) / _FARTHEST_END, max(errors) * _FARTHEST_END
        ends = [_at_error(min(max(_error(end, measure), near), far), measure) for end in ends]
    position, value_at = (_stretch(measure), _unstretch(measure)) if stretch else (_same, _same)
    low, high = min(*values, *ends, values[0]), max(*values, *ends, values[0])
    start, end = position(low), position(high)
    room = 0.05 * (end - start) or 0.05 * (abs(end) or 1.0)
    start, end = start - room, end + room
    if not stretch:
        start, end = max(start, measure.least - room / 2), min(end, measure.most + room / 2)
    free = foot / (1 - foot) * (end - start)
    start, end = (start - free, end) if measure.higher_is_better else (start, end + free)
    ticks = round_values(*((low, high) if measure.higher_is_better else (high, low)), _MOST_TICKS, measure)
    how = "(logarithmic)" if measure.perfect == 0 else f"(logarithmic in the distance to {number(measure.perfect)})"
    lines = textwrap.wrap(label, _LONGEST_LINE[which])
    together = len(lines[-1]) + len(how) < _LONGEST_LINE[which]
    _label(axes, which, "\n".join(lines) + (f"{' ' if together else chr(10)}{how}" if stretch else ""))
    _scale(axes, which, "function" if stretch else "linear", value_at(start), value_at(end), (position, value_at))
    _ticks(axes, which, ticks)


def _label(axes: Axes, which: Which, text: str) -> None:
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(text)


def round_values(worst: float, best: float, at_most: int, measure: Measure = ACCURACY) -> list[float]:
    """Returns round values of a measure from the worst to the best, spread evenly over the axis that it gets.

    Args:
        worst: Where they begin; may be above the best.
        best: Where they end.
        at_most: About how many.
        measure: What the values are.
    """
    low, high = sorted((worst, best))
    if measure.is_share:
        return round_accuracies(low, high, at_most)
    if not _spans_much((worst, best), measure):
        ticks = MaxNLocator(nbins=at_most, steps=_NICE_STEPS).tick_values(low, high)
        return [float(f"{tick:.12g}") for tick in ticks if low <= tick <= high]
    position = _stretch(measure)
    decades = _decades(_error(best, measure), _error(worst, measure))
    steps = [digit * 10.0**decade for digit in (1, 2, 5, 3, 1.5, 7, 4) for decade in decades]
    near = [_at_error(step, measure) for step in steps if step <= abs(measure.perfect) or measure.perfect == 0]
    far = [sign * step for step in steps for sign in (1, -1) if abs(step) >= abs(measure.perfect)]
    wanted = near if measure.perfect == 0 else [0.0, *near, *far]
    inside = [float(f"{value:.12g}") for value in wanted if low <= value <= high]
    return spaced(inside, position, (position(high) - position(low)) / at_most)


def _error(value: Any, measure: Measure) -> Any:
    """Returns the distance to a perfect value; infinite if there is none."""
    return measure.sign * (measure.perfect - value)


def _at_error(error: Any, measure: Measure) -> Any:
    return measure.perfect - measure.sign * error


def _spans_much(values: Sequence[float], measure: Measure) -> bool:
    errors = [_error(value, measure) for value in values]
    near, far = float(min(errors)), float(max(errors))
    return near > 0 and far < np.inf and far / near >= _LOG_LOSS_FROM


def _stretch(measure: Measure) -> Callable[[Any], Any]:
    def position(value: Any) -> Any:
        error = np.clip(_error(np.asarray(value, dtype=float), measure), np.finfo(float).tiny, None)
        return -measure.sign * np.log10(error)

    return position


def _unstretch(measure: Measure) -> Callable[[Any], Any]:
    return lambda position: _at_error(10.0 ** (-measure.sign * np.asarray(position, dtype=float)), measure)


def round_accuracies(low: float, high: float, at_most: int) -> list[float]:
    """Returns round accuracies in a range, spread evenly over the logarithm of the error."""
    gap = (_stretched(high) - _stretched(low)) / at_most
    found: list[float] = []
    for step in (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001):
        multiples = [round(k * step, 4) for k in range(round(1 / step), -1, -1) if low <= round(k * step, 4) <= high]
        found = spaced([*found, *multiples], _stretched, gap)
        if len(found) >= 0.6 * at_most:
            break
    return found


def _same(value: float) -> float:
    return value


def _stretched(accuracy: Any) -> Any:
    return -np.log10(np.clip(1 - np.asarray(accuracy, dtype=float), _SMALLEST_ERROR, None))


def _accuracy(position: Any) -> Any:
    return 1 - 10.0 ** -np.asarray(position, dtype=float)


def _scale(axes: Axes, which: Which, scale: str, low: float, high: float, functions: Any = None) -> None:
    options = {"functions": functions} if scale == "function" else {}
    if which == "x":
        axes.set_xscale(scale, **options)
        axes.set_xlim(low, high)
    else:
        axes.set_yscale(scale, **options)
        axes.set_ylim(low, high)


def _ticks(axes: Axes, which: Which, ticks: Sequence[float]) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


# -- colours ----------------------------------------------------------------------------------------------------------


NOISE_RANGE = 4
"""Range of a dozen or so equal configurations, in standard errors."""
_NARROWEST = 10
"""Minimum range of the colours, in standard errors, so that seed noise is barely visible."""


class AccuracyColours:
    """Colours of accuracies, from dark (worst) to light (best), suitable for colour-blind readers.

    The range ends at the best accuracy and starts not far below the median, so that a few failures do not make the rest
    look alike. It has a minimum width, so that seed noise is not shown as colour.

    Args:
        accuracies: The accuracies to show; None is ignored.
        noise: Standard error of each, from seed to seed.
        measure: What the accuracies are. `low` and `high`, the ends of the range, are values times its sign.
    """

    def __init__(self, accuracies: Iterable[float | None], noise: float = 0.0, measure: Measure = ACCURACY) -> None:
        self.measure = measure
        values = [measure.sign * value for value in accuracies if value is not None] or [0.0]
        high, middle = max(values), float(np.median(values))
        least = 1e-3 * (1.0 if measure.is_share else abs(middle) or 1.0)
        self.low = max(min(values), middle - 3 * max(high - middle, least))
        missing = max(0.0, max(_NARROWEST * noise, least) - (high - self.low))
        self.low, self.high = self.low - missing / 2, high + missing / 2
        self.map = _colour_map()
        self.scale = Normalize(self.low, self.high)
        self._beyond = min(values) < self.low
        self._all_equal = min(values) == high

    def __call__(self, accuracy: float) -> str:
        """Returns the colour of an accuracy, as `#rrggbb`."""
        return to_hex(self.map(self.position(accuracy)))

    def position(self, accuracy: float) -> float:
        """Returns where in the range an accuracy is: 0 for the darkest, 1 for the lightest."""
        return min(1.0, max(0.0, (self.measure.sign * accuracy - self.low) / (self.high - self.low)))

    def at(self, position: float) -> float:
        """Returns the accuracy at a position."""
        return self.measure.sign * (self.low + position * (self.high - self.low))

    def bar(self, figure: Figure, axes: Any) -> None:
        """Adds the colour bar below axes, the same size on any figure, unless there is only one colour."""
        if self._all_equal:
            return
        height = figure.get_figheight()
        bar = figure.colorbar(
            ScalarMappable(self.scale, self.map),
            ax=axes,
            location="bottom",
            extend="min" if self._beyond else "neither",
            fraction=0.2 / height,
            pad=0.1 / height,
            shrink=0.5,
            aspect=30,
            anchor=(0.0, 1.0),
        )
        bar.outline.set_visible(False)
        bar.set_label(in_words("final validation accuracy", self.measure))
        bar.ax.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=_NICE_STEPS))
        if not self.measure.is_share:
            bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(self.measure.sign * value)))


def _colour_map() -> Colormap:
    """Returns viridis without its ends, which are too close to black and to white paper."""
    return LinearSegmentedColormap.from_list("accuracy", mpl.colormaps["viridis"](np.linspace(0.12, 0.93, 64)))

"""Spans: from where to where a setting is searched, and on which scale. The one place that knows the scales.

Imports only the standard library (and our error type), so that analysis can use it without torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from workloads.errors import InputError

ScaleName = Literal["linear", "log", "1 - x log"]
Edge = Literal["lowest", "highest"]

EDGE = 0.1
"""The share of a span, at either end, that counts as its edge."""
DIGITS = 3
"""Significant digits of a value that is drawn; of 1 - x on the scale of that name."""


_ROUNDING = 1e-9


class _Scale(NamedTuple):
    """How a setting is spread: evenly in what `forth` makes of it."""

    forth: Callable[[float], float]
    back: Callable[[float], float]
    allowed: Callable[[float], bool]
    wanted: str


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


_SCALES: Mapping[ScaleName, _Scale] = {
    "linear": _Scale(lambda x: x, _rounded, math.isfinite, "finite"),
    "log": _Scale(math.log, lambda y: _rounded(math.exp(y)), lambda x: 0 < x < math.inf, "above 0"),
    # 1 - 0.0123 is 0.9877 only to 15 digits.
    "1 - x log": _Scale(
        lambda x: -math.log1p(-x),
        lambda y: round(1 - _rounded(math.exp(-y)), 12),
        lambda x: -math.inf < x < 1,
        "below 1",
    ),
}
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_WRITTEN = re.compile(rf"(?:(?P<scale>[^:/]+):)?(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER})")


@dataclass(frozen=True, kw_only=True)
class Span:
    """The values of a setting that are searched.

    Raises:
        InputError: The scale is unknown, an end does not lie on it, or the first end is above the second.
    """

    low: float
    high: float
    scale: ScaleName = "linear"
    """On which values are spread evenly: the number itself, its logarithm, or that of its distance to 1."""
    whole: bool = False
    """Whole numbers only, the ends included."""
    of_epochs: bool = False
    """The ends are shares of a trial's epochs (`over`)."""

    def __post_init__(self) -> None:
        if self.scale not in _SCALES:
            raise InputError(f"unknown scale {self.scale!r}; known: {', '.join(_SCALES)}")
        scale = _SCALES[self.scale]
        for end in (self.low, self.high):
            if not scale.allowed(end):
                raise InputError(f"on the scale {self.scale} both ends must be {scale.wanted}, not {end:g}")
        if self.low > self.high:
            raise InputError(f"a range goes from low to high, not from {self.low:g} down to {self.high:g}")

    @property
    def is_point(self) -> bool:
        """Whether there is only one value, and so nothing to draw."""
        return self.low == self.high

    def at(self, place: float) -> int | float:
        """Returns the value at a place: 0 is the low end, 1 the high one; to `DIGITS` significant digits."""
        forth, back, *_ = _SCALES[self.scale]
        margin = 0.5 if self.whole else 0.0  # so that the first and the last whole number are as likely as others
        start, end = forth(self.low - margin), forth(self.high + margin)
        value = back(start + place * (end - start))
        value = min(max(math.floor(value + 0.5) if self.whole else value, self.low), self.high)
        return int(value) if self.whole else float(value)

    def place(self, value: float) -> float:
        """Returns where a value is, the inverse of `at`; below 0 or above 1 if it is not inside.

        Raises:
            InputError: The value does not lie on the scale.
        """
        scale = _SCALES[self.scale]
        if not scale.allowed(value):
            raise InputError(f"on the scale {self.scale} a value must be {scale.wanted}, not {value:g}")
        start, end = scale.forth(self.low), scale.forth(self.high)
        return 0.5 if start == end else (scale.forth(value) - start) / (end - start)

    def edge(self, value: float) -> Edge | None:
        """Returns at which edge a value is: in the outer tenth of the scale; None inside, or if there is one value."""
        if self.is_point:
            return None
        place = self.place(value)
        return "lowest" if place <= EDGE else "highest" if place >= 1 - EDGE else None

    def over(self, epochs: int) -> Span:
        """Returns the span for trials of so many epochs: shares of them become epochs.

        A share above 0 of whole epochs is at least one; otherwise shares are rounded down.
        """
        if not self.of_epochs:
            return self
        low, high = self.low * epochs, self.high * epochs
        if self.whole:
            low = max(math.floor(low + _ROUNDING), 1 if self.low > 0 else 0)
            high = max(math.floor(high + _ROUNDING), low)
        return replace(self, low=low, high=high, of_epochs=False)

    def widened(self, edge: Edge, factor: float = 10.0) -> Span:
        """Returns the span on the scale `log` with one end farther out by a factor."""
        assert self.scale == "log", "where the other scales end is not known"
        if edge == "lowest":
            return replace(self, low=_rounded(self.low / factor))
        return replace(self, high=_rounded(self.high * factor))

    def __str__(self) -> str:
        return f"{self.low:.12g}..{self.high:.12g}"

    def to_json(self) -> dict[str, Any]:
        """Returns the span as plain JSON values: arguments of `Span`."""
        return asdict(self)


def is_range(value: object) -> bool:
    """Whether a value is written as a range, such as `1e-4..0.1` or `log:1e-9..1e-6`."""
    return isinstance(value, str) and _WRITTEN.fullmatch(value.strip()) is not None


def parse_range(text: str, like: Span | None = None) -> Span:
    """Returns the span that a text such as `1e-4..0.1` or `log:1e-9..1e-6` names.

    Args:
        text: A range (`is_range`).
        like: The setting's own span, which says the scale if the text does not; None for a linear one.

    Raises:
        InputError: The scale is unknown, an end does not lie on it, or there is nothing between the ends.
    """
    found = _WRITTEN.fullmatch(text.strip())
    assert found is not None
    like = like or Span(low=0.0, high=1.0)
    low, high = float(found["low"]), float(found["high"])
    try:
        span = Span(low=low, high=high, scale=found["scale"] or like.scale, whole=like.whole)  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{text}: {error}") from None
    if span.is_point:
        raise InputError(f"{text}: there is nothing between {low:g} and {high:g}; write one value without '..'")
    if span.whole and not (low.is_integer() and high.is_integer()):
        raise InputError(f"{text}: the ends must be whole numbers, as the setting is one")
    return span

"""What configurations are ranked by: the name of a measure, and which of its values is better.

Imports only the standard library, so that analysis can use it without torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from workloads.errors import InputError

_TAKEN = ("loss",)
"""What other columns are called: `val_loss`."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How well a network does, in one number that is measured on a split.

    Raises:
        InputError: Columns cannot be named after it, or nothing lies between its bounds.
    """

    name: str = "accuracy"
    """In words, as sentences say it after "validation": `accuracy`, `mean absolute error`."""
    higher_is_better: bool = True
    least: float = -math.inf
    """The lowest possible value."""
    most: float = math.inf
    """The highest possible value."""
    loss_unit: str = ""
    """Of the loss that is trained with it, e.g. `nats`; empty if it has none worth saying."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+( [\w-]+)*", self.name) or self.column in _TAKEN:
            raise InputError(
                f"a measure cannot be called {self.name!r}: columns are named after it; use words of letters, digits "
                f"and hyphens with single spaces, e.g. 'mean absolute error', other than {', '.join(_TAKEN)}"
            )
        if not self.least < self.most:
            raise InputError(
                f"the lowest possible {self.name} must be below the highest, not {self.least:g} and {self.most:g}"
            )

    @property
    def column(self) -> str:
        """The name in columns: `mean_absolute_error`."""
        return "_".join(self.name.replace("-", " ").split())

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is: a value times this is better the higher it is."""
        return 1 if self.higher_is_better else -1

    @property
    def perfect(self) -> float:
        """The best possible value; infinite if there is none."""
        return self.most if self.higher_is_better else self.least

    @property
    def is_share(self) -> bool:
        """Whether it goes from 0 to 1, which is perfect, like accuracy."""
        return (self.higher_is_better, self.least, self.most) == (True, 0.0, 1.0)

    @property
    def extreme(self) -> str:
        """What the best of several values is: `highest` or `lowest`."""
        return "highest" if self.higher_is_better else "lowest"

    def text(self, value: float, digits: int = 4) -> str:
        """Returns how a value is written: a share with so many decimals, others with so many significant digits."""
        if self.is_share:
            return f"{value:.{digits}f}"
        size = math.floor(math.log10(abs(value))) if value else 0
        return (
            f"{value:.{max(0, digits - 1 - size)}f}" if -digits <= size < _PLAIN_DIGITS else f"{value:.{digits - 1}e}"
        )

    def difference(self, value: float) -> str:
        """Returns how the size of a difference of two values is written."""
        if self.is_share:
            return f"{value:.4f}" if value >= 0.00005 else "less than 0.0001"
        return rounded(value)

    def to_json(self) -> dict[str, Any]:
        """Returns the measure as plain JSON values, infinite bounds as null; `from_json` is the inverse."""
        return {name: value if value not in (math.inf, -math.inf) else None for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Measure:
        """Returns the measure from the output of `to_json`."""
        return cls(**{name: value for name, value in values.items() if value is not None})


def rounded(value: float, digits: int = 2) -> str:
    """Returns a number with so many significant digits, as short as can be: `0.012`, `3e-05`, `1200`."""
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text and abs(value) < 10**_PLAIN_DIGITS else text


_PLAIN_DIGITS = 9
"""Numbers with more digits before the point are written with an exponent."""

ACCURACY = Measure(name="accuracy", least=0.0, most=1.0, loss_unit="nats")
"""Of a classification, with cross-entropy: the share of examples whose class is right."""

"""What configurations are ranked by: the name of a measure, and which of its values is better.

Imports only the standard library, so that analysis can use it without torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How well a network does, in one number that is measured on a split."""

    name: str = "accuracy"
    """In words, as sentences say it after "validation": `accuracy`, `mean absolute error`."""
    higher_is_better: bool = True
    least: float = -math.inf
    """The lowest possible value."""
    most: float = math.inf
    """The highest possible value."""
    loss_unit: str = ""
    """Of the loss that is trained with it, e.g. `nats`; empty if it has none worth saying."""

    @property
    def column(self) -> str:
        """The name in columns: `mean_absolute_error`."""
        return "_".join(self.name.replace("-", " ").split())

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is: a value times this is better the higher it is."""
        return 1 if self.higher_is_better else -1

    def to_json(self) -> dict[str, Any]:
        """Returns the measure as plain JSON values, infinite bounds as null; `from_json` is the inverse."""
        return {name: value if value not in (math.inf, -math.inf) else None for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Measure:
        """Returns the measure from the output of `to_json`."""
        return cls(**{name: value for name, value in values.items() if value is not None})


ACCURACY = Measure(name="accuracy", least=0.0, most=1.0, loss_unit="nats")
"""Of a classification, with cross-entropy: the share of examples whose class is right."""

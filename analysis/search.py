"""How a question drew its trials: which settings from where. A search stores that in `sweep.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from analysis.store import SweepSpec
from workloads.spans import Span


@dataclass(frozen=True)
class Search:
    """What was drawn."""

    trials: int
    """Draws for each combination of what was listed."""
    spaces: Mapping[tuple[str, str], Mapping[str, Span]]
    """Optimizer and schedule -> column of the trials table -> where its values come from."""
    learns: bool = False
    """Whether results say where later draws lie: then nobody knows all draws beforehand."""

    @cached_property
    def drawn(self) -> frozenset[str]:
        """The columns that some optimizer or schedule draws: their values are no grid."""
        return frozenset(column for spans in self.spaces.values() for column in spans)

    def span(self, column: str, optimizer: str, scheduler: str, epochs: int = 1) -> Span | None:
        """Returns where a column's values come from, for one optimizer and schedule; None if they are listed.

        Args:
            column: The column.
            optimizer: The trial's.
            scheduler: The trial's.
            epochs: The trial's; they matter where a span is given in shares of them.
        """
        span = self.spaces.get((optimizer, scheduler), {}).get(column)
        return None if span is None else span.over(epochs)


def searched(specs: Sequence[SweepSpec]) -> Search | None:
    """Returns how the trials of sweeps were drawn; None if none of them is a search."""
    asked = [spec.search for spec in specs if spec.search]
    if not asked:
        return None
    spaces = {
        (space["optimizer"], space["scheduler"]): {
            name.replace(".", "_"): Span(**span) for name, span in space["ranges"].items()
        }
        for one in asked
        for space in one["spaces"]
    }
    return Search(asked[0]["trials"], spaces, asked[0].get("learns", False))

"""Everything at once: the sweeps whose trials are known beforehand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sweeps.policies.policy import Decision, Results
from workloads.trial import TrialConfig


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Trains all its trials, whatever the results."""

    trials: tuple[TrialConfig, ...]
    policy_id: None = None
    eager: bool = False

    def decide(self, known: Results) -> Decision:
        """Returns all trials; nothing follows."""
        return Decision(add=self.trials, over=True)

    def ordered(self, trials: Iterable[TrialConfig]) -> list[TrialConfig]:
        """Returns trials as they come: in the order of the grid."""
        return list(trials)

    def to_json(self) -> None:
        """Returns nothing: a grid is its trials."""

    def outlook(self, known: Results) -> None:
        """Returns nothing: all there is to train is known."""

"""Everything at once: the sweeps whose trials are known beforehand."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.policies.policy import Decision, Results, configuration_id
from workloads.trial import TrialConfig


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Trains all its trials, whatever the results."""

    trials: tuple[TrialConfig, ...]

    def decide(self, known: Results) -> Decision:
        """Returns all trials that have not ended; nothing follows."""
        add = tuple(trial for trial in self.trials if trial.seed not in known.get(configuration_id(trial), {}))
        return Decision(add=add, over=True, reason=f"all {len(self.trials):,} trials of the grid, whatever the results")

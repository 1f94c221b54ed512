"""What to train next: policies, pure functions of what is known, a file each. No Ray, no torch, no files, no clock."""

from sweeps.policies.grid import Grid
from sweeps.policies.policy import Decision, Outcome, Policy, Results, results
from sweeps.policies.promotion import Promotion
from sweeps.policies.race import Race
from sweeps.policies.tpe import Tpe
from workloads.trial import configuration_id

__all__ = [
    "Decision",
    "Grid",
    "Outcome",
    "Policy",
    "Promotion",
    "Race",
    "Results",
    "Tpe",
    "configuration_id",
    "results",
]

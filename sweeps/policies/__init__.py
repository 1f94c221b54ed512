"""What to train next: policies, pure functions of what is known, a file each. No Ray, no torch, no files, no clock.

No sweep asks them yet: `tests/benchmarks/racing.py` runs them in virtual time.
"""

from sweeps.policies.grid import Grid
from sweeps.policies.policy import Decision, Outcome, Policy, Results, configuration_id
from sweeps.policies.race import Race

__all__ = ["Decision", "Grid", "Outcome", "Policy", "Race", "Results", "configuration_id"]

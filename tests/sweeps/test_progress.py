"""What a person watches: on a terminal and elsewhere, and what is said about failures."""

from __future__ import annotations

import io

from rich.console import Console

from analysis.store import SweepStore
from sweeps.ledger import Ledger
from sweeps.placement import Placement
from sweeps.progress import Progress
from sweeps.trajectories import ForkTree
from sweeps.tuning.run import Run
from workloads.trial import TrialConfig


def test_why_trials_fail_is_said_once_for_each_reason(storage: str) -> None:
    trials = [TrialConfig(seed=seed, epochs=1) for seed in range(4)]
    ledger = Ledger(SweepStore(storage, "s"), trials)
    tree = ForkTree(ledger.members())
    assert list(tree.walk_known()) == []
    console = Console(file=io.StringIO(), width=80)
    labels = {trial.trial_id: f"lr [0.1], seed {trial.seed}" for trial in trials}
    run = Run(tree, ledger, Placement(), Progress(console, labels))
    reasons = ["no epoch within 1 s (--trial-timeout)"] * 2 + ["RuntimeError: [/red] " + "long " * 100, "another"]
    for number, reason in enumerate(reasons):
        assert run.next_job(str(number)) is not None
        run.take_in(str(number), {"end": "failed", "error": reason, "traceback": None})
    said = [line for line in console.file.getvalue().splitlines() if line.startswith("failed")]  # type: ignore[attr-defined]
    assert said[0] == "failed: lr [0.1], seed 0: no epoch within 1 s (--trial-timeout)"
    assert said[1].startswith("failed: lr [0.1], seed 2: RuntimeError: [/red] long long")
    assert len(said[1]) < 200
    assert len(said) == 3

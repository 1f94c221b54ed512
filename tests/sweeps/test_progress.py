"""What a person watches: on a terminal and elsewhere, and what is said about failures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from analysis.store import SweepStore
from sweeps.ledger.ledger import Ledger
from sweeps.sharing.tree import ForkTree
from sweeps.tuning.driver import Run
from sweeps.tuning.placement import Placement
from sweeps.watching.progress import Progress
from workloads.measure import Measure
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


RECORD: Mapping[str, Any] = {
    "epoch": 3,
    "train_loss": 1.0,
    "val_loss": 1.0,
    "val_accuracy": 0.5,
    "train_seconds": 1.0,
    "eval_seconds": 0.1,
}
LABEL = "factor [0.1], patience 10, threshold 0.0001, cooldown 3, seed 1"


@pytest.mark.parametrize("width", [72, 80, 160])
@pytest.mark.parametrize("delivered", [0, 3, 10])
def test_the_live_view_is_a_line_of_counts_a_bar_and_a_table_with_all_numbers(width: int, delivered: int) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=width, color_system=None)
    progress = Progress(console, {"a": LABEL})
    progress.counts.trial_epochs, progress.counts.delivered = 10, delivered
    progress.started("a", 3)
    progress.record("a", RECORD, 3)
    console.print(progress._render())
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    header = next(i for i, line in enumerate(lines) if "training now" in line)
    assert lines[header].startswith("training now")
    assert lines[header].endswith("with  epoch  train loss  val loss  val accuracy")
    assert set(lines[header - 1]) <= set("━╸╺ ")
    assert lines[header + 1].startswith("factor [0.1]")
    assert lines[header + 1].endswith("+2      3      1.0000    1.0000        0.5000")
    assert len(lines) == header + 2, "a label is cut rather than wrapped"


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_dumb_terminal_gets_lines(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    text = io.StringIO()
    with Progress(Console(file=text, force_terminal=True, width=80), {}) as progress:
        progress.update()
    assert ("\x1b" not in text.getvalue()) == (term == "dumb")


def test_values_of_another_measure_have_its_name_and_significant_digits() -> None:
    error = Measure(name="mean absolute error", higher_is_better=False, least=0.0)
    text = io.StringIO()
    progress = Progress(Console(file=text, width=160), {"a": "adam"}, measure=error)
    progress.started("a", 1)
    progress.record("a", {**RECORD, "val_accuracy": 1234.56}, 1)
    progress.update()
    assert "adam epoch 3 loss 1.000 val 1235" in text.getvalue()
    progress.console.print(progress._render())
    header, row = text.getvalue().splitlines()[-2:]
    assert header.endswith("val loss  val mean absolute error")
    assert row.endswith("1235")

"""A stored sweep meets the next question, on a real Ray: what is stored is used, and the numbers stay exact."""

from __future__ import annotations

import re
from typing import Any

import polars as pl
import pytest

from analysis.store import SweepStore
from sweeps.question.grid import axis, product
from sweeps.question.sweep import Sweep
from tests.sweeps.runs import MEASURED, run_here, table_of

pytestmark = pytest.mark.usefixtures("ray_cluster")

SWEEP = Sweep(
    name="growing",
    question="What is asked next?",
    grid=product(axis("workload", "lenet_synthetic")),
    schedulers=("none", "cosine"),
    lrs=(0.02,),
    epochs=2,
)


def ask(storage: str, **options: Any) -> tuple[int, pl.DataFrame]:
    """Asks, and returns how many epochs were trained and what the answer rests on."""
    status, text = run_here(SWEEP, storage, max_concurrent=None, **options)
    assert status == 0, text
    trained = re.search(r"([\d,]+) epochs? trained", text)
    count = int(trained[1].replace(",", "")) if trained else 0
    trials = table_of(storage, "growing")
    assert set(trials["status"]) == {"completed"}
    assert trials["checkpoint"].null_count() == 0
    epochs = table_of(storage, "growing", "epochs").select("trial_id", "epoch", *MEASURED).sort("trial_id", "epoch")
    return count, epochs


def test_question_after_question(storage: str) -> None:
    asked: list[tuple[dict[str, Any], int]] = [
        ({}, 1 + 2),  # the first epoch of a cosine is one without a schedule
        ({"grid": ("epochs=3,4",)}, 2 + 2 + 4),  # without a schedule it goes on; a longer cosine starts anew
        ({"schedulers": ("none",), "more_lrs": ("0.05",), "more_seeds": 1}, 3 * 2),
        ({}, 0),
    ]
    found = []
    for options, expected in asked:
        trained, epochs = ask(storage, **options)
        assert trained == expected, options
        found.append(epochs)
    spec = SweepStore(storage, "growing").read_spec()
    assert spec is not None
    assert (len(spec.trials), len(spec.library)) == (2, 7)

    status, text = run_here(SWEEP, f"{storage}-alone", share=False, grid=("epochs=2,3,4",))
    assert status == 0, text
    alone = table_of(f"{storage}-alone", "growing", "epochs").select("trial_id", "epoch", *MEASURED)
    both = pl.concat(found).unique().join(alone, on=("trial_id", "epoch"), suffix="_alone")
    assert both.height == 2 * (2 + 3 + 4)
    for name in MEASURED:
        assert both[name].equals(both[f"{name}_alone"], null_equal=True), name

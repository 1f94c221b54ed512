"""A script of one's own adds a network to the table: workers, which do not run the script, are handed its row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from torch import nn

from sweeps.question.grid import axis
from sweeps.question.sweep import Sweep
from tests.sweeps.runs import run_here, run_script, table_of
from workloads.datasets import DatasetRow
from workloads.registry import SETTINGS, WORKLOADS, WorkloadRow, added_workloads
from workloads.trial import Settings

SCRIPT = """
from torch import nn

from sweeps.cli import main
from sweeps.question.grid import axis
from sweeps.question.sweep import Sweep
from workloads.registry import WORKLOADS, WorkloadRow


def perceptron(dataset, settings):
    pixels = dataset.channels * 32 * 32
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 32), nn.Dropout(0.2), nn.Linear(32, len(dataset.classes)))


WORKLOADS["perceptron"] = WorkloadRow(name="perceptron", doc="Two layers.", dataset="synthetic", model=perceptron)
SWEEP = Sweep(
    name="own",
    question="Does it train?",
    grid=axis("workload", "perceptron"),
    optimizers=("adam",),
    lrs=(0.001, 0.002),
    epochs=1,
)

if __name__ == "__main__":
    main(SWEEP)
"""


def test_a_network_of_a_script(tmp_path: Path, places: Mapping[str, str]) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    status, output, complaints = run_script(tmp_path / "mine.py", str(tmp_path / "results"), **places)
    assert status == 0, output + complaints
    trials = table_of(str(tmp_path / "results"), "own")
    assert trials["status"].to_list() == ["completed"] * 2
    assert trials["workload"].to_list() == ["perceptron"] * 2
    assert min(trials["final_val_accuracy"]) > 0.5


def _nothing(dataset: DatasetRow, settings: Settings) -> None:
    return None


def test_only_added_rows_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert added_workloads() == {}
    row = WorkloadRow(name="mine", doc="Mine.", dataset="synthetic", model=_nothing, settings={"width": 64})  # type: ignore[arg-type]
    monkeypatch.setitem(WORKLOADS, "mine", row)
    assert added_workloads() == {"mine": row}
    assert row.settings == {**SETTINGS, "width": 64}, "what every workload can be set to comes on top"
    assert row.choices.keys() == WORKLOADS["lenet_synthetic"].choices.keys()


def test_a_network_that_raises_is_planned_all_the_same(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with it is its trials' outcome, and no fault of the plan."""

    def wrong(dataset: DatasetRow, settings: Settings) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3, 4))

    monkeypatch.setitem(WORKLOADS, "wrong", WorkloadRow(name="wrong", doc="-", dataset="synthetic", model=wrong))
    sweep = Sweep(name="wrong", question="?", grid=axis("workload", "wrong"), lrs=(0.1,), epochs=1)
    status, text = run_here(sweep, storage, plan=True)
    assert status == 0
    assert "epochs to train: 1\n" in text, "how long it takes cannot be measured"

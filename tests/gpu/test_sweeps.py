"""What only a GPU can show of sweeps: `pytest -m gpu`, on a machine with one. Not yet run on a GPU."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from polars.testing import assert_frame_equal
from rich.console import Console

from analysis.store import SweepStore
from sweeps.ledger.ledger import Ledger
from sweeps.question.sweep import Sweep
from sweeps.sharing.tree import ForkTree
from sweeps.tuning import execution
from sweeps.tuning.driver import Run
from sweeps.tuning.placement import Placement
from sweeps.tuning.session import ray_session
from sweeps.watching.progress import Progress
from tests.sweeps.runs import made_up_record, measured, run_here, table_of
from workloads.trial import EpochRecord, TrialConfig

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

SWEEP = Sweep(
    name="quarters",
    question="Are four at a time the same as one?",
    optimizers=("adam", "sgd_momentum"),
    schedulers=("none", "plateau"),
    epochs=3,
)
SMALL = {"grid": ("workload=lenet_synthetic",), "cpus_per_trial": 0.1, "preflight": False}


@pytest.fixture(scope="module", autouse=True)
def ray_with_gpus() -> Iterator[None]:
    with ray_session(Placement(), num_cpus=4):
        yield


def test_four_quarters_are_bitwise_equal_to_one_alone(storage: str, tmp_path: Path) -> None:
    alone = str(tmp_path / "alone")
    assert run_here(SWEEP, storage, gpus_per_trial=0.25, **SMALL)[0] == 0
    assert run_here(SWEEP, alone, gpus_per_trial=1, **SMALL)[0] == 0
    assert_frame_equal(measured(storage, "quarters"), measured(alone, "quarters"), check_exact=True)
    assert table_of(storage, "quarters")["neighbours"].max() == 3
    assert table_of(alone, "quarters")["neighbours"].max() == 0


def test_a_sweep_on_a_gpu_goes_on_and_is_not_mixed_with_the_cpus(storage: str) -> None:
    assert run_here(SWEEP, storage, gpus_per_trial=0.5, **SMALL)[0] == 0
    assert "everything is done" in run_here(SWEEP, storage, gpus_per_trial=1, **SMALL)[1]
    with pytest.raises(ValueError, match=r"trained on cuda, .*, now cpu, 1 thread"):
        run_here(SWEEP, storage, **SMALL)


def trained(storage: str, train: Any, count: int, **placement: Any) -> Run:
    """Runs a stand-in for some trainings on the GPU."""
    trials = [TrialConfig(workload="lenet_synthetic", seed=seed, epochs=1, train_limit=320) for seed in range(count)]
    ledger = Ledger(SweepStore(storage, "s"), trials)
    Path(ledger.store.root).mkdir(parents=True)
    tree = ForkTree(ledger.members())
    list(tree.walk_known())
    run = Run(tree, ledger, Placement(cpus_per_trial=0.1, **placement), Progress(Console(file=io.StringIO()), {}))
    execution.run_tree(run, train=train)
    return run


def test_memory_that_a_neighbour_took_is_not_final(storage: str, tmp_path: Path) -> None:
    def large(config: TrialConfig, *, hardware: Any, **_: Any) -> Iterator[EpochRecord]:
        on = hardware.apply()
        total = torch.cuda.get_device_properties(on).total_memory
        (tmp_path / f"{config.seed}.there").touch()
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*.there"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)  # the driver knows of both
        torch.empty(int(0.6 * total), dtype=torch.uint8, device=on)
        yield EpochRecord(**made_up_record(config, 1))

    run = trained(storage, large, 2, gpus_per_trial=0.5)
    assert [one.status for one in run.ledger.statuses.values()] == ["completed"] * 2, "each alone at last"


def test_an_assertion_on_the_gpu_fails_one_trial_and_no_other(storage: str, tmp_path: Path) -> None:
    def asserting(config: TrialConfig, *, hardware: Any, **_: Any) -> Iterator[EpochRecord]:
        on = hardware.apply()
        (tmp_path / f"{config.seed}-{os.getpid()}").touch()
        index = torch.tensor([10 if config.seed == 0 else 1], device=on)
        torch.zeros(3, device=on)[index].sum().item()
        yield EpochRecord(**made_up_record(config, 1))

    run = trained(storage, asserting, 5, gpus_per_trial=1, max_concurrent=1)
    assert sorted(one.status for one in run.ledger.statuses.values()) == [*["completed"] * 4, "failed"]
    of = dict(path.name.split("-") for path in tmp_path.iterdir() if path.is_file())
    assert [seed for seed in of if of[seed] == of["0"]] == ["0"]

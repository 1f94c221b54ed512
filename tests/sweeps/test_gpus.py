"""What goes wrong on GPUs, as the driver and workers take it; without one: they are declared, and errors made up."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from analysis.store import SweepStore
from sweeps.ledger.ledger import Ledger
from sweeps.sharing.tree import ForkTree
from sweeps.tuning import execution
from sweeps.tuning.driver import MAX_BROKEN, Run
from sweeps.tuning.errors import PlacementError
from sweeps.tuning.placement import Placement
from sweeps.tuning.probing import _refusal, probe_there
from sweeps.tuning.worker import breaks_gpu, status_of
from sweeps.watching.progress import Progress
from tests.sweeps.runs import made_up_record
from workloads.registry import resolve
from workloads.trial import EpochRecord, TrialConfig

HERE = {"node": "here/0", "device": "cuda:1", "gpu_fraction": 0.5}
ASSERT = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"


def trials(count: int) -> list[TrialConfig]:
    return [TrialConfig(workload="lenet_synthetic", seed=seed, epochs=1, train_limit=320) for seed in range(count)]


def a_run(storage: str, asked: list[TrialConfig], placement: Placement) -> Run:
    ledger = Ledger(SweepStore(storage, "s"), asked)
    Path(ledger.store.root).mkdir(parents=True)
    tree = ForkTree(ledger.members())
    assert list(tree.walk_known()) == []
    run = Run(tree, ledger, placement, Progress(Console(file=io.StringIO()), {}))
    run.room = 10
    return run


def start(run: Run, *names: str) -> list[TrialConfig]:
    """Lets workers take up what is next, under Tune's names for it."""
    found = []
    for name in names:
        job = run.next_job(name)
        assert job is not None
        found.append(job.config)
        run.take_in(name, {"place": HERE})
    return found


def end(run: Run, name: str, how: str = "out_of_memory", **more: Any) -> None:
    run.take_in(name, {"end": how, "error": "what was wrong", "traceback": None, **more})
    run.complete(name, error=bool(more))


def epoch(run: Run, name: str, trial: TrialConfig) -> None:
    run.take_in(name, {"record": made_up_record(trial, 1), "checkpoint": None})
    run.complete(name, error=False)


# -- memory ---------------------------------------------------------------------------------------------------------


def test_memory_that_a_neighbour_took_is_not_final(storage: str) -> None:
    run = a_run(storage, trials(2), Placement(gpus_per_trial=0.5))
    first, second = start(run, "a", "b")
    end(run, "a")
    assert first.trial_id not in run.ledger.statuses
    assert not run.is_over()
    assert run.next_job("c") is None, "its neighbour is still there"
    epoch(run, "b", second)
    assert not run.is_over()

    again = run.next_job("d")
    assert again is not None
    assert again.config == first
    assert again.hardware.gpu_memory_fraction is None, "it has all of the device's memory"
    assert run.next_job("e") is None, "and no neighbour"
    run.take_in("d", {"place": HERE})
    epoch(run, "d", first)
    assert {status.status for status in run.ledger.statuses.values()} == {"completed"}
    assert run.is_over()


def test_memory_that_a_whole_device_does_not_have_is_final(storage: str) -> None:
    run = a_run(storage, trials(2), Placement(gpus_per_trial=0.5))
    first, second = start(run, "a", "b")
    epoch(run, "b", second)
    end(run, "a")
    start(run, "c")
    end(run, "c")
    assert run.ledger.statuses[first.trial_id].status == "out_of_memory"
    assert run.is_over()


def test_without_neighbours_it_is_final_at_once(storage: str) -> None:
    run = a_run(storage, trials(1), Placement(gpus_per_trial=0.5))
    (only,) = start(run, "a")
    end(run, "a")
    assert run.ledger.statuses[only.trial_id].status == "out_of_memory"


# -- broken contexts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (RuntimeError(ASSERT), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("HIP error: unspecified launch failure"), True),
        (torch.AcceleratorError("CUDA error: unspecified launch failure", 719), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA error: device-side assert triggered"), False),
    ],
    ids=str,
)
def test_errors_that_leave_a_process_without_its_gpu(error: Exception, broken: bool) -> None:
    assert breaks_gpu(error) is broken
    assert not (broken and status_of(error) == "out_of_memory")


def test_a_device_that_breaks_again_and_again_ends_the_run(storage: str) -> None:
    run = a_run(storage, trials(2 * MAX_BROKEN + 1), Placement(gpus_per_trial=0.5))
    names = [str(number) for number in range(2 * MAX_BROKEN)]
    for name in names[: MAX_BROKEN - 1]:
        start(run, name)
        end(run, name, "failed", broken=HERE)
    (trained,) = start(run, "well")
    epoch(run, "well", trained)
    for name in names[MAX_BROKEN:]:
        assert not run.stopping, "an epoch was trained there in between"
        start(run, name)
        end(run, name, "failed", broken=HERE)
    assert run.stopping
    assert run.storage_error is not None
    assert run.storage_error.startswith("cuda:1 of node here/0 broke 3 times in a row, the last time with: what was")


def test_a_worker_whose_gpu_broke_trains_nothing_more(ray_cluster: None, storage: str, tmp_path: Path) -> None:
    values = dict.fromkeys(EpochRecord.__dataclass_fields__, 0.5)

    def stand_in(config: TrialConfig, **_: Any) -> Iterator[EpochRecord]:
        (tmp_path / f"{config.seed}-{os.getpid()}").touch()
        if config.seed == 1:
            raise RuntimeError("CUDA error: device-side assert triggered")
        yield EpochRecord(**values | {"trial_id": config.trial_id, "computed_by": config.trial_id, "epoch": 1})

    asked = trials(4)
    run = a_run(storage, asked, Placement(cpus_per_trial=0.1, gpus_per_trial=1, max_concurrent=1))
    run.room = 1
    execution.run_tree(run, train=stand_in)
    statuses = [run.ledger.statuses[trial.trial_id] for trial in asked]
    assert [one.status for one in statuses] == ["completed", "failed", "completed", "completed"]
    assert statuses[1].error is not None
    assert "device-side assert triggered" in statuses[1].error
    started = [path.name.split("-") for path in tmp_path.glob("?-*")]
    assert sorted(seed for seed, _ in started) == list("0123"), "each once, the one that failed too"
    of = dict(started)
    assert of["0"] == of["1"], "a worker is kept"
    assert of["1"] not in (of["2"], of["3"])
    assert not Path(f"/proc/{of['1']}").exists(), "it has ended"


# -- GPUs that do not compute ---------------------------------------------------------------------------------------


def test_gpus_that_are_declared_and_do_not_compute_are_refused_in_a_line(ray_cluster: None) -> None:
    if torch.cuda.is_available():
        pytest.skip("they compute")
    asked = [resolve(trial) for trial in trials(1)]
    with pytest.raises(PlacementError, match=r"^a worker cannot compute on what it is granted: .*NVIDIA.*$") as refused:
        probe_there(asked, Placement(gpus_per_trial=1))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (
            "The NVIDIA driver on your system is too old (found version 11040).\nPlease update",
            "too old (found version 11040).; update the driver, or install a build of torch for its version of CUDA",
        ),
        (
            "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be",
            "on the device; this build of torch has no kernels for the architecture of that GPU: install one that has",
        ),
        ("CUDA error: unknown error", "CUDA error: unknown error"),
    ],
)
def test_what_to_do_about_it(reason: str, expected: str) -> None:
    said = _refusal(reason)
    assert said.endswith(expected)
    assert "\n" not in said

"""Training where a GPU is pretended: nothing is on a wrong device, nothing waits that need not, a resume is exact."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workloads.on_pretended_gpu import STEPS, cases
from workloads.datasets import SIZE

ROOT = Path(__file__).parents[2]
SECONDS = 300
"""Of which it takes about 20, with nothing else to do."""

COUNTED = ("to_gpu", "to_cpu", "syncs")
EPOCH = {"to_gpu": 1, "to_cpu": 0, "syncs": 2}
"""Most of an epoch's training, all its steps together: the order goes there, loss and accuracy come back."""
MORE: Mapping[str, Mapping[str, int]] = {
    "clip_norm": {"syncs": 1},
    "shift": {"to_gpu": 1},
    "flip": {"to_gpu": 1},
    "erasing": {"to_gpu": 1},
    "everything": {"to_gpu": 1, "syncs": 1},
}
"""Setting -> what an epoch has besides: the mean gradient norm comes back, what is drawn goes there."""
A_STEP: Mapping[str, int] = {"optimizer adafactor": 20, "optimizer lbfgs": 120}
"""Case -> syncs of each step besides: Adafactor asks for the size of every weight and gradient, a line search decides
by values. All other optimizers have none."""
FIRST: Mapping[str, int] = {"optimizer asgd": 10}
"""Case -> copies to the GPU in the first epoch of a training besides: ASGD's rates, one for each weight."""
EVALUATION = {"to_gpu": 0, "to_cpu": 2, "syncs": 7}
"""Most of an evaluation, all its batches together: loss, measure, and accuracies of classes come back."""

FAULTS = {
    "an operand on the CPU": "refused",
    "a result for the CPU": "refused",
    "weights on the CPU": "refused",
    "a number asked for": "syncs 1",
    "a decision by a value": "syncs 1",
    "a mask as an index": "syncs 1",
    "indices on the CPU": "to_gpu 1",
    "a tensor made from numbers": "to_gpu 1",
    "a copy": "to_gpu 1",
    "a copy back": "to_cpu 1",
    "nothing wrong": "",
}
"""Mistake that a GPU would show -> what the pretended one says."""
ON_CPU: Mapping[str, set[str]] = {"optimizer adagrad": {"step"}, "optimizer adafactor": {"step"}}
"""Case -> optimizer state that torch keeps on the CPU, fresh or resumed: plain counters, for which nobody waits."""


@cache
def seen() -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.workloads.on_pretended_gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    return found


@pytest.fixture
def of_case(request: pytest.FixtureRequest) -> Any:
    if not seen():
        pytest.skip(f"torch {torch.__version__} has no device that Python can define")
    return seen()[request.param]


@pytest.mark.parametrize("of_case", ["faults"], indirect=True)
def test_the_device_sees_what_a_gpu_would_show(of_case: dict[str, str]) -> None:
    assert of_case == FAULTS


@pytest.mark.parametrize("of_case", ["strides of moved grey images"], indirect=True)
def test_grey_images_that_are_moved_are_like_those_that_are_not(of_case: list[int]) -> None:
    assert of_case == [SIZE * SIZE, SIZE * SIZE, SIZE, 1], "other strides, other kernels"


@pytest.mark.parametrize(("name", "of_case"), [(name, name) for name, _ in cases()], indirect=["of_case"])
def test_training_on_it(name: str, of_case: dict[str, Any]) -> None:
    assert "error" not in of_case, "all operands are on one device"
    assert of_case["weights"] == ["gpu"]
    assert of_case["resumed"], "the second epoch is bitwise the same from the checkpoint of the first"
    assert of_case["tested"], "a checkpoint evaluates as its training did"

    on_cpu = ON_CPU.get(name, set())
    for state, places in of_case["places"].items():
        assert places in ([], ["cpu"] if state in on_cpu else ["gpu"]), state
    assert of_case["resumed_places"] == of_case["places"], "state stays where it is"

    more = MORE.get(name.removeprefix("setting ").partition(",")[0], {})
    besides = {"to_gpu": FIRST.get(name, 0), "syncs": STEPS * A_STEP.get(name, 0)}
    for number, epoch in enumerate(of_case["epochs"]):
        for what in COUNTED:
            most = EPOCH[what] + more.get(what, 0) + (besides.get(what, 0) if what == "syncs" or number == 0 else 0)
            assert epoch.get(what, 0) <= most, (what, of_case["epochs"])
    for what in COUNTED:
        assert of_case["evaluation"].get(what, 0) <= EVALUATION[what], what

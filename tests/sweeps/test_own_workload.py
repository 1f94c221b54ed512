"""A network and data of a user's own, swept for real: shared, killed, asked again, wider, longer, changed, wrong."""

from __future__ import annotations

import runpy
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from polars.testing import assert_frame_equal
from torch import nn

from sweeps import Result, Sweep, run
from tests.sweeps.faults import kill_driver, wait_for_records
from tests.sweeps.runs import epochs_of, measured, run_here, run_script, start, statuses, table_of, without_ray
from workloads import Workload
from workloads.errors import InputError
from workloads.registry import WORKLOADS

COUNT = 400


pytestmark = pytest.mark.usefixtures("workloads_as_before")


def load() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    x = np.random.default_rng(0).normal(size=(COUNT, 3)).astype(np.float32)
    return x, x[:, :1] * x[:, 1:2]


def build(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 1))


def sweep(network: Callable[..., nn.Module] = build) -> Sweep:
    """Two trials that share their first epoch: the step schedule lowers the rate after it."""
    return Sweep(
        name="own",
        question="Does it train?",
        workload=Workload(name="mine", network=network, data=load, loss="mse"),
        optimizers=("adam",),
        schedulers=("none", "exponential"),
        lrs=(0.01,),
        epochs=3,
    )


@pytest.mark.usefixtures("ray_cluster")
def test_asked_again_wider_longer_and_changed(storage: str) -> None:
    status, text = run_here(sweep(), storage)
    assert status == 0, text
    assert "6 trial-epochs delivered, 5 epochs trained" in text, "the first one is shared"
    trials = table_of(storage, "own")
    assert trials["workload_width"].to_list() == [8, 8]
    assert trials["dataset"].to_list() == ["mine", "mine"]
    assert trials["shared_epochs"].sum() == 1

    status, text = run_here(sweep(), storage)
    assert (status, "delivered" in text) == (0, False), "nothing is trained again"

    def with_a_comment(width: int = 8) -> nn.Module:
        """The same, said otherwise."""
        layers = [nn.Linear(3, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 1)]
        return nn.Sequential(*layers)

    status, text = run_here(sweep(with_a_comment), storage)
    assert (status, "delivered" in text) == (0, False), "nor is it after a change that changes no number"
    status, text = run_here(sweep(), storage, grid=("workload.width=8,16",), seeds=(21, 1))
    assert "18 trial-epochs delivered, 15 epochs trained" in text, "three more pairs"
    assert table_of(storage, "own").height == 8
    status, text = run_here(sweep(), storage, epochs=4, schedulers=("none",))
    assert "1 trial-epoch delivered, 1 epoch trained" in text

    def another(width: int = 8) -> nn.Module:
        return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))

    with pytest.raises(InputError, match=r"trained with different code: that of the network, .* has changed since"):
        run_here(sweep(another), storage)
    assert table_of(storage, "own").height == 1, "what is stored stays as it is"


@pytest.mark.usefixtures("ray_cluster")
def test_the_trained_network(storage: str) -> None:
    result = run(sweep(), storage_path=storage, schedulers="none")
    assert result.summary["final_val_mean_absolute_error_mean"].len() == 1, "tables say the measure"
    assert " has the lowest final validation mean absolute error, " in result.answer[0]
    (label,) = result.summary["label"]
    x, y = (torch.from_numpy(array) for array in load())
    validation = WORKLOADS["mine"].data.dataset.parts["val"].order  # type: ignore[union-attr]
    with torch.no_grad():
        error = (result.network(label)(x[validation]) - y[validation]).abs().mean().item()
    assert error == pytest.approx(result.trials["final_val_mean_absolute_error"][0], rel=1e-6)

    place = f"{storage}/own"
    del WORKLOADS["mine"]
    with pytest.raises(InputError, match=r"workload 'mine' is in a file of your own: import it from there, and load"):
        Result.load(place).network(label)
    workload = sweep().workload
    assert isinstance(workload, Workload)
    assert isinstance(Result.load(place, workload=workload).network(label), nn.Module)

    def wider(width: int = 9) -> nn.Module:
        return build(9)

    changed = Workload(name="mine", network=wider, data=load, loss="mse")
    with pytest.raises(InputError, match="the network of 'mine' has changed since"):
        Result.load(place, workload=changed).network(label)


@pytest.mark.usefixtures("ray_cluster")
def test_sharing_changes_no_bit(storage: str) -> None:
    for name, share in {"shared": True, "alone": False}.items():
        status, text = run_here(sweep(), storage, name=name, share=share, fresh=True)
        assert status == 0, text
    assert_frame_equal(measured(storage, "shared"), measured(storage, "alone"), check_exact=True)
    own = pl.col("computed_by") == pl.col("trial_id")
    assert epochs_of(storage, "shared").filter(own).height == 5
    assert epochs_of(storage, "alone").filter(own).height == 6


class Noisy(nn.Module):
    """Counts its steps where no checkpoint sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.steps = nn.Linear(3, 1), 0

    def forward(self, x):  # type: ignore[no-untyped-def]
        self.steps += self.training
        return self.layer(x) / self.steps


@pytest.mark.usefixtures("ray_cluster")
def test_what_cannot_be_exact_is_refused_or_allowed(storage: str) -> None:
    with pytest.raises(InputError, match=r"test_own_workload.py, line \d+, Noisy: mine gives other numbers when g"):
        run_here(sweep(Noisy), storage)
    short = {"schedulers": ("none",), "epochs": 1}
    for name, flag in {"a": {"allow_inexact": True}, "b": {"share": False}, "c": {"preflight": False}}.items():
        status, text = run_here(sweep(Noisy), storage, name=name, fresh=True, **short, **flag)
        assert status == 0, text
        assert statuses(storage, name) == ["completed"]


SCRIPT = """
from pathlib import Path

import numpy as np

from nets import build
from sweeps import Sweep, main
from workloads import Workload


def load():
    x = np.load(Path(__file__).with_name("x.npy"))
    return x, x[:, :1] * x[:, 1:2]


SWEEP = Sweep(
    name="s",
    question="Does it train?",
    workload=Workload(name="mine", network=build, data=load, loss="mse"),
    optimizers=("adam",),
    lrs=(0.001, 0.01),
    schedulers=("none", "exponential"),
    epochs=10,
)

if __name__ == "__main__":
    main(SWEEP)
"""
HELPER = """
from torch import nn


def build(width: int = 64) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 1))
"""


def write(folder: Path, count: int = 8_000) -> Path:
    """Writes a script, the module that it imports, and its data; returns the script."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.py").write_text(SCRIPT)
    (folder / "nets.py").write_text(HELPER)
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32))
    return folder / "mine.py"


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_killed_and_gone_on_with(tmp_path: Path, places: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file of the user's own with a module beside it, run from another folder."""
    script, storage = write(tmp_path / "files"), str(tmp_path / "results")
    process = start(script, storage, **places)
    wait_for_records(storage, 5, process)
    kill_driver(process)
    assert 0 < epochs_of(storage, "s").height < 40
    status, output, complaints = run_script(script, storage, **places)
    assert status == 0, output + complaints
    assert statuses(storage, "s") == ["completed"] * 4
    monkeypatch.syspath_prepend(script.parent)
    status, output = run_here(runpy.run_path(str(script))["SWEEP"], str(tmp_path / "undisturbed"))
    assert status == 0, output
    assert_frame_equal(measured(storage, "s"), measured(str(tmp_path / "undisturbed"), "s"), check_exact=True)


def test_the_code_travels_with_the_row(tmp_path: Path) -> None:
    """A process that has neither the script nor the module beside it builds the network."""
    script = write(tmp_path / "files", count=100)
    pack = f"""
        import runpy, sys
        sys.path.insert(0, {str(script.parent)!r})
        found = runpy.run_path({str(script)!r})
        from pathlib import Path
        from ray import cloudpickle
        from sweeps.question.sweep import plan
        from sweeps.tuning.travel import own_code_travels
        from workloads.registry import added_workloads
        plan(found["SWEEP"], found["SWEEP"].default_options())
        with own_code_travels():
            Path({str(tmp_path / "row")!r}).write_bytes(cloudpickle.dumps(added_workloads()))
    """
    unpack = f"""
        import pickle
        from pathlib import Path
        import sweeps
        from workloads.registry import WORKLOADS, resolve
        from workloads.training import build_model
        from workloads.trial import TrialConfig
        WORKLOADS.update(pickle.loads(Path({str(tmp_path / "row")!r}).read_bytes()))
        config = resolve(TrialConfig(workload="mine", workload_settings={{"width": 16}}))
        print(sum(p.numel() for p in build_model(config).parameters()), WORKLOADS["mine"].data.counts)
    """
    for code in (pack, unpack):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=without_ray(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.split("{")[0].strip() == "81"
    assert "'train': 80" in done.stdout


WRONG: Mapping[str, tuple[str, str, str]] = {
    "data": ('"x.npy"', '"y.npy"', "error: mine.py, line 12, in load: data raised FileNotFoundError: "),
    "shape": (
        "nn.Linear(3,",
        "nn.Linear(4,",
        "error: nets.py, line 5, build: the network, given inputs (16, 3), raised",
    ),
    "a tuple": ("return nn.Sequential(", "return (", "error: nets.py, line 5, build: the network must be a torch.nn"),
    "an import": (
        "return nn",
        "import nothing; return nn",
        "error: nets.py, line 6, in build: the network raised Module",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_line(mistake: str, tmp_path: Path, places: Mapping[str, str]) -> None:
    before, after, expected = WRONG[mistake]
    script = write(tmp_path / "files", count=100)
    for path in (script, script.with_name("nets.py")):
        path.write_text(path.read_text().replace(before, after))
    status, output, complaints = run_script(script, str(tmp_path / "results"), **places)
    assert status == 2, output + complaints
    (line,) = complaints.splitlines()
    assert line.startswith(expected)
    assert not (tmp_path / "results").exists(), "nothing has started"
    if mistake == "shape":
        status, output, complaints = run_script(script, str(tmp_path / "results"), "--traceback", **places)
        assert "Traceback (most recent call last)" in complaints
        assert complaints.splitlines()[-1] == line

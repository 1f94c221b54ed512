"""The examples, and the file that the README shows, in small, on a real Ray; the latter as a script."""

from __future__ import annotations

import math
import pickle
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from torchvision.datasets import cifar

from sweeps import Sweep
from tests.sweeps.runs import ROOT, epochs_of, measured, run_here, run_script, statuses, table_of

EXAMPLES = ROOT / "examples"


pytestmark = pytest.mark.usefixtures("workloads_as_before")


def sweep_of(name: str) -> Sweep:
    """Returns the question that an example asks."""
    sweep = runpy.run_path(str(EXAMPLES / f"{name}.py"))["SWEEP"]
    assert isinstance(sweep, Sweep)
    return sweep


def ran(sweep: Sweep, storage: str, **options: Any) -> str:
    """Runs a sweep to its end and returns what it printed; it has to end with status 0."""
    status, output = run_here(sweep, storage, pictures=True, **options)
    assert status == 0, output
    return output


def test_each_says_what_it_asks_and_how_to_run_it() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert scripts
    for script in scripts:
        question, _, rest = script.read_text().removeprefix('"""').partition("\n")
        assert question.endswith("?"), script
        assert f"python examples/{script.name}" in rest.partition('"""')[0], script
        assert re.search(r"About [\w ]+ (minutes?|seconds)", " ".join(rest.split())), f"how long does {script} take?"


@pytest.mark.usefixtures("ray_cluster")
def test_an_mlp_with_dropout_shares_epochs_exactly(tmp_path: Path) -> None:
    small = {"train_limit": 640, "epochs": 2, "lrs": ("0.001",), "grid": ("workload.dropout=0,0.5",)}
    shared, alone = str(tmp_path / "shared"), str(tmp_path / "alone")
    output = ran(sweep_of("mlp_dropout"), shared, **small)
    # With and without a step after the first epoch, which both share.
    assert "8 trial-epochs delivered, 6 epochs trained" in output
    ran(sweep_of("mlp_dropout"), alone, **small, share=False)
    assert statuses(shared, "mlp-dropout") == ["completed"] * 4
    assert_frame_equal(measured(shared, "mlp-dropout"), measured(alone, "mlp-dropout"), check_exact=True)
    assert _borrowed(shared, "mlp-dropout") == 2
    assert _borrowed(alone, "mlp-dropout") == 0
    losses = table_of(shared, "mlp-dropout").group_by("workload_dropout").agg(pl.col("final_val_loss").min())
    assert losses["final_val_loss"].n_unique() == 2


def _borrowed(storage: str, name: str) -> int:
    """Returns how many records of trials were computed by another trial."""
    return epochs_of(storage, name).filter(pl.col("computed_by") != pl.col("trial_id")).height


@pytest.mark.usefixtures("ray_cluster")
def test_a_gru_whose_gradients_are_clipped(tmp_path: Path) -> None:
    storage = str(tmp_path)
    ran(sweep_of("gru_text"), storage, train_limit=320, epochs=2, lrs=("0.01",))
    trials, epochs = table_of(storage, "gru-text"), epochs_of(storage, "gru-text")
    assert trials["status"].to_list() == ["completed"] * 3
    clipped = trials.filter(pl.col("workload_clip_norm").is_not_null())["trial_id"]
    assert len(clipped) == 2
    norms = epochs.filter(pl.col("trial_id").is_in(clipped.implode()))["grad_norm"]
    assert norms.null_count() == 0
    assert min(norms) > 0
    assert epochs["grad_norm"].null_count() == 2, "nothing was clipped in the third"
    assert epochs["val_loss"].n_unique() == 6, "clipping has an effect"
    # A guess among 128 characters costs log(128), and the second epoch is better than the first.
    last = epochs.filter(pl.col("epoch") == 2)
    assert max(last["val_loss"]) < 0.8 * math.log(128)
    assert max(last["val_loss"]) < min(epochs.filter(pl.col("epoch") == 1)["val_loss"])


@pytest.mark.usefixtures("ray_cluster")
def test_a_regression_on_a_csv(tmp_path: Path) -> None:
    storage = str(tmp_path)
    ran(sweep_of("csv_regression"), storage, epochs=5, lrs=("0.01",), seeds=(1,))
    assert statuses(storage, "csv-regression") == ["completed"] * 4
    last = epochs_of(storage, "csv-regression").filter(pl.col("epoch") == 5)
    target = np.loadtxt(EXAMPLES / "friedman.csv", delimiter=",", skiprows=1)[:, -1]
    assert max(last["val_loss"]) < target.var(), "better than the mean of the targets"
    # The mean absolute error is at most the root of the mean squared error, which is the loss.
    for error, loss in last.select("val_accuracy", "val_loss").iter_rows():
        assert 0 < error <= math.sqrt(loss)


def test_the_csv_is_made_as_its_example_says() -> None:
    found = np.loadtxt(EXAMPLES / "friedman.csv", delimiter=",", skiprows=1)
    random = np.random.default_rng(0)
    x, noise = random.uniform(size=(1500, 10)), random.normal(size=1500)
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4] + noise
    # As rounded to four digits, the inputs before the target is computed.
    np.testing.assert_allclose(found[:, :-1], x, atol=0.5001e-4)
    np.testing.assert_allclose(found[:, -1], y, atol=5e-3)


@pytest.mark.usefixtures("ray_cluster")
def test_a_resnet_on_files_in_the_layout_of_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision reads made-up files, as the real ones cannot be downloaded here; all else is the example's."""
    random = np.random.default_rng(0)
    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        labels = np.arange(80) % 10
        images = random.integers(0, 60, (80, 3 * 32 * 32)) + 20 * labels[:, None]  # a class is a brightness
        content = {"data": images.astype(np.uint8), "labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(content))
    classes = [f"brightness {number}" for number in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}))
    shutil.copy(EXAMPLES / "resnet_cifar10.py", tmp_path)
    monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)  # the files are made up
    storage = str(tmp_path / "results")
    ran(runpy.run_path(str(tmp_path / "resnet_cifar10.py"))["SWEEP"], storage, epochs=4, batch_size=20, lrs=("0.01",))
    trials = table_of(storage, "resnet-cifar10")
    assert trials["status"].to_list() == ["completed"] * 2
    assert set(trials["optimizer"]) == {"adamw", "sgd_momentum"}
    accuracies = epochs_of(storage, "resnet-cifar10")["test_accuracy"].drop_nulls()
    assert max(accuracies) > 0.2, f"twice as good as a guess: {accuracies.to_list()}"


def test_the_file_in_the_readme(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "import Workload" in code)
    assert len(code.splitlines()) <= 25
    (tmp_path / "mine.py").write_text(code)
    storage = str(tmp_path / "results")
    status, output, complaints = run_script(tmp_path / "mine.py", storage, "--epochs", "2")
    assert (status, complaints) == (0, ""), output + complaints
    assert set(statuses(storage, "mine")) == {"completed"}
    assert re.search(r"^ *1 +(adam|sgd_momentum), lr ", output, re.MULTILINE), output
    assert "report.html" in output

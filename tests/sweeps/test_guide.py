"""The features of a training guide in whole sweeps: imbalance, data sets, checks before the start, kept checkpoints."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from sweeps.ledger.library import ConflictError
from sweeps.question.grid import axis, chain, product
from sweeps.question.options import Keep
from sweeps.question.sweep import Sweep, plan
from tests.sweeps.runs import epochs_of, run_here, table_of
from workloads import datasets, preflight
from workloads.datasets import SYNTHETIC, DataError
from workloads.evaluate import check_accuracy, load_state
from workloads.training import Images

BALANCES = ("none", "oversample", "class_weights")
IMBALANCE = Sweep(
    name="imbalance",
    question="What helps when a class is rare?",
    grid=product(
        axis("workload", "lenet_synthetic"),
        axis("workload.thin_classes", (0, 1)),
        axis("workload.thin_to", 0.03),
        axis("workload.balance", *BALANCES),
    ),
    optimizers=("adam",),
    lrs=(0.002,),
    epochs=2,
)


@pytest.fixture(scope="module")
def imbalance(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[str, str]:
    """The sweep of the three ways to deal with rare classes: where it is, and what it printed."""
    storage = str(tmp_path_factory.mktemp("imbalance"))
    status, text = run_here(IMBALANCE, storage)
    assert status == 0, text
    return storage, text


def test_rare_classes_are_learned_once_they_are_shown_or_weighed(imbalance: tuple[str, str]) -> None:
    trials = table_of(imbalance[0], "imbalance")
    found = dict(trials.select("workload_balance", "final_balanced_accuracy").iter_rows())
    assert set(found) == set(BALANCES)
    assert found["oversample"] > found["none"] + 0.1
    assert found["class_weights"] > found["none"] + 0.1


def test_accuracies_by_class_are_recorded(imbalance: tuple[str, str]) -> None:
    epochs = epochs_of(imbalance[0], "imbalance")
    assert epochs["val_balanced_accuracy"].null_count() == 0
    for row in epochs.iter_rows(named=True):
        by_class = json.loads(row["val_class_accuracy"])
        assert len(by_class) == 4
        assert np.mean(by_class) == pytest.approx(row["val_balanced_accuracy"])
        tested = row["epoch"] == 2
        assert (row["test_balanced_accuracy"] is not None) is tested is (row["test_class_accuracy"] is not None)
    published = table_of(imbalance[0], "imbalance", "epochs")
    assert published["val_class_accuracy"].null_count() == 0
    assert published["grad_norm"].null_count() == published.height, "nothing was clipped"


def test_the_checks_before_the_start_say_what_they_saw(imbalance: tuple[str, str]) -> None:
    assert "preflight: initial loss" in imbalance[1]
    storage, _ = imbalance
    _, again = run_here(IMBALANCE, storage)
    assert "preflight:" not in again, "nothing is to be trained"


@pytest.mark.usefixtures("ray_cluster")
def test_a_check_that_warns_does_not_stop_the_sweep_and_can_be_left_out(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def report(config: Any, data: Any) -> list[str]:
        calls.append(data.name)
        return ["preflight: odd"]

    monkeypatch.setattr(preflight, "report", report)
    sweep = Sweep(name="one", question="?", grid=axis("workload", "lenet_synthetic"), lrs=(0.01,), epochs=1)
    status, text = run_here(sweep, storage, preflight=False)
    assert (status, calls) == (0, [])
    status, text = run_here(sweep, storage, lrs=(0.01, 0.02))
    assert (status, calls) == (0, ["synthetic"])
    assert "preflight: odd" in text


# -- data sets ------------------------------------------------------------------------------------------------------

ONE = Sweep(name="one", question="?", lrs=(0.01,), epochs=1)


def _options(**changes: Any) -> Any:
    return replace(ONE.default_options(), **changes)


def test_a_data_set_by_name() -> None:
    (trial,) = plan(ONE, _options(dataset="cifar10")).trials
    assert trial.workload == "lenet_cifar10"
    assert trial == plan(ONE, _options(dataset="cifar10", data_root="elsewhere")).trials[0], "where is not what"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dataset": "minst"},
            r"unknown data set 'minst' \(did you mean 'mnist'\?\); known: fashion_mnist, mnist, .*, csv:PATH",
        ),
        ({"dataset": "mnist", "grid": ("workload=lenet_usps",)}, "axis 'workload' is given twice"),
    ],
)
def test_data_sets_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(ONE, _options(**options))


def test_a_csv_is_the_same_by_flag_and_as_an_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["file,label"]
    for number in range(30):
        Image.new("L", (16, 16), 40 + 150 * (number % 2)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'dark' if number % 2 == 0 else 'light'}")
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    plans = [
        plan(ONE, _options(batch_size=8, **options)).trials
        for options in (
            {"dataset": "csv:a.csv"},
            {"dataset": "csv:~/a.csv"},
            {"grid": ("workload=lenet_csv", "workload.path=a.csv")},
            {"grid": ("workload=lenet_csv", f"workload.path={tmp_path}/a.csv,./a.csv,~/a.csv")},
        )
    ]
    assert all(trials == plans[0] for trials in plans)
    assert [trial.workload_settings["path"] for trial in plans[0]] == [str(tmp_path / "a.csv")]
    both = plan(ONE, _options(batch_size=8, grid=("workload=lenet_csv", "workload.path=a.csv,b.csv"))).trials
    assert [trial.workload_settings["path"] for trial in both] == [str(tmp_path / name) for name in ("a.csv", "b.csv")]


def test_data_that_is_not_there_is_said_before_anything_starts(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(DataError, match=r"^data set 'kmnist' needs files that are not in .*: KMNIST/raw/train-images"):
        run_here(ONE, storage, dataset="kmnist", data_root=f"{storage}/data")
    assert not (Path(storage) / "one").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_a_sweep_on_ones_own_images(storage: str, tmp_path: Path) -> None:
    lines = []
    for number in range(60):
        Image.new("L", (16, 16), 40 + 150 * (number % 2)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'dark' if number % 2 == 0 else 'light'}")
    (tmp_path / "own.csv").write_text("\n".join(["file,label", *lines]))
    options = {"dataset": f"csv:{tmp_path / 'own.csv'}", "batch_size": 8}
    status, text = run_here(ONE, storage, **options)
    assert status == 0, text
    trials = table_of(storage, "one")
    assert trials["dataset"].to_list() == ["csv"]
    assert trials["workload_path"].to_list() == [str(tmp_path / "own.csv")]
    Image.new("L", (16, 16), 0).save(tmp_path / "1.png")
    with pytest.raises(ConflictError, match="holds the trial, trained on different data"):
        run_here(ONE, storage, **options)


# -- checkpoints ----------------------------------------------------------------------------------------------------

FORKING = Sweep(
    name="forking",
    question="Which files stay?",
    grid=product(
        axis("workload", "lenet_synthetic"),
        chain(
            axis("scheduler", "none"),
            product(axis("scheduler", "step"), axis("scheduler.step_size", 2)),
            product(axis("scheduler", "plateau"), axis("scheduler.patience", 3, 4)),
        ),
    ),
    # So high that the last epoch is not the best of all trials.
    optimizers=("sgd_momentum",),
    lrs=(0.05,),
    epochs=4,
)


def _files(storage: str) -> set[str]:
    folder = Path(storage) / "forking"
    return {str(path.relative_to(folder)) for path in folder.glob("checkpoints/*/*")}


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("keep", ["none", "best", "all"])
def test_kept_checkpoints(keep: Keep, storage: str) -> None:
    status, text = run_here(FORKING, storage, keep_checkpoints=keep, preflight=False)
    assert status == 0, text
    trials, epochs = table_of(storage, "forking"), epochs_of(storage, "forking")
    named = set(trials["checkpoint"].drop_nulls()) | set(trials["best_checkpoint"].drop_nulls())
    if keep == "none":
        assert _files(storage) == named == set()
        return
    assert trials["checkpoint"].null_count() == trials["best_checkpoint"].null_count() == 0
    trained = len(epochs.unique(("computed_by", "epoch")))
    assert trained < len(epochs), "some epochs are shared"
    if keep == "all":
        assert len(_files(storage)) == trained
        assert named < _files(storage)
    else:
        assert _files(storage) == named
    images = Images(datasets.load(SYNTHETIC), torch.device("cpu"))
    for trial in trials.iter_rows(named=True):
        rows = epochs.filter(pl.col("trial_id") == trial["trial_id"])
        for column, epoch in (("checkpoint", 4), ("best_checkpoint", trial["best_epoch"])):
            row = rows.row(by_predicate=pl.col("epoch") == epoch, named=True)
            assert row["computed_by"] in trial[column], "a follower's is its leader's"
            state = load_state(Path(storage) / "forking" / trial[column])
            assert state.epoch == epoch
            found = check_accuracy(state, images)["val"]
            assert (found.loss, found.accuracy) == (row["val_loss"], row["val_accuracy"])

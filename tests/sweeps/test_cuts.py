"""Cuts on a real Ray: every epoch is trained once, the numbers are those of training alone, and there is an answer."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from sweeps.question.grid import axis, chain, product
from sweeps.question.sweep import Sweep
from tests.sweeps.runs import epochs_of, measured, run_here, table_of

pytestmark = pytest.mark.usefixtures("ray_cluster")

EPOCHS, SEEDS, FACTORS = 4, (1, 2), (0.1, 0.5)
CUTS = Sweep(
    name="cuts",
    question="When should the learning rate be cut?",
    workload="lenet_synthetic",
    lrs=(0.01,),
    epochs=EPOCHS,
    seeds=SEEDS,
    grid=product(
        axis("workload.label_smoothing", 0.1),  # losses of exactly 0 would tell no training from another
        chain(
            axis("scheduler", "none"),
            product(
                axis("scheduler", "cut"), axis("scheduler.factor", *FACTORS), axis("scheduler.after_epoch", 1, 2, 3)
            ),
        ),
    ),
)


@pytest.fixture(scope="module")
def storages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The sweep, run with and without sharing, in storage paths of their own."""
    found = {}
    for name, share in (("shared", True), ("alone", False)):
        found[name] = str(tmp_path_factory.mktemp(name))
        status, text = run_here(CUTS, found[name], share=share, max_concurrent=None, pictures=share)
        assert status == 0, text
    return found


def trained(storage: str) -> pl.DataFrame:
    return epochs_of(storage, "cuts").filter(pl.col("computed_by") == pl.col("trial_id"))


def test_no_epoch_is_trained_twice(storages: dict[str, str]) -> None:
    """A seed's trunk takes 4 epochs, and each factor's branches 3 + 2 + 1 more; alone, 7 trials take 4 each."""
    assert trained(storages["shared"]).height == len(SEEDS) * (4 + len(FACTORS) * (3 + 2 + 1))
    assert trained(storages["alone"]).height == len(SEEDS) * (1 + len(FACTORS) * 3) * 4
    assert trained(storages["shared"]).select("epoch", "train_loss", "val_loss").is_unique().all()


def test_shared_and_alone_are_bitwise_equal(storages: dict[str, str]) -> None:
    shared, alone = (measured(storages[name], "cuts") for name in ("shared", "alone"))
    assert_frame_equal(shared, alone, check_exact=True)


def test_branches_are_their_trunk_until_they_are_cut(storages: dict[str, str]) -> None:
    trials = table_of(storages["alone"], "cuts").select("trial_id", "seed", "scheduler", "scheduler_after_epoch")
    rows = epochs_of(storages["alone"], "cuts").join(trials, on="trial_id")
    trunk = rows.filter(scheduler="none").select("seed", "epoch", trunk_loss="train_loss")
    branches = rows.filter(scheduler="cut").join(trunk, on=["seed", "epoch"])
    same = pl.col("train_loss") == pl.col("trunk_loss")
    assert branches.filter(same != (pl.col("epoch") <= pl.col("scheduler_after_epoch"))).is_empty()


def test_there_is_an_answer_and_a_picture(storages: dict[str, str]) -> None:
    _, text = run_here(CUTS, storages["shared"])
    for factor in FACTORS:
        assert f"Cut by {factor:g}, the best moment is after epoch" in text
    assert (Path(storages["shared"]) / "cuts" / "plots" / "cuts.png").is_file()

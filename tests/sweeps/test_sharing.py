"""Sharing on a real Ray: the numbers are those of training every trial alone, for fewer epochs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from analysis.store import SweepStore
from sweeps.question.grid import axis, chain, product
from sweeps.question.sweep import Sweep
from tests.sweeps.runs import epochs_of, measured, run_here, table_of

pytestmark = pytest.mark.usefixtures("ray_cluster")

FIXED = ("none", "step", "multi_step", "exponential", "one_cycle")
PLATEAUS = product(
    axis("scheduler", "plateau"),
    axis("scheduler.patience", 0, 1),
    axis("scheduler.threshold", 0.5),
    axis("scheduler.factor", 0.1, 0.5),
)
MIXED = Sweep(
    name="mixed",
    question="Does sharing change anything?",
    optimizers=("sgd_momentum", "adam"),
    grid=chain(axis("scheduler", *FIXED), PLATEAUS),
    lrs=(0.01,),
    seeds=(1, 2),
    epochs=4,
)
STRIPES: dict[str, Any] = {"grid": ("workload=lenet_synthetic", "workload.label_smoothing=0.1")}
"""Smoothed, as losses of exactly 0 would tell no training from another."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(STRIPES, id="synthetic"),
        pytest.param({"train_limit": 640}, id="fashion_mnist", marks=pytest.mark.slow),
    ],
)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What is trained on."""
    chosen: dict[str, Any] = request.param
    return chosen


@pytest.fixture(scope="module")
def storages(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The mixed sweep, run with and without sharing, in storage paths of their own."""
    found = {}
    for name, share in (("shared", True), ("alone", False)):
        found[name] = str(tmp_path_factory.mktemp(name))
        status, text = run_here(MIXED, found[name], share=share, max_concurrent=None, **options)
        assert status == 0, text
    return found


def test_shared_and_alone_are_bitwise_equal(storages: dict[str, str]) -> None:
    shared, alone = (measured(storages[name], "mixed") for name in ("shared", "alone"))
    assert len(alone) == 2 * 2 * 9 * 4
    assert_frame_equal(shared, alone, check_exact=True)


def test_the_plateau_schedules_really_forked(storages: dict[str, str]) -> None:
    trials = table_of(storages["shared"], "mixed").filter(pl.col("scheduler") == "plateau")
    assert trials["lr_reductions"].n_unique() > 1


def test_every_epoch_was_trained_once_and_the_accounts_add_up(storages: dict[str, str]) -> None:
    epochs, trials = epochs_of(storages["shared"], "mixed"), table_of(storages["shared"], "mixed")
    own = epochs.filter(pl.col("computed_by") == pl.col("trial_id"))
    # Different training means different results: as many distinct results as epochs trained.
    key = ["epoch", "train_loss", "val_loss"]
    assert len(own) == len(epochs.unique(key)) < len(epochs)
    assert trials["shared_epochs"].sum() == len(epochs) - len(own)
    assert trials["computed_seconds"].sum() == pytest.approx(own["train_seconds"].sum())
    assert table_of(storages["alone"], "mixed")["shared_epochs"].sum() == 0


def test_only_final_checkpoints_are_left_and_each_trial_knows_its_own(storages: dict[str, str]) -> None:
    folder = Path(storages["shared"]) / "mixed"
    named = set(table_of(storages["shared"], "mixed")["checkpoint"])
    assert None not in named
    assert {str(path.relative_to(folder)) for path in folder.glob("checkpoints/*/*")} == named


def test_a_finished_sweep_trains_nothing_and_says_so(storages: dict[str, str], options: dict[str, Any]) -> None:
    before = epochs_of(storages["shared"], "mixed")
    status, text = run_here(MIXED, storages["shared"], max_concurrent=None, **options)
    assert status == 0
    assert "everything is done: nothing to train" in text
    assert_frame_equal(epochs_of(storages["shared"], "mixed"), before)


def test_a_sibling_takes_over_what_is_completed(storages: dict[str, str], options: dict[str, Any]) -> None:
    sibling = Sweep(
        name="sibling",
        question="And with momentum only?",
        schedulers=("none", "cosine"),
        lrs=(0.01,),
        epochs=4,
        seeds=(1,),
    )
    status, text = run_here(sibling, storages["shared"], **options)
    assert status == 0
    assert "taken over from mixed: 1 trial\n" in text
    trials = table_of(storages["shared"], "sibling")
    taken = trials.row(by_predicate=pl.col("scheduler") == "none", named=True)
    assert (taken["taken_from"], taken["shared_epochs"], taken["computed_seconds"]) == ("mixed", 4, 0.0)
    here, there = (
        measured(storages["shared"], name).filter(trial_id=taken["trial_id"]) for name in ("sibling", "mixed")
    )
    assert_frame_equal(here, there, check_exact=True)
    own = epochs_of(storages["shared"], "sibling").filter(pl.col("computed_by") == pl.col("trial_id"))
    assert "4 epochs trained" in text, "the one taken over leaves its final weights, and none to fork from"
    assert len(own) == 3, "but the first epoch of cosine has its record from there"
    assert taken["checkpoint"] in SweepStore(storages["shared"], "sibling").files()


def test_widening_trains_only_what_is_missing_and_the_way_there_once(storage: str) -> None:
    sweep = Sweep(name="growing", question="Longer, and with others?", schedulers=("none",), lrs=(0.01,), epochs=4)
    assert run_here(sweep, storage, **STRIPES)[0] == 0
    first = epochs_of(storage, "growing")
    wider = {"grid": ("epochs=4,6", *STRIPES["grid"]), "schedulers": ("none", "step", "multi_step")}
    status, text = run_here(sweep, storage, **wider)
    assert status == 0
    assert run_here(replace(sweep, name="anew"), storage, fresh=True, **wider)[0] == 0
    assert_frame_equal(measured(storage, "growing"), measured(storage, "anew"), check_exact=True)
    assert_frame_equal(epochs_of(storage, "growing").filter(trial_id=first["trial_id"][0]), first)

    distinct = epochs_of(storage, "anew").join(table_of(storage, "anew").select("trial_id", "scheduler"), on="trial_id")
    distinct = distinct.group_by("epoch", "train_loss").agg(pl.col("scheduler").n_unique())
    known = distinct.join(first, on=("epoch", "train_loss"), how="semi")
    # The longer one goes on from the checkpoint at the end; where the others fork there is none any more.
    way = known.filter(pl.col("scheduler") > 1).height
    assert (known.height, way) == (4, 3)
    assert f"{distinct.height - known.height + way} epochs trained" in text

"""Seeds of their own for initial weights and order: trunks are shared, forks are exact, and nothing is a seed twice."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from sweeps.ledger.ledger import sharing_group
from sweeps.luck import SWEEP
from sweeps.question.grid import axis, chain, product
from sweeps.question.race import check_race
from sweeps.question.sweep import Plan, Sweep, plan
from tests.sweeps.runs import epochs_of, measured, run_here, table_of
from workloads.errors import InputError
from workloads.registry import resolve
from workloads.schedulers import Applied
from workloads.trial import TrialConfig

GRID = product(
    chain(
        product(axis("init_seed", 1, 2), axis("seed", 1, 2)),
        product(axis("init_seed", 1), axis("seed", 1), axis("order_seed", 7, 8), axis("reorder_from", 2, 3)),
        # Said otherwise, the same as init_seed 2, seed 1.
        product(axis("seed", 2), axis("order_seed", 1)),
    ),
    axis("per_image", True),
    axis("workload.label_smoothing", 0.1),  # losses of exactly 0 would tell no training from another
)
SMALL = Sweep(
    name="small",
    question="When?",
    workload="lenet_synthetic",
    optimizers=("adam",),
    lrs=(0.001,),
    epochs=4,
    grid=GRID,
)


def planned(sweep: Sweep, **options: object) -> Plan:
    return plan(sweep, replace(sweep.default_options(), **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def storages(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The small sweep, with and without sharing."""
    found = {}
    for name, share in (("shared", True), ("alone", False)):
        found[name] = str(tmp_path_factory.mktemp(name))
        status, text = run_here(SMALL, found[name], share=share, train_limit=320, max_concurrent=None, pictures=share)
        assert status == 0, text
    return found


def test_forks_are_the_training_they_are_alone_bit_for_bit(storages: dict[str, str]) -> None:
    shared, alone = (
        measured(storages[name], "small").join(
            epochs_of(storages[name], "small").select("trial_id", "epoch", "val_right"), on=("trial_id", "epoch")
        )
        for name in ("shared", "alone")
    )
    assert len(alone) == 9 * 4
    assert_frame_equal(shared, alone, check_exact=True)


def test_no_epoch_is_trained_twice(storages: dict[str, str]) -> None:
    epochs = epochs_of(storages["shared"], "small")
    own = epochs.filter(pl.col("computed_by") == pl.col("trial_id"))
    # Four crossed trainings of 4 epochs, of which one is asked for twice, and forks of 3 and of 2 epochs, two each.
    assert len(own) == 4 * 4 + 2 * 3 + 2 * 2
    assert len(epochs.unique(["epoch", "train_loss", "val_loss"])) == len(own)


def test_a_fork_is_its_trunk_until_it_forks_and_not_after(storages: dict[str, str]) -> None:
    trials = table_of(storages["shared"], "small")
    losses = dict(epochs_of(storages["shared"], "small").group_by("trial_id").agg("train_loss").iter_rows())
    one = trials.filter(init_seed=1, seed=1)
    (trunk,) = one.filter(pl.col("reorder_from").is_null())["trial_id"]
    for trial_id, begins in one.drop_nulls("reorder_from").select("trial_id", "reorder_from").iter_rows():
        same = [a == b for a, b in zip(losses[trunk], losses[trial_id], strict=True)]
        assert same == [epoch < begins for epoch in range(1, 5)]


def test_the_bits_are_the_accuracy(storages: dict[str, str]) -> None:
    from analysis.luck import unpacked

    epochs = epochs_of(storages["shared"], "small")
    for text, accuracy in epochs.select("val_right", "val_accuracy").iter_rows():
        assert unpacked(text).mean() == pytest.approx(accuracy, abs=1e-12)


def test_seeds_are_counted_by_trunk(storages: dict[str, str]) -> None:
    summary = table_of(storages["shared"], "small", "summary")
    forks = summary.filter(pl.col("reorder_from").is_not_null())
    assert forks["n"].to_list() == [1] * 4
    assert forks["rank"].to_list() == [None] * 4
    assert summary.filter(pl.col("order_seed").is_null()).sort("init_seed")["n"].to_list() == [2, 2]


# -- what is asked --------------------------------------------------------------------------------------------------


def test_the_default_question_is_what_its_page_says() -> None:
    found = planned(SWEEP).trials
    assert len(found) == 48
    assert len({(t.weights_seed, t.batches_seed(1)) for t in found}) == 16
    orders = [t.order_seed for t in found if t.reorder_from == 4]
    assert len(set(orders)) == len(orders) == 8, "no two trunks go on in the same order"
    # Crossed from the start; of forks only what comes after.
    distinct = {
        (t.weights_seed, *(t.batches_seed(e) for e in range(1, epoch + 1))) for t in found for epoch in range(1, 9)
    }
    assert len(distinct) == 16 * 8 + 4 * 2 * (7 + 5 + 3 + 1) == 256


def test_what_a_trial_applies_says_which_order_it_uses() -> None:
    trunk = resolve(TrialConfig(seed=3, init_seed=1, epochs=4))
    fork = resolve(trunk.replace(order_seed=9, reorder_from=3))
    same = [Applied(trial, 10) for trial in (trunk, fork)]
    found = []
    for _ in range(4):
        one, other = (applied.next_epoch() for applied in same)
        found.append(one == other)
        for applied in same:
            applied.observe({})
    assert found == [True, True, False, False]
    assert sharing_group(trunk) == sharing_group(fork) == sharing_group(trunk.replace(seed=1, init_seed=None))
    assert sharing_group(trunk) != sharing_group(trunk.replace(init_seed=2))
    assert sharing_group(trunk) != sharing_group(trunk.replace(per_image=True))


def test_a_seed_that_determines_nothing_makes_no_second_trial() -> None:
    both = replace(SMALL, grid=product(axis("init_seed", 1), axis("order_seed", 2)))
    found = planned(both, more_seeds=3)
    assert len(found.trials) == 1
    assert found.notes == ("the seed has no effect on trials with both init_seed and order_seed",)
    with pytest.raises(InputError, match=r"^--decide adds seeds, which have no effect on trials with both init_seed"):
        check_race(found, replace(both.default_options(), decide=True))


def test_forks_are_not_raced() -> None:
    forks = replace(SMALL, grid=product(axis("order_seed", 1, 2), axis("reorder_from", 2)))
    with pytest.raises(InputError, match=r"^--decide compares trainings from their start: leave out reorder_from"):
        check_race(planned(forks), replace(forks.default_options(), decide=True))


def test_what_makes_no_sense_is_said() -> None:
    late = replace(SMALL, grid=product(axis("order_seed", 7), axis("reorder_from", 2, 9)))
    found = planned(late)
    assert found.left_out == {"reorder_from must be at most the trial's 4 epochs, not 9": 1}
    with pytest.raises(InputError, match=r"^reorder_from 2 asks for another order .*: say which with order_seed"):
        planned(replace(SMALL, grid=axis("reorder_from", 2)))

"""Luck: components by hand, what forks say and what they are not, and sentences that say so."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from handmade import Run, handmade
from lucky import lucky, trained
from polars.testing import assert_frame_equal
from scipy.stats import chi2
from synthetic import synthetic_sweep

from analysis.aggregate import summarise
from analysis.answer import answer
from analysis.luck import EPOCHS, IMAGES, SEEDS, Luck, Purchase, in_sentences, lucks, unpacked
from analysis.next_steps import next_steps
from analysis.plots import PLOTS
from analysis.plots import luck as picture
from analysis.statistics.components import BOTH, ORDER, WEIGHTS, Chance, Estimate, estimate, mean_squares
from workloads.measure import ACCURACY
from workloads.trial import TrialConfig, packed

CROSSED = {(1, 1): 0.80, (1, 2): 0.82, (2, 1): 0.84, (2, 2): 0.90}
"""(initial weights, order) -> accuracy. Mean squares by hand: weights 0.0036, orders 0.0016, the rest 0.0004."""
BY_HAND = {trained(*key): Run([0.5, 0.6, 0.7, value]) for key, value in CROSSED.items()}
FORKS = {trained(1, 1, (3, 11)): Run([0.5, 0.6, 0.7, 0.82]), trained(1, 1, (3, 12)): Run([0.5, 0.6, 0.7, 0.84])}
"""Two forks of a trunk that ends at 0.80: deviations -0.02, 0 and 0.02 from their mean."""


def only(runs: dict[TrialConfig, Run]) -> Luck:
    (found,) = lucks(handmade(runs))
    return found


def test_mean_squares_by_hand() -> None:
    table = np.array(list(CROSSED.values())).reshape(2, 2)
    assert mean_squares(table) == pytest.approx((0.0036, 0.0016, 0.0004))
    several = mean_squares(np.stack([table, 10 * table], axis=2))
    assert np.stack(several)[:, 1] == pytest.approx(100 * np.array([0.0036, 0.0016, 0.0004]))


def test_components_by_hand() -> None:
    found = only(BY_HAND | FORKS)
    # (0.0036 - 0.0004) / 2, (0.0016 - 0.0004) / 2 and 0.0004
    whole = 0.0016 + 0.0006 + 0.0004
    assert found.deviation.value == pytest.approx(math.sqrt(whole))
    values = {name: share.value for name, share in found.shares.items()}
    assert values == pytest.approx({WEIGHTS: 0.0016 / whole, ORDER: 0.0006 / whole, BOTH: 0.0004 / whole})
    assert (found.weights, found.orders, found.left_out, found.mean) == (2, 2, 0, pytest.approx(0.84))
    start, after = found.open
    assert (start.epoch, start.share.value) == (0, pytest.approx(0.001 / whole))
    assert (after.epoch, after.trunks, after.forks, after.share.value) == (2, 1, 2, pytest.approx(0.0004 / whole))
    assert (start.deviation.value, after.deviation.value) == pytest.approx((math.sqrt(0.001), 0.02))


def test_an_interval_of_a_mean_square_is_that_of_its_chi_square() -> None:
    found = estimate(Chance().expectation(3.0, 8))
    assert found.value == 3.0
    assert found[1:] == pytest.approx((24 / chi2.ppf(0.975, 8), 24 / chi2.ppf(0.025, 8)), rel=0.05)


def test_the_same_data_give_the_same_intervals() -> None:
    assert only(BY_HAND | FORKS) == only(BY_HAND | FORKS)


def test_forks_are_no_trainings_from_the_start() -> None:
    """Whatever they come to, nothing changes but what is open where they fork."""
    without, with_them = only(BY_HAND), only(BY_HAND | FORKS)
    assert replace(with_them, open=with_them.open[:1]) == replace(without, open=without.open[:1])
    assert len(with_them.open) == 2


def test_forks_are_counted_as_seeds_nowhere() -> None:
    crossed = {
        trained(i, s): Run([0.5, 0.6, 0.7, 0.8 + 0.01 * i + 0.002 * (i * s % 5)]) for i in (1, 2) for s in range(5)
    }
    forks = {
        trained(i, s, (4, order)): Run([0.5, 0.6, 0.7, 0.8 + 0.01 * i + 0.001 * order])
        for i in (1, 2)
        for s in range(3)
        for order in (6, 7)
    }
    without, with_them = (summarise(handmade(runs)) for runs in (crossed, crossed | forks))
    assert without["n"].to_list() == [5, 5]
    trunks = with_them.filter(pl.col("reorder_from").is_null())
    there = [name for name in without.columns if name not in ("label", "configuration", "same_as")]
    assert_frame_equal(trunks.select(there), without.select(there))
    others = with_them.filter(pl.col("reorder_from").is_not_null())
    assert (others["n"] == 3).all(), "of which each is another trunk"
    assert {others[name].null_count() for name in ("position", "rank", "verdict")} == {4} == {others.height}
    assert not others["best_of_group"].any()


def test_the_same_training_said_otherwise_counts_once() -> None:
    plain = {
        TrialConfig(seed=1, epochs=4): Run([0.5, 0.6, 0.7, CROSSED[1, 1]]),
        TrialConfig(seed=2, order_seed=1, epochs=4): Run([0.5, 0.6, 0.7, CROSSED[2, 1]]),
    }
    assert only(BY_HAND | plain) == only(BY_HAND)


def test_what_is_not_crossed_is_left_out_and_said() -> None:
    runs = BY_HAND | {trained(3, 1): Run([0.5, 0.6, 0.7, 0.99]), trained(3, 2): Run([0.1], status="diverged")}
    found = only(runs)
    assert replace(found, left_out=0) == only(BY_HAND)
    assert found.left_out == 2
    assert list(in_sentences(found, ACCURACY))[-1].endswith("every order: 2 trainings.")


def test_each_configuration_has_its_own_luck() -> None:
    sweep = lucky(lrs=(0.001, 0.01))
    one, other = lucks(sweep)
    assert (one.label, other.label) == ("lr 0.001", "lr 0.01")
    assert one.deviation != other.deviation
    assert lucks(lucky(lrs=(0.001,)))[0] == replace(one, label="")


def test_without_crossed_trainings_nothing_is_known() -> None:
    assert lucks(synthetic_sweep(seeds=(1, 2, 3)).data) == (), "a sweep that is not about luck"
    some = handmade({trained(1, 1): BY_HAND[trained(1, 1)], trained(2, 1): BY_HAND[trained(2, 1)]})
    assert lucks(some) == ()
    assert answer(some, summarise(some))[0].startswith("Nothing can be said about luck yet: it takes two initial")


# -- images ---------------------------------------------------------------------------------------------------------


def test_bits_there_and_back() -> None:
    assert packed([True, False, False, False, False, False, False, True, True]) == "9:gYA="  # 0x81 0x80
    for count in (1, 7, 8, 9, 5000):
        bits = np.random.default_rng(count).random(count) < 0.5
        assert (unpacked(packed(bits.tolist())) == bits).all()


def test_images_that_all_trainings_agree_on_make_no_noise() -> None:
    bits = {key: [True] * 80 + [False] * 20 for key in CROSSED}
    runs = {trained(*key): replace(BY_HAND[trained(*key)], right=[bits[key]] * 4) for key in CROSSED}
    images = only(runs).images
    assert images is not None
    assert (images.count, images.share.value, images.deviation) == (100, 0.0, 0.0)


def test_where_trainings_differ_by_chance_the_images_make_all_of_the_spread() -> None:
    random = np.random.default_rng(3)
    chances = np.linspace(0.5, 1, 2000)
    right = {trained(i, s): random.random(2000) < chances for i in range(4) for s in range(4)}
    images = only({t: Run([0.5, float(r.mean())], right=[r.tolist()] * 2) for t, r in right.items()}).images
    assert images is not None
    assert images.share.high == 1
    # Of a mean of independent draws
    assert images.deviation == pytest.approx(math.sqrt(np.mean(chances * (1 - chances)) / 2000), rel=0.1)


# -- in words -------------------------------------------------------------------------------------------------------


def test_the_answer_of_a_question_about_luck() -> None:
    sweep = handmade(BY_HAND | FORKS)
    sentences = answer(sweep, summarise(sweep))
    assert sentences[0].startswith(
        "Trainings that differ in nothing but luck end with a validation accuracy of 0.8400 on average, with a "
        "standard deviation of 0.0510 (95% interval 0.0"
    )
    assert sentences[0].endswith("): 2 initial weights, each with 2 orders of the images.")
    for part in ("the initial weights make 62% (", "the order makes 23% (", "both decides makes 15% ("):
        assert part in sentences[1]
    assert sentences[2].startswith("Forks from the same training show how much of it is settled: 85% (")
    assert ") after epoch 2, when a standard deviation of 0.0200 (" in sentences[2]
    assert sentences[2].endswith(") is still to come.")
    assert not [sentence for sentence in sentences if "highest" in sentence], "nobody is best at luck"


ADVICE = {
    (
        (SEEDS, 0.71, 0.71),
        (IMAGES, 0.5, 0.6),
        (EPOCHS, 0.8, 1.2),
    ): "So a given budget is best spent on validation images.",
    ((SEEDS, 0.71, 0.71), (IMAGES, 0.9, 1.0), (EPOCHS, 0.8, 1.2)): "So a given budget is best spent on seeds.",
    ((SEEDS, 0.71, 0.71), (IMAGES, 0.6, 0.8), (EPOCHS, 0.8, 1.2)): (
        "So a given budget is best spent on validation images or seeds: these trainings cannot tell which of them."
    ),
    ((SEEDS, 0.71, 0.71), (IMAGES, 0.6, 0.8), (EPOCHS, 0.2, 1.0)): (
        "So a given budget is best spent on epochs, validation images or seeds: these trainings cannot tell which of "
        "them."
    ),
}


@pytest.mark.parametrize(("factors", "said"), ADVICE.items())
def test_what_to_buy(factors: tuple[tuple[str, float, float], ...], said: str) -> None:
    purchases = tuple(Purchase(of, 9, Estimate((low + high) / 2, low, high)) for of, low, high in factors)
    sentences = list(in_sentences(replace(only(BY_HAND), purchases=purchases), ACCURACY))
    assert sentences[-2].startswith(
        "Twice the computing time makes the standard error of a mean 0.71 times as large if"
    )
    assert sentences[-1] == said


def test_what_can_be_bought() -> None:
    (found,) = lucks(lucky())
    seeds, images, epochs = found.purchases
    assert seeds.factor == pytest.approx([math.sqrt(0.5)] * 3)
    # Twice the time of 2.5 s an epoch, of which evaluation takes 0.5
    assert images.times == 6
    assert found.images is not None
    assert images.factor.value == pytest.approx(math.sqrt(1 - found.images.share.value * 5 / 6))
    assert epochs.factor.value < 1, "the spread falls with the epochs"
    by_schedule = handmade({replace(t, scheduler="cosine"): run for t, run in BY_HAND.items()})
    assert [one.of for one in lucks(by_schedule)[0].purchases] == [SEEDS], "half a schedule is not a shorter training"


def test_no_step_decides_which_luck_is_best() -> None:
    sweep = lucky()
    commands = [step.command for step in next_steps(sweep, summarise(sweep), "results/x")]
    assert not [command for command in commands if "--decide" in command]


def test_the_picture_shows_components_images_and_what_is_open() -> None:
    sweep = lucky(lrs=(0.001, 0.01))
    found = picture.data(sweep, summarise(sweep))
    assert found is not None
    assert found.rows == (
        "initial weights",
        "order of the images",
        "only the pair of both",
        "choice of validation images",
    )
    assert [line.label for line in found.lines] == ["lr 0.001", "lr 0.01"]
    assert [epoch for epoch, _ in found.lines[0].open] == [0, 1, 3]
    for name in ("effects", "budget"):  # which would count forks as trials of their own
        (plot,) = (plot for plot in PLOTS if plot.name == name)
        assert plot.data(sweep, summarise(sweep)) is None

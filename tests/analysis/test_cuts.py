"""What cuts were worth: gains by hand, intervals that keep their promise, the picture's data and the sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from handmade import Run, handmade
from synthetic import MAE, synthetic_cuts, synthetic_plateau, synthetic_sweep

from analysis.aggregate import summarise
from analysis.answer import answer
from analysis.cuts import in_words, sentences
from analysis.loading import SweepData, combine
from analysis.plots import cuts as picture
from analysis.statistics.cuts import Factor, MeanDifference, Trunk, gains_on, trunks
from analysis.statistics.sequences import LEVEL, half_width, intervals, spread
from workloads.trial import Status, TrialConfig

EPOCHS = 4


def trial(scheduler: str, seed: int, optimizer: str = "adam", lr: float = 1.0, **settings: Any) -> TrialConfig:
    return TrialConfig(
        optimizer=optimizer, lr=lr, scheduler=scheduler, scheduler_settings=settings, seed=seed, epochs=EPOCHS
    )


def run(
    final: float, cuts: Sequence[int] = (), factor: float = 0.1, lr: float = 1.0, status: Status = "completed"
) -> Run:
    """Returns what a training recorded whose rate was lowered after these epochs."""
    rates = [lr * factor ** sum(epoch > cut for cut in cuts) for epoch in range(1, EPOCHS + 1)]
    return Run([0.5] * (EPOCHS - 1) + [final], lr=rates, status=status)


def cut(after: int, *finals: float, factor: float = 0.1, **fields: Any) -> dict[TrialConfig, Run]:
    """Returns the trials of a cut, a final accuracy for each of seeds 1, 2, ..."""
    return {
        trial("cut", seed, factor=factor, after_epoch=after, **fields): run(final, [after], factor)
        for seed, final in enumerate(finals, 1)
    }


def never(*finals: float, **fields: Any) -> dict[TrialConfig, Run]:
    return {trial("none", seed, **fields): run(final) for seed, final in enumerate(finals, 1)}


def plateau(patience: int, runs: Mapping[int, Run]) -> dict[TrialConfig, Run]:
    return {trial("plateau", seed, factor=0.1, patience=patience): one for seed, one in runs.items()}


THREE = {
    **never(0.80, 0.82, 0.84),
    **cut(3, 0.81, 0.82, 0.82),
    **cut(1, 0.83, 0.84, 0.88),
    **cut(2, 0.82, 0.83, 0.86, factor=0.5),
    **plateau(1, {1: run(0.82, [1, 3]), 2: run(0.83, [2]), 3: run(0.88, [2, 3])}),
    **plateau(2, {1: run(0.80), 2: run(0.82), 3: run(0.84)}),
    **plateau(3, {1: run(0.80), 2: run(0.82), 3: run(0.84)}),
}
"""Three seeds: gains of +0.01, 0, -0.02 after epoch 3, of 0.03, 0.02, 0.04 after epoch 1; half the rate after 2."""


def only(data: SweepData) -> Trunk:
    (trunk,) = trunks(data)
    return trunk


def means(factor: Factor) -> dict[int, float]:
    return {moment.after: round(moment.gain.mean, 12) for moment in factor.moments}


# -- gains and regrets by hand --------------------------------------------------------------------------------------


def test_gains_by_hand() -> None:
    found = only(handmade(THREE))
    assert (found.label, found.epochs) == ("", EPOCHS)
    tenth, half = found.factors
    assert (tenth.factor, means(tenth)) == (0.1, {1: 0.03, 3: round(-0.01 / 3, 12)})
    assert (half.factor, means(half)) == (0.5, {2: round(0.05 / 3, 12)})
    assert {moment.gain.seeds for moment in tenth.moments} == {3}
    assert (tenth.best.after, found.best[0].factor) == (1, 0.1)


def test_what_plateaus_cost_by_hand() -> None:
    """Behind the best cut (0.83, 0.84, 0.88) by 0.01, 0.01 and 0; those that never cut by 0.03, 0.02 and 0.04."""
    acted, idle = only(handmade(THREE)).plateaus
    assert acted.after == ((1, 3), (2,), (2, 3))
    assert (acted.gain.mean, acted.regret.mean) == (pytest.approx(0.07 / 3), pytest.approx(0.02 / 3))
    assert idle.after == ((), (), ())
    assert len(idle.configurations) == 2, "identical trainings are one"
    assert (idle.gain.mean, idle.regret.mean) == (0, pytest.approx(0.03))


def test_how_easy_a_seed_is_does_not_matter() -> None:
    shifts = {1: 0.0, 2: -0.3, 3: 0.05}
    moved = {
        one: Run([0.5] * 3 + [record.val_accuracy[-1] + shifts[one.seed]], lr=record.lr)
        for one, record in THREE.items()
    }
    before, after = only(handmade(THREE)), only(handmade(moved))
    for one, other in zip(before.factors, after.factors, strict=True):
        for moment, same in zip(one.moments, other.moments, strict=True):
            assert (moment.after, moment.as_good) == (same.after, same.as_good)
            assert moment.gain.mean == pytest.approx(same.gain.mean)
            assert moment.gain.low == pytest.approx(same.gain.low)


def test_only_seeds_that_finished_in_both_count() -> None:
    runs = never(0.80, 0.82, 0.84) | cut(1, 0.83, 0.84, 0.99)
    runs[trial("cut", 3, factor=0.1, after_epoch=1)] = run(0.99, [1], status="diverged")
    runs[trial("none", 1)] = run(0.80, status="pending")
    (moment,) = only(handmade(runs)).factors[0].moments
    assert (moment.gain.seeds, moment.gain.mean) == (1, pytest.approx(0.02))


@pytest.mark.parametrize(
    "runs",
    [
        never(0.8),
        cut(1, 0.8),
        never(0.8) | plateau(1, {1: run(0.9, [1])}),
        never(0.8, lr=0.5) | cut(1, 0.8),
        never(0.8) | {trial("cut", 2, factor=0.1, after_epoch=1): run(0.9, [1])},
        {trial("none", 1): run(0.8, status="pending")} | cut(1, 0.8),
    ],
    ids=["no cut", "only cuts", "only a plateau", "another rate", "another seed", "not finished"],
)
def test_nothing_is_said_without_a_cut_and_its_trunk(runs: dict[TrialConfig, Run]) -> None:
    data = handmade(runs)
    assert trunks(data) == ()
    assert list(sentences(data)) == []
    assert picture.data(data, summarise(data)) is None


def test_every_trunk_has_its_own_cuts() -> None:
    runs = never(0.80) | cut(1, 0.83) | never(0.70, optimizer="sgd") | cut(1, 0.75, optimizer="sgd")
    found = trunks(handmade(runs | cut(1, 0.9, optimizer="rmsprop")))
    assert [(one.label, means(one.factors[0])) for one in found] == [("adam", {1: 0.03}), ("sgd", {1: 0.05})]


def test_moments_are_those_of_the_rates_that_were_applied() -> None:
    """With warm-up a cut comes later than its setting says, and trunks with warm-up are others."""
    warm = {"warmup_epochs": 1}
    runs = never(0.8, warmup_epochs=0) | cut(1, 0.82, warmup_epochs=0) | never(0.7, **warm)
    runs[trial("cut", 1, factor=0.1, after_epoch=1, **warm)] = Run([0.5, 0.5, 0.5, 0.75], lr=[0.5, 1.0, 0.1, 0.1])
    assert [means(one.factors[0]) for one in trunks(handmade(runs))] == [{1: 0.02}, {2: 0.05}]


def test_where_lower_is_better_a_gain_is_what_it_is_lower() -> None:
    accuracy, error = synthetic_cuts(), synthetic_cuts().measured(MAE, lambda one: 1 - one)
    for one, other in zip(only(accuracy.data).factors, only(error.data).factors, strict=True):
        assert means(one) == pytest.approx(means(other))
    assert "better in final validation mean absolute error than never cutting" in "".join(sentences(error.data))


# -- how sure -------------------------------------------------------------------------------------------------------


def test_one_cut_has_the_interval_of_its_differences() -> None:
    """With nothing else to learn the deviation from: that of `sequences`, at the level of one statement."""
    differences = np.array([0.01, 0.02, 0.03, 0.02, 0.01, 0.03, 0.02, 0.02])
    (gain,) = gains_on(np.zeros(8), differences[None])
    half = half_width(8, float(differences.std(ddof=1)), LEVEL)
    assert (gain.low, gain.high) == (pytest.approx(0.02 - half), pytest.approx(0.02 + half))
    assert gain.opposite == MeanDifference(-gain.mean, -gain.high, -gain.low, 8)  # type: ignore[operator]


def test_the_intervals_of_a_line_share_the_level() -> None:
    values = np.random.default_rng(1).normal(size=(6, 8))
    found = gains_on(values[0], values[1:])
    low, high = intervals(values[1:] - values[0], LEVEL / 5, spread(values))
    assert [gain.low for gain in found] == pytest.approx(low)
    assert [gain.high for gain in found] == pytest.approx(high)


def test_intervals_hold_only_what_is_possible() -> None:
    """A scatter of 0.1 and three seeds: more than a difference of accuracies can be, unless something is excluded."""
    differences = np.array([[-0.1, 0.0, 0.1]])
    (wide,) = gains_on(np.zeros(3), differences)
    assert wide.low is not None
    assert wide.low < -1
    (possible,) = gains_on(np.zeros(3), differences, most=1.0)
    assert (possible.low, possible.high, possible.seeds) == (None, None, 3)
    (clipped,) = gains_on(np.zeros(3), differences + 0.9, most=1.0)
    assert clipped.low is not None
    assert -1 < clipped.low < 0.9
    assert clipped.high == 1


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_have_no_interval(seeds: int) -> None:
    data = synthetic_cuts(seeds=range(seeds)).data
    moments = [moment for factor in only(data).factors for moment in factor.moments]
    assert {(moment.gain.low, moment.gain.high) for moment in moments} == {(None, None)}
    assert all(moment.as_good for moment in moments), "no moment is said to be worse"


@pytest.mark.parametrize("noise", [0.5, 2.0, 8.0])
def test_all_gains_of_a_line_hold_at_every_look(noise: float) -> None:
    """Five moments without any effect, neighbours alike, a trunk that scatters less or far more than its branches."""
    random = np.random.default_rng(int(10 * noise))
    wrong, count = 0, 300
    for _ in range(count):
        values = np.cumsum(random.normal(size=(5, 10)), axis=0) * 0.5
        never = random.normal(0, noise, 10)
        looks = [gain for n in (3, 5, 10) for gain in gains_on(never[:n], values[:, :n])]
        wrong += any(one.low is not None and one.high is not None and not one.low <= 0 <= one.high for one in looks)
    assert wrong / count < LEVEL


def test_moments_that_are_worse_are_told_from_those_as_good() -> None:
    random = np.random.default_rng(3)
    finals = {1: 0.80, 2: 0.85, 3: 0.852}
    noise = {after: random.normal(0, 0.002, 8) for after in finals}
    runs = never(*(0.79 + random.normal(0, 0.002, 8)))
    for after, mean in finals.items():
        runs |= cut(after, *(mean + noise[after]))
    (factor,) = only(handmade(runs)).factors
    assert [moment.as_good for moment in factor.moments] == [False, True, True]
    assert all(moment.gain.low is not None and moment.gain.low > 0 for moment in factor.moments)


# -- in words -------------------------------------------------------------------------------------------------------


def test_sentences_of_one_seed() -> None:
    runs = never(0.80) | cut(1, 0.83) | cut(2, 0.82) | plateau(1, {1: run(0.81, [2, 3])}) | plateau(2, {1: run(0.80)})
    data = handmade(runs)
    assert list(sentences(data)) == [
        "Cut by 0.1, the best moment is after epoch 1 of 4: 0.0300 better in final validation accuracy than never "
        "cutting (one seed, so no interval).",
        "Of 2 plateau settings, plateau, patience 1 comes closest to the best of these cuts, by 0.1 after epoch 1: it "
        "first cut after epoch 2 and ended 0.0200 behind it (one seed, so no interval); plateau, patience 2 never cut "
        "and ended 0.0300 behind it (one seed, so no interval).",
    ]
    assert [sentence for sentence in answer(data, summarise(data)) if sentence in set(sentences(data))] == list(
        sentences(data)
    )


def test_sentences_of_several_seeds() -> None:
    random = np.random.default_rng(3)
    noise = random.normal(0, 0.002, (5, 8))
    runs = (
        never(*(0.79 + noise[0]))
        | cut(1, *(0.80 + noise[1]))
        | cut(2, *(0.85 + noise[2]))
        | cut(3, *(0.852 + noise[3]))
    )
    runs |= plateau(1, {seed: run(0.86 + noise[4, seed - 1], [2]) for seed in range(1, 9)})
    (factor,) = only(handmade(runs)).factors
    low, high = factor.best.gain.low, factor.best.gain.high
    said, of_plateau = sentences(handmade(runs))
    assert said == (
        f"Cut by 0.1, the best moment is after epoch 3 of 4: {factor.best.gain.mean:.4f} better in final validation "
        f"accuracy than never cutting (95% interval {low:.4f} to {high:.4f}, 8 seeds); after epoch 2 it is not shown "
        "to be worse, after epoch 1 it is."
    )
    (one,) = only(handmade(runs)).plateaus
    assert one.regret.mean < 0
    assert of_plateau == (
        f"Plateau first cut after epoch 2 and ended {-one.regret.mean:.4f} ahead of the best of these cuts, by 0.1 "
        f"after epoch 3 (95% interval {-one.regret.high:.4f} to {-one.regret.low:.4f}, 8 seeds)."  # type: ignore[operator]
    )


def test_what_makes_no_difference_is_not_said_to() -> None:
    random = np.random.default_rng(5)
    runs = never(*(0.8 + random.normal(0, 0.01, 5))) | cut(1, *(0.8 + random.normal(0, 0.01, 5)))
    (said,) = sentences(handmade(runs | cut(2, *(0.8 + random.normal(0, 0.01, 5)))))
    assert said.endswith(", so it is not shown to make a difference; no other moment is shown to be worse.")


def test_of_many_factors_and_trunks_the_best_are_told() -> None:
    runs: dict[TrialConfig, Run] = {}
    for optimizer in ("adam", "sgd", "rmsprop", "nadam"):
        runs |= never(0.8, optimizer=optimizer)
    for place, optimizer in enumerate(("adam", "sgd", "rmsprop", "nadam", "adam", "adam", "adam", "adam")):
        runs |= cut(1, 0.81 + 0.01 * place, factor=0.1 + 0.1 * place, optimizer=optimizer)
    *said, left = sentences(handmade(runs))
    assert [text.partition(",")[0] for text in said] == [
        *(f"adam: cut by {factor:g}" for factor in (0.5, 0.6, 0.7, 0.8)),
        "rmsprop: cut by 0.3",
        "nadam: cut by 0.4",
    ]
    assert left == "Cuts that gained less, by other factors or elsewhere, are left out here: 2."


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ([], ""),
        ([4], "epoch 4"),
        ([2, 4], "epochs 2 and 4"),
        ([2, 4, 6], "epochs 2 to 6"),
        ([2, 4, 6, 12], "epochs 2 to 6 and 12"),
        ([2, 6, 8, 10], "epochs 2 and 6 to 10"),
        ([2, 4, 8, 12], "epochs 2, 4, 8 and 12"),
    ],
)
def test_epochs_in_words(chosen: list[int], text: str) -> None:
    assert in_words(chosen, [2, 4, 6, 8, 10, 12]) == text


# -- the picture ----------------------------------------------------------------------------------------------------


def drawn(data: SweepData) -> picture.Cuts:
    found = picture.data(data, summarise(data))
    assert found is not None
    return found


def test_the_picture_has_a_line_for_each_factor_and_a_row_for_each_plateau_training() -> None:
    found = drawn(handmade(THREE))
    assert [(line.label, line.after, line.best) for line in found.lines] == [
        ("cut by 0.1", (1, 3), 1),
        ("cut by 0.5", (2,), 2),
    ]
    assert found.lines[0].gain == pytest.approx((0.03, -0.01 / 3))
    assert [(row.label, row.after) for row in found.rows] == [
        ("plateau, patience 1", ((1, 3), (2,), (2, 3))),
        ("2 settings: plateau; patience 2, 3", ((), (), ())),
    ]
    assert [row.regret for row in found.rows] == pytest.approx([0.02 / 3, 0.03])
    assert "share a row" in found.note


def test_plateaus_of_another_sweep_are_compared_where_all_else_is_equal() -> None:
    cuts = synthetic_sweep(
        "cuts",
        optimizers=("momentum",),
        schedulers={"none": ({},), "cut": [{"factor": 0.1, "after_epoch": after} for after in (4, 8)]},
        lrs=(0.02,),
        epochs=12,
    )
    same, longer = (synthetic_plateau(name, epochs=epochs) for name, epochs in (("same", 12), ("longer", 30)))
    settings = sum(len(one.configurations) for one in only(combine([cuts.parts, same.parts])).plateaus)
    assert settings == len(same.spec.trials)
    assert drawn(combine([cuts.parts, same.parts])).rows
    assert only(combine([cuts.parts, longer.parts])).plateaus == ()


def test_with_one_seed_the_caption_says_that_there_are_no_intervals() -> None:
    assert drawn(synthetic_cuts(seeds=(1,)).data).note.startswith("One seed, so no intervals.")
    assert drawn(synthetic_cuts().data).note.startswith("Bars are 95% intervals")

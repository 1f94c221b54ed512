"""What the answer says, and that it says so when it cannot tell."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import scipy.optimize
from synthetic import handmade_sweep, synthetic_of_size, synthetic_plateau, synthetic_sweep

from analysis.aggregate import summarise
from analysis.answer import answer
from analysis.loading import SweepData, combine
from analysis.statistics.compare import Shown
from analysis.statistics.sequences import DIFFER, EQUAL, UNKNOWN
from workloads.trial import TrialConfig


def told(data: SweepData) -> tuple[str, ...]:
    return answer(data, summarise(data))


def optimizers(
    accuracies: Mapping[str, Sequence[float | None]], lr: float = 0.1, workload: str = "lenet_fashion_mnist"
) -> dict[TrialConfig, tuple[str, tuple[float, ...]]]:
    """Optimizer -> final accuracies of seeds 1, 2, ...; None for one that diverged."""
    return {
        TrialConfig(optimizer=optimizer, lr=lr, seed=seed, epochs=2, workload=workload): (
            ("diverged", (0.1,)) if accuracy is None else ("completed", (0.5, accuracy))
        )
        for optimizer, several in accuracies.items()
        for seed, accuracy in enumerate(several, 1)
    }


NO_SPREAD = (
    "It is unknown whether other seeds would agree: with a single seed there is no interval "
    "and no estimate of how many seeds would tell."
)
ANSWERS: dict[str, tuple[dict[str, Sequence[float | None]], tuple[str, ...]]] = {
    "one seed": (
        {"sgd": (0.89,), "adam": (0.9,), "rmsprop": (None,)},
        (
            "adam has the highest final validation accuracy, 0.9000 (one seed), 0.0100 more than sgd; "
            "test accuracy 0.8000.",
            f"{NO_SPREAD} The other one diverged on some seed.",
        ),
    ),
    "all others diverged": (
        {"sgd": (None,), "adam": (0.9,)},
        (
            "adam has the highest final validation accuracy, 0.9000 (one seed); test accuracy 0.8000.",
            "The other one diverged on some seed.",
        ),
    ),
    "exactly equal": (
        {"sgd": (0.9,), "adam": (0.9,), "nadam": (0.8,)},
        (
            "sgd and adam have the highest final validation accuracy, 0.9000 (one seed), 0.1000 more than nadam; "
            "test accuracy of the first: 0.8000.",
            NO_SPREAD,
        ),
    ),
    "decided": (
        {"sgd": (0.850, 0.851, 0.853), "adam": (0.9, 0.902, 0.904), "nadam": (0.99, None, 0.99)},
        (
            "adam has the highest final validation accuracy, 0.9020 (95% interval 0.8970 to 0.9070, 3 seeds), "
            "0.0507 more than sgd; test accuracy 0.8020.",
            "The other 2 are shown to be worse, or diverged on some seed.",
        ),
    ),
    "no spread": (
        {"sgd": (0.89, 0.90, 0.91), "adam": (0.9, 0.91, 0.92)},
        (
            # half the interval: 4.302653, the 97.5% point of Student's t with 2 degrees of freedom, * 0.01 / sqrt(3)
            "adam has the highest final validation accuracy, 0.9100 (95% interval 0.8852 to 0.9348, 3 seeds), "
            "0.0100 more than sgd; test accuracy 0.8100.",
            "It cannot be told apart from sgd: the two differ by the same on every seed, so the number of seeds needed "
            "cannot be estimated.",
        ),
    ),
    "too few seeds": (
        {"sgd": (0.89, 0.91), "adam": (0.9, 0.91)},
        (
            "adam has the highest final validation accuracy, 0.9050 (95% interval 0.8415 to 0.9685, 2 seeds), "
            "0.0050 more than sgd; test accuracy 0.8050.",
            "It cannot be told apart from sgd: the two have 2 seeds in common, and 3 are the fewest that can tell.",
        ),
    ),
    "equal on every seed": (
        {"sgd": (0.9, 0.9, 0.9), "adam": (0.9, 0.9, 0.9)},
        (
            "sgd and adam have the highest final validation accuracy, 0.9000 (3 seeds); "
            "test accuracy of the first: 0.8000.",
            "adam has the same results on every seed.",
        ),
    ),
    "all diverged somewhere": (
        {"sgd": (0.9, None), "adam": (0.8, None)},
        (
            "sgd has the highest final validation accuracy, 0.9000 (one seed); test accuracy 0.8000.",
            "No more can be said: every configuration diverged on some seed, this one on 1.",
        ),
    ),
    "all diverged": ({"sgd": (None,)}, ("Every trial that ended diverged, so there is no best one.",)),
    "alone": (
        {"adam": (0.9,)},
        (
            "adam has the highest final validation accuracy, 0.9000 (one seed); test accuracy 0.8000.",
            "There is nothing to compare it with.",
        ),
    ),
}


@pytest.mark.parametrize(("accuracies", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_answers(accuracies: dict[str, Sequence[float | None]], expected: tuple[str, ...]) -> None:
    assert told(handmade_sweep(optimizers(accuracies)).data) == expected


def half_width(n: int, deviation: float) -> float:
    """How far a mean is off where the evidence against it is 1 / 0.05, by the formula of `sequences`."""
    squares = (n - 1) * deviation**2

    def evidence(x: float) -> float:
        scales = [(1 + n * g, weight) for g, weight in ((0.5, 0.8), (100, 0.2))]
        return sum(w * a**-0.5 * ((squares + n * x**2) / (squares + n * x**2 / a)) ** (n / 2) for a, w in scales) - 20

    return scipy.optimize.brentq(evidence, 1e-9, 1)


def test_undecided_says_what_could_be_shown_and_what_it_takes() -> None:
    # differences 0.002, -0.001, 0.005: mean 0.002, deviation 0.003
    accuracies = {"adam": (0.902, 0.899, 0.910), "sgd": (0.900, 0.900, 0.905)}
    second = told(handmade_sweep(optimizers(accuracies)).data)[1]
    assert half_width(3, 0.003) == pytest.approx(0.0381, abs=5e-5)
    assert half_width(25, 0.003) > 0.002 > half_width(26, 0.003)
    assert second == (
        "It cannot be told apart from sgd: 3 seeds show differences of 0.0381 or more; "
        "about 26 seeds would tell the two apart."
    )
    careful = told(caring(handmade_sweep(optimizers(accuracies)).data, 0.006))[1]
    assert half_width(10, 0.003) > 0.006 - 0.002 > half_width(11, 0.003)
    assert careful == (
        "It cannot be told apart from sgd, nor is it shown to be practically equal (within 0.006): 3 seeds show "
        "differences of 0.0381 or more; about 11 seeds would decide between the two."
    )


def test_what_cannot_be_told_apart_does_not_hide_what_is_worse() -> None:
    wiggle = (0, 0.001, -0.002, 0.0005, 0.003, -0.001)
    accuracies = {
        name: tuple(mean + sign * w for w in wiggle)
        for name, mean, sign in (("adam", 0.9, 1), ("sgd", 0.8995, -1), ("nadam", 0.8, 1.5), ("radam", 0.7, 0.5))
    }
    second = told(handmade_sweep(optimizers(accuracies)).data)[1]
    assert second.startswith("It cannot be told apart from sgd: 6 seeds show differences of ")
    assert second.endswith(" would tell the two apart. The other 2 are shown to be worse.")


def caring(data: SweepData, care: float) -> SweepData:
    return replace(data, specs=tuple(replace(spec, care=care) for spec in data.specs))


def test_practically_equal_is_said_with_care_only() -> None:
    accuracies = {"adam": ALIKE, "sgd": tuple(a - 0.0002 - w for a, w in zip(ALIKE, WIGGLE, strict=True))}
    data = handmade_sweep(optimizers(accuracies)).data
    assert told(data)[1].startswith("It cannot be told apart from sgd: ")
    assert told(caring(data, 0.005))[1] == "sgd is practically equal (within 0.005)."
    assert summarise(caring(data, 0.005)).select("rank", "verdict").rows() == [(1, None), (1, EQUAL)]
    assert summarise(data).select("rank", "verdict").rows() == [(1, None), (1, UNKNOWN)]


WIGGLE = (0, 0.0003, -0.0002, 0.0001, 0.0002, -0.0004, 0.0001, -0.0001)
ALIKE = tuple(0.9 + 0.001 * (i % 3) for i in range(len(WIGGLE)))


def test_care_of_several_sweeps_is_the_smallest_that_all_have() -> None:
    one, two = (handmade_sweep(optimizers({name: (0.9,)}), name) for name in ("adam", "sgd"))

    def care(*cares: float | None) -> float | None:
        specs = (replace(sweep.spec, care=care) for sweep, care in zip((one, two), cares, strict=True))
        parts = [(spec, *sweep.parts[1:]) for spec, sweep in zip(specs, (one, two), strict=True)]
        return combine(parts).care

    assert [care(0.01, 0.002), care(None, 0.002), care(None, None)] == [0.002, None, None]


def test_what_a_race_has_shown_is_told() -> None:
    accuracies = {"adam": ALIKE, "sgd": tuple(a - 0.0002 - w for a, w in zip(ALIKE, WIGGLE, strict=True))}
    data = handmade_sweep(optimizers(accuracies)).data
    dropped = replace(data, shown=Shown(worse=((1, 0),)))
    assert told(dropped)[1] == "The other one is shown to be worse."
    assert summarise(dropped).select("rank", "verdict").rows() == [(1, None), (2, DIFFER)]
    contradicted = replace(data, shown=Shown(worse=((0, 1),)))
    assert told(contradicted)[1] == "sgd is shown to be better on the seeds that both have."


def test_seeds_not_in_common_cannot_be_paired() -> None:
    results = optimizers({"adam": (0.9, 0.91)}) | {
        trial.replace(seed=trial.seed + 10): result for trial, result in optimizers({"sgd": (0.8, 0.82)}).items()
    }
    assert told(handmade_sweep(results).data)[1] == (
        "It cannot be told apart from sgd: the two have no seeds in common, and 3 are the fewest that can tell."
    )


def test_optimizers_are_compared_at_their_best_learning_rates() -> None:
    results = optimizers({"adam": (0.90,), "sgd": (0.70,)}, lr=0.1) | optimizers(
        {"adam": (0.89,), "sgd": (0.80,)}, lr=0.2
    )
    first, _, edges = told(handmade_sweep(results).data)
    assert "0.1000 more than sgd, lr 0.2" in first
    assert edges == (
        "Best learning rate at the edge of its grid, so a better one may lie beyond it: "
        "adam 0.1 (lowest) and sgd 0.2 (highest)."
    )


def test_many_names_are_counted() -> None:
    accuracies = {f"optimizer{i}": (0.9 - i / 1000, 0.91 - i / 1000 + 1e-4 * (i % 3)) for i in range(8)}
    assert told(handmade_sweep(optimizers(accuracies)).data)[1].startswith(
        "It cannot be told apart from optimizer1, optimizer2, optimizer3 and 4 more: it and the first of these have "
    )


def test_each_data_set_gets_its_answer() -> None:
    results = optimizers({"adam": (0.9,), "sgd": (0.8,)}, workload="one") | optimizers({"adam": (0.5,)}, workload="two")
    sentences = told(handmade_sweep(results).data)
    assert [sentence.partition(":")[0] for sentence in sentences] == ["On one images"] * 2 + ["On two images"] * 2
    assert sentences[2].startswith("On two images: two, adam has the highest")


def test_nothing_finished() -> None:
    assert told(synthetic_sweep(finished=0).data) == ("No trial has finished yet, so there is no answer: 20 pending.",)


def test_missing_trials_are_counted() -> None:
    sentences = told(synthetic_sweep(seeds=(1, 2, 3), finished=0.5, failed=(1,)).data)
    assert sentences[-1] == "Of 60 trials, these have no result: 30 pending, 1 failed; the answer is preliminary."
    assert "preliminary" not in told(synthetic_sweep(seeds=(1, 2), failed=(1,)).data)[-1]


def test_what_is_known_of_the_files_is_said() -> None:
    first, second = (handmade_sweep(optimizers({"adam": (0.9,)}), name, name) for name in ("one", "two"))
    assert told(combine([first.parts, second.parts]))[-2:] == (
        "Duplicate trials, counted only once: 1.",
        "one and two ran with different code: compare them with care.",
    )


def test_what_was_not_compared_is_no_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.aggregate.MOST_COMPARED", 3)
    monkeypatch.setattr("analysis.answer.MOST_COMPARED", 3)
    accuracies = [(0.90, 0.91 - i / 1000, 0.92 - i / 500 + i % 3 / 1000) for i in range(6)]
    results = {}
    for i, several in enumerate(accuracies):
        results |= optimizers({"adam": several}, lr=0.1 * (i + 1))
    second = told(handmade_sweep(results).data)[1]
    assert "lr 0.2" in second
    assert "lr 0.4" not in second
    assert second.endswith(" Not compared: 3 ranked below the best 3.")
    assert "more:" not in second


def test_a_configuration_behind_one_that_is_worse_is_worse() -> None:
    # nadam scatters too much to be told from any other, but did no better than sgd
    accuracies = {"adam": (0.9, 0.902, 0.904), "sgd": (0.85, 0.851, 0.853), "nadam": (0.99, 0.1, 0.8)}
    assert told(handmade_sweep(optimizers(accuracies)).data)[1].startswith(
        "The other 2 are shown to be worse, or did no better than one that is."
    )


def test_different_seeds_are_put_on_a_common_footing_and_that_is_said() -> None:
    accuracies = {"adam": (0.90, 0.90, 0.95, 0.90), "sgd": (0.89, 0.89, 0.94, 0.89)}
    results = optimizers(accuracies) | {
        trial.replace(seed=3): result for trial, result in optimizers({"nadam": (0.93,)}).items()
    }
    first, *_, last = told(handmade_sweep(results).data)
    assert first.startswith("adam has the highest final validation accuracy, 0.9125 (95% interval")
    assert ", 0.0100 more than sgd" in first
    assert last.startswith("Not all configurations have the same seeds")


def test_settings_that_were_one_training_are_told_once() -> None:
    results = {}
    for i in range(5):
        results |= optimizers({"adam": (0.9, 0.91, 0.93)}, lr=0.1 * (i + 1))
    results |= optimizers({"adam": (0.8, 0.81, 0.825)}, lr=1.0)
    first, second, *_ = told(handmade_sweep(results).data)
    assert first.startswith("lr 0.1 (and 4 identical) has the highest")
    assert second == "The other one is shown to be worse."


@pytest.mark.parametrize(
    ("seeds", "verdict"), [((1,), "It is unknown whether "), ((1, 2, 3), "It cannot be told apart from ")]
)
def test_plateau_settings_are_compared_as_such(seeds: tuple[int, ...], verdict: str) -> None:
    first, second, *_ = told(synthetic_plateau(seeds=seeds).data)
    assert first.startswith("factor ")
    assert second.startswith(verdict)


def test_large_sweeps_are_answered() -> None:
    assert told(synthetic_of_size(600, seeds=2, epochs=3).data)[1].startswith("It cannot be told apart from ")

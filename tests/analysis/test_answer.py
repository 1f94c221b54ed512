"""What the answer says, and that it says so when it cannot tell."""

from collections.abc import Mapping, Sequence

import pytest
from synthetic import handmade_sweep, synthetic_of_size, synthetic_plateau, synthetic_sweep

from analysis.aggregate import summarise
from analysis.answer import answer
from analysis.loading import SweepData, combine
from analysis.statistics.compare import detectable_difference, seeds_to_decide
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
            NO_SPREAD,
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
            "The other 2 are significantly worse (p < 0.05, Holm-corrected) or diverged on some seed; "
            f"3 seeds can detect differences of {detectable_difference(0.000577, 3):.4f} or more.",
        ),
    ),
    "no spread": (
        {"sgd": (0.89, 0.90), "adam": (0.9, 0.91)},
        (
            "adam has the highest final validation accuracy, 0.9050 (95% interval 0.8415 to 0.9685, 2 seeds), "
            "0.0100 more than sgd; test accuracy 0.8050.",
            "It is not significantly different from sgd: they differ by the same amount on every seed, so the number "
            "of seeds needed cannot be estimated.",
        ),
    ),
    "equal on every seed": (
        {"sgd": (0.9, 0.9), "adam": (0.9, 0.9)},
        (
            "sgd and adam have the highest final validation accuracy, 0.9000 (2 seeds); "
            "test accuracy of the first: 0.8000.",
            "It is not significantly different from adam: they are equal on every seed, so the number of seeds needed "
            "cannot be estimated.",
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


def test_undecided_says_what_could_be_shown_and_what_it_takes() -> None:
    # differences 0.002, -0.001, 0.005: mean 0.002, deviation 0.003
    accuracies = {"adam": (0.902, 0.899, 0.910), "sgd": (0.900, 0.900, 0.905)}
    second = told(handmade_sweep(optimizers(accuracies)).data)[1]
    assert detectable_difference(0.003, 3) == pytest.approx(0.0098, abs=5e-5)
    assert seeds_to_decide(0.002, 0.003) == 20
    assert second == (
        "It is not significantly different from sgd: 3 seeds can detect differences of 0.0098 or more, "
        "and about 20 seeds would tell the two apart at the observed spread."
    )


def test_two_seeds_and_many_comparisons_show_nothing() -> None:
    accuracies = {f"optimizer{i}": (0.9 - i / 1000, 0.9 + i / 500) for i in range(20)}
    assert "2 seeds can detect no difference, and about " in told(handmade_sweep(optimizers(accuracies)).data)[1]


def test_seeds_not_in_common_cannot_be_paired() -> None:
    results = optimizers({"adam": (0.9, 0.91)}) | {
        trial.replace(seed=trial.seed + 10): result for trial, result in optimizers({"sgd": (0.8, 0.82)}).items()
    }
    assert told(handmade_sweep(results).data)[1] == (
        "It is not significantly different from sgd: the two have fewer than two seeds in common."
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
        "It is not significantly different from optimizer1, optimizer2, optimizer3 and 4 more: "
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
    # nadam scatters too much for any test, but did no better than sgd
    accuracies = {"adam": (0.9, 0.902, 0.904), "sgd": (0.85, 0.851, 0.853), "nadam": (0.8, 0.1, 0.8)}
    assert told(handmade_sweep(optimizers(accuracies)).data)[1].startswith(
        "The other 2 are significantly worse (p < 0.05, Holm-corrected) or no better than one that is; "
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
    assert second.startswith("The other one is significantly worse")


@pytest.mark.parametrize(
    ("seeds", "verdict"), [((1,), "It is unknown whether "), ((1, 2, 3), "It is not significantly different from ")]
)
def test_plateau_settings_are_compared_as_such(seeds: tuple[int, ...], verdict: str) -> None:
    first, second, *_ = told(synthetic_plateau(seeds=seeds).data)
    assert first.startswith("factor ")
    assert second.startswith(verdict)


def test_large_sweeps_are_answered() -> None:
    assert told(synthetic_of_size(600, seeds=2, epochs=3).data)[1].startswith("It is not significantly different from ")

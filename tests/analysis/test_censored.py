"""Epochs to a target with censoring, against Kaplan-Meier by hand and by scipy."""

import numpy as np
import polars as pl
import pytest
import scipy.stats

from analysis.statistics.censored import LADDER, epochs_to_target, median_epochs, reached_share, usual_targets


def times(*rows: tuple[int, bool], configuration: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "configuration": [configuration] * len(rows),
            "epoch": [epoch for epoch, _ in rows],
            "reached": [reached for _, reached in rows],
        },
        schema={"configuration": pl.Int32, "epoch": pl.Int32, "reached": pl.Boolean},
    )


def test_share_by_hand() -> None:
    # at 6: 1 of 4 gets there; at 7 one is lost; at 9: 1 of 2; at 10 the last is lost. 1 - 3/4, then 1 - 3/4 * 1/2
    found = reached_share(times((6, True), (7, False), (9, True), (10, False)))
    assert found["epoch"].to_list() == [6, 7, 9, 10]
    assert found["share"].to_list() == pytest.approx([0.25, 0.25, 0.625, 0.625])
    assert found["trials"].to_list() == [4, 4, 4, 4]


def test_share_is_scipys_for_every_group() -> None:
    rng = np.random.default_rng(2)
    groups = {index: (rng.integers(1, 12, size), rng.random(size) < 0.6) for index, size in enumerate((1, 5, 30, 200))}
    frame = pl.concat(
        times(*zip(epochs.tolist(), reached.tolist(), strict=True), configuration=index)
        for index, (epochs, reached) in groups.items()
    )
    found = reached_share(frame)
    for index, (epochs, reached) in groups.items():
        sample = scipy.stats.CensoredData(uncensored=epochs[reached], right=epochs[~reached])
        exact = scipy.stats.ecdf(sample).cdf
        own = found.filter(pl.col("configuration") == index)
        assert own["share"].to_numpy() == pytest.approx(exact.evaluate(own["epoch"].to_numpy()))


MEDIANS = {
    "all reach it": (((3, True), (5, True), (9, True)), 5, 3),
    "half of an even number": (((3, True), (5, True), (10, False), (10, False)), 5, 2),
    "fewer than half": (((3, True), (10, False), (10, False)), None, 1),
    "none": (((10, False),), None, 0),
    "those lost early say little": (((1, False), (1, False), (4, True)), 4, 1),
}


@pytest.mark.parametrize(("rows", "median", "reached"), MEDIANS.values(), ids=MEDIANS)
def test_median(rows: tuple[tuple[int, bool], ...], median: int | None, reached: int) -> None:
    assert median_epochs(times(*rows)).row(0) == (0, median, reached)


TRIALS = pl.DataFrame(
    {
        "trial_id": ["a", "b", "c", "d", "e", "f"],
        "configuration": [0, 0, 0, 0, 1, 1],
        "seed": [1, 2, 3, 4, 1, 2],
        "status": ["completed", "completed", "diverged", "failed", "pending", "pending"],
        "epochs": [4, 4, 4, 4, 4, 4],
        "epochs_run": [4, 4, 1, 2, 3, 0],
    }
)
EPOCHS = pl.DataFrame(
    {
        "trial_id": [*"aaaabbbbcddeee"],
        "epoch": [1, 2, 3, 4, 1, 2, 3, 4, 1, 1, 2, 1, 2, 3],
        "val_accuracy": [0.5, 0.8, 0.7, 0.9, 0.1, 0.2, 0.3, 0.4, 0.6, 0.4, 0.5, 0.6, 0.8, 0.9],
    }
)


def test_trials_are_censored_not_dropped() -> None:
    found = epochs_to_target(TRIALS, EPOCHS, 0.8)
    assert found.select("trial_id", "epoch", "reached").rows() == [
        ("a", 2, True),  # the first time, though it falls below again
        ("b", 4, False),  # never, in all its epochs
        ("c", 4, False),  # diverged: never, in all the epochs planned
        ("d", 2, False),  # failed: unknown from there on
        ("e", 2, True),  # still running
    ]  # f has not begun: nothing is known of it


def test_a_diverged_trial_that_got_there_first_counts() -> None:
    assert epochs_to_target(TRIALS, EPOCHS, 0.6).filter(pl.col("trial_id") == "c").row(0)[3:] == (1, True)


def test_usual_targets_are_the_highest_reached() -> None:
    assert usual_targets(EPOCHS) == (0.85, 0.88, 0.9)
    assert usual_targets(EPOCHS.filter(pl.col("val_accuracy") < 0.35)) == (0.2, 0.3)
    assert usual_targets(EPOCHS.clear()) == ()
    assert list(LADDER) == sorted(set(LADDER))

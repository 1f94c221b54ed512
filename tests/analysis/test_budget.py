"""The best of k random trials, against all draws enumerated."""

import itertools

import numpy as np
import polars as pl
import pytest
from synthetic import synthetic_sweep

from analysis.statistics.budget import QUANTILES, best_after, best_of

POOLS = {
    "three": (0.3, 0.1, 0.2),
    "equal ones": (0.5, 0.5, 0.5, 0.9),
    "some diverged": (0.7, np.nan, 0.9, np.nan, 0.8, 0.6),
    "all diverged": (np.nan, np.nan),
    "one": (0.9,),
}


@pytest.mark.parametrize("values", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_quantile_over_all_draws(values: tuple[float, ...], quantile: float) -> None:
    budgets = np.arange(1, len(values) + 1)
    expected = [_enumerated(values, int(k), quantile) for k in budgets]
    assert best_of(np.array(values), budgets, quantile) == pytest.approx(expected, nan_ok=True)


def _enumerated(values: tuple[float, ...], k: int, quantile: float) -> float:
    scores = [-np.inf if np.isnan(value) else value for value in values]
    best = sorted(max(draw) for draw in itertools.combinations(scores, k))
    found = next(value for i, value in enumerate(best) if (i + 1) / len(best) >= quantile - 1e-9)
    return np.nan if np.isinf(found) else found


def test_by_hand() -> None:
    # of three trials, two draws in three of 2 hold the best; of 1, one in three
    assert best_of(np.array(POOLS["three"]), np.array([1, 2, 3]), 0.5).tolist() == [0.2, 0.3, 0.3]
    assert best_of(np.array(POOLS["three"]), np.array([1, 2, 3]), 0.1).tolist() == [0.1, 0.2, 0.3]


def test_large_pools_stay_exact() -> None:
    values = np.arange(10_000) / 10_000
    # P(best of 2 <= rank i) = i (i - 1) / (n (n - 1)) reaches 1/2 at i = 7072
    assert best_of(values, np.array([2]), 0.5)[0] == pytest.approx(0.7071)


def test_groups_of_a_sweep() -> None:
    data = synthetic_sweep(failed=(0,), finished=0.9).data
    found = best_after(data, ["optimizer"])
    assert found.columns == ["optimizer", "budget", *QUANTILES, "trials"]
    # 20 trials: the first failed, the last two are not done; those that diverged were paid for
    assert found.group_by("optimizer", maintain_order=True).agg(pl.col("trials").first()).rows() == [
        ("sgd", 4),
        ("momentum", 5),
        ("rmsprop", 5),
        ("adam", 3),
    ]
    rmsprop = found.filter(pl.col("optimizer") == "rmsprop")
    diverged = data.trials.filter(pl.col("optimizer") == "rmsprop", pl.col("status") == "diverged").height
    assert diverged == 2
    assert rmsprop["budget"].to_list() == [1, 2, 3, 4, 5]
    assert rmsprop["low"][0] is None  # one of five draws is a diverged trial in two cases
    highest = data.trials.filter(pl.col("optimizer") == "rmsprop")["final_val_accuracy"].max()
    assert rmsprop["median"].to_list()[-1] == highest


def test_without_groups_and_without_trials() -> None:
    data = synthetic_sweep(optimizers=("adam",), lrs=(0.001, 0.002), seeds=range(40)).data
    whole = best_after(data)
    assert whole["trials"].unique().to_list() == [80]
    assert whole["budget"].to_list()[:30] == list(range(1, 31))
    assert whole["budget"].to_list()[-1] == 80
    assert whole["median"].is_sorted()
    assert best_after(synthetic_sweep(finished=0).data, ["optimizer"]).is_empty()

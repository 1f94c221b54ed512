"""Means over seeds and their intervals, against values worked out by hand and a BCa interval enumerated exactly."""

import itertools
import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from analysis.intervals import bootstrap_intervals, bootstrap_mean, describe, interquartile_mean

SEEDS = {
    "accuracies": (0.8934, 0.8962, 0.8990, 0.8958, 0.9012),
    "skewed": (0.30, 0.31, 0.33, 0.90),
    "six": (0.8871, 0.8893, 0.8902, 0.8917, 0.8940, 0.9011),
}


@pytest.mark.parametrize("values", SEEDS.values(), ids=SEEDS)
def test_interval_is_the_one_of_all_possible_resamples(values: tuple[float, ...]) -> None:
    low, high = _exact_bca(values)
    estimate = bootstrap_mean(values)
    width = high - low
    assert estimate.point == pytest.approx(statistics.fmean(values))
    assert estimate.n == len(values)
    assert estimate.low == pytest.approx(low, abs=0.03 * width)
    assert estimate.high == pytest.approx(high, abs=0.03 * width)


def _exact_bca(values: tuple[float, ...]) -> tuple[float, float]:
    """Efron and Tibshirani 1993, equations 14.9 to 14.15, over all n to the power n resamples."""
    n, normal = len(values), statistics.NormalDist()
    mean = statistics.fmean(values)
    resampled = np.array(list(itertools.product(values, repeat=n))).mean(axis=1).round(12)
    below = np.count_nonzero(resampled < round(mean, 12)) + np.count_nonzero(resampled == round(mean, 12)) / 2
    bias = normal.inv_cdf(below / len(resampled))
    left_out = [(sum(values) - value) / (n - 1) for value in values]
    differences = [statistics.fmean(left_out) - value for value in left_out]
    acceleration = sum(d**3 for d in differences) / (6 * sum(d**2 for d in differences) ** 1.5)
    ends = []
    for z in (normal.inv_cdf(0.025), normal.inv_cdf(0.975)):
        level = normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        ends.append(float(np.quantile(resampled, level)))
    return ends[0], ends[1]


def test_rows_are_computed_as_if_alone() -> None:
    values = np.random.default_rng(7).gamma(2.0, 1.0, (3, 8))
    low, high = bootstrap_intervals(values)
    for row, row_low, row_high in zip(values, low, high, strict=True):
        alone = scipy.stats.bootstrap((row,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
        width = alone.confidence_interval.high - alone.confidence_interval.low
        assert row_low == pytest.approx(alone.confidence_interval.low, abs=0.04 * width)
        assert row_high == pytest.approx(alone.confidence_interval.high, abs=0.04 * width)


@pytest.mark.parametrize("values", [(0.9,), (0.9, 0.9, 0.9)], ids=["one seed", "no spread"])
def test_there_is_no_interval_without_spread(values: tuple[float, ...]) -> None:
    estimate = bootstrap_mean(values)
    assert (estimate.point, estimate.low, estimate.high, estimate.n) == (pytest.approx(0.9), None, None, len(values))


def test_rows_without_spread_leave_the_others_alone() -> None:
    low, high = bootstrap_intervals(np.array([(0.1, 0.1, 0.1), (0.1, 0.2, 0.4)]))
    assert np.isnan(low[0])
    assert np.isnan(high[0])
    assert 0.1 <= low[1] < high[1] <= 0.4


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="give at least one"):
        bootstrap_mean([])


@given(st.lists(st.integers(0, 5000), min_size=2, max_size=8))
def test_interval_stays_within_the_values(images: list[int]) -> None:
    values = [count / 5000 for count in images]
    estimate = bootstrap_mean(values)
    if estimate.low is None or estimate.high is None:
        assert max(values) == min(values)
    else:
        assert min(values) - 1e-9 <= estimate.low <= estimate.high <= max(values) + 1e-9


def test_large_tables_are_resampled_in_batches() -> None:
    values = np.random.default_rng(0).normal(0.9, 0.002, (3_000, 5))
    low, high = bootstrap_intervals(values)
    few_low, few_high = bootstrap_intervals(values[:50])
    assert np.abs(low[:50] - few_low).max() < 0.0015
    assert np.abs(high[:50] - few_high).max() < 0.0015


MIDDLES = {
    "five values lose one at either end": ((1.0, 2.0, 3.0, 4.0, 100.0), 3.0),
    "eight lose two": ((8.0, 1.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0), 4.5),
    "three lose none": ((0.0, 3.0, 9.0), 4.0),
    "one is itself": ((0.7,), 0.7),
}


@pytest.mark.parametrize(("values", "expected"), MIDDLES.values(), ids=MIDDLES)
def test_interquartile_mean(values: tuple[float, ...], expected: float) -> None:
    assert interquartile_mean(np.array([values])) == pytest.approx(expected)


def test_describe_by_hand() -> None:
    found = describe(np.array([(1.0, 2.0, 3.0, 10.0)]))
    expected = {"mean": 4.0, "median": 2.5, "iqm": 2.5, "sd": (50 / 3) ** 0.5}
    assert {name: float(found[name][0]) for name in expected} == pytest.approx(expected)


def test_one_seed_has_no_deviation() -> None:
    found = describe(np.array([(0.9,)]))
    assert found["mean"] == found["median"] == found["iqm"] == 0.9
    assert all(np.isnan(found[name][0]) for name in ("sd", "low", "high"))

"""Means over seeds and their intervals, against printed tables, scipy, and how often they hold by simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from analysis.statistics.intervals import describe, interquartile_mean, mean_intervals


def interval(*values: float) -> tuple[float, float]:
    low, high = mean_intervals(np.array([values]))
    return float(low[0]), float(high[0])


def test_interval_by_hand() -> None:
    # mean 2, deviation 1; the 97.5% point of Student's t with 2 degrees of freedom, from a printed table
    half = 4.302653 / math.sqrt(3)
    assert interval(1.0, 2.0, 3.0) == pytest.approx((2 - half, 2 + half), abs=1e-6)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_every_row_is_scipys_t_interval(n: int) -> None:
    values = np.random.default_rng(n).normal(0.9, 0.003, (4, n))
    low, high = mean_intervals(values)
    expected = scipy.stats.ttest_1samp(values, 0, axis=1).confidence_interval(0.95)
    assert low == pytest.approx(expected.low)
    assert high == pytest.approx(expected.high)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_hold_as_often_as_they_promise(n: int) -> None:
    low, high = mean_intervals(np.random.default_rng(0).normal(0.9, 0.003, (20_000, n)))
    assert ((low < 0.9) & (high > 0.9)).mean() == pytest.approx(0.95, abs=0.005)  # three standard errors


def test_intervals_end_where_no_value_can_be() -> None:
    values = np.array([(0.97, 0.99)])
    low, high = mean_intervals(values, 0, 1)
    assert (low[0], high[0]) == (pytest.approx(interval(0.97, 0.99)[0]), 1)
    assert mean_intervals(1 - values, 0, 1)[0] == 0


@pytest.mark.parametrize("values", [(0.9,), (0.9, 0.9, 0.9)], ids=["one seed", "no spread"])
def test_there_is_no_interval_without_spread(values: tuple[float, ...]) -> None:
    assert np.isnan(interval(*values)).all()


def test_rows_without_spread_leave_the_others_alone() -> None:
    low, high = mean_intervals(np.array([(0.1, 0.1, 0.1), (0.1, 0.2, 0.4)]))
    assert np.isnan([low[0], high[0]]).all()
    assert (low[1], high[1]) == interval(0.1, 0.2, 0.4)


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

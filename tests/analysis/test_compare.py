"""Paired comparisons, Holm's correction, shared ranks and the seeds it takes, against scipy, R and arithmetic."""

import math

import numpy as np
import polars as pl
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from analysis.schema import polars_schema
from analysis.statistics.compare import (
    ENOUGH_SEEDS,
    MOST_SEEDS,
    PAIR_COLUMNS,
    POWER,
    detectable_difference,
    holm,
    pairwise,
    power,
    seeds_to_decide,
    shared_ranks,
)


def compared(*rows: tuple[float, ...], family: int = 0) -> pl.DataFrame:
    return pairwise(np.array(rows, dtype=float), np.arange(len(rows), dtype=np.int32), family)


def test_one_pair_by_hand() -> None:
    # differences 2, 3, 4: mean 3, deviation 1, t = 3 sqrt(3), and with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2)
    row = compared((3, 5, 7), (1, 2, 3)).row(0, named=True)
    t = 3 * math.sqrt(3)
    p = 1 - t / math.sqrt(t**2 + 2)
    half = 4.302653 / math.sqrt(3)  # the 97.5% point of Student's t with 2 degrees of freedom, from a printed table
    expected = {"first": 0, "second": 1, "n": 3, "difference": 3, "deviation": 1, "low": 3 - half, "high": 3 + half}
    assert row == pytest.approx(expected | {"p": p, "p_holm": p, "comparisons": 1}, abs=1e-6)


def test_every_pair_is_scipys_paired_t_test_on_common_seeds() -> None:
    values = np.random.default_rng(3).normal(0.9, 0.003, (7, 6)) + np.arange(7)[:, None] * 0.001
    values[2, :1] = np.nan
    values[5, 3:] = np.nan
    pairs = compared(*values)
    assert pairs.schema == polars_schema(PAIR_COLUMNS)
    assert pairs.height == 21
    for row in pairs.rows(named=True):
        first, second = values[row["first"]], values[row["second"]]
        common = ~np.isnan(first) & ~np.isnan(second)
        test = scipy.stats.ttest_rel(first[common], second[common])
        interval = test.confidence_interval(0.95)
        assert row["n"] == common.sum()
        assert row["difference"] == pytest.approx((first - second)[common].mean(), abs=1e-12)
        assert row["deviation"] == pytest.approx((first - second)[common].std(ddof=1), abs=1e-12)
        assert (row["p"], row["low"], row["high"]) == pytest.approx((test.pvalue, interval.low, interval.high))


NAN = math.nan
UNTESTABLE = {
    "one seed": ((0.9,), (0.8,), 1, 0.1, None),
    "no common seed": ((0.9, 0.91, NAN, NAN), (NAN, NAN, 0.8, 0.81), 0, None, None),
    "one common seed": ((0.9, 0.91, NAN), (NAN, 0.81, 0.8), 1, 0.1, None),
    "equal on every seed": ((0.9, 0.91), (0.9, 0.91), 2, 0.0, 0.0),
    "no seed matters": ((0.9, 0.9, 0.9), (0.1, 0.1, 0.1), 3, 0.8, 0.0),
    "as far apart on every seed": ((0.9, 0.91, 0.93), (0.8, 0.81, 0.83), 3, 0.1, 0.0),
}


@pytest.mark.parametrize(("first", "second", "n", "difference", "deviation"), UNTESTABLE.values(), ids=UNTESTABLE)
def test_untestable_pairs_have_no_p_value(
    first: tuple[float, ...], second: tuple[float, ...], n: int, difference: float | None, deviation: float | None
) -> None:
    row = compared(first, second).row(0, named=True)
    assert row["n"] == n
    assert row["difference"] == (None if difference is None else pytest.approx(difference))
    assert row["deviation"] == deviation
    assert [row[name] for name in ("low", "high", "p", "p_holm", "comparisons")] == [None, None, None, None, 0]


@given(st.lists(st.integers(0, 4000), min_size=2, max_size=8), st.integers(0, 1000))
def test_rounding_is_no_spread(images: list[int], lead: int) -> None:
    row = compared(tuple((count + lead) / 5000 for count in images), tuple(count / 5000 for count in images)).row(
        0, named=True
    )
    assert (row["deviation"], row["p"]) == (0, None)
    assert row["difference"] == pytest.approx(lead / 5000)


def test_holm_as_in_r() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert holm(p, 4) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # R: the first four of p.adjust(c(0.01, 0.04, 0.03, 0.005, rep(1, 6)), "holm")
    assert holm(p, 10) == pytest.approx([0.09, 0.28, 0.24, 0.05])
    assert holm(np.array([0.6, 0.7]), 2) == pytest.approx([1, 1])


def test_pairs_are_corrected_together() -> None:
    values = np.random.default_rng(1).normal(0, 1, (4, 5)) + np.arange(4)[:, None]
    pairs = compared(*values)
    assert pairs["p_holm"].to_numpy() == pytest.approx(holm(pairs["p"].to_numpy(), 6))
    cautious = compared(*values, family=100)
    assert cautious["comparisons"].unique().to_list() == [100]
    assert cautious["p_holm"].to_numpy() == pytest.approx(holm(pairs["p"].to_numpy(), 100))


def test_equal_trainings_are_compared_once() -> None:
    best, other, third = (3.0, 5.0, 7.0), (1.0, 2.0, 3.0), (0.0, 2.5, 1.0)
    pairs = compared(best, best, other, third, other)
    assert pairs["comparisons"].unique().to_list() == [3]
    alone = compared(best, other, third)
    of = {(row["first"], row["second"]): row["p_holm"] for row in pairs.rows(named=True)}
    assert of[0, 1] is None
    assert of[2, 4] is None
    assert [of[0, 2], of[1, 4], of[1, 3]] == [alone["p_holm"][0], alone["p_holm"][0], alone["p_holm"][1]]


def ranks_of(values: np.ndarray) -> list[int | None]:
    """Ranks of configurations in the order of their means, the best first."""
    return shared_ranks(compared(*values), pl.Series(range(len(values)), dtype=pl.Int32))["rank"].to_list()


def test_those_that_cannot_be_told_apart_share_a_rank() -> None:
    noise = np.random.default_rng(5).normal(0, 0.001, (5, 10))
    values = noise + np.array([0.9, 0.9, 0.8, 0.8, 0.5])[:, None]
    assert ranks_of(values) == [1, 1, 3, 3, 5]


PLAINLY_WORSE = np.array(
    [
        (0.8178, 0.8148, 0.8168),
        (0.8090, 0.7932, 0.8047),
        (0.7448, 0.7040, 0.7538),
        (0.6947, 0.6782, 0.7406),
        (0.6184, 0.6245, 0.6247),
        (0.2800, 0.0926, 0.2708),
        (0.0915, 0.0931, 0.1622),
    ]
)
"""Three seeds each. The last but one scatters so much that no test tells it from the first."""


def test_a_configuration_that_is_plainly_worse_never_shares_rank_1() -> None:
    pairs = compared(*PLAINLY_WORSE)
    assert pairs.filter((pl.col("first") == 0) & (pl.col("second") == 5))["p_holm"][0] > 0.05
    ranks = ranks_of(PLAINLY_WORSE)
    assert ranks == sorted(ranks)
    assert ranks[0] == 1
    assert ranks[-2] > 1


@given(st.lists(st.tuples(*[st.integers(0, 40)] * 4), min_size=2, max_size=8))
def test_ranks_follow_the_means(images: list[tuple[int, ...]]) -> None:
    values = np.array(sorted(images, key=sum, reverse=True)) / 50
    pairs = pairwise(values, np.arange(len(values), dtype=np.int32))
    places = pl.Series([sorted(-sum(one) for one in images).index(-sum(row)) for row in sorted(images, key=sum)[::-1]])
    ranks = shared_ranks(pairs, pl.Series(range(len(values)), dtype=pl.Int32), places)["rank"].to_list()
    assert ranks == sorted(ranks)
    assert ranks[0] == 1
    for place in set(places):
        assert len({rank for rank, own in zip(ranks, places, strict=True) if own == place}) == 1


@pytest.mark.parametrize("seeds", [1, ENOUGH_SEEDS - 1])
def test_too_few_seeds_have_no_ranks(seeds: int) -> None:
    ranks = shared_ranks(compared((0.9, 0.91)[:seeds], (0.1, 0.12)[:seeds]), pl.Series([0, 1], dtype=pl.Int32))
    assert ranks["rank"].to_list() == [None, None]
    assert ranks["rank"].dtype == pl.Int32


def test_one_with_too_few_seeds_leaves_the_others_their_ranks() -> None:
    values = np.array([(0.90, 0.91, 0.92, 0.90), (0.89, NAN, NAN, 0.85), (0.5, 0.51, 0.52, 0.50)])
    assert [rank is None for rank in ranks_of(values)] == [False, True, False]


def test_equal_trainings_share_a_rank_though_untestable() -> None:
    assert ranks_of(np.array([(0.9, 0.91, 0.92)] * 2)) == [1, 1]


@pytest.mark.parametrize("n", [2, 3, 5, 25])
@pytest.mark.parametrize("difference", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("level", [0.05, 0.001])
def test_power_is_the_noncentral_t_distributions(difference: float, n: int, level: float) -> None:
    critical = scipy.stats.t.isf(level / 2, n - 1)
    shift = difference * math.sqrt(n)
    exact = scipy.stats.nct.sf(critical, n - 1, shift) + scipy.stats.nct.cdf(-critical, n - 1, shift)
    assert power(difference, 1.0, n, level) == pytest.approx(exact, abs=2e-4)
    assert power(-0.25 * difference, 0.25, n, level) == pytest.approx(exact, abs=2e-4)


NEEDED = {0.2: 199, 0.5: 34, 0.8: 15, 1.0: 10}
"""Difference in deviations -> pairs needed for 80% power at the 5% level, two-sided (Cohen 1988; G*Power)."""


@pytest.mark.parametrize(("difference", "seeds"), NEEDED.items())
def test_seeds_to_decide(difference: float, seeds: int) -> None:
    assert seeds_to_decide(difference * 0.0025, 0.0025) == seeds


def test_stricter_tests_take_more_seeds() -> None:
    assert seeds_to_decide(0.5, 1.0, comparisons=45) > seeds_to_decide(0.5, 1.0)


@pytest.mark.parametrize(("difference", "deviation"), [(0.0, 1.0), (0.0, 0.0), (1.0, 0.0), (1e-9, 1.0)])
def test_no_number_of_seeds_decides(difference: float, deviation: float) -> None:
    assert power(1e-9, 1.0, MOST_SEEDS) < POWER
    assert seeds_to_decide(difference, deviation) is None


@pytest.mark.parametrize("comparisons", [1, 378])
@pytest.mark.parametrize("n", [2, 5, 34])
def test_detectable_difference_is_found_that_often(n: int, comparisons: int) -> None:
    smallest = detectable_difference(0.0025, n, comparisons)
    assert smallest is not None
    assert power(smallest, 0.0025, n, 0.05 / comparisons) == pytest.approx(POWER, abs=1e-3)


def test_detectable_difference_of_34_seeds_is_half_a_deviation() -> None:
    assert detectable_difference(1.0, 34) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("deviation", "n"), [(1.0, 1), (0.0, 5), (math.nan, 5)])
def test_nothing_is_detectable_without_replication(deviation: float, n: int) -> None:
    assert detectable_difference(deviation, n) is None

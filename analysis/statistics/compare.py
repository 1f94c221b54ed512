"""Which configurations differ significantly, and how many seeds would tell: paired tests, Holm's correction, ranks.

Trials with the same seed start from the same weights and see the same batches, so configurations are compared seed by
seed (paired t-test). A pair is untestable (no p-value) if it has fewer than two seeds in common, or if its difference
is the same on every seed: accuracies are multiples of one image, so with few seeds this happens by chance and says
nothing about the spread. Configurations with equal values on every seed (e.g. plateau schedules that never acted) count
as one, so comparing either with a third is a single comparison.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import gammaincinv, ndtr, stdtr, stdtrit

from analysis.schema import Column, polars_schema

Array = npt.NDArray[np.float64]

LEVEL = 0.05
"""Significance level for corrected p-values."""
ENOUGH_SEEDS = 3
"""Minimum seeds in common for a pair to count for ranks: with two, almost no difference is detectable."""
POWER = 0.8
"""Statistical power at which a number of seeds is considered sufficient."""
MOST_SEEDS = 1_000_000
"""Upper limit of the search for a sufficient number of seeds."""

PAIR_COLUMNS: tuple[Column, ...] = (
    Column("first", pl.Int32, "a configuration"),
    Column("second", pl.Int32, "another, later in the given order"),
    Column("n", pl.Int32, "seeds in common"),
    Column("difference", pl.Float64, "mean over these seeds of the first's value minus the second's; null if none"),
    Column("deviation", pl.Float64, "standard deviation of the differences (n - 1); null below 2 seeds"),
    Column("low", pl.Float64, "lower end of the uncorrected 95% t interval of the difference; null if untestable"),
    Column("high", pl.Float64, "upper end of that interval"),
    Column("p", pl.Float64, "two-sided p-value of the paired t-test; null if untestable"),
    Column("p_holm", pl.Float64, "p-value after Holm's correction for all comparisons"),
    Column("comparisons", pl.Int32, "number of comparisons corrected for"),
)
"""What `pairwise` returns."""


def pairwise(values: Array, configurations: npt.NDArray[np.int32], family: int = 0) -> pl.DataFrame:
    """Compares every pair of configurations on the seeds they have in common.

    Args:
        values: Shape (configurations, seeds), NaN where a configuration lacks a seed.
        configurations: Shape (configurations,), their indices.
        family: Number of comparisons to correct for, if more than are made here: needed if the configurations are a
            selection of the best.

    Returns:
        One row for each pair, with the columns of `PAIR_COLUMNS`.
    """
    count = len(values)
    row, column = np.triu_indices(count, 1)
    has = (~np.isnan(values)).astype(np.float64)
    means = np.nansum(values, axis=1) / np.maximum(has.sum(axis=1), 1)
    residual = np.where(has > 0, values - means[:, None], 0.0)  # small numbers: their squares lose no digits
    n = (has @ has.T)[row, column]
    sums, squares = residual @ has.T, (residual**2) @ has.T
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = (sums[row, column] - sums[column, row]) / n
        apart = squares[row, column] + squares[column, row]
        total = apart - 2 * (residual @ residual.T)[row, column] - n * shift**2
        total[total < _ROUNDING * (apart + _ROUNDING)] = 0.0  # what cancellation leaves of nothing
        deviation = np.where(n > 1, np.sqrt(total / (n - 1)), np.nan)
        difference = np.where(n > 0, means[row] - means[column] + shift, np.nan)
        difference[np.abs(difference) < _ROUNDING] = 0.0
        error = np.where(deviation > 0, deviation / np.sqrt(n), np.nan)
        p = 2 * stdtr(n - 1, -np.abs(difference / error))
        degrees, which = np.unique(n - 1, return_inverse=True)
        half = stdtrit(degrees, 1 - LEVEL / 2)[which] * error
    trainings = np.unique(np.nan_to_num(values, nan=-np.inf), axis=0, return_inverse=True)[1]
    pair = np.sort(np.stack([trainings[row], trainings[column]]), axis=0)
    testable = ~np.isnan(p)
    _, first, which = np.unique((pair[0] * count + pair[1])[testable], return_index=True, return_inverse=True)
    comparisons = max(family, len(first))
    p_holm = np.full(len(p), np.nan)
    p_holm[testable] = holm(p[testable][first], comparisons)[which]
    columns = {
        "first": configurations[row],
        "second": configurations[column],
        "n": n,
        "difference": difference,
        "deviation": deviation,
        "low": difference - half,
        "high": difference + half,
        "p": p,
        "p_holm": p_holm,
        "comparisons": np.full(len(p), comparisons),
    }
    schema = polars_schema(PAIR_COLUMNS)
    return pl.DataFrame(columns).fill_nan(None).select(pl.col(name).cast(type_) for name, type_ in schema.items())


_ROUNDING = 1e-12


def holm(p: Array, comparisons: int) -> Array:
    """Applies Holm's correction to p-values, which controls the probability of any false positive.

    Args:
        p: Shape (m,).
        comparisons: Number of comparisons, at least m; the others are assumed to be the least significant.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * (comparisons - np.arange(len(p)))), 1)
    return corrected


def shared_ranks(pairs: pl.DataFrame, configurations: pl.Series, places: pl.Series | None = None) -> pl.DataFrame:
    """Returns each configuration's rank: 1 + how many are significantly better than it, or than one at least as good.

    The second condition keeps ranks in the order of the means. With few seeds, a high-variance configuration is not
    significantly worse than any other, however low its mean. It still ranks behind every configuration that is
    significantly better than one with a higher mean than its own.

    Args:
        pairs: `pairwise` of values where higher is better.
        configurations: The configurations to rank, best first.
        places: Their positions, increasing, equal for ties; None means 0, 1, 2, ...

    Returns:
        `configuration, rank`; the rank is null for one that has `ENOUGH_SEEDS` in common with no other.
    """
    order = pl.DataFrame({"configuration": configurations}).with_row_index("place")
    if places is not None:
        order = order.with_columns(place=places)
    place = order.select("configuration", pl.col("place").cast(pl.Int64))
    told = (
        pairs.filter(pl.col("p_holm") < LEVEL)
        .join(place.rename({"configuration": "first", "place": "first_place"}), on="first")
        .join(place.rename({"configuration": "second", "place": "second_place"}), on="second")
        .select(
            better=pl.when(pl.col("difference") > 0).then("first").otherwise("second"),
            above=pl.when(pl.col("difference") > 0).then("first_place").otherwise("second_place"),
            below=pl.when(pl.col("difference") > 0).then("second_place").otherwise("first_place"),
        )
        # With different seeds, the difference over common seeds can have the opposite sign of that over all seeds.
        .filter(pl.col("above") < pl.col("below"))
    )
    behind = told.group_by("better").agg(pl.col("below").min())["below"].sort().to_numpy()
    ranks = place.with_columns(rank=pl.Series(1 + np.searchsorted(behind, place["place"].to_numpy(), side="right")))
    enough = pairs.filter(pl.col("n") >= ENOUGH_SEEDS)
    compared = pl.concat([enough["first"], enough["second"]]).unique().implode()
    known = pl.col("configuration").is_in(compared)
    return ranks.select("configuration", rank=pl.when(known).then("rank").cast(pl.Int32))


def power(difference: float, deviation: float, n: int, level: float = LEVEL) -> float:
    """Returns the power of n seeds to detect a true mean difference (two-sided paired t-test, normal differences).

    Args:
        difference: The true mean difference.
        deviation: Standard deviation of the differences, above 0.
        n: Number of seeds, at least 2.
        level: Level of the test.
    """
    # The noncentral t distribution, as a normal averaged over possible sample deviations: unlike scipy's, it stays
    # accurate for few seeds and many comparisons, where critical values reach the thousands.
    seen = np.sqrt(2 * gammaincinv((n - 1) / 2, _PROBABILITIES) / (n - 1))
    shift, critical = abs(difference) / deviation * math.sqrt(n), -stdtrit(n - 1, level / 2)
    return float(np.mean(ndtr(shift - critical * seen) + ndtr(-shift - critical * seen)))


_PROBABILITIES = (np.arange(1024) + 0.5) / 1024


def detectable_difference(deviation: float, n: int, comparisons: int = 1) -> float | None:
    """Returns the smallest true difference that n seeds detect with a probability of `POWER`.

    Args:
        deviation: Standard deviation of the differences.
        n: Number of seeds.
        comparisons: Number of pairs compared; the level is that of Holm's first step.

    Returns:
        The difference, or None below 2 seeds or without spread.
    """
    if n < 2 or not deviation > 0:
        return None

    def missing(difference: float) -> float:
        return power(difference, deviation, n, LEVEL / comparisons) - POWER

    low, high = 0.0, deviation
    while missing(high) < 0:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:  # scipy's root finders take longer to import than this takes
        middle = (low + high) / 2
        low, high = (middle, high) if missing(middle) < 0 else (low, middle)
    return high


def seeds_to_decide(difference: float, deviation: float, comparisons: int = 1) -> int | None:
    """Returns how many seeds detect a difference between two configurations with a probability of `POWER`.

    Args:
        difference: Their mean difference, assumed to be the true one.
        deviation: Standard deviation of the differences over seeds, assumed to be the true one.
        comparisons: As in `detectable_difference`.

    Returns:
        At least 2, or None without spread or if `MOST_SEEDS` are not enough, e.g. for a difference of 0.
    """
    if not deviation > 0:
        return None
    numbers = range(2, MOST_SEEDS + 1)
    found = bisect_left(numbers, POWER, key=lambda n: power(difference, deviation, n, LEVEL / comparisons))
    return numbers[found] if found < len(numbers) else None

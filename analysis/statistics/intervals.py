"""Means over seeds and their uncertainty: mean, median, interquartile mean, deviation and intervals.

Pure functions of arrays. Seeds are the unit of replication: each row of values is a configuration, each column a seed.
If an interval does not exist (one seed, or all seeds agree), it is missing rather than of width 0.

Intervals are Student's t intervals (Student 1908, "The Probable Error of a Mean"). With few seeds their coverage is
about nominal, unlike that of bootstrap intervals, which are never wider than the range of the values
(tests/analysis/test_intervals.py measures it).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""Nominal coverage of the intervals."""


def mean_intervals(values: Array, least: float = -np.inf, most: float = np.inf) -> tuple[Array, Array]:
    """Returns the ends of the 95% intervals of each row's mean.

    Args:
        values: Shape (rows, n), no NaN.
        least: The lowest possible value; intervals are clipped there, which does not affect their coverage.
        most: The highest possible value.

    Returns:
        Two arrays of shape (rows,); NaN in both where n < 2 or all values of the row are equal.
    """
    rows, n = values.shape
    if n < 2:
        return np.full(rows, np.nan), np.full(rows, np.nan)
    mean, deviation = values.mean(axis=1), values.std(axis=1, ddof=1)
    half = stdtrit(n - 1, (1 + CONFIDENCE) / 2) * deviation / np.sqrt(n)
    half[np.ptp(values, axis=1) <= _ROUNDING] = np.nan
    return np.maximum(mean - half, least), np.minimum(mean + half, most)


def interquartile_mean(values: Array) -> Array:
    """Returns the interquartile mean of each row: a quarter of the values, rounded down, is dropped at either end.

    Args:
        values: Shape (rows, n), no NaN.
    """
    cut = values.shape[1] // 4
    middle: Array = np.sort(values, axis=1)[:, cut : values.shape[1] - cut].mean(axis=1)
    return middle


def describe(values: Array, least: float = -np.inf, most: float = np.inf) -> dict[str, Array]:
    """Returns the statistics of each row: `mean, median, iqm, sd, low, high`.

    Args:
        values: Shape (rows, n), no NaN, n at least 1.
        least: As in `mean_intervals`.
        most: As in `mean_intervals`.

    Returns:
        Arrays of shape (rows,); NaN if there is no interval, and for the standard deviation (n - 1) of a single value.
    """
    rows, n = values.shape
    low, high = mean_intervals(values, least, most)
    return {
        "mean": values.mean(axis=1),
        "median": np.median(values, axis=1),
        "iqm": interquartile_mean(values),
        "sd": values.std(axis=1, ddof=1) if n > 1 else np.full(rows, np.nan),
        "low": low,
        "high": high,
    }


_ROUNDING = 1e-12

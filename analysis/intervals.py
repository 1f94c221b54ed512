"""Means over seeds and their uncertainty: mean, median, interquartile mean, deviation and intervals.

Pure functions of numbers. Seeds are the unit of replication: every row of values is one configuration, every column a
seed. Where an interval does not exist (one seed, or seeds that all agree) it is missing, never a point of width 0.

Intervals are Student's t intervals (Student 1908, "The Probable Error of a Mean"): with a handful of seeds they hold
the true mean about as often as they promise, which bootstrap intervals do not: none is wider than the range of its
values (tests/analysis/test_intervals.py counts).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""How often an interval holds the true mean, in the long run."""


def mean_intervals(values: Array, least: float = -np.inf, most: float = np.inf) -> tuple[Array, Array]:
    """Returns the ends of the 95% intervals of each row's mean.

    Args:
        values: Shape (rows, n), no NaN.
        least: The lowest value there can be: intervals end there, which takes nothing away from how often they hold.
        most: The highest one.

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
    """Returns each row's mean of the middle half: a quarter of the values, rounded down, is cut off at either end.

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
        least: As of `mean_intervals`.
        most: As of `mean_intervals`.

    Returns:
        Arrays of shape (rows,); NaN where there is no interval, and for the deviation (over n - 1) of a single value.
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

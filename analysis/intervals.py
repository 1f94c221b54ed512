"""Points and their uncertainty: mean, median, interquartile mean, deviation and bootstrap intervals over seeds.

Pure functions of numbers. Seeds are the unit of replication: every row of values is one configuration, every column a
seed. Where an interval does not exist (one seed, or seeds that all agree) it is None, never a point of width 0.

Intervals are bias-corrected and accelerated bootstrap intervals (BCa: Efron 1987, "Better Bootstrap Confidence
Intervals", through `scipy.stats.bootstrap`). No bootstrap interval of a mean is wider than the range of its values, so
below about 10 seeds they cover less often than they promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.stats

Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""Share of the intervals that hold the true value, in the long run and with enough seeds."""

_MOST_RESAMPLES, _FEWEST_RESAMPLES = 9_999, 999
_RESAMPLED_MEANS = 2_000_000
_MEANS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and how sure it is."""

    point: float
    low: float | None
    """Lower end of the 95% interval; None where there is none."""
    high: float | None
    n: int
    """Number of values."""


def bootstrap_mean(values: Sequence[float] | Array) -> Estimate:
    """Returns the mean of some values with its interval.

    Raises:
        ValueError: There are no values.
    """
    row = np.asarray(values, dtype=np.float64)
    if row.size == 0:
        raise ValueError("the mean of no values does not exist; give at least one")
    low, high = bootstrap_intervals(row[None, :])
    ends = [None if np.isnan(end[0]) else float(end[0]) for end in (low, high)]
    return Estimate(float(row.mean()), ends[0], ends[1], row.size)


def bootstrap_intervals(values: Array) -> tuple[Array, Array]:
    """Returns the ends of the intervals of each row's mean.

    Args:
        values: Shape (rows, n), no NaN.

    Returns:
        Two arrays of shape (rows,); NaN in both where n < 2 or all values of the row are equal.
    """
    rows, n = values.shape
    low, high = np.full(rows, np.nan), np.full(rows, np.nan)
    spread = np.ptp(values, axis=1) > _ROUNDING if n > 1 else np.zeros(rows, dtype=bool)
    if spread.any():
        varied, columns = values[spread], np.arange(n)

        def means(resampled: npt.NDArray[np.int64], axis: int) -> Array:
            # What is resampled is columns, and weights of columns times values are one matrix product for all rows. The
            # bias correction counts means equal to the data's own: they must not differ by rounding alone.
            weights = (resampled[..., None] == columns).sum(axis=-2) / resampled.shape[axis]
            return np.asarray(np.round(varied @ weights.T, 12), dtype=np.float64)

        interval = scipy.stats.bootstrap(
            (columns,),
            means,
            vectorized=True,
            n_resamples=int(np.clip(_RESAMPLED_MEANS // len(varied), _FEWEST_RESAMPLES, _MOST_RESAMPLES)),
            batch=max(1, _MEANS_AT_ONCE // len(varied)),
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval
        low[spread], high[spread] = interval.low, interval.high
    return low, high


def interquartile_mean(values: Array) -> Array:
    """Returns each row's mean of the middle half: a quarter of the values, rounded down, is cut off at either end.

    Args:
        values: Shape (rows, n), no NaN.
    """
    trimmed: Array = np.asarray(scipy.stats.trim_mean(values, 0.25, axis=1))
    return trimmed


def describe(values: Array) -> dict[str, Array]:
    """Returns the statistics of each row: `mean, median, iqm, sd, low, high`.

    Args:
        values: Shape (rows, n), no NaN, n at least 1.

    Returns:
        Arrays of shape (rows,); NaN where there is no interval, and for the deviation (over n - 1) of a single value.
    """
    rows, n = values.shape
    low, high = bootstrap_intervals(values)
    return {
        "mean": values.mean(axis=1),
        "median": np.median(values, axis=1),
        "iqm": interquartile_mean(values),
        "sd": values.std(axis=1, ddof=1) if n > 1 else np.full(rows, np.nan),
        "low": low,
        "high": high,
    }


_ROUNDING = 1e-12

"""Components of variance: what initial weights, the order of the images and the choice of examples make of a spread.

Trainings that differ in nothing but luck end differently. Initial weights and orders are two crossed random factors,
with one training in each cell: y[i, j] = mean + a[i] + b[j] + c[i, j], where c is what a pair of both makes beyond
either. The components are estimated from mean squares by their expectations (Searle, Casella and McCulloch 1992,
*Variance Components*, chapter 4): that of a is (MS_a - MS_c) / J, and so on.

What is still open after an epoch is the variance of trainings that were the same until then: by the law of total
variance it is the variance of all trainings less that of what is settled. It is the mean square within trunks.

Examples are a third crossed random factor, of which there are many: the accuracy on n of them has, besides the variance
over trainings that it would have on all examples there could be, that of right and wrong within examples, divided by n
(Brennan 2001, *Generalizability Theory*; of trainings, Jordan 2023, arXiv:2304.01910).

Intervals are generalized confidence intervals (Weerahandi 1993, JASA 88:899-905; Hannig, Iyer and Patterson 2006, JASA
101:254-269): a mean square times its degrees of freedom is its expectation times a chi-square variable, so dividing by
draws of that gives draws of the expectation, and any function of them has the quantiles of its draws as an interval.
They assume normal effects. How often they cover is measured by `tests/benchmarks/luck.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.statistics.intervals import CONFIDENCE

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Drawn = npt.NDArray[np.float64]
"""A quantity, of shape (1 + DRAWS,): its estimate, and draws of what it may be. Functions of it are computed on all."""

DRAWS = 10_000
"""Draws behind each interval; always the same ones, so that the same data give the same interval."""

WEIGHTS, ORDER, BOTH = "initial weights", "order", "both together"
"""The components: of the initial weights, of the order of the images, and of their pair beyond either."""


class Estimate(NamedTuple):
    """An estimate and the ends of its 95% interval."""

    value: float
    low: float
    high: float


def estimate(drawn: Drawn) -> Estimate:
    """Returns the estimate of a quantity with its interval, which contains it."""
    tail = (1 - CONFIDENCE) / 2
    value, (low, high) = float(drawn[0]), np.quantile(drawn[1:], (tail, 1 - tail)).tolist()
    return Estimate(value, min(low, value), max(high, value))


class Chance:
    """Where draws come from: the same ones in the same order for every instance."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def expectation(self, square: float, degrees: int) -> Drawn:
        """Returns what the expectation of a mean square may be."""
        drawn: Drawn = square * np.append(1.0, degrees / self._random.chisquare(degrees, DRAWS))
        return drawn

    def mean(self, values: Array) -> Drawn:
        """Returns what the mean may be that many independent values (n,) are a sample of."""
        error = values.std(ddof=1) / np.sqrt(len(values))
        drawn: Drawn = values.mean() + error * np.append(0.0, self._random.standard_normal(DRAWS))
        return drawn


@dataclass(frozen=True, kw_only=True)
class Components:
    """What a spread of final values is made of."""

    total: Drawn
    """The variance of a training with other initial weights and another order."""
    shares: Mapping[str, Drawn]
    """`WEIGHTS`, `ORDER` and `BOTH` -> the share of that variance; they sum to 1."""


def components(table: Array, chance: Chance) -> Components | None:
    """Returns the components of the variance of crossed trainings.

    Args:
        table: Final values, of shape (initial weights, orders), two or more of each, no NaN.
        chance: Where draws come from.

    Returns:
        None if all values are the same.
    """
    rows, columns = table.shape
    if np.ptp(table) == 0:
        return None
    degrees = (rows - 1, columns - 1, (rows - 1) * (columns - 1))
    squares = mean_squares(table)
    a, b, c = (chance.expectation(float(square), free) for square, free in zip(squares, degrees, strict=True))
    # A component is not negative, but their sum is unbiased only if none is cut off.
    parts = np.stack([np.maximum(0.0, a - c) / columns, np.maximum(0.0, b - c) / rows, c])
    shares = parts / parts.sum(axis=0)
    return Components(
        total=total(a, b, c, rows, columns), shares=dict(zip((WEIGHTS, ORDER, BOTH), shares, strict=True))
    )


def mean_squares(tables: Array) -> tuple[Array, Array, Array]:
    """Returns the mean squares of rows, columns and the rest.

    Args:
        tables: Shape (rows, columns, ...); every further index is a table of its own.
    """
    rows, columns = tables.shape[:2]
    mean = tables.mean(axis=(0, 1))
    of_rows, of_columns = tables.mean(axis=1) - mean, tables.mean(axis=0) - mean
    rest = tables - mean - of_rows[:, None] - of_columns[None]
    squares = (columns * (of_rows**2).sum(0), rows * (of_columns**2).sum(0), (rest**2).sum((0, 1)))
    return squares[0] / (rows - 1), squares[1] / (columns - 1), squares[2] / ((rows - 1) * (columns - 1))


def total(a: Array, b: Array, c: Array, rows: int, columns: int) -> Array:
    """Returns the variance of a value of which row and column are new, from the mean squares of crossed tables."""
    return a / columns + b / rows + c * (1 - 1 / rows - 1 / columns)


def still_open(trunks: Sequence[Array], chance: Chance) -> Drawn | None:
    """Returns the variance that is still open where trunks fork.

    Args:
        trunks: For each trunk the final values of the trainings that are the same until then, the trunk's own included.
        chance: Where draws come from.

    Returns:
        None if no trunk has two values.
    """
    degrees = sum(len(values) - 1 for values in trunks)
    if not degrees:
        return None
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in trunks)
    return chance.expectation(squares / degrees, degrees)


def share(part: Drawn, whole: Drawn) -> Drawn:
    """Returns the share of a variance in one that it is a part of."""
    found: Drawn = np.clip(part / whole, 0, 1)
    return found


def of_examples(right: Mask, whole: Drawn, chance: Chance) -> Drawn:
    """Returns the variance that the choice of examples adds to an accuracy, at most the whole.

    Args:
        right: Which examples are right, of shape (initial weights, orders, examples).
        whole: The variance of all trainings, of which it is a part.
        chance: Where draws come from.
    """
    rows, columns, examples = right.shape
    within = chance.mean(total(*mean_squares(right.astype(np.float64)), rows, columns))
    part: Drawn = np.clip((within - whole) / (examples - 1), 0, whole)
    return part


def with_more_examples(whole: Drawn, part: Drawn, times: float) -> Drawn:
    """Returns the factor that so many times the examples make of the standard error of a mean over trainings.

    Args:
        whole: The variance of a training's accuracy.
        part: What the choice of examples makes of it.
        times: More than 1.
    """
    return np.sqrt(1 - part / whole * (1 - 1 / times))

"""Statements about differences that survive looking: confidence sequences, and what they say of a pair.

A confidence sequence is an interval for every number of seeds such that, with the promised probability, *all* of them
hold at once. So seeds may be added, looked at, and added again, and what an interval once excluded stays excluded.

The paired differences of two configurations are taken to be normal with unknown mean and deviation. For a mean in
question, the evidence against it is the ratio of two marginal likelihoods: the mean scattering around it with g times
the variance of the differences, averaged over some g, against the mean itself; the deviation is averaged over its right
Haar prior. That ratio is a martingale if the mean is the true one, so that it ever exceeds 1 / level has a probability
of at most the level (Ville's inequality). With n differences of mean m, squares V around it, and A = 1 + n g, it is

    A^(-1/2) ((V + n m^2) / (V + n m^2 / A))^(n / 2)

Source: Robbins 1970, "Statistical Methods Related to the Law of the Iterated Logarithm" (mixtures); Lai 1976, "On
Confidence Sequences" (unknown deviation); Hendriksen, de Heide and Gruenwald 2021, "Optional Stopping with Bayes
Factors"; Perez-Ortiz et al. 2024, "E-statistics, Group Invariance and Anytime-Valid Testing"; Wang and Ramdas 2025,
"Anytime-valid t-tests and Confidence Sequences for Gaussian Means with Unknown Variance".

With two or three seeds a deviation is next to unknown, and such intervals are infinite. Where many configurations are
compared, the others tell how much differences scatter: `spread` fits a prior of the deviation to them as limma does
(Smyth 2004, "Linear Models and Empirical Bayes Methods"), worth so many degrees of freedom; they are added to the
pair's own: V + degrees * deviation^2 in place of V, and n + degrees in the exponent. For a prior that is known this is
a martingale as well, on average over the deviations it stands for. It is fitted, so what holds is what the simulation
shows (`python -m tests.benchmarks.racing`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, zeta

Array = npt.NDArray[np.float64]

LEVEL = 0.05
"""How often, at most, an interval may ever miss the true mean."""
EFFECTS = ((1.0, 0.5), (100.0, 0.5))
"""The g that are averaged over where others tell how much differences scatter, and their weights. A g is a variance of
the true mean, in units of the differences' variance: a small one finds small differences soonest, a large one shows
with three seeds what is plain to see."""
ALONE = ((0.5, 0.8), (100.0, 0.2))
"""The same where nothing but a pair's own differences does. The large one has the smaller weight, as it is with three
seeds that the normal model matters most: with the weights of `EFFECTS`, differences as skewed as an exponential
distribution are shown to differ from their mean 5.4% of the time after 3, 5 and 10 seeds, with these 4.2%."""
CLIP = 3.0
"""How many of the usual deviations above their median differences count in full, see `intervals`."""
MOST_DEGREES = 4.0
"""Degrees of freedom that other configurations count for at most, however alike they look: with more, a best
configuration that varies far more than the others is dropped too often (5.6% instead of 3% at 15 times their deviation,
`erratic best` in the benchmark)."""
MOST_POOLED = 40
"""Configurations that a spread is fitted to; more tell no more."""
MOST_SEEDS = 100_000
"""Where the search for enough seeds ends."""

DIFFER = "differ"
EQUAL = "practically equal"
UNKNOWN = "cannot tell"


@dataclass(frozen=True)
class Spread:
    """How much the differences of pairs like these scatter, before a pair's own have been looked at."""

    degrees: float = 0.0
    """How many degrees of freedom that is worth; 0 where nothing is known."""
    deviation: float = 0.0
    """The usual standard deviation of a pair's differences."""


UNKNOWN_SPREAD = Spread()


def spread(values: Array) -> Spread:
    """Returns what a set of configurations tells about the deviation of a pair's differences.

    Args:
        values: Shape (configurations, seeds), NaN where a configuration lacks a seed: configurations that are alike in
            what they reach, the best first; the first `MOST_POOLED` are used.

    Returns:
        No more degrees of freedom than the configurations other than a pair's have, nor than `MOST_DEGREES`; none for
        less than three.
    """
    values = values[:MOST_POOLED]
    values = values[(~np.isnan(values)).sum(axis=1) > 1]
    if len(values) < 3:
        return UNKNOWN_SPREAD
    row, column = np.triu_indices(len(values), 1)
    _, squares, n = _moments(values[row] - values[column])
    degrees = n - 1
    known = (degrees > 0) & (squares > _ROUNDING)
    if not known.any():
        return UNKNOWN_SPREAD
    degrees, squares = degrees[known], squares[known]
    half, which = np.unique(degrees / 2, return_inverse=True)
    log = np.log(squares / degrees) + (np.log(half) - digamma(half))[which]
    excess = float(np.var(log) * (1 + 4 / len(values)) - np.mean(zeta(2, half)[which]))
    most = float((len(values) - 2) * degrees.mean())
    fitted = _inverse_trigamma(excess) * 2 if excess > 0 else math.inf
    shift = float(digamma(fitted / 2)) - math.log(fitted / 2) if fitted < math.inf else 0.0
    worth = min(fitted, most, MOST_DEGREES)
    return Spread(worth, math.exp((float(log.mean()) + shift) / 2))


def intervals(differences: Array, level: float = LEVEL, prior: Spread = UNKNOWN_SPREAD) -> tuple[Array, Array]:
    """Returns the ends of the anytime-valid interval of each pair's mean difference.

    One of its ends is nearer than the normal model has it where differences are skewed, as those to a configuration
    that fails on some seeds: a difference that lies far above the others can only raise the mean, but it widens a
    symmetric interval in both directions. So for the lower end, differences count no more than `CLIP` usual deviations
    above their median (the clipped mean is at most the mean, so what is below the one is below the other), and
    likewise for the upper end.

    Args:
        differences: Shape (pairs, n), NaN where a pair lacks a seed.
        level: How often, at most, such an interval may ever miss its mean.
        prior: What is known of the deviation.

    Returns:
        Two arrays of shape (pairs,): infinite where nothing is excluded yet, NaN where there is no interval, below two
        differences, and without a prior where all are equal.
    """
    far = CLIP * prior.deviation if prior.degrees > 0 else math.inf
    upper = lower = differences
    if math.isfinite(far) and differences.size:
        middle = _median(differences)
        upper, lower = np.minimum(differences, middle + far), np.maximum(differences, middle - far)
    n = (~np.isnan(differences)).sum(axis=1)
    numbers, which = np.unique(n, return_inverse=True)
    reaches = np.array([reach(int(k), int(k) + prior.degrees, level) if k > 1 else np.nan for k in numbers])[which]
    mean, half = _around(upper, reaches, prior)
    low = mean - half
    if lower is not upper:
        mean, half = _around(lower, reaches, prior)
    return low, mean + half


def verdicts(low: Array, high: Array, care: float | None = None) -> npt.NDArray[np.str_]:
    """Returns what intervals say: `DIFFER`, `EQUAL` or `UNKNOWN`.

    A pair that is shown to differ by less than what matters is both; it is called equal, which is what was asked for.

    Args:
        low: Lower ends of intervals of differences; NaN where there is none.
        high: Upper ends.
        care: The smallest difference that matters; None if any does.
    """
    said = np.full(np.shape(low), UNKNOWN, dtype=f"<U{len(EQUAL)}")
    said[(low > 0) | (high < 0)] = DIFFER
    if care is not None:
        said[(low >= -care) & (high <= care)] = EQUAL
    return said


def pair_level(left: int, count: int, level: float = LEVEL) -> float:
    """Returns the two-sided level of a pair's interval when configurations are dropped step by step (see `rounds`).

    Args:
        left: Configurations not yet shown to be worse than some other.
        count: All of them.
        level: How often, at most, all that is said may be wrong.
    """
    return min(1.0, 2 * level / (left * (count - 1))) if left > 0 and count > 1 else level


def row_means(values: Array) -> Array:
    """Returns the mean of each row, NaN left out; NaN for a row without values."""
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Array = np.nansum(values, axis=1) / (~np.isnan(values)).sum(axis=1)
    return means


def half_width(n: int, deviation: float, level: float = LEVEL, prior: Spread = UNKNOWN_SPREAD) -> float:
    """Returns how far the interval of n differences of a deviation reaches to either side of their mean."""
    total = prior.degrees * prior.deviation**2 + (n - 1) * deviation**2
    return math.sqrt(total * reach(n, n + prior.degrees, level) / n) if n > 1 and total > 0 else math.inf


def seeds_to_decide(
    difference: float,
    deviation: float,
    level: float = LEVEL,
    care: float | None = None,
    prior: Spread = UNKNOWN_SPREAD,
) -> int | None:
    """Returns how many seeds it takes until a pair is decided, if its mean and deviation are and stay the ones given.

    Args:
        difference: Mean difference.
        deviation: Deviation of the differences.
        level: As of `intervals`.
        care: As of `verdicts`.
        prior: As of `intervals`.

    Returns:
        At least 2, or None if `MOST_SEEDS` are not enough.
    """
    apart = abs(difference)
    within = max(apart, care - apart if care is not None else 0.0)
    if not within > 0 or not deviation > 0:
        return None
    numbers = range(2, MOST_SEEDS + 1)
    found = bisect_left(numbers, -within, key=lambda n: -half_width(n, deviation, level, prior))
    return numbers[found] if found < len(numbers) else None


@lru_cache(maxsize=65536)
def reach(n: int, exponent: float, level: float) -> float:
    """Returns the largest n m^2 / V that does not exclude 0; infinite if none does.

    Args:
        n: Number of differences.
        exponent: The same, and the degrees of freedom of the prior.
        level: As of `intervals`.
    """
    effects = EFFECTS if exponent > n else ALONE
    scales = [(1 + n * effect, math.log(weight) - math.log1p(n * effect) / 2) for effect, weight in effects]

    def evidence(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        logs = [log + exponent / 2 * (math.log1p(ratio) - math.log1p(ratio / scale)) for scale, log in scales]
        top = max(logs)
        return top + math.log(math.fsum(math.exp(log - top) for log in logs)) + math.log(level)

    low, high = -40.0, 40.0
    if evidence(high) < 0:
        return math.inf
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if evidence(middle) < 0 else (low, middle)
    return math.exp(high)


_ROUNDING = 1e-18


def _moments(values: Array) -> tuple[Array, Array, Array]:
    """Returns each row's mean, its squares around it, and how many values it has."""
    has = ~np.isnan(values)
    n = has.sum(axis=1).astype(np.float64)
    if has.all():
        means = values.sum(axis=1) / n
        return means, ((values - means[:, None]) ** 2).sum(axis=1), n
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(has, values, 0.0).sum(axis=1) / n
        squares = np.where(has, (values - means[:, None]) ** 2, 0.0).sum(axis=1)
    return means, squares, n


def _median(values: Array) -> Array:
    """Returns the median of each row, as a column, NaN left out; of two in the middle the lower one."""
    ordered = np.sort(values, axis=1)
    n = (~np.isnan(values)).sum(axis=1)
    middle: Array = np.take_along_axis(ordered, np.maximum((n - 1) // 2, 0)[:, None], axis=1)
    return middle


def _around(differences: Array, reaches: Array, prior: Spread) -> tuple[Array, Array]:
    """Returns each row's mean, and how far its interval reaches to either side; NaN where there is none."""
    means, squares, n = _moments(differences)
    total = squares + prior.degrees * prior.deviation**2
    total[~(total > _ROUNDING)] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return means, np.sqrt(total * reaches / n)


def _inverse_trigamma(value: float) -> float:
    """Returns x with trigamma(x) = zeta(2, x) = value (Newton's method of Smyth 2004, appendix)."""
    if value > 1e7:
        return 1 / math.sqrt(value)
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(zeta(2, x))
        step = -trigamma * (1 - trigamma / value) / (2 * float(zeta(3, x)))
        x += step
        if -step / x < 1e-8:
            break
    return x

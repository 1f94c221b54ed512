"""Comparable means of configurations that ran with different seeds.

Some seeds are easier than others. A configuration that ran only on an easy seed must not rank above one that ran on
hard seeds too. So accuracy is modelled as the sum of a configuration effect and a seed effect, and the adjusted mean is
the model's average over all seeds: the least-squares (or estimated marginal) mean of an additive model (Searle, Speed
and Milliken 1980, "Population Marginal Means in the Linear Model"). In a full grid it equals the plain mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_ROUNDS = 4
"""Iterations of estimating each configuration's variance and reweighting."""


def adjusted_means(values: Array) -> Array:
    """Estimates each configuration's mean as if it had been run with every seed.

    Configurations with high variance, such as one that fails on some seeds, say little about how easy a seed is. Each
    is weighted by its inverse variance around the model, but none more than the median one. Groups without a common
    seed are compared as if their seeds were equally easy.

    Args:
        values: Shape (configurations, seeds), NaN where a configuration lacks a seed; at least one value per row.

    Returns:
        Shape (configurations,).
    """
    has = ~np.isnan(values)
    known = np.where(has, values, 0.0)
    count = has.sum(axis=1)
    means: Array = known.sum(axis=1) / count
    if has.all():
        return means
    weights = np.ones(len(values))
    several = count > 1
    easiness = np.zeros(values.shape[1])
    for _ in range(_ROUNDS):
        easiness = _seed_effects(known, has, weights)
        without = np.where(has, known - easiness, 0.0)
        level = without.sum(axis=1) / count
        scatter = np.where(has, (without - level[:, None]) ** 2, 0.0).sum(axis=1) / np.maximum(count - 1, 1)
        if several.any():
            middle = max(float(np.median(scatter[several])), _ROUNDING)
            weights = np.where(several, middle / np.maximum(scatter, middle), 1.0)
    adjusted: Array = np.where(has, known - easiness, 0.0).sum(axis=1) / count
    return np.where(count == values.shape[1], means, adjusted)


_ROUNDING = 1e-12


def _seed_effects(known: Array, has: npt.NDArray[np.bool_], weights: Array) -> Array:
    """Returns the effect of each seed, 0 on average: the minimum-norm weighted least-squares solution."""
    weighted = has * weights[:, None]
    share = weighted / has.sum(axis=1)[:, None]
    normal = np.diag(weighted.sum(axis=0)) - has.T.astype(np.float64) @ share
    right = (weighted * known).sum(axis=0) - share.T @ known.sum(axis=1)
    solution: Array = np.linalg.lstsq(normal, right, rcond=None)[0]
    effects: Array = solution - solution.mean()
    return effects

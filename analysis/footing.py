"""Means of configurations that ran with different seeds, on a common footing.

Some seeds are easier than others. One that has only an easy seed must not rank above one that has it too and hard ones
besides. So accuracy is taken to be the sum of what a configuration and what a seed contribute, and a configuration's
adjusted mean is what the sum gives on average over all seeds: the least-squares (or estimated marginal) mean of an
additive model (Searle, Speed and Milliken 1980, "Population Marginal Means in the Linear Model"). In a full grid that
is the plain mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_ROUNDS = 4
"""Of estimating how much configurations scatter and weighing them by that."""


def adjusted_means(values: Array) -> Array:
    """Returns each configuration's mean as if it had been run with every seed.

    Configurations that scatter widely, such as one that fails on some seeds, say little about how easy a seed is: each
    is weighed by the inverse of its variance around the model, but none by more than the middle one. Groups without a
    seed in common are compared as if their seeds were equally easy.

    Args:
        values: Shape (configurations, seeds), NaN where a configuration lacks a seed; at least one value a row.

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
    """Returns what each seed adds, 0 on average: the weighted least-squares solution of the smallest norm."""
    weighted = has * weights[:, None]
    share = weighted / has.sum(axis=1)[:, None]
    normal = np.diag(weighted.sum(axis=0)) - has.T.astype(np.float64) @ share
    right = (weighted * known).sum(axis=0) - share.T @ known.sum(axis=1)
    solution: Array = np.linalg.lstsq(normal, right, rcond=None)[0]
    effects: Array = solution - solution.mean()
    return effects

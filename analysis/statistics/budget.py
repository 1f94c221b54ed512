"""The best that a budget of trials finds: which optimizer, if you can afford 10 trials?

A budget of k runs k different trials of a group, drawn at random; its result is the best of them. Diverged trials use
up budget and find nothing. Based on Dodge et al. 2019, "Show Your Work: Improved Reporting of Experimental Results",
but drawn without replacement, and with quantiles instead of the mean, since the best of only diverged trials is
undefined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import gammaln

from analysis.aggregate import CHOICE
from analysis.loading import FINISHED, SweepData
from workloads.trial import FINAL_STATUSES

Array = npt.NDArray[np.float64]

QUANTILES: dict[str, float] = {"low": 0.1, "median": 0.5, "high": 0.9}
"""Quantiles of the best of k: it is at most that value with this probability (rounded up to an attainable one)."""


def best_of(values: Array, budgets: npt.NDArray[np.int64], quantile: float) -> Array:
    """Returns a quantile of the best of k values drawn without replacement, for each k.

    Args:
        values: Shape (n,), NaN for a trial without a result.
        budgets: Shape (budgets,), each k in 1..n.
        quantile: Between 0 and 1.

    Returns:
        Shape (budgets,): the smallest value that the best of k does not exceed with that probability; NaN if that is
        no result.
    """
    ordered = np.sort(np.nan_to_num(values, nan=-np.inf))
    n, rank = len(ordered), np.arange(1, len(ordered) + 1)[:, None]
    # P(best of k <= the value of rank i) = C(i, k) / C(n, k), and 0 where i < k
    with np.errstate(invalid="ignore"):
        log = gammaln(rank + 1) - gammaln(rank - budgets + 1) - gammaln(n + 1) + gammaln(n - budgets + 1)
        probability = np.where(rank >= budgets, np.exp(log), 0.0)
    found = ordered[(probability >= quantile - 1e-9).argmax(axis=0)]
    return np.where(np.isinf(found), np.nan, found)


def best_after(data: SweepData, by: Sequence[str] = ()) -> pl.DataFrame:
    """Returns the best final validation accuracy that k random trials find, for each group and a range of k.

    The lowest is the best where that is better: `low` is then above `high`.

    Args:
        data: The sweeps; trials without a final status are ignored. One that was stopped early was tried too, and finds
            nothing: it was not among the best.
        by: Columns of its trials whose values make the groups, e.g. the optimizer.

    Returns:
        The columns of `by`, `budget` (k: every one up to 30, then about 30 more), `low, median, high` as in `QUANTILES`
        (null where it would be no result), and `trials`, the size of the group; groups in the order of the trials.
    """
    scored = data.trials.filter(pl.col("status").is_in([*sorted(FINAL_STATUSES), "early_stopped"])).with_columns(
        pl.when(pl.col("status").is_in(FINISHED)).then(CHOICE).alias("score")
    )
    sign = data.measure.sign
    schema = {name: scored.schema[name] for name in by} | _BUDGET_SCHEMA
    frames = [pl.DataFrame(schema=schema)]
    for group in scored.with_columns(all=0).partition_by(*by, "all", maintain_order=True):
        n, scores = group.height, sign * group["score"].to_numpy()
        budgets = np.union1d(np.arange(1, min(n, 30) + 1), np.geomspace(1, n, 30).round().astype(np.int64))
        quantiles = {name: sign * best_of(scores, budgets, quantile) for name, quantile in QUANTILES.items()}
        keys = {name: pl.Series(name, [group[name][0]] * len(budgets), schema[name]) for name in by}
        frames.append(
            pl.DataFrame(keys | {"budget": budgets} | quantiles | {"trials": [n] * len(budgets)}).fill_nan(None)
        )
    return pl.concat(frames)


_BUDGET_SCHEMA = {"budget": pl.Int64(), **dict.fromkeys(QUANTILES, pl.Float64()), "trials": pl.Int64()}

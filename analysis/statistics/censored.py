"""Epochs to reach a target; trials that never reach it are censored, not dropped.

A trial that ended without reaching the target would have needed longer than it ran. Shares are Kaplan-Meier estimates
(Kaplan and Meier 1958, "Nonparametric Estimation from Incomplete Observations"). A diverged trial will never reach the
target, so it counts as observed for all planned epochs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import polars as pl

from workloads.measure import ACCURACY, Measure

LADDER: tuple[float, ...] = (
    *(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88),
    *(0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995),
)
"""Usual target accuracies."""
DIGITS: tuple[float, ...] = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
"""What usual targets of other measures begin with."""


def usual_targets(epochs: pl.DataFrame, measure: Measure = ACCURACY, count: int = 3) -> tuple[float, ...]:
    """Returns the best usual targets that some record reached, the easiest first.

    For a share those are of `LADDER`, else round numbers that begin with `DIGITS`.

    Args:
        epochs: `val_accuracy`; others are ignored.
        measure: What that holds.
        count: How many at most.
    """
    sign = measure.sign
    best = (sign * epochs["val_accuracy"]).max()
    if not isinstance(best, float):
        return ()
    usual = LADDER if measure.is_share else tuple(_round_numbers(best, count))
    reached = sorted(sign * target for target in usual if sign * target <= best)
    return tuple(sign * target for target in reached[-count:])


def _round_numbers(around: float, count: int) -> Iterator[float]:
    """Yields round numbers, at least `count` of them on either side of a number and of its opposite."""
    yield 0.0
    if around:
        decade = math.floor(math.log10(abs(around)))
        powers = range(decade - 1, decade + 2)
        yield from (float(f"{sign * digit}e{power}") for power in powers for digit in DIGITS for sign in (1, -1))


def epochs_to_target(
    trials: pl.DataFrame, epochs: pl.DataFrame, target: float, measure: Measure = ACCURACY
) -> pl.DataFrame:
    """Returns how long each trial took to reach a validation accuracy, or how long it was observed without reaching it.

    Args:
        trials: `trial_id, configuration, seed, status, epochs, epochs_run`; others are ignored.
        epochs: `trial_id, epoch, val_accuracy`; others are ignored.
        target: Validation accuracy to reach.
        measure: What the accuracies are; where lower is better, a target is reached at or below it.

    Returns:
        `configuration, seed, trial_id, epoch, reached`: `epoch` (Int32) is the first with at least the target if
        `reached`, else the last observed. Trials that have no record and did not diverge are dropped.
    """
    first = (
        epochs.filter(measure.sign * pl.col("val_accuracy") >= measure.sign * target)
        .group_by("trial_id")
        .agg(pl.col("epoch").min())
    )
    watched = pl.when(pl.col("status") == "diverged").then("epochs").otherwise("epochs_run")
    return (
        trials.join(first, on="trial_id", how="left", maintain_order="left")
        .with_columns(reached=pl.col("epoch").is_not_null(), epoch=pl.coalesce("epoch", watched))
        .filter(pl.col("epoch") > 0)
        .select("configuration", "seed", "trial_id", pl.col("epoch").cast(pl.Int32), "reached")
    )


def reached_share(times: pl.DataFrame, by: Sequence[str] = ("configuration",)) -> pl.DataFrame:
    """Returns the estimated share of trials that have reached the target by each epoch (1 minus Kaplan-Meier).

    Args:
        times: `epoch` and `reached` of each trial, and the columns of `by`.
        by: Columns whose values make the groups, e.g. the configuration.

    Returns:
        The columns of `by`, `epoch`, `share`, `trials` (of the group): a row for each epoch at which a trial reached
        the target or was last observed, in order. A share holds until the next row's epoch; before the first it is 0.
    """
    counts = (
        times.group_by(*by, "epoch")
        .agg(reached=pl.col("reached").sum(), left=pl.len())
        .sort(*by, "epoch")
        .with_columns(trials=pl.col("left").sum().over(by))
        .with_columns(at_risk=pl.col("trials") - pl.col("left").cum_sum().over(by) + pl.col("left"))
    )
    share = 1 - (1 - pl.col("reached") / pl.col("at_risk")).cum_prod().over(by)
    return counts.select(*by, "epoch", share=share, trials="trials")


def median_epochs(times: pl.DataFrame, by: Sequence[str] = ("configuration",)) -> pl.DataFrame:
    """Returns the epoch by which half of the trials have reached the target.

    Args:
        times: As for `reached_share`.
        by: As for `reached_share`.

    Returns:
        The columns of `by`, `median` (Int32; null where fewer than half are known to reach it) and `reached`, the
        number of trials that did (Int32).
    """
    half = pl.col("epoch").filter(pl.col("share") >= 0.5 - 1e-9).min()
    medians = reached_share(times, by).group_by(by).agg(median=half)
    return (
        times.group_by(by)
        .agg(pl.col("reached").sum().cast(pl.Int32))
        .join(medians, on=by)
        .select(*by, "median", "reached")
    )

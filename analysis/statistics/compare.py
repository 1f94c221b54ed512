"""Which configurations differ, which are practically equal, which cannot be told apart yet; and their ranks.

Trials with the same seed start from the same weights and see the same batches, so configurations are compared seed by
seed, by the anytime-valid intervals of `sequences`: seeds may be added and looked at again, as often as you like. Two
families of statements are made, each wrong with a probability of at most `LEVEL`, with k configurations compared:

* Of every pair: they differ, or are practically equal. The leader is chosen by the data, so all pairs count: each has
  an interval at level 2 * LEVEL / (k (k - 1)).
* Of every configuration: it is not a best one. As `rounds` argues, this can be done in steps, the hopeless first: with
  m configurations not yet shown to be worse than some other, at level 2 * LEVEL / (m (k - 1)), until nothing changes.

Configurations with equal values on every seed (e.g. plateau schedules that never acted) count as one. A pair needs
`ENOUGH_SEEDS` in common for a verdict. Without a smallest difference that matters, only equal values are ever called
equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.schema import Column, polars_schema
from analysis.statistics.sequences import (
    DIFFER,
    EQUAL,
    UNKNOWN,
    Spread,
    intervals,
    pair_level,
    row_means,
    spread,
    verdicts,
)

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ENOUGH_SEEDS = 3
"""Seeds that a pair must have in common for a verdict: two do not show a spread of their own."""

PAIR_COLUMNS: tuple[Column, ...] = (
    Column("first", pl.Int32, "a configuration"),
    Column("second", pl.Int32, "another, later in the given order"),
    Column("n", pl.Int32, "seeds in common"),
    Column(
        "difference", pl.Float64, "mean over these seeds of what the first has more of what is better; null if none"
    ),
    Column("deviation", pl.Float64, "standard deviation of the differences (n - 1); null below 2 seeds"),
    Column(
        "low",
        pl.Float64,
        "lower end of the anytime-valid interval of the difference, of all pairs together; null where there is none",
    ),
    Column("high", pl.Float64, "upper end of that interval"),
    Column("verdict", pl.String, f"`{DIFFER}`, `{EQUAL}` or `{UNKNOWN}`"),
    Column("better", pl.Int32, "which of the two is shown to be better; null unless they differ"),
    Column("level", pl.Float64, "level of that interval: how often, at most, it may ever miss"),
    Column("step_level", pl.Float64, "level at which it would be shown now that one of the two is not a best one"),
    Column("prior_degrees", pl.Float64, "what is known beforehand of the deviation, see `Spread`"),
    Column("prior_deviation", pl.Float64, "the same"),
)
"""What `pairwise` returns."""


@dataclass(frozen=True)
class Shown:
    """What has been shown before, by a race: it stays shown, and is not to be shown again. Configurations' indices."""

    worse: tuple[tuple[int, int], ...] = ()
    """Pairs: the worse configuration, the better one."""
    equal: tuple[tuple[int, int], ...] = ()
    """Pairs that are practically equal."""


NOTHING = Shown()


def pairwise(
    values: Array,
    configurations: npt.NDArray[np.int32],
    care: float | None = None,
    family: int = 0,
    shown: Shown = NOTHING,
) -> pl.DataFrame:
    """Compares every pair of configurations on the seeds they have in common.

    A pair differs if its interval excludes 0. It also does if one of the two is the reason why the other is not a best
    one (see the module), or was in a race: then the interval of all pairs together may still include 0.

    Args:
        values: Shape (configurations, seeds), NaN where a configuration lacks a seed; more is better.
        configurations: Shape (configurations,), their indices.
        care: The smallest difference that matters; None if any does.
        family: Number of configurations that these are the best of, if they are a selection.
        shown: What has been shown before; what is not about these configurations is ignored.

    Returns:
        One row for each pair, with the columns of `PAIR_COLUMNS`.
    """
    pairs, trainings, means = _Pairs(values), _trainings(values), row_means(values)
    prior = spread(values[_best_third(means, trainings)])
    count = max(family, len(np.unique(trainings)))
    enough = pairs.n >= ENOUGH_SEEDS
    level = pair_level(count, count)
    low, high = pairs.ends(enough, level, prior)
    before = pairs.places(configurations, (*shown.worse, *shown.equal))
    dropped = [
        (before[pair], int(np.flatnonzero(configurations == pair[0])[0])) for pair in shown.worse if pair in before
    ]
    verdict = verdicts(low, high, care)
    verdict[enough & (pairs.difference == 0) & (pairs.deviation == 0)] = EQUAL
    verdict[[before[pair] for pair in shown.equal if pair in before]] = EQUAL
    better = np.where(verdict == DIFFER, np.where(low > 0, pairs.row, pairs.column), _NEITHER)
    for place, worse in dropped:
        verdict[place], better[place] = DIFFER, pairs.other(place, worse)
    racing = ~np.isin(trainings, trainings[[worse for _, worse in dropped]])
    order = np.lexsort((-np.arange(len(values)), means))
    step_level, found = _steps(pairs, enough & (verdict != EQUAL), racing, order, trainings, count, care, prior)
    for place, winner in found:
        verdict[place], better[place] = DIFFER, winner
    columns = {
        "first": configurations[pairs.row],
        "second": configurations[pairs.column],
        "n": pairs.n,
        "difference": pairs.difference,
        "deviation": pairs.deviation,
        "low": np.where(np.isfinite(low), low, np.nan),
        "high": np.where(np.isfinite(high), high, np.nan),
        "verdict": verdict,
        "better": configurations[better],
        "level": np.full(len(low), level),
        "step_level": np.full(len(low), step_level),
        "prior_degrees": np.full(len(low), prior.degrees),
        "prior_deviation": np.full(len(low), prior.deviation),
    }
    table = pl.DataFrame(columns).fill_nan(None)
    table = table.with_columns(better=pl.when(pl.col("verdict") == DIFFER).then("better"))
    return table.select(pl.col(name).cast(type_) for name, type_ in polars_schema(PAIR_COLUMNS).items())


def shared_ranks(pairs: pl.DataFrame, configurations: pl.Series, places: pl.Series | None = None) -> pl.DataFrame:
    """Returns each configuration's rank: 1 + how many are shown to be better than it, or than one at least as good.

    The second condition keeps ranks in the order of the means. With few seeds, a configuration that scatters a lot is
    not shown to be worse than any other, however low its mean. It still ranks behind every configuration that is shown
    to be better than one with a higher mean than its own. So rank 1 is left to those that are not shown to be worse
    than some other and did better than all that are. Practically equal configurations share a rank unless a third
    comes between them in this way: a may be practically equal to b, and b to c, and yet a be better than c.

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
        pairs.filter(pl.col("better").is_not_null())
        .select("better", worse=pl.when(pl.col("better") == pl.col("first")).then("second").otherwise("first"))
        .join(place.rename({"configuration": "better", "place": "above"}), on="better")
        .join(place.rename({"configuration": "worse", "place": "below"}), on="worse")
        # With different seeds, the difference over common seeds can have the opposite sign of that over all seeds.
        .filter(pl.col("above") < pl.col("below"))
    )
    behind = told.group_by("better").agg(pl.col("below").min())["below"].sort().to_numpy()
    ranks = place.with_columns(rank=pl.Series(1 + np.searchsorted(behind, place["place"].to_numpy(), side="right")))
    enough = pairs.filter(pl.col("n") >= ENOUGH_SEEDS)
    compared = pl.concat([enough["first"], enough["second"]]).unique().implode()
    known = pl.col("configuration").is_in(compared)
    return ranks.select("configuration", rank=pl.when(known).then("rank").cast(pl.Int32))


_NEITHER = 0
"""Row of `better` where neither is: any, as it is not looked at."""
_ROUNDING = 1e-12
_AT_ONCE = 2_000_000
"""Differences held in memory at a time."""


class _Pairs:
    """All pairs of rows: what is in common, and intervals of their differences.

    Args:
        values: Shape (rows, seeds), NaN where a row lacks a seed.
    """

    def __init__(self, values: Array) -> None:
        self.values = values
        self.row, self.column = np.triu_indices(len(values), 1)
        parts = [_describe(values[self.row[part]] - values[self.column[part]]) for part in self._parts(self.row)]
        self.n, self.difference, self.deviation = (np.concatenate(several) for several in zip(*parts, strict=True))

    def ends(self, asked: Mask, level: float, prior: Spread) -> tuple[Array, Array]:
        """Returns the ends of the intervals of the pairs asked for, NaN for the others."""
        low, high = np.full(len(self.row), np.nan), np.full(len(self.row), np.nan)
        places = np.flatnonzero(asked)
        for part in self._parts(places) if len(places) else ():
            some = places[part]
            differences = self.values[self.row[some]] - self.values[self.column[some]]
            low[some], high[some] = intervals(differences, level, prior)
        return low, high

    def other(self, place: int, one: int) -> int:
        """Returns the row that a pair has besides one."""
        return int(self.row[place] + self.column[place] - one)

    def places(
        self, configurations: npt.NDArray[np.int32], wanted: Iterable[tuple[int, int]]
    ) -> dict[tuple[int, int], int]:
        """Returns where some pairs of configurations are, in whichever order; those that are not there are left out."""
        index = {int(one): row for row, one in enumerate(configurations)}
        found = {}
        for first, second in wanted:
            if first in index and second in index and first != second:
                row, column = sorted((index[first], index[second]))
                found[first, second] = row * (2 * len(index) - row - 1) // 2 + column - row - 1
        return found

    def _parts(self, places: Indices) -> list[slice]:
        size = max(1, _AT_ONCE // max(1, self.values.shape[1]))
        return [slice(begin, begin + size) for begin in range(0, max(1, len(places)), size)]


def _describe(differences: Array) -> tuple[Indices, Array, Array]:
    """Returns the number, mean and standard deviation of each row; what rounding leaves of nothing is nothing."""
    n, means = (~np.isnan(differences)).sum(axis=1), row_means(differences)
    means[np.abs(means) < _ROUNDING] = 0.0
    squares = np.nansum((differences - means[:, None]) ** 2, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviations = np.where(n > 1, np.sqrt(squares / (n - 1)), np.nan)
    deviations[deviations < _ROUNDING] = 0.0
    return n, means, deviations


def _trainings(values: Array) -> Indices:
    """Returns a number for each row, the same for rows with equal values on the same seeds, if these are enough."""
    found = np.unique(np.nan_to_num(values, nan=-np.inf), axis=0, return_inverse=True)[1].reshape(-1)
    few = (~np.isnan(values)).sum(axis=1) < ENOUGH_SEEDS
    return np.where(few, len(values) + np.arange(len(values)), found)


def _best_third(means: Array, trainings: Indices) -> Indices:
    """Returns the rows to learn the usual deviation from, the best first, as in a race: those are alike."""
    once = np.unique(trainings, return_index=True)[1]
    order = once[np.lexsort((once, -np.nan_to_num(means[once], nan=-np.inf)))]
    return order[: max(len(order) // 3, 4)]


def _steps(
    pairs: _Pairs,
    comparable: Mask,
    racing: Mask,
    order: Indices,
    trainings: Indices,
    count: int,
    care: float | None,
    prior: Spread,
) -> tuple[float, list[tuple[int, int]]]:
    """Finds which rows are not a best one, step by step.

    Args:
        pairs: All pairs of rows.
        comparable: Shape (pairs,): which to look at.
        racing: Shape (rows,): which are not yet shown to be worse than some other.
        order: The rows by mean, the lowest first.
        trainings: Which rows count as one.
        count: Number of trainings compared.
        care: As of `pairwise`.
        prior: What is known of the deviation.

    Returns:
        The level of the last step; and for each row that is shown not to be a best one, the place of a pair and the
        better row in it, which was not shown to be worse than some other yet.
    """
    racing, rows = racing.copy(), len(racing)
    found: list[tuple[int, int]] = []
    while True:
        out = len(np.setdiff1d(trainings, trainings[racing]))
        level = pair_level(max(count - out, 1), count)
        asked = comparable & racing[pairs.row] & racing[pairs.column]
        low, high = pairs.ends(asked, level, prior)
        differ = np.flatnonzero(asked & (verdicts(low, high, care) == DIFFER))
        row, column = pairs.row[differ], pairs.column[differ]
        place = np.full((rows, rows), -1)  # [better, worse]
        place[np.where(low[differ] > 0, row, column), np.where(low[differ] > 0, column, row)] = differ
        before = len(found)
        for worse in order:
            better = order[(place[order, worse] >= 0) & racing[order]]
            if racing[worse] and len(better):
                racing[worse] = False
                found.append((int(place[better[-1], worse]), int(better[-1])))
        if len(found) == before:
            return level, found

"""What a cut of the learning rate was worth, by the epoch after which it was made, and what a plateau made of it.

Trials that differ only in when and by how much their rate is cut (schedules `cut` and `plateau`) are branches of one
*trunk*: the trial with a constant rate (`none`). With the same seed they share weights and, after the cut, the images
still to come. So what a cut gained is a difference of two branches, seed by seed.

Intervals are the anytime-valid confidence sequences of `sequences`, so seeds may be added and looked at again. Those of
a factor's gains hold for all its moments together (each at level LEVEL / moments), so the best may be picked from them;
likewise those of all plateau settings. Which moments are as good as the best is what `compare` says of all pairs of a
factor's moments. All of this needs `ENOUGH_SEEDS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.aggregate import CHOICE, outcomes
from analysis.configurations import with_configurations, with_trainings
from analysis.loading import SweepData
from analysis.statistics.compare import ENOUGH_SEEDS, pairwise, shared_ranks
from analysis.statistics.sequences import LEVEL, Spread, intervals, row_means, spread
from workloads.measure import Measure

Array = npt.NDArray[np.float64]

TRUNK, CUT, PLATEAU = "none", "cut", "plateau"
"""Schedules: never cut, cut once, cut when a metric says so."""


@dataclass(frozen=True)
class MeanDifference:
    """A mean of paired differences, in units of the measure, positive if it is better."""

    mean: float
    low: float | None
    """Lower end of its interval; None where nothing is excluded (yet)."""
    high: float | None
    seeds: int

    @property
    def opposite(self) -> MeanDifference:
        """The same with the opposite sign."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return MeanDifference(-self.mean, low, high, self.seeds)


@dataclass(frozen=True)
class Moment:
    """A cut after one epoch."""

    after: int
    """The last epoch with the rate of the trunk."""
    gain: MeanDifference
    """On never cutting."""
    as_good: bool
    """Whether it is not shown to be worse than any other moment, nor did worse than one that is."""


@dataclass(frozen=True)
class Factor:
    """Cuts by one factor."""

    factor: float
    moments: tuple[Moment, ...]
    """By epoch."""

    @property
    def best(self) -> Moment:
        """The moment with the highest mean gain."""
        return max(self.moments, key=lambda moment: moment.gain.mean)


@dataclass(frozen=True)
class Plateau:
    """Plateau settings with identical training."""

    configurations: tuple[int, ...]
    after: tuple[tuple[int, ...], ...]
    """For each seed, the epochs after which it cut the rate."""
    gain: MeanDifference
    """On never cutting."""
    regret: MeanDifference
    """How far it is behind the best moment of any factor."""


@dataclass(frozen=True)
class Trunk:
    """What is cut, and all that was tried."""

    label: str
    """What tells it from the sweep's other trunks; empty if there is only one."""
    epochs: int
    factors: tuple[Factor, ...]
    plateaus: tuple[Plateau, ...]
    """The best first."""

    @property
    def best(self) -> tuple[Factor, Moment]:
        """The factor and moment with the highest mean gain."""
        return max(((one, one.best) for one in self.factors), key=lambda pair: pair[1].gain.mean)


def trunks(data: SweepData) -> tuple[Trunk, ...]:
    """Returns what cuts were worth; empty where no trial with a cut has finished beside one that was never cut.

    Args:
        data: The sweeps; trials that did not finish are ignored.
    """
    if CUT not in data.trials["scheduler"]:
        return ()
    branches = _branches(data)
    if branches.is_empty():
        return ()
    found = [_trunk(data, part) for part in branches.partition_by("trunk", maintain_order=True)]
    return tuple(trunk for trunk in found if trunk is not None)


def _branches(data: SweepData) -> pl.DataFrame:
    """Returns the finished trials of all trunks that have cuts.

    Returns:
        One row per trial: `trunk` (its number), `name` (what tells it from others), `configuration, seed, scheduler,
        epochs, factor`, `cuts` (a list: the epochs after which its rate was lowered) and `value` (more is better).
    """
    fell = (pl.col("lr") < pl.col("lr").shift(1)).fill_null(value=False)
    cuts = data.epochs.group_by("trial_id", maintain_order=True).agg(cuts=pl.col("epoch").filter(fell) - 1)
    values = outcomes(data).select("trial_id", value=data.measure.sign * pl.col(CHOICE))
    settings = [name for name in ("scheduler_warmup_epochs", "scheduler_factor") if name in data.trials.columns]
    trials = data.trials.filter(pl.col("scheduler").is_in((TRUNK, CUT, PLATEAU)))
    trials = trials.join(values, on="trial_id", how="inner", maintain_order="left").join(cuts, on="trial_id")
    # Whatever varies but the schedule, and warm-up, which all schedules have.
    of_trunk = [name for name in data.axes if name.partition("_")[0] != "scheduler"]
    of_trunk += ["dataset", *(name for name in settings if name == "scheduler_warmup_epochs")]
    never, _ = with_configurations(trials.filter(scheduler=TRUNK))
    never = never.select(*of_trunk, trunk="configuration", name="label").unique(of_trunk, maintain_order=True)
    cut = trials.filter(scheduler=CUT).select(of_trunk).unique()
    never = never.join(cut, on=of_trunk, how="semi", nulls_equal=True, maintain_order="left")
    name = pl.col("name") if never.height > 1 else pl.lit("")
    found = trials.join(never.with_columns(name=name), on=of_trunk, nulls_equal=True, maintain_order="left")
    factor = pl.col("scheduler_factor") if "scheduler_factor" in settings else pl.lit(None, pl.Float64)
    return found.select(
        *("trunk", "name", "configuration", "seed", "scheduler", "epochs"), "cuts", "value", factor=factor
    ).sort("trunk", "configuration", "seed", maintain_order=True)


def _trunk(data: SweepData, branches: pl.DataFrame) -> Trunk | None:
    """Returns what is known of one trunk; None if no cut has a seed in common with it."""
    rows = branches.unique("configuration", maintain_order=True).with_row_index("row")
    values = _by_seed(branches, rows)
    never = values[rows.filter(scheduler=TRUNK)["row"][0]]
    # A cut that never came is the trunk itself.
    made = rows.filter((pl.col("scheduler") == CUT) & (pl.col("cuts").list.len() > 0))
    paired = np.flatnonzero(~np.isnan(values - never).all(axis=1))
    made = made.filter(pl.col("row").is_in(paired))
    if made.is_empty():
        return None
    factors = tuple(
        _factor(part.sort(pl.col("cuts").list.first()), values, never, data.care, data.measure)
        for part in made.sort("factor").partition_by("factor", maintain_order=True)
    )
    trunk = Trunk(rows["name"][0], rows["epochs"][0], factors, ())
    factor, moment = trunk.best
    best = made.filter((pl.col("factor") == factor.factor) & (pl.col("cuts").list.first() == moment.after))["row"][0]
    plateaus = _plateaus(data, branches, rows, values, never, values[best])
    return Trunk(trunk.label, trunk.epochs, factors, plateaus)


def _factor(made: pl.DataFrame, values: Array, never: Array, care: float | None, measure: Measure) -> Factor:
    """Returns what cuts by one factor gained.

    Args:
        made: Their rows, by epoch.
        values: Shape (rows, seeds), NaN where there is none.
        never: Shape (seeds,): those of the trunk.
        care: The smallest difference that matters; None if any does.
        measure: What the values are of, times its sign.
    """
    own = values[made["row"].to_numpy()]
    gains = gains_on(never, own, measure.most - measure.least)
    order = np.argsort([-gain.mean for gain in gains], kind="stable")
    places = np.arange(made.height, dtype=np.int32)
    ranks = shared_ranks(pairwise(own, places, care), pl.Series(places[order]))
    first = set(ranks.filter((pl.col("rank") == 1) | pl.col("rank").is_null())["configuration"])
    moments = (
        Moment(cuts[0], gain, place in first)
        for place, (cuts, gain) in enumerate(zip(made["cuts"].to_list(), gains, strict=True))
    )
    return Factor(made["factor"][0], tuple(moments))


def _plateaus(
    data: SweepData, branches: pl.DataFrame, rows: pl.DataFrame, values: Array, never: Array, best: Array
) -> tuple[Plateau, ...]:
    alike = with_trainings(data.trials, data.epochs).select("configuration", "same_as")
    settings = rows.filter(scheduler=PLATEAU).join(alike, on="configuration", maintain_order="left")
    if settings.is_empty():
        return ()
    groups = settings.partition_by("same_as", maintain_order=True)
    own = values[[part["row"][0] for part in groups]]
    most = data.measure.most - data.measure.least
    gains = gains_on(never, own, most)
    regrets = _mean_differences(best - own, LEVEL / len(groups), spread(np.vstack([never, best, own])), most)
    found = [
        Plateau(
            tuple(part["configuration"]),
            tuple(map(tuple, branches.filter(configuration=part["configuration"][0])["cuts"].to_list())),
            gain,
            regret,
        )
        for part, gain, regret in zip(groups, gains, regrets, strict=True)
        if gain.seeds and regret.seeds
    ]
    return tuple(sorted(found, key=lambda one: one.regret.mean))


def gains_on(never: Array, branches: Array, most: float = np.inf) -> list[MeanDifference]:
    """Returns what branches gained on their trunk, with intervals that hold for all of them together.

    Args:
        never: Shape (seeds,), NaN where there is none; more is better.
        branches: Shape (branches, seeds), likewise.
        most: The largest possible difference.
    """
    return _mean_differences(branches - never, LEVEL / len(branches), spread(np.vstack([never, branches])), most)


def _mean_differences(differences: Array, level: float, prior: Spread, most: float) -> list[MeanDifference]:
    """Returns the mean of each row with its anytime-valid interval, where `ENOUGH_SEEDS` give one.

    Args:
        differences: Shape (rows, seeds), NaN where a row lacks a seed.
        level: How often, at most, an interval may ever miss its mean.
        prior: What is known of the deviation.
        most: The largest possible difference: intervals are clipped there, and one of all that is possible is none.
    """
    n, means = (~np.isnan(differences)).sum(axis=1), row_means(differences)
    low, high = intervals(differences, level, prior)
    there = (n >= ENOUGH_SEEDS) & np.isfinite(low) & np.isfinite(high) & ((low > -most) | (high < most))
    ends = zip(np.maximum(low, -most), np.minimum(high, most), there, strict=True)
    return [
        MeanDifference(float(mean), float(one) if known else None, float(other) if known else None, int(seeds))
        for mean, seeds, (one, other, known) in zip(means, n, ends, strict=True)
    ]


def _by_seed(branches: pl.DataFrame, rows: pl.DataFrame) -> Array:
    """Returns final values, one row per configuration and one column per seed; NaN for missing seeds."""
    cells = branches.join(rows.select("configuration", "row"), on="configuration")
    columns = cells["seed"].rank("dense").to_numpy() - 1
    values = np.full((rows.height, int(columns.max()) + 1), np.nan)
    values[cells["row"].to_numpy(), columns.astype(np.int64)] = cells["value"].to_numpy()
    return values

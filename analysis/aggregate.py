"""Aggregates sweeps, finished or running, over their seeds: writes `summary.parquet`, one row per configuration.

    python analysis/aggregate.py results/optimizers [more sweeps ...]

A configuration is a trial without its seed. Configurations are ranked by final validation accuracy, or by the measure
that their workload has instead (`SweepData.measure`); test accuracy is reported but never used for selection. A trial
counts once it is completed; one that was stopped early does not. A diverged trial has no accuracy, and configurations
are ordered first by the share of seeds that did not diverge. Ranks say what is shown (`analysis.statistics.compare`):
one that is not shown to be worse than another shares its rank.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import polars.selectors as cs
import tyro
from rich.markup import escape

from analysis.configurations import with_trainings
from analysis.loading import FINISHED, SweepData, load, output_store
from analysis.measures import published
from analysis.origin import MADE_FROM, of_statistics
from analysis.schema import METRICS, SCHEMA_VERSION, STATISTICS, SUMMARY_COLUMNS, TARGET_COLUMNS, Metric
from analysis.search import Search
from analysis.statistics.censored import epochs_to_target, median_epochs, usual_targets
from analysis.statistics.compare import pairwise, shared_ranks
from analysis.statistics.footing import adjusted_means
from analysis.statistics.intervals import describe
from analysis.statistics.sequences import DIFFER, UNKNOWN
from analysis.store import SweepStore
from workloads.console import complaining, parse
from workloads.measure import Measure


def outcomes(data: SweepData) -> pl.DataFrame:
    """Returns the metrics of the finished trials.

    Returns:
        One row per trial with a status in `FINISHED`: `configuration, seed, trial_id` and a column for each of
        `METRICS`, null if test examples were not evaluated.
    """
    finished = data.trials.filter(pl.col("status").is_in(FINISHED)).select("trial_id", "seed")
    sign = data.measure.sign
    chosen = (sign * pl.col("val_accuracy")).arg_max()
    measured = data.epochs.group_by("trial_id", maintain_order=True).agg(
        pl.col("configuration").first(),
        *(pl.col(name).last().alias(f"final_{name}") for name in _EVALUATED),
        *(pl.col(name).get(chosen).alias(f"selected_{name}") for name in _EVALUATED),
        pl.col("val_balanced_accuracy").last().alias("final_balanced_accuracy"),
        pl.col("val_accuracy").mean().alias("val_accuracy_area"),
        (sign * (pl.col("train_accuracy") - pl.col("val_accuracy"))).last().alias("accuracy_gap"),
        (pl.col("val_loss") - pl.col("train_loss")).last().alias("loss_gap"),
    )
    found = finished.join(measured, on="trial_id", how="inner", maintain_order="left")
    return found.select("configuration", "seed", "trial_id", *(metric.name for metric in METRICS))


def summarise(data: SweepData, targets: Sequence[float] | None = None) -> pl.DataFrame:
    """Returns one row per configuration, best first: the content of `summary.parquet`.

    Args:
        data: The sweeps.
        targets: Target validation accuracies for epochs-to-target; None means the three best usual ones reached.

    Returns:
        The columns of `SUMMARY_COLUMNS`; the axes; `<metric>_<statistic>` for each of `METRICS` and `STATISTICS`; for
        each target `epochs_to_<target>` (median over seeds; null if fewer than half are known to reach it) and
        `reached_<target>` (how many did).
    """
    reached = outcomes(data)
    first = [column.name for column in SUMMARY_COLUMNS]
    axes = [name for name in data.axes if name not in first]
    known = [name for name in first if name in data.trials.columns and name != "lr_reductions"]
    table = _counts(data).join(data.trials.select(*known, *axes).unique("configuration"), on="configuration")
    table = table.join(with_trainings(data.trials, data.epochs), on="configuration", how="left")
    with ThreadPoolExecutor(4) as pool:  # numpy computes outside the interpreter's lock
        for described in pool.map(lambda metric: _describe(reached, metric, data.measure), METRICS):
            table = table.join(described, on="configuration", how="left")
    for target in usual_targets(data.epochs, data.measure) if targets is None else targets:
        epochs_to, reached_by = (form.format(target=f"{target:g}") for form in TARGET_COLUMNS)
        medians = median_epochs(epochs_to_target(data.trials, data.epochs, target, data.measure)).rename(
            {"median": epochs_to, "reached": reached_by}
        )
        table = table.join(medians, on="configuration", how="left")
    table = _flagged(_positioned(_adjusted(table, reached), data.measure), data.search)
    ranks = pl.concat([_ranked(pairs, *order) for pairs, order in _compared(data, reached, table)])
    table = table.join(ranks, on="configuration", how="left", maintain_order="left")
    return table.select(*first, *axes, pl.exclude(*first, *axes))


def compare(data: SweepData, summary: pl.DataFrame) -> pl.DataFrame:
    """Compares every pair of configurations of a data set that never diverged, by final validation accuracy.

    Where lower values of the measure are better, differences are of the values times -1: of what is better, there is
    more.

    Args:
        data: The sweeps.
        summary: `summarise(data)`, which determines the order of the pairs. Only the best `MOST_COMPARED`
            configurations of each data set are compared, as sure as if all were.

    Returns:
        The columns of `analysis.statistics.compare.PAIR_COLUMNS`.
    """
    return pl.concat([pairs for pairs, _ in _compared(data, outcomes(data), summary)])


def write_summary(store: SweepStore, data: SweepData, summary: pl.DataFrame, parts: Sequence[str] = ()) -> str:
    """Writes `summary.parquet` into a sweep's folder, with the provenance in its footer.

    Args:
        store: The sweep to write to.
        data: The sweeps.
        summary: `summarise(data)`.
        parts: The parts that the sweep had before it was loaded; what came in meanwhile may be in the data or not.

    Returns:
        The file's location.
    """
    origin = ("name", "question", "fingerprint", "provenance")
    sweeps = [{key: spec.to_json()[key] for key in origin} for spec in data.specs]
    metadata: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "sweeps": sweeps}
    if len(data.specs) == 1:
        metadata[MADE_FROM] = of_statistics(data.specs[0], parts)
    return store.write_table("summary", published(summary, data.measure), metadata)


@dataclass(frozen=True)
class Arguments:
    """Aggregates sweeps, finished or running, over their seeds; writes summary.parquet into the sweep's folder."""

    sweeps: tyro.conf.Positional[tuple[str, ...]]
    """Folders or URIs of sweeps, e.g. results/optimizers s3://bucket/results/plateau."""


def main() -> None:
    """Runs the script."""
    with complaining() as console:
        sweeps = parse(Arguments).sweeps
        store = output_store(sweeps)
        parts = store.files("parts")
        data = load(sweeps)
        summary = summarise(data)
        console.print(escape(write_summary(store, data, summary, parts)), soft_wrap=True)
        if not summary["n"].sum():
            print(f"no trial has finished yet: 0 of {data.trials.height}", file=sys.stderr)


CHOICE = "final_val_accuracy"
"""The metric used for ranking: times `measure.sign`, highest is best."""

MOST_COMPARED = 500
"""Maximum number of configurations, from the best, that are compared pairwise."""

_EVALUATED = ("val_accuracy", "val_loss", "test_accuracy", "test_loss")


def _counts(data: SweepData) -> pl.DataFrame:
    status = pl.col("status")
    counts = data.trials.group_by("configuration").agg(
        lr_reductions=pl.col("lr_reductions").mean(),
        planned=pl.len(),
        n=status.is_in(FINISHED).sum(),
        diverged=(status == "diverged").sum(),
    )
    counts = counts.with_columns(unfinished=pl.col("planned") - pl.col("n") - pl.col("diverged"))
    return counts.with_columns(cs.integer().cast(pl.Int32))


def _describe(reached: pl.DataFrame, described: Metric, measure: Measure) -> pl.DataFrame:
    metric = described.name
    groups = reached.drop_nulls(metric).group_by("configuration").agg(pl.col(metric), n=pl.len())
    empty = pl.DataFrame(schema={"configuration": pl.Int32} | {f"{metric}_{name}": pl.Float64 for name in STATISTICS})
    frames = [empty]
    for group in groups.partition_by("n"):  # configurations with equally many seeds form a matrix
        values = group[metric].explode().to_numpy().reshape(group.height, -1)
        statistics = describe(values, *described.bounds(measure))
        columns = {f"{metric}_{name}": statistics[name] for name in STATISTICS}
        frames.append(pl.DataFrame({"configuration": group["configuration"]} | columns).fill_nan(None))
    return pl.concat(frames)


def _adjusted(table: pl.DataFrame, reached: pl.DataFrame) -> pl.DataFrame:
    """Adds `adjusted_mean`, computed separately for each data set.

    Late forks are no trainings with the seed of their trunk, so they are apart too.
    """
    frames = [pl.DataFrame(schema={"configuration": pl.Int32, "adjusted_mean": pl.Float64})]
    apart = ["dataset", *(["reorder_from"] if "reorder_from" in table.columns else [])]
    for of_dataset in table.filter(pl.col("n") > 0).sort("configuration").partition_by(apart):
        configurations = of_dataset["configuration"]
        means = adjusted_means(_by_seed(reached, configurations))
        frames.append(pl.DataFrame({"configuration": configurations, "adjusted_mean": means}))
    return table.join(pl.concat(frames), on="configuration", how="left", maintain_order="left")


def _by_seed(reached: pl.DataFrame, configurations: pl.Series) -> npt.NDArray[np.float64]:
    """Returns final accuracies, one row per configuration and one column per seed; NaN for missing seeds."""
    rows = pl.DataFrame({"configuration": configurations}).with_row_index("row")
    cells = reached.join(rows, on="configuration").with_columns(column=pl.col("seed").rank("dense").cast(pl.Int64) - 1)
    values = np.full((configurations.len(), cells["seed"].n_unique()), np.nan)
    values[cells["row"], cells["column"]] = cells[CHOICE]
    return values


def _positioned(table: pl.DataFrame, measure: Measure) -> pl.DataFrame:
    ended = pl.col("n") + pl.col("diverged")
    mean = measure.sign * pl.col("adjusted_mean").round(12).fill_null(0)
    quality = pl.struct((pl.col("n") / ended).alias("share_not_diverged"), mean.alias("mean"))
    placed = (ended > 0) & _from_the_start(table)
    place = pl.when(placed).then(quality).rank("min", descending=True).over("dataset").cast(pl.Int32)
    return table.with_columns(position=place).sort("dataset", "position", "configuration", nulls_last=True)


def _from_the_start(table: pl.DataFrame) -> pl.Expr:
    """Returns what is placed and ranked: late forks are much like their trunks, and tell nothing about other seeds."""
    return pl.col("reorder_from").is_null() if "reorder_from" in table.columns else pl.lit(value=True)


def _flagged(table: pl.DataFrame, search: Search | None) -> pl.DataFrame:
    group, lr = ("dataset", "optimizer", "scheduler"), pl.col("lr")
    best = (pl.int_range(pl.len()).over(group) == 0) & (pl.col("n") > 0) & pl.col("position").is_not_null()
    edge = (
        pl.when(lr == lr.min().over(group))
        .then(pl.lit("lowest"))
        .when(lr == lr.max().over(group))
        .then(pl.lit("highest"))
    )
    flagged = table.with_columns(best_of_group=best, lr_edge=pl.when(best & (lr.n_unique().over(group) > 1)).then(edge))
    if search is None:
        return flagged
    # Draws end anywhere: what counts is the range that they come from.
    rows = flagged.select("optimizer", "scheduler", "lr", "best_of_group", "lr_edge").iter_rows()
    return flagged.with_columns(lr_edge=pl.Series([_drawn_edge(search, *row) for row in rows], dtype=pl.String))


def _drawn_edge(
    search: Search, optimizer: str, scheduler: str, lr: float, best: bool, listed: str | None
) -> str | None:
    span = search.span("lr", optimizer, scheduler)
    if span is None:
        return listed
    return span.edge(lr) if best else None


def _compared(
    data: SweepData, reached: pl.DataFrame, table: pl.DataFrame
) -> list[tuple[pl.DataFrame, tuple[pl.Series, pl.Series]]]:
    """Returns the pairs of each data set's best configurations, and these configurations with their positions.

    Args:
        data: The sweeps.
        reached: `outcomes`.
        table: The configurations in order of position.
    """
    sound = table.filter((pl.col("n") > 0) & (pl.col("diverged") == 0) & _from_the_start(table))
    found = []
    for of_dataset in sound.partition_by("dataset", maintain_order=True) or [sound]:
        best = of_dataset.head(MOST_COMPARED)
        compared = best["configuration"]
        family = of_dataset["same_as"].n_unique() if of_dataset.height > MOST_COMPARED else 0
        values = data.measure.sign * _by_seed(reached, compared)
        pairs = pairwise(values, compared.to_numpy(), care=data.care, family=family, shown=data.shown)
        found.append((pairs, (compared, best["position"])))
    return found


def _ranked(pairs: pl.DataFrame, compared: pl.Series, positions: pl.Series) -> pl.DataFrame:
    """Returns `configuration, rank, verdict`, the latter null for the first and where there is no rank."""
    ranks = shared_ranks(pairs, compared, positions)
    against = pairs.filter(pl.col("first").is_in(compared.head(1).implode()))
    ranks = ranks.join(against.select(configuration="second", of_pair="verdict"), on="configuration", how="left")
    behind = (pl.col("of_pair") == UNKNOWN) & (pl.col("rank") > 1)
    said = pl.when(behind).then(pl.lit(DIFFER)).when(pl.col("rank").is_not_null()).then("of_pair")
    return ranks.select("configuration", "rank", verdict=said)


if __name__ == "__main__":
    main()

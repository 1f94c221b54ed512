"""Sweeps in, numbers out: reads sweeps, finished or running, and writes `summary.parquet`, one row a configuration.

    python analysis/aggregate.py results/optimizers [more sweeps ...]

A configuration is everything a trial is but its seed. Choices are made on the final validation accuracy; the test set
is reported, never chosen on. A trial counts once it is completed or was stopped early; a diverged one has no accuracy,
and a configuration that diverges on some seeds ranks below all that do so on fewer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl
import tyro
from rich.markup import escape

from analysis.censored import epochs_to_target, median_epochs, usual_targets
from analysis.compare import pairwise, shared_ranks
from analysis.intervals import describe
from analysis.loading import FINISHED, SweepData, load, output_store
from analysis.schema import SCHEMA_VERSION, Column
from analysis.store import SweepStore
from workloads.console import complaining, parse


def outcomes(data: SweepData) -> pl.DataFrame:
    """Returns what the finished trials reached.

    Returns:
        One row for each trial of a status in `FINISHED`: `configuration, seed, trial_id` and a column for each of
        `METRICS`; null where test images were not evaluated.
    """
    finished = data.trials.filter(pl.col("status").is_in(FINISHED)).select("trial_id", "seed")
    chosen = pl.col("val_accuracy").arg_max()
    measured = data.epochs.group_by("trial_id", maintain_order=True).agg(
        pl.col("configuration").first(),
        *(pl.col(name).last().alias(f"final_{name}") for name in _EVALUATED),
        *(pl.col(name).get(chosen).alias(f"selected_{name}") for name in _EVALUATED),
        pl.col("val_balanced_accuracy").last().alias("final_balanced_accuracy"),
        pl.col("val_accuracy").mean().alias("val_accuracy_area"),
        (pl.col("train_accuracy") - pl.col("val_accuracy")).last().alias("accuracy_gap"),
        (pl.col("val_loss") - pl.col("train_loss")).last().alias("loss_gap"),
    )
    found = finished.join(measured, on="trial_id", how="inner", maintain_order="left")
    return found.select("configuration", "seed", "trial_id", *METRICS)


def summarise(data: SweepData, targets: Sequence[float] | None = None) -> pl.DataFrame:
    """Returns one row for each configuration, the best first: the content of `summary.parquet`.

    Args:
        data: The sweeps.
        targets: Validation accuracies to count epochs to; when None the three highest usual ones that were reached.

    Returns:
        The columns of `SUMMARY_COLUMNS`; the axes; `<metric>_<statistic>` for each of `METRICS` and `STATISTICS`; for
        each target `epochs_to_<target>` (the median over seeds; null where fewer than half are known to reach it) and
        `reached_<target>` (how many did).
    """
    reached = outcomes(data)
    first = [column.name for column in SUMMARY_COLUMNS]
    axes = [name for name in data.axes if name not in first]
    known = [name for name in first if name in data.trials.columns]
    table = _counts(data).join(data.trials.select(*known, *axes).unique("configuration"), on="configuration")
    with ThreadPoolExecutor(4) as pool:  # numpy computes outside the interpreter's lock
        for described in pool.map(lambda metric: _describe(reached, metric), METRICS):
            table = table.join(described, on="configuration", how="left")
    for target in usual_targets(data.epochs) if targets is None else targets:
        medians = median_epochs(epochs_to_target(data.trials, data.epochs, target)).rename(
            {"median": f"epochs_to_{target:g}", "reached": f"reached_{target:g}"}
        )
        table = table.join(medians, on="configuration", how="left")
    table = _flagged(_positioned(table))
    ranks = pl.concat([shared_ranks(pairs, configurations) for pairs, configurations in _compared(reached, table)])
    table = table.join(ranks, on="configuration", how="left", maintain_order="left")
    return table.select(*first, *axes, pl.exclude(*first, *axes))


def compare(data: SweepData, summary: pl.DataFrame) -> pl.DataFrame:
    """Returns every pair of configurations of a data set that never diverged, by their final validation accuracy.

    Args:
        data: The sweeps.
        summary: `summarise(data)`: the pairs come in its order; only the `MOST_COMPARED` best configurations of each
            data set are compared, corrected as if all were.

    Returns:
        The columns of `analysis.compare.PAIR_COLUMNS`.
    """
    return pl.concat([pairs for pairs, _ in _compared(outcomes(data), summary)])


def write_summary(store: SweepStore, data: SweepData, summary: pl.DataFrame) -> str:
    """Writes `summary.parquet` into a sweep's folder, with where the numbers come from in its footer.

    Args:
        store: The sweep to write beside.
        data: The sweeps.
        summary: `summarise(data)`.

    Returns:
        The file's location.
    """
    origin = ("name", "question", "fingerprint", "provenance")
    sweeps = [{key: spec.to_json()[key] for key in origin} for spec in data.specs]
    return store.write_table("summary", summary, {"schema_version": SCHEMA_VERSION, "sweeps": sweeps})


@dataclass(frozen=True)
class Arguments:
    """Aggregates sweeps, finished or running, over their seeds; writes summary.parquet into the sweep's folder."""

    sweeps: tyro.conf.Positional[tuple[str, ...]]
    """Folders or URIs of sweeps, e.g. results/optimizers s3://bucket/results/plateau."""


def main() -> None:
    """Runs the script."""
    with complaining() as console:
        sweeps = parse(Arguments).sweeps
        data = load(sweeps)
        summary = summarise(data)
        console.print(escape(write_summary(output_store(sweeps), data, summary)), soft_wrap=True)
        if not summary["n"].sum():
            print(f"no trial has finished yet: 0 of {data.trials.height}", file=sys.stderr)


METRICS: dict[str, str] = {
    "final_val_accuracy": "validation accuracy of the last epoch",
    "final_val_loss": "validation loss of the last epoch",
    "final_balanced_accuracy": "mean of the classes' validation accuracies, of the last epoch; null but for imbalance",
    "final_test_accuracy": "test accuracy of the last epoch",
    "final_test_loss": "test loss of the last epoch",
    "selected_val_accuracy": "validation accuracy of the epoch where it is highest (biased upwards)",
    "selected_val_loss": "validation loss of that epoch",
    "selected_test_accuracy": "test accuracy of that epoch; null unless tested every epoch",
    "selected_test_loss": "test loss of that epoch; null unless tested every epoch",
    "val_accuracy_area": "area under the validation-accuracy curve, each epoch a bar of width 1 / epochs",
    "accuracy_gap": "training minus validation accuracy of the last epoch",
    "loss_gap": "validation minus training loss of the last epoch",
}
"""What is measured of each finished trial -> what it is."""

STATISTICS: dict[str, str] = {
    "mean": "mean over seeds",
    "median": "median over seeds",
    "iqm": "interquartile mean over seeds",
    "sd": "standard deviation over seeds (n - 1); null with one seed",
    "low": "lower end of the 95% BCa bootstrap interval of the mean; null with one seed or without spread",
    "high": "its upper end",
}

CHOICE = "final_val_accuracy"
"""The metric that configurations are ranked by: highest is best."""

MOST_COMPARED = 500
"""Configurations that are compared pair by pair; those behind the best so many get no rank."""

SUMMARY_COLUMNS: tuple[Column, ...] = (
    Column("configuration", pl.Int32, "index of the configuration, as in the trials with this `label`"),
    Column("label", pl.String, "the settings that vary, in words"),
    Column("dataset", pl.String, "its data set; ranks count within one"),
    Column("optimizer", pl.String, "row of the optimizer table"),
    Column("scheduler", pl.String, "row of the schedule table"),
    Column("lr", pl.Float64, "initial learning rate"),
    Column("position", pl.Int32, "place by mean final validation accuracy, shared by equals; null without a result"),
    Column("rank", pl.Int32, "1 + how many are shown to be better; null with one seed or where any seed diverged"),
    Column("best_of_group", pl.Boolean, "whether it is the best of its optimizer and schedule"),
    Column("lr_edge", pl.String, "of those: `lowest` or `highest` where the best learning rate is an end of its grid"),
    Column("planned", pl.Int32, "trials planned: seeds"),
    Column("n", pl.Int32, "trials that finished and count"),
    Column("diverged", pl.Int32, "trials that diverged: any puts a configuration below those with fewer"),
    Column("unfinished", pl.Int32, "trials without a result: pending, failed, cancelled or out of memory"),
)
"""The first columns of `summary.parquet`."""

_EVALUATED = ("val_accuracy", "val_loss", "test_accuracy", "test_loss")


def _counts(data: SweepData) -> pl.DataFrame:
    status = pl.col("status")
    counts = data.trials.group_by("configuration").agg(
        planned=pl.len(), n=status.is_in(FINISHED).sum(), diverged=(status == "diverged").sum()
    )
    return counts.with_columns(unfinished=pl.col("planned") - pl.col("n") - pl.col("diverged")).cast(pl.Int32)


def _describe(reached: pl.DataFrame, metric: str) -> pl.DataFrame:
    groups = reached.drop_nulls(metric).group_by("configuration").agg(pl.col(metric), n=pl.len())
    empty = pl.DataFrame(schema={"configuration": pl.Int32} | {f"{metric}_{name}": pl.Float64 for name in STATISTICS})
    frames = [empty]
    for same in groups.partition_by("n"):  # configurations with equally many seeds are one matrix
        values = same[metric].explode().to_numpy().reshape(same.height, -1)
        statistics = describe(values)
        columns = {f"{metric}_{name}": statistics[name] for name in STATISTICS}
        frames.append(pl.DataFrame({"configuration": same["configuration"]} | columns).fill_nan(None))
    return pl.concat(frames)


def _positioned(table: pl.DataFrame) -> pl.DataFrame:
    ended = pl.col("n") + pl.col("diverged")
    quality = pl.struct(
        (pl.col("n") / ended).alias("share_not_diverged"), pl.col(f"{CHOICE}_mean").round(12).fill_null(0).alias("mean")
    )
    place = pl.when(ended > 0).then(quality).rank("min", descending=True).over("dataset").cast(pl.Int32)
    return table.with_columns(position=place).sort("dataset", "position", "configuration", nulls_last=True)


def _flagged(table: pl.DataFrame) -> pl.DataFrame:
    group, lr = ("dataset", "optimizer", "scheduler"), pl.col("lr")
    best = (pl.int_range(pl.len()).over(group) == 0) & (pl.col("n") > 0)
    edge = (
        pl.when(lr == lr.min().over(group))
        .then(pl.lit("lowest"))
        .when(lr == lr.max().over(group))
        .then(pl.lit("highest"))
    )
    return table.with_columns(best_of_group=best, lr_edge=pl.when(best & (lr.n_unique().over(group) > 1)).then(edge))


def _compared(reached: pl.DataFrame, table: pl.DataFrame) -> list[tuple[pl.DataFrame, pl.Series]]:
    """Returns the pairs of each data set's configurations and which those are; `table` is in order of position."""
    sound = table.filter((pl.col("n") > 0) & (pl.col("diverged") == 0))
    found = []
    for same in sound.partition_by("dataset", maintain_order=True) or [sound]:
        compared = same["configuration"].head(MOST_COMPARED)
        rows = pl.DataFrame({"configuration": compared}).with_row_index("row")
        cells = reached.join(rows, on="configuration").with_columns(
            column=pl.col("seed").rank("dense").cast(pl.Int64) - 1
        )
        values = np.full((compared.len(), cells["seed"].n_unique()), np.nan)
        values[cells["row"], cells["column"]] = cells[CHOICE]
        replicated = int((same["n"] > 1).sum())
        family = replicated * (replicated - 1) // 2 if same.height > MOST_COMPARED else 0
        found.append((pairwise(values, compared.to_numpy(), family), compared))
    return found


if __name__ == "__main__":
    main()

"""Sweeps in, numbers out: reads sweeps, finished or running, and writes `summary.parquet`, one row a configuration.

    python analysis/aggregate.py results/optimizers [more sweeps ...]

A configuration is everything a trial is but its seed. Choices are made on the final validation accuracy; the test set
is reported, never chosen on. A trial counts once it is completed or was stopped early; a diverged one has no accuracy,
and a configuration that diverges on some seeds ranks below all that do so on fewer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import polars as pl
import tyro

from analysis.censored import epochs_to_target, median_epochs, usual_targets
from analysis.compare import pairwise, shared_ranks
from analysis.intervals import describe
from analysis.schema import EPOCH_COLUMNS, SCHEMA_VERSION, STATUS_COLUMNS, Column, polars_schema
from analysis.store import LONGEST_NAME, DamagedFileError, SweepSpec, SweepStore
from analysis.tables import build_trials
from workloads.trial import SETTINGS_OF, digest

FINISHED = ("completed", "early_stopped")
"""Statuses of the trials whose metrics count."""


@dataclass(frozen=True)
class SweepData:
    """One or several sweeps, ready for statistics and pictures."""

    specs: tuple[SweepSpec, ...]
    """What was asked, a spec for each sweep."""
    trials: pl.DataFrame
    """The trials tables of all sweeps plus `configuration` (Int32) and `label` (short, for people). Where several hold
    the same configuration and seed, the one that got furthest stays."""
    epochs: pl.DataFrame
    """The records of these trials plus `configuration`, ordered by trial and epoch."""
    axes: tuple[str, ...]
    """Columns of `trials` that vary between configurations; never the seed."""
    notes: tuple[str, ...] = ()
    """What a reader has to know about the files, one sentence each."""


def load(sweeps: Sequence[str]) -> SweepData:
    """Reads sweeps from their records, so a running one works too; from their tables where only those are left.

    Args:
        sweeps: Where they are: local folders such as `results/optimizers` or URIs such as `s3://bucket/results/plateau`.

    Raises:
        ValueError: There is no sweep at one of these places, or none is given.
        DamagedFileError: A `sweep.json` or a table that is needed is damaged.
    """
    if not sweeps:
        raise ValueError("no sweep given; give at least one folder such as results/optimizers")
    parts, notes = [], []
    for sweep in sweeps:
        store = open_store(sweep)
        spec = store.read_spec()
        if spec is None:
            raise ValueError(f"there is no sweep at {sweep!r}: no sweep.json in it; give the folder that a sweep wrote")
        parts.append((spec, *_recorded(store)))
        notes += [f"{store.locate(path)} is damaged and was left out." for path in dict.fromkeys(store.damaged)]
    return combine(parts, notes)


def open_store(sweep: str) -> SweepStore:
    """Returns the store of a sweep given by its folder or URI.

    Raises:
        ValueError: It cannot be the place of a sweep.
    """
    location, question_mark, options = sweep.partition("?")
    storage_path, _, name = location.rstrip("/").rpartition("/")
    return SweepStore((storage_path or ("/" if location.startswith("/") else ".")) + question_mark + options, name)


def output_store(sweeps: Sequence[str]) -> SweepStore:
    """Returns where the statistics and pictures of sweeps go: into one's own folder; several get one beside the first.

    Args:
        sweeps: Their folders or URIs.

    Raises:
        ValueError: It cannot be the place of a sweep.
    """
    stores = [open_store(sweep) for sweep in sweeps]
    names = list(dict.fromkeys(store.name for store in stores))
    if len(stores) == 1:
        return stores[0]
    together = "-and-".join(names)
    if len(together) > LONGEST_NAME:
        together = f"together-{digest(together)}"
    return SweepStore(stores[0].storage_path, together)


def combine(sweeps: Sequence[tuple[SweepSpec, pl.DataFrame, pl.DataFrame]], notes: Sequence[str] = ()) -> SweepData:
    """Returns sweeps as one.

    Args:
        sweeps: The spec, records and last statuses of each.
        notes: What a reader has to know about the files.
    """
    tables = [build_trials(*sweep).with_columns(pl.lit(i).alias(_ORIGIN)) for i, sweep in enumerate(sweeps)]
    trials, axes = _with_configurations(pl.concat(tables, how="diagonal_relaxed"))
    once = _furthest(trials)
    if repeated := trials.height - once.height:
        notes = [*notes, f"Trials that are in more than one place and are counted once: {repeated}."]
    records = pl.concat([epochs.with_columns(pl.lit(i).alias(_ORIGIN)) for i, (_, epochs, _) in enumerate(sweeps)])
    order = once.select("trial_id", _ORIGIN, "configuration").with_row_index("order")
    records = records.join(order, on=("trial_id", _ORIGIN), how="inner").sort("order", "epoch").drop("order", _ORIGIN)
    specs = tuple(spec for spec, _, _ in sweeps)
    return SweepData(specs, once.drop(_ORIGIN), records, axes, (*notes, *_incomparable(specs)))


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


@contextmanager
def user_errors() -> Iterator[None]:
    """Ends the program with status 2 and one line on an error that a user can mend: a wrong place or a damaged file."""
    try:
        yield
    except (ValueError, OSError, DamagedFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


@dataclass(frozen=True)
class Arguments:
    """Aggregates sweeps, finished or running, over their seeds; writes summary.parquet into the sweep's folder."""

    sweeps: tyro.conf.Positional[tuple[str, ...]]
    """Folders or URIs of sweeps, e.g. results/optimizers s3://bucket/results/plateau."""


def main() -> None:
    """Runs the script."""
    sweeps = tyro.cli(Arguments).sweeps
    with user_errors():
        data = load(sweeps)
        summary = summarise(data)
        print(write_summary(output_store(sweeps), data, summary))
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


def _incomparable(specs: Sequence[SweepSpec]) -> Iterator[str]:
    first = specs[0]
    for other in specs[1:]:
        keys = sorted({*first.fingerprint, *other.fingerprint})
        if differ := [key for key in keys if first.fingerprint.get(key) != other.fingerprint.get(key)]:
            yield f"{first.name} and {other.name} ran with different {', '.join(differ)}: compare them with care."


def _recorded(store: SweepStore) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns a sweep's records and last statuses."""
    recorded = store.read_epochs(), store.read_statuses()
    if any(frame.height for frame in recorded):
        return recorded
    epochs, trials = store.read_table("epochs"), store.read_table("trials")
    if epochs is None or trials is None:
        return recorded
    ended = trials.filter(pl.col("status") != "pending")
    return epochs.select(*polars_schema(EPOCH_COLUMNS)), ended.select(*polars_schema(STATUS_COLUMNS))


_ORIGIN = "sweep_index"
_IDENTITY = ("workload", "dataset", "optimizer", "scheduler", "lr", "batch_size", "epochs", "train_limit")
_SETTING_OF = tuple(f"{kind}_" for kind in SETTINGS_OF)
_FURTHEST = {status: i for i, status in enumerate((*FINISHED, "diverged", "out_of_memory", "failed", "cancelled"))}


def _with_configurations(trials: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Returns the trials with `configuration` and `label`, and the axes."""
    settings = [name for name in trials.columns if name.startswith(_SETTING_OF)]
    identity = [*_IDENTITY, *settings]
    configurations = trials.select(identity).unique(maintain_order=True)
    axes = _axes(configurations, settings)
    configurations = configurations.with_columns(
        pl.Series("configuration", range(configurations.height), dtype=pl.Int32),
        pl.Series("label", _labels(configurations, axes), dtype=pl.String),
    )
    return trials.join(configurations, on=identity, how="left", nulls_equal=True, maintain_order="left"), axes


def _furthest(trials: pl.DataFrame) -> pl.DataFrame:
    """Returns each configuration and seed once, in order: the trial that got furthest, of equals the first."""
    furthest = pl.col("status").replace_strict(_FURTHEST, default=len(_FURTHEST))
    best = trials.sort(furthest, maintain_order=True).unique(("configuration", "seed"), keep="first")
    return trials.join(best, on=("trial_id", _ORIGIN), how="semi", maintain_order="left")


def _axes(configurations: pl.DataFrame, settings: Sequence[str]) -> tuple[str, ...]:
    def varies(column: str, within: str | None) -> bool:
        groups = configurations.group_by(within or pl.lit(0))
        return bool((groups.agg(pl.col(column).n_unique())[column] > 1).any())

    found: list[str] = []
    for kind in SETTINGS_OF:
        found += [kind] if varies(kind, None) else []
        found += [name for name in settings if name.startswith(f"{kind}_") and varies(name, kind)]
    return (*found, *(name for name in ("lr", "batch_size", "epochs", "train_limit") if varies(name, None)))


_PHRASES = {"lr": "lr {}", "batch_size": "batch size {}", "epochs": "{} epochs", "train_limit": "{} images"}


def _labels(configurations: pl.DataFrame, axes: Sequence[str]) -> list[str]:
    short = {axis: axis.partition("_")[2].replace("_", " ") for axis in axes if axis.startswith(_SETTING_OF)}
    phrases = dict(_PHRASES) | dict.fromkeys(SETTINGS_OF, "{}")
    for axis, name in short.items():
        unique = list(short.values()).count(name) == 1
        phrases[axis] = f"{name if unique else axis.replace('_', ' ')} {{}}"
    rows = configurations.select(axes or ("optimizer",)).iter_rows(named=True)
    texts = (", ".join(phrases[axis].format(_text(v)) for axis, v in row.items() if v is not None) for row in rows)
    return [text or "default settings" for text in texts]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()

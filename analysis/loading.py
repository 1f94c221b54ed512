"""Sweeps as one table of trials and one of records: what statistics and pictures start from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from analysis.configurations import with_configurations
from analysis.schema import EPOCH_COLUMNS, STATUS_COLUMNS, polars_schema
from analysis.store import LONGEST_NAME, SweepSpec, SweepStore, without_secrets
from analysis.tables import build_trials
from workloads.errors import InputError
from workloads.trial import digest

FINISHED = ("completed", "early_stopped")
"""Statuses of the trials whose metrics count."""


@dataclass(frozen=True)
class SweepData:
    """One or several sweeps, ready for statistics and pictures."""

    specs: tuple[SweepSpec, ...]
    """What was asked, a spec for each sweep."""
    trials: pl.DataFrame
    """The trials tables of all sweeps, configurations numbered and labelled over all of them. Where several hold the
    same configuration and seed, the trial that got furthest stays."""
    epochs: pl.DataFrame
    """The records of these trials plus `configuration`, ordered by trial and epoch."""
    axes: tuple[str, ...]
    """Columns of `trials` that vary between configurations; never the seed."""
    notes: tuple[str, ...] = ()
    """What a reader has to know about the files, one sentence each."""


def load(sweeps: Sequence[str], *, everything: bool = False) -> SweepData:
    """Reads sweeps from their records, so a running one works too; from their tables where only those are left.

    Args:
        sweeps: Where they are: local folders such as `results/optimizers` or URIs such as `s3://bucket/results/plateau`.
        everything: Whether to take every trial that is stored there, and not only those of the last question.

    Raises:
        InputError: There is no sweep at one of these places, or none is given.
        DamagedFileError: A `sweep.json` or a table that is needed is damaged.
    """
    if not sweeps:
        raise InputError("no sweep given; give at least one folder such as results/optimizers")
    parts, notes = [], []
    for sweep in sweeps:
        store = open_store(sweep)
        spec = store.read_spec()
        if spec is None:
            where = without_secrets(sweep)
            raise InputError(f"there is no sweep at {where!r}: no sweep.json in it; give the folder that a sweep wrote")
        parts.append((spec.everything() if everything else spec, *_recorded(store)))
        notes += [f"{store.locate(path)} is damaged and was left out." for path in dict.fromkeys(store.damaged)]
    return combine(parts, notes)


def open_store(sweep: str) -> SweepStore:
    """Returns the store of a sweep given by its folder or URI.

    Raises:
        InputError: It cannot be the place of a sweep.
    """
    location, question_mark, options = sweep.partition("?")
    storage_path, _, name = location.rstrip("/").rpartition("/")
    return SweepStore((storage_path or ("/" if location.startswith("/") else ".")) + question_mark + options, name)


def output_store(sweeps: Sequence[str], *, everything: bool = False) -> SweepStore:
    """Returns where the statistics and pictures of sweeps go: into one's own folder; several get one beside the first.

    Args:
        sweeps: Their folders or URIs.
        everything: Whether they are about all that is stored: then those of one sweep go into its folder `all`.

    Raises:
        InputError: It cannot be the place of a sweep.
    """
    stores = [open_store(sweep) for sweep in sweeps]
    names = list(dict.fromkeys(store.name for store in stores))
    if len(stores) == 1:
        return SweepStore(stores[0].uri, "all") if everything else stores[0]
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
    trials, axes = with_configurations(pl.concat(tables, how="diagonal_relaxed"))
    once = _furthest(trials)
    if repeated := trials.height - once.height:
        notes = [*notes, f"Trials that are in more than one place and are counted once: {repeated}."]
    records = pl.concat([epochs.with_columns(pl.lit(i).alias(_ORIGIN)) for i, (_, epochs, _) in enumerate(sweeps)])
    order = once.select("trial_id", _ORIGIN, "configuration").with_row_index("order")
    records = records.join(order, on=("trial_id", _ORIGIN), how="inner").sort("order", "epoch").drop("order", _ORIGIN)
    specs = tuple(spec for spec, _, _ in sweeps)
    return SweepData(specs, once.drop(_ORIGIN), records, axes, (*notes, *_incomparable(specs)))


def _incomparable(specs: Sequence[SweepSpec]) -> Iterator[str]:
    first = specs[0]
    for other in specs[1:]:
        keys = sorted({*first.fingerprint, *other.fingerprint})
        if differ := [key for key in keys if first.fingerprint.get(key) != other.fingerprint.get(key)]:
            yield f"{first.name} and {other.name} ran with different {', '.join(differ)}: compare them with care."


def _recorded(store: SweepStore) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns a sweep's records and last statuses."""
    # Statuses first: a sweep that runs may complete a trial between the two, whose last record is then there.
    statuses = store.read_statuses()
    recorded = store.read_epochs(), statuses
    if any(frame.height for frame in recorded):
        return recorded
    epochs, trials = store.read_table("epochs"), store.read_table("trials")
    if epochs is None or trials is None:
        return recorded
    ended = trials.filter(pl.col("status") != "pending")
    return epochs.select(*polars_schema(EPOCH_COLUMNS)), ended.select(*polars_schema(STATUS_COLUMNS))


_ORIGIN = "sweep_index"
_FURTHEST = {status: i for i, status in enumerate((*FINISHED, "diverged", "out_of_memory", "failed", "cancelled"))}


def _furthest(trials: pl.DataFrame) -> pl.DataFrame:
    """Returns each configuration and seed once, in order: the trial that got furthest, of equals the first."""
    furthest = pl.col("status").replace_strict(_FURTHEST, default=len(_FURTHEST))
    best = trials.sort(furthest, maintain_order=True).unique(("configuration", "seed"), keep="first")
    return trials.join(best, on=("trial_id", _ORIGIN), how="semi", maintain_order="left")

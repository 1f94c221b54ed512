"""The tables that people and other tools read: each number in them must be what the records give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from analysis.aggregate import summarise
from analysis.loading import load
from analysis.measures import published
from analysis.origin import MADE_FROM, of_records, of_statistics
from analysis.store import DamagedFileError, SweepSpec
from sweeps.receipts.stored import Difference, Stored


@dataclass(frozen=True, kw_only=True)
class _Table:
    made: Callable[[Stored], pl.DataFrame]
    """What it must hold."""
    made_from: Callable[[SweepSpec, Sequence[str]], str]
    """The digest of what it is made from, as its metadata name it."""
    keys: tuple[str, ...]
    """The columns that say what a row is about."""
    within: float = 0.0
    """What is computed from records may differ by this fraction between machines."""


def _summary(stored: Stored) -> pl.DataFrame:
    data = load([stored.store.uri])
    return published(summarise(data), data.measure)


_TABLES = {
    "epochs": _Table(made=lambda it: it.published["epochs"], made_from=of_records, keys=("trial_id", "epoch")),
    "trials": _Table(made=lambda it: it.published["trials"], made_from=of_records, keys=("trial_id",), within=1e-12),
    "summary": _Table(made=_summary, made_from=of_statistics, keys=("configuration",), within=1e-6),
}


def check_tables(stored: Stored) -> tuple[list[Difference], tuple[str, ...], tuple[str, ...]]:
    """Compares the tables with what the records give.

    Returns:
        The differences, the files that were compared, and those that cannot be: made from something else than what is
        stored now (the sweep runs, or was killed), or by another version of forksweep.
    """
    differences: list[Difference] = []
    compared, others = [], []
    for name, table in _TABLES.items():
        file = f"{name}.parquet"
        try:
            there, metadata = stored.store.read_table_and_metadata(name)
        except DamagedFileError:
            differences.append(_of_file(file, "damaged", "its checksums do not match it"))
            continue
        if there is None:
            continue
        if not metadata:
            differences.append(_of_file(file, "a table that no sweep wrote", "it has been replaced"))
            continue
        if metadata.get(MADE_FROM) != table.made_from(stored.asked, stored.parts):
            others.append(file)
            continue
        compared.append(file)
        differences += _compared(file, there, table.made(stored), table)
    return differences, tuple(compared), tuple(others)


def _of_file(file: str, stored: object, found: object) -> Difference:
    return Difference(trial_id=None, epoch=None, field=file, stored=stored, found=found)


def _compared(file: str, there: pl.DataFrame, made: pl.DataFrame, table: _Table) -> Iterator[Difference]:
    keys = list(table.keys)
    for gone in (name for name in made.columns if name not in there.columns):
        yield _of_file(f"{file}, column {gone}", "none", "there must be one")
    if not set(keys) <= set(there.columns):
        return
    if not there.select(keys).sort(keys).equals(made.select(keys).sort(keys)):
        yield _of_file(file, f"{there.height:,} rows", f"not those of the records, {made.height:,}")
        return
    both = made.join(there, on=keys, how="left", suffix=_THERE)
    for name in (name for name in made.columns if name in there.columns and name not in keys):
        if there.schema[name] != made.schema[name]:
            yield _of_file(f"{file}, column {name}", there.schema[name], f"by the records: {made.schema[name]}")
            continue
        different = both.filter(~_same(name, within=table.within if made.schema[name].is_float() else 0))
        for row in different.iter_rows(named=True):
            yield Difference(
                trial_id=row.get("trial_id"),
                epoch=row.get("epoch") if "epoch" in keys else None,
                field=f"{file}, {name}" + ("" if "trial_id" in keys else f" of {row['label']}"),
                stored=row[f"{name}{_THERE}"],
                how="by the records:",
                found=row[name],
            )


_THERE = "_there"


def _same(name: str, within: float) -> pl.Expr:
    mine, theirs = pl.col(name), pl.col(f"{name}{_THERE}")
    same = mine.eq_missing(theirs)
    return same | ((mine - theirs).abs() <= within * mine.abs()).fill_null(value=False) if within else same

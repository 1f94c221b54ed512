"""Loads sweeps as one table of trials and one of epochs, the input of statistics and plots."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from analysis.commands import shown
from analysis.configurations import with_configurations
from analysis.measures import common_measure, internal
from analysis.race import Race, raced
from analysis.schema import DECISION_COLUMNS, EPOCH_COLUMNS, STATUS_COLUMNS, polars_schema
from analysis.search import Search, searched
from analysis.statistics.compare import NOTHING, Shown
from analysis.store import LONGEST_NAME, SPEC_FILE, SweepSpec, SweepStore, without_secrets
from analysis.tables import build_trials
from workloads.errors import InputError
from workloads.measure import ACCURACY, Measure
from workloads.trial import digest

FINISHED = ("completed",)
"""Statuses of the trials whose metrics count."""


def no_decisions() -> pl.DataFrame:
    """Returns an empty table of decisions."""
    return pl.DataFrame(schema=polars_schema(DECISION_COLUMNS))


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
    """Caveats about the files, one sentence each."""
    race: Race | None = None
    """How its race went, if it was one."""
    shown: Shown = NOTHING
    """What a race has shown of these configurations: ranks, verdicts and sentences keep to it."""
    measure: Measure = ACCURACY
    """What configurations are ranked by: its values are in the columns called accuracy."""
    search: Search | None = None
    """How its trials were drawn, if it was a search."""

    @property
    def care(self) -> float | None:
        """The smallest difference that matters in any of the sweeps; None if in one of them any does."""
        given = [spec.care for spec in self.specs if spec.care is not None]
        return min(given) if given and len(given) == len(self.specs) else None

    decisions: pl.DataFrame = field(default_factory=no_decisions)
    """What the races that were asked for decided (`DECISION_COLUMNS`), in order; empty for sweeps of fixed trials."""


def load(sweeps: Sequence[str], *, everything: bool = False) -> SweepData:
    """Reads sweeps from their parts, so running ones work too; falls back to the tables if only those are left.

    Args:
        sweeps: Local folders such as `results/optimizers` or URIs such as `s3://bucket/results/plateau`.
        everything: Whether to load every stored trial instead of only those of the last question.

    Raises:
        InputError: There is no sweep at one of these places, none is given, or they are ranked by different measures.
        DamagedFileError: A `sweep.json` or a table that is needed is damaged.
    """
    _require_some(sweeps)
    opened = [open_sweep(sweep) for sweep in sweeps]
    return load_specs([(store, spec.everything() if everything else spec) for store, spec in opened])


def load_specs(sweeps: Sequence[tuple[SweepStore, SweepSpec]]) -> SweepData:
    """Reads what is stored of questions.

    Args:
        sweeps: Where, and what was asked.

    Raises:
        DamagedFileError: A table that is needed is damaged.
    """
    parts, notes, decisions = [], [], []
    for store, spec in sweeps:
        parts.append((spec, *recorded(store, common_measure([spec]))))
        decisions.append(store.read_decisions() if spec.race else no_decisions())
        notes += [f"{store.locate(path)} is damaged and was skipped." for path in dict.fromkeys(store.damaged)]
    return combine(parts, notes, decisions)


def labels(spec: SweepSpec) -> dict[str, str]:
    """Returns what a person calls each trial of a sweep: the settings that vary, and the seed if that does."""
    epochs, statuses = (pl.DataFrame(schema=polars_schema(columns)) for columns in (EPOCH_COLUMNS, STATUS_COLUMNS))
    trials = combine([(spec, epochs, statuses)]).trials
    seeds = trials["seed"].n_unique() > 1
    return {
        row["trial_id"]: f"{row['label']}, seed {row['seed']}" if seeds else row["label"]
        for row in trials.select("trial_id", "label", "seed").iter_rows(named=True)
    }


def open_store(sweep: str) -> SweepStore:
    """Returns the store of a sweep given by its folder or URI.

    Raises:
        InputError: It is not a valid location.
    """
    if "://" not in sweep:
        path = Path(os.path.abspath(Path(sweep).expanduser()))  # `.` has a name too  # noqa: PTH100
        return SweepStore(str(path.parent), path.name)
    location, question_mark, options = sweep.partition("?")
    storage_path, _, name = location.rstrip("/").rpartition("/")
    return SweepStore((storage_path or ("/" if location.startswith("/") else ".")) + question_mark + options, name)


def open_sweep(place: str) -> tuple[SweepStore, SweepSpec]:
    """Returns the sweep at a place, and what was asked.

    Raises:
        InputError: There is none; the message names the sweeps near it.
        DamagedFileError: Its `sweep.json` is damaged.
    """
    is_file = "://" not in place and Path(place).expanduser().is_file()
    store = None if is_file else _store_if_valid(place)
    spec = None if store is None else store.read_spec()
    if store is not None and spec is not None:
        return store, spec
    near = _near(place, is_file=is_file)
    such = f" such as {', '.join(near[:_MOST_NEAR])}" if near else ""
    raise InputError(
        f"no sweep found at {without_secrets(place)!r}: it {'is a file' if is_file else 'has no sweep.json'}; "
        f"pass the results folder of a sweep{such}"
    )


def _require_some(sweeps: Sequence[str]) -> None:
    if not sweeps:
        raise InputError("no sweep given; pass at least one folder such as results/optimizers")


_MOST_NEAR = 5
"""As many sweeps are named to one who has missed them."""


def _store_if_valid(place: str) -> SweepStore | None:
    """Returns the store of a place; None where it is a folder whose name cannot be a sweep's, such as `my results`."""
    try:
        return open_store(place)
    except InputError:
        if "://" in place or not Path(place).expanduser().is_dir():
            raise
        return None


def _near(place: str, *, is_file: bool) -> list[str]:
    """Returns the sweeps around a place: the one it is in, and those that are in it or in its `results`."""
    if "://" in place:
        stores = SweepStore(place, "any").siblings()
        return [store.location for store in stores]
    path = Path(os.path.abspath(Path(place).expanduser()))  # noqa: PTH100
    above = [folder for folder in path.parents if (folder / SPEC_FILE).is_file()]
    below = [] if is_file else [path, path / "results"]
    inside = [file.parent for folder in below for file in sorted(folder.glob(f"*/{SPEC_FILE}"))]
    return [shown(folder) for folder in [*above, *inside]]


def output_store(sweeps: Sequence[str], *, everything: bool = False) -> SweepStore:
    """Returns where to write statistics and plots: a sweep's own folder, or a common folder beside the first sweep.

    Args:
        sweeps: Their folders or URIs.
        everything: Whether they cover every stored trial; for a single sweep they then go into its folder `all`.

    Raises:
        InputError: A location is not valid, or none is given.
    """
    _require_some(sweeps)
    stores = [open_store(sweep) for sweep in sweeps]
    names = list(dict.fromkeys(store.name for store in stores))
    if len(stores) == 1:
        return SweepStore(stores[0].uri, "all") if everything else stores[0]
    together = "-and-".join(names)
    if len(together) > LONGEST_NAME:
        together = f"together-{digest(together)}"
    return SweepStore(stores[0].storage_path, together)


def combine(
    sweeps: Sequence[tuple[SweepSpec, pl.DataFrame, pl.DataFrame]],
    notes: Sequence[str] = (),
    decisions: Sequence[pl.DataFrame] = (),
) -> SweepData:
    """Returns sweeps as one.

    Args:
        sweeps: The spec, records and last statuses of each.
        notes: Caveats about the files.
        decisions: What is stored of each sweep's policies, earlier ones included; if none is given, there are none.

    Raises:
        InputError: They are ranked by different measures.
    """
    measure = common_measure(spec for spec, _, _ in sweeps)
    tables = [build_trials(*sweep).with_columns(pl.lit(i).alias(_ORIGIN)) for i, sweep in enumerate(sweeps)]
    trials, axes = with_configurations(pl.concat(tables, how="diagonal_relaxed"))
    if trials["variant"].drop_nulls().len():
        notes = [*notes, _VARIANTS]
    once = _furthest(trials)
    if repeated := trials.height - once.height:
        notes = [*notes, f"Duplicate trials, counted only once: {repeated}."]
    records = pl.concat([epochs.with_columns(pl.lit(i).alias(_ORIGIN)) for i, (_, epochs, _) in enumerate(sweeps)])
    order = once.select("trial_id", _ORIGIN, "configuration").with_row_index("order")
    records = records.join(order, on=("trial_id", _ORIGIN), how="inner").sort("order", "epoch").drop("order", _ORIGIN)
    specs = tuple(spec for spec, _, _ in sweeps)
    decided = _decided(specs, decisions or [no_decisions() for _ in specs])
    told = (*notes, *_incomparable(specs))
    shared = once.drop(_ORIGIN)
    race = raced(specs, shared)
    shown = NOTHING if race is None else Shown(worse=tuple(race.worse), equal=tuple(race.equal))
    return SweepData(
        specs,
        shared,
        records,
        axes,
        told,
        decisions=decided,
        race=race,
        shown=shown,
        measure=measure,
        search=searched(specs),
    )


def _decided(specs: Sequence[SweepSpec], decisions: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Returns the decisions of the races that the specs ask for."""
    policies = [spec.race["policy"] if spec.race else None for spec in specs]
    own = [
        frame.filter(pl.col("policy") == policy).sort("number")
        for policy, frame in zip(policies, decisions, strict=True)
        if policy is not None
    ]
    return pl.concat([no_decisions(), *own]).unique(("policy", "number"), keep="first", maintain_order=True)


_VARIANTS = (
    "Some configurations were trained in different ways, because their code, data or machine changed: they are listed "
    "as variants, and not averaged."
)


def _incomparable(specs: Sequence[SweepSpec]) -> Iterator[str]:
    first = specs[0]
    for other in specs[1:]:
        keys = sorted({*first.fingerprint, *other.fingerprint})
        if differ := [key for key in keys if first.fingerprint.get(key) != other.fingerprint.get(key)]:
            yield f"{first.name} and {other.name} ran with different {', '.join(differ)}: compare them with care."


def recorded(store: SweepStore, measure: Measure) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns a sweep's records and last statuses."""
    # Statuses first: if a running sweep completes a trial in between, its last record is then present.
    statuses = store.read_statuses()
    recorded = store.read_epochs(), statuses
    if any(frame.height for frame in recorded):
        return recorded
    epochs, trials = store.read_table("epochs"), store.read_table("trials")
    if epochs is None or trials is None:
        return recorded
    ended = trials.filter(pl.col("status") != "pending")
    whole = pl.concat([pl.DataFrame(schema=polars_schema(EPOCH_COLUMNS)), internal(epochs, measure)], how="diagonal")
    return whole.select(*polars_schema(EPOCH_COLUMNS)), ended.select(*polars_schema(STATUS_COLUMNS))


_ORIGIN = "sweep_index"
_FURTHEST = {
    status: i
    for i, status in enumerate((*FINISHED, "diverged", "early_stopped", "out_of_memory", "failed", "cancelled"))
}


def _furthest(trials: pl.DataFrame) -> pl.DataFrame:
    """Keeps one trial per configuration and seed: the one that got furthest, the first of equals."""
    furthest = pl.col("status").replace_strict(_FURTHEST, default=len(_FURTHEST))
    best = trials.sort(furthest, maintain_order=True).unique(("configuration", "seed"), keep="first")
    return trials.join(best, on=("trial_id", _ORIGIN), how="semi", maintain_order="left")

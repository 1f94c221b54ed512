"""What is stored of a sweep, as it is checked, and what was found to be different."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from analysis.loading import labels, open_sweep
from analysis.store import Checkpoint, SweepSpec, SweepStore, TrialStatus
from analysis.tables import build_published
from workloads.trial import RECORD_FIELDS, TrialConfig, digest

Row = Mapping[str, Any]
"""A stored record, with the fields of `EpochRecord`."""
Unit = tuple[str, int]
"""An epoch as it was trained, once for all trials that share it: who computed it, and its number."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something stored that is not as it must be."""

    trial_id: str | None
    """None for what belongs to no trial."""
    epoch: int | None
    """None for what belongs to no epoch."""
    field: str
    """A field of the record, or what else differs, in words."""
    stored: Any
    found: Any
    how: str = ""
    """How it was found, as the words before what was."""

    def said(self, names: Mapping[str, str]) -> str:
        """Returns it in a sentence.

        Args:
            names: Trial id -> what a person calls the trial.
        """
        place = [] if self.trial_id is None else [names.get(self.trial_id, f"trial {self.trial_id}")]
        place += [] if self.epoch is None else [f"epoch {self.epoch}"]
        before = f"{', '.join(place)}: " if place else ""
        return f"{before}{self.field}: stored {self.stored}, {self.how}{' ' if self.how else ''}{self.found}"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """All that is stored of a sweep, read once."""

    store: SweepStore
    asked: SweepSpec
    """Of the last question."""
    spec: SweepSpec
    """Of all stored trials."""
    rows: Mapping[str, tuple[Row, ...]]
    """Trial -> its records, from the first epoch on, up to the first gap."""
    gaps: Mapping[str, int]
    """Trial -> the first epoch that is missing, though there are later ones."""
    statuses: Mapping[str, TrialStatus]
    checkpoints: tuple[Checkpoint, ...]
    damaged: tuple[str, ...]
    """Parts whose content does not match their checksum."""
    parts: tuple[str, ...]
    """The names of the parts, which say what was checked."""

    @classmethod
    def read(cls, place: str) -> Stored:
        """Reads a sweep, given by its folder or URI, finished or running.

        Raises:
            InputError: There is none.
            DamagedFileError: Its `sweep.json` is damaged.
        """
        store, spec = open_sweep(place)
        parts = tuple(store.files("parts"))
        # Statuses first: each promises records that were written before it.
        statuses = store.read_statuses().drop("sweep")
        records = store.read_epochs().select(RECORD_FIELDS).sort("trial_id", "epoch")
        rows: dict[str, list[Row]] = {}
        gaps: dict[str, int] = {}
        for row in records.iter_rows(named=True):
            own = rows.setdefault(row["trial_id"], [])
            if row["epoch"] == len(own) + 1:
                own.append(row)
            else:
                gaps[row["trial_id"]] = len(own) + 1
        return cls(
            store=store,
            asked=spec,
            spec=spec.everything(),
            rows={trial_id: tuple(own) for trial_id, own in rows.items()},
            gaps=gaps,
            statuses={row["trial_id"]: TrialStatus(**row) for row in statuses.iter_rows(named=True)},
            checkpoints=tuple(store.list_checkpoints()),
            damaged=tuple(dict.fromkeys(store.damaged)),
            parts=parts,
        )

    @cached_property
    def trials(self) -> Mapping[str, TrialConfig]:
        """The trials, by id."""
        return {trial.trial_id: trial for trial in self.spec.trials}

    @cached_property
    def published(self) -> Mapping[str, pl.DataFrame]:
        """What `epochs.parquet` and `trials.parquet` must hold."""
        return build_published(self.store, self.asked)

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Trial id -> what a person calls it."""
        return labels(self.spec)

    @cached_property
    def holders(self) -> Mapping[Unit, tuple[str, ...]]:
        """Trained epoch -> the trials that have its record."""
        found: dict[Unit, list[str]] = {}
        for trial_id, rows in self.rows.items():
            for row in rows:
                found.setdefault((row["computed_by"], row["epoch"]), []).append(trial_id)
        return {unit: tuple(ids) for unit, ids in found.items()}

    @property
    def records(self) -> int:
        """How many records there are."""
        return sum(map(len, self.rows.values()))

    def diverged(self, trial_id: str) -> bool:
        """Whether a trial is known to diverge in the epoch after its last record."""
        status = self.statuses.get(trial_id)
        if status is None or status.status != "diverged":
            return False
        return len(self.rows.get(trial_id, ())) == status.epochs_run

    def read_checkpoint(self, checkpoint: Checkpoint) -> bytes | None:
        """Returns a checkpoint's bytes; None if they do not match the checksum in its name.

        Raises:
            FileNotFoundError: It is gone.
        """
        content = self.store.read(checkpoint.path)
        return content if digest(content) == checkpoint.path.removesuffix(".pt").rpartition("-")[2] else None


def tests(trial: TrialConfig, epoch: int) -> bool:
    """Whether a trial's record of an epoch holds test results."""
    return trial.test_every_epoch or epoch == trial.epochs

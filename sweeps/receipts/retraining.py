"""Trains stored epochs again, one after the other in this process, and compares all numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from analysis.store import Checkpoint
from sweeps.ledger.ledger import ALIKE
from sweeps.receipts.sample import Stretch, stretches
from sweeps.receipts.stored import Difference, Row, Stored, Unit, tests
from workloads.errors import InputError
from workloads.registry import data_of, dataset_of
from workloads.states import HALF
from workloads.training import Hardware, Images, State, train
from workloads.trial import CLOCK_FIELDS, RECORD_FIELDS, STATE_FIELDS, TEST_FIELDS, Diverged, EpochRecord, TrialConfig

WITHIN = 0.1
"""Where bits cannot be expected, losses and accuracies may differ by this fraction of the larger one ..."""
OR_WITHIN = 0.02
"""... or by this much, whichever is more."""
_NOT_COMPARED = ("trial_id", "computed_by", "epoch", *CLOCK_FIELDS)
_ROUGHLY = tuple(name for name in RECORD_FIELDS if name.endswith(("_loss", "_accuracy")) and "class" not in name)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what terms a trial's epochs can be trained again."""

    hardware: Hardware
    exact: bool
    """Whether the same bits are to be expected: it is the same type of machine."""


@dataclass(kw_only=True)
class Retraining:
    """What can be trained again of a sweep, and how.

    Args:
        stored: The sweep.
        terms: Trial -> on what terms; the others are left out.
        good: (trial, epoch) -> a checkpoint that holds what it should.
        data_root: The folder of downloaded data sets.
    """

    stored: Stored
    terms: Mapping[str, Terms]
    good: Mapping[tuple[str, int], Checkpoint]
    data_root: Path
    trained: int = 0
    """Epochs trained so far."""
    _images: dict[tuple[str, str], Images] = field(default_factory=dict)
    _kept: dict[Unit, Checkpoint] = field(default_factory=dict)
    _starts: set[Unit | None] = field(default_factory=set)
    """Epochs after which a later stretch begins, and of which no checkpoint is stored."""
    _states: dict[Unit, State] = field(default_factory=dict)
    """The states after them."""

    @cached_property
    def epochs(self) -> Mapping[Unit, str]:
        """Every epoch that was trained, and those in which a trial diverged -> the trial it is trained again with."""
        found: dict[Unit, str] = {}
        for trial_id in self.stored.trials:
            if trial_id not in self.terms:
                continue
            rows = self.stored.rows.get(trial_id, ())
            for row in rows:
                unit = (row["computed_by"], row["epoch"])
                if unit not in found or row["computed_by"] == trial_id:
                    found[unit] = trial_id
            if self.stored.diverged(trial_id):
                found[trial_id, len(rows) + 1] = trial_id
        return found

    def way(self, unit: Unit) -> list[Unit]:
        """Returns the epochs from the first on that lead to one, with it."""
        rows = self.stored.rows.get(self.epochs[unit], ())
        return [*((row["computed_by"], row["epoch"]) for row in rows[: unit[1] - 1]), unit]

    def plan(self, wanted: Sequence[Unit]) -> list[Stretch]:
        """Returns the stretches to train; checkpoints that hold what they should are gone on from."""
        self._kept = {
            unit: checkpoint
            for unit, ids in self.stored.holders.items()
            for name in (unit[0], *ids)
            if (checkpoint := self.good.get((name, unit[1]))) is not None
        }
        plan = stretches(wanted, self.way, self._kept)
        self._starts = {stretch.start for stretch in plan} - self._kept.keys()
        return plan

    def seconds(self, plan: Sequence[Stretch]) -> float:
        """Returns how long the stretches take, if an epoch takes what it took in the sweep."""
        spent: dict[Unit, float] = {
            (row["computed_by"], row["epoch"]): row["train_seconds"] + row["eval_seconds"]
            for rows in self.stored.rows.values()
            for row in rows
        }
        usual = sum(spent.values()) / max(1, len(spent))
        return math.fsum(spent.get(unit, usual) for stretch in plan for unit in stretch.units)

    def run(self, stretch: Stretch, see: Callable[[str, EpochRecord | None], object]) -> Iterator[Difference]:
        """Trains a stretch, and yields what is different.

        Args:
            stretch: The next one of the plan.
            see: Called with the trial and the record of every epoch trained; None for one that diverged.
        """
        trial = self.stored.trials[self.epochs[stretch.units[-1]]]
        try:
            yield from self._train(trial, stretch, see)
        except (InputError, OSError) as error:
            yield self._cannot(trial, stretch, str(error))

    def _cannot(self, trial: TrialConfig, stretch: Stretch, why: str) -> Difference:
        (_, epoch), found = stretch.units[0], " ".join(why.split())
        return Difference(trial_id=trial.trial_id, epoch=epoch, field="training", stored="a record", found=found)

    def _train(
        self,
        trial: TrialConfig,
        stretch: Stretch,
        see: Callable[[str, EpochRecord | None], object],
    ) -> Iterator[Difference]:
        terms = self.terms[trial.trial_id]
        start = self._state(stretch.start)
        if stretch.start is not None and start is None:
            return  # where it was to begin, training has given something else, which has been said
        latest: list[State] = []

        def save(state: State) -> None:
            latest[:] = [state]

        holders = {unit: [i for i in self.stored.holders.get(unit, ()) if i in self.terms] for unit in stretch.units}
        training = train(
            trial,
            images=self._images_of(trial, terms),
            hardware=terms.hardware,
            start=start,
            save=save if self._starts & set(stretch.units) else None,
            test_epochs=[e for (n, e), ids in holders.items() for i in ids if tests(self.stored.trials[i], e)],
        )
        for unit in stretch.units:
            record, outcome = None, None
            try:
                record = next(training)
            except Diverged as diverged:
                outcome = str(diverged)
            except Exception as error:  # noqa: BLE001 - whatever a network raises now, it did not then
                yield self._cannot(trial, stretch, f"{type(error).__name__}: {error}")
                return
            self.trained += 1
            see(trial.trial_id, record)
            if record is None:
                yield from self._not_diverged(trial, unit, holders[unit], outcome)
                return
            found = list(self._different(unit, holders[unit], record, terms))
            yield from found
            if terms.exact and any(is_state_of(one) for one in found):
                return  # from here on all is different
            if unit in self._starts and latest:
                self._states[unit] = latest[0]

    def _not_diverged(
        self, trial: TrialConfig, unit: Unit, holders: Sequence[str], outcome: str | None
    ) -> Iterator[Difference]:
        """Yields the records of an epoch that diverges now, or how it diverged then if that was otherwise."""
        for holder in holders:
            yield Difference(
                trial_id=holder, epoch=unit[1], field="record", stored="there", how="retrained:", found=outcome
            )
        status = self.stored.statuses.get(trial.trial_id)
        said = None if status is None or holders else status.error
        # Of one that was found to be the same training as another, that one knows how.
        if said not in (None, ALIKE, outcome) and self.terms[trial.trial_id].exact:
            yield Difference(
                trial_id=trial.trial_id, epoch=unit[1], field="outcome", stored=said, how="retrained:", found=outcome
            )

    def _different(self, unit: Unit, holders: Sequence[str], record: EpochRecord, terms: Terms) -> Iterator[Difference]:
        """Yields what is different in the records of an epoch that has been trained again."""
        epoch = unit[1]
        if not holders:
            yield Difference(
                trial_id=self.epochs[unit],
                epoch=epoch,
                field="outcome",
                stored="diverged",
                how="retrained:",
                found=f"training loss {record.train_loss}",
            )
        compared = different if terms.exact else roughly_different
        for holder in holders:
            row = self.stored.rows[holder][epoch - 1]
            for name, stored, found in compared(row, record, tested=tests(self.stored.trials[holder], epoch)):
                yield Difference(trial_id=holder, epoch=epoch, field=name, stored=stored, how="retrained", found=found)

    def _state(self, unit: Unit | None) -> State | None:
        if unit is None:
            return None
        if unit not in self._kept:
            return self._states.get(unit)
        content = self.stored.read_checkpoint(self._kept[unit])
        return None if content is None else State.from_bytes(content)

    def _images_of(self, trial: TrialConfig, terms: Terms) -> Images:
        row, device = dataset_of(trial), terms.hardware.apply()
        key = (row.name, str(device))
        if key not in self._images:
            self._images[key] = Images(data_of(row, self.data_root), device)
        return self._images[key]


Field = tuple[str, object, object]
"""Name, stored and found value."""


def different(row: Row, record: EpochRecord, *, tested: bool) -> list[Field]:
    """Returns the fields of a stored record that are not, bit for bit, what training again gave.

    Args:
        row: What is stored.
        record: What training gave.
        tested: Whether the stored record is to hold test results.
    """
    found = []
    for name, value in record.to_json().items():
        value = None if name in TEST_FIELDS and not tested else value
        added_later = row[name] is None and row["state_after"] is None
        if name not in _NOT_COMPARED and not added_later and row[name] != value and not _both_nan(row[name], value):
            found.append((name, row[name], value))
    # Names of states follow from the numbers, which say more.
    measured = [one for one in found if one[0] not in STATE_FIELDS]
    weights = [one for one in found if one[0] == "state_after" and _half(one[1]) != _half(one[2])]
    return (measured + weights) or found


def roughly_different(row: Row, record: EpochRecord, *, tested: bool) -> list[Field]:
    """Returns the losses and accuracies that differ by more than another type of machine explains; see `different`."""
    pairs = [
        (name, row[name], value)
        for name, value in record.to_json().items()
        if name in _ROUGHLY and (tested or name not in TEST_FIELDS)
    ]
    return [(name, stored, found) for name, stored, found in pairs if not _roughly_equal(stored, found)]


def is_state_of(difference: Difference) -> bool:
    """Whether training led to other weights: then all that follows is different too."""
    if difference.field in ("training", "record", "outcome"):
        return True
    return difference.field == "state_after" and _half(difference.stored) != _half(difference.found)


def _half(name: object) -> str:
    return str(name)[:HALF]


def _roughly_equal(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=WITHIN, abs_tol=OR_WITHIN)


def _both_nan(one: object, other: object) -> bool:
    return all(isinstance(value, float) and math.isnan(value) for value in (one, other))

"""The ledger: which trials of a sweep are done, which are not, and why; read from the store and kept in it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from analysis.store import Checkpoint, SweepStore, TrialStatus
from sweeps.live import Live
from sweeps.options import Keep
from sweeps.trajectories import CheckpointKey, Delivery, ForkTree, Member
from workloads.registry import steps_per_epoch
from workloads.schedulers import SCHEDULERS, Trace
from workloads.trial import FINAL_STATUSES, RECORD_FIELDS, TEST_FIELDS, Status, TrialConfig, canonical_json

FLUSH_SECONDS = 1.0
"""Records reach the disk at most that much later than they came in."""
BEST_KEPT: tuple[Keep, ...] = ("best", "all")
"""With these, each trial knows the checkpoint of its best epoch."""


class _Best(NamedTuple):
    val_accuracy: float
    checkpoint: Checkpoint | None


class Ledger:
    """What is known of every planned trial.

    Args:
        store: Where it is kept.
        trials: Every planned trial.
        retry_failed: Whether failed trials are open again.
        fresh: Whether to start from nothing, whatever is stored.
        keep: Which checkpoints stay.
    """

    def __init__(
        self,
        store: SweepStore,
        trials: Sequence[TrialConfig],
        *,
        retry_failed: bool = False,
        fresh: bool = False,
        keep: Keep = "final",
    ) -> None:
        self.store = store
        self.trials = {trial.trial_id: trial for trial in trials}
        self._new_records: list[Mapping[str, Any]] = []
        self._new_statuses: list[TrialStatus] = []
        self._flushed = time.monotonic()
        self.live = Live({})
        """Where records go besides the store, as they come in."""
        self.known = {} if fresh else _known_records(store)
        self.statuses: dict[str, TrialStatus] = {}
        self.kept_checkpoints: Counter[str] = Counter()
        """Checkpoint -> for how many trials it stays, as their final or their best so far."""
        self._keep = keep
        self._best: dict[str, _Best] = {}
        self._delivered = Counter({trial_id: len(records) for trial_id, records in self.known.items()})
        self.delivered_before = self.delivered
        """Trial-epochs there was a record for at the start."""
        self.checkpoints: dict[CheckpointKey, Checkpoint] = (
            {} if fresh else {(c.trial_id, c.epoch): c for c in store.list_checkpoints()}
        )
        """Those that are stored."""
        for status in [] if fresh else _stored_statuses(store):
            holds = len(self.known.get(status.trial_id, ())) >= status.epochs_run
            if holds and (status.status in FINAL_STATUSES or (status.status == "failed" and not retry_failed)):
                self._note(status)
        for trial_id in self.trials:
            if keep in BEST_KEPT and self.is_open(trial_id):
                for record in self.known.get(trial_id, ()):
                    self._note_best(trial_id, record, None)
        for trial_id, trial in self.trials.items():
            # A run killed between a trial's last record and its status leaves a complete trial without one.
            if trial_id not in self.statuses and len(self.known.get(trial_id, ())) == trial.epochs:
                self.set_status(trial_id, "completed")

    # -- reading ----------------------------------------------------------------------------------------------------

    def is_open(self, trial_id: str) -> bool:
        """Whether a trial still has to be trained."""
        return trial_id not in self.statuses

    @property
    def open(self) -> list[TrialConfig]:
        """The trials still to be trained."""
        return [trial for trial_id, trial in self.trials.items() if self.is_open(trial_id)]

    def counts(self) -> Counter[Status]:
        """Returns how many trials have each status; those without one are pending."""
        return Counter(
            self.statuses[trial_id].status if trial_id in self.statuses else "pending" for trial_id in self.trials
        )

    @property
    def delivered(self) -> int:
        """How many trial-epochs there is a record for."""
        return sum(self._delivered[trial_id] for trial_id in self.trials)

    def metric_driven(self, member: Member) -> bool:
        """Whether a trial's schedule watches a metric, so that nobody knows beforehand what it does."""
        return SCHEDULERS[self.trials[member.trial_id].scheduler].steps_on == "metric"

    def tree(self, *, share: bool = True) -> ForkTree:
        """Returns the fork tree of the trials, from what is stored."""
        return ForkTree(self.members(), share=share, checkpoints=self.checkpoints)

    def members(self) -> list[Member]:
        """Returns the trials as the fork tree sees them.

        Trials taken over from another sweep are not among them: that sweep's checkpoints on the way are gone, so nobody
        could go on from where they fork, and each who tried would train the way there anew.
        """
        return [
            self._member(trial)
            for trial_id, trial in self.trials.items()
            if trial_id not in self.statuses or self.statuses[trial_id].taken_from is None
        ]

    def _member(self, trial: TrialConfig) -> Member:
        status = self.statuses.get(trial.trial_id)
        return Member(
            trial_id=trial.trial_id,
            group=sharing_group(trial),
            epochs=trial.epochs,
            trace=lambda: Trace(trial, steps_per_epoch(trial)),
            tests=lambda epoch: trial.test_every_epoch or epoch == trial.epochs,
            known=self.known.get(trial.trial_id, ()),
            diverged=status is not None and status.status == "diverged",
            wanted=self.is_open(trial.trial_id),
        )

    # -- writing ----------------------------------------------------------------------------------------------------

    def deliver(
        self, delivery: Delivery, checkpoint: Checkpoint | None, place: Mapping[str, Any] | None = None
    ) -> None:
        """Takes in a record for each of its trials, and the end of those complete with it.

        Args:
            delivery: The record and its receivers.
            checkpoint: The checkpoint of that epoch, if one is stored.
            place: Where that epoch was trained, as fields of `TrialStatus`; None when it was not trained in this run.
        """
        for member in delivery.receivers:
            row = {**delivery.record, "trial_id": member.trial_id}
            if not member.tests(delivery.epoch):
                row |= dict.fromkeys(TEST_FIELDS)
            self._new_records.append(row)
            self._delivered[member.trial_id] += 1
            self.live.record(row)
            if self._keep in BEST_KEPT:
                self._note_best(member.trial_id, row, checkpoint)
        final = checkpoint.path if checkpoint and self._keep != "none" else None
        for member in delivery.finished:
            self.set_status(member.trial_id, "completed", checkpoint=final, **place or {})

    def _note_best(self, trial_id: str, record: Mapping[str, Any], checkpoint: Checkpoint | None) -> None:
        """Notes a trial's checkpoint if the epoch is its best so far: the first with the highest accuracy."""
        before = self._best.get(trial_id)
        if before is not None and record["val_accuracy"] <= before.val_accuracy:
            return
        checkpoint = checkpoint or self.checkpoints.get((record["computed_by"], record["epoch"]))
        self._best[trial_id] = _Best(record["val_accuracy"], checkpoint)
        if before is not None and before.checkpoint is not None:
            self._release(before.checkpoint.path)
        if checkpoint is not None:
            self.kept_checkpoints[checkpoint.path] += 1

    def _release(self, path: str) -> None:
        self.kept_checkpoints[path] -= 1
        if not self.kept_checkpoints[path]:
            del self.kept_checkpoints[path]

    def bests(self, trial_ids: Iterable[str]) -> list[Checkpoint]:
        """Returns the checkpoints of the best epochs so far of those trials that have one."""
        found = (self._best.get(trial_id) for trial_id in trial_ids)
        return [best.checkpoint for best in found if best is not None and best.checkpoint is not None]

    def take_over(self, trial_id: str, records: Sequence[Mapping[str, Any]], sweep: str) -> None:
        """Takes a completed trial's records over from another sweep; `computed_by` names that sweep too."""
        rows = [{**record, "computed_by": f"{sweep}/{record['computed_by']}"} for record in records]
        self.known[trial_id] = tuple(rows)
        self._new_records += rows
        self._delivered[trial_id] = len(rows)
        self.set_status(trial_id, "completed", taken_from=sweep)

    def set_status(self, trial_id: str, status: Status, **details: Any) -> None:
        """Notes what happened to a trial; details are the other fields of `TrialStatus`."""
        best = next((checkpoint.path for checkpoint in self.bests([trial_id])), None)
        entry = TrialStatus(
            trial_id=trial_id, status=status, epochs_run=self._delivered[trial_id], best_checkpoint=best, **details
        )
        self._note(entry)
        self._new_statuses.append(entry)
        self.live.ended(entry)

    def _note(self, status: TrialStatus) -> None:
        self.statuses[status.trial_id] = status
        if status.checkpoint is not None:
            self.kept_checkpoints[status.checkpoint] += 1
        # That of a trial trained by this run is kept already.
        if status.best_checkpoint is not None and status.trial_id not in self._best:
            self.kept_checkpoints[status.best_checkpoint] += 1

    def flush(self, *, only_if_due: bool = False) -> None:
        """Writes what came in since the last time; records first, as a status promises records."""
        now = time.monotonic()
        if only_if_due and now - self._flushed < FLUSH_SECONDS:
            return
        self._flushed = now
        if self._new_records:
            self.store.append_epochs(self._new_records)
            self._new_records = []
        if self._new_statuses:
            self.store.append_statuses(self._new_statuses)
            self._new_statuses = []


def sharing_group(trial: TrialConfig) -> str:
    """Returns what two trials must have in common to be the same training while their schedules agree."""
    different = {"scheduler", "scheduler_settings", "lr", "epochs", "test_every_epoch"}
    return canonical_json({name: value for name, value in trial.to_json().items() if name not in different})


def _known_records(store: SweepStore) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """Returns the stored records of each trial, from its first epoch on, up to the first gap."""
    known: dict[str, list[Mapping[str, Any]]] = {}
    for row in store.read_epochs().sort("trial_id", "epoch").select(RECORD_FIELDS).iter_rows(named=True):
        records = known.setdefault(row["trial_id"], [])
        if row["epoch"] == len(records) + 1:
            records.append(row)
    return {trial_id: tuple(records) for trial_id, records in known.items()}


def _stored_statuses(store: SweepStore) -> list[TrialStatus]:
    return [TrialStatus(**row) for row in store.read_statuses().drop("sweep").iter_rows(named=True)]

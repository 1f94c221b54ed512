"""The ledger: which trials of a question are done, which are not, and why; read from the store and kept in it.

What a trial's status is follows from one rule: *if all its records are known, it is completed, however its own training
went; if the same training is known to diverge, it diverged.* So a trial that failed is completed once another trial
turns out to have been the same training, and `--retry-failed` trains again only what is still failed then.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from analysis.store import Checkpoint, SweepStore, TrialStatus
from sweeps.question.options import Keep
from sweeps.sharing.tree import CheckpointKey, Delivery, ForkTree, Member
from sweeps.watching.live import Live
from workloads.registry import steps_per_epoch
from workloads.schedulers import SCHEDULERS, Trace
from workloads.trial import (
    FAILED_STATUSES,
    FINAL_STATUSES,
    RECORD_FIELDS,
    TEST_FIELDS,
    Status,
    TrialConfig,
    canonical_json,
)

FLUSH_SECONDS = 1.0
"""Records reach the disk at most that much later than they came in."""
BEST_KEPT: tuple[Keep, ...] = ("best", "all")
"""With these, each trial knows the checkpoint of its best epoch."""


class _Best(NamedTuple):
    val_accuracy: float
    checkpoint: Checkpoint | None


class _Adopted(NamedTuple):
    """A checkpoint of another sweep that becomes one of this."""

    store: SweepStore
    theirs: Checkpoint
    ours: Checkpoint


class Ledger:
    """What is known of every trial asked for.

    Args:
        store: Where it is kept.
        trials: Every trial asked for.
        library: Other stored trials that may have epochs in common with them.
        changed: Ids of trials that would train differently now: what is stored of them does not hold.
        retry_failed: Whether failed trials are open again.
        fresh: Whether to start from nothing, whatever is stored.
        keep: Which checkpoints stay.
    """

    def __init__(
        self,
        store: SweepStore,
        trials: Sequence[TrialConfig],
        *,
        library: Sequence[TrialConfig] = (),
        changed: Collection[str] = (),
        retry_failed: bool = False,
        fresh: bool = False,
        keep: Keep = "final",
    ) -> None:
        self.store = store
        self.trials = {trial.trial_id: trial for trial in trials}
        self._library = {trial.trial_id: trial for trial in library}
        self._new_records: list[Mapping[str, Any]] = []
        self._new_statuses: list[TrialStatus] = []
        self._flushed = time.monotonic()
        self.live = Live({})
        """Where records go besides the store, as they come in."""
        records = store.read_epochs()
        statuses = [] if fresh else _stored_statuses(store)
        self._stored = {*records["trial_id"].unique(), *(status.trial_id for status in statuses)}
        self.known = {} if fresh else _known_records(records, [*self.trials, *self._library])
        self.statuses: dict[str, TrialStatus] = {}
        self.kept_checkpoints: Counter[str] = Counter()
        """Checkpoint -> for how many trials it stays, as their final or their best so far."""
        self._keep = keep
        self._best: dict[str, _Best] = {}
        self._adopted: list[_Adopted] = []
        self.delivered_by_training = 0
        """Trial-epochs that came from epochs trained in this run."""
        self._delivered = Counter({trial_id: len(known) for trial_id, known in self.known.items()})
        self.checkpoints: dict[CheckpointKey, Checkpoint] = (
            {} if fresh else {(c.trial_id, c.epoch): c for c in store.list_checkpoints()}
        )
        """Those that are stored."""
        ours = self.trials.keys() | self._library.keys()
        for status in statuses:
            holds = len(self.known.get(status.trial_id, ())) >= status.epochs_run
            ended = status.status in FINAL_STATUSES or (status.status in FAILED_STATUSES and not retry_failed)
            if status.trial_id not in ours:
                self._keep_weights(status)  # it is stored, and stays so
            elif holds and ended and status.trial_id not in changed:
                self._note(status)
        for trial_id in self.trials:
            if keep in BEST_KEPT and self.is_open(trial_id):
                for record in self.known.get(trial_id, ()):
                    self._note_best(trial_id, record, None)
        for trial_id in self._library.keys() - self.statuses.keys():
            self._keep_way(trial_id)
        for trial_id, trial in self.trials.items():
            # A run killed between a trial's last record and its status leaves a complete trial without one.
            if trial_id not in self.statuses and len(self.known.get(trial_id, ())) == trial.epochs:
                self._complete(trial_id)

    # -- reading ----------------------------------------------------------------------------------------------------

    def holds(self, trial_id: str) -> bool:
        """Whether anything is stored of a trial, asked for or not."""
        return trial_id in self._stored

    @property
    def stored(self) -> int:
        """How many trials anything is stored of."""
        return len(self._stored)

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
        return SCHEDULERS[self._config(member.trial_id).scheduler].steps_on == "metric"

    def _config(self, trial_id: str) -> TrialConfig:
        return self.trials[trial_id] if trial_id in self.trials else self._library[trial_id]

    def tree(self, *, share: bool = True) -> ForkTree:
        """Returns the fork tree of the trials, from what is stored."""
        return ForkTree(self.members(), share=share, checkpoints=self.checkpoints)

    def members(self) -> list[Member]:
        """Returns the trials as the fork tree sees them; those of the library only pass on what they know."""
        asked = [self._member(trial, wanted=self.is_open(trial_id)) for trial_id, trial in self.trials.items()]
        return asked + [self._member(trial, wanted=False) for trial in self._library.values()]

    def _member(self, trial: TrialConfig, *, wanted: bool) -> Member:
        status = self.statuses.get(trial.trial_id)
        return Member(
            trial_id=trial.trial_id,
            group=sharing_group(trial),
            epochs=trial.epochs,
            trace=lambda: Trace(trial, steps_per_epoch(trial)),
            tests=lambda epoch: trial.test_every_epoch or epoch == trial.epochs,
            known=self.known.get(trial.trial_id, ()),
            diverged=status is not None and status.status == "diverged",
            wanted=wanted,
        )

    # -- writing ----------------------------------------------------------------------------------------------------

    def learn(self, news: Delivery | tuple[Member, ...]) -> None:
        """Takes in what known records mean for other trials (`ForkTree.walk_known`)."""
        if isinstance(news, Delivery):
            self.deliver(news, self.checkpoints.get((news.holder, news.epoch)))
            return
        for member in news:
            status = self.statuses.get(member.trial_id)
            if status is None or status.status in FAILED_STATUSES:
                self.set_status(member.trial_id, "diverged", error="the same training as a trial that diverged")

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
        self.delivered_by_training += len(delivery.receivers) if place is not None else 0
        final = checkpoint.path if checkpoint and self._keep != "none" else None
        for member in delivery.finished:
            self.set_status(member.trial_id, "completed", checkpoint=final, **place or {})

    def _complete(self, trial_id: str) -> None:
        """Notes that all records of a trial are known, and where its final weights are if they are stored."""
        last = self.known[trial_id][-1]
        names = (trial_id, last["computed_by"])
        found = (self.checkpoints.get((name, last["epoch"])) for name in names)
        final = next((checkpoint.path for checkpoint in found if checkpoint), None)
        self.set_status(trial_id, "completed", checkpoint=None if self._keep == "none" else final)

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

    def _keep_way(self, trial_id: str) -> None:
        """Keeps the checkpoint from which a trial that is not asked for now could go on another time."""
        for record in reversed(self.known.get(trial_id, ())):
            checkpoint = self.checkpoints.get((record["computed_by"], record["epoch"]))
            if checkpoint is not None:
                self.kept_checkpoints[checkpoint.path] += 1
                return

    def _release(self, path: str) -> None:
        self.kept_checkpoints[path] -= 1
        if not self.kept_checkpoints[path]:
            del self.kept_checkpoints[path]

    def bests(self, trial_ids: Iterable[str]) -> list[Checkpoint]:
        """Returns the checkpoints of the best epochs so far of those trials that have one."""
        found = (self._best.get(trial_id) for trial_id in trial_ids)
        return [best.checkpoint for best in found if best is not None and best.checkpoint is not None]

    def take_over(self, trial_id: str, theirs: Ledger, sibling: SweepStore) -> None:
        """Takes a completed trial over from another sweep; `computed_by` names that sweep too.

        Its final weights are copied when the sweep begins (`adopt`).
        """
        rows = [
            {**record, "computed_by": f"{sibling.name}/{record['computed_by'].rpartition('/')[2]}"}
            for record in theirs.known[trial_id]
        ]
        self.known[trial_id] = tuple(rows)
        self._new_records += rows
        self._delivered[trial_id] = len(rows)
        path = theirs.statuses[trial_id].checkpoint
        ours = None
        if path is not None and self._keep != "none":
            ours = Checkpoint(trial_id, len(rows), f"checkpoints/{trial_id}/{path.rpartition('/')[2]}")
            self._adopted.append(_Adopted(sibling, Checkpoint(trial_id, len(rows), path), ours))
            self.checkpoints[trial_id, len(rows)] = ours
        self.set_status(trial_id, "completed", taken_from=sibling.name, checkpoint=ours.path if ours else None)

    def adopt(self) -> None:
        """Copies the weights of trials that were taken over."""
        for store, theirs, ours in self._adopted:
            content = store.load_checkpoint(theirs)
            if content is not None:
                self.store.save_checkpoint(ours.trial_id, ours.epoch, content)
        self._adopted.clear()

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
        self._keep_weights(status)

    def _keep_weights(self, status: TrialStatus) -> None:
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
    return canonical_json({name: value for name, value in trial.identity().items() if name not in different})


def _known_records(records: pl.DataFrame, trial_ids: Sequence[str]) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """Returns the stored records of each of some trials, from its first epoch on, up to the first gap."""
    known: dict[str, list[Mapping[str, Any]]] = {}
    wanted = records.filter(pl.col("trial_id").is_in(trial_ids)).sort("trial_id", "epoch")
    for row in wanted.select(RECORD_FIELDS).iter_rows(named=True):
        ours = known.setdefault(row["trial_id"], [])
        if row["epoch"] == len(ours) + 1:
            ours.append(row)
    return {trial_id: tuple(ours) for trial_id, ours in known.items()}


def _stored_statuses(store: SweepStore) -> list[TrialStatus]:
    return [TrialStatus(**row) for row in store.read_statuses().drop("sweep").iter_rows(named=True)]

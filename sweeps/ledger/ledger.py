"""The ledger: which trials of a question are done, which are not, and why; read from the store and kept in it.

What a trial's status is follows from one rule: *if all its records are known, it is completed, however its own training
went; if the same training is known to diverge, it diverged.* So a trial that failed is completed once another trial
turns out to have been the same training, and `--retry-failed` trains again only what is still failed then.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

import polars as pl

from analysis.store import Checkpoint, SweepStore, TrialStatus
from sweeps.policies import Decision, Outcome
from sweeps.question.options import Keep
from sweeps.sharing.tree import CheckpointKey, Delivery, ForkTree, Member
from sweeps.watching.live import Live
from workloads.measure import Measure
from workloads.registry import measure_of, steps_per_epoch
from workloads.schedulers import SCHEDULERS, Applied
from workloads.trial import (
    FAILED_STATUSES,
    FINAL_STATUSES,
    RECORD_FIELDS,
    SHARING,
    TEST_FIELDS,
    Status,
    TrialConfig,
    canonical_json,
)

FLUSH_SECONDS = 1.0
"""Records are written that often, where writing takes no time to speak of."""
PATIENCE = 4.0
"""Where it does, a run waits that many times as long before it writes again: workers wait while it writes."""
LATEST_SECONDS = 10.0
"""But no longer than that."""
BEST_KEPT: tuple[Keep, ...] = ("best", "all")
"""With these, each trial knows the checkpoint of its best epoch."""

ALIKE = "the same training as a trial that diverged"
"""Why a trial diverged that was not trained itself."""


class _Best(NamedTuple):
    value: float
    """More is better."""
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
        measure: What a trial is ranked by.
    """

    def __init__(
        self,
        store: SweepStore,
        trials: Sequence[TrialConfig] = (),
        *,
        library: Sequence[TrialConfig] = (),
        changed: Collection[str] = (),
        retry_failed: bool = False,
        fresh: bool = False,
        keep: Keep = "final",
        measure: Callable[[TrialConfig], Measure] = measure_of,
    ) -> None:
        self.store = store
        self._measure = measure
        self.trials: dict[str, TrialConfig] = {}
        """Those asked for so far, by id."""
        self._library: dict[str, TrialConfig] = {}
        self._new_records: list[Mapping[str, Any]] = []
        self._new_statuses: list[TrialStatus] = []
        self._new_decisions: list[Mapping[str, Any]] = []
        self._due = time.monotonic() + FLUSH_SECONDS
        self.live = Live({})
        """Where records go besides the store, as they come in."""
        records = store.read_epochs()
        before = {status.trial_id: status for status in _stored_statuses(store)}
        self._with_records = set() if fresh else set(records["trial_id"].unique())
        self._stored = {*records["trial_id"].unique(), *before}
        self._records_before = records.clear() if fresh else records
        self._statuses_before = {} if fresh else before
        self._fresh = fresh
        self._retry_failed = retry_failed
        self.known: dict[str, tuple[Mapping[str, Any], ...]] = {}
        """The records that trials had when they were asked for."""
        self.statuses: dict[str, TrialStatus] = {}
        self.kept_checkpoints: Counter[str] = Counter()
        """Checkpoint -> for how many trials it stays, as their final or their best so far."""
        self._keep = keep
        self._best: dict[str, _Best] = {}
        self._adopted: list[_Adopted] = []
        self.delivered_by_training = 0
        """Trial-epochs that came from epochs trained in this run."""
        self._delivered: Counter[str] = Counter()
        self._last: dict[str, Any] = {}
        self._curves: dict[str, list[float]] = {}
        """Trial -> what it is compared by, epoch by epoch."""
        self.until: Mapping[str, int] = {}
        """Trial -> the epoch that it pauses at; the others do not."""
        self.ends = 0
        """How often a trial has ended or paused."""
        self._waypoints: dict[str, str] = {}
        """Paused trial -> the checkpoint from which it goes on."""
        self.checkpoints: dict[CheckpointKey, Checkpoint] = (
            {} if fresh else {(c.trial_id, c.epoch): c for c in store.list_checkpoints()}
        )
        """Those that are stored."""
        for status in self._statuses_before.values():
            self._keep_weights(status)
        self.add(trials, library=library, changed=changed)

    def add(
        self, trials: Sequence[TrialConfig], *, library: Sequence[TrialConfig] = (), changed: Collection[str] = ()
    ) -> None:
        """Takes in more trials that are asked for.

        Args:
            trials: The trials; those that have been asked for before stay as they are.
            library: As above, of these.
            changed: As above, of these.
        """
        new = {trial.trial_id: trial for trial in trials if trial.trial_id not in self.trials}
        near = {
            t.trial_id: t for t in library if t.trial_id not in self.trials.keys() | new.keys() | self._library.keys()
        }
        self.trials |= new
        self._library = {i: trial for i, trial in self._library.items() if i not in new} | near
        ours = [*new, *near]
        found = _known_records(self._records_before, ours)
        self.known |= found
        for trial_id, records in found.items():
            if not records:  # the first was damaged
                continue
            self._delivered[trial_id] = len(records)
            self._last[trial_id] = records[-1]["val_accuracy"]
            self._curves[trial_id] = [record["val_accuracy"] for record in records]
        for trial_id in ours:
            status = self._statuses_before.get(trial_id)
            if status is None:
                continue
            holds = len(self.known.get(trial_id, ())) >= status.epochs_run
            ended = status.status in FINAL_STATUSES or (status.status in FAILED_STATUSES and not self._retry_failed)
            if holds and ended and trial_id not in changed:
                self.statuses[trial_id] = status
                self.ends += 1
            else:
                self._give_up_weights(status)
        for trial_id in new:
            if self._keep in BEST_KEPT and self.is_open(trial_id):
                for record in self.known.get(trial_id, ()):
                    self._note_best(trial_id, record, None)
        for trial_id in near.keys() - self.statuses.keys():
            self._keep_way(trial_id)
        for trial_id, trial in new.items():
            # A run killed between a trial's last record and its status leaves a complete trial without one.
            if trial_id not in self.statuses and len(self.known.get(trial_id, ())) == trial.epochs:
                self._complete(trial_id)

    # -- reading ----------------------------------------------------------------------------------------------------

    def holds(self, trial_id: str) -> bool:
        """Whether anything is stored of a trial, asked for or not."""
        return trial_id in self._stored or self._delivered[trial_id] > 0

    def had_records(self, trial_id: str) -> bool:
        """Whether there are records of a trial from an earlier run, asked for or not."""
        return trial_id in self._with_records

    @property
    def stored(self) -> int:
        """How many trials anything is stored of."""
        return len(self._stored)

    def ended_before(self, trials: Iterable[TrialConfig]) -> list[TrialConfig]:
        """Returns those of some trials that have their result from an earlier run, asked for or not."""
        counts = dict(self._records_before.group_by("trial_id").len().iter_rows())
        before = self._statuses_before
        ended = {i for i, s in before.items() if s.status in FINAL_STATUSES and counts.get(i, 0) >= s.epochs_run}
        return [trial for trial in trials if trial.trial_id in ended]

    def is_open(self, trial_id: str) -> bool:
        """Whether a trial still has to be trained, as far as has been decided."""
        return trial_id not in self.statuses and not self.is_paused(trial_id)

    def has_result(self, trial_id: str) -> bool:
        """Whether a trial has come to an end that is its result, or was stopped."""
        status = self.statuses.get(trial_id)
        return status is not None and status.status not in FAILED_STATUSES

    def is_paused(self, trial_id: str) -> bool:
        """Whether a trial has come to the epoch that it was to be trained to, which is not its last."""
        return trial_id not in self.statuses and self._delivered[trial_id] >= self.until.get(trial_id, inf)

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

    def ended(self) -> Iterator[tuple[TrialConfig, Outcome]]:
        """Yields the trials asked for that have ended, and how: what policies decide by; all, if some of them pause."""
        for trial_id, trial in self.trials.items():
            status = self.statuses.get(trial_id)
            if status is None and not self.until:
                continue
            state = None if status is None else status.status
            last = self._last.get(trial_id) if state == "completed" else None
            yield (
                trial,
                Outcome(
                    value=None if last is None else self._sign(trial_id) * last,
                    diverged=state == "diverged",
                    under_way=state is None,
                    curve=tuple(self._sign(trial_id) * value for value in self._curves.get(trial_id, ())),
                ),
            )

    def metric_driven(self, member: Member) -> bool:
        """Whether a trial's schedule watches a metric, so that nobody knows beforehand what it does."""
        return SCHEDULERS[self._config(member.trial_id).scheduler].steps_on == "metric"

    def _sign(self, trial_id: str) -> int:
        """Returns what makes more better in a trial's values."""
        return self._measure(self._config(trial_id)).sign

    def _config(self, trial_id: str) -> TrialConfig:
        return self.trials[trial_id] if trial_id in self.trials else self._library[trial_id]

    def tree(self, *, share: bool = True) -> ForkTree:
        """Returns the fork tree of the trials, from what is stored."""
        return ForkTree(self.members(), share=share, checkpoints=self.checkpoints)

    def members(self, trials: Iterable[TrialConfig] | None = None) -> list[Member]:
        """Returns trials as the fork tree sees them; those of the library only pass on what they know.

        Args:
            trials: Those just added, or no longer paused: with them come all others of their groups, with what is known
                of them by now. None for all.
        """
        asked, library = self.trials.values(), self._library.values()
        if trials is None:
            return [*(self._member(trial) for trial in asked), *(self._member(t, wanted=False) for t in library)]
        groups = {sharing_group(trial) for trial in trials}
        found = [trial for trial in (*asked, *library) if sharing_group(trial) in groups]
        ids = [trial.trial_id for trial in found]
        if others := [i for i in ids if self._delivered[i] > len(self.known.get(i, ()))]:
            self.flush()
            self.known |= _known_records(self.store.read_epochs(), others)
        return [self._member(trial, wanted=trial.trial_id in self.trials) for trial in found]

    def _member(self, trial: TrialConfig, *, wanted: bool = True) -> Member:
        status, known = self.statuses.get(trial.trial_id), self.known.get(trial.trial_id, ())
        stopped = status is not None and status.status == "early_stopped"
        until = self.until.get(trial.trial_id, trial.epochs) if wanted else trial.epochs
        return Member(
            trial_id=trial.trial_id,
            group=sharing_group(trial),
            epochs=len(known) if stopped else max(until, len(known)),
            trace=lambda: Applied(trial, steps_per_epoch(trial)),
            tests=lambda epoch: trial.test_every_epoch or epoch == trial.epochs,
            known=known,
            diverged=status is not None and status.status == "diverged",
            wanted=wanted and self.is_open(trial.trial_id),
        )

    # -- writing ----------------------------------------------------------------------------------------------------

    def decided(self, policy: str, number: int, decision: Decision) -> None:
        """Notes a decision; it is written after all that it was taken from."""
        values = {
            name: value if isinstance(value, (str, bool)) else json.dumps(value)
            for name, value in decision.to_json().items()
        }
        self._new_decisions.append({"policy": policy, "number": number, **values})
        self.flush()

    def decisions(self, policy: str | None) -> list[Decision]:
        """Returns the stored decisions of a policy, in order; None for one whose decisions are not."""
        if self._fresh or policy is None:
            return []
        return stored_decisions(self.store, policy)

    def learn(self, news: Delivery | tuple[Member, ...]) -> None:
        """Takes in what known records mean for other trials (`ForkTree.walk_known`)."""
        if isinstance(news, Delivery):
            self.deliver(news, self.checkpoints.get((news.holder, news.epoch)))
            return
        for member in news:
            status = self.statuses.get(member.trial_id)
            if status is None or status.status in FAILED_STATUSES:
                self.set_status(member.trial_id, "diverged", error=ALIKE)

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
            row: dict[str, Any] = {**delivery.record, "trial_id": member.trial_id}
            if not member.tests(delivery.epoch):
                row |= dict.fromkeys(TEST_FIELDS)
            self._new_records.append(row)
            self._delivered[member.trial_id] += 1
            self._last[member.trial_id] = row["val_accuracy"]
            self._curves.setdefault(member.trial_id, []).append(row["val_accuracy"])
            self.live.record(row)
            if self._keep in BEST_KEPT:
                self._note_best(member.trial_id, row, checkpoint)
        self.delivered_by_training += len(delivery.receivers) if place is not None else 0
        final = checkpoint.path if checkpoint and self._keep != "none" else None
        for member in delivery.finished:
            if self._config(member.trial_id).epochs > delivery.epoch:
                self._wait(member.trial_id, checkpoint)
            else:
                self.set_status(member.trial_id, "completed", checkpoint=final, **place or {})

    def _complete(self, trial_id: str) -> None:
        """Notes that all records of a trial are known, and where its final weights are if they are stored."""
        last = self.known[trial_id][-1]
        names = (trial_id, last["computed_by"])
        found = (self.checkpoints.get((name, last["epoch"])) for name in names)
        final = next((checkpoint.path for checkpoint in found if checkpoint), None)
        self.set_status(trial_id, "completed", checkpoint=None if self._keep == "none" else final)

    def _note_best(self, trial_id: str, record: Mapping[str, Any], checkpoint: Checkpoint | None) -> None:
        """Notes a trial's checkpoint if the epoch is its best so far: the first with the best value."""
        before, value = self._best.get(trial_id), self._sign(trial_id) * record["val_accuracy"]
        if before is not None and value <= before.value:
            return
        checkpoint = checkpoint or self.checkpoints.get((record["computed_by"], record["epoch"]))
        self._best[trial_id] = _Best(value, checkpoint)
        if before is not None and before.checkpoint is not None:
            self._release(before.checkpoint.path)
        if checkpoint is not None:
            self.kept_checkpoints[checkpoint.path] += 1

    def _keep_way(self, trial_id: str) -> None:
        """Keeps the checkpoint from which a trial that is not asked for now could go on another time."""
        checkpoint = self._waypoint(trial_id)
        if checkpoint is not None:
            self.kept_checkpoints[checkpoint.path] += 1

    def _waypoint(self, trial_id: str) -> Checkpoint | None:
        """Returns the last stored checkpoint on the way of a trial, as far as its records were known at the start."""
        found = (
            self.checkpoints.get((name, record["epoch"]))
            for record in reversed(self.known.get(trial_id, ()))
            for name in (record["computed_by"], trial_id)
        )
        return next((checkpoint for checkpoint in found if checkpoint), None)

    # -- pausing ----------------------------------------------------------------------------------------------------

    def pause_at(self, until: Mapping[str, int]) -> None:
        """Lets trials train until an epoch, and those that have not ended go on to it if they are paused before it.

        Args:
            until: Trial -> its epoch; the others train to their end.
        """
        self.until = until
        for trial_id in [i for i in self._waypoints if not self.is_paused(i)]:
            self._release(self._waypoints.pop(trial_id))
        for trial_id in self.trials:
            if self.is_paused(trial_id) and trial_id not in self._waypoints:
                self._wait(trial_id, self._waypoint(trial_id))

    def stop(self, trial_id: str, why: str) -> None:
        """Stops a trial early; one that has ended keeps its end.

        Args:
            trial_id: The trial.
            why: In a sentence, for people.
        """
        if trial_id in self.statuses:
            return
        checkpoint = self._waypoints.pop(trial_id, None)
        said = {"error": why, "checkpoint": checkpoint if self._keep != "none" else None}
        before = self._statuses_before.get(trial_id)
        same = {"status": "early_stopped", "epochs_run": self._delivered[trial_id], **said}
        if before is not None and all(getattr(before, name) == value for name, value in same.items()):
            self._note(before)  # a question that is asked again writes nothing anew
        else:
            self.set_status(trial_id, "early_stopped", **said)
        if checkpoint is not None:
            self._release(checkpoint)

    def _wait(self, trial_id: str, checkpoint: Checkpoint | None) -> None:
        self.ends += 1
        if checkpoint is not None:
            self._waypoints[trial_id] = checkpoint.path
            self.kept_checkpoints[checkpoint.path] += 1

    # -- more writing -----------------------------------------------------------------------------------------------

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
        self._last[trial_id] = rows[-1]["val_accuracy"]
        self._curves[trial_id] = [row["val_accuracy"] for row in rows]
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
        self.ends += 1
        self.statuses[status.trial_id] = status
        self._keep_weights(status)

    def _give_up_weights(self, status: TrialStatus) -> None:
        for path in (status.checkpoint, status.best_checkpoint):
            if path is not None:
                self._release(path)

    def _keep_weights(self, status: TrialStatus) -> None:
        if status.checkpoint is not None:
            self.kept_checkpoints[status.checkpoint] += 1
        # That of a trial trained by this run is kept already.
        if status.best_checkpoint is not None and status.trial_id not in self._best:
            self.kept_checkpoints[status.best_checkpoint] += 1

    def flush(self, *, only_if_due: bool = False) -> None:
        """Writes what came in since the last time; records first, as a status promises records."""
        began = time.monotonic()
        if only_if_due and began < self._due:
            return
        if self._new_records:
            self.store.append_epochs(self._new_records)
            self._new_records = []
        if self._new_statuses:
            self.store.append_statuses(self._new_statuses)
            self._new_statuses = []
        if self._new_decisions:
            self.store.append_decisions(self._new_decisions)
            self._new_decisions = []
        now = time.monotonic()
        self._due = now + min(max(FLUSH_SECONDS, PATIENCE * (now - began)), LATEST_SECONDS)


def sharing_group(trial: TrialConfig) -> str:
    """Returns what two trials must have in common to be the same training while they apply the same."""
    fixed = {name: value for name, value in trial.identity().items() if name not in SHARING}
    return canonical_json(fixed | {"weights": trial.weights_seed})


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


def stored_decisions(store: SweepStore, policy: str) -> list[Decision]:
    """Returns the stored decisions of a policy, in order."""
    rows = store.read_decisions().filter(policy=policy).sort("number").select("add", "stop", "over", "reason")
    return [
        Decision.from_json(row | {"add": json.loads(row["add"]), "stop": json.loads(row["stop"])})
        for row in rows.iter_rows(named=True)
    ]

"""In the driver: takes in what workers report, and says what to train next. Knows nothing of Ray."""

from __future__ import annotations

import secrets
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from analysis.store import Checkpoint
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.lock import Lock, TakenOverError
from sweeps.question.options import Keep
from sweeps.sharing.tree import CheckpointKey, ForkTree, Path
from sweeps.tuning.job import Job
from sweeps.tuning.placement import Placement
from sweeps.watching.notify import Notifier
from sweeps.watching.progress import Progress
from workloads.trial import Status

ROOM_TO_GROW = 200
"""How many paths may be under way or wait for a worker while a cluster can still start nodes for them."""
FAREWELL = "stopping: workers have 10 seconds to finish (press Ctrl-C again to stop at once)"
"""Said when a run is interrupted; the time is Tune's."""
SHARED_MEMORY = "out of memory on a GPU that trials share: such trials are trained again, one at a time, at the end"
"""Said when a trial is set aside."""
MAX_FAILURES = 2
"""How often a path is tried again after its worker died."""
MAX_BROKEN = 3
"""So many trainings in a row that break a GPU, without an epoch in between, end the run."""
REASONS = 20
"""As many different ones are said while a sweep runs; the tables have them all."""
ERROR_CHARACTERS = 160
"""Of a reason, so much is said."""


class Run:
    """One run of a sweep's open paths: takes in what workers report, and says what to train next.

    Args:
        tree: The paths.
        ledger: Where records and statuses go.
        placement: What each trial gets.
        progress: What a person watches.
        more: Asked when a worker is free, and once all is trained: whether there is more in the tree, to which it may
            have added. It is given what an epoch takes by now, divided by how many train at once; None if none has been
            trained.
        fail_fast: Whether the first failure ends the run.
        keep: Which checkpoints stay when nothing goes on from them.
        notifier: Whom the first failure is told; None for nobody.
        lock: The sweep's; when it is lost, the run ends and writes nothing more.
        machine: What the probe of a worker's machine has to come to; None where it is this one.
        device: Which kind of device a worker has to have; None as before.
    """

    def __init__(
        self,
        tree: ForkTree,
        ledger: Ledger,
        placement: Placement,
        progress: Progress,
        *,
        more: Callable[[float | None], bool] = lambda seconds: False,
        fail_fast: bool = False,
        keep: Keep = "final",
        notifier: Notifier | None = None,
        lock: Lock | None = None,
        machine: str | None = None,
        device: str | None = None,
    ) -> None:
        self.tree = tree
        self.ledger = ledger
        self.store = ledger.store
        self.placement = placement
        self.progress = progress
        self._more = more
        self.fail_fast = fail_fast
        self.keep = keep
        self.notifier = notifier or Notifier(None, self.store.name, self.store.location)
        self._lock = lock or Lock()
        self._machine, self._device = machine, device
        self._name = secrets.token_hex(4)
        self._told: set[str] = set()
        """Why trials failed, as far as it has been said."""
        self.locked_out = False
        self.stopping = False
        self.interrupted = False
        self._farewell = False
        self.storage_error: str | None = None
        self.checkpoints = ledger.checkpoints
        self._leaders: dict[str, Path] = {}
        """Tune's name for a training -> its path."""
        self._places: dict[str, Mapping[str, Any]] = {}
        """Tune's name -> where it is trained, once a worker has taken it up; the others wait for room."""
        self._needless: set[str] = set()
        """Tune's names of the trainings that nobody needs any more: all their trials were stopped."""
        self.out_of_memory: set[str] = set()
        """Tune's names of the trainings whose worker last died as its node had no memory left."""
        self._crowded: set[str] = set()
        """Tune's names of the trainings that had a neighbour on their GPU at some time."""
        self._set_aside: list[Path] = []
        """Paths that ran out of memory beside neighbours: each is trained once more, when nothing else is."""
        self._alone: str | None = None
        """Tune's name of one of them that is being trained."""
        self._broken: Counter[tuple[str, str]] = Counter()
        """Node and device -> trainings in a row that broke it."""
        self._deleting = ThreadPoolExecutor(1)
        """Deletes checkpoints, which on an object store takes several requests, while news goes on coming in."""
        self.trained = 0
        self.room = 1
        """As many paths may be under way or wait; one more than are under way always may."""

    def next_job(self, tune_id: str) -> Job | None:
        """Returns what to train next, or None when nothing can start now.

        One path always waits for a worker to become free; more while there is room: a cluster that starts nodes by
        itself starts them for what waits.
        """
        limit = self.placement.max_concurrent
        if self._alone is not None or (limit is not None and len(self._leaders) >= limit):
            return None
        if len(self._leaders) >= max(self.room, len(self._places) + 1):
            return None
        if not self.stopping:
            self._more(self.progress.pace)
        path, hardware = self.tree.take(), self.placement.hardware()
        if path is None and not self._leaders:
            path, hardware = self._take_aside(), replace(hardware, gpu_memory_fraction=None)
            self._alone = None if path is None else tune_id
        if path is None:
            return None
        self._leaders[tune_id] = path
        return Job(
            config=self.ledger.trials[path.name],
            known=path.epoch,
            ancestors=tuple(self.checkpoints[key] for key in path.ancestors() if key in self.checkpoints),
            test_epochs=tuple(path.test_epochs()),
            until=path.leader.epochs,
            storage_path=self.store.storage_path,
            name=self.store.name,
            run=self._name,
            machine=self._machine,
            device=self._device,
            hardware=hardware,
            gpus=self.placement.gpus_per_trial or None,
            timeout=self.placement.trial_timeout,
        )

    def _take_aside(self) -> Path | None:
        """Returns a path that ran out of memory beside others, unless it has been stopped meanwhile."""
        self._set_aside = [path for path in self._set_aside if self.tree.goes_on(path)]
        return self._set_aside.pop(0) if self._set_aside else None

    def is_over(self) -> bool:
        """Whether nothing more is to be started: all is trained and nothing is added, or the run is to end."""
        return self.stopping or (self.tree.done and not self._more(self.progress.pace))

    def stop(self, trial_id: str, why: str) -> None:
        """Gives a trial up; a worker that trains for nobody else is ended after its next epoch.

        Args:
            trial_id: The trial.
            why: In a sentence, for people.
        """
        self.ledger.set_status(trial_id, "early_stopped", error=why)
        self.tree.stop(trial_id)
        self._needless |= {i for i, path in self._leaders.items() if not self.tree.goes_on(path)}

    def is_needless(self, tune_id: str) -> bool:
        """Whether nobody needs a training any more."""
        return tune_id in self._needless

    def interrupt(self) -> None:
        """A person or a job server wants the run to end."""
        self.stopping = self.interrupted = True

    def beat(self) -> bool:
        """Does what time brings, also while no news comes in; returns whether the run is to end."""
        if self._lost():
            return True
        self.ledger.flush(only_if_due=True)
        if self.interrupted and not self._farewell:
            self._farewell = True
            self.progress.say(FAREWELL)
        return self.stopping

    def _lost(self) -> bool:
        """Whether another run writes to the sweep now: then this one must not."""
        if not self.locked_out and self._lock.lost():
            self.locked_out = self.stopping = True
            self.storage_error = str(TakenOverError(self.store))
        return self.locked_out

    def take_in(self, tune_id: str, result: Mapping[str, Any]) -> None:
        """Takes in what a worker reported."""
        path = self._leaders.get(tune_id)
        if path is None or tune_id in self._needless or self._lost():
            return
        if "end" in result:
            self._end(tune_id, path, result)
        elif "record" in result:
            self._record(path, result["record"], result["checkpoint"], self._place(tune_id))
        else:
            self._places[tune_id] = result["place"]
            if self.placement.gpus_per_trial > 0:
                beside = [name for name, place in self._places.items() if place == result["place"]]
                self._crowded.update(beside if len(beside) > 1 else ())
            self.progress.started(path.name, len(path.members))
        self.show()

    def _record(
        self, path: Path, record: Mapping[str, Any], checkpoint_path: str | None, place: Mapping[str, Any]
    ) -> None:
        leader = path.name
        checkpoint = None
        if checkpoint_path is not None:
            checkpoint = Checkpoint(leader, record["epoch"], checkpoint_path)
            self.checkpoints[leader, record["epoch"]] = checkpoint
        before = path.anchor
        delivery = self.tree.advance(leader, record)
        self.trained += 1
        self._broken.pop((place.get("node", ""), place.get("device", "")), None)
        self.progress.record(leader, record, len(path.members))
        if delivery is None:
            return
        bests = self.ledger.bests(member.trial_id for member in delivery.receivers)
        self.ledger.deliver(delivery, checkpoint or self.checkpoints.get((leader, record["epoch"])), place)
        for key in {before, *((best.trial_id, best.epoch) for best in bests)}:
            self._drop_checkpoint(key)

    def _place(self, tune_id: str) -> dict[str, Any]:
        """Returns where a path is trained, as fields of `TrialStatus`; nothing if no worker has taken it up."""
        place = self._places.get(tune_id)
        if place is None:
            return {}
        return {**place, "neighbours": list(self._places.values()).count(place) - 1}

    def _end(self, tune_id: str, path: Path, result: Mapping[str, Any]) -> None:
        leader, before = path.name, path.anchor
        place = self._place(tune_id)
        if result["end"] == "storage":
            self.storage_error, self.stopping = result["error"], True
            return
        if result["end"] == "out_of_memory" and tune_id in self._crowded:
            if not self._set_aside:
                self.progress.say(SHARED_MEMORY)
            self._set_aside.append(path)
            self._forget(tune_id)
            return
        if "broken" in result:
            self._note_broken(result["broken"], result["error"])
        if result["end"] == "diverged":
            for member in self.tree.diverge(leader):
                self.ledger.set_status(member.trial_id, "diverged", error=result["error"], **place)
        else:
            failed = self.tree.drop(leader)
            if failed is not None:
                details = {"error": result["error"], "traceback": result["traceback"]}
                self.ledger.set_status(leader, result["end"], **details, **place)
                self._tell(leader, result["error"])
                self.notifier.failure(self.ledger.counts(), result["error"])
                self.stopping |= self.fail_fast
        self._drop_checkpoint(before)
        self._forget(tune_id)

    def _note_broken(self, place: Mapping[str, Any], error: str) -> None:
        """Ends the run if one device breaks again and again: it would fail every trial, each in no time."""
        where = place["node"], place["device"]
        self._broken[where] += 1
        if self._broken[where] >= MAX_BROKEN:
            self.stopping = True
            self.storage_error = (
                f"{where[1]} of node {where[0]} broke {MAX_BROKEN} times in a row, the last time with: "
                f"{textwrap.shorten(error, ERROR_CHARACTERS, placeholder=' ...')} (--retry-failed trains these trials "
                "again)"
            )

    def _tell(self, trial_id: str, error: str) -> None:
        """Says why a trial failed; a reason that many have is said once."""
        if error not in self._told and len(self._told) < REASONS:
            self._told.add(error)
            self.progress.failed(trial_id, textwrap.shorten(error, ERROR_CHARACTERS, placeholder=" ..."))

    def complete(self, tune_id: str, *, error: bool) -> None:
        """A worker is done with a path, or died on it once too often."""
        path = self._leaders.get(tune_id)
        if path is None:
            return
        if self.tree.goes_on(path) and not self.stopping and not self._lost():
            message = f"the worker died {MAX_FAILURES + 1} times" if error else "the worker ended without a result"
            end: Status = "failed"
            if tune_id in self.out_of_memory:
                end, message = "out_of_memory", "the worker was killed by Ray: its node ran out of memory"
            self._end(tune_id, path, {"end": end, "error": message, "traceback": None})
        self._forget(tune_id)
        self.show()

    def close(self) -> None:
        """Waits until nothing of the run changes files any more; to be called however it ends."""
        self._deleting.shutdown(cancel_futures=True)

    def end(self) -> None:
        """Writes what is left to write, and deletes the checkpoints that nothing needs."""
        self.close()
        if self._lost():
            return
        if self.stopping and not self.interrupted and self.storage_error is None:
            for trial in self.ledger.open:
                self.ledger.set_status(trial.trial_id, "cancelled", error="another trial failed (--fail-fast)")
        self.ledger.flush()
        starts = {next((key for key in path.ancestors() if key in self.checkpoints), None) for path in self.tree.paths}
        if self.keep == "all":
            return
        kept = {self.checkpoints[key].path for key in starts if key is not None} | set(self.ledger.kept_checkpoints)
        self.store.delete(*(found.path for found in self.store.list_checkpoints() if found.path not in kept))

    def _forget(self, tune_id: str) -> None:
        path = self._leaders.pop(tune_id, None)
        self._places.pop(tune_id, None)
        self._crowded.discard(tune_id)
        self._alone = None if tune_id == self._alone else self._alone
        if path is not None:
            self.progress.ended(path.name)

    def _drop_checkpoint(self, key: CheckpointKey | None) -> None:
        """Deletes a checkpoint that nobody could go on from, unless it is to be kept."""
        if self.keep == "all" or key is None or key not in self.checkpoints or self.tree.needs(key):
            return
        if self.checkpoints[key].path not in self.ledger.kept_checkpoints:
            self._deleting.submit(self.store.delete, self.checkpoints.pop(key).path)

    def show(self) -> None:
        """Brings what a person watches up to date, when it is time to."""
        # Counting takes time in proportion to the trials: not for every record, only as often as eyes can follow.
        if not self.progress.due():
            return
        statuses = self.ledger.counts()
        c = self.progress.counts
        c.trials = len(self.ledger.trials)
        c.trials_done = c.trials - statuses["pending"]
        c.failed = statuses["failed"] + statuses["out_of_memory"]
        c.trial_epochs = sum(trial.epochs for trial in self.ledger.trials.values())
        c.delivered = self.ledger.delivered
        c.trained = self.trained
        c.running = len(self._places)
        c.waiting = self.tree.waiting + len(self._set_aside) + len(self._leaders) - len(self._places)
        c.epochs_left = sum(path.remaining for path in self.tree.paths)
        self.progress.update()

"""The fork tree: which trials are the same training for how long. Pure logic: no Ray, no torch, no files.

Trials of one group (same workload, optimizer, batch size, seed, ...) differ in nothing but their schedules. As long as
the schedules apply equal values, they are one computation, trained once: a *path*. After every epoch, the path's
members whose next values differ fork off as paths of their own, each starting from the checkpoint of that epoch.

A path is trained under the name of one of its members, the leader: the one that goes on the longest when the training
starts. A leader leads one path only, so (leader, epoch) names a checkpoint, and a record is `computed_by` the leader.
On a resumed sweep the tree walks through the known records first, exactly as if they came in now. Where they end there
may be no checkpoint to go on from: what a finished sweep no longer needed is deleted. Such paths go back to the last
epoch that has one, become one path again where that is the same, and fork anew; on the way nobody gets a record twice.

Trials may be added and stopped while others are trained. What is added walks through the known records too, and joins
the training that is the same so far, if there is one. A leader that is stopped goes on leading those that need its
training, without getting a record itself.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

Metrics = Mapping[str, object]
"""One epoch's record; the tree hands it to traces and looks at nothing in it but `computed_by` and test results."""

CheckpointKey = tuple[str, int]
"""The trial whose training it is of, and the epoch."""


class Tracer(Protocol):
    """What a trial's schedule does: `workloads.schedulers.Trace`, or a stand-in."""

    def next_epoch(self) -> Hashable:
        """Returns the values at every step of the next epoch."""

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Goes on to the epoch after the next, which measured these metrics."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A trial as the tree sees it."""

    trial_id: str
    group: Hashable
    """Trials of different groups never share anything."""
    epochs: int
    trace: Callable[[], Tracer]
    """Makes the trial's trace, at its first epoch."""
    tests: Callable[[int], bool] = lambda epoch: False
    """Whether the trial's record of an epoch holds test results."""
    known: tuple[Metrics, ...] = ()
    """Records it has already, from the first epoch on."""
    diverged: bool = False
    """It is known to diverge in the epoch after those."""
    wanted: bool = True
    """To be trained to its end; otherwise it only passes on what it knows."""


@dataclass(kw_only=True)
class Path:
    """A training that one or several trials share, at one moment. Owned by the tree; others only read it."""

    leader: Member
    """Whose training it is. No member any more if it has been stopped since."""
    members: dict[str, Member]
    """The trials that get its records, by id."""
    lineage: tuple[str, ...]
    """Under whose name the checkpoint of each epoch so far is, if there is one: who trained it."""
    traces: dict[str, Tracer] = field(repr=False)
    """The schedules of members and leader, kept only while there is something to tell apart."""
    delivered: Mapping[str, int] = field(repr=False)
    """Trial -> the epochs it has a record of: more than the path's own where that goes a known way again."""

    @property
    def name(self) -> str:
        """Under which it is trained, and known to the tree: its leader's."""
        return self.leader.trial_id

    @property
    def epoch(self) -> int:
        """The epochs trained."""
        return len(self.lineage)

    @property
    def remaining(self) -> int:
        """The epochs left to the leader."""
        return self.leader.epochs - self.epoch

    @property
    def anchor(self) -> CheckpointKey | None:
        """The checkpoint from which the path goes on; None at the start."""
        return (self.lineage[-1], self.epoch) if self.lineage else None

    def ancestors(self) -> list[CheckpointKey]:
        """Returns every checkpoint the path could start from, the best first."""
        return [(self.lineage[epoch - 1], epoch) for epoch in range(self.epoch, 0, -1)]

    def test_epochs(self) -> list[int]:
        """Returns the epochs still ahead after which some member wants test results."""
        ahead = range(self.epoch + 1, self.leader.epochs + 1)
        return [
            epoch
            for epoch in ahead
            if any(m.tests(epoch) and self.delivered[m.trial_id] < epoch for m in self.members.values())
        ]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What one record, known or new, means."""

    epoch: int
    record: Metrics
    holder: str
    """Under whose name the checkpoint of that epoch is, if there is one."""
    receivers: tuple[Member, ...]
    """The trials whose record it is and that did not have it."""
    finished: tuple[Member, ...]
    """The trials that are complete with it."""


class ForkTree:
    """All paths of a sweep.

    Args:
        members: The trials, in order of preference where lengths are equal.
        share: Whether trials may share training; otherwise each is a path of its own.
        checkpoints: The stored ones, from which known records can be gone on from.
    """

    def __init__(
        self, members: Iterable[Member], *, share: bool = True, checkpoints: Container[CheckpointKey] = ()
    ) -> None:
        self._checkpoints = checkpoints
        self._delivered: dict[str, int] = {}
        self._order: dict[str, int] = {}
        self._waiting: list[tuple[int, int, str]] = []
        self._paths: dict[str, Path] = {}
        self._running: set[str] = set()
        self._anchors: Counter[CheckpointKey] = Counter()
        self._share = share
        self._unwalked: deque[list[Member]] = deque()
        self.add(members)

    # -- what is asked ----------------------------------------------------------------------------------------------

    def add(self, members: Iterable[Member]) -> None:
        """Takes in more trials; after it, `walk_known` is to be exhausted.

        Args:
            members: New trials, in order of preference, and with them all others of their groups, with what is known of
                them by now.
        """
        groups: dict[Hashable, list[Member]] = {}
        for member in members:
            self._order.setdefault(member.trial_id, len(self._order))
            self._delivered.setdefault(member.trial_id, len(member.known))
            groups.setdefault(self._group(member), []).append(member)
        waiting = [path for path in self._paths.values() if path.name not in self._running]
        for path in [path for path in waiting if self._group(path.leader) in groups]:
            self._release(path)
            self._forget(path.name)
        self._unwalked.extend(groups.values())

    def stop(self, trial_id: str) -> None:
        """Gives up a trial: it gets no more records. A path that nobody needs any more is no longer live."""
        path = next((path for path in self._paths.values() if trial_id in path.members), None)
        if path is None:
            return
        del path.members[trial_id]
        if path.members and path.name in self._running:
            if path.name != trial_id:
                path.traces.pop(trial_id, None)
            return
        self._release(path)
        self._forget(path.name)
        path.traces.pop(trial_id, None)
        if path.members:
            self._admit(self._path(path.members, path.traces, path.lineage))

    def _group(self, member: Member) -> Hashable:
        return member.group if self._share else member.trial_id

    # -- what is known ----------------------------------------------------------------------------------------------

    def walk_known(self) -> Iterator[Delivery | tuple[Member, ...]]:
        """Walks every new group as far as records are known; to be exhausted before anything of it is trained.

        Yields:
            What known records mean for trials that did not have them, and tuples of trials that are now known to
            diverge because they are the same computation as one that did.
        """
        while self._unwalked:
            group = self._unwalked.popleft()
            stack = self._split({member.trial_id: member for member in group}, {}, ())
            under_way = [self._paths[name] for name in sorted(self._running)]
            walk = _Walk([path for path in under_way if self._group(path.leader) == self._group(group[0])])
            while stack:
                yield from self._walk(stack.pop(), stack, walk)
            self._go_on([end for end in walk.ends if not self._joined(end, walk)], walk.records)

    def _walk(self, path: Path, stack: list[Path], walk: _Walk) -> Iterator[Delivery | tuple[Member, ...]]:
        """Walks a path to where its records end; adds its forks to the stack, and what is to be trained to the ends."""
        while path.members:
            walk.pass_by(path)
            epoch = path.epoch + 1
            knowing = [m for m in path.members.values() if len(m.known) >= epoch]
            if not knowing:
                break
            # A trial that wants test results the known record lacks has to be trained through this epoch itself.
            record = max(knowing, key=lambda m: _tested(m.known[epoch - 1])).known[epoch - 1]
            lacking = {
                m.trial_id: m
                for m in path.members.values()
                if len(m.known) < epoch and m.tests(epoch) and not _tested(record)
            }
            if lacking:
                walk.ends.append(self._take_out(path, lacking))
            # They are all the same training, so a checkpoint of any of them is one of this path.
            names = (record["computed_by"], *path.members)
            holder = next((name for name in names if (name, epoch) in self._checkpoints), names[0])
            assert isinstance(holder, str)
            walk.records[holder, epoch] = record
            delivery, parts = self._advance(path, record, holder, {})
            if parts:
                path.leader, path.members, path.traces = parts[0].leader, parts[0].members, parts[0].traces
            stack.extend(parts[1:])
            if delivery.receivers:
                yield delivery
        if any(m.diverged and len(m.known) == path.epoch for m in path.members.values()):
            yield tuple(m for m in path.members.values() if not m.diverged)
            return
        walk.ends.append(path)

    def _joined(self, end: Path, walk: _Walk) -> bool:
        """Lets what has been walked join the same training, if that is under way; returns whether nothing is left."""
        path = next((path for path in walk.running if end.members.keys() & walk.beside[path.name]), None)
        if path is None:
            return False
        own = end.members.keys() & path.members.keys()
        end.members = {trial_id: member for trial_id, member in end.members.items() if trial_id not in own}
        self._keep_wanted(end)
        # It may train a known way again, after which they part; then it is still theirs unless they have it shorter.
        same = own if end.epoch == path.epoch else self._start(end) <= path.epoch if end.members else False
        if not end.members or not same:
            return not end.members
        for trial_id, member in ({path.name: path.leader} | path.members | end.members).items():
            if trial_id not in path.traces:
                path.traces[trial_id] = member.trace()
                for epoch, holder in enumerate(end.lineage[: path.epoch], start=1):
                    path.traces[trial_id].observe(walk.records[holder, epoch])  # type: ignore[arg-type]
        path.members |= end.members
        return True

    def _go_on(self, ends: Iterable[Path], records: Mapping[CheckpointKey, Metrics]) -> None:
        """Lets the paths of a group go on from where their records end, or from the last checkpoint before that."""
        starts: dict[tuple[str, ...], list[Path]] = {}
        for path in ends:
            self._keep_wanted(path)
            if path.members:
                starts.setdefault(path.lineage[: self._start(path)], []).append(path)
        for lineage, paths in starts.items():
            if all(path.epoch == len(lineage) for path in paths):
                for path in paths:
                    self._admit(path)
                continue
            members = {trial_id: member for path in paths for trial_id, member in path.members.items()}
            traces: dict[str, Tracer] = {}
            for trial_id, member in members.items() if len(members) > 1 else ():
                traces[trial_id] = member.trace()
                for epoch, holder in enumerate(lineage, start=1):
                    traces[trial_id].observe(records[holder, epoch])  # type: ignore[arg-type]
            for part in self._split(members, traces, lineage):
                self._admit(part)

    def _start(self, path: Path) -> int:
        """Returns the epoch a path can go on from: its own, or the last one before that has a checkpoint."""
        leader = path.leader
        # One written just before its run was killed is ahead of the records; it holds those that are missing.
        if any((leader.trial_id, epoch) in self._checkpoints for epoch in range(path.epoch + 1, leader.epochs + 1)):
            return path.epoch
        return next((epoch for name, epoch in path.ancestors() if (name, epoch) in self._checkpoints), 0)

    # -- what to train ----------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether nothing is waiting or being trained."""
        return not self._paths

    @property
    def waiting(self) -> int:
        """How many paths could start now."""
        return len(self._paths) - len(self._running)

    @property
    def paths(self) -> Iterable[Path]:
        """The paths that wait or are being trained."""
        return self._paths.values()

    def is_live(self, name: str) -> bool:
        """Whether the path of that name waits or is being trained."""
        return name in self._paths

    def goes_on(self, path: Path) -> bool:
        """Whether a path has not ended: by now another one may have its name."""
        return self._paths.get(path.name) is path

    def take(self) -> Path | None:
        """Returns the waiting path with most epochs left, which is now being trained; None when none waits."""
        while self._waiting:
            _, _, name = heapq.heappop(self._waiting)
            if name in self._paths and name not in self._running:
                self._running.add(name)
                return self._paths[name]
        return None

    def advance(self, name: str, record: Metrics) -> Delivery | None:
        """Takes in the record of a path's next epoch.

        Args:
            name: The path's.
            record: What the epoch measured.

        Returns:
            What it means; None when it means nothing: the epoch was already known (a training that went back to a
            checkpoint), or all that are left came late, and want test results of it.
        """
        path = self._paths[name]
        epoch = record["epoch"]
        assert isinstance(epoch, int)
        if epoch <= path.epoch:
            return None
        assert epoch == path.epoch + 1, f"path {name} is at epoch {path.epoch}, not before {epoch}"
        lacking = {i: m for i, m in path.members.items() if m.tests(epoch) and self._delivered[i] < epoch}
        if lacking and not _tested(record):  # they joined after the worker had been told when to test
            self._admit(self._path(lacking, {i: path.traces[i] for i in lacking if i in path.traces}, path.lineage))
            path.members = {i: m for i, m in path.members.items() if i not in lacking}
        self._release(path)
        if not path.members:
            self._forget(name)
            return None
        goes_on = {name: path.leader} if path.leader.epochs > epoch else {}
        delivery, parts = self._advance(path, record, name, goes_on)
        own, path.members = path.members, {}
        for part in parts:
            if name in part.traces or name in part.members:
                path.members = {i: m for i, m in part.members.items() if i in own}
                path.traces = part.traces
            else:
                self._admit(part)
        if path.members:
            self._hold(path)
        else:
            self._forget(name)
        return delivery

    def diverge(self, name: str) -> tuple[Member, ...]:
        """Ends a path that diverged: all its members did, as they are the same computation. Returns them."""
        path = self._paths[name]
        self._release(path)
        self._forget(name)
        return tuple(path.members.values())

    def drop(self, name: str) -> Member | None:
        """Ends a path whose leader failed for a reason of its own; the others get a new leader.

        Returns:
            The leader, or None if it had been stopped: then nobody has failed.
        """
        path = self._paths[name]
        self._release(path)
        self._forget(name)
        failed = path.members.pop(name, None)
        path.traces.pop(name, None)
        if path.members:
            self._admit(self._path(path.members, path.traces, path.lineage))
        return failed

    def needs(self, checkpoint: CheckpointKey) -> bool:
        """Whether a path could go on from this checkpoint."""
        return self._anchors[checkpoint] > 0

    # -- mechanics --------------------------------------------------------------------------------------------------

    def _split(self, members: dict[str, Member], traces: dict[str, Tracer], lineage: tuple[str, ...]) -> list[Path]:
        """Returns the paths of members that were together so far, by the values they apply next."""
        if len(members) == 1:
            return [self._path(members, {}, lineage)]
        parts: dict[Hashable, dict[str, Member]] = {}
        for trial_id, member in members.items():
            trace = traces.get(trial_id)
            if trace is None:
                trace = traces[trial_id] = member.trace()
            parts.setdefault(trace.next_epoch(), {})[trial_id] = member
        return [
            self._path(part, {i: traces[i] for i in part} if len(part) > 1 else {}, lineage) for part in parts.values()
        ]

    def _path(self, members: dict[str, Member], traces: dict[str, Tracer], lineage: tuple[str, ...]) -> Path:
        leader = max(members.values(), key=self._precedence)
        return Path(leader=leader, members=members, lineage=lineage, traces=traces, delivered=self._delivered)

    def _precedence(self, member: Member) -> tuple[bool, int, int]:
        return member.wanted, member.epochs, -self._order[member.trial_id]

    def _advance(
        self, path: Path, record: Metrics, holder: str, goes_on: Mapping[str, Member]
    ) -> tuple[Delivery, list[Path]]:
        """Gives a path's members their next record.

        Args:
            path: The path; afterwards it has the members that go on, however they do.
            record: Of its next epoch.
            holder: Under whose name the checkpoint of that epoch is, if there is one.
            goes_on: The leader, if its training goes on whether it is a member or not.

        Returns:
            What the record means, and the paths on which those that go on do so, the longest first.
        """
        path.lineage = (*path.lineage, holder)
        receivers = tuple(m for m in path.members.values() if self._delivered[m.trial_id] < path.epoch)
        for member in receivers:
            self._delivered[member.trial_id] = path.epoch
        path.members = {i: m for i, m in path.members.items() if m.epochs > path.epoch}
        together = {**path.members, **goes_on} if path.members else {}
        path.traces = {i: trace for i, trace in path.traces.items() if i in together} if len(together) > 1 else {}
        for trace in path.traces.values():
            trace.observe(record)  # type: ignore[arg-type]
        parts = self._split(together, path.traces, path.lineage) if together else []
        parts.sort(key=lambda part: self._precedence(part.leader), reverse=True)
        finished = tuple(m for m in receivers if m.epochs == path.epoch)
        delivery = Delivery(epoch=path.epoch, record=record, holder=holder, receivers=receivers, finished=finished)
        return delivery, parts

    def _take_out(self, path: Path, members: dict[str, Member]) -> Path:
        """Returns members of a path as a path of their own, at the same epoch."""
        kept = {i: m for i, m in path.members.items() if i not in members}
        apart = self._path(members, {i: path.traces[i] for i in members if i in path.traces}, path.lineage)
        if kept:
            rest = self._path(kept, {i: path.traces[i] for i in kept if i in path.traces}, path.lineage)
            path.leader, path.members, path.traces = rest.leader, rest.members, rest.traces
        else:
            path.members = {}
        return apart

    def _keep_wanted(self, path: Path) -> None:
        """Takes those out of a path that nobody wants trained; it may be left with none."""
        path.members = {i: m for i, m in path.members.items() if m.wanted}
        path.traces = {i: t for i, t in path.traces.items() if i in path.members} if len(path.members) > 1 else {}
        if path.members:
            path.leader = self._path(path.members, {}, path.lineage).leader

    def _admit(self, path: Path) -> None:
        """Lets a path wait for its training."""
        self._paths[path.name] = path
        self._hold(path)
        heapq.heappush(self._waiting, (-path.remaining, self._order[path.name], path.name))

    def _forget(self, name: str) -> None:
        del self._paths[name]
        self._running.discard(name)

    def _hold(self, path: Path) -> None:
        if path.anchor:
            self._anchors[path.anchor] += 1

    def _release(self, path: Path) -> None:
        if path.anchor:
            self._anchors[path.anchor] -= 1
            if not self._anchors[path.anchor]:
                del self._anchors[path.anchor]


@dataclass
class _Walk:
    """A walk through the known records of a group."""

    running: list[Path]
    """The group's paths that are being trained."""
    ends: list[Path] = field(default_factory=list)
    """Where records end, and something is to be trained."""
    records: dict[CheckpointKey, Metrics] = field(default_factory=dict)
    beside: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Path under way -> the trials that are the same as it so far, and in their next epoch."""

    def pass_by(self, path: Path) -> None:
        """Notes which training under way a path is the same as at this epoch."""
        for other in self.running:
            if other.epoch == path.epoch and not other.members.keys().isdisjoint(path.members):
                self.beside[other.name] |= path.members.keys()


def _tested(record: Metrics) -> bool:
    """Whether a record holds test results: a loss that is not finite is null, the accuracy is there even so."""
    return any(record.get(name) is not None for name in ("test_loss", "test_accuracy"))


def count_epochs(members: Iterable[Member], *, share: bool = True, checkpoints: Container[CheckpointKey] = ()) -> int:
    """Returns how many epochs are left to train when no metric-driven schedule acts any more.

    Args:
        members: The trials.
        share: Whether they may share training.
        checkpoints: The stored ones.
    """
    tree = ForkTree(members, share=share, checkpoints=checkpoints)
    for _ in tree.walk_known():
        pass
    count = 0
    while path := tree.take():
        while tree.is_live(path.name):
            if len(path.members) == 1:
                count += path.remaining
                tree.diverge(path.name)
            else:
                count += 1
                tree.advance(path.name, {"epoch": path.epoch + 1, "computed_by": path.name, "test_loss": 0.0})
    return count


def apart(members: Iterable[Member], alone: Callable[[Member], bool]) -> list[Member]:
    """Returns the members, some of them in groups of their own: nothing of theirs is shared."""
    return [replace(m, group=(m.group, m.trial_id)) if alone(m) else m for m in members]

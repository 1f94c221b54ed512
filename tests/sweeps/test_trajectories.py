"""The fork tree against a stand-in for training: whatever the schedules and the metrics, nobody notices the sharing."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.sharing.tree import Delivery, ForkTree, Member, apart, count_epochs


@dataclass(frozen=True)
class Fixed:
    """A schedule known beforehand: the values of each epoch, the last one for ever."""

    values: tuple[int, ...]


@dataclass(frozen=True)
class Watching:
    """A metric-driven schedule: lowers its value after more than `patience` epochs without improvement."""

    start: int
    patience: int
    step: int


Schedule = Fixed | Watching


class StandInTrace:
    """What `workloads.schedulers.Trace` is to real schedules."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.epoch = 0
        self.value = schedule.start if isinstance(schedule, Watching) else 0
        self.best = float("inf")
        self.bad = 0

    def next_epoch(self) -> Hashable:
        if isinstance(self.schedule, Fixed):
            return self.schedule.values[min(self.epoch, len(self.schedule.values) - 1)]
        return self.value

    def observe(self, metrics: dict[str, float]) -> None:
        self.epoch += 1
        if isinstance(self.schedule, Watching) and "loss" in metrics:
            self.bad = 0 if metrics["loss"] < self.best else self.bad + 1
            self.best = min(self.best, metrics["loss"])
            if self.bad > self.schedule.patience:
                self.value, self.bad = self.value - self.schedule.step, 0


Applied = tuple[Hashable, ...]
"""The values of the epochs trained so far: all that a training's result depends on."""


def measured(group: Hashable, applied: Applied) -> dict[str, object]:
    """The record of an epoch, as a function of the whole training so far; losses repeat, so that plateaus happen."""
    number = int.from_bytes(hashlib.sha256(repr((group, applied)).encode()).digest()[:8], "big")
    return {"epoch": len(applied), "loss": float(number % 4), "weights": number}


@dataclass(frozen=True)
class Trial:
    name: str
    group: int
    epochs: int
    schedule: Schedule
    diverges_at: int | None = None

    def member(self) -> Member:
        return Member(
            trial_id=self.name,
            group=self.group,
            epochs=self.epochs,
            trace=lambda: StandInTrace(self.schedule),
            tests=lambda epoch: epoch == self.epochs,
        )

    def alone(self) -> list[tuple[Applied, dict[str, object]]]:
        """What the trial applies and measures with nobody to share with."""
        trace, applied, found = StandInTrace(self.schedule), (), []
        for _ in range(self.epochs):
            applied = (*applied, trace.next_epoch())
            record = measured(self.group, applied)
            trace.observe(record)
            found.append((applied, record))
        return found


def plain(record: object) -> dict[str, object]:
    """A record without who computed it and whether the test images happened to be evaluated."""
    assert isinstance(record, dict)
    return {key: value for key, value in record.items() if key not in ("computed_by", "test_loss")}


class StandInRunner:
    """Trains the paths of a tree a few at a time, in random order, with checkpoints that can be dropped."""

    def __init__(self, trials: list[Trial], tree: ForkTree, chance: random.Random, slots: int) -> None:
        self.trials = {trial.name: trial for trial in trials}
        self.tree, self.chance, self.slots = tree, chance, slots
        self.records: dict[str, list[dict[str, object]]] = {name: [] for name in self.trials}
        self.trained: Counter[tuple[Hashable, Applied]] = Counter()
        self.checkpoints: dict[tuple[str, int], Applied] = {}
        self.finished: set[str] = set()
        self.stopped: set[str] = set()
        self.until: dict[str, int] = {}
        """Trial -> the epoch it pauses at; the others do not."""
        self.waypoints: dict[str, tuple[str, int]] = {}
        """Paused trial -> the checkpoint from which it goes on, which is kept for it."""
        self.running: dict[str, tuple[Applied, StandInTrace]] = {}
        self.told: dict[str, list[int]] = {}
        for news in tree.walk_known():
            assert isinstance(news, Delivery)
            self.deliver(news)

    def deliver(self, delivery: Delivery) -> None:
        for member in delivery.receivers:
            assert len(self.records[member.trial_id]) == delivery.epoch - 1, "records come in order, once"
            self.records[member.trial_id].append(dict(delivery.record))
        for member in delivery.finished:
            if self.trials[member.trial_id].epochs == delivery.epoch:
                self.finished.add(member.trial_id)
            else:
                self.waypoints[member.trial_id] = (delivery.holder, delivery.epoch)

    def start(self) -> bool:
        path = self.tree.take()
        if path is None:
            return False
        applied: Applied = ()
        if path.anchor is not None:
            assert path.anchor in self.checkpoints, f"the checkpoint {path.anchor} was dropped too early"
            applied = self.checkpoints[path.anchor]
        trace = StandInTrace(self.trials[path.leader.trial_id].schedule)
        for epoch in range(len(applied)):
            trace.observe(measured(path.leader.group, applied[: epoch + 1]))
        self.running[path.name] = (applied, trace)
        self.told[path.name] = path.test_epochs()
        return True

    def train_one(self) -> None:
        leader = self.chance.choice(sorted(self.running))
        applied, trace = self.running[leader]
        path = next(path for path in self.tree.paths if path.name == leader)
        group, before, epoch = path.leader.group, path.anchor, path.epoch + 1
        tests = 1.0 if epoch in self.told[leader] else None
        applied = (*applied, trace.next_epoch())
        self.trained[group, applied] += 1
        record = {**measured(group, applied), "computed_by": leader, "test_loss": tests}
        trace.observe(record)
        self.running[leader] = (applied, trace)
        self.checkpoints[leader, epoch] = applied
        delivery = self.tree.advance(leader, record)
        if delivery is not None:
            self.deliver(delivery)
        if before is not None and not self.tree.needs(before) and before not in self.waypoints.values():
            del self.checkpoints[before]
        if not self.tree.is_live(leader):
            del self.running[leader]

    def run(self, epochs: int | None = None) -> None:
        """Trains to the end, or that many epochs."""
        while not self.tree.done and (epochs is None or epochs > 0):
            while len(self.running) < self.slots and self.start():
                pass
            assert self.running, "something waits, nothing runs, nothing can start"
            self.train_one()
            epochs = None if epochs is None else epochs - 1


schedules = st.one_of(
    st.builds(Fixed, st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple)),
    st.builds(Watching, start=st.integers(0, 2), patience=st.integers(0, 3), step=st.integers(1, 2)),
)


@st.composite
def sweeps(draw: st.DrawFn) -> list[Trial]:
    parts = st.tuples(st.integers(0, 1), st.integers(1, 9), schedules)
    return [Trial(f"t{i}", *part) for i, part in enumerate(draw(st.lists(parts, min_size=1, max_size=9)))]


def distinct(trials: list[Trial]) -> set[tuple[Hashable, Applied]]:
    return {(trial.group, applied) for trial in trials for applied, _ in trial.alone()}


@settings(max_examples=300, deadline=None)
@given(trials=sweeps(), seed=st.integers(0, 999), slots=st.integers(1, 4))
def test_every_trial_ends_with_its_own_records_and_no_epoch_is_trained_twice(
    trials: list[Trial], seed: int, slots: int
) -> None:
    runner = StandInRunner(trials, ForkTree(t.member() for t in trials), random.Random(seed), slots)
    runner.run()
    for trial in trials:
        assert [plain(record) for record in runner.records[trial.name]] == [record for _, record in trial.alone()]
        assert runner.records[trial.name][-1]["test_loss"] is not None
    assert runner.finished == {trial.name for trial in trials}
    assert set(runner.trained) == distinct(trials)
    assert set(runner.trained.values()) == {1}


@settings(max_examples=100, deadline=None)
@given(trials=sweeps(), seed=st.integers(0, 999))
def test_computed_by_adds_up_to_the_epochs_trained(trials: list[Trial], seed: int) -> None:
    runner = StandInRunner(trials, ForkTree(t.member() for t in trials), random.Random(seed), 2)
    runner.run()
    own = sum(record["computed_by"] == name for name, records in runner.records.items() for record in records)
    assert own == runner.trained.total()


@settings(max_examples=300, deadline=None)
@given(trials=sweeps(), more=sweeps(), seed=st.integers(0, 999), cut=st.integers(0, 60), kept=st.floats(0, 1))
def test_a_run_cut_anywhere_goes_on_and_widens_from_the_checkpoints_that_are_left(
    trials: list[Trial], more: list[Trial], seed: int, cut: int, kept: float
) -> None:
    chance = random.Random(seed)
    first = StandInRunner(trials, ForkTree(t.member() for t in trials), chance, 2)
    first.run(cut)
    left = {
        (trial.name, epoch): trial.alone()[epoch - 1][0]
        for trial in trials
        for epoch in range(1, len(first.records[trial.name]) + 1)
        if chance.random() < kept
    }
    more = [replace(trial, name=f"m{trial.name}") for trial in more]
    second = go_on(first, more, left, chance)
    stored = {(first.trials[name].group, applied) for (name, _), applied in left.items()}
    assert set(second.trained) == to_train(first, [*trials, *more], stored)
    assert set(second.trained.values()) <= {1}


def test_a_checkpoint_ahead_of_the_records_is_gone_on_from() -> None:
    known = tuple({**measured(0, (1,) * epoch), "computed_by": "a", "test_loss": None} for epoch in (1, 2))
    member = replace(Trial("a", 0, 5, Fixed((1,))).member(), known=known)
    for stored, expected in (({("a", 3)}, 2), ({("a", 2)}, 2), ({("a", 1)}, 1), (set(), 0)):
        tree = ForkTree([member], checkpoints=stored)
        assert list(tree.walk_known()) == []
        path = tree.take()
        assert path is not None
        assert path.epoch == expected


def to_train(
    first: StandInRunner, trials: list[Trial], stored: set[tuple[Hashable, Applied]]
) -> set[tuple[Hashable, Applied]]:
    """What each trial lacks, and the way there from its last checkpoint; each once, however many need it."""
    known: dict[tuple[Hashable, Applied], bool] = {}
    for name, records in first.records.items():
        way = first.trials[name].alone()
        for (applied, _), record in zip(way, records, strict=False):
            node = (first.trials[name].group, applied)
            known[node] = known.get(node, False) or record["test_loss"] is not None
    found = set()
    for trial in trials:
        way = [(trial.group, applied) for applied, _ in trial.alone()]
        end = next((i for i, node in enumerate(way) if node not in known), len(way))
        if end == len(way) and known[way[-1]]:
            continue
        end = min(end, len(way) - 1)  # known, but without the test results it needs
        start = next((i for i in range(end, 0, -1) if way[i - 1] in stored), 0)
        found |= set(way[start:])
    return found


def go_on(
    first: StandInRunner, more: list[Trial], left: dict[tuple[str, int], Applied], chance: random.Random
) -> StandInRunner:
    """Runs to its end what another runner began, and more trials, from the checkpoints that are left."""
    trials = [*first.trials.values(), *more]
    members = [
        replace(t.member(), known=tuple(first.records.get(t.name, ())), wanted=t.name not in first.finished)
        for t in trials
    ]
    second = StandInRunner(trials, ForkTree([]), chance, 2)
    second.records |= {name: list(records) for name, records in first.records.items()}
    second.checkpoints = dict(left)
    second.tree = ForkTree(members, checkpoints=frozenset(left))
    for news in second.tree.walk_known():
        assert isinstance(news, Delivery)
        second.deliver(news)
    second.run()
    for trial in trials:
        assert [plain(record) for record in second.records[trial.name]] == [record for _, record in trial.alone()]
        assert second.records[trial.name][-1]["test_loss"] is not None
    return second


@settings(max_examples=100, deadline=None)
@given(trials=sweeps(), seed=st.integers(0, 999), after=st.integers(0, 12))
def test_when_a_leader_fails_the_others_finish(trials: list[Trial], seed: int, after: int) -> None:
    runner = StandInRunner(trials, ForkTree(t.member() for t in trials), random.Random(seed), 2)
    runner.run(after)
    failed = set()
    if runner.running:
        leader = sorted(runner.running)[0]
        del runner.running[leader]
        assert runner.tree.drop(leader).trial_id == leader
        failed.add(leader)
    runner.run()
    assert runner.finished == {trial.name for trial in trials} - failed
    for trial in trials:
        if trial.name not in failed:
            assert [plain(r) for r in runner.records[trial.name]] == [record for _, record in trial.alone()]


def test_a_divergence_is_everybodys_on_the_path_and_nobody_elses() -> None:
    same, other = Fixed((1, 1, 1)), Fixed((1, 2, 2))
    trials = [Trial("a", 0, 3, same), Trial("b", 0, 3, same), Trial("c", 0, 3, other)]
    runner = StandInRunner(trials, ForkTree(t.member() for t in trials), random.Random(0), 1)
    runner.run(1)
    diverged = runner.tree.diverge("a")
    runner.running.clear()
    assert sorted(member.trial_id for member in diverged) == ["a", "b"]
    runner.run()
    assert runner.finished == {"c"}


def test_a_trial_equal_to_one_known_to_diverge_is_told_so_without_training() -> None:
    schedule = Fixed((1,))
    known = ({"epoch": 1, "loss": 1.0, "computed_by": "old", "test_loss": None},)
    old = replace(Trial("old", 0, 3, schedule).member(), known=known, diverged=True, wanted=False)
    tree = ForkTree([old, Trial("new", 0, 3, schedule).member()])
    news = list(tree.walk_known())
    assert isinstance(news[0], Delivery)
    assert [member.trial_id for member in news[0].receivers] == ["new"]
    assert [member.trial_id for member in news[1]] == ["new"]  # type: ignore[union-attr]
    assert tree.done


@pytest.mark.parametrize(("accuracy", "trained"), [(None, 1), (0.5, 0)], ids=["not tested", "tested"])
def test_a_test_loss_that_is_not_finite_is_a_result(accuracy: float | None, trained: int) -> None:
    """It is null, as where nothing was tested; then there is no accuracy either."""
    known = ({**measured(0, (1,)), "computed_by": "a", "test_loss": None, "test_accuracy": accuracy},)
    one = replace(Trial("a", 0, 3, Fixed((1,))).member(), known=known, wanted=False)
    other = replace(Trial("b", 0, 1, Fixed((1,))).member(), tests=lambda epoch: True)
    tree = ForkTree([one, other])
    for _ in tree.walk_known():
        pass
    assert sum(path.remaining for path in tree.paths) == trained


def test_trials_that_differ_only_in_length_share_their_common_part() -> None:
    schedule = Fixed((3, 2, 1))
    trials = [Trial("short", 0, 2, schedule), Trial("long", 0, 5, schedule)]
    runner = StandInRunner(trials, ForkTree(t.member() for t in trials), random.Random(0), 2)
    runner.run()
    assert runner.trained.total() == 5
    assert [record["computed_by"] for record in runner.records["short"]] == ["long", "long"]


def test_without_sharing_every_trial_trains_alone() -> None:
    trials = [Trial(f"t{i}", 0, 4, Fixed((1,))) for i in range(3)]
    runner = StandInRunner(trials, ForkTree((t.member() for t in trials), share=False), random.Random(0), 2)
    runner.run()
    assert runner.trained.total() == 12
    assert {r["computed_by"] for records in runner.records.values() for r in records} == {"t0", "t1", "t2"}


def test_the_longest_remaining_path_goes_first() -> None:
    trials = [Trial(f"t{i}", i, epochs, Fixed((1,))) for i, epochs in enumerate((2, 9, 5))]
    tree = ForkTree(t.member() for t in trials)
    assert list(tree.walk_known()) == []
    taken = [tree.take() for _ in range(4)]
    assert [path.leader.trial_id if path else None for path in taken] == ["t1", "t2", "t0", None]


def test_an_epoch_reported_again_after_a_retry_counts_once() -> None:
    tree = ForkTree([Trial("a", 0, 3, Fixed((1,))).member()])
    list(tree.walk_known())
    tree.take()
    record = {"epoch": 1, "loss": 1.0, "computed_by": "a"}
    assert tree.advance("a", record) is not None
    assert tree.advance("a", record) is None


@pytest.mark.parametrize(("share", "expected"), [(True, 3 + 2 + 1), (False, 9)])
def test_count_epochs_forecasts_what_is_known_beforehand(share: bool, expected: int) -> None:
    trials = [
        Trial("a", 0, 3, Fixed((1, 1, 1))),
        Trial("b", 0, 3, Fixed((1, 2, 2))),
        Trial("c", 0, 3, Fixed((1, 1, 2))),
    ]
    assert count_epochs([t.member() for t in trials], share=share) == expected


def test_count_epochs_takes_metric_driven_schedules_as_never_acting_or_as_alone() -> None:
    trials = [Trial(f"w{patience}", 0, 10, Watching(1, patience, 1)) for patience in range(4)]
    members = [t.member() for t in trials]
    assert count_epochs(members) == 10
    assert count_epochs(apart(members, lambda m: True)) == 40


# -- trials that are added and stopped while others are trained ------------------------------------------------------


def growing(chance: random.Random, slots: int) -> StandInRunner:
    """A runner without trials, whose tree sees the checkpoints there are."""
    runner = StandInRunner([], ForkTree([]), chance, slots)
    runner.tree = ForkTree([], checkpoints=runner.checkpoints)
    return runner


def add(runner: StandInRunner, trials: list[Trial]) -> None:
    """Adds trials to a running tree, and with them all others of their groups, with what is known of them by now."""
    runner.trials |= {trial.name: trial for trial in trials}
    runner.records |= {trial.name: [] for trial in trials}
    tell(runner, {trial.group for trial in trials})


def tell(runner: StandInRunner, groups: set[int]) -> None:
    """Tells a running tree what is known of some groups, and how far their trials are to be trained."""
    runner.tree.add(
        replace(
            trial.member(),
            epochs=max(runner.until.get(name, trial.epochs), known) if name not in runner.stopped else known,
            known=tuple(runner.records[name]),
            wanted=name not in runner.stopped and known < runner.until.get(name, trial.epochs),
        )
        for name, trial in runner.trials.items()
        for known in [len(runner.records[name])]
        if trial.group in groups and (runner.records[name] or name not in runner.stopped)
    )
    for news in runner.tree.walk_known():
        assert isinstance(news, Delivery)
        runner.deliver(news)


def stop(runner: StandInRunner, name: str) -> None:
    anchors = {path.anchor for path in runner.tree.paths}
    runner.tree.stop(name)
    runner.stopped.add(name)
    for leader in [leader for leader in runner.running if not runner.tree.is_live(leader)]:
        del runner.running[leader]  # its worker is told to end
    for anchor in anchors:
        if anchor is not None and not runner.tree.needs(anchor):
            runner.checkpoints.pop(anchor, None)


@settings(max_examples=200, deadline=None)
@given(
    rounds=st.lists(st.tuples(sweeps(), st.integers(0, 25)), min_size=2, max_size=4),
    seed=st.integers(0, 999),
    slots=st.integers(1, 4),
)
def test_what_comes_late_shares_what_is_known_and_what_is_being_trained(
    rounds: list[tuple[list[Trial], int]], seed: int, slots: int
) -> None:
    """Trained twice is only the way back to a checkpoint that nobody needed any more, or one epoch for its test."""
    chance = random.Random(seed)
    runner = growing(chance, slots)
    again: set[tuple[Hashable, Applied]] = set()
    everything: list[Trial] = []
    for number, (trials, epochs) in enumerate(rounds):
        trials = [replace(trial, name=f"r{number}{trial.name}") for trial in trials]
        again |= trained_again(runner, trials)
        add(runner, trials)
        everything += trials
        runner.run(epochs)
    runner.run()
    for trial in everything:
        assert [plain(r) for r in runner.records[trial.name]] == [record for _, record in trial.alone()]
        assert runner.records[trial.name][-1]["test_loss"] is not None
    assert runner.finished == {trial.name for trial in everything}
    assert set(runner.trained) == distinct(everything)
    assert {node for node, times in runner.trained.items() if times > 1} <= again


def trained_again(runner: StandInRunner, late: list[Trial]) -> set[tuple[Hashable, Applied]]:
    """What may have to be trained again for late trials: the ways known by now that they go, but not from a checkpoint.

    Those that are the same as a training under way start from where that is; all of it is known.
    """
    reached = {
        (path.leader.group, runner.trials[path.name].alone()[path.epoch - 1][0])
        for path in runner.tree.paths
        if path.epoch
    }
    stored = {(runner.trials[name].group, applied) for (name, _), applied in runner.checkpoints.items()} | reached
    found = set()
    for trial in late:
        way = [(trial.group, applied) for applied, _ in trial.alone()]
        end = next((i for i, node in enumerate(way) if node not in runner.trained), len(way))
        end = min(end, len(way) - 1)  # known by then, but maybe without the test results it needs
        start = next((i for i in range(end, 0, -1) if way[i - 1] in stored), 0)
        found |= {*way[start:end], way[-1]}
    return found


@settings(max_examples=200, deadline=None)
@given(
    trials=sweeps(),
    more=sweeps(),
    seed=st.integers(0, 999),
    slots=st.integers(1, 4),
    moments=st.lists(st.integers(0, 8), min_size=1, max_size=5),
)
def test_a_trial_that_is_stopped_costs_nobody_anything(
    trials: list[Trial], more: list[Trial], seed: int, slots: int, moments: list[int]
) -> None:
    chance = random.Random(seed)
    runner = growing(chance, slots)
    add(runner, trials)
    for number, epochs in enumerate(moments):
        runner.run(epochs)
        if going := sorted(set(runner.trials) - runner.finished - runner.stopped):
            stop(runner, chance.choice(going))
        if number == 1:
            add(runner, [replace(trial, name=f"m{trial.name}") for trial in more])
    runner.run()
    assert runner.finished == set(runner.trials) - runner.stopped
    for name, trial in runner.trials.items():
        got = [plain(record) for record in runner.records[name]]
        assert got == [record for _, record in trial.alone()][: len(got)]
        assert name in runner.stopped or len(got) == trial.epochs
    if len(moments) == 1:
        needed = distinct([trial for trial in trials if trial.name not in runner.stopped])
        before = {node for node, _ in runner.trained.items()} - needed
        assert set(runner.trained.values()) <= {1}
        assert len(before) <= moments[0], "what only the stopped trial needs is not trained after it has been stopped"


@settings(max_examples=200, deadline=None)
@given(trials=sweeps(), seed=st.integers(0, 999), slots=st.integers(1, 4), moments=st.lists(st.integers(0, 4)))
def test_trials_that_pause_go_on_as_if_they_had_not(
    trials: list[Trial], seed: int, slots: int, moments: list[int]
) -> None:
    """Promoted one by one while others are trained; trained twice is only what somebody had gone ahead with."""
    chance = random.Random(seed)
    runner = growing(chance, slots)
    runner.until = {trial.name: chance.randint(1, trial.epochs) for trial in trials}
    add(runner, trials)
    for epochs in [*moments, *([None] * 9 * len(trials))]:
        runner.run(epochs)
        paused = [name for name in sorted(runner.until) if len(runner.records[name]) == runner.until[name]]
        if going_on := [name for name in paused if name not in runner.finished]:
            one = runner.trials[chance.choice(going_on)]
            before = runner.waypoints.pop(one.name)
            runner.until[one.name] = chance.randint(runner.until[one.name] + 1, one.epochs)
            tell(runner, {one.group})
            if not runner.tree.needs(before) and before not in runner.waypoints.values():
                runner.checkpoints.pop(before, None)  # what was learned from others may have had none
    assert runner.tree.done
    for trial in trials:
        assert [plain(record) for record in runner.records[trial.name]] == [record for _, record in trial.alone()]
    assert runner.finished == set(runner.trials)
    assert set(runner.trained) == distinct(trials)


def test_what_comes_late_joins_the_training_that_is_the_same() -> None:
    runner = growing(random.Random(0), 1)
    add(runner, [Trial("first", 0, 6, Fixed((1,)))])
    runner.run(3)
    add(runner, [Trial("same", 0, 9, Fixed((1,))), Trial("parts", 0, 5, Fixed((1, 1, 1, 1, 2)))])
    assert [len(runner.records[name]) for name in ("same", "parts")] == [3, 3]
    runner.run()
    assert runner.trained.total() == 6 + 3 + 1
    assert [record["computed_by"] for record in runner.records["same"]] == ["first"] * 6 + ["same"] * 3


def test_a_leader_that_is_stopped_leads_on_those_that_need_its_training() -> None:
    runner = growing(random.Random(0), 1)
    add(runner, [Trial("long", 0, 9, Fixed((1,))), Trial("short", 0, 4, Fixed((1,)))])
    runner.run(2)
    stop(runner, "long")
    runner.run()
    assert runner.trained.total() == 4
    assert len(runner.records["long"]) == 2
    assert {record["computed_by"] for record in runner.records["short"]} == {"long"}
    assert runner.tree.done

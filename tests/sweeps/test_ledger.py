"""The ledger: what status follows from what is stored, and which checkpoints stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.store import SweepStore, TrialStatus
from sweeps.ledger.ledger import Ledger
from sweeps.sharing.tree import Delivery, Member
from tests.sweeps.runs import made_up_record
from workloads.measure import Measure
from workloads.registry import resolve
from workloads.trial import Status, TrialConfig


def test_the_best_of_a_longer_trial_may_lie_in_the_shorter_one_it_goes_on_from(storage: str) -> None:
    short = resolve(TrialConfig(workload="lenet_synthetic", epochs=2))
    long = resolve(TrialConfig(workload="lenet_synthetic", epochs=3))
    store = SweepStore(storage, "widened")

    def trained(member: Member, trial: TrialConfig, epoch: int, val_accuracy: float) -> Delivery:
        record = made_up_record(trial, epoch, val_accuracy=val_accuracy)
        finished = (member,) if epoch == trial.epochs else ()
        return Delivery(epoch=epoch, record=record, holder=trial.trial_id, receivers=(member,), finished=finished)

    before = Ledger(store, [short], keep="best")
    (member,) = before.members()
    first, second = (store.save_checkpoint(short.trial_id, epoch, b"weights %d" % epoch) for epoch in (1, 2))
    before.deliver(trained(member, short, 1, 0.9), first)
    before.deliver(trained(member, short, 2, 0.8), second)
    before.flush()

    widened = Ledger(store, [short, long], keep="best")
    for news in widened.tree().walk_known():
        assert isinstance(news, Delivery)
        widened.deliver(news, None)
    third = store.save_checkpoint(long.trial_id, 3, b"weights 3")
    widened.deliver(trained(widened.members()[1], long, 3, 0.7), third)
    statuses = [widened.statuses[trial.trial_id] for trial in (short, long)]
    assert [(status.checkpoint, status.best_checkpoint) for status in statuses] == [
        (second.path, first.path),
        (third.path, first.path),
    ]
    assert widened.kept_checkpoints == {first.path: 2, second.path: 1, third.path: 1}


def whole(trial: TrialConfig, **changes: Any) -> list[dict[str, Any]]:
    """Returns made-up records of all epochs of a trial."""
    return [made_up_record(trial, epoch, **changes) for epoch in range(1, trial.epochs + 1)]


def trial_of(**changes: Any) -> TrialConfig:
    return resolve(TrialConfig(workload="lenet_synthetic", epochs=2, **changes))


@pytest.mark.parametrize("lost", ["never written", "damaged"])
def test_a_trial_whose_status_is_lost_keeps_its_final_weights(lost: str, storage: str) -> None:
    """Killed between writing records and statuses, and what a damaged part leaves."""
    store, trial = SweepStore(storage, "s"), trial_of()
    store.append_epochs(whole(trial))
    final = store.save_checkpoint(trial.trial_id, 2, b"weights")
    if lost == "damaged":
        store.append_statuses(
            [TrialStatus(trial_id=trial.trial_id, status="completed", epochs_run=2, checkpoint=final.path)]
        )
        (part,) = Path(store.root, "parts").glob("statuses-*")
        part.write_bytes(part.read_bytes()[:-8])
    ledger = Ledger(store, [trial])
    assert ledger.statuses[trial.trial_id].status == "completed"
    assert ledger.statuses[trial.trial_id].checkpoint == final.path
    assert ledger.kept_checkpoints == {final.path: 1}
    assert Ledger(store, [trial], keep="none").statuses[trial.trial_id].checkpoint is None


def test_final_weights_are_found_under_the_name_of_the_training_they_come_from(storage: str) -> None:
    store, trial, leader = SweepStore(storage, "s"), trial_of(scheduler="exponential"), trial_of()
    store.append_epochs(whole(trial, computed_by=leader.trial_id))
    final = store.save_checkpoint(leader.trial_id, 2, b"weights")
    assert Ledger(store, [trial]).statuses[trial.trial_id].checkpoint == final.path


@pytest.mark.parametrize("outcome", ["completed", "diverged"])
@pytest.mark.parametrize("failed", ["failed", "out_of_memory"])
def test_what_the_same_training_came_to_is_a_failed_trials_answer(
    outcome: Status, failed: Status, storage: str
) -> None:
    store = SweepStore(storage, "s")
    one, other = (trial_of(scheduler=name, scheduler_settings={"gamma": 0.9}) for name in ("exponential", "step"))
    other = other.replace(scheduler_settings={**other.scheduler_settings, "step_size": 1})
    records = whole(one)
    store.append_epochs(records if outcome == "completed" else records[:1])
    store.append_statuses(
        [
            TrialStatus(trial_id=one.trial_id, status=outcome, epochs_run=2 if outcome == "completed" else 1),
            TrialStatus(trial_id=other.trial_id, status=failed, epochs_run=0, error="the worker died"),
        ]
    )
    ledger = Ledger(store, [one, other])
    for news in ledger.tree().walk_known():
        ledger.learn(news)
    assert ledger.statuses[other.trial_id].status == outcome


def test_failed_and_out_of_memory_are_tried_again_when_asked_to(storage: str) -> None:
    store, trials = SweepStore(storage, "s"), [trial_of(seed=seed) for seed in (1, 2, 3)]
    ends: tuple[Status, ...] = ("failed", "out_of_memory", "diverged")
    store.append_statuses(
        [TrialStatus(trial_id=t.trial_id, status=end, epochs_run=0) for t, end in zip(trials, ends, strict=True)]
    )
    assert Ledger(store, trials).open == []
    assert Ledger(store, trials, retry_failed=True).open == trials[:2]
    changed = {trial.trial_id for trial in trials}
    assert Ledger(store, trials, changed=changed).open == trials, "they ended in another training"


def test_weights_of_trials_not_asked_for_stay(storage: str) -> None:
    """The final ones, and those from which a trial could go on another time."""
    store = SweepStore(storage, "s")
    asked, done, begun = trial_of(), trial_of(seed=5), trial_of(scheduler="step").replace(epochs=4)
    store.append_epochs([*whole(done), made_up_record(begun, 1), made_up_record(begun, 2)])
    paths = [store.save_checkpoint(done.trial_id, 2, b"final").path]
    paths += [store.save_checkpoint(begun.trial_id, epoch, b"%d" % epoch).path for epoch in (1, 2)]
    store.append_statuses([TrialStatus(trial_id=done.trial_id, status="completed", epochs_run=2, checkpoint=paths[0])])
    ledger = Ledger(store, [asked], library=[begun])
    assert ledger.open == [asked]
    assert ledger.kept_checkpoints.keys() == {paths[0], paths[2]}
    assert ledger.counts() == {"pending": 1}


def test_a_trial_taken_over_brings_its_weights(storage: str) -> None:
    theirs, store, trial = SweepStore(storage, "theirs"), SweepStore(storage, "ours"), trial_of()
    theirs.append_epochs(whole(trial))
    final = theirs.save_checkpoint(trial.trial_id, 2, b"weights")
    theirs.append_statuses(
        [TrialStatus(trial_id=trial.trial_id, status="completed", epochs_run=2, checkpoint=final.path)]
    )
    ledger = Ledger(store, [trial])
    ledger.take_over(trial.trial_id, Ledger(theirs, [trial]), theirs)
    assert not store.files(), "nothing is written before the sweep begins"
    ledger.adopt()
    (copy,) = store.list_checkpoints()
    assert copy.path == ledger.statuses[trial.trial_id].checkpoint
    assert store.load_checkpoint(copy) == b"weights"
    assert ledger.delivered_by_training == 0, "taken over is not trained"


def test_a_trial_whose_first_record_is_lost_is_trained_anew(storage: str) -> None:
    store, trial = SweepStore(storage, "s"), TrialConfig(epochs=3)
    store.append_epochs([made_up_record(trial, 2)])
    ledger = Ledger(store, [trial])
    assert ledger.open == [trial]
    assert ledger.delivered == 0


@pytest.mark.parametrize(("higher_is_better", "best", "sign"), [(True, 2, 1), (False, 1, -1)])
def test_more_of_what_it_says_is_better(higher_is_better: bool, best: int, sign: int, storage: str) -> None:
    """The checkpoint of the best epoch, and what policies decide by, in this run and from what is stored."""
    store, trial = SweepStore(storage, "s"), resolve(TrialConfig(workload="lenet_synthetic", epochs=3))
    measure = Measure(name="mean absolute error", higher_is_better=higher_is_better)
    values = {1: 0.4, 2: 0.9, 3: 0.6}

    def ledger() -> Ledger:
        return Ledger(store, [trial], keep="best", measure=lambda _: measure)

    first = ledger()
    (member,) = first.members()
    paths = {epoch: store.save_checkpoint(trial.trial_id, epoch, b"%d" % epoch) for epoch in values}
    for epoch, value in values.items():
        record = made_up_record(trial, epoch, val_accuracy=value)
        done = (member,) if epoch == trial.epochs else ()
        delivery = Delivery(epoch=epoch, record=record, holder=trial.trial_id, receivers=(member,), finished=done)
        first.deliver(delivery, paths[epoch])
    first.flush()
    assert first.statuses[trial.trial_id].best_checkpoint == paths[best].path
    again = ledger()
    for found in (first, again):
        assert [outcome.value for _, outcome in found.ended()] == [sign * 0.6]


@pytest.mark.parametrize(("takes", "next_after"), [(0.0, 1.0), (0.5, 2.0), (60.0, 10.0)])
def test_where_writing_takes_long_a_run_writes_less_often(
    takes: float, next_after: float, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = 100.0, 0

    def append(statuses: object) -> None:
        nonlocal now, written
        now, written = now + takes, written + 1

    monkeypatch.setattr("sweeps.ledger.ledger.time.monotonic", lambda: now)
    trial = trial_of()
    store = SweepStore(storage, "s")
    ledger = Ledger(store, [trial])
    monkeypatch.setattr(store, "append_statuses", append)
    for after, count in ((0.9, 0), (0.2, 1), (next_after - 0.1, 1), (0.2, 2)):
        now += after
        ledger.set_status(trial.trial_id, "failed", error="?")
        ledger.flush(only_if_due=True)
        assert written == count

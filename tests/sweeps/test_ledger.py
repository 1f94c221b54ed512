"""The ledger: which checkpoints stay."""

from __future__ import annotations

from analysis.store import SweepStore
from sweeps.ledger import Ledger
from sweeps.trajectories import Delivery, Member
from tests.sweeps.runs import made_up_record
from workloads.registry import resolve
from workloads.trial import TrialConfig


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

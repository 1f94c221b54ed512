"""Trials that are added and stopped while Tune trains others: stand-in training, real workers."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from analysis.store import SweepStore
from sweeps.ledger.ledger import Ledger
from sweeps.sharing.tree import Delivery, ForkTree
from sweeps.tuning.driver import Run
from sweeps.tuning.execution import run_tree
from sweeps.tuning.placement import Placement
from sweeps.watching.progress import Progress
from tests.benchmarks.stand_ins import sleeping
from workloads.registry import resolve
from workloads.trial import TrialConfig

HOPELESS, SOUND, LATE, SAME = (
    resolve(TrialConfig(seed=seed, epochs=epochs)) for seed, epochs in ((1, 40), (2, 4), (3, 2), (2, 6))
)


class Stopping(Run):
    """Gives one trial up after its second epoch."""

    def take_in(self, tune_id: str, result: Mapping[str, Any]) -> None:
        super().take_in(tune_id, result)
        if result.get("record", {}).get("epoch") == 2 and result["record"]["trial_id"] == HOPELESS.trial_id:
            self.stop(HOPELESS.trial_id, "far behind the others")


def test_a_stopped_training_ends_and_a_late_one_is_trained(ray_cluster: None, storage: str) -> None:
    store = SweepStore(storage, "s")
    Path(store.root).mkdir(parents=True)
    ledger = Ledger(store, [HOPELESS, SOUND])
    tree = ForkTree(ledger.members(), checkpoints=ledger.checkpoints)
    assert list(tree.walk_known()) == []
    to_come = [LATE, SAME]

    def more(seconds: float | None) -> bool:
        if not tree.done:  # asked whenever a worker is free
            return True
        assert seconds is not None
        assert {status.status for status in ledger.statuses.values()} <= {"completed", "early_stopped"}
        if to_come:
            ledger.add(to_come)
            tree.add(ledger.members(to_come))
            to_come.clear()
            for news in tree.walk_known():
                assert isinstance(news, Delivery)
                assert {member.trial_id for member in news.receivers} == {SAME.trial_id}
                ledger.learn(news)
        return not tree.done

    with Progress(Console(file=io.StringIO()), {}) as progress:
        run = Stopping(tree, ledger, Placement(), progress, more=more)
        run_tree(run, train=sleeping(0.15, saves=True))
    ends = {trial_id: (status.status, status.epochs_run) for trial_id, status in ledger.statuses.items()}
    assert ends == {
        HOPELESS.trial_id: ("early_stopped", 2),
        SOUND.trial_id: ("completed", 4),
        LATE.trial_id: ("completed", 2),
        SAME.trial_id: ("completed", 6),
    }
    assert ledger.statuses[HOPELESS.trial_id].error == "far behind the others"
    assert run.trained <= 2 + 4 + 2 + 2, "the same training goes on from its last checkpoint; none is left running"
    again = Ledger(store, [HOPELESS, SOUND, LATE, SAME])
    assert again.open == [HOPELESS], "asked for again, it goes on unless it is stopped again"
    assert json.dumps(again.counts(), sort_keys=True) == json.dumps({"completed": 3, "pending": 1})

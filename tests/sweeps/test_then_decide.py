"""A search, and then the race of what it picked, on seeds that it did not see."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from analysis.store import SweepStore
from sweeps.policies import Outcome, configuration_id
from sweeps.policies.policy import results
from sweeps.question.grid import axis
from sweeps.question.picking import check_picking, picked, race_of_picked
from sweeps.question.sweep import Sweep, plan
from tests.sweeps.runs import measured, run_here, table_of
from workloads.errors import InputError
from workloads.trial import TrialConfig

SWEEP = Sweep(
    name="s",
    question="?",
    optimizers=("adam", "sgd_momentum"),
    grid=axis("workload", "lenet_synthetic"),
    epochs=1,
    train_limit=128,
    trials=3,
)


def test_the_best_of_each_is_picked() -> None:
    trials = [
        TrialConfig(optimizer=optimizer, lr=lr, seed=seed)
        for optimizer in ("adam", "sgd")
        for lr in (0.1, 0.2, 0.3)
        for seed in (1, 2)
    ]
    ended = {trial: Outcome(value=trial.lr + trial.seed) for trial in trials}
    ended[trials[5]] = Outcome(value=None, diverged=True)  # adam at 0.3
    del ended[trials[11]]  # sgd at 0.3
    found = picked(trials, results(ended.items()))
    assert found == pytest.approx({configuration_id(trials[2]): 1.7, configuration_id(trials[8]): 1.7})
    race = race_of_picked(SWEEP, replace(SWEEP.default_options(), max_seeds=3), trials, list(found))
    assert {(one.optimizer, one.lr) for one in race.configurations} == {("adam", 0.2), ("sgd", 0.2)}
    assert race.seeds == (3, 4, 5), "fresh ones"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"decide": True}, "--decide races all configurations, --then-decide only the best of each"),
        ({"optimizers": ("adam",)}, "this question has only one of them"),
    ],
)
def test_refused(options: dict[str, Any], complaint: str) -> None:
    chosen = replace(SWEEP.default_options(), then_decide=True, **options)
    with pytest.raises(InputError, match=complaint):
        check_picking(plan(SWEEP, chosen), chosen)


def test_a_search_and_then_a_race(ray_cluster: None, storage: str) -> None:
    options: dict[str, Any] = {"then_decide": True, "max_seeds": 3}
    status, text = run_here(SWEEP, storage, max_concurrent=None, **options)
    assert status == 0, text
    assert "then the best of each optimizer and schedule is raced on other seeds" in text
    trials = table_of(storage, "s")
    assert set(trials["seed"]) == {1, 2, 3}, "the answer is about seeds that were not searched with"
    assert trials.group_by("optimizer").len()["len"].to_list() == [3, 3]
    spec = SweepStore(storage, "s").read_spec()
    assert spec is not None
    assert len(spec.library) == 6, "what was searched is kept"
    said = re.search(r"The search picked .* at (\d\.\d+); on seeds that it did not see, the mean is (\d\.\d+)", text)
    assert said, text
    best = table_of(storage, "s", "summary").row(0, named=True)
    assert float(said[2]) == pytest.approx(best["final_val_accuracy_mean"], abs=5e-5)

    _, again = run_here(SWEEP, storage, max_concurrent=None, **options)
    assert "everything is done: nothing to train" in again
    status, _ = run_here(SWEEP, storage, name="alone", share=False, max_concurrent=1, trials=3)
    assert status == 0
    status, _ = run_here(SWEEP, storage, name="alone", share=False, max_concurrent=1, **options)
    assert status == 0
    told = ["trial_id", "status", "final_val_accuracy"]
    assert table_of(storage, "alone").select(told).equals(trials.select(told))
    assert measured(storage, "s").equals(measured(storage, "alone"))

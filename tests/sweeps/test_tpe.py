"""Draws by results: they are a function of the results, more of them keep those there are, and they get better."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.policies import Decision, Outcome, Tpe
from sweeps.policies.policy import results
from sweeps.policies.rungs import RULES
from sweeps.policies.tpe import ROUND, START, Group
from sweeps.question.grid import axis
from sweeps.question.samplers import draw
from sweeps.question.sweep import Sweep, plan
from tests.sweeps.runs import measured, run_here, table_of
from workloads.errors import InputError
from workloads.trial import TrialConfig

NAMES = ("lr", "momentum")


def trials(seeds: Sequence[int]) -> Any:
    def at(places: Sequence[float]) -> tuple[TrialConfig, ...]:
        lr, settings = 10 ** (3 * places[0] - 4), {"momentum": float(places[1])}
        return tuple(TrialConfig(lr=lr, optimizer_settings=settings, seed=seed, epochs=9) for seed in seeds)

    return at


def search(draws: int, seed: int = 0, seeds: Sequence[int] = (1,), groups: int = 1, rule: str | None = None) -> Tpe:
    start = tuple(map(tuple, draw("tpe", seed, NAMES, START).tolist()))
    groups_ = (Group(names=NAMES, start=start, trials=trials(seeds)),) * groups
    return Tpe(groups=groups_, draws=draws, seed=seed, rule=RULES[rule] if rule else None)


def bump(trial: TrialConfig) -> float:
    """Best at a place of 0.3 for the rate and 0.8 for the momentum."""
    place = (math.log10(trial.lr) + 4) / 3
    return 1 - (place - 0.3) ** 2 - (float(str(trial.optimizer_settings["momentum"])) - 0.8) ** 2


def played(policy: Tpe, train: Any = bump, shuffle: np.random.Generator | None = None) -> list[Decision]:
    known: dict[TrialConfig, Outcome] = {}
    decisions: list[Decision] = []
    while not decisions or not decisions[-1].over:
        items = list(known.items())
        if shuffle is not None:
            items = [items[place] for place in shuffle.permutation(len(items))]
        decisions.append(policy.decide(results(items)))
        for trial in decisions[-1].add:
            value, until = train(trial), decisions[-1].until.get(trial.trial_id, trial.epochs)
            if trial in known and (not known[trial].under_way or len(known[trial].curve) >= until):
                continue
            if value is None or until == trial.epochs:
                known[trial] = Outcome(value=value, diverged=value is None, curve=(value,) * 9 if value else ())
            else:
                known[trial] = Outcome(value=None, under_way=True, curve=(value,) * until)
    return decisions


def drawn(policy: Tpe, **how: Any) -> list[TrialConfig]:
    return list(played(policy, **how)[-1].add)


def test_rounds() -> None:
    assert [len(decision.add) for decision in played(search(22))] == [START, START + ROUND, START + 2 * ROUND, 22]
    assert [len(decision.add) for decision in played(search(4))] == [4]


def test_more_draws_keep_those_there_are() -> None:
    many = drawn(search(30))
    for few in (4, 10, 13, 23):
        assert drawn(search(few)) == many[:few]


def test_the_order_of_arrival_decides_nothing() -> None:
    assert drawn(search(25), shuffle=np.random.default_rng(1)) == drawn(search(25))
    assert drawn(search(25, seed=1)) != drawn(search(25))


def test_what_it_was_asked_before_decides_nothing() -> None:
    policy = search(25)
    expected = drawn(search(25))
    assert drawn(policy) == expected
    worse = drawn(policy, train=lambda trial: -bump(trial))
    assert worse == drawn(search(25), train=lambda trial: -bump(trial)) != expected
    assert drawn(policy) == expected


def test_later_draws_are_better() -> None:
    values = np.mean([[bump(trial) for trial in drawn(search(40, seed))] for seed in range(5)], axis=0)
    assert values[-10:].mean() > values[:START].mean() + 0.1


def test_what_diverges_is_avoided() -> None:
    def train(trial: TrialConfig) -> float | None:
        return None if trial.lr > 0.006 else bump(trial)

    found = drawn(search(40), train=train)
    assert sum(trial.lr > 0.006 for trial in found[-20:]) < 4, "of 20, where 8 would be as before"
    assert len(drawn(search(15), train=lambda trial: None)) == 15


def test_seeds_are_averaged_and_trained_together() -> None:
    found = drawn(search(12, seeds=(1, 2)))
    assert [trial.seed for trial in found] == [1, 2] * 12
    assert [trial.replace(seed=1) for trial in found[::2]] == [trial.replace(seed=1) for trial in found[1::2]]


def test_what_is_still_to_come() -> None:
    ahead = search(30, seeds=(1, 2), groups=2).outlook({})
    assert ahead is not None
    assert (ahead.each, ahead.draws, ahead.trials) == (ROUND, 30, 120)
    assert search(START).outlook({}) is None


SWEEP = Sweep(
    name="s",
    question="?",
    optimizers=("adam",),
    grid=axis("workload", "lenet_synthetic"),
    epochs=1,
    train_limit=128,
    trials=16,
)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        plan(SWEEP, replace(SWEEP.default_options(), sampler="tpe"))
    assert str(error.value) == "--sampler tpe needs the package optuna: pip install -e '.[search]'"


def test_beside_what_needs_all_draws(storage: str) -> None:
    with pytest.raises(InputError, match="--sampler tpe draws by the results of whole trials"):
        run_here(SWEEP, storage, sampler="tpe", plan=True, decide=True)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_with_early_stopping(rule: str) -> None:
    policy = search(40, rule=rule)
    *before, last = played(policy)
    assert not any(one.stop for one in before if len(one.add) < 40), "nobody is stopped while more are to be drawn"
    assert len(last.add) == 40
    best = max(last.add, key=bump)
    assert best.trial_id not in last.until.keys() | last.stop.keys()
    assert 40 // 9 <= 40 - len(last.stop) < 30
    assert drawn(search(40, rule=rule), shuffle=np.random.default_rng(1)) == list(last.add)
    assert drawn(search(23, rule=rule)) == list(last.add)[:23]
    values = [bump(trial) for trial in last.add]
    assert np.mean(values[-10:]) > np.mean(values[:START]) + 0.1, "later draws are better"
    ahead = policy.outlook({})
    assert ahead is not None
    assert ahead.said(None).startswith("then 5 draws of each at a time, where results are best so far, up to 40; going")
    with pytest.raises(InputError, match="configurations or more of an optimizer and schedule, not 1"):
        search(1, rule=rule)


def test_the_same_with_one_worker_and_in_two_goes(ray_cluster: None, storage: str, tmp_path: Path) -> None:
    status, text = run_here(SWEEP, storage, sampler="tpe", max_concurrent=None)
    assert status == 0, text
    assert (
        "then 5 draws of each at a time, where results are best so far, up to 16: 16 trials, at most 16 trial-" in text
    )
    run_here(SWEEP, storage, sampler="tpe", name="alone", share=False, max_concurrent=1, trials=11)
    run_here(SWEEP, storage, sampler="tpe", name="alone", share=False, max_concurrent=1)
    told = ["trial_id", "lr", "status", "final_val_accuracy"]
    whole, alone = table_of(storage, "s").select(told), table_of(storage, "alone").select(told)
    assert whole.height == 16
    assert whole.equals(alone)
    assert measured(storage, "s").equals(measured(storage, "alone"))

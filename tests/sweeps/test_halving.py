"""Successive halving: what goes on, what is stopped and why, and that nothing but the curves decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.policies import Decision, Halving, Outcome
from sweeps.policies.policy import results
from workloads.errors import InputError
from workloads.trial import TrialConfig

Curve = Callable[[TrialConfig], Sequence[float]]


def asked(
    rates: int = 9, seeds: Sequence[int] = (1,), epochs: int = 9, optimizers: Sequence[str] = ("adam",)
) -> Halving:
    return Halving(
        trials=tuple(
            TrialConfig(optimizer=optimizer, lr=lr / 10, seed=seed, epochs=epochs)
            for optimizer in optimizers
            for lr in range(1, rates + 1)
            for seed in seeds
        )
    )


def rising(trial: TrialConfig) -> list[float]:
    """The higher the rate, the better, after every epoch."""
    return [trial.lr * epoch / 100 for epoch in range(1, trial.epochs + 1)]


def played(
    policy: Halving, curve: Curve = rising, known: Mapping[TrialConfig, Outcome] | None = None
) -> list[Decision]:
    """Returns the decisions, what each asks for trained; `known` is stored from before."""
    now, decisions = dict(known or {}), []
    while not decisions or not decisions[-1].over:
        decisions.append(policy.decide(results(now.items())))
        for trial in policy.trials:
            if trial.trial_id in decisions[-1].stop or (trial in now and not now[trial].paused):
                continue
            seen = max(decisions[-1].until or trial.epochs, len(now[trial].curve) if trial in now else 0)
            whole = tuple(curve(trial)[:seen])
            ended = len(whole) == trial.epochs
            now[trial] = Outcome(value=whole[-1] if ended else None, paused=not ended, curve=whole)
    return decisions


def survivors(policy: Halving, decision: Decision) -> list[float]:
    return [trial.lr for trial in policy.trials if trial.trial_id not in decision.stop]


def test_the_best_third_goes_on() -> None:
    policy = asked()
    first, second, last = played(policy)
    assert policy.rungs == (1, 3)
    assert (first.until, second.until, last.until) == (1, 3, None)
    assert (first.over, second.over, last.over) == (False, False, True)
    assert first.stop == {}
    assert survivors(policy, second) == [0.7, 0.8, 0.9]
    assert survivors(policy, last) == [0.9]
    assert second.reason == "3 of 9 configurations go on after epoch 1."
    assert last.reason == "1 of 3 configurations go on after epoch 3. They are trained to the end."
    assert last.stop[policy.trials[0].trial_id] == "not among the best 3 of 9 at epoch 1"
    assert last.stop[policy.trials[7].trial_id] == "not among the best 1 of 3 at epoch 3"


def test_groups_have_equal_budgets() -> None:
    def better(trial: TrialConfig) -> list[float]:
        return [value + (trial.optimizer == "adam") for value in rising(trial)]

    policy = asked(optimizers=("adam", "sgd"))
    *_, last = played(policy, better)
    assert [(t.optimizer, t.lr) for t in policy.trials if t.trial_id not in last.stop] == [("adam", 0.9), ("sgd", 0.9)]


@pytest.mark.parametrize(
    ("epochs", "count", "rungs"),
    [
        (3, 3, (1,)),
        (9, 3, (3,)),
        (9, 8, (3,)),
        (9, 9, (1, 3)),
        (10, 9, (1, 3)),
        (30, 20, (3, 10)),
        (30, 27, (1, 3, 10)),
    ],
)
def test_rungs(epochs: int, count: int, rungs: tuple[int, ...]) -> None:
    assert asked(count, epochs=epochs).rungs == rungs


def test_what_it_takes_in_all() -> None:
    ahead = asked(optimizers=("a", "b", "c", "d")).outlook({})
    # 36 to epoch 1, 12 for 2 more, 4 for 6 more
    assert (ahead.going_on, ahead.trial_epochs, ahead.without) == (((1, 12), (3, 4)), 36 + 24 + 24, 324)
    assert asked(seeds=(1, 2)).outlook({}).trial_epochs == 2 * (9 + 6 + 6)


def test_seeds_are_averaged() -> None:
    def lucky(trial: TrialConfig) -> list[float]:
        return [5.0 * (trial.seed == 1) if trial.lr == 0.1 else value + 3 for value in rising(trial)]

    *_, last = played(asked(3, seeds=(1, 2), epochs=3), lucky)
    assert len(last.stop) == 4
    assert all("best 1 of 3 at epoch 1" in why for why in last.stop.values())
    policy = asked(3, seeds=(1, 2), epochs=3)
    assert set(survivors(policy, last)) == {0.3}, "0.1 has a mean of 2.5"


def test_what_diverged_or_failed_does_not_go_on() -> None:
    policy = asked()
    ended = {
        policy.trials[8]: Outcome(value=None, diverged=True),
        policy.trials[7]: Outcome(value=None),
    }
    *_, last = played(policy, known=ended)
    assert survivors(policy, last) == [0.7]
    nothing = {trial: Outcome(value=None, diverged=True) for trial in policy.trials}
    assert played(policy, known=nothing)[-1].over


def test_equal_ones_go_on_in_order() -> None:
    policy = asked(3, epochs=3)
    *_, last = played(policy, lambda trial: [0.5] * trial.epochs)
    assert survivors(policy, last) == [0.1]


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(3, 12), st.integers(1, 2), st.data())
def test_what_is_known_already_changes_nothing(random: object, rates: int, seeds: int, data: st.DataObject) -> None:
    """Killed anywhere, resumed with whatever is stored, in any order: the last decision is the same."""
    policy = asked(rates, seeds=range(seeds), optimizers=("adam", "sgd"))
    curves = {trial: [random.random() for _ in range(trial.epochs)] for trial in policy.trials}  # type: ignore[attr-defined]
    expected = played(policy, curves.__getitem__)[-1]
    known = {}
    for trial in data.draw(st.permutations(policy.trials)):
        seen = data.draw(st.integers(0, trial.epochs))
        whole = tuple(curves[trial][:seen])
        if len(whole) == trial.epochs:
            known[trial] = Outcome(value=whole[-1], curve=whole)
        elif seen >= policy.rungs[0]:
            known[trial] = Outcome(value=None, paused=True, curve=whole)
    assert played(policy, curves.__getitem__, known)[-1] == expected


def test_ten_thousand_trials_are_decided_at_once() -> None:
    policy = asked(10_000, epochs=27)
    curves = {trial: Outcome(value=None, paused=True, curve=tuple(rising(trial))) for trial in policy.trials}
    decision = policy.decide(results(curves.items()))
    assert decision.over
    assert len(decision.stop) == 10_000 - 370


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        (
            lambda: asked(epochs=2),
            "--stop-early halving needs 3 epochs or more, not 2 (--epochs)",
        ),
        (
            lambda: asked(2, optimizers=("adam", "sgd")),
            "--stop-early halving needs 3 configurations or more of an optimizer and schedule, not 2: ask for more, or "
            "leave it out",
        ),
        (
            lambda: Halving(trials=asked(epochs=3).trials + asked(epochs=9).trials),
            "--stop-early halving compares trials of one length, not of 3, 9 epochs: ask for each",
        ),
    ],
)
def test_bad_input(policy: Callable[[], Halving], complaint: str) -> None:
    with pytest.raises(InputError) as error:
        policy()
    assert str(error.value) == complaint

"""Promotion from rung to rung: who goes on, who is stopped and why, and that nothing but the curves decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.policies import Decision, Outcome, Promotion
from sweeps.policies.policy import results
from sweeps.policies.rungs import RULES, promotions
from workloads.errors import InputError
from workloads.trial import TrialConfig

Curve = Callable[[TrialConfig], Sequence[float]]


def asked(
    rates: int = 9,
    seeds: Sequence[int] = (1,),
    epochs: int = 9,
    optimizers: Sequence[str] = ("adam",),
    rule: str = "halving",
    drawn: bool = True,
) -> Promotion:
    return Promotion(
        rule=RULES[rule],
        drawn=drawn,
        trials=tuple(
            TrialConfig(optimizer=optimizer, lr=lr / 10, seed=seed, epochs=epochs)
            for optimizer in optimizers
            for lr in range(1, rates + 1)
            for seed in seeds
        ),
    )


def rising(trial: TrialConfig) -> list[float]:
    """The higher the rate, the better, after every epoch."""
    return [trial.lr * epoch / 100 for epoch in range(1, trial.epochs + 1)]


def falling(trial: TrialConfig) -> list[float]:
    """The higher the rate, the worse, after every epoch."""
    return [-value for value in rising(trial)]


def played(
    policy: Promotion, curve: Curve = rising, known: Mapping[TrialConfig, Outcome] | None = None
) -> list[Decision]:
    """Returns the decisions, what each asks for trained; `known` is stored from before."""
    now, decisions = dict(known or {}), []
    while not decisions or not decisions[-1].over:
        decisions.append(policy.decide(results(now.items())))
        for trial in policy.trials:
            if trial.trial_id in decisions[-1].stop or (trial in now and not now[trial].under_way):
                continue
            until = decisions[-1].until.get(trial.trial_id, trial.epochs)
            now[trial] = reached(trial, curve(trial)[: max(until, len(now[trial].curve) if trial in now else 0)])
    return decisions


def reached(trial: TrialConfig, curve: Sequence[float]) -> Outcome:
    ended = len(curve) == trial.epochs
    return Outcome(value=curve[-1] if ended else None, under_way=not ended, curve=tuple(curve))


def survivors(policy: Promotion, decision: Decision) -> list[float]:
    return [trial.lr for trial in policy.trials if trial.trial_id not in decision.stop]


def test_the_best_third_goes_on() -> None:
    policy = asked()
    *_, last = played(policy, falling)
    assert policy.rungs == (1, 3)
    assert survivors(policy, last) == [0.1]
    assert last.reason == "Went on, of 9 configurations: 3 after epoch 1, 1 after epoch 3."
    assert last.stop[policy.trials[8].trial_id] == "not among the best 3 of 9 at epoch 1"
    assert last.stop[policy.trials[2].trial_id] == "not among the best 1 of 3 at epoch 3"


def test_who_leads_goes_on_while_others_have_not_begun() -> None:
    policy = asked()
    known = {trial: reached(trial, falling(trial)[:1]) for trial in policy.trials[:3]}
    decision = policy.decide(results(known.items()))
    assert [decision.until[trial.trial_id] for trial in policy.trials] == [3, *[1] * 8]
    assert (decision.over, decision.stop, decision.reason) == (False, {}, "")
    # The second is not there: what came after it is not looked at.
    del known[policy.trials[1]]
    known |= {trial: reached(trial, falling(trial)[:1]) for trial in policy.trials[3:]}
    assert set(policy.decide(results(known.items())).until.values()) == {1}


def test_one_who_leads_late_goes_on_too() -> None:
    """Each is better than all before: all are promoted once they are among the best third."""
    policy = asked(epochs=3)
    assert policy.rungs == (1,)
    *_, last = played(policy)
    assert survivors(policy, last) == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(2, 4))
def test_promotions_are_those_of_the_plain_rule(scores: Sequence[int], one_in: int) -> None:
    promoted: set[int] = set()
    for count in range(1, len(scores) + 1):
        promoted |= set(sorted(range(count), key=lambda i: (-scores[i], i))[: count // one_in])
    if scores and not promoted:
        promoted = {scores.index(max(scores))}
    found = promotions(scores, one_in)
    assert set(found) == promoted
    assert len(found) == len(promoted)
    for count in range(len(scores)):
        fewer = promotions(scores[:count], one_in, last=False)
        assert fewer == found[: len(fewer)], "what has been promoted stays promoted, in that order"


def test_grids_come_in_a_mixed_order() -> None:
    """A grid of rising rates, each better than the one before, does not go on as a whole."""
    *_, last = played(asked(30, drawn=False))
    *_, in_order = played(asked(30))
    assert len(in_order.stop) < len(last.stop) < 30


def test_median_compares_running_averages_at_quarters() -> None:
    def late(trial: TrialConfig) -> list[float]:  # the first is best at the rung, and worst before it
        return [0.0, 0.0, 9.0] + [9.0] * 9 if trial.lr == 0.1 else [4.0] * 12

    policy = asked(8, epochs=12, rule="median")
    assert policy.rungs == (3, 6, 9)
    decision = policy.decide(results((trial, reached(trial, late(trial)[:3])) for trial in policy.trials))
    assert policy.trials[0].trial_id in decision.stop
    assert decision.stop[policy.trials[0].trial_id] == "not among the best 4 of 8 at epoch 3"


def test_groups_have_equal_budgets() -> None:
    def better(trial: TrialConfig) -> list[float]:
        return [value + (trial.optimizer == "adam") for value in rising(trial)]

    policy = asked(optimizers=("adam", "sgd"))
    *_, last = played(policy, lambda trial: [-value for value in better(trial)])
    assert [(t.optimizer, t.lr) for t in policy.trials if t.trial_id not in last.stop] == [("adam", 0.1), ("sgd", 0.1)]


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
    assert ahead.without == 36 * 9
    assert 36 + 12 * 2 + 4 * 6 <= ahead.trial_epochs < ahead.most < ahead.without
    # In rising order, 7 of 9 go on, and 5 of those: 2 come before there is a best third.
    assert ahead.most == 4 * (9 + 7 * 2 + 5 * 6)
    assert asked(seeds=(1, 2)).outlook({}).most == 2 * (9 + 7 * 2 + 5 * 6)
    assert "going on: about 13 configurations after epoch 1, about 4 after epoch 3; about 92 " in ahead.said(None)


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(3, 30), st.sampled_from(sorted(RULES)))
def test_no_order_takes_more_than_was_said(random: object, rates: int, rule: str) -> None:
    policy = asked(rates, epochs=12, rule=rule)
    curves = {trial: [random.random() for _ in range(12)] for trial in policy.trials}  # type: ignore[attr-defined]
    *_, last = played(policy, curves.__getitem__)
    until = [last.until.get(trial.trial_id, trial.epochs) for trial in policy.trials]
    assert sum(until) <= policy.outlook({}).most


def test_seeds_are_averaged() -> None:
    def lucky(trial: TrialConfig) -> list[float]:
        return [5.0 * (trial.seed == 1) if trial.lr == 0.1 else value + 3 for value in rising(trial)]

    policy = asked(3, seeds=(1, 2), epochs=3)
    *_, last = played(policy, lucky)
    assert len(last.stop) == 4
    assert all("best 1 of 3 at epoch 1" in why for why in last.stop.values())
    assert set(survivors(policy, last)) == {0.3}, "0.1 has a mean of 2.5"


def test_what_diverged_or_failed_does_not_go_on() -> None:
    policy = asked()
    ended = {
        policy.trials[0]: Outcome(value=None, diverged=True),
        policy.trials[1]: Outcome(value=None),
    }
    *_, last = played(policy, falling, ended)
    assert survivors(policy, last) == [0.3]
    nothing = {trial: Outcome(value=None, diverged=True) for trial in policy.trials}
    assert played(policy, known=nothing)[-1].over


def test_equal_ones_go_on_in_order() -> None:
    policy = asked(3, epochs=3)
    *_, last = played(policy, lambda trial: [0.5] * trial.epochs)
    assert survivors(policy, last) == [0.1]


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(3, 12), st.integers(1, 2), st.data(), st.booleans())
def test_what_is_known_already_changes_nothing(
    random: object, rates: int, seeds: int, data: st.DataObject, drawn: bool
) -> None:
    """Killed anywhere, resumed with whatever is stored, in any order: the last decision is the same."""
    policy = asked(rates, seeds=range(seeds), optimizers=("adam", "sgd"), drawn=drawn)
    curves = {trial: [random.random() for _ in range(trial.epochs)] for trial in policy.trials}  # type: ignore[attr-defined]
    expected = played(policy, curves.__getitem__)[-1]
    known = {}
    for trial in data.draw(st.permutations(policy.trials)):
        seen = data.draw(st.integers(0, trial.epochs))
        if seen:
            known[trial] = reached(trial, curves[trial][:seen])
    assert played(policy, curves.__getitem__, known)[-1] == expected


def test_ten_thousand_trials_are_decided_at_once() -> None:
    policy = asked(10_000, epochs=27)
    curves = {trial: Outcome(value=None, under_way=True, curve=tuple(rising(trial))) for trial in policy.trials}
    assert policy.decide(results(curves.items())).over


def test_more_draws_stop_nobody_who_went_on_with_fewer() -> None:
    fewer, more = asked(20), asked(26)
    random = np.random.default_rng(0)
    curves = {trial: random.random(9).tolist() for trial in more.trials}
    assert fewer.rungs == more.rungs
    first, second = (played(policy, curves.__getitem__)[-1] for policy in (fewer, more))
    assert second.stop.keys() & {trial.trial_id for trial in fewer.trials} <= first.stop.keys()


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        (
            lambda: asked(epochs=2),
            "--stop-early halving needs 3 epochs or more, not 2 (--epochs)",
        ),
        (lambda: asked(epochs=1, rule="median"), "--stop-early median needs 2 epochs or more, not 1 (--epochs)"),
        (
            lambda: asked(2, optimizers=("adam", "sgd")),
            "--stop-early halving needs 3 configurations or more of an optimizer and schedule, not 2: ask for more, or "
            "leave it out",
        ),
        (
            lambda: Promotion(trials=asked(epochs=3).trials + asked(epochs=9).trials, rule=RULES["halving"]),
            "--stop-early halving compares trials of one length, not of 3, 9 epochs: ask for each",
        ),
    ],
)
def test_bad_input(policy: Callable[[], Promotion], complaint: str) -> None:
    with pytest.raises(InputError) as error:
        policy()
    assert str(error.value) == complaint

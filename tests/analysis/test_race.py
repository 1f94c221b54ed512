"""A race told again from its stored trials: the course that the policy saw, whatever came of it."""

from dataclasses import replace

import polars as pl
import pytest
from races import Played, Train, noisy, play, racers
from synthetic import handmade_sweep, synthetic_sweep

from analysis.loading import combine, load
from analysis.race import Race
from sweeps import policies
from sweeps.policies.policy import results
from workloads.trial import TrialConfig

SIX = racers(("adam", "sgd", "momentum"), (0.01, 0.1))
MEANS = dict(zip(SIX, (0.900, 0.899, 0.70, 0.80, 0.895, 0.60), strict=True))
GROUPS = ("adam", "adam", "sgd", "sgd", "momentum", "momentum")


def six(train: Train | None = None, rounds: int | None = None, **settings: object) -> Played:
    given = {"seeds": (21, *range(1, 16)), "groups": GROUPS, **settings}
    return play(policies.Race(configurations=SIX, **given), train or noisy(MEANS), rounds=rounds)  # type: ignore[arg-type]


def told(played: Played) -> Race:
    found = played.data.race
    assert found is not None
    return found


def some_diverge(trial: TrialConfig) -> float | None:
    leads_until_the_fifth = (trial.optimizer, trial.lr, trial.seed) == ("adam", 0.01, 4)
    return None if leads_until_the_fifth or trial.optimizer == "sgd" else noisy(MEANS)(trial)


@pytest.mark.parametrize(
    "played",
    [
        pytest.param(lambda: six(), id="to the end of the budget"),
        pytest.param(lambda: six(rounds=1), id="after the first round"),
        pytest.param(lambda: six(rounds=4), id="in the middle"),
        pytest.param(lambda: six(care=0.02, seeds=tuple(range(40))), id="decided with care"),
        pytest.param(lambda: six(some_diverge), id="some diverge, the leader too"),
        pytest.param(lambda: six(level=0.5, start=2), id="other settings"),
        pytest.param(lambda: six(lambda trial: 0.5), id="all the same"),
    ],
)
def test_the_course_is_the_one_that_the_policy_saw(played) -> None:
    race = played()
    seen = race.policy.course(results(race.known), looks=True)
    found = told(race).course
    assert found.standings == seen.standings
    assert found.events == seen.events
    assert found.looks == seen.looks
    assert (found.round, found.leader, found.over, found.decided) == (seen.round, seen.leader, seen.over, seen.decided)
    assert (found.used == seen.used).all()
    assert (found.asked == seen.asked).all()


def test_one_optimizer_races_without_groups() -> None:
    one = racers(("adam",), (0.01, 0.1, 0.2))
    race = play(
        policies.Race(configurations=one, seeds=tuple(range(9))), noisy(dict(zip(one, (0.9, 0.899, 0.5), strict=True)))
    )
    seen = race.policy.course(results(race.known))
    assert told(race).course.used.sum(axis=1).tolist() == seen.used.sum(axis=1).tolist() == [9, 9, 3]


def test_configurations_are_those_of_the_tables() -> None:
    played = six()
    found, trials = told(played), played.data.trials
    assert found.labels == tuple(f"{one.optimizer}, lr {one.lr:g}" for one in SIX)
    by_number = dict(trials.select("configuration", "label").iter_rows())
    assert [by_number[number] for number in found.configurations] == list(found.labels)


def test_what_is_worse_is_worse_than_what_beat_it() -> None:
    # Without a spread the three differences are 0.1, 0.2 and 0.4, so that all are dropped after the first look.
    four = racers(("adam",), (0.1, 0.2, 0.3, 0.4))
    exact = dict(zip(four, (0.5, 0.7, 0.9, 0.8), strict=True))
    nearly = noisy(exact, deviation=1e-5)
    found = told(play(policies.Race(configurations=four, seeds=(1, 2, 3, 4, 5)), nearly))
    assert sorted(found.worse) == [(0, 2), (1, 2), (3, 2)]


def test_what_came_back_is_not_worse() -> None:
    found = told(six(some_diverge))
    back = {one.configuration for one in found.course.events if one.standing == "in question"}
    assert back, "the leader diverges, so what it beat comes back"
    out = {found.labels[found.configurations.index(one)] for one, _ in found.worse}
    assert "adam, lr 0.01" not in out
    assert {found.course.standings[found.configurations.index(one)] for one, _ in found.worse} <= {"worse"}
    assert {found.course.standings[found.configurations.index(other)] for _, other in found.worse} <= {"leads", "worse"}


def test_a_trial_that_was_cancelled_is_still_to_come() -> None:
    played = six(rounds=2)
    asked = told(played).course.asked
    last = played.sweep.spec.trials[0]
    statuses = played.sweep.statuses.with_columns(
        status=pl.when(pl.col("trial_id") == last.trial_id).then(pl.lit("cancelled")).otherwise("status")
    )
    again = combine([(played.sweep.spec, played.sweep.epochs, statuses)]).race
    assert again is not None
    assert again.course.asked[0].tolist() == [True] + [False] * 15, "the first round waits for it"
    assert asked.any(axis=0).tolist() == [False] * 4 + [True] + [False] * 11, "two rounds have ended, of 3 and 4 seeds"


def test_only_a_single_race_is_told() -> None:
    played = six(rounds=2)
    assert synthetic_sweep().data.race is None
    assert combine([played.sweep.parts, synthetic_sweep().parts]).race is None
    other = handmade_sweep({TrialConfig(optimizer="rmsprop", epochs=2): ("completed", (0.5, 0.6))}, "other")
    more = replace(played.sweep.spec, trials=played.sweep.spec.trials + other.spec.trials, race=played.sweep.spec.race)
    epochs, statuses = (
        pl.concat([getattr(played.sweep, kind), getattr(other, kind)]) for kind in ("epochs", "statuses")
    )
    assert combine([(more, epochs, statuses)]).race is None


def test_a_race_from_its_files_has_its_own_decisions_in_order(tmp_path) -> None:
    played = six(rounds=3)
    store = played.write(str(tmp_path))
    earlier = {"policy": "another", "over": True, "reason": "of a question before", "add": "[]", "stop": "{}"}
    store.append_decisions([earlier | {"number": 0}])
    found = load([store.location])
    assert found.decisions["number"].to_list() == [0, 1, 2, 3]
    assert found.decisions["reason"].to_list() == played.decisions["reason"].to_list()
    assert set(found.decisions["policy"]) == {played.policy.policy_id}
    assert load([synthetic_sweep("fixed").write(str(tmp_path)).location]).decisions.height == 0


def test_decisions_of_several_races_follow_one_another() -> None:
    first, second = six(rounds=1), six(rounds=2, care=0.01)
    both = combine(
        [first.sweep.parts, synthetic_sweep().parts, second.sweep.parts],
        decisions=[first.decisions[::-1], first.decisions, second.decisions],
    )
    policy = [first.policy.policy_id] * 2 + [second.policy.policy_id] * 3
    assert list(zip(both.decisions["policy"], both.decisions["number"], strict=True)) == list(
        zip(policy, (0, 1, 0, 1, 2), strict=True)
    )

"""What to ask next: which commands follow from what a sweep found. `tests/test_journeys.py` runs them."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from handmade import Run, handmade
from races import noisy, play, racers

from analysis import commands
from analysis.aggregate import summarise
from analysis.next_steps import next_steps
from sweeps import policies
from workloads.trial import TrialConfig

COMMAND = "python sweeps/optimizers.py --epochs 2"


def test_flags_are_put_in_place_of_those_there_were() -> None:
    command = f"{COMMAND} --more-seeds 2 --lrs 0.1 0.2 --fresh"
    assert commands.with_flag(command, "--more-seeds", "4") == f"{COMMAND} --lrs 0.1 0.2 --fresh --more-seeds 4"
    assert commands.with_flag(COMMAND, "--more-seeds", "4") == f"{COMMAND} --more-seeds 4"
    assert commands.adding(command, "--lrs", "0.2", "0.3") == f"{COMMAND} --more-seeds 2 --fresh --lrs 0.1 0.2 0.3"
    assert commands.values_of("python x.py --lrs=0.1 0.2 --epochs 3", "--lrs") == ["0.1", "0.2"]


CALL = "run(SWEEP, epochs=2, more_lrs='adam=0.1', seeds=(1, 2))"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (commands.with_flag(CALL, "--epochs", "4"), "run(SWEEP, more_lrs='adam=0.1', seeds=(1, 2), epochs=4)"),
        (commands.with_flag(CALL, "--retry-failed"), f"{CALL[:-1]}, retry_failed=True)"),
        (
            commands.adding(CALL, "--more-lrs", "adam=0.1", "sgd=1,2"),
            "run(SWEEP, epochs=2, seeds=(1, 2), more_lrs=('adam=0.1', 'sgd=1,2'))",
        ),
        (commands.values_of(CALL, "--seeds"), ["1", "2"]),
        (commands.values_of(CALL, "--more-lrs"), ["adam=0.1"]),
        (commands.values_of(CALL, "--lrs"), []),
    ],
)
def test_flags_are_the_keywords_of_a_call(found: object, expected: object) -> None:
    assert found == expected


def test_what_was_asked_from_python_is_asked_again_from_python() -> None:
    lowest, *others = trials([0.01, 0.1, 1.0], optimizer="sgd")
    found = handmade({lowest: Run([0.5])} | {trial: Run([0.1]) for trial in others})
    specs = tuple(replace(one, command="run(SWEEP, epochs=1)", library=(lowest,)) for one in found.specs)
    data = replace(found, specs=specs)
    summary = summarise(data)
    assert [step.command for step in next_steps(data, summary, "results/x")][1:] == [
        "run(SWEEP, epochs=1, more_seeds=4)",
        "run(SWEEP, epochs=1, more_lrs='sgd=0.001,0.0001')",
        "Result.load('results/x', everything=True).report",
    ]


@pytest.mark.parametrize("path", ["a b", "it's", "$HOME", "[old]"])
def test_commands_can_be_pasted_into_a_shell(path: str) -> None:
    assert shlex.split(commands.script("analysis/report.py", path))[-1] == path


def steps(runs: Mapping[TrialConfig, Run], **spec: Any) -> list[str]:
    found = handmade(runs)
    data = replace(found, specs=tuple(replace(one, command=COMMAND, **spec) for one in found.specs))
    found_steps = next_steps(data, summarise(data), "results/optimizers")
    return [step.command for step in found_steps if "--decide" not in step.command]


def trials(lrs: Sequence[float], seeds: Sequence[int] = (1,), **fields: Any) -> list[TrialConfig]:
    return [TrialConfig(lr=lr, seed=seed, epochs=1, **fields) for lr in lrs for seed in seeds]


def test_with_few_seeds_there_are_more() -> None:
    one, *others = trials([0.1], range(1, 7))
    assert steps({one: Run([0.5])}) == [f"{COMMAND} --more-seeds 4"]
    assert steps({trial: Run([0.5]) for trial in (one, *others[:2])}) == [f"{COMMAND} --more-seeds 2"]
    assert steps({trial: Run([0.5]) for trial in (one, *others[:4])}) == []


@pytest.mark.parametrize(
    ("lrs", "best", "expected"),
    [
        ((0.0001, 0.001, 0.003, 0.01), 0.01, "adam=0.03,0.1"),
        ((0.0001, 0.001, 0.003, 0.01), 0.0001, "adam=1e-05,1e-06"),
        ((0.1, 0.2), 0.2, "adam=0.4,0.8"),
        ((0.01, 0.1, 1.0), 0.1, None),
    ],
)
def test_beyond_the_end_of_a_grid(lrs: Sequence[float], best: float, expected: str | None) -> None:
    runs = {trial: Run([0.9 if trial.lr == best else 0.5]) for trial in trials(lrs, range(1, 6))}
    assert steps(runs) == ([f"{COMMAND} --more-lrs {expected}"] if expected else [])


def test_what_is_left_what_failed_and_what_else_is_stored() -> None:
    done, left, failed = trials([0.1], range(1, 4))
    runs = {done: Run([0.5]), left: Run([], status="pending"), failed: Run([], status="out_of_memory")}
    everything = f"{commands.script('analysis/report.py', 'results/optimizers')} --all"
    assert steps(runs, library=tuple(trials([0.5]))) == [
        COMMAND,
        f"{COMMAND} --retry-failed",
        f"{COMMAND} --more-seeds 2",
        everything,
    ]


def test_nothing_is_suggested_without_a_command_or_for_several_sweeps() -> None:
    data = handmade({trial: Run([0.5]) for trial in trials([0.1])})
    without = replace(data, specs=tuple(replace(one, command="") for one in data.specs))
    assert next_steps(without, summarise(without), "x") == ()
    several = replace(data, specs=data.specs * 2)
    assert next_steps(several, summarise(several), "x") == ()


def deciding(runs: Mapping[TrialConfig, Run]) -> tuple[str, str] | None:
    data = handmade(runs)
    data = replace(data, specs=tuple(replace(one, command=COMMAND) for one in data.specs))
    found = [step for step in next_steps(data, summarise(data), "x") if "--decide" in step.command]
    return (found[0].command, found[0].reason) if found else None


def test_deciding_is_suggested_with_what_it_takes() -> None:
    """An epoch takes 2.5 s in these sweeps."""
    once = {trial: Run([0.5 + trial.lr]) for trial in trials([0.1, 0.2, 0.3])}
    begin = "decides which is best: 6 trials, about 15 s to begin with, then only seeds that are needed"
    assert deciding(once) == (f"{COMMAND} --decide", begin)
    # Means 0.001 apart, differences that scatter by about 0.003: dozens of seeds.
    close = {0.1: (0.800, 0.806, 0.803), 0.2: (0.804, 0.805, 0.801), 0.3: (0.799, 0.807, 0.803)}
    runs = {trial: Run([close[trial.lr][trial.seed - 1]]) for trial in trials([0.1, 0.2, 0.3], (1, 2, 3))}
    found = deciding(runs)
    assert found is not None
    assert found[1].startswith("decides which is best: 3 of 3 configurations are still in question; ")


def test_what_is_decided_or_cannot_be_is_left_alone() -> None:
    apart = {0.1: (0.800, 0.806, 0.803), 0.2: (0.904, 0.905, 0.901), 0.3: (0.199, 0.207, 0.203)}
    runs = {trial: Run([apart[trial.lr][trial.seed - 1]]) for trial in trials([0.1, 0.2, 0.3], (1, 2, 3))}
    assert deciding(runs) is None
    assert deciding({trial: Run([0.5]) for trial in trials([0.1])}) is None
    left = {trial: Run([0.5]) if trial.lr < 0.2 else Run([], status="pending") for trial in trials([0.1, 0.2])}
    assert deciding(left) is None, "first it is to be finished"


def test_a_race_that_its_budget_ended_goes_on_with_as_many_seeds_as_it_takes() -> None:
    one, other, worse = racers(["adam"], [0.1, 0.2, 0.3])
    train = noisy({one: 0.9, other: 0.899, worse: 0.7})
    data = play(policies.Race(configurations=(one, other, worse), seeds=(1, 2, 3, 4)), train).data
    data = replace(data, specs=(replace(data.specs[0], command=f"{COMMAND} --decide --max-seeds 4"),))
    (first, *_) = next_steps(data, summarise(data), "x")
    assert first.command == f"{COMMAND} --decide --max-seeds 16"
    assert first.reason.startswith("goes on deciding: 2 of 3 configurations are still in question; about ")
    assert first.reason.endswith(" more seeds would tell, 12 at most are allowed: 24 trials")
    careful = play(policies.Race(configurations=(one, other, worse), seeds=(1, 2, 3, 4), care=0.5), train).data
    assert not [step for step in next_steps(careful, summarise(careful), "x") if "deciding" in step.reason]

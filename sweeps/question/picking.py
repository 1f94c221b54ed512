"""From a search to a race: the best configuration of each optimizer and schedule, on seeds that it did not see."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from analysis.race import MOST_SEEDS
from sweeps.policies import Race, Results, configuration_id
from sweeps.question.options import Options
from sweeps.question.race import race_of
from sweeps.question.sweep import Plan, Sweep
from workloads.errors import InputError
from workloads.trial import TrialConfig


def check_picking(planned: Plan, options: Options) -> None:
    """Refuses what makes no sense of `--then-decide`.

    Raises:
        InputError: Something does not.
    """
    if not options.then_decide:
        return
    if options.decide:
        raise InputError(
            "--decide races all configurations, --then-decide only the best of each: leave out one of the two"
        )
    if len({_group(trial) for trial in planned.trials}) < 2:
        raise InputError(
            "--then-decide races the best of each optimizer and schedule, and this question has only one of them: ask "
            "for more, or use --decide"
        )


def picked(trials: Sequence[TrialConfig], known: Results) -> dict[str, float]:
    """Returns the best configuration of each optimizer and schedule -> its mean result over the seeds searched with.

    Args:
        trials: What was searched.
        known: The results; what has none on some seed is not picked.
    """
    seeds: dict[str, list[int]] = {}
    group_of: dict[str, tuple[str, ...]] = {}
    for trial in trials:
        name = configuration_id(trial)
        seeds.setdefault(name, []).append(trial.seed)
        group_of[name] = _group(trial)
    best: dict[tuple[str, ...], tuple[float, str]] = {}
    for name, used in seeds.items():
        values = [known[name][seed].value if seed in known.get(name, {}) else None for seed in used]
        found = [value for value in values if value is not None]
        if len(found) == len(used) and (group_of[name] not in best or fmean(found) > best[group_of[name]][0]):
            best[group_of[name]] = (fmean(found), name)
    return {name: value for value, name in best.values()}


def race_of_picked(sweep: Sweep, options: Options, trials: Sequence[TrialConfig], names: Sequence[str]) -> Race:
    """Returns the race of some configurations on fresh seeds: the smallest from 1 on that the search did not use."""
    used = {trial.seed for trial in trials}
    count = max(2, options.max_seeds or MOST_SEEDS)
    seeds = list(itertools.islice((seed for seed in itertools.count(1) if seed not in used), count))
    chosen = {configuration_id(trial): trial for trial in trials if configuration_id(trial) in set(names)}
    asked = tuple(chosen[name].replace(seed=seed) for name in names for seed in seeds)
    limited = replace(options, max_seeds=count)
    return race_of(sweep, Plan(trials=asked, left_out={}), limited, None, {})


def _group(trial: TrialConfig) -> tuple[str, ...]:
    return trial.workload, trial.optimizer, trial.scheduler

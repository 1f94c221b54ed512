"""From the command line to a race: what is compared, with which seeds, for how long."""

from __future__ import annotations

from analysis.loading import labels
from analysis.race import MOST_SEEDS
from analysis.statistics.rounds import seed_order
from analysis.store import SweepSpec
from sweeps.policies import Race, Results
from sweeps.question.options import Options
from sweeps.question.sweep import Plan, Sweep
from workloads.errors import InputError
from workloads.registry import WORKLOADS, dataset_of, measure_of
from workloads.trial import TrialConfig, configurations_digest


def check_race(planned: Plan, options: Options) -> None:
    """Refuses what makes no sense of `--decide` and its budget.

    Raises:
        InputError: Something does not.
    """
    measure = measure_of(planned.trials[0])
    widest = measure.most - measure.least
    if options.care is not None and not 0 < options.care < widest:
        range_ = "above 0" if widest == float("inf") else f"as a fraction above 0 and below {widest:g} (0.003 is 0.3 %)"
        raise InputError(
            f"--care is the smallest difference in {measure.name} that matters to you, {range_}, not "
            f"{options.care:g}; leave it out if every difference matters"
        )
    if not options.decide:
        for flag, value in (("--hours", options.hours), ("--max-seeds", options.max_seeds)):
            if value is not None and not options.then_decide:
                raise InputError(f"{flag} is a budget of --decide: add --decide, or leave out {flag}")
        return
    if options.hours is not None and not 0 < options.hours < float("inf"):
        raise InputError(f"--hours must be above 0, not {options.hours:g}; leave it out for no limit")
    if any(trial.reorder_from is not None for trial in planned.trials):
        raise InputError("--decide compares trainings from their start: leave out reorder_from, which forks them later")
    if not all(trial.seeded for trial in planned.trials):
        raise InputError(
            "--decide adds seeds, which have no effect on trials with both init_seed and order_seed: leave one out"
        )
    given = len({trial.seed for trial in planned.trials})
    if options.max_seeds is not None and options.max_seeds < max(2, given):
        least = f"{given}, as this question gives {given}" if given > 2 else "2, as one seed says nothing about others"
        raise InputError(f"--max-seeds must be at least {least}, not {options.max_seeds}")
    if len(configurations_of(planned)) < 2:
        raise InputError("--decide needs two configurations or more to decide between, and this question has only one")
    if len(names := sorted({dataset_of(trial).name for trial in planned.trials})) > 1:
        raise InputError(f"--decide compares configurations on one data set, not on {', '.join(names)}: ask for each")


def configurations_of(planned: Plan) -> tuple[TrialConfig, ...]:
    """Returns what is compared: the trials of a plan without their seeds."""
    return tuple(dict.fromkeys(trial.replace(seed=0) for trial in planned.trials))


def race_of(sweep: Sweep, planned: Plan, options: Options, stored: SweepSpec | None, known: Results) -> Race:
    """Returns the race that a question asks for.

    Args:
        sweep: The question.
        planned: Its trials.
        options: How.
        stored: What is stored; if there has been a race of the same configurations, this one goes on with its seeds.
        known: The results that are stored.
    """
    configurations = configurations_of(planned)
    asked = list(dict.fromkeys(trial.seed for trial in planned.trials))
    chosen = asked if set(asked) != set(sweep.seeds) else []
    before = stored.seed_orders.get(configurations_digest(configurations), []) if stored is not None else []
    most = options.max_seeds or max(MOST_SEEDS, len(asked))
    spec = SweepSpec(
        name=options.name,
        question=sweep.question,
        command="",
        trials=configurations,
        datasets={trial.workload: WORKLOADS[trial.workload].dataset for trial in configurations},
        fingerprint={},
    )
    named = labels(spec)
    groups = tuple(_group(trial, configurations) for trial in configurations)
    return Race(
        configurations=configurations,
        seeds=seed_order(
            (seed for by_seed in known.values() for seed in by_seed), most, first=[*chosen, *before], asked=asked
        ),
        groups=groups if len(set(groups)) > 1 else None,
        labels=tuple(named[trial.trial_id] for trial in configurations),
        care=options.care,
        measure=measure_of(planned.trials[0]),
    )


def _group(trial: TrialConfig, configurations: tuple[TrialConfig, ...]) -> str:
    """Returns the name of the optimizer, schedule or both that a question asks the best of."""
    optimizers, schedulers = ({getattr(one, field) for one in configurations} for field in ("optimizer", "scheduler"))
    if len(schedulers) == 1:
        return trial.optimizer
    return trial.scheduler if len(optimizers) == 1 else f"{trial.optimizer} with {trial.scheduler}"

"""From the command line to a policy that stops trials early."""

from __future__ import annotations

from sweeps.policies import Grid, Policy, Promotion
from sweeps.policies.rungs import RULES
from sweeps.question.options import Options
from sweeps.question.sweep import Plan, trial_at
from workloads.errors import InputError
from workloads.trial import TrialConfig


def policy_of(planned: Plan, options: Options) -> Policy:
    """Returns what trains the trials of a question that is no race.

    Raises:
        InputError: There is nothing to stop early.
    """
    rule = None if options.stop_early == "none" else RULES[options.stop_early]
    if planned.search is not None and planned.search.learns:
        base = TrialConfig(test_every_epoch=options.test_every_epoch)
        return planned.search.learning(lambda point: trial_at(point, base), rule)
    if rule is None:
        return Grid(trials=planned.trials)
    return Promotion(trials=planned.trials, rule=rule, drawn=planned.search is not None)


def check_stopping(planned: Plan, options: Options) -> None:
    """Refuses what makes no sense beside `--stop-early`, or beside a sampler that goes by results.

    Raises:
        InputError: Something does not.
    """
    if options.decide and options.stop_early != "none":
        raise InputError(
            "--decide needs the results of whole trials, and --stop-early ends most of them before: leave out one of "
            "the two"
        )
    if planned.search is not None and planned.search.learns and options.decide:
        raise InputError(
            f"--sampler {planned.search.sampler} draws by the results of whole trials, and --decide needs to know all "
            "draws beforehand: leave out one of the two (--then-decide races what a search has found)"
        )

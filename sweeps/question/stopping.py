"""From the command line to a policy that stops trials early."""

from __future__ import annotations

from sweeps.policies import Grid, Policy, Promotion
from sweeps.policies.promotion import RULES
from sweeps.question.options import Options
from sweeps.question.sweep import Plan, trial_at
from workloads.errors import InputError
from workloads.trial import TrialConfig


def policy_of(planned: Plan, options: Options) -> Policy:
    """Returns what trains the trials of a question that is no race.

    Raises:
        InputError: There is nothing to stop early.
    """
    if planned.search is not None and planned.search.learns:
        base = TrialConfig(test_every_epoch=options.test_every_epoch)
        return planned.search.learning(lambda point: trial_at(point, base))
    if options.stop_early == "none":
        return Grid(trials=planned.trials)
    return Promotion(trials=planned.trials, rule=RULES[options.stop_early], drawn=planned.search is not None)


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
    if planned.search is not None and planned.search.learns:
        for flag, given in (("--decide", options.decide), ("--stop-early", options.stop_early != "none")):
            if given:
                sampler = f"--sampler {planned.search.sampler}"
                raise InputError(
                    f"{sampler} draws by the results of whole trials, and {flag} needs to know all draws beforehand: "
                    "leave out one of the two"
                )

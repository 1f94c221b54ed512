"""From the command line to a policy that stops trials early."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sweeps.policies import Grid, Halving, Policy
from sweeps.question.options import Options, StopEarly
from workloads.errors import InputError
from workloads.trial import TrialConfig

POLICIES: Mapping[StopEarly, Callable[[tuple[TrialConfig, ...]], Policy]] = {
    "none": lambda trials: Grid(trials=trials),
    "halving": lambda trials: Halving(trials=trials),
}
"""`--stop-early` -> what trains the trials of a question."""


def policy_of(trials: tuple[TrialConfig, ...], options: Options) -> Policy:
    """Returns what trains the trials of a question that is no race.

    Raises:
        InputError: There is nothing to stop early.
    """
    return POLICIES[options.stop_early](trials)


def check_stopping(options: Options) -> None:
    """Refuses what makes no sense beside `--stop-early`.

    Raises:
        InputError: Something does not.
    """
    if options.decide and options.stop_early != "none":
        raise InputError(
            "--decide needs the results of whole trials, and --stop-early ends most of them before: leave out one of "
            "the two"
        )

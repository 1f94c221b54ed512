"""Draws where results are best so far: the tree-structured Parzen estimator, from Optuna by ask and tell.

Each group (an optimizer with a schedule) begins with a round of draws that depend on nothing, then gets a few more at a
time (Bergstra et al. 2011; Optuna's `TPESampler`). A round is asked for once all of the last one has ended, and told in
the order in which it was asked for: which draws there are is a function of the results, whoever finished first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sweeps.policies.policy import Decision, Results
from workloads.console import counted
from workloads.trial import TrialConfig, configuration_id

if TYPE_CHECKING:  # an optional package
    import optuna

START = 10
"""Draws that each group begins with; the number Optuna begins with too."""
ROUND = 5
"""Draws of a group at a time: more at a time keep more workers busy, and each knows less."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """What gets draws of its own."""

    names: tuple[str, ...]
    """The settings that are drawn."""
    start: tuple[tuple[float, ...], ...]
    """Where the first draws lie: for each setting a place in its range, from 0 to 1."""
    trials: Callable[[Sequence[float]], tuple[TrialConfig, ...]]
    """Places -> the trials there, one for each seed; none where settings make no sense together."""


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """What is still to be drawn."""

    each: int
    """Draws of a group in a round."""
    draws: int
    """Of a group in all."""
    trials: int
    """Of all groups."""

    def said(self, seconds: float | None) -> str:
        """Returns what is still to be drawn, for people."""
        rounds = f"then {self.each} draws of each at a time, where results are best so far, up to {self.draws:,}"
        return f"{rounds}: {counted(self.trials, 'trial')} in all"


@dataclass(frozen=True, kw_only=True)
class Tpe:
    """Trains rounds of draws in each group, each round where the results so far say that more is to be found."""

    groups: tuple[Group, ...]
    draws: int
    """Of each group, in all."""
    seed: int
    """What tells one series of draws from another."""
    policy_id: None = None
    eager: bool = False
    _courses: dict[int, _Course] = field(default_factory=dict, init=False, repr=False, compare=False)

    def decide(self, known: Results) -> Decision:
        """Returns all trials asked for so far and those of the next round, or that there is none."""
        rounds = [self._asked(group, place, known) for place, group in enumerate(self.groups)]
        add = tuple(trial for trials, _ in rounds for trial in trials)
        over = all(whole for _, whole in rounds)
        reason = f"{len(add):,} trials by now: more where the results are best." if known else ""
        return Decision(add=add, over=over, reason=reason)

    def ordered(self, trials: Iterable[TrialConfig]) -> list[TrialConfig]:
        """Returns trials as they come: round by round."""
        return list(trials)

    def to_json(self) -> None:
        """Returns nothing: a report tells from the trials."""

    def outlook(self, known: Results) -> Ahead | None:
        """Returns what is still to be drawn after the first round; None if that is all."""
        if self.draws <= START:
            return None
        seeds = [len(next(filter(None, map(group.trials, group.start)), ())) for group in self.groups]
        return Ahead(each=ROUND, draws=self.draws, trials=self.draws * sum(seeds))

    def _asked(self, group: Group, place: int, known: Results) -> tuple[list[TrialConfig], bool]:
        """Returns the trials that a group has been asked for, and whether those are all.

        What has been told stays told, which saves telling it again at every round, unless a result is another one now.
        """
        course = self._courses.get(place)
        if course is None or not course.agrees(known):
            course = self._courses[place] = _Course(group, self.draws, self.seed)
        with _quiet():
            return course.asked(known)


class _Course:
    """How a group's draws follow from its results.

    Args:
        group: The group.
        draws: In all.
        seed: Of Optuna's sampler.
    """

    def __init__(self, group: Group, draws: int, seed: int) -> None:
        import optuna

        with _quiet():
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=START, multivariate=True, constant_liar=True, seed=seed
            )
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
            unit: optuna.distributions.BaseDistribution = optuna.distributions.FloatDistribution(0.0, 1.0)
            self._distributions = dict.fromkeys(group.names, unit)
            for place in group.start[:draws]:
                self._study.enqueue_trial(dict(zip(group.names, place, strict=True)))
        self._group, self._left = group, draws
        self._told: list[tuple[tuple[TrialConfig, ...], float | None]] = []
        self._batch: list[optuna.Trial] = []
        self._pending: list[tuple[TrialConfig, ...]] = []

    def agrees(self, known: Results) -> bool:
        """Whether all results that were told are still what is known."""
        return all(_value(trials, known) == value for trials, value in self._told)

    def asked(self, known: Results) -> tuple[list[TrialConfig], bool]:
        """Tells what is known and asks for the next round; returns all trials asked for, and whether those are all."""
        while True:
            values = [_value(trials, known) for trials in self._pending]
            if any(value is _PENDING for value in values):
                break
            for one, value in zip(self._batch, values, strict=True):  # in the order they were asked for
                self._study.tell(one, _LOST if value is None else value)
            self._told += zip(self._pending, values, strict=True)
            size = min(self._left, ROUND if self._told else START)
            self._left -= size
            self._batch = [self._study.ask(self._distributions) for _ in range(size)]
            self._pending = [
                self._group.trials([one.params[name] for name in self._group.names]) for one in self._batch
            ]
            if not size:
                break
        found = [*(trials for trials, _ in self._told), *self._pending]
        return [trial for trials in found for trial in trials], not self._left


_PENDING = object()
"""Stands for the value of a draw that has not ended."""
_LOST = -1e300
"""Stands for the value of a draw that diverged or failed: worse than any, and only which is better counts."""


def _value(trials: Sequence[TrialConfig], known: Results) -> Any:
    """Returns the mean result of a draw over its seeds, None if it has none, `_PENDING` while one has not ended."""
    outcomes = [known.get(configuration_id(trial), {}).get(trial.seed) for trial in trials]
    if any(outcome is None for outcome in outcomes):
        return _PENDING
    values = [outcome.value for outcome in outcomes if outcome is not None]
    return fmean(value for value in values if value is not None) if values and None not in values else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna's notes, and that some of its options are experimental, to itself."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)

"""Draws where results are best so far: the tree-structured Parzen estimator, from Optuna by ask and tell.

Each group (an optimizer with a schedule) begins with a round of draws that depend on nothing, then gets a few more at a
time (Bergstra et al. 2011; Optuna's `TPESampler`). A round is asked for once all of the last one has come as far as it
is trained by then, and told in the order in which it was asked for: which draws there are is a function of the results,
whoever finished first. With early stopping, those that pause are told as Optuna's pruned ones, as far as they had come.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from sweeps.policies import rungs
from sweeps.policies.policy import Decision, Outcome, Results
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
    trial_epochs: int
    """Of all trials, as if each trained alone and to its end."""
    stopping: rungs.Ahead | None = None
    """What goes on, if some are stopped early."""

    def said(self, seconds: float | None) -> str:
        """Returns what is still to be drawn, for people."""
        rounds = f"then {self.each} draws of each at a time, where results are best so far, up to {self.draws:,}"
        if self.stopping is not None:
            return f"{rounds}; {self.stopping.said(seconds)}"
        return f"{rounds}: {counted(self.trials, 'trial')}, at most {self.trial_epochs:,} trial-epochs in all"


@dataclass(frozen=True, kw_only=True)
class Tpe:
    """Trains rounds of draws in each group, each round where the results so far say that more is to be found.

    Raises:
        InputError: A rule is given, and there is nothing to stop.
    """

    groups: tuple[Group, ...]
    draws: int
    """Of each group, in all."""
    seed: int
    """What tells one series of draws from another."""
    rule: rungs.Rule | None = None
    """Which go on at rungs; None if all are trained to their end."""
    policy_id: None = None
    eager: bool = True
    _courses: dict[int, _Course] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _ = [self._rungs(group) for group in self.groups]

    def decide(self, known: Results) -> Decision:
        """Returns all trials asked for so far and those of the next rounds, or that there is none."""
        asked = [self._course(place, known).asked(known) for place in range(len(self.groups))]
        add = tuple(trial for one in asked for trial in one.trials)
        return Decision(
            add=add,
            stop=rungs.of_trials(add, (one.climb.stopped for one in asked)),
            until=rungs.of_trials(add, (one.climb.until for one in asked)),
            over=all(one.over for one in asked),
            reason=f"{len(add):,} trials by now: more where the results are best." if known else "",
        )

    def ordered(self, trials: Iterable[TrialConfig]) -> list[TrialConfig]:
        """Returns trials group by group, in the order in which they are drawn."""
        drawn = [trial.trial_id for place in sorted(self._courses) for trial in self._courses[place].trials]
        places = {trial_id: place for place, trial_id in enumerate(drawn)}
        return sorted(trials, key=lambda trial: places.get(trial.trial_id, len(places)))

    def to_json(self) -> None:
        """Returns nothing: a report tells from the trials."""

    def outlook(self, known: Results) -> Ahead | None:
        """Returns what is still to be drawn after the first round; None if that is all and none of it is stopped."""
        if self.draws <= START and self.rule is None:
            return None
        first = [next(filter(None, map(group.trials, group.start)), ()) for group in self.groups]
        each = [(len(trials), trials[0].epochs) for trials in first if trials]
        stopping = None
        if self.rule is not None and each:
            seeds, epochs = each[0]
            sizes = [self.draws] * len(each)
            stopping = rungs.ahead(sizes, seeds, epochs, self.rule, self.rule.rungs(epochs, self.draws))
        return Ahead(
            each=ROUND,
            draws=self.draws,
            trials=self.draws * sum(seeds for seeds, _ in each),
            trial_epochs=self.draws * sum(seeds * epochs for seeds, epochs in each),
            stopping=stopping,
        )

    def _rungs(self, group: Group) -> tuple[int, ...]:
        trials = next(filter(None, map(group.trials, group.start)), ())
        return self.rule.rungs(trials[0].epochs, self.draws) if self.rule is not None and trials else ()

    def _course(self, place: int, known: Results) -> _Course:
        """Returns how a group's draws went so far.

        What has been told stays told, which saves telling it again at every round, unless a result is another one now.
        """
        course = self._courses.get(place)
        if course is None or not course.agrees(known):
            group = self.groups[place]
            course = self._courses[place] = _Course(group, self.draws, self.seed, self.rule, self._rungs(group))
        return course


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a group has been asked for."""

    trials: tuple[TrialConfig, ...]
    climb: rungs.Climb
    over: bool
    """Whether all has been asked for, and nothing more will be stopped."""


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What Optuna was told of a draw."""

    trials: tuple[TrialConfig, ...]
    rung: int | None
    """The epoch at which it paused; None at its end."""
    value: float | None
    """There; None if it diverged or failed."""


class _Course:
    """How a group's draws follow from its results.

    Args:
        group: The group.
        draws: In all.
        seed: Of Optuna's sampler.
        rule: Which go on at rungs, if there are any.
        epochs: The rungs.
    """

    def __init__(self, group: Group, draws: int, seed: int, rule: rungs.Rule | None, epochs: tuple[int, ...]) -> None:
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
        self._rule, self._rungs = rule or next(iter(rungs.RULES.values())), epochs
        self._told: list[_Told] = []
        self._batch: list[optuna.Trial] = []
        self._pending: list[tuple[TrialConfig, ...]] = []

    @property
    def trials(self) -> tuple[TrialConfig, ...]:
        """All that have been asked for, in order."""
        return tuple(trial for draw in (*(told.trials for told in self._told), *self._pending) for trial in draw)

    def agrees(self, known: Results) -> bool:
        """Whether all results that were told are still what is known."""
        return all(_value(told.trials, known, self._rule, told.rung) == told.value for told in self._told)

    def asked(self, known: Results) -> _Asked:
        """Tells what is known, and asks for the next rounds as far as they follow from it."""
        with _quiet():
            while self._go_on(known, climb := self._climb(known)):
                pass
        return _Asked(trials=self.trials, climb=climb, over=not self._left and climb.decided)

    def _climb(self, known: Results) -> rungs.Climb:
        group: dict[str, list[int]] = {}
        for trial in self.trials:
            group.setdefault(configuration_id(trial), []).append(trial.seed)
        return rungs.climb(group, known, self._rule, self._rungs, last=not self._left)

    def _go_on(self, known: Results, climb: rungs.Climb) -> bool:
        """Asks for the next round, if there is one and all has come as far as it is trained by now."""
        if not self._left or not climb.decided or not all(_ended(draw, known, climb.until) for draw in self._pending):
            return False
        for one, draw in zip(self._batch, self._pending, strict=True):  # in the order they were asked for
            rung = climb.until.get(configuration_id(draw[0])) if draw else None
            value = _value(draw, known, self._rule, rung)
            self._tell(one, value, rung)
            self._told.append(_Told(trials=draw, rung=rung, value=value))
        size = min(self._left, ROUND if self._told else START)
        self._left -= size
        self._batch = [self._study.ask(self._distributions) for _ in range(size)]
        self._pending = [self._group.trials([one.params[name] for name in self._group.names]) for one in self._batch]
        return True

    def _tell(self, one: optuna.Trial, value: float | None, rung: int | None) -> None:
        import optuna

        if rung is None or value is None:
            self._study.tell(one, _LOST if value is None else value)
        else:
            one.report(value, rung)
            self._study.tell(one, state=optuna.trial.TrialState.PRUNED)


_LOST = -1e300
"""Stands for the value of a draw that diverged or failed: worse than any, and only which is better counts."""


def _outcomes(trials: Sequence[TrialConfig], known: Results) -> list[Outcome | None]:
    return [known.get(configuration_id(trial), {}).get(trial.seed) for trial in trials]


def _ended(trials: Sequence[TrialConfig], known: Results, until: Mapping[str, int]) -> bool:
    """Whether a draw has come as far as it is trained by now: to a rung, or its end."""
    paused = bool(trials) and configuration_id(trials[0]) in until
    return paused or all(outcome is not None and not outcome.under_way for outcome in _outcomes(trials, known))


def _value(trials: Sequence[TrialConfig], known: Results, rule: rungs.Rule, rung: int | None) -> float | None:
    """Returns the mean result of a draw over its seeds, at a rung or its end; None if it has none."""
    values: list[float | None] = []
    for outcome in _outcomes(trials, known):
        if outcome is None:
            values.append(None)
        elif rung is None:
            values.append(outcome.value)
        else:
            values.append(rule.value(outcome.curve[:rung]) if len(outcome.curve) >= rung else None)
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

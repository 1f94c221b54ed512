"""Rungs: the epochs at which trials pause, and the rule by which only the best are promoted to the next.

The rule of asynchronous successive halving (ASHA; Li et al. 2020, arXiv:1810.05934): a configuration is promoted once
it is among the best third of those that have come to its rung. ASHA takes them as they come, so chance decides too;
here they come in a fixed order, whoever finished first. What is decided at a rung needs the results there and nothing
else, in the order of the configurations: so the first are promoted while later ones have not begun, no worker waits for
a whole rung, and who is promoted is a function of the learning curves.
"""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile
from math import inf
from statistics import fmean, median
from typing import Any, TypeVar

from sweeps.policies.policy import Results
from workloads.console import counted
from workloads.errors import InputError
from workloads.trial import TrialConfig, configuration_id

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which configurations go on."""

    name: str
    """As `--stop-early` takes it."""
    one_in: int
    """One in so many is promoted."""
    rung: Callable[[int, int], int]
    """Epochs of a trial and how many rungs before its end -> the epoch of that rung; none where it is below 1."""
    value: Callable[[Sequence[float]], float]
    """The learning curve up to a rung -> what is compared there, more is better."""

    def rungs(self, epochs: int, configurations: int) -> tuple[int, ...]:
        """Returns the epochs after which configurations are stopped, rising.

        Args:
            epochs: Of a trial.
            configurations: In the largest group; there are no more rungs than it has configurations for.

        Raises:
            InputError: There are too few epochs or configurations for any.
        """
        flag = f"--stop-early {self.name}"
        if self.rung(epochs, 1) < 1:
            least = next(more for more in count(epochs) if self.rung(more, 1) >= 1)
            raise InputError(f"{flag} needs {least} epochs or more, not {epochs} (--epochs)")
        found, left = [epochs], configurations
        while left >= self.one_in and 0 < (rung := self.rung(epochs, len(found))) < found[-1]:
            found.append(rung)
            left //= self.one_in
        if len(found) == 1:
            raise InputError(
                f"{flag} needs {self.one_in} configurations or more of an optimizer and schedule, not "
                f"{configurations}: ask for more, or leave it out"
            )
        return tuple(reversed(found[1:]))


RULES: Mapping[str, Rule] = {
    row.name: row
    for row in (
        Rule(
            name="halving",
            one_in=3,
            rung=lambda epochs, back: epochs // 3**back,
            value=lambda curve: curve[-1],
        ),
        # Golovin et al. 2017 (Vizier), which compares running averages after every epoch.
        Rule(
            name="median",
            one_in=2,
            rung=lambda epochs, back: epochs * (4 - back) // 4,
            value=fmean,
        ),
    )
}
"""`--stop-early` -> the rule."""

Group = Mapping[str, Sequence[int]]
"""Configurations that are compared with each other, in the order in which they come: `configuration_id` -> seeds."""


@dataclass(frozen=True, kw_only=True)
class Climb:
    """What becomes of a group."""

    until: Mapping[str, int]
    """Configuration -> the rung at which it pauses; the others are trained to their end."""
    stopped: Mapping[str, str]
    """Configuration -> why it goes no further."""
    went_on: tuple[int, ...]
    """How many have gone on from each rung by now."""
    decided: bool
    """Whether all have come as far as they do, but for those that are trained to their end."""


def climb(group: Group, known: Results, rule: Rule, rungs: Sequence[int], *, last: bool = True) -> Climb:
    """Returns how far each configuration of a group is trained, by what is known.

    Args:
        group: The configurations.
        known: All results there are.
        rule: Which go on.
        rungs: The epochs at which they pause, rising.
        last: Whether no more of them will come: then those that are not promoted are stopped.
    """
    until: dict[str, int] = {}
    stopped: dict[str, str] = {}
    went_on = []
    came, all_came = list(group), True
    for rung in rungs:
        there = list(takewhile(partial(_has_come, known, group, rung), came))
        all_came &= len(there) == len(came)
        scores = map(partial(_score, known, group, rule, rung), there)
        promoted = [there[place] for place in promotions(scores, rule.one_in, last=last and all_came)]
        waiting = set(came).difference(promoted)
        until |= dict.fromkeys(waiting, rung)
        if last and all_came:
            best = max(1, len(came) // rule.one_in)
            stopped |= dict.fromkeys(waiting, f"not among the best {best} of {len(came)} at epoch {rung}")
        went_on.append(len(promoted))
        came = promoted
    return Climb(until=until, stopped=stopped, went_on=tuple(went_on), decided=all_came)


def of_trials(trials: Sequence[TrialConfig], of_configurations: Iterable[Mapping[str, Value]]) -> dict[str, Value]:
    """Returns for trials, by id, what climbs say of their configurations; those they say nothing of are left out.

    Args:
        trials: The trials.
        of_configurations: What each climb says: configuration -> value.
    """
    said = {name: value for one in of_configurations for name, value in one.items()}
    named = ((trial.trial_id, configuration_id(trial)) for trial in trials)
    return {trial_id: said[name] for trial_id, name in named if name in said}


def _has_come(known: Results, group: Group, rung: int, name: str) -> bool:
    """Whether all trials of a configuration have come to a rung, or ended before."""
    outcomes = known.get(name, {})
    return all(
        seed in outcomes and (not outcomes[seed].under_way or len(outcomes[seed].curve) >= rung) for seed in group[name]
    )


def _score(known: Results, group: Group, rule: Rule, rung: int, name: str) -> tuple[float, float]:
    """Returns how good a configuration is at a rung: few seeds that diverged, then the mean of the others."""
    outcomes = [known[name][seed] for seed in group[name]]
    values = [rule.value(outcome.curve[:rung]) for outcome in outcomes if len(outcome.curve) >= rung]
    lost = sum(outcome.diverged for outcome in outcomes if len(outcome.curve) < rung)
    return -lost / len(outcomes), fmean(values) if values else -inf


def promotions(scores: Iterable[Any], one_in: int, *, last: bool = True) -> list[int]:
    """Returns which of those that come to a rung are promoted, by place, in the order in which it is decided.

    After each that comes, all are promoted that are among the best of those so far, one in so many.

    Args:
        scores: Theirs, in the order in which they come; more is better, and of equal ones the first is.
        one_in: One in so many is promoted, rounded down.
        last: Whether no more will come: then at least one is promoted.
    """
    ranked: list[tuple[Any, int]] = []  # rising: the best are at the end
    promoted: dict[int, None] = {}
    for place, score in enumerate(scores):
        came = (score, -place)
        insort(ranked, came)
        best = len(ranked) // one_in
        if best:
            bar = ranked[-best]  # new among the best are the one that came, or the last of them, or nobody
            promoted |= {-one[1]: None for one in (bar, came) if one >= bar}
    if last and ranked and not promoted:
        promoted[-ranked[-1][1]] = None
    return list(promoted)


# -- what it costs ---------------------------------------------------------------------------------------------------

SIMULATED = 25
"""In so many orders, the likely cost is worked out."""


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """What is promoted, if no training fails: it depends on the order in which good configurations come."""

    going_on: tuple[tuple[int, int], ...]
    """Epoch of each rung, and how many configurations are likely to go on from it."""
    trial_epochs: int
    """The likely epochs of all trials together, as if each trained alone: the median of random orders."""
    most: int
    """The most they can be."""
    without: int
    """The same, if none was stopped."""

    def said(self, seconds: float | None) -> str:
        """Returns what is likely to go on, for people."""
        (first, many), *further = self.going_on
        rungs = f"about {counted(many, 'configuration')} after epoch {first}"
        rungs += "".join(f", about {some:,} after epoch {rung}" for rung, some in further)
        cost = f"about {counted(self.trial_epochs, 'trial-epoch')} in all, at most {self.most:,}"
        return f"going on: {rungs}; {cost}, instead of {self.without:,}"


def ahead(sizes: Sequence[int], seeds: float, epochs: int, rule: Rule, rungs: Sequence[int]) -> Ahead:
    """Returns what is likely to go on from each rung, and what that takes.

    Args:
        sizes: Configurations of each group.
        seeds: Trials of a configuration.
        epochs: Of a trial.
        rule: Which go on.
        rungs: The epochs at which they pause, rising.
    """

    def simulated(value: Callable[[], float]) -> list[int]:
        """Returns how many go on from each rung if they are worth these values, at every rung the same."""
        counts = [0] * len(rungs)
        for size in sizes:
            came = [value() for _ in range(size)]
            for place in range(len(rungs)):
                came = [came[i] for i in promotions(came, rule.one_in)]
                counts[place] += len(came)
        return counts

    def trial_epochs(going_on: Sequence[int]) -> float:
        spans = [end - start for start, end in zip((0, *rungs), (*rungs, epochs), strict=True)]
        return seeds * sum(span * many for span, many in zip(spans, (sum(sizes), *going_on), strict=True))

    likely = [simulated(random.Random(number).random) for number in range(SIMULATED)]
    rising = simulated(count().__next__)  # each that comes is better than all before
    each_rung = zip(rungs, zip(*likely, strict=True), strict=True)
    return Ahead(
        going_on=tuple((rung, round(median(many))) for rung, many in each_rung),
        trial_epochs=round(median(map(trial_epochs, likely))),
        most=round(trial_epochs(rising)),
        without=round(epochs * seeds * sum(sizes)),
    )

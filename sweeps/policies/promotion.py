"""Early stopping: trials pause at rungs, and only the best of each group are promoted to the next.

The rule of asynchronous successive halving (ASHA; Li et al. 2020, arXiv:1810.05934): a configuration is promoted once
it is among the best third of those that have come to its rung. ASHA takes them as they come, so chance decides too;
here they come in a fixed order, whoever finished first. What is decided at a rung needs the results there and nothing
else, in the order of the configurations: so the first are promoted while later ones have not begun, no worker waits for
a whole rung, and who is promoted is a function of the learning curves. More draws promote all that fewer did, except
for one that was promoted only because its group was too small. Nothing is stored: what is known decides the same again.
"""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count, takewhile
from math import inf
from statistics import fmean, median
from typing import Any

from sweeps.policies.policy import Decision, Outcome, Results
from workloads.console import counted
from workloads.errors import InputError
from workloads.trial import TrialConfig, configuration_id, digest


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which configurations go on."""

    name: str
    """As `--stop-early` takes it."""
    one_in: int
    """One in so many is promoted."""
    best: str
    """Those that are, for people."""
    rung: Callable[[int, int], int]
    """Epochs of a trial and how many rungs before its end -> the epoch of that rung; none where it is below 1."""
    value: Callable[[Sequence[float]], float]
    """The learning curve up to a rung -> what is compared there, more is better."""


RULES: Mapping[str, Rule] = {
    row.name: row
    for row in (
        Rule(
            name="halving",
            one_in=3,
            best="best third",
            rung=lambda epochs, back: epochs // 3**back,
            value=lambda curve: curve[-1],
        ),
        # Golovin et al. 2017 (Vizier), which compares running averages after every epoch.
        Rule(
            name="median",
            one_in=2,
            best="better half",
            rung=lambda epochs, back: epochs * (4 - back) // 4,
            value=fmean,
        ),
    )
}
"""`--stop-early` -> the rule."""
SIMULATED = 25
"""In so many orders, the likely cost is worked out."""

Score = tuple[float, float]


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


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """Trains all its trials to the first rung, and the best of each group on to the next.

    A group is one optimizer with one schedule: groups get equal chances, however slowly one starts.

    Raises:
        InputError: There is nothing to stop.
    """

    trials: tuple[TrialConfig, ...]
    rule: Rule
    drawn: bool = False
    """Whether the trials are in no particular order, as draws are; those of a grid are taken in a mixed one."""
    policy_id: None = None
    eager: bool = True

    def __post_init__(self) -> None:
        flag, lengths = f"--stop-early {self.rule.name}", sorted({trial.epochs for trial in self.trials})
        if len(lengths) > 1:
            raise InputError(
                f"{flag} compares trials of one length, not of {', '.join(map(str, lengths))} epochs: ask for each"
            )
        if self.rule.rung(lengths[0], 1) < 1:
            least = next(epochs for epochs in range(1, 100) if self.rule.rung(epochs, 1) >= 1)
            raise InputError(f"{flag} needs {least} epochs or more, not {lengths[0]} (--epochs)")
        if not self.rungs:
            most = max(map(len, self._groups))
            raise InputError(
                f"{flag} needs {self.rule.one_in} configurations or more of an optimizer and schedule, not {most}: "
                "ask for more, or leave it out"
            )

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(map(configuration_id, self.trials))

    @cached_property
    def _groups(self) -> tuple[tuple[str, ...], ...]:
        """The configurations of each group, in the order in which they come to its first rung."""
        found: dict[tuple[str, str, str], dict[str, None]] = {}
        for trial, name in zip(self.trials, self._names, strict=True):
            found.setdefault((trial.workload, trial.optimizer, trial.scheduler), {})[name] = None
        return tuple(tuple(group) if self.drawn else tuple(sorted(group, key=digest)) for group in found.values())

    @cached_property
    def _seeds(self) -> Mapping[str, list[int]]:
        found: dict[str, list[int]] = {}
        for trial, name in zip(self.trials, self._names, strict=True):
            found.setdefault(name, []).append(trial.seed)
        return found

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which configurations are stopped, rising; no more than a group has configurations for."""
        last, left = self.trials[0].epochs, max(map(len, self._groups))
        found: list[int] = []
        while left >= self.rule.one_in:
            rung = self.rule.rung(self.trials[0].epochs, len(found) + 1)
            if not 0 < rung < last:
                break
            found.append(rung)
            last, left = rung, left // self.rule.one_in
        return tuple(reversed(found))

    def decide(self, known: Results) -> Decision:
        """Returns how far each trial is trained by what is known, and which go no further."""
        until: dict[str, int] = {}
        stopped: dict[str, str] = {}
        went_on = dict.fromkeys(self.rungs, 0)
        over = True
        for group in self._groups:
            over &= self._climb(group, known, until, stopped, went_on)
        told = ", ".join(f"{many:,} after epoch {rung}" for rung, many in went_on.items())
        named = list(zip(self.trials, self._names, strict=True))
        return Decision(
            add=self.trials,
            stop={trial.trial_id: stopped[name] for trial, name in named if name in stopped},
            until={trial.trial_id: until[name] for trial, name in named if name in until},
            over=over,
            reason=f"Of {len(self._seeds):,} configurations went on: {told}." if over else "",
        )

    def _climb(
        self,
        group: Sequence[str],
        known: Results,
        until: dict[str, int],
        stopped: dict[str, str],
        went_on: dict[int, int],
    ) -> bool:
        """Notes what becomes of a group's configurations; returns whether that is all there is to decide."""
        came, all_came = list(group), True
        for rung in self.rungs:
            there = list(takewhile(partial(self._is_at, known, rung), came))
            all_came &= len(there) == len(came)
            scores = [self._score(known, name, rung) for name in there]
            promoted = [there[place] for place in promotions(scores, self.rule.one_in, last=all_came)]
            waiting = set(came).difference(promoted)
            until |= dict.fromkeys(waiting, rung)
            if all_came:
                best = max(1, len(came) // self.rule.one_in)
                stopped |= dict.fromkeys(waiting, f"not among the best {best} of {len(came)} at epoch {rung}")
            went_on[rung] += len(promoted)
            came = promoted
        return all_came

    def ordered(self, trials: Iterable[TrialConfig]) -> list[TrialConfig]:
        """Returns trials as they come: in the order of the question."""
        return list(trials)

    def to_json(self) -> None:
        """Returns nothing: a report tells from the trials' statuses."""

    def outlook(self, known: Results) -> Ahead:
        """Returns what is likely to go on from each rung, and what that takes, whatever is known."""
        likely = [self._simulated(random.Random(number).random) for number in range(SIMULATED)]
        rising = self._simulated(count().__next__)  # each that comes is better than all before
        each_rung = zip(self.rungs, zip(*likely, strict=True), strict=True)
        return Ahead(
            going_on=tuple((rung, round(median(many))) for rung, many in each_rung),
            trial_epochs=round(median(map(self._trial_epochs, likely))),
            most=round(self._trial_epochs(rising)),
            without=self.trials[0].epochs * len(self.trials),
        )

    def _simulated(self, value: Callable[[], float]) -> list[int]:
        """Returns how many go on from each rung if configurations are worth these values, at every rung the same."""
        counts = [0] * len(self.rungs)
        for group in self._groups:
            came = [value() for _ in group]
            for place in range(len(self.rungs)):
                came = [came[i] for i in promotions(came, self.rule.one_in)]
                counts[place] += len(came)
        return counts

    def _trial_epochs(self, going_on: Sequence[int]) -> float:
        """Returns the epochs of all trials together if so many configurations go on from each rung."""
        ends = [*self.rungs, self.trials[0].epochs]
        spans = [end - start for start, end in zip((0, *self.rungs), ends, strict=True)]
        seeds = len(self.trials) / len(self._seeds)
        return seeds * sum(span * many for span, many in zip(spans, (len(self._seeds), *going_on), strict=True))

    def _is_at(self, known: Results, rung: int, name: str) -> bool:
        """Whether all trials of a configuration have come to a rung, or ended before."""
        outcomes = known.get(name, {})
        return all(
            seed in outcomes and (not outcomes[seed].under_way or len(outcomes[seed].curve) >= rung)
            for seed in self._seeds[name]
        )

    def _score(self, known: Results, name: str, rung: int) -> Score:
        """Returns how good a configuration is at a rung: few seeds that diverged, then the mean of the others."""
        outcomes: list[Outcome] = [known[name][seed] for seed in self._seeds[name]]
        values = [self.rule.value(outcome.curve[:rung]) for outcome in outcomes if len(outcome.curve) >= rung]
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

"""Seeds where they are needed: trains on until it is decided which configuration, or which group's best, is best.

All configurations begin with a few seeds. Then, round after round, the next seed goes to those that could still be the
best, until each of them is shown to be worse than the leader, shown to be practically equal to it, or the budget is
spent. How that is found, and how sure it is: `analysis.statistics.rounds`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.statistics.outlook import Outlook, outlook
from analysis.statistics.rounds import START, Course, Event, run
from analysis.statistics.sequences import LEVEL
from sweeps.policies.policy import Decision, Results
from workloads.errors import InputError
from workloads.measure import ACCURACY, Measure, rounded
from workloads.trial import TrialConfig, canonical_json, configuration_id, configurations_digest, digest

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

COLLAPSE = 10.0
"""How many usual deviations below its own median a configuration's result counts as a seed it fails on."""


@dataclass(frozen=True, kw_only=True)
class Race:
    """Gives the next seed to configurations that could still be the best.

    Raises:
        InputError: What is raced cannot be, or a number is out of its range.
    """

    configurations: tuple[TrialConfig, ...]
    """What is compared, whatever their seeds."""
    seeds: tuple[int, ...]
    """In the order in which they are used; as many as a configuration may have at most. Stored with the race: see
    `rounds.seed_order`."""
    groups: tuple[str, ...] | None = None
    """Each configuration's group, if the question is which group's best is best."""
    labels: tuple[str, ...] | None = None
    """Each configuration's name in sentences."""
    care: float | None = None
    """The smallest difference that matters; None if any does."""
    level: float = LEVEL
    """How often the whole race may be wrong."""
    start: int = START
    """Seeds that every configuration begins with."""
    measure: Measure = ACCURACY
    """What the results are, for sentences; the results themselves are given so that more is better."""
    eager: bool = False
    _ids: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ids", tuple(configuration_id(one) for one in self.configurations))
        if len(set(self._ids)) < max(len(self._ids), 2):
            raise InputError("a race needs two configurations or more, no two of them the same")
        for name in ("groups", "labels"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.configurations):
                raise InputError(f"{name}: {len(given)} given for {len(self.configurations)} configurations")
        if len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"a race needs different seeds, not {list(self.seeds)}")
        if len(self.seeds) < 2 or self.start < 2:
            raise InputError("a race needs 2 seeds or more: with one nothing can be said of any other")
        if self.care is not None and not 0 < self.care < np.inf:
            raise InputError(f"the smallest difference that matters must be above 0, not {self.care:g}")
        if not 0 < self.level < 1:
            raise InputError(f"how often a race may be wrong must lie between 0 and 1, not {self.level:g}")

    def decide(self, known: Results) -> Decision:
        """Returns the trials of the next round, or that the race is over; either way what the last round found."""
        course = self.course(known)
        found = tuple(self._sentences(course))
        if course.over:
            return Decision(over=True, reason=" ".join((*found, self._end(course), *self._failing(known))))
        rows, columns = np.nonzero(course.asked)
        add = tuple(
            self.configurations[row].replace(seed=self.seeds[column]) for row, column in zip(rows, columns, strict=True)
        )
        return Decision(add=add, reason=" ".join((*found, self._next(course))))

    def course(self, known: Results, *, looks: bool = False) -> Course:
        """Returns how the race has gone: what `decide` and a report tell of.

        Args:
            known: All results there are; those of other seeds and configurations are not looked at.
            looks: Whether to keep every round's intervals, for a picture.
        """
        groups = None if self.groups is None else np.unique(self.groups, return_inverse=True)[1].tolist()
        table = self._table(known)
        return run(*table, groups, care=self.care, level=self.level, start=self.start, looks=looks)

    def outlook(self, known: Results) -> Outlook:
        """Returns what certainty will cost from here on."""
        epochs = [one.epochs for one in self.configurations]
        return outlook(self.course(known), self._table(known)[0], epochs, self.groups, self.care)

    @property
    def policy_id(self) -> str:
        """A hash of what is compared, and how; not of the budget."""
        return digest(canonical_json([list(self._ids), self.groups, self.care, self.level, self.seeds[: self.start]]))

    def to_json(self) -> dict[str, Any]:
        """Returns the race as plain JSON values, without its configurations, which are those of the sweep."""
        return {
            "policy": self.policy_id,
            "configurations": configurations_digest(self.configurations),
            "seeds": list(self.seeds),
            "level": self.level,
            "start": self.start,
        }

    def ordered(self, trials: Iterable[TrialConfig]) -> list[TrialConfig]:
        """Returns trials by configuration, and the seeds of each in the order in which they are used."""
        row = {name: place for place, name in enumerate(self._ids)}
        column = {seed: place for place, seed in enumerate(self.seeds)}
        last = len(column)
        return sorted(trials, key=lambda t: (row[configuration_id(t)], column.get(t.seed, last), t.seed))

    def collapsed(self, known: Results) -> dict[int, tuple[int, ...]]:
        """Returns configurations that fail on some seeds, and those: results far below what they reach on most.

        What counts as far is `COLLAPSE` times the usual deviation of a pair's differences.
        """
        course = self.course(known)
        values = np.where(course.used, self._table(known)[0], np.nan)
        far = COLLAPSE * course.prior.deviation
        found = {}
        for row in np.flatnonzero((~np.isnan(values)).any(axis=1)) if far > 0 else ():
            low = np.flatnonzero(values[row] < np.nanmedian(values[row]) - far)
            if len(low):
                found[int(row)] = tuple(sorted(self.seeds[place] for place in low))
        return found

    def name(self, one: int) -> str:
        """Returns a configuration's name in sentences."""
        if self.labels is not None:
            return self.labels[one]
        return f"{self.configurations[one].optimizer}, lr {self.configurations[one].lr:g}"

    def _table(self, known: Results) -> tuple[Array, Mask, Mask]:
        """Returns values, which have ended and which diverged, each of shape (configurations, seeds)."""
        shape = (len(self.configurations), len(self.seeds))
        values, ended, diverged = np.full(shape, np.nan), np.zeros(shape, bool), np.zeros(shape, bool)
        column = {seed: place for place, seed in enumerate(self.seeds)}
        for row, name in enumerate(self._ids):
            for seed, outcome in known.get(name, {}).items():
                place = column.get(seed)
                if place is None:
                    continue
                ended[row, place], diverged[row, place] = True, outcome.diverged
                if outcome.value is not None and not outcome.diverged:
                    values[row, place] = outcome.value
        return values, ended, diverged

    def _sentences(self, course: Course) -> list[str]:
        """Returns what the last round found, a sentence for each finding that is about the same."""
        last = [event for event in course.events if event.round == course.round]
        said: dict[tuple[str, int | None], list[Event]] = {}
        for event in last:
            said.setdefault((event.standing, event.against), []).append(event)
        sentences = []
        for (standing, against), events in said.items():
            names = _listed([self.name(event.configuration) for event in events])
            other = "" if against is None else self.name(against)
            sentences.append(_sentence(standing, names, other, events))
        return sentences

    def _next(self, course: Course) -> str:
        asked = int(course.asked.any(axis=1).sum())
        if not course.round:
            start, count = min(self.start, len(self.seeds)), len(self.configurations)
            lacking = "" if asked == count else f"; {asked:,} lack{'s' * (asked == 1)} some"
            return f"{start} seeds for each of {count:,} configurations to begin with{lacking}."
        still = course.standings.count("in question")
        leader = self.name(course.leader) if course.leader is not None else "none"
        could = f"{still + 1:,} of {len(self.configurations):,} could still be the best"
        return f"{could}; {leader} leads."

    def _failing(self, known: Results) -> list[str]:
        """Returns a sentence about configurations that fail on some seeds: their means say little."""
        found = self.collapsed(known)
        if not found:
            return []
        names = [f"{self.name(one)} (seed {', '.join(map(str, seeds))})" for one, seeds in found.items()]
        side = "below" if self.measure.higher_is_better else "above"
        return [f"Far {side} their own median on some seeds: {_listed(names)}."]

    def _end(self, course: Course) -> str:
        if course.leader is None:
            return "No configuration has a result that could be compared."
        leader, seeds = self.name(course.leader), f"{course.round} seeds"
        equal = course.standings.count("practically equal") + course.standings.count("same results")
        if course.decided:
            what = "as good as any" if equal else "the best"
            if self.groups is not None:
                group, alike = self.groups[course.leader], course.standings.count("in question")
                own = f", though which of its {alike + 1} configurations in question is best is not" if alike else ""
                return f"Decided after {seeds}: {leader} is ahead, and {group} is {what}{own}."
            return f"Decided after {seeds}: {leader} is {what}."
        leading = self.groups[course.leader] if self.groups is not None else None
        still = [one for one, standing in enumerate(course.standings) if standing == "in question"]
        others = [one for one in still if self.groups is None or self.groups[one] != leading]
        where = "" if leading is None else " of other groups"
        return f"The budget ends here, {seeds}: {leader} leads, and cannot be told apart from {len(others):,}{where}."


MOST_NAMED = 3
"""Configurations named in a sentence; the others are counted."""


def _sentence(standing: str, names: str, other: str, events: Sequence[Event]) -> str:
    seeds = min(event.n for event in events)
    each = f"{seeds} seeds"
    match standing:
        case "worse":
            smallest = min(event.smallest or 0.0 for event in events)
            behind = min(event.low or 0.0 for event in events)
            if smallest > 0:
                return f"Dropped after {each}, each at least {rounded(smallest)} behind {other}: {names}."
            return f"Dropped after {each}, at least {rounded(behind)} behind {other} on average: {names}."
        case "practically equal":
            most = max(max(abs(event.low or 0.0), abs(event.high or 0.0)) for event in events)
            return f"Within {rounded(most)} of {other} after {each}, which is practically equal: {names}."
        case "same results":
            return f"The same results as {other} on all {each}: {names}."
        case "diverges":
            return f"Dropped, as others diverge on fewer seeds: {names}."
        case "no result":
            return f"Dropped, as no trial gave a result: {names}."
    return f"Back, as what they were dropped because of diverged since: {names}."


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= MOST_NAMED + 1 else [*names[:MOST_NAMED], f"{len(names) - MOST_NAMED:,} more"]
    return "; ".join(shown)

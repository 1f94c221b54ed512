"""Seeds where they are needed: trains on until it is decided which configuration, or which group's best, is best.

All configurations begin with a few seeds. Then, round after round, the next seed goes to those that could still be the
best, until each of them is shown to be worse than the leader, shown to be practically equal to it, or the budget is
spent. What is shown comes from the anytime-valid intervals of paired differences (`analysis.sequences`), so looking
after every seed is allowed for.

How sure the whole race is: a configuration j is dropped wrongly if it is a best one and some i is shown to be better.
Let m configurations not be dropped yet, of k. Each of the k - 1 intervals of a configuration that is still in the race
misses on the side that drops it with a probability of level / (m (k - 1)) at most: so a best configuration is dropped
with at most level / m, and if several are equally good, any of them with at most the level (Holm's argument: as long
as none of the best is dropped, no more than m are best). Dropping the hopeless first makes what remains cheaper to tell
apart, at no risk.

With groups (optimizers, schedules), the question is which group's best is best: it is decided once everything in other
groups is, whatever is open between the leader and others of its own group. Those are raced meanwhile, as the best of
them is what the others have to be behind.

A configuration that diverges on a seed ranks below all that do so on fewer, as in the tables; it is out as soon as it
does. If the leader itself diverges, those that were dropped because of it come back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from analysis.sequences import EQUAL, LEVEL, Spread, intervals, seeds_to_decide, spread, verdicts
from sweeps.policies.policy import Decision, Results, configuration_id
from workloads.errors import InputError
from workloads.trial import TrialConfig

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

START = 3
"""Seeds that every configuration begins with: the fewest that show a spread."""
_CHANGES = 4
"""How often the lead may change in one look: on seeds of their own, three can each be ahead of the next."""
COLLAPSE = 10.0
"""How many usual deviations below its own median a configuration's result counts as a seed it fails on."""

Standing = Literal["leads", "in question", "practically equal", "same results", "worse", "diverges", "no result"]
"""Where a configuration stands: its relation to the leader, but for `worse`, which is to the one that beat it."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a round found about a configuration; indices are those of the race's configurations."""

    round: int
    """Seeds that those still in the race had."""
    configuration: int
    standing: Standing
    against: int | None
    """With which it was compared."""
    n: int = 0
    """Seeds that both have."""
    difference: float | None = None
    """Mean over these seeds of what the other has more."""
    low: float | None = None
    """Lower end of the interval of that; None where there is none, or it excludes nothing."""
    high: float | None = None
    smallest: float | None = None
    """The smallest of these differences."""


@dataclass(kw_only=True)
class Course:
    """How a race has gone so far."""

    round: int
    """Seeds that those still in the race have."""
    leader: int | None
    standings: list[Standing]
    asked: Mask
    """Shape (configurations, seeds): the trials that the next round needs."""
    used: Mask
    """Shape (configurations, seeds): the trials that the rounds so far have looked at."""
    over: bool
    decided: bool
    """Whether everything in question is decided; otherwise it is over because seeds are."""
    events: list[Event]
    """Findings, in order, those of the last round last; a configuration that comes back has an event of its own."""
    looks: list[Event]
    """Each round's intervals of all that were compared: what a picture of the race shows."""
    prior: Spread
    level: float
    """Of an interval, in the last round."""


def run(
    values: Array,
    ended: Mask,
    diverged: Mask,
    groups: Sequence[int] | None = None,
    *,
    care: float | None = None,
    level: float = LEVEL,
    start: int = START,
    looks: bool = False,
) -> Course:
    """Goes through the rounds of a race as far as the results allow.

    Args:
        values: Shape (configurations, seeds), in the order of the race; NaN where there is none.
        ended: The same shape: whether the trial has ended, with a value or without.
        diverged: The same shape: whether it diverged.
        groups: Each configuration's group; None if each is its own.
        care: The smallest difference that matters; None if any does.
        level: How often the race may be wrong.
        start: Seeds of the first round.
        looks: Whether to keep every round's intervals.
    """
    return _Rounds(values, ended, diverged, groups, care, level, start, looks).run()


class _Rounds:
    def __init__(
        self,
        values: Array,
        ended: Mask,
        diverged: Mask,
        groups: Sequence[int] | None,
        care: float | None,
        level: float,
        start: int,
        looks: bool,
    ) -> None:
        self.values, self.ended, self.diverged = values, ended, diverged
        self.count, self.most = values.shape
        self.groups = np.arange(self.count) if groups is None else np.asarray(groups)
        self.care, self.level, self.start, self.keep = care, level, min(start, self.most), looks
        self.alive = np.ones(self.count, dtype=bool)
        self.aside = np.zeros(self.count, dtype=bool)  # decided, as good as the leader: needs no more seeds
        self.resting = np.zeros(self.count, dtype=bool)  # of the leader's group, and behind: not worth a seed now
        self.by = np.full(self.count, -1)  # whom each was dropped because of
        self.standings: list[Standing] = ["in question"] * self.count
        self.leader: int | None = None
        self.pool: npt.NDArray[np.int64] | None = None
        self.events: list[Event] = []
        self.looks: list[Event] = []
        self.used = np.zeros(values.shape, dtype=bool)
        self.prior = Spread()
        self.pair_level = level

    def run(self) -> Course:
        asked = np.zeros(self.values.shape, dtype=bool)
        for number in range(self.start, self.most + 1):
            while True:
                asked[:, :number] = self._wanted()[:, None] & ~self.ended[:, :number]
                if asked.any():
                    return self._course(number - 1 if number > self.start else 0, asked, over=False)
                self.used[:, :number] |= self._wanted()[:, None]
                if not self._look(number):
                    break
            if not self._open().any():
                return self._course(number, asked, over=True)
        return self._course(self.most, asked, over=True)

    def _course(self, number: int, asked: Mask, over: bool) -> Course:
        decided = over and self.leader is not None and not self._open().any()
        return Course(
            round=number,
            leader=self.leader,
            standings=list(self.standings),
            asked=asked,
            used=self.used,
            over=over,
            decided=decided,
            events=self.events,
            looks=self.looks,
            prior=self.prior,
            level=self.pair_level,
        )

    def _wanted(self) -> Mask:
        """Returns which configurations are to have all seeds so far."""
        return self.alive & ~self.aside & ~self.resting

    def _open(self) -> Mask:
        """Returns what has to be decided yet for the race to end."""
        if self.leader is None:
            return np.zeros(self.count, dtype=bool)
        found: Mask = self.alive & ~self.aside & (self.groups != self.groups[self.leader])
        found[self.leader] = False
        return found

    def _look(self, number: int) -> bool:
        """Looks at the first seeds; returns whether others than before need seeds now, so that it has to look again."""
        before = self._wanted()
        self._without_result(number)
        self._diverged(number)
        if np.isnan(self.values[:, :number][self.alive]).all():  # all diverged, or failed
            self.leader = None
            return False
        values = np.where(self.used[:, :number], self.values[:, :number], np.nan)
        self._pool(values)
        assert self.pool is not None
        self.prior = spread(values[self.pool])
        for _ in range(self.count):
            self._lead(values)
            if not self._compare(values, number):
                break
        return bool((self._wanted() & ~before).any())

    def _without_result(self, number: int) -> None:
        for one in np.flatnonzero(self.alive & ~self.aside):
            if not (~np.isnan(self.values[one, :number]) | self.diverged[one, :number]).any():
                self._drop(one, "no result", None, number)

    def _diverged(self, number: int) -> None:
        counts = (self.diverged[:, :number] & self.used[:, :number]).sum(axis=1)
        while self.alive.any():
            fewest = counts[self.alive].min()
            worse = np.flatnonzero(self.alive & (counts > fewest))
            back: list[int] = []
            for one in worse:
                self._drop(one, "diverges", None, number)
                back += [int(other) for other in np.flatnonzero(self.by == int(one)) if counts[other] <= fewest]
            back += self._above(counts, fewest)
            if not back:
                return
            for other in back:
                self.alive[other], self.aside[other], self.by[other] = True, False, -1
                self.standings[other] = "in question"
                self.events.append(Event(round=number, configuration=other, standing="in question", against=None))

    def _above(self, counts: npt.NDArray[np.int64], fewest: int) -> list[int]:
        """Returns those dropped that diverge on fewer seeds than all that are left."""
        return [int(one) for one in np.flatnonzero(~self.alive & (counts < fewest)) if self.standings[one] == "worse"]

    def _drop(
        self, one: int | np.integer[Any], standing: Standing, by: int | None, number: int, **found: float | None
    ) -> None:
        self.alive[one] = self.aside[one] = False
        self.by[one] = -1 if by is None else by
        self.standings[int(one)] = standing
        if self.leader == one:
            self.leader = None
            self.aside[:] = False  # they were as good as that one
        self.events.append(Event(round=number, configuration=int(one), standing=standing, against=by, **found))  # type: ignore[arg-type]

    def _pool(self, values: Array) -> None:
        """Chooses, once, whom to learn the usual deviation from: the best third, whose deviations are alike."""
        if self.pool is None:
            with np.errstate(invalid="ignore"):
                means = _means(values)
            order = np.lexsort((np.arange(self.count), -np.where(np.isnan(means), -np.inf, means)))
            self.pool = order[: max(self.count // 3, 4)]

    def _lead(self, values: Array) -> None:
        """Chooses the leader: the highest mean, but a new one only if it is ahead by more than its standard error."""
        racing = np.flatnonzero(self.alive)
        if self.leader is None:
            means = _means(values[racing])
            common = ~np.isnan(values[racing]).any(axis=0)
            if common.any():
                means = values[racing][:, common].mean(axis=1)
            self.leader = int(racing[np.nanargmax(means)])
            self.aside[:] = False
        for _ in range(_CHANGES):
            assert self.leader is not None
            ahead = values[racing] - values[self.leader]
            n = (~np.isnan(ahead)).sum(axis=1)
            means = _means(ahead)
            with np.errstate(invalid="ignore", divide="ignore"):
                squares = np.where(np.isnan(ahead), 0, (ahead - means[:, None]) ** 2).sum(axis=1)
                squares += self.prior.degrees * self.prior.deviation**2
                error = np.sqrt(squares / (n - 1 + self.prior.degrees) / n)
            error[racing == self.leader] = 0
            lead = np.where(np.isfinite(error), means - error, -np.inf)
            best = int(racing[np.argmax(lead)])
            if lead.max() <= 0:
                break
            self.leader = best
            self.aside[:] = False
        self.resting[:] = False
        behind = racing[means + error < 0]
        self.resting[behind[self.groups[behind] == self.groups[self.leader]]] = True

    def _compare(self, values: Array, number: int) -> bool:
        """Compares the leader with all others; returns whether that has cost it the lead."""
        leader = self.leader
        assert leader is not None
        self.standings[leader] = "leads"
        others = np.flatnonzero(self.alive & ~self.aside)
        others = others[others != leader]
        for one in np.flatnonzero(self.alive):
            if one != leader and self.standings[one] == "leads":
                self.standings[one] = "in question"
        if not len(others):
            return False
        racing = int(self.alive.sum())
        self.pair_level = min(1.0, 2 * self.level / (racing * (self.count - 1))) if racing > 1 else self.level
        differences = values[leader] - values[others]
        low, high = intervals(differences, self.pair_level, self.prior)
        n = (~np.isnan(differences)).sum(axis=1)
        said = verdicts(low, high, self.care)
        alike = (np.where(np.isnan(differences), 0, differences) == 0).all(axis=1) & (n >= START)
        means = _means(differences)
        better = others[(high < 0) & (said != EQUAL)]
        for place, one in enumerate(others):
            found = {
                "n": int(n[place]),
                "difference": _number(means[place]),
                "low": _number(low[place]),
                "high": _number(high[place]),
                "smallest": _number(np.nanmin(differences[place])) if n[place] else None,
            }
            if self.keep:
                self.looks.append(
                    Event(round=number, configuration=int(one), standing="in question", against=leader, **found)  # type: ignore[arg-type]
                )
            if len(better):
                continue
            if alike[place]:
                self._set_aside(one, "same results", number, found)
            elif said[place] == EQUAL:
                self._set_aside(one, "practically equal", number, found)
            elif low[place] > 0:
                self._drop(one, "worse", leader, number, **found)
            else:
                self.standings[one] = "in question"
        if not len(better):
            return False
        place = int(np.flatnonzero(others == better[0])[0])
        found = {
            "n": int(n[place]),
            "difference": _number(-means[place]),
            "low": _number(-high[place]),
            "high": _number(-low[place]),
            "smallest": _number(np.nanmin(-differences[place])),
        }
        self._drop(leader, "worse", int(better[0]), number, **found)
        self.leader = int(better[0])
        return True

    def _set_aside(self, one: int, standing: Standing, number: int, found: Mapping[str, float | None]) -> None:
        self.aside[one] = True
        self.standings[one] = standing
        self.events.append(
            Event(round=number, configuration=int(one), standing=standing, against=self.leader, **found)  # type: ignore[arg-type]
        )


def _means(values: Array) -> Array:
    has = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Array = np.where(has, values, 0.0).sum(axis=1) / has.sum(axis=1)
    return means


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What certainty will cost, if means and deviations stay what they are."""

    in_question: int
    """Configurations that are compared yet, the leader among them."""
    seeds: int | None
    """How many more seeds the last of them needs; None where that cannot be told (equal means, and no care)."""
    trials: int
    """How many more trials that takes, the budget's end included."""
    trial_epochs: int


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
    `seed_order`."""
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
    most_trial_epochs: int | None = None
    """No round begins that would bring the epochs of all the race's trials, known ones included, above this."""
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
            return Decision(over=True, reason=" ".join((*found, self._end(course))))
        rows, columns = np.nonzero(course.asked)
        add = tuple(
            self.configurations[row].replace(seed=self.seeds[column]) for row, column in zip(rows, columns, strict=True)
        )
        if self.most_trial_epochs is not None:
            total = self._trial_epochs(course.used) + sum(trial.epochs for trial in add)
            if total > self.most_trial_epochs:
                short = f"{self.most_trial_epochs:,} trial-epochs are spent but for less than the next round takes"
                return Decision(over=True, reason=" ".join((*found, f"The budget ends here: {short}.")))
        return Decision(add=add, reason=" ".join((*found, self._next(course))))

    def course(self, known: Results, *, looks: bool = False) -> Course:
        """Returns how the race has gone: what `decide` and a report tell of.

        Args:
            known: All results there are; those of other seeds and configurations are not looked at.
            looks: Whether to keep every round's intervals, for a picture.
        """
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
        groups = None if self.groups is None else np.unique(self.groups, return_inverse=True)[1].tolist()
        return run(values, ended, diverged, groups, care=self.care, level=self.level, start=self.start, looks=looks)

    def forecast(self, known: Results) -> Forecast:
        """Returns what certainty will cost from here on."""
        course = self.course(known)
        open_ = [one for one, standing in enumerate(course.standings) if standing == "in question"]
        epochs = [one.epochs for one in self.configurations]
        rows = np.nonzero(course.asked)[0]
        if course.over or course.leader is None or not course.round:
            return Forecast(
                in_question=0 if course.over else len(self.configurations),
                seeds=0 if course.over else None,
                trials=len(rows),
                trial_epochs=sum(epochs[row] for row in rows),
            )
        values = self._values(known)[:, : course.round]
        left = len(self.seeds) - course.round
        further: dict[int, int | None] = {}
        for one in open_:
            differences = values[course.leader] - values[one]
            differences = differences[~np.isnan(differences)]
            deviation = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
            needed = seeds_to_decide(float(differences.mean()), deviation, course.level, self.care, course.prior)
            further[one] = None if needed is None else max(needed - len(differences), 1)
        outside = [one for one in open_ if self.groups is None or self.groups[one] != self.groups[course.leader]]
        longest = max((left + 1 if further[one] is None else further[one] or 0 for one in outside), default=0)
        trials = {one: min(further[one] or left, longest, left) for one in open_}
        trials[course.leader] = min(longest, left)
        known_all = all(further[one] is not None for one in outside)
        return Forecast(
            in_question=len(open_) + 1,
            seeds=longest if known_all else None,
            trials=sum(trials.values()),
            trial_epochs=sum(epochs[one] * count for one, count in trials.items()),
        )

    def collapsed(self, known: Results) -> dict[int, tuple[int, ...]]:
        """Returns configurations that fail on some seeds, and those: results far below what they reach on most.

        What counts as far is `COLLAPSE` times the usual deviation of a pair's differences.
        """
        course = self.course(known)
        values = np.where(course.used, self._values(known), np.nan)
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

    def _values(self, known: Results) -> Array:
        values = np.full((len(self.configurations), len(self.seeds)), np.nan)
        column = {seed: place for place, seed in enumerate(self.seeds)}
        for row, name in enumerate(self._ids):
            for seed, outcome in known.get(name, {}).items():
                if seed in column and outcome.value is not None and not outcome.diverged:
                    values[row, column[seed]] = outcome.value
        return values

    def _trial_epochs(self, used: Mask) -> int:
        return sum(one.epochs * int(count) for one, count in zip(self.configurations, used.sum(axis=1), strict=True))

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
            return f"{min(self.start, len(self.seeds))} seeds for each of {asked:,} configurations to begin with."
        still = course.standings.count("in question")
        leader = self.name(course.leader) if course.leader is not None else "none"
        could = f"{still + 1:,} of {len(self.configurations):,} could still be the best"
        return f"{could}, {leader} leads; the next round trains {int(course.asked.sum()):,} more trials."

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


def seed_order(known: Results, most: int) -> tuple[int, ...]:
    """Returns the seeds of a race in the order in which to use them; to be stored with it when it starts.

    Args:
        known: The results that are there when it starts: seeds that most configurations have come first.
        most: Seeds that a configuration may have at most. A larger number only adds to the end.
    """
    counts = Counter(seed for by_seed in known.values() for seed in by_seed)
    order = sorted(counts, key=lambda seed: (-counts[seed], seed))
    order += [seed for seed in range(1, most + len(order) + 1) if seed not in counts]
    return tuple(order[:most])


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
                return f"Dropped after {each}, each at least {_rounded(smallest)} behind {other}: {names}."
            return f"Dropped after {each}, at least {_rounded(behind)} behind {other} on average: {names}."
        case "practically equal":
            most = max(max(abs(event.low or 0.0), abs(event.high or 0.0)) for event in events)
            return f"Within {_rounded(most)} of {other} after {each}, which is practically equal: {names}."
        case "same results":
            return f"The same results as {other} on all {each}: {names}."
        case "diverges":
            return f"Dropped, as others diverge on fewer seeds: {names}."
        case "no result":
            return f"Dropped, as no trial gave a result: {names}."
    return f"Back, as what they were dropped because of diverged since: {names}."


def _rounded(value: float) -> str:
    return f"{value:.2g}" if value else "0"


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= MOST_NAMED + 1 else [*names[:MOST_NAMED], f"{len(names) - MOST_NAMED:,} more"]
    return "; ".join(shown)

"""How a race between configurations goes: round by round, who is dropped and why, and what the next round needs.

All configurations begin with a few seeds. Then the next seed goes to those that could still be the best, until each of
them is shown to be worse than the leader, shown to be practically equal to it, or seeds run out. What is shown comes
from the anytime-valid intervals of paired differences (`sequences`), so looking after every seed is allowed for.

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from analysis.statistics.sequences import EQUAL, LEVEL, Spread, intervals, pair_level, row_means, spread, verdicts

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

START = 3
"""Seeds that every configuration begins with: the fewest that show a spread."""
_CHANGES = 4
"""How often the lead may change in one look: on seeds of their own, three can each be ahead of the next."""
Standing = Literal["leads", "in question", "practically equal", "same results", "worse", "diverges", "no result"]
"""Where a configuration stands: its relation to the leader, but for `worse`, which is to the one that beat it."""


def seed_order(
    used: Iterable[int], most: int, *, first: Iterable[int] = (), asked: Iterable[int] = ()
) -> tuple[int, ...]:
    """Returns the seeds of a race in the order in which to use them; to be stored with it when it starts.

    Args:
        used: The seed of each result that is there when it starts: those that most configurations have come first.
        most: Seeds that a configuration may have at most. A larger number only adds to the end.
        first: Seeds that come before those.
        asked: Seeds that come after those; then 1, 2, 3, ...
    """
    counts = Counter(used)
    order = dict.fromkeys([*first, *sorted(counts, key=lambda seed: (-counts[seed], seed)), *asked])
    more = [seed for seed in range(1, most + len(order) + 1) if seed not in order]
    return (*order, *more)[:most]


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
        has = (self.diverged[:, :number] | ~np.isnan(self.values[:, :number])).any(axis=1)
        for one in np.flatnonzero(self.alive & ~self.aside & ~has):
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
        above = ~self.alive & (counts < fewest)
        return [int(one) for one in np.flatnonzero(above) if self.standings[one] == "worse"]

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
                means = row_means(values)
            order = np.lexsort((np.arange(self.count), -np.where(np.isnan(means), -np.inf, means)))
            self.pool = order[: max(self.count // 3, 4)]

    def _lead(self, values: Array) -> None:
        """Chooses the leader: the highest mean, but a new one only if it is ahead by more than its standard error."""
        racing = np.flatnonzero(self.alive)
        if self.leader is None:
            means = row_means(values[racing])
            common = ~np.isnan(values[racing]).any(axis=0)
            if common.any():
                means = values[racing][:, common].mean(axis=1)
            self.leader = int(racing[np.nanargmax(means)])
            self.aside[:] = False
        for _ in range(_CHANGES):
            assert self.leader is not None
            ahead = values[racing] - values[self.leader]
            n = (~np.isnan(ahead)).sum(axis=1)
            means = row_means(ahead)
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
        others = np.flatnonzero(self.alive & ~self.aside)
        others = others[others != leader]
        self.standings[leader] = "leads"
        for one in others.tolist():
            self.standings[one] = "in question"
        if not len(others):
            return False
        racing = int(self.alive.sum())
        self.pair_level = pair_level(racing, self.count, self.level)
        differences = values[leader] - values[others]
        low, high = intervals(differences, self.pair_level, self.prior)
        n = (~np.isnan(differences)).sum(axis=1)
        said = verdicts(low, high, self.care)
        same = ((differences == 0) | np.isnan(differences)).all(axis=1) & (n >= START)
        means = row_means(differences)

        def found(place: int, side: int = 1) -> dict[str, Any]:
            ends = (low[place], high[place]) if side > 0 else (-high[place], -low[place])
            return {
                "n": int(n[place]),
                "difference": _number(side * means[place]),
                "low": _number(ends[0]),
                "high": _number(ends[1]),
                "smallest": _number(np.nanmin(side * differences[place])) if n[place] else None,
            }

        if self.keep:
            for place, one in enumerate(others):
                event = Event(
                    round=number, configuration=int(one), standing="in question", against=leader, **found(place)
                )
                self.looks.append(event)
        better = np.flatnonzero((high < 0) & (said != EQUAL)).tolist()
        if better:
            new_leader = int(others[better[0]])
            self._drop(leader, "worse", new_leader, number, **found(better[0], -1))
            self.leader = new_leader
            return True
        equal, worse = said == EQUAL, low > 0
        for place in np.flatnonzero(same | equal | worse).tolist():
            if same[place]:
                self._set_aside(others[place], "same results", number, found(place))
            elif equal[place]:
                self._set_aside(others[place], "practically equal", number, found(place))
            else:
                self._drop(others[place], "worse", leader, number, **found(place))
        return False

    def _set_aside(self, one: int, standing: Standing, number: int, found: Mapping[str, float | None]) -> None:
        self.aside[one] = True
        self.standings[one] = standing
        self.events.append(
            Event(round=number, configuration=int(one), standing=standing, against=self.leader, **found)  # type: ignore[arg-type]
        )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

"""Searches: settings drawn from ranges instead of listed, equally many draws for each combination of what is listed.

A range can be wherever a value can be: `1e-4..0.1`, `log:1e-9..1e-6`. What nothing gives is drawn from the space of the
optimizer's and the schedule's row. Where settings of a schedule are drawn, each draw of the others (the rate, first of
all) gets several of them, and all schedules get the same ones: trials that differ in their schedule share epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.policies.rungs import Rule
from sweeps.policies.tpe import START, Group, Tpe
from sweeps.question.grid import Point
from sweeps.question.samplers import DEFAULT, draw, find_sampler
from workloads.errors import InputError
from workloads.optimizers import OPTIMIZERS
from workloads.registry import WORKLOADS
from workloads.rows import Range, Row
from workloads.schedulers import SCHEDULERS
from workloads.spans import Span, is_range, parse_range
from workloads.trial import Setting, TrialConfig, canonical_json

SCHEDULES_EACH = 4
"""Draws of a schedule's settings for each draw of everything else."""
_MOST_DRAWS = 4
"""So many times as many draws as trials are looked at for different ones."""
TABLES: Mapping[str, Mapping[str, Row]] = {"workload": WORKLOADS, "optimizer": OPTIMIZERS, "scheduler": SCHEDULERS}
"""Kind of row -> the table of its rows."""
FIELD_SPANS: Mapping[str, Span] = {
    "lr": Span(low=1e-8, high=1e8, scale="log"),
    "batch_size": Span(low=1, high=2**20, scale="log", whole=True),
}
"""Fields of a trial that can be drawn -> on which scale, and in which bounds."""


@dataclass(frozen=True)
class Combination:
    """Points that are drawn together: one for each seed."""

    free: Mapping[str, Span]
    """What is drawn."""
    fixed: list[Point]
    """The rest of each."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a question draws its trials.

    Raises:
        InputError: There is no such sampler, or a number is out of range.
    """

    trials: int
    """Draws for every combination of what is listed."""
    sampler: str = DEFAULT
    seed: int = 0
    """What tells one series of draws from another."""
    spaces: dict[tuple[str, str], dict[str, Span]] = field(default_factory=dict)
    """Optimizer and schedule -> axis -> where it was drawn from, as far as points have been expanded."""
    combinations: dict[str, Combination] = field(default_factory=dict)
    """What gets draws of its own, whatever the seed, as far as points have been expanded."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise InputError(f"--trials must be at least 1, not {self.trials}: leave it out for the grid")
        if self.seed < 0:
            raise InputError(f"--sampler-seed must be 0 or more, not {self.seed}")
        find_sampler(self.sampler)

    @property
    def learns(self) -> bool:
        """Whether only the first draws are known beforehand."""
        return find_sampler(self.sampler).learns

    def learning(self, trial_at: Callable[[Point], TrialConfig | None], rule: Rule | None) -> Tpe:
        """Returns the policy that draws on, given the results of the first draws.

        Args:
            trial_at: Point -> its trial; None if its settings make no sense together.
            rule: Which draws go on at rungs; None if all are trained to their end.

        Raises:
            InputError: A rule is given, and there is nothing to stop.
        """

        def group(one: Combination) -> Group:
            def trials(places: Sequence[float]) -> tuple[TrialConfig, ...]:
                spans = zip(one.free.items(), places, strict=True)
                values = {name: span.at(place) for (name, span), place in spans}
                found = (trial_at({**fixed, **values}) for fixed in one.fixed)
                return tuple(trial for trial in found if trial is not None)

            names = tuple(one.free)
            start = draw(self.sampler, self.seed, names, START).tolist() if names else [[]]
            return Group(names=names, start=tuple(map(tuple, start)), trials=trials)

        groups = tuple(map(group, self.combinations.values()))
        return Tpe(groups=groups, draws=self.trials, seed=self.seed, rule=rule)

    def expand(self, point: Point) -> list[Point]:
        """Returns the draws for a combination of what is listed; the point alone if it leaves nothing to draw.

        Raises:
            InputError: A range is none of its setting, or for what cannot be drawn.
        """
        spans = ranges(point)
        known = self.spaces.setdefault((str(point["optimizer"]), str(point["scheduler"])), {})
        known |= {name: _joined(known.get(name, span), span) for name, span in spans.items()}
        epochs = point.get("epochs", TrialConfig().epochs)
        assert isinstance(epochs, int)
        exact = {name: span.over(epochs) for name, span in spans.items()}
        fixed = dict(point) | {name: span.at(0.0) for name, span in exact.items() if span.is_point}
        free = {name: span for name, span in sorted(exact.items()) if not span.is_point}
        key = canonical_json({name: value for name, value in point.items() if name != "seed"})
        self.combinations.setdefault(key, Combination(free, [])).fixed.append(fixed)
        if not free:
            return [fixed]
        if self.learns:
            return [fixed | values for values in self._values(free, min(self.trials, START))]
        # Whole numbers can be drawn twice, and budgets are to be equal: a repeated draw does not count.
        for count in (self.trials, _MOST_DRAWS * self.trials):
            points = [fixed | values for values in self._draws(free, count)]
            different = list({canonical_json(point): point for point in points}.values())
            if len(different) >= self.trials:
                break
        return list(different[: self.trials])

    def _draws(self, free: Mapping[str, Span], count: int) -> list[dict[str, Setting]]:
        below = {name: span for name, span in free.items() if name.startswith("scheduler.")}
        above = {name: span for name, span in free.items() if name not in below}
        each = 1 if not below else SCHEDULES_EACH if above else count
        trunks = self._values(above, -(-count // each))
        branches = self._values(below, count)
        return [trunks[number // each] | branches[number] for number in range(count)]

    def _values(self, spans: Mapping[str, Span], count: int) -> list[dict[str, Setting]]:
        if not spans:
            return [{}] * count
        places = draw(self.sampler, self.seed, list(spans), count)
        return [
            {name: span.at(place) for (name, span), place in zip(spans.items(), row, strict=True)} for row in places
        ]

    def check(self, ranged: Mapping[str, Setting]) -> None:
        """Refuses a search that draws nothing, or a range that nothing is drawn from; to be asked at the end.

        Args:
            ranged: Axis -> the range it was given.

        Raises:
            InputError: It does not draw what was asked for.
        """
        drawn = {name for spans in self.spaces.values() for name in spans}
        if not drawn:
            raise InputError("there is nothing to draw, as every setting has its values: leave out --trials")
        for name, value in ranged.items():
            if name not in drawn:
                kind = name.partition(".")[0]
                rows = dict.fromkeys(key[kind == "scheduler"] for key in self.spaces)
                which = "the workload has" if kind == "workload" else f"{', '.join(rows)} has"
                raise InputError(
                    f"{name}={value} has nothing to be drawn for: {which} no setting {name.partition('.')[2]!r}"
                )

    def to_json(self) -> dict[str, Any]:
        """Returns what a report has to know of it, as plain JSON values."""
        spaces = [
            {
                "optimizer": optimizer,
                "scheduler": scheduler,
                "ranges": {name: span.to_json() for name, span in sorted(spans.items())},
            }
            for (optimizer, scheduler), spans in self.spaces.items()
        ]
        told = {"trials": self.trials, "sampler": self.sampler, "seed": self.seed, "spaces": spaces}
        return told | ({"learns": True} if self.learns else {})


def ranges(point: Point) -> dict[str, Span]:
    """Returns what is drawn for a point: axis -> span; its own ranges, and its rows' for what it does not give.

    Raises:
        InputError: A range is none of its setting, or for what cannot be drawn.
    """
    rows = {kind: table.get(str(point.get(kind, getattr(TrialConfig(), kind)))) for kind, table in TABLES.items()}
    spaces = {
        name if name in FIELD_SPANS else f"{kind}.{name}": span
        for kind, row in rows.items()
        for name, span in (row.space.items() if row else ())
    }
    found = {name: span for name, span in spaces.items() if name not in point}
    for name, value in point.items():
        if is_range(value):
            kind, _, setting = name.partition(".")
            like = spaces.get(name) or FIELD_SPANS.get(name) or _like(name, rows.get(kind))
            if like is not None:
                found[name] = _checked(name, str(value), like, rows.get(kind), setting)
    return found


def _like(name: str, row: Row | None) -> Span | None:
    """Returns a span for a setting that its row has none for, as others have it; None where the row lacks the setting.

    Raises:
        InputError: It is not a number, so that it cannot be drawn.
    """
    kind, _, setting = name.partition(".")
    if not setting:
        raise InputError(f"{name} cannot be drawn from a range, only {', '.join(FIELD_SPANS)} and settings can")
    if row is None or setting not in row.settings:
        return None
    default, allowed = row.settings[setting], row.ranges.get(setting)
    value = default(TrialConfig().epochs) if callable(default) else default
    if isinstance(value, (bool, str, tuple)) or setting in row.choices or (value is None and allowed is None):
        raise InputError(f"{name} is not a number, so it cannot be drawn from a range; list its values")
    whole = isinstance(value, int) or (allowed is not None and allowed.whole)
    usual = Span(low=0, high=1, whole=whole)
    return next((other.space[setting] for other in TABLES[kind].values() if setting in other.space), usual)


def _checked(name: str, text: str, like: Span, row: Row | None, setting: str) -> Span:
    span = parse_range(text, like)
    if (field_span := FIELD_SPANS.get(name)) is not None:
        allowed = Range(at_least=field_span.low, at_most=field_span.high)
    else:
        allowed = row.ranges.get(setting, Range()) if row else Range()
    if span.low not in allowed or span.high not in allowed:
        raise InputError(f"{name} must be a number {allowed}, not in the range {text}")
    return span


def _joined(one: Span, other: Span) -> Span:
    """Returns a span that covers two."""
    if (one.scale, one.whole, one.of_epochs) != (other.scale, other.whole, other.of_epochs):
        return other
    low, high = min(one.low, other.low), max(one.high, other.high)
    return Span(low=low, high=high, scale=one.scale, whole=one.whole, of_epochs=one.of_epochs)


def refuse_ranges(point: Point) -> None:
    """Refuses a range in a question that draws nothing.

    Raises:
        InputError: There is one.
    """
    for name, value in point.items():
        if is_range(value) and name != "workload.path":
            raise InputError(f"{name}={value} is a range: add --trials N to draw from it, or list values")

"""The base class for rows of the three registries: a name, a description and settings with defaults."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from workloads.errors import InputError, did_you_mean
from workloads.spans import Span
from workloads.trial import Setting, Settings

Default = Setting | Callable[[int], Setting]
"""A setting's default: a value, or a function of the number of epochs if a fixed value would do nothing in a short
run."""

Refusals = Mapping[str, Callable[[Mapping[str, Any]], object]]
"""Reason to refuse a combination of settings -> predicate of them, and of `epochs`, those that the row covers, that is
true if it applies."""


class NotApplicableError(InputError):
    """All settings are known and well-formed but make no sense together; such a combination never becomes a trial."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers allowed for a setting: finite and within the given bounds."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    whole: bool = False
    """Whole numbers only; implied if the setting's default is a whole number."""

    def __contains__(self, value: float) -> bool:
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = {
            "of at least": self.at_least,
            "above": self.above,
            "of at most": self.at_most,
            "below": self.below,
        }
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None) or "(finite)"


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One row of a registry."""

    name: str
    """The name used in configurations and on the command line."""
    doc: str
    """One-line description with its source."""
    settings: Mapping[str, Default] = field(default_factory=dict)
    """Setting -> default. No other settings are accepted."""
    choices: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)
    """Setting -> allowed values, if it is not a number."""
    refuses: Refusals = field(default_factory=dict)
    """Combinations of settings that make no sense: a sweep drops and counts them."""
    space: Mapping[str, Span] = field(default_factory=dict)
    """Setting -> where a search draws its values from; settings without a span keep their default."""

    ranges: ClassVar[Mapping[str, Range]] = {}
    """Setting -> allowed numbers, the same for all rows of a registry."""

    def horizon(self, settings: Settings, epochs: int) -> int:
        """Returns the number of epochs the row covers, which its defaults scale with.

        Args:
            settings: A value for each setting whose default does not scale.
            epochs: The trial's number of epochs.

        Raises:
            NotApplicableError: None are left.
        """
        return epochs


R = TypeVar("R", bound=Row)

_TABLES: Mapping[str, str] = {
    "workload": "workloads/registry.py",
    "optimizer": "workloads/optimizers.py",
    "scheduler": "workloads/schedulers.py",
}
"""Kind of row -> the file with its table."""


def find(kind: str, rows: Mapping[str, R], name: str) -> R:
    """Returns the row with that name.

    Raises:
        InputError: The name is unknown; the message lists the known ones.
    """
    if name not in rows:
        hint = did_you_mean(name, rows)
        known = f"known: {', '.join(rows)} (to add one, add a row to {_TABLES[kind]})"
        raise InputError(f"unknown {kind} {name!r}{hint}; {known}")
    return rows[name]


def complete(kind: str, row: Row, given: Settings, epochs: int) -> dict[str, Setting]:
    """Returns a value for every setting of a row: the given ones, and defaults for the rest.

    Args:
        kind: "optimizer", "scheduler" or "workload", for messages.
        row: The row.
        given: Settings given by the user.
        epochs: The trial's number of epochs, which some defaults scale with.

    Raises:
        InputError: A setting is unknown, of the wrong type or out of range.
        NotApplicableError: The combination makes no sense.
    """
    unknown = sorted(set(given) - set(row.settings))
    if unknown:
        known = ", ".join(row.settings) or "none"
        names = ", ".join(f"{name!r}{did_you_mean(name, row.settings)}" for name in unknown)
        raise InputError(f"{kind} {row.name!r} has no setting {names}; it has: {known}")

    def value(name: str, default: Setting) -> Setting:
        return _fitted(kind, row, name, given[name], default) if name in given else default

    settings = {name: value(name, default) for name, default in row.settings.items() if not callable(default)}
    horizon = row.horizon(settings, epochs)
    settings |= {name: value(name, default(horizon)) for name, default in row.settings.items() if callable(default)}
    for reason, applies in row.refuses.items():
        if applies({"epochs": horizon} | settings):
            raise NotApplicableError(f"{kind} {row.name!r}: {reason}")
    return settings


def _fitted(kind: str, row: Row, name: str, value: Setting, default: Setting) -> Setting:
    """Returns a value cast to the type of its default, so that 1 and 1.0 give the same trial id."""
    full_name, allowed = f"{kind}.{name}", row.ranges.get(name, Range())
    if name in row.choices:
        if value in row.choices[name]:
            return value
        choices = ", ".join("null" if choice is None else str(choice) for choice in row.choices[name])
        raise _refused(full_name, f"one of {choices}", value)
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise _refused(full_name, "true or false", value)
    if isinstance(default, str):
        if isinstance(value, str):
            return value
        raise _refused(full_name, "a string", value)
    if isinstance(default, tuple):
        if isinstance(value, tuple) and (value or not default):
            whole = not default or isinstance(default[0], int)
            return tuple(_number(full_name, item, allowed, whole=whole) for item in value)
        raise _refused(full_name, "a list of numbers such as [10,20]", value)
    if default is None and value is None:
        return None
    return _number(full_name, value, allowed, whole=allowed.whole or isinstance(default, int))


def _number(name: str, value: Setting, allowed: Range, *, whole: bool) -> int | float:
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (not whole or float(value).is_integer())
        and value in allowed
    ):
        return int(value) if whole else float(value)
    raise _refused(name, f"{'a whole number' if whole else 'a number'} {allowed}", value)


def _refused(name: str, wanted: str, value: object) -> InputError:
    return InputError(f"{name} must be {wanted}, not {json.dumps(value)}")

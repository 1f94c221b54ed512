"""What the rows of the three registries have in common: a name, a description and settings with defaults."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from workloads.errors import InputError, did_you_mean
from workloads.trial import Setting, Settings

Default = Setting | Callable[[int], Setting]
"""A setting's default: a value, or a function of the row's epochs where a fixed one would not act in a short run."""

Refusals = Mapping[str, Callable[[Mapping[str, Any]], object]]
"""Reason why a combination of settings makes no sense -> whether it does not."""


class NotApplicableError(InputError):
    """The settings are all known and well-formed, but make no sense together; such a combination is never a trial."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that a setting can be: finite, and within all bounds given."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    whole: bool = False
    """Whole numbers only; where a setting has a number as its default, that says so already."""

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


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a registry."""

    name: str
    """How configurations and the command line call it."""
    doc: str
    """One line of description with its source."""
    settings: Mapping[str, Default] = field(default_factory=dict)
    """Setting -> default. These settings, and no others, can be given."""
    choices: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)
    """Setting -> the values it can take, where it is not a number."""
    refuses: Refusals = field(default_factory=dict)
    """The combinations of settings that make no sense: they are left out of a sweep, and counted."""

    ranges: ClassVar[Mapping[str, Range]] = {}
    """Setting -> the numbers it can be, the same in all rows of a registry."""

    def horizon(self, settings: Settings, epochs: int) -> int:
        """Returns how many of a trial's epochs are the row's own: what its defaults scale with.

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
"""Kind of row -> where its table is."""


def find(kind: str, rows: Mapping[str, R], name: str) -> R:
    """Returns the row of that name.

    Raises:
        InputError: There is none; the message lists those there are.
    """
    if name not in rows:
        hint = did_you_mean(name, rows)
        known = f"known: {', '.join(rows)} (a new one is a row in {_TABLES[kind]})"
        raise InputError(f"unknown {kind} {name!r}{hint}; {known}")
    return rows[name]


def complete(kind: str, row: Row, given: Settings, epochs: int) -> dict[str, Setting]:
    """Returns a value for each of a row's settings: those given, defaults for the rest.

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
        if applies(settings):
            raise NotApplicableError(f"{kind} {row.name!r}: {reason}")
    return settings


def _fitted(kind: str, row: Row, name: str, value: Setting, default: Setting) -> Setting:
    """Returns a value in the type of its default, so that 1 and 1.0 are one setting and one trial id."""
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
        raise _refused(full_name, "a text", value)
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

"""What the rows of the three registries have in common: a name, a description and settings with defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from workloads.trial import Setting, Settings

Default = Setting | Callable[[int], Setting]
"""A setting's default: a value, or a function of the number of epochs where a fixed one would not act in a short run."""


class NotApplicableError(ValueError):
    """The settings are all known and well-formed, but make no sense together; such a combination is never a trial."""


def no_objection(settings: Settings) -> str | None:
    """Returns None: every combination of settings makes sense."""
    return None


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
    refuses: Callable[[Settings], str | None] = no_objection
    """Returns why a combination of settings makes no sense, or None when it does."""


R = TypeVar("R", bound=Row)


def find(kind: str, rows: Mapping[str, R], name: str) -> R:
    """Returns the row of that name.

    Raises:
        ValueError: There is none; the message lists those there are.
    """
    if name not in rows:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(rows)} (a new one is a row in workloads/{kind}s.py)")
    return rows[name]


def complete(kind: str, row: Row, given: Settings, epochs: int) -> dict[str, Setting]:
    """Returns a value for each of a row's settings: those given, defaults for the rest.

    Args:
        kind: "optimizer", "scheduler" or "workload", for messages.
        row: The row.
        given: Settings given by the user.
        epochs: The trial's number of epochs, which some defaults scale with.

    Raises:
        ValueError: A setting is unknown or of the wrong type.
        NotApplicableError: The combination makes no sense.
    """
    unknown = sorted(set(given) - set(row.settings))
    if unknown:
        known = ", ".join(row.settings) or "none"
        raise ValueError(f"{kind} {row.name!r} has no setting {', '.join(map(repr, unknown))}; it has: {known}")
    settings: dict[str, Setting] = {}
    for name, default in row.settings.items():
        default = default(epochs) if callable(default) else default
        settings[name] = _fitted(f"{kind}.{name}", given[name], default, row.choices.get(name)) if name in given else default
    objection = row.refuses(settings)
    if objection:
        raise NotApplicableError(f"{kind} {row.name!r}: {objection}")
    return settings


def _fitted(name: str, value: Setting, default: Setting, choices: tuple[Setting, ...] | None) -> Setting:
    """Returns a value in the type of its default, so that 1 and 1.0 are one setting and one trial id."""
    if choices is not None:
        if value in choices:
            return value
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise ValueError(f"{name} must be true or false, not {value!r}")
    if isinstance(default, int):
        if number and isinstance(value, (int, float)) and float(value).is_integer():
            return int(value)
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if isinstance(default, float):
        if number and isinstance(value, (int, float)):
            return float(value)
        raise ValueError(f"{name} must be a number, not {value!r}")
    if isinstance(default, tuple):
        if isinstance(value, tuple) and all(isinstance(item, (int, float)) for item in value):
            return value
        raise ValueError(f"{name} must be a list of numbers such as [10,20], not {value!r}")
    return value

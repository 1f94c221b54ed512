"""The algebra of sweeps: grids of trials from plain values.

A *grid* is a list of points, a point a mapping from axis to value. Axes are the plain fields of a trial (`optimizer`,
`scheduler`, `workload`, `lr`, `batch_size`, `epochs`, `seed`) and settings of the rows they name
(`optimizer.weight_decay`, `scheduler.factor`).

    axis("lr", 0.01, 0.1)                          two points
    product(axis("optimizer", "sgd"), grid)        every pair
    zipped(axis("lr", 0.1, 0.2), axis("batch_size", 64, 128))   side by side
    chain(grid, other)                             one after the other
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence

from workloads.errors import InputError, did_you_mean
from workloads.trial import FIELDS, SETTINGS_OF, Setting, TrialConfig

Point = Mapping[str, Setting]
Grid = list[Point]

AXES = tuple(name for name, role in FIELDS.items() if role.is_axis)
"""Axes that are fields of a trial."""


def axis(name: str, *values: Setting) -> Grid:
    """Returns one point for each value of one axis. Whether there is such an axis is checked when the sweep runs."""
    return [{name: value} for value in values]


def product(*grids: Iterable[Point]) -> Grid:
    """Returns every combination of one point from each grid.

    Raises:
        InputError: Two grids give different values for one axis.
    """
    return [_merged(points) for points in itertools.product(*map(list, grids))]


def zipped(*grids: Iterable[Point]) -> Grid:
    """Returns the first points together, the second points together, and so on.

    Raises:
        InputError: The grids are of different length, or two give different values for one axis.
    """
    lists = [list(grid) for grid in grids]
    if len({len(points) for points in lists}) > 1:
        raise InputError(f"zipped grids must be of equal length, not {[len(points) for points in lists]}")
    return [_merged(points) for points in zip(*lists, strict=True)]


def chain(*grids: Iterable[Point]) -> Grid:
    """Returns all points of the grids, one grid after the other."""
    return [point for grid in grids for point in grid]


def _merged(points: Sequence[Point]) -> Point:
    merged: dict[str, Setting] = {}
    for point in points:
        for name, value in point.items():
            if name in merged and merged[name] != value:
                raise InputError(f"axis {name!r} is given twice: {merged[name]!r} and {value!r}")
            merged[name] = value
    return merged


def check_axis(name: str) -> None:
    """Refuses what is not an axis.

    Raises:
        InputError: There is no such axis; the message lists those there are.
    """
    kind, dot, setting = name.partition(".")
    if name in AXES or (dot and setting and kind in SETTINGS_OF):
        return
    settings = ", ".join(f"{kind}.<setting>" for kind in SETTINGS_OF)
    hint = "" if kind in SETTINGS_OF else did_you_mean(kind, SETTINGS_OF if dot else AXES)
    raise InputError(f"unknown axis {name!r}{hint}; known: {', '.join(AXES)}, {settings}")


def parse_axis(text: str) -> Grid:
    """Returns the axis that a text such as `scheduler.factor=0.1,0.5` names.

    Raises:
        InputError: The text is not of that form, or there is no such axis.
    """
    name, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise InputError(f"a grid axis is written NAME=VALUE,VALUE (e.g. scheduler.factor=0.1,0.5), not {text!r}")
    check_axis(name.strip())
    return axis(name.strip(), *(_parse_value(value, text) for value in _split_values(values)))


def _split_values(text: str) -> list[str]:
    """Returns the parts between commas that are not inside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _parse_value(text: str, whole: str) -> Setting:
    if not text:
        raise InputError(f"a value is empty in {whole!r}")
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        raise InputError(f"a value must be a number, true, false, null, a word or a list of numbers, not {text}")
    setting: Setting = value
    return setting


def to_config(point: Point, base: TrialConfig) -> TrialConfig:
    """Returns the trial that a point describes, on top of a base.

    Raises:
        InputError: A value is out of range.
    """
    fields = {name: value for name, value in point.items() if name in AXES}
    for kind, field in SETTINGS_OF.items():
        given = {name.partition(".")[2]: value for name, value in point.items() if name.startswith(f"{kind}.")}
        fields[field] = {**getattr(base, field), **given}  # type: ignore[assignment]
    return base.replace(**fields)

"""Keywords of Python as options of a sweep, and a question asked from Python as text: `run(SWEEP, more_seeds=4)`."""

from __future__ import annotations

import json
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, replace
from functools import cache
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from analysis.store import without_secrets
from sweeps.question.command import ONCE, CommandLine
from sweeps.question.grid import axis, product
from sweeps.question.options import Options
from sweeps.question.sweep import Sweep
from workloads.errors import InputError, did_you_mean

# -- values -----------------------------------------------------------------------------------------------------------

Convert = Callable[[str, Any], Any]
"""Keyword and what it was given -> the value that `Options` holds; raises `_WrongTypeError` if there is none."""


class _WrongTypeError(Exception):
    """A value is of another type than its keyword takes."""


def _text(name: str, value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return str(os.fspath(value))
    raise _WrongTypeError


def _whole(name: str, value: Any) -> int:
    if _is_switch(value):
        raise _WrongTypeError
    try:
        return operator.index(value)
    except TypeError:
        raise _WrongTypeError from None


def _number(name: str, value: Any) -> float:
    if _is_switch(value) or isinstance(value, (str, bytes)):
        raise _WrongTypeError
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _WrongTypeError from None


def _switch(name: str, value: Any) -> bool:
    if not _is_switch(value):
        raise _WrongTypeError
    return bool(value)


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")  # NumPy's


def _one_of(words: tuple[str, ...]) -> Convert:
    def convert(name: str, value: Any) -> str:
        if value not in words:
            hint = did_you_mean(value, words) if isinstance(value, str) else ""
            raise InputError(f"{name} must be one of {', '.join(map(repr, words))}, not {value!r}{hint}")
        return str(value)

    return convert


def _several(item: Convert) -> Convert:
    """Returns what takes several values, or one alone."""

    def convert(name: str, value: Any) -> tuple[Any, ...]:
        return tuple(item(name, one) for one in _items(value))

    return convert


def _items(value: Any) -> list[Any]:
    if isinstance(value, (str, bytes, os.PathLike, Mapping)) or not isinstance(value, Iterable):
        return [value]
    try:
        return list(value)
    except TypeError:  # an array of no dimension
        return [value]


def _rates(name: str, value: Any) -> tuple[str, ...]:
    """Returns learning rates as `--lrs` takes them: 0.01, "adam=0.001,0.003" and {"adam": (0.001, 0.003)}."""
    if isinstance(value, Mapping):
        return tuple(f"{_text(name, key)}={','.join(_rates(name, rates))}" for key, rates in value.items())
    return tuple(one if isinstance(one, str) else repr(_number(name, one)) for one in _items(value))


def _axes(name: str, value: Any) -> tuple[str, ...]:
    """Returns axes as `--grid` takes them: {"optimizer.weight_decay": (0, 1e-4)}, or made with `axis` and `product`."""
    if isinstance(value, Mapping):
        return tuple(f"{_text(name, key)}={','.join(map(_setting, _settings(v)))}" for key, v in value.items())
    items = _items(value)
    if not items or not all(isinstance(one, Mapping) for one in items):
        return tuple(_text(name, one) for one in items)
    axes = {key: [point.get(key) for point in items] for key in items[0]}
    distinct = {key: [v for i, v in enumerate(values) if v not in values[:i]] for key, values in axes.items()}
    if product(*(axis(key, *values) for key, values in distinct.items())) != items:
        raise InputError("grid takes whole axes; what chain and zipped make is given to the sweep: Sweep(grid=...)")
    return _axes(name, distinct)


def _settings(value: Any) -> list[Any]:
    """Returns the values of an axis."""
    values = _items(value)
    if not values:
        raise _WrongTypeError
    return values


def _setting(value: Any) -> str:
    """Returns a value as `--grid` reads it."""
    value = value.item() if hasattr(value, "item") else value  # NumPy's numbers
    if isinstance(value, str):
        if not value or set(value) & set(",[]"):
            raise InputError(f"a value of grid cannot be empty or have commas or brackets in it, as {value!r} has")
        try:
            json.loads(value)
        except ValueError:
            return value
    if isinstance(value, Mapping) or not isinstance(value, (str, int, float, list, tuple, type(None))):
        raise _WrongTypeError
    return json.dumps(value)


_PLAIN: Mapping[Any, tuple[Convert, str]] = {
    str: (_text, "a text"),
    int: (_whole, "a whole number"),
    float: (_number, "a number"),
    bool: (_switch, "True or False"),
}
"""Type -> what takes it, and its name for people."""
_SPECIAL: Mapping[str, tuple[Convert, str]] = {
    "lrs": (_rates, "learning rates: 0.01, (0.01, 0.1) or {'adam': (0.001, 0.003)}"),
    "more_lrs": (_rates, "learning rates: 0.01, (0.01, 0.1) or {'adam': (0.001, 0.003)}"),
    "grid": (_axes, "axes and their values: {'optimizer.weight_decay': (0, 1e-4)}"),
}
"""Keywords that take more than what `Options` holds."""


def _taking(hint: Any) -> tuple[Convert, str]:
    """Returns what takes a value of a type of `Options`, and its name for people."""
    if get_origin(hint) is tuple:
        one, name = _taking(get_args(hint)[0])
        return _several(one), f"{name} or several"
    if get_origin(hint) is Literal:
        words = get_args(hint)
        return _one_of(words), f"one of {', '.join(map(repr, words))}"
    return _PLAIN[hint]


@cache
def _known() -> dict[str, tuple[Convert, str, bool]]:
    """Returns each keyword: what takes its value, what that is for people, and whether it may be None."""
    found = {}
    for name, hint in get_type_hints(Options).items():
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        (kind,) = [one for one in kinds if one is not type(None)]
        found[name] = (*(_SPECIAL.get(name) or _taking(kind)), len(kinds) > 1)
    return found


def options_of(options: Options, keywords: Mapping[str, Any]) -> Options:
    """Returns options with what keywords say.

    Args:
        options: What to start from.
        keywords: Field of `Options` -> its value, in any natural form: `seeds=1`, `seeds=range(5)`, `lrs=0.01`,
            `lrs={"adam": (0.001, 0.003)}`.

    Raises:
        InputError: A keyword is unknown, or its value is of another type.
    """
    known = _known()
    values: dict[str, Any] = {}
    for name, value in keywords.items():
        if name not in known:
            raise InputError(f"unknown keyword {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
        convert, kind, optional = known[name]
        if value is None and optional:
            values[name] = None
            continue
        try:
            values[name] = convert(name, value)
        except _WrongTypeError:
            raise InputError(f"{name} must be {kind}{' or None' * optional}, not {value!r}") from None
    return replace(options, **values)


# -- texts ------------------------------------------------------------------------------------------------------------


class Call(CommandLine):
    """A question asked from Python.

    Args:
        sweep: What was asked.
        options: How.
        names: The names that the caller knows, to say the sweep by one of them.
    """

    again = "call run again"
    _goes_on, _without_fresh = "run it again to go on", "to go on, leave out fresh=True"

    def __init__(self, sweep: Sweep, options: Options, names: Mapping[str, Any]) -> None:
        super().__init__()
        self._sweep = _name_of(sweep, names) or _stated(sweep, names)
        defaults = sweep.default_options()
        once = {flag.removeprefix("--").replace("-", "_") for flag in ONCE}
        given = {f.name: getattr(options, f.name) for f in fields(Options) if f.name not in once}
        self._given = {name: value for name, value in given.items() if value != getattr(defaults, name)}

    @property
    def command(self) -> str:
        """How to ask the same question again, without credentials, as Python takes it."""
        given = {name: _natural(value) for name, value in self._given.items()}
        return without_secrets(_shown("run", given, self._sweep))

    def said(self, text: str) -> str:
        """Returns a text with the flags of the command line written as keywords."""
        return in_python(text)


def _name_of(value: object, names: Mapping[str, Any]) -> str | None:
    """Returns what the caller calls a value; what begins with an underscore is IPython's: `_`, `_1`."""
    return next((name for name, one in list(names.items()) if one is value and not name.startswith("_")), None)


def _stated(sweep: Sweep, names: Mapping[str, Any]) -> str:
    """Returns a sweep without a name as its caller states it; `...` if it trains a workload without a name."""
    changes = _changes(sweep)
    workloads = [one for one in sweep.workloads if not isinstance(one, str)]
    if not workloads:
        return _shown("Sweep", changes)
    called = [_name_of(one, names) for one in workloads]
    if None in called or len(sweep.workloads) > 1:
        return "..."
    rest = {name: value for name, value in changes.items() if name != "workload"}
    return f"{_shown('Sweep', rest)[:-1]}, workload={called[0]})"


def _shown(function: str, keywords: Mapping[str, Any], *arguments: str) -> str:
    return f"{function}({', '.join([*arguments, *(f'{name}={value!r}' for name, value in keywords.items())])})"


def _changes(sweep: Sweep) -> dict[str, Any]:
    """Returns the fields of a sweep that are not as by default."""
    values = {field.name: (getattr(sweep, field.name), field.default) for field in fields(sweep)}
    return {name: value for name, (value, default) in values.items() if default is MISSING or value != default}


def _natural(value: Any) -> Any:
    """Returns an option's value as a person would write it: one for a tuple of one, numbers as numbers."""
    if not isinstance(value, tuple):
        return value
    values = tuple(map(_as_number, value))
    return values[0] if len(values) == 1 else values


def _as_number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


_VALUE = r"\d+(?:\.\d+)?(?:e-?\d+)?\b|csv:[A-Z]+|auto|tensorboard|mlflow"
_FLAG = re.compile(rf"--(no-)?([a-z][a-z-]*[a-z])(?:[ =]({_VALUE}))?")
"""A flag in a text for people, perhaps with its value."""


def in_python(text: str) -> str:
    """Returns a text with the flags of the command line written as keywords: `--hours 2` as `hours=2`."""
    switches = {name for name, (convert, *_) in _known().items() if convert is _switch}

    def keyword(match: re.Match[str]) -> str:
        no, flag, value = match.groups()
        name = flag.replace("-", "_")
        if name not in _known():
            return match[0]
        if name in switches:
            return f"{name}={not no}{match[0][match[0].index(flag) + len(flag) :]}"
        return name if value is None else f"{name}={value if value[0].isdigit() else repr(value)}"

    return _FLAG.sub(keyword, text)

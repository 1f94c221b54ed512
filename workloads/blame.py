"""Where an error comes from, if it comes from a user's own file: its line, for people."""

from __future__ import annotations

import inspect
import sysconfig
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from workloads.errors import InputError


class OwnCodeError(InputError):
    """A user's own file raised an error, or what it gives cannot be used; the cause has the traceback."""


def blamed(error: BaseException, what: str, function: Callable[..., Any] | None = None) -> OwnCodeError:
    """Returns an error in a user's own file as one line: where, what it was doing, what is wrong.

    Args:
        error: What was raised.
        what: What it was doing, e.g. "the network".
        function: The user's function that it was about: where to look if none of its lines is in the traceback.
    """
    place = where(error) or place_of(function)
    found = OwnCodeError(f"{f'{place}: ' if place else ''}{what} raised {said(error)}")
    found.__cause__ = error
    return found


def refused(reason: str, function: Callable[..., Any] | None = None) -> OwnCodeError:
    """Returns that what a user's function gives cannot be used, with the place of the function.

    Args:
        reason: What is wrong, what is allowed.
        function: The user's function; None if it is not known.
    """
    place = place_of(function)
    return OwnCodeError(f"{place}: {reason}" if place else reason)


def said(error: BaseException) -> str:
    """Returns an error in one line, with its type."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def where(error: BaseException) -> str | None:
    """Returns the innermost line of a user's own files in a traceback, e.g. "mine.py, line 12, in build"."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_own(frame.filename):
            return f"{_shown(frame.filename)}, line {frame.lineno}, in {frame.name}"
    return None


def here() -> str | None:
    """Returns the innermost line of a user's own files that is being run, e.g. "mine.py, line 12"."""
    for frame, line in traceback.walk_stack(None):
        if is_own(frame.f_code.co_filename):
            return f"{_shown(frame.f_code.co_filename)}, line {line}"
    return None


def place_of(function: Callable[..., Any] | None) -> str | None:
    """Returns where a user's own function begins, e.g. "mine.py, line 12, build"; None if it is not the user's."""
    place = None if function is None else source_of(function)
    if function is None or place is None or not is_own(place[0]):
        return None
    return f"{_shown(place[0])}, line {place[1]}, {getattr(function, '__name__', 'function')}"


def is_own(file: str) -> bool:
    """Whether a file is a user's own: neither Python's, nor an installed package's, nor ours."""
    if file.startswith("<frozen") or (file.startswith("<") and not file.startswith("<ipython")):
        return False
    return not any(Path(file).is_relative_to(folder) for folder in _others())


@cache
def _others() -> tuple[Path, ...]:
    home = Path(__file__).parents[1]
    installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(home / name for name in ("analysis", "sweeps", "workloads")) + tuple(map(Path, installed))


def _shown(file: str) -> str:
    return Path(file).name


def source_of(function: Callable[..., object]) -> tuple[str, int] | None:
    """Returns the file and line that a function or class begins at; None if that is unknown."""
    try:
        found = inspect.unwrap(function)
        code = getattr(found, "__code__", None)
        if code is not None:
            return str(code.co_filename), int(code.co_firstlineno)
        return str(inspect.getsourcefile(found)), inspect.getsourcelines(found)[1]
    except (TypeError, OSError):
        return None

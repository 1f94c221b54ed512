"""Commands suggested by a report, which can be copied and run in the current folder."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python() -> str:
    """Returns the command that started Python for this process."""
    return sys.orig_argv[0] if sys.orig_argv else "python"


def script(path: str, *arguments: str) -> str:
    """Returns the command that runs a script of the project, e.g. `analysis/report.py`."""
    return shlex.join([python(), shown(ROOT / path), *arguments])


def shown(path: str | Path) -> str:
    """Returns a local path relative to the current folder if it is below it. URIs stay unchanged."""
    text = str(path)
    if "://" in text:
        return text
    relative = os.path.relpath(text)
    return text if relative.startswith(os.pardir) else relative


def with_flag(command: str, flag: str, *values: str) -> str:
    """Returns a command with a flag set to these values."""
    before, _, after = _split(command, flag)
    return shlex.join([*before, *after, flag, *values])


def without_flag(command: str, flag: str) -> str:
    """Returns a command without a flag and its values."""
    before, _, after = _split(command, flag)
    return shlex.join([*before, *after])


def adding(command: str, flag: str, *values: str) -> str:
    """Returns a command with these values added to a flag."""
    before, given, after = _split(command, flag)
    return shlex.join([*before, *after, flag, *dict.fromkeys([*given, *values])])


def values_of(command: str, flag: str) -> list[str]:
    """Returns the values that a command gives to a flag."""
    return _split(command, flag)[1]


def _split(command: str, flag: str) -> tuple[list[str], list[str], list[str]]:
    """Returns the words before a flag, its values, and the words after it."""
    words: list[str] = []
    for word in shlex.split(command):
        name, equals, value = word.partition("=")
        words += [name, value] if equals and name == flag else [word]
    if flag not in words:
        return words, [], []
    begin = words.index(flag)
    end = next((i for i in range(begin + 1, len(words)) if words[i].startswith("--")), len(words))
    return words[:begin], words[begin + 1 : end], words[end:]

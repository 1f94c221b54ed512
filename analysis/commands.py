"""Commands suggested by a report, which can be copied and run in the current folder.

A question is asked by a command for a shell, or, from Python, by a call such as
`run(SWEEP, epochs=5)`, whose keywords are the flags.
"""

from __future__ import annotations

import ast
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


def module(name: str, *arguments: str) -> str:
    """Returns the command that runs a module of the project, e.g. `sweeps.verify`."""
    return shlex.join([python(), "-m", name, *arguments])


def words(command: str) -> list[str]:
    """Returns the words of a command; none for a call."""
    return [] if is_call(command) else shlex.split(command)


def shown(path: str | Path) -> str:
    """Returns a local path relative to the current folder if it is below it. URIs stay unchanged."""
    text = str(path)
    if "://" in text:
        return text
    relative = os.path.relpath(text)
    return text if relative.startswith(os.pardir) else relative


def with_flag(command: str, flag: str, *values: str) -> str:
    """Returns a command or a call with a flag set to these values."""
    if is_call(command):
        return _with_keyword(command, flag, values)
    before, _, after = _split(command, flag)
    return shlex.join([*before, *after, flag, *values])


def without_flag(command: str, flag: str) -> str:
    """Returns a command or a call without a flag and its values."""
    if is_call(command):
        node = _parsed(command)
        node.keywords = [one for one in node.keywords if one.arg != _keyword(flag)]
        return ast.unparse(node)
    before, _, after = _split(command, flag)
    return shlex.join([*before, *after])


def adding(command: str, flag: str, *values: str) -> str:
    """Returns a command or a call with these values added to a flag."""
    return with_flag(command, flag, *dict.fromkeys([*values_of(command, flag), *values]))


def values_of(command: str, flag: str) -> list[str]:
    """Returns the values that a command or a call gives to a flag."""
    if not is_call(command):
        return _split(command, flag)[1]
    given = [ast.literal_eval(one.value) for one in _parsed(command).keywords if one.arg == _keyword(flag)]
    return [str(value) for one in given for value in (one if isinstance(one, tuple) else (one,))]


def is_call(command: str) -> bool:
    """Whether a question was asked from Python."""
    return command.startswith("run(")


def _parsed(call: str) -> ast.Call:
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    return node


def _keyword(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _with_keyword(call: str, flag: str, values: tuple[str, ...]) -> str:
    node, name = _parsed(call), _keyword(flag)
    texts = [value if _is_number(value) else repr(value) for value in values] or ["True"]
    value = ast.parse(texts[0] if len(texts) == 1 else f"({', '.join(texts)})", mode="eval").body
    node.keywords = [*(one for one in node.keywords if one.arg != name), ast.keyword(name, value)]
    return ast.unparse(node)


def _is_number(text: str) -> bool:
    try:
        return isinstance(ast.literal_eval(text), (int, float))
    except (ValueError, SyntaxError):
        return False


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

"""The command line as text: read with spaces or commas, and said again so that it goes on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from analysis.store import without_secrets

LISTS = ("--seeds", "--lrs", "--more-lrs", "--optimizers", "--schedulers", "--log")
"""Flags of several values, which may stand one after another or with commas between them."""
ONCE = ("--fresh", "--retry-failed", "--plan", "--dashboard", "--traceback")
"""Flags that are about one run: to say them again would delete, repeat or show something again."""


class CommandLine:
    """How a question was asked: the words of a command line, and whether what `--fresh` asks for has been done.

    `sweeps.question.keywords.Call` is the same for a question asked from Python.

    Args:
        words: The command line.
    """

    again = "run the same command"
    """What a person does to ask once more."""
    _goes_on, _without_fresh = "the same command goes on", "to go on, leave out --fresh"

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.words = tuple(words)
        self.started_over = False

    @property
    def command(self) -> str:
        """How to ask the same question again, without credentials."""
        return command(self.words)

    def goes_on(self) -> str:
        """Returns how to go on after the run has stopped."""
        return f"{self._without_fresh}: {self.command}" if self.started_over else self._goes_on

    def said(self, text: str) -> str:
        """Returns a text for people who asked in this way; ours name the flags of the command line."""
        return text


def words_of(arguments: Sequence[str] | None) -> list[str]:
    """Returns the words of a command line; None is the process's own."""
    return list(sys.argv[1:] if arguments is None else arguments)


def spread(words: Sequence[str]) -> list[str]:
    """Returns the words with `--lrs 0.1,0.2` written as `--lrs 0.1 0.2`; `adam=0.1,0.2` stays one word."""
    found: list[str] = []
    inside = False
    for word in words:
        flag, equals, value = word.partition("=")
        if word.startswith("--"):
            inside = flag in LISTS
            found += [flag, *_parts(value)] if inside and equals else [word]
        else:
            found += _parts(word) if inside else [word]
    return found


def _parts(word: str) -> list[str]:
    return [word] if "=" in word else [part for part in word.split(",") if part] or [word]


def command(words: Sequence[str]) -> str:
    """Returns how to ask the same question again, without credentials, as a shell takes it."""
    program = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    return without_secrets(shlex.join([*program, *(word for word in words if word not in ONCE)]))

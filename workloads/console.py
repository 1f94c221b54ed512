"""Shared by all command-line programs: bad input is reported in one line, with exit status 2."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro
from rich.console import Console
from rich.markup import escape

from workloads.errors import InputError

USAGE_ERROR = 2
UNLIMITED = 10_000
"""Console width when the output is not a terminal: longer than any line we print."""

Flags = TypeVar("Flags")


def parse(flags: type[Flags], words: Sequence[str] | None = None, **how: Any) -> Flags:
    """Parses a command line.

    Args:
        flags: The dataclass of the flags.
        words: The command line; None means the process's own.
        how: Further arguments for `tyro.cli`.

    Raises:
        InputError: The command line is invalid.
        SystemExit: It asks for help, which has been printed.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            said: Flags = tyro.cli(flags, args=words, config=(tyro.conf.FlagCreatePairsOff,), **how)
            return said
    except SystemExit as end:
        if not end.code:
            raise
        text = _first_paragraph(complaint.getvalue()).replace("{None}|", "")
        raise InputError(f"{text} (--help explains every flag)") from None


def _first_paragraph(box: str) -> str:
    """Extracts the error from tyro's output, a box with a title, explanations and further boxes."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    # Without box-drawing characters, rules consist of hyphens, and there is one below the title too.
    rules = [not line.strip("─-╭╮╰╯") for line in lines]
    begin = rules.index(False)
    return " ".join(lines[begin : rules.index(True, begin)])


def open_console(*, stderr: bool = False) -> Console:
    """Returns the console a program prints to. Call it only at program start: it changes the streams' error handling.

    If the output is not a terminal, nothing is wrapped (whatever `COLUMNS` says) or redrawn; `FORCE_COLOR` only turns
    colours on. Characters that the stream's encoding lacks become question marks.

    Args:
        stderr: Whether to print to standard error.
    """
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    if stream.isatty():
        return Console(stderr=stderr, soft_wrap=stderr, highlight=False)
    colours = bool(os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")
    return Console(
        stderr=stderr,
        soft_wrap=True,
        highlight=False,
        width=UNLIMITED,
        force_terminal=False,
        color_system="standard" if colours else None,
    )


@contextlib.contextmanager
def complaining() -> Iterator[Console]:
    """Yields the console to print to; bad input ends the program with one line on stderr."""
    complaints = open_console(stderr=True)
    try:
        yield open_console()
    except (InputError, OSError) as error:
        complaints.print(f"[red]error:[/red] {escape(' '.join(str(error).split()))}")
        sys.exit(USAGE_ERROR)


def counted(count: int, noun: str) -> str:
    """Returns a number of things: `1 trial`, `1,000 trials`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Returns a time as people say it: `42 s`, `7 min`, `2 h 05 min`."""
    if seconds is None:
        return "?"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"

"""What command lines have in common: one line says what is wrong, and the program ends with status 2."""

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
"""Characters in a line away from a terminal: more than any line of ours has."""

Flags = TypeVar("Flags")


def parse(flags: type[Flags], words: Sequence[str] | None = None, **how: Any) -> Flags:
    """Returns what a command line says.

    Args:
        flags: The dataclass of its flags.
        words: The command line; None takes the process's own.
        how: What else `tyro.cli` is told.

    Raises:
        InputError: It is not understood.
        SystemExit: It asks for help, which is printed.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            said: Flags = tyro.cli(flags, args=words, **how)
            return said
    except SystemExit as end:
        if not end.code:
            raise
        text = _first_paragraph(complaint.getvalue()).replace("{None}|", "")
        raise InputError(f"{text} (--help explains every flag)") from None


def _first_paragraph(box: str) -> str:
    """Returns what is wrong according to tyro, which says it in a box with a title, explanations and more boxes."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    # Where the terminal has no box characters, a rule is made of hyphens, and there is one below the title too.
    rules = [not line.strip("─-╭╮╰╯") for line in lines]
    begin = rules.index(False)
    return " ".join(lines[begin : rules.index(True, begin)])


def open_console(*, stderr: bool = False) -> Console:
    """Returns where a program prints; for the start of programs only, as it changes how their streams fail.

    Away from a terminal nothing is wrapped, whatever `COLUMNS` says, and nothing is drawn anew, whatever `FORCE_COLOR`
    says: that is about colours. Characters that the stream's encoding lacks become question marks.

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
    """Yields where to print; what a user got wrong ends the program with one line on stderr."""
    complaints = open_console(stderr=True)
    try:
        yield open_console()
    except (InputError, OSError) as error:
        complaints.print(f"[red]error:[/red] {escape(' '.join(str(error).split()))}")
        sys.exit(USAGE_ERROR)

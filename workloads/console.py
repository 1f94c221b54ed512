"""What command lines have in common: one line says what is wrong, and the program ends with status 2."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro
from rich.console import Console
from rich.markup import escape

from workloads.errors import InputError

USAGE_ERROR = 2

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


@contextlib.contextmanager
def complaining() -> Iterator[Console]:
    """Yields where to print; what a user got wrong ends the program with one line on stderr."""
    try:
        yield Console(soft_wrap=not sys.stdout.isatty(), highlight=False)
    except (InputError, OSError) as error:
        complaints = Console(stderr=True, soft_wrap=True, highlight=False)
        complaints.print(f"[red]error:[/red] {escape(' '.join(str(error).split()))}")
        sys.exit(USAGE_ERROR)

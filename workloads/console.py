"""What the commands of this package have in common: they print one line about what is wrong, and exit with status 2."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape

from workloads.datasets import DataError

USAGE_ERROR = 2


@contextlib.contextmanager
def complaining() -> Iterator[Console]:
    """Yields where to print; what a user got wrong ends the program with one line on stderr."""
    try:
        yield Console(soft_wrap=not sys.stdout.isatty(), highlight=False)
    except (ValueError, DataError, OSError) as error:
        complaints = Console(stderr=True, soft_wrap=True, highlight=False)
        complaints.print(f"[red]error:[/red] {escape(' '.join(str(error).split()))}")
        sys.exit(USAGE_ERROR)

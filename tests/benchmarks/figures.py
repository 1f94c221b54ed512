"""Where figures go: `results/<name>.json`, with what they were measured on; and the tables made of them."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as ConsoleTable

from sweeps.ledger.provenance import provenance

FOLDER = Path(__file__).parent / "results"

LOG_WIDTH = 160
"""Characters of a line where there is no terminal."""

Rows = Sequence[Mapping[str, Any]]
"""What a benchmark measured: `measured` in its file."""


@dataclass(frozen=True)
class Table:
    """A table of texts: the first column says what, the others hold figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    """Sentences to go below it."""

    def markdown(self) -> str:
        """Returns the table for a document."""
        rule = ["---", *("---:" for _ in self.columns[1:])]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.columns, rule, *self.rows)]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])

    def show(self) -> None:
        """Prints the table."""
        shown = ConsoleTable(box=box.SIMPLE, pad_edge=False)
        for number, name in enumerate(self.columns):
            shown.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            shown.add_row(*row)
        console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
        console.print(shown)
        for note in self.notes:
            console.print(note)


def write(name: str, arguments: Mapping[str, Any], measured: Iterable[Mapping[str, Any]]) -> None:
    """Writes what a benchmark measured, the arguments it had and the machine it ran on."""
    content = {
        "arguments": dict(arguments),
        "cores": os.cpu_count(),
        "load_average_at_end": os.getloadavg(),
        "provenance": provenance(),
        "measured": [dict(row) for row in measured],
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def read(name: str) -> dict[str, Any] | None:
    """Returns what `write` wrote, or None where it has not been measured."""
    path = FOLDER / f"{name}.json"
    content: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return content


def conditions(content: Mapping[str, Any]) -> str:
    """Returns with which arguments and on what figures were measured, in sentences."""
    made = content["provenance"]
    versions = ", ".join(f"{name} {made['versions'][name]}" for name in ("torch", "ray", "polars"))
    changes = " with uncommitted changes" if made["uncommitted_changes"] else ""
    machine = f"{content['cores']} x {made['machine']['processor']}"
    return (
        f"Measured on {made['started'][:10]} at commit {str(made['commit'])[:7]}{changes}: {machine}, "
        f"Python {made['python']}, {versions}; load average at the end {content['load_average_at_end'][0]:.1f}. "
        f"Arguments: {', '.join(f'{name} {value}' for name, value in content['arguments'].items())}."
    )


def median(rows: Rows, name: str) -> float:
    """Returns the median of a figure."""
    return statistics.median(row[name] for row in rows)

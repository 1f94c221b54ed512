"""Brings the tables of `tests/benchmarks/README.md` up to date with `results/*.json`.

python -m tests.benchmarks.readme
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.benchmarks import (
    analysis_growth,
    early_stopping,
    figures,
    fork_tree,
    growth,
    luck,
    orchestration,
    own_network,
    racing,
    searching,
    training_step,
    whole_sweep,
)
from tests.benchmarks.figures import Rows, Table

README = Path(__file__).with_name("README.md")

TABLES: Mapping[str, Callable[[Rows], Table]] = {
    "early_stopping": early_stopping.table,
    "training_step": training_step.table,
    "own_network": own_network.table,
    **{f"whole_sweep_{name}": whole_sweep.table for name in whole_sweep.SETUPS},
    "orchestration": orchestration.table,
    "growth": growth.table,
    "fork_tree": fork_tree.table,
    "analysis_growth": analysis_growth.table,
    "racing": racing.table,
    "searching": searching.table,
    "luck": luck.table,
}
"""Name of a results file -> the table made of it."""

_MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def section(name: str) -> str:
    """Returns the table of a results file, and on what it was measured."""
    content = figures.read(name)
    if content is None:
        return "Not measured yet.\n"
    return f"\n{TABLES[name](content['measured']).markdown()}\n\n{figures.conditions(content)}\n\n"


def rewritten(text: str) -> str:
    """Returns a document with the tables between its markers up to date."""
    return _MARKED.sub(lambda found: found[1] + section(found[2]) + found[3], text)


def names(text: str) -> list[str]:
    """Returns the results that a document has markers for."""
    return [name for _, name, _ in _MARKED.findall(text)]


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))

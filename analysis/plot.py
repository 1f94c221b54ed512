"""Draws plots of a sweep without the rest of the report.

    python analysis/plot.py results/optimizers [more sweeps ...] --plot accuracy_by_lr seeds

Writes `plots/<name>.png` and `plots/<name>.svg` into the sweep's folder, or those of several sweeps into
a folder of their names beside the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tyro
from rich.markup import escape

from analysis.aggregate import summarise
from analysis.loading import load, output_store
from analysis.plots import draw_plots, named
from analysis.report import write_pictures
from workloads.console import complaining, parse
from workloads.errors import InputError


def write_plots(sweeps: Sequence[str], names: Sequence[str]) -> list[str]:
    """Draws plots of sweeps and returns where their PNG files are.

    Args:
        sweeps: Folders or URIs of sweeps, finished or running.
        names: Names of plots; all that apply to these sweeps if empty.

    Raises:
        InputError: A name is unknown, or the plot does not apply to these sweeps.
    """
    named(names)
    data = load(sweeps)
    pictures = draw_plots(data, summarise(data), names or None)
    drawn = [one.name for one in pictures]
    if missing := [name for name in names if name not in drawn]:
        raise InputError(f"plot {missing[0]!r} does not apply to this sweep; omit --plot to draw all that do")
    store = output_store(sweeps)
    return [store.locate(file) for file in write_pictures(store, pictures)]


@dataclass(frozen=True)
class Arguments:
    """Draws plots of sweeps, finished or running, into the sweep's folder."""

    sweeps: tyro.conf.Positional[tuple[str, ...]]
    """Folders or URIs of sweeps, e.g. results/optimizers s3://bucket/results/plateau."""
    plot: tuple[str, ...] = ()
    """Names of plots; all that apply to the sweeps by default."""


def main() -> None:
    """Runs the script."""
    with complaining() as console:
        arguments = parse(Arguments)
        for file in write_plots(arguments.sweeps, arguments.plot):
            console.print(escape(file), soft_wrap=True)


if __name__ == "__main__":
    main()

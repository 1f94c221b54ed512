"""Exports a sweep's tables for other tools: TensorBoard event files or CSV.

    python analysis/export.py results/optimizers [more sweeps ...] --to tensorboard
    tensorboard --logdir results/optimizers/tensorboard

TensorBoard files go into the sweep's subfolder `tensorboard`, one run per trial; CSV files (`trials.csv`, `epochs.csv`,
`summary.csv`) into `csv`. For several sweeps, these are in a common folder beside the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl
import tyro
from rich.markup import escape

from analysis.aggregate import summarise
from analysis.loading import SweepData, load, output_store
from analysis.measures import published
from analysis.store import SweepStore
from workloads.console import complaining, parse
from workloads.errors import InputError

Format = Literal["tensorboard", "csv"]


def to_csv(data: SweepData, store: SweepStore) -> str:
    """Writes trials, epochs and summary as CSV with empty cells for missing values; returns the folder."""
    tables = {"trials": data.trials, "epochs": data.epochs, "summary": summarise(data)}
    for name, table in tables.items():
        store.write(f"csv/{name}.csv", published(table, data.measure).write_csv().encode())
    return store.locate("csv")


def to_tensorboard(data: SweepData, store: SweepStore) -> str:
    """Writes every trial as a TensorBoard run and returns the folder for `tensorboard --logdir`.

    Raises:
        InputError: The package tensorboard is not installed.
    """
    try:
        from analysis.event_files import experiment_events, trial_events
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise InputError(
            f"TensorBoard files need the package {package}: pip install 'forksweep[tensorboard]'"
        ) from None
    hyperparameters = [*data.axes, "seed"]
    levels = {name: data.trials[name].unique(maintain_order=True).to_list() for name in hyperparameters}
    store.write("tensorboard/events.out.tfevents.0.sweep", experiment_events(levels, data.measure))
    for trial, epochs in _trials(data):
        run = re.sub(r"[^\w.=-]+", "_", f"{trial['label']}_seed_{trial['seed']}")[:100]
        path = f"tensorboard/{run}-{trial['trial_id']}/events.out.tfevents.0.trial"
        store.write(path, trial_events(trial, epochs.iter_rows(named=True), hyperparameters, data.measure))
    return store.locate("tensorboard")


def _trials(data: SweepData) -> Iterator[tuple[dict[str, object], pl.DataFrame]]:
    """Yields each trial that has records: its row and its records."""
    by_trial = {key[0]: epochs for key, epochs in data.epochs.group_by("trial_id", maintain_order=True)}
    for trial in data.trials.iter_rows(named=True):
        if trial["trial_id"] in by_trial:
            yield trial, by_trial[trial["trial_id"]]


EXPORTS: dict[Format, Callable[[SweepData, SweepStore], str]] = {"tensorboard": to_tensorboard, "csv": to_csv}
"""Format -> function that writes it."""


def export(sweeps: Sequence[str], to: Format) -> str:
    """Writes sweeps in another tool's format and returns the folder.

    Args:
        sweeps: Folders or URIs of sweeps, finished or running.
        to: The format.

    Raises:
        InputError: There is no sweep at one of these places, or the format needs a package that is not installed.
    """
    return EXPORTS[to](load(sweeps), output_store(sweeps))


@dataclass(frozen=True)
class Arguments:
    """Writes sweeps, finished or running, as TensorBoard event files or CSV into the sweep's folder."""

    sweeps: tyro.conf.Positional[tuple[str, ...]]
    """Folders or URIs of sweeps, e.g. results/optimizers s3://bucket/results/plateau."""
    to: Format
    """Output format."""


def main() -> None:
    """Runs the script."""
    with complaining() as console:
        arguments = parse(Arguments)
        console.print(escape(export(arguments.sweeps, arguments.to)), soft_wrap=True)


if __name__ == "__main__":
    main()

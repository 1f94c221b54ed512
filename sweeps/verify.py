"""Is what is stored what the trainings gave?

    python -m sweeps.verify results/optimizers --sample 5

First the chain of states is followed, from the seeds to the final weights: every record and every checkpoint. The
tables are compared with the records. Then epochs chosen at random are trained again, from the checkpoint before them or
from the start, one after the other in this process, and all numbers are compared bit for bit. On another type of
machine bits cannot be expected: it says so, and compares within a tolerance. The exit status is 0 only if all held, 1
if something differs, 2 for bad input.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from analysis.receipt import SAMPLE, Receipt
from sweeps.question.sweep import Sweep
from sweeps.receipts.stored import Stored
from sweeps.receipts.verification import Verification
from sweeps.unchanged import unchanged
from workloads import blame
from workloads.console import complaining, parse
from workloads.datasets import DATA_ROOT
from workloads.errors import InputError
from workloads.own import Workload, register


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Checks that what is stored of a sweep is what its trainings gave, by training some of its epochs again."""

    sweep: Positional[Annotated[str, arg(metavar="SWEEP")]]
    """Folder or URI of a sweep, e.g. results/optimizers."""
    sample: int = SAMPLE
    """How many epochs, chosen at random, to train again; 0 only follows the chain of states."""
    all: bool = False
    """Train all epochs again."""
    sample_seed: int = 0
    """Which epochs are chosen: another seed chooses others."""
    script: Annotated[str | None, arg(metavar="PATH")] = None
    """The script of a sweep of your own, if it trained a network of your own."""
    data_root: Annotated[str, arg(metavar="PATH")] = str(DATA_ROOT)
    """The folder of downloaded data sets."""


def main(words: Sequence[str] | None = None) -> None:
    """Runs the program on a command line; None means the process's own."""
    with complaining() as console:
        arguments = parse(Arguments, words, prog="python -m sweeps.verify")
        if arguments.script is not None:
            _run_script(Path(arguments.script))
        receipt = verify(
            arguments.sweep,
            sample=None if arguments.all else arguments.sample,
            sample_seed=arguments.sample_seed,
            data_root=arguments.data_root,
            console=console,
        )
        sys.exit(0 if receipt.verified else 1)


def verify(
    place: str | Path,
    *,
    sample: int | None = SAMPLE,
    sample_seed: int = 0,
    workload: Workload | None = None,
    data_root: str | Path = DATA_ROOT,
    console: Console | None = None,
) -> Receipt:
    """Checks that what is stored of a sweep is what its trainings gave, and stores the receipt with it.

    Args:
        place: Its folder or URI.
        sample: How many epochs to train again; None for all.
        sample_seed: Which.
        workload: A workload of your own that was trained.
        data_root: The folder of downloaded data sets.
        console: Where to say how it goes.

    Raises:
        InputError: There is no sweep, nothing is stored of it yet, or a network of your own is not known.
    """
    if sample is not None and sample < 0:
        raise InputError(f"--sample must be 0 or more, not {sample}")
    if workload is not None:
        register(workload)
    console = console or Console(quiet=True)
    with unchanged():
        return Verification(Stored.read(str(place)), Path(data_root), console).run(sample, sample_seed)


def _run_script(path: Path) -> None:
    """Runs a user's script as if it were imported, and takes up the workloads that it states.

    Raises:
        InputError: There is no such file, or it raises.
    """
    if not path.is_file():
        raise InputError(f"--script {path} is no file")
    sys.path.insert(0, str(path.parent.absolute()))  # as Python does: it may import what is beside it
    try:
        found = runpy.run_path(str(path), run_name="script").values()
    except Exception as error:
        raise blame.blamed(error, f"--script {path}") from error
    for value in found:
        workload = value.workload if isinstance(value, Sweep) else value
        if isinstance(workload, Workload):
            register(workload)


if __name__ == "__main__":
    main()

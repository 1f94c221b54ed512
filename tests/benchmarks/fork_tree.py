"""How the fork tree grows: plateau trials with made-up training, the real schedulers, no Ray.

    python -m tests.benchmarks.fork_tree

For each number of trials: how many epochs were really trained, the tree's own time (schedulers included) for each
record that a trial gets, and its memory for each trial. Both should stay what they are as trials grow.
"""

from __future__ import annotations

import hashlib
import itertools
import time
import tracemalloc
from dataclasses import dataclass

import tyro

from sweeps.ledger.ledger import sharing_group
from sweeps.sharing.tree import ForkTree, Member
from tests.benchmarks import figures
from workloads.registry import resolve, steps_per_epoch
from workloads.schedulers import Trace
from workloads.trial import TrialConfig


@dataclass(frozen=True)
class Arguments:
    """How much to measure."""

    trials: tuple[int, ...] = (100, 1_000, 10_000)
    """Numbers of trials."""
    epochs: int = 30


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What one number of trials took."""

    trials: int
    records: int
    """Trial-epochs."""
    trained: int
    """Epochs that were really (made-up) trained."""
    microseconds_per_record: float
    kilobytes_per_trial: float


def plateau_trials(count: int, epochs: int) -> list[TrialConfig]:
    """Returns plateau trials that differ in their settings, 500 to a seed."""
    settings = itertools.product(
        (1, 2, 3, 5, 8), (0.1, 0.2, 0.3, 0.5, 0.7), (1e-4, 1e-3, 1e-2, 0.05, 0.1), (0, 1, 2, 3)
    )
    grid = [dict(zip(("patience", "factor", "threshold", "cooldown"), values, strict=True)) for values in settings]
    base = TrialConfig(optimizer="sgd_momentum", scheduler="plateau", lr=0.02, epochs=epochs)
    return [resolve(base.replace(scheduler_settings=grid[i % 500], seed=i // 500)) for i in range(count)]


def made_up_loss(group: str, lineage: tuple[str, ...], epoch: int) -> float:
    """Returns a loss that falls, ever more slowly and not steadily, as a function of the training so far."""
    noise = hashlib.sha256(repr((group, lineage, epoch)).encode()).digest()[0] / 255
    return 1 / (1 + epoch) ** 0.5 + 0.02 * noise


def grow(trials: list[TrialConfig]) -> Growth:
    """Runs the trees of these trials to their end."""
    members = [
        Member(
            trial_id=trial.trial_id,
            group=sharing_group(trial),
            epochs=trial.epochs,
            trace=lambda trial=trial: Trace(trial, steps_per_epoch(trial)),  # type: ignore[misc]
        )
        for trial in trials
    ]
    trained = records = 0
    began = time.perf_counter()
    tree = ForkTree(members)
    assert list(tree.walk_known()) == []
    while path := tree.take():
        leader = path.leader.trial_id
        while tree.is_live(leader):
            epoch = path.epoch + 1
            loss = made_up_loss(str(path.leader.group), path.lineage, epoch)
            delivery = tree.advance(leader, {"epoch": epoch, "train_loss": loss, "computed_by": leader})
            assert delivery is not None
            trained += 1
            records += len(delivery.receivers)
    seconds = time.perf_counter() - began
    assert records == sum(trial.epochs for trial in trials)
    return Growth(
        trials=len(trials),
        records=records,
        trained=trained,
        microseconds_per_record=seconds / records * 1e6,
        kilobytes_per_trial=0.0,
    )


def memory(trials: list[TrialConfig]) -> float:
    """Returns the most memory that the trees of these trials take at a time, in kilobytes a trial."""
    tracemalloc.start()
    grow(trials)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / len(trials) / 1e3


def table(measured: figures.Rows) -> figures.Table:
    """Returns one row for each number of trials."""
    return figures.Table(
        ("trials", "records", "epochs trained", "time a record", "memory a trial"),
        [
            (
                f"{row['trials']:,}",
                f"{row['records']:,}",
                f"{row['trained']:,}",
                f"{row['microseconds_per_record']:.1f} us",
                f"{row['kilobytes_per_trial']:.1f} kB",
            )
            for row in measured
        ],
    )


def main(arguments: Arguments) -> None:
    """Measures, prints a table and writes the raw numbers."""
    measured = []
    for count in arguments.trials:
        trials = plateau_trials(count, arguments.epochs)
        measured.append(vars(grow(trials)) | {"kilobytes_per_trial": memory(trials)})
    table(measured).show()
    figures.write("fork_tree", vars(arguments), measured)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

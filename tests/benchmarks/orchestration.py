"""What orchestration costs: trials whose training only sleeps, on a local Ray, against the time they sleep.

    python -m tests.benchmarks.orchestration

Everything but the training is real: Ray, Tune, the fork tree, records on disk. Prints start-up to the first record,
wall time over the ideal (sleep over the trials that run at once), and the difference for each trial.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from analysis.store import SweepStore
from sweeps import tuning
from sweeps.ledger import Ledger
from sweeps.placement import Placement
from sweeps.progress import Progress
from sweeps.trajectories import ForkTree
from sweeps.tuning.session import slots
from tests.benchmarks import figures
from workloads.registry import resolve
from workloads.trial import EpochRecord, TrialConfig


@dataclass(frozen=True)
class Arguments:
    """How much to measure."""

    trials: int = 200
    seconds: tuple[float, ...] = (0.0, 0.1, 1.0)
    """What an epoch sleeps."""


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """What one length of epoch took."""

    seconds_per_epoch: float
    trials: int
    at_once: int
    first_record_seconds: float
    """From starting Ray to the first record in the driver."""
    ideal_seconds: float
    wall_seconds: float
    """From the first record to the end."""
    overhead_per_trial_seconds: float


def sleeping(seconds: float) -> Callable[..., Iterator[EpochRecord]]:
    """Returns a training function that sleeps."""

    def train(config: TrialConfig, **_: Any) -> Iterator[EpochRecord]:
        for epoch in range(1, config.epochs + 1):
            time.sleep(seconds)
            values = dict.fromkeys(("lr", "lr_last", "train_loss", "train_accuracy", "val_loss", "val_accuracy"), 0.5)
            values |= dict.fromkeys(("test_loss", "test_accuracy", "eval_seconds"), 0.0)
            yield EpochRecord(
                trial_id=config.trial_id,
                epoch=epoch,
                computed_by=config.trial_id,
                function_evaluations=0,
                train_seconds=seconds,
                **values,
            )

    return train


def measure(count: int, seconds: float) -> Overhead:
    """Runs trials of one sleeping epoch each; they differ in their seeds, so none is shared."""
    trials = [resolve(TrialConfig(seed=seed, epochs=1)) for seed in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(SweepStore(folder, "orchestration"), trials)
        tree = ForkTree(ledger.members())
        assert list(tree.walk_known()) == []
        placement = Placement()
        began = time.perf_counter()
        times: list[float] = []
        with tuning.ray_session(placement), Progress(Console(file=io.StringIO()), {}) as progress:
            at_once = slots(placement)
            run = tuning.Run(tree, ledger, placement, progress)
            deliver = ledger.deliver
            ledger.deliver = lambda *news: (times.append(time.perf_counter()), deliver(*news))[1]  # type: ignore[method-assign]
            tuning.run_tree(run, train=sleeping(seconds))
        assert ledger.counts() == {"completed": count}
    wall = times[-1] - times[0]
    ideal = seconds * (count - 1) / at_once
    return Overhead(
        seconds_per_epoch=seconds,
        trials=count,
        at_once=at_once,
        first_record_seconds=times[0] - began,
        ideal_seconds=ideal,
        wall_seconds=wall,
        overhead_per_trial_seconds=(wall - ideal) / (count - 1) * at_once,
    )


def main(arguments: Arguments) -> None:
    """Measures, prints a table and writes it to `tests/benchmarks/results/orchestration.json`."""
    found = [measure(arguments.trials, seconds) for seconds in arguments.seconds]
    table = Table("an epoch sleeps", "trials", "at once", "first record after", "wall", "ideal", "overhead a trial")
    for one in found:
        table.add_row(
            f"{one.seconds_per_epoch:g} s",
            str(one.trials),
            str(one.at_once),
            f"{one.first_record_seconds:.1f} s",
            f"{one.wall_seconds:.1f} s",
            f"{one.ideal_seconds:.1f} s",
            f"{one.overhead_per_trial_seconds:.3f} s",
        )
    Console().print(table)
    figures.write("orchestration", vars(arguments), [vars(one) for one in found])


if __name__ == "__main__":
    main(tyro.cli(Arguments))

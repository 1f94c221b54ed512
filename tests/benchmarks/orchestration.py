"""What orchestration costs: trials whose training only sleeps, start-up, and the way from Ctrl-C to the prompt.

    python -m tests.benchmarks.orchestration

Everything but the training is real: Ray, Tune, the fork tree, checkpoints of real size, records on disk. Start-up and
Ctrl-C are those of `python sweeps/optimizers.py` in a process of its own. About 5 minutes.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from analysis.store import SweepStore
from sweeps.ledger.provenance import ROOT as PACKAGE
from tests.benchmarks import figures, stand_ins

ROOT = PACKAGE.parent
SCRIPT = (sys.executable, "sweeps/optimizers.py", "--optimizers", "adam")
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Arguments:
    """How much to measure."""

    trials: int = 200
    """Trials of one epoch."""
    seconds: tuple[float, ...] = (0.0, 0.1, 1.0)
    """What an epoch of theirs sleeps."""
    long_trials: int = 20
    """Trials of 30 epochs, each of which sleeps 0.1 s."""
    rounds: int = 5
    """Times that start-up and Ctrl-C are measured."""
    epoch_seconds: float = 5.7
    """What an epoch of LeNet takes, evaluation included: what the overhead is compared with."""


LONG_EPOCHS, LONG_SECONDS = 30, 0.1
START, STOP = "start-up", "Ctrl-C"


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """What running some trials took."""

    epochs: int
    seconds_per_epoch: float
    trials: int
    at_once: int
    session_seconds: float
    """Starting Ray."""
    first_record_seconds: float
    """From starting Ray to the first record in the driver."""
    ideal_seconds: float
    """What the trials sleep, over how many run at once."""
    wall_seconds: float
    """From when the first trial began to sleep to the last record."""

    @property
    def per_trial(self) -> float:
        """Seconds that a trial takes longer than it sleeps."""
        return (self.wall_seconds - self.ideal_seconds) / self.trials * self.at_once


def measure(count: int, epochs: int, seconds: float) -> Overhead:
    """Runs trials that sleep; they differ in their seeds, so none is shared."""
    trials = stand_ins.trials_without_sharing(count, epochs)
    with tempfile.TemporaryDirectory() as folder:
        store = SweepStore(folder, "orchestration")
        times = stand_ins.run(trials, store, stand_ins.sleeping(seconds, saves=True))
    return Overhead(
        epochs=epochs,
        seconds_per_epoch=seconds,
        trials=count,
        at_once=times.at_once,
        session_seconds=times.session,
        first_record_seconds=times.records[0],
        ideal_seconds=seconds * epochs * count / times.at_once,
        wall_seconds=times.records[-1] - times.records[0] + seconds,
    )


def start(folder: Path, *flags: str) -> subprocess.Popen[bytes]:
    """Starts the sweep script as a shell does, as a group of its own."""
    return subprocess.Popen(
        [*SCRIPT, "--storage-path", str(folder), *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def startup() -> float:
    """Returns the seconds from the command to the beginning of the first epoch."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        assert start(Path(folder), "--lrs", "0.001", "--epochs", "1", "--train-limit", "64").wait(PATIENCE_SECONDS) == 0
        (checkpoint,) = Path(folder).rglob("checkpoints/*/*.pt")
        (record,) = SweepStore(folder, "optimizers").read_epochs().to_dicts()
        # The checkpoint is written when the epoch is over.
        return checkpoint.stat().st_mtime - began - record["train_seconds"] - record["eval_seconds"]


def ctrl_c() -> float:
    """Returns the seconds from Ctrl-C in mid-epoch to the end of the process."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(Path(folder), "--epochs", "30")
        patience = time.monotonic() + PATIENCE_SECONDS
        while not any(Path(folder).rglob("checkpoints/*/*.pt")):
            assert process.poll() is None, "the sweep ended by itself"
            assert time.monotonic() < patience, "no epoch ended"
            time.sleep(0.1)
        began = time.perf_counter()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 130
        return time.perf_counter() - began


def all_measured(arguments: Arguments) -> Iterator[dict[str, Any]]:
    """Yields every figure, as it is there."""
    jobs = [(arguments.trials, 1, seconds) for seconds in arguments.seconds]
    for count, epochs, seconds in [*jobs, (arguments.long_trials, LONG_EPOCHS, LONG_SECONDS)]:
        found = measure(count, epochs, seconds)
        yield {"what": "trials", **asdict(found), "overhead_per_trial_seconds": found.per_trial}
        if epochs == LONG_EPOCHS:
            share = found.per_trial / (LONG_EPOCHS * arguments.epoch_seconds)
            yield {"what": "share", "epoch_seconds": arguments.epoch_seconds, "share": share}
    for what, action in ((START, startup), (STOP, ctrl_c)):
        yield {"what": what, "seconds": [action() for _ in range(arguments.rounds)]}


def table(measured: figures.Rows) -> figures.Table:
    """Returns what trials took, and the rest as sentences."""
    trials = [row for row in measured if row["what"] == "trials"]
    (share,) = (row for row in measured if row["what"] == "share")
    seconds = {row["what"]: row["seconds"] for row in measured if "seconds" in row}
    start, stop = (statistics.median(seconds[what]) for what in (START, STOP))
    return figures.Table(
        ("trials", "epochs", "an epoch sleeps", "at once", "wall time", "ideal", "longer, a trial"),
        [
            (
                str(row["trials"]),
                str(row["epochs"]),
                f"{row['seconds_per_epoch']:g} s",
                str(row["at_once"]),
                f"{row['wall_seconds']:.1f} s",
                f"{row['ideal_seconds']:.1f} s",
                f"{row['overhead_per_trial_seconds']:.3f} s",
            )
            for row in trials
        ],
        [
            f"Of {LONG_EPOCHS} epochs of LeNet, {share['epoch_seconds']:g} s each, the last is {share['share']:.2%}.",
            f"From the command to the first epoch {start:.1f} s; from Ctrl-C in mid-epoch to the prompt {stop:.1f} s "
            f"(medians of {len(seconds[START])}).",
        ],
    )


def main(arguments: Arguments) -> None:
    """Measures, prints a table and writes the raw numbers."""
    measured = list(all_measured(arguments))
    table(measured).show()
    figures.write("orchestration", vars(arguments), measured)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

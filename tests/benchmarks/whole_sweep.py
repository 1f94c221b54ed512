"""Whole sweeps: ours, plain Ray Tune as its tutorials show, and a for-loop, one after the other on the same cores.

    python -m tests.benchmarks.whole_sweep [--setups optimizers plateau schedulers optimizers_full ...] [--rounds 3]

Every side is a process of its own, watched from outside. Ours trains every trial of the default sweep and does all that
it does by default, report included. The other two train some whole trials; what they took from the first trial on is
scaled to all trials. A bare loop, as many at once as there are cores, says what the trained epochs alone are worth.

About 15 minutes on 2 cores, three times as long at full size. Writes `results/whole_sweep_<setup>.json`.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from analysis.store import SweepStore
from sweeps.ledger.provenance import ROOT as PACKAGE
from sweeps.question.sweep import plan
from tests.benchmarks import figures, usual
from tests.benchmarks import training_step as step
from tests.benchmarks.training_step import Task
from tests.benchmarks.watched import Usage, watch
from workloads.trial import TrialConfig

ROOT = PACKAGE.parent
BARE = "bare loop"
USUAL = {"tune": "plain Ray Tune", "loop": "for-loop"}
"""What the usual sides are called."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How much of a default sweep to measure."""

    sweep: str
    """The sweep script."""
    epochs: int
    images: int
    tune_trials: int
    """Trials that plain Ray Tune trains; the rest is scaled. With 0 it is left out."""
    loop_trials: int
    """Trials that the for-loop trains; the rest is scaled. With 0 it is left out."""


_ALL = usual.TRAIN_IMAGES
SETUPS: Mapping[str, Setup] = {
    "optimizers": Setup(sweep="optimizers", epochs=3, images=_ALL, tune_trials=4, loop_trials=2),
    "plateau": Setup(sweep="plateau", epochs=30, images=11_000, tune_trials=2, loop_trials=1),
    "schedulers": Setup(sweep="schedulers", epochs=10, images=11_000, tune_trials=2, loop_trials=1),
    "optimizers_full": Setup(sweep="optimizers", epochs=10, images=_ALL, tune_trials=2, loop_trials=1),
    # A whole trial of each other side takes a quarter of an hour more; the setups above compare them.
    "plateau_full": Setup(sweep="plateau", epochs=30, images=_ALL, tune_trials=0, loop_trials=0),
    "schedulers_full": Setup(sweep="schedulers", epochs=30, images=_ALL, tune_trials=0, loop_trials=0),
}
"""What is measured: the first three in a quarter of an hour, the others at the sweeps' full size."""


@dataclass(frozen=True)
class Arguments:
    """Measures whole sweeps: ours, plain Ray Tune and a for-loop."""

    setups: tuple[str, ...] = ("optimizers", "plateau", "schedulers")
    """Keys of `SETUPS`."""
    rounds: int = 1
    """Times each side is measured, in turns."""
    workers: int = 2
    """Processes of the usual DataLoader."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one side took for the whole sweep."""

    side: str
    trials: int
    trial_epochs: int
    trained_trials: int
    """Trials that were really run; where that is not all of them, the other figures but memory are scaled."""
    trained_epochs: int
    """Epochs really trained, in the trials that were run."""
    measured_seconds: float
    """Wall time of what was really run."""
    before_training_seconds: float
    """Of those: until the first trial begins, which is not scaled; looked at for the usual sides only."""
    after_training_seconds: float
    """Of those: tables, statistics and report; ours only."""
    wall_seconds: float
    cpu_seconds: float
    peak_megabytes: float
    written_megabytes: float
    """What was given to the disk, deleted since or not."""
    files: int
    """Files of results, deleted since or not."""
    left_megabytes: float
    """Results that are left."""
    session_files: int
    """Files of Ray's session."""
    session_left_megabytes: float


# -- the sides ------------------------------------------------------------------------------------------------------


def ours(sweep: str, trials: list[TrialConfig], folder: Path) -> Side:
    """Runs the sweep script as a user does."""
    first = trials[0]
    flags = ["--epochs", str(first.epochs), "--storage-path", str(folder / "results")]
    if first.train_limit is not None:
        flags += ["--train-limit", str(first.train_limit)]
    usage = _watch([f"sweeps/{sweep}.py", *flags], folder)
    records = SweepStore(str(folder / "results"), sweep).read_epochs()
    side = _side("ours", trials, trials, usage)
    assert records.height == side.trial_epochs, "every planned trial has its answer"
    return replace(
        side,
        trained_epochs=records.unique(("computed_by", "epoch")).height,
        after_training_seconds=usage.seconds - usage.seconds_until("trial-epochs delivered"),
    )


def usual_side(way: str, trials: list[TrialConfig], count: int, workers: int, folder: Path) -> Side:
    """Runs some whole trials, spread over the sweep, as a user would without forksweep."""
    chosen = trials[:: len(trials) // count][:count]
    usual.unpack_as_torchvision_does(folder / "data")
    spec = usual.Spec(
        trials=[trial.to_json() for trial in chosen],
        images=chosen[0].train_limit or usual.TRAIN_IMAGES,
        workers=workers,
        data=str(folder / "data"),
        results=str(folder / "results"),
    )
    usual.write_spec(spec, folder / "spec.json")
    started = time.time()
    usage = _watch(["-m", "tests.benchmarks.usual", way, str(folder / "spec.json")], folder)
    before = usual.began(spec).stat().st_mtime - started
    return _side(USUAL[way], trials, chosen, usage, before=before)


def _watch(command: list[str], folder: Path) -> Usage:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        # A Ray of its own, whatever else runs on this machine, and its files where they can be counted.
        "RAY_ADDRESS": "local",
        "RAY_TMPDIR": str(folder),
    }
    return watch(
        [sys.executable, *command],
        folder=ROOT,
        environment=environment,
        folders={"results": folder / "results", "session": folder / "ray"},
    )


def _side(
    name: str, trials: list[TrialConfig], chosen: list[TrialConfig], usage: Usage, *, before: float = 0.0
) -> Side:
    """Returns what a side took, scaled from the chosen trials to all; what went before the first stays as it is."""
    scale = len(trials) / len(chosen)
    return Side(
        side=name,
        trials=len(trials),
        trial_epochs=sum(trial.epochs for trial in trials),
        trained_trials=len(chosen),
        trained_epochs=sum(trial.epochs for trial in chosen),
        measured_seconds=usage.seconds,
        before_training_seconds=before,
        after_training_seconds=0.0,
        wall_seconds=before + (usage.seconds - before) * scale,
        cpu_seconds=usage.cpu_seconds * scale,
        peak_megabytes=usage.peak_megabytes,
        written_megabytes=usage.written_megabytes * scale,
        files=round(usage.files["results"] * scale),
        left_megabytes=usage.left_megabytes["results"] * scale,
        session_files=usage.files["session"],
        session_left_megabytes=usage.left_megabytes["session"],
    )


# -- measuring ------------------------------------------------------------------------------------------------------


def planned(setup: Setup) -> list[TrialConfig]:
    """Returns the trials of a sweep script."""
    script = importlib.import_module(f"sweeps.{setup.sweep}").SWEEP
    limit = None if setup.images == usual.TRAIN_IMAGES else setup.images
    options = replace(script.default_options(), epochs=setup.epochs, train_limit=limit)
    return list(plan(script, options).trials)


def measure(setup: Setup, rounds: int, workers: int) -> Iterator[dict[str, Any]]:
    """Yields what each side took, in turns, and last what an epoch of the bare loop takes."""
    trials = planned(setup)
    sides = [partial(ours, setup.sweep, trials)]
    for way, count in (("tune", setup.tune_trials), ("loop", setup.loop_trials)):
        sides += [partial(usual_side, way, trials, count, workers)] if count else []
    for _ in range(rounds):
        for side in sides:
            # A short name: Ray's sockets lie below it, and their names may not be long.
            with tempfile.TemporaryDirectory(prefix="fs-") as folder:
                yield asdict(side(Path(folder)))
    task = Task(optimizer="sgd_momentum", images=setup.images, validate=True)
    bare = step.measure(task, 3, step.all_cores(), [BARE])
    yield {"side": BARE, "at_once": bare.processes, "epoch_seconds": bare.median(BARE)}


def table(measured: figures.Rows) -> figures.Table:
    """Returns the medians of every side, and how ours compares."""
    (bare,) = (row for row in measured if row["side"] == BARE)
    sides = list(dict.fromkeys(row["side"] for row in measured if row["side"] != BARE))
    by_side = {side: [row for row in measured if row["side"] == side] for side in sides}
    wall = {side: figures.median(rows, "wall_seconds") for side, rows in by_side.items()}
    table_rows = []
    for side, rows in by_side.items():
        one = rows[0]
        scaled = one["trained_trials"] < one["trials"]
        about = "~" if scaled else ""
        table_rows.append(
            (
                f"{side} ({one['trained_trials']} of {one['trials']} trials)" if scaled else side,
                f"{about}{one['trial_epochs'] / wall[side]:.3f}",
                f"{about}{wall[side]:,.0f} s",
                f"{about}{figures.median(rows, 'cpu_seconds'):,.0f} s",
                f"{figures.median(rows, 'peak_megabytes'):,.0f} MB",
                f"{about}{figures.median(rows, 'files'):,.0f}",
                f"{about}{figures.median(rows, 'written_megabytes'):,.0f} MB",
                f"{about}{figures.median(rows, 'left_megabytes'):,.1f} MB",
                f"{wall[side] / wall['ours']:.1f} x",
            )
        )
    return figures.Table(
        (
            "side",
            "trial-epochs/s",
            "wall time",
            "processor time",
            "peak memory",
            "files of results",
            "given to the disk",
            "results left",
            "ours is",
        ),
        table_rows,
        [_efficiency(by_side["ours"], bare)],
    )


def _efficiency(ours: figures.Rows, bare: Mapping[str, Any]) -> str:
    """Returns how much of our wall time the trained epochs alone would take in bare loops, with and without report."""
    wall, report = figures.median(ours, "wall_seconds"), figures.median(ours, "after_training_seconds")
    epochs = ours[0]["trained_epochs"]
    ideal = epochs * bare["epoch_seconds"] / bare["at_once"]
    return (
        f"Ours trained {epochs} epochs for {ours[0]['trial_epochs']:,} trial-epochs. In bare loops, {bare['at_once']} "
        f"at once and {bare['epoch_seconds']:.2f} s an epoch each, those take {ideal:,.0f} s: sweep efficiency "
        f"{ideal / wall:.2f}, or {ideal / (wall - report):.2f} without tables and report ({report:.1f} s)."
    )


def main(arguments: Arguments) -> None:
    """Measures, prints tables and writes the raw numbers."""
    for name in arguments.setups:
        measured = list(measure(SETUPS[name], arguments.rounds, arguments.workers))
        table(measured).show()
        values = vars(SETUPS[name]) | {"rounds": arguments.rounds, "workers": arguments.workers}
        figures.write(f"whole_sweep_{name}", values, measured)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

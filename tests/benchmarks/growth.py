"""How a sweep grows with the number of trials: made-up training through the real path, Ray and Tune included.

    python -m tests.benchmarks.growth [--sizes 10 100 1000 5000]

Each size in a process of its own; trials of one epoch that takes no time, so that nothing is shared and all is
overhead. Checkpoints are left out: theirs is one size each.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from analysis.store import SweepStore
from analysis.tables import publish
from tests.benchmarks import figures, stand_ins


@dataclass(frozen=True)
class Arguments:
    """Measures how a sweep grows with the number of trials."""

    sizes: tuple[int, ...] = (10, 100, 1_000, 5_000)
    """Numbers of trials."""
    measure: int | None = None
    """Measure that many and print the figures as JSON; what the benchmark calls itself with."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What one number of trials took."""

    trials: int
    start_seconds: float
    """From starting Ray to the first record."""
    first_tenth_seconds: float
    """Of what follows: until a tenth of the records are there."""
    last_tenth_seconds: float
    """Of what follows: the last tenth of the records."""
    wall_seconds: float
    """From the first record to the last."""
    driver_megabytes: float
    """Most memory of the driver."""
    driver_megabytes_before: float
    """Its memory before the first trial."""
    parts: int
    """Files of records and statuses before they are put together."""
    kilobytes: float
    """What is on disk in the end."""


def measure(count: int) -> Growth:
    """Runs that many trials in this process."""
    trials = stand_ins.trials_without_sharing(count, epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        store = SweepStore(folder, "growth")
        before = _peak_megabytes()
        times = stand_ins.run(trials, store, stand_ins.sleeping(0.0, saves=False))
        parts = sum(path.is_file() for path in (Path(folder) / "growth" / "parts").iterdir())
        store.compact()
        spec = store.read_spec()
        assert spec is not None
        publish(store, spec)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    moments = [moment - times.records[0] for moment in times.records]
    return Growth(
        trials=count,
        start_seconds=times.records[0],
        first_tenth_seconds=moments[count // 10],
        last_tenth_seconds=moments[-1] - moments[-1 - count // 10],
        wall_seconds=moments[-1],
        driver_megabytes=_peak_megabytes(),
        driver_megabytes_before=before,
        parts=parts,
        kilobytes=size / 1e3,
    )


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured_apart(count: int) -> dict[str, float]:
    """Returns what that many trials take, measured in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.growth", "--measure", str(count)]
    output = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def table(measured: figures.Rows) -> figures.Table:
    """Returns one row for each number of trials."""
    return figures.Table(
        ("trials", "wall time", "a trial", "of the first tenth", "of the last tenth", "driver", "on disk a trial"),
        [
            (
                f"{row['trials']:,}",
                f"{row['wall_seconds']:.1f} s",
                f"{1000 * row['wall_seconds'] / row['trials']:.0f} ms",
                f"{1000 * row['first_tenth_seconds'] / (row['trials'] // 10):.0f} ms",
                f"{1000 * row['last_tenth_seconds'] / (row['trials'] // 10):.0f} ms",
                f"{row['driver_megabytes']:.0f} MB",
                f"{row['kilobytes'] / row['trials']:.2f} kB",
            )
            for row in measured
        ],
    )


def main(arguments: Arguments) -> None:
    """Measures, prints a table and writes the raw numbers."""
    if arguments.measure is not None:
        print(json.dumps(asdict(measure(arguments.measure))))
        return
    measured = [measured_apart(count) for count in arguments.sizes]
    table(measured).show()
    figures.write("growth", {"sizes": arguments.sizes}, measured)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

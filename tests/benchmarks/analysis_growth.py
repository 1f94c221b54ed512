"""How aggregation grows with the number of trials: time and peak memory, each size in a process of its own.

    python -m tests.benchmarks.analysis_growth [--sizes 100 1000 10000 100000]

Prints a table and writes `tests/benchmarks/results/analysis_growth.json`. Sweeps are made up: 5 seeds, 30 epochs.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from analysis.aggregate import load, summarise
from analysis.answer import answer
from tests.analysis.synthetic import synthetic_of_size

RESULTS = Path(__file__).parent / "results" / "analysis_growth.json"
SEEDS, EPOCHS = 5, 30


@dataclass(frozen=True)
class Growth:
    """What aggregating one sweep took."""

    trials: int
    records: int
    load_seconds: float
    summarise_seconds: float
    answer_seconds: float
    script_seconds: float
    """`python analysis/aggregate.py SWEEP` from start to end, imports included."""
    script_cpu_seconds: float
    """Processor time of the same: what it took, whatever else the machine did."""
    peak_megabytes: float
    """Most memory that the process held while loading, summarising and answering."""


@dataclass(frozen=True)
class Arguments:
    """Measures how aggregation grows with the number of trials."""

    sizes: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    """Numbers of trials."""
    measure: str | None = None
    """Measure the sweep in this folder and print the figures as JSON; what the benchmark calls itself with."""


def main() -> None:
    """Runs the benchmark."""
    arguments = tyro.cli(Arguments)
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure)))
        return
    rows = [grown(size) for size in arguments.sizes]
    table = Table("", *(f"{row.trials:,} trials" for row in rows))
    for field in fields(Growth)[1:]:
        values = (getattr(row, field.name) for row in rows)
        table.add_row(
            field.name.replace("_", " "), *(f"{v:,.2f}" if isinstance(v, float) else f"{v:,}" for v in values)
        )
    Console().print(table)
    machine = {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def grown(size: int) -> Growth:
    """Returns what aggregating a sweep of so many trials takes."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = synthetic_of_size(size, seeds=SEEDS, epochs=EPOCHS)
        location, records = sweep.write(folder).location, sweep.epochs.height
        del sweep
        begun, cpu = time.perf_counter(), _children_cpu_seconds()
        subprocess.run([sys.executable, "analysis/aggregate.py", location], check=True, stdout=subprocess.DEVNULL)
        script = {
            "script_seconds": time.perf_counter() - begun,
            "script_cpu_seconds": _children_cpu_seconds() - cpu,
        }
        command = [sys.executable, "-m", "tests.benchmarks.analysis_growth", "--measure", location]
        measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return Growth(trials=size, records=records, **script, **measured)


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(location: str) -> dict[str, float]:
    """Returns the seconds of each step on one sweep and the peak memory of this process."""
    times = [time.perf_counter()]
    data = load([location])
    times.append(time.perf_counter())
    summary = summarise(data)
    times.append(time.perf_counter())
    answer(data, summary)
    times.append(time.perf_counter())
    names = ("load_seconds", "summarise_seconds", "answer_seconds")
    seconds = {name: after - before for name, before, after in zip(names, times, times[1:], strict=False)}
    return seconds | {"peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    main()

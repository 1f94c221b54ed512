"""How analysis grows with the number of trials: time and peak memory, each size in processes of its own.

    python -m tests.benchmarks.analysis_growth [--sizes 100 1000 10000 100000]

Sweeps are made up: 5 seeds, 30 epochs. About 4 minutes.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass

import tyro

from analysis.aggregate import summarise
from analysis.answer import answer
from analysis.loading import load
from tests.analysis.synthetic import synthetic_of_size
from tests.benchmarks import figures

SEEDS, EPOCHS = 5, 30
SCRIPTS = ("aggregate", "report")


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What analysing one sweep took."""

    trials: int
    records: int
    load_seconds: float
    summarise_seconds: float
    answer_seconds: float
    peak_megabytes: float
    """Most memory that a process held while loading, summarising and answering."""
    aggregate_seconds: float
    """`python analysis/aggregate.py SWEEP` from start to end, imports included."""
    aggregate_cpu_seconds: float
    """Processor time of the same: what it took, whatever else the machine did."""
    report_seconds: float
    """`python analysis/report.py SWEEP`, which aggregates too, draws the pictures and writes the page."""
    report_cpu_seconds: float


@dataclass(frozen=True)
class Arguments:
    """Measures how analysis grows with the number of trials."""

    sizes: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    """Numbers of trials."""
    measure: str | None = None
    """Measure the sweep in this folder and print the figures as JSON; what the benchmark calls itself with."""


def main(arguments: Arguments) -> None:
    """Measures, prints a table and writes the raw numbers."""
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure)))
        return
    measured = [asdict(grown(size)) for size in arguments.sizes]
    table(measured).show()
    figures.write("analysis_growth", {"sizes": arguments.sizes, "seeds": SEEDS, "epochs": EPOCHS}, measured)


def table(measured: figures.Rows) -> figures.Table:
    """Returns one row for each number of trials."""
    return figures.Table(
        (
            "trials",
            "records",
            "load",
            "summarise",
            "answer",
            "peak memory",
            "`analysis/aggregate.py`",
            "`analysis/report.py`",
        ),
        [
            (
                f"{row['trials']:,}",
                f"{row['records']:,}",
                f"{row['load_seconds']:.2f} s",
                f"{row['summarise_seconds']:.2f} s",
                f"{row['answer_seconds']:.2f} s",
                f"{row['peak_megabytes']:,.0f} MB",
                f"{row['aggregate_seconds']:.1f} s",
                f"{row['report_seconds']:.1f} s",
            )
            for row in measured
        ],
    )


def grown(size: int) -> Growth:
    """Returns what analysing a sweep of so many trials takes."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = synthetic_of_size(size, seeds=SEEDS, epochs=EPOCHS)
        location, records = sweep.write(folder).location, sweep.epochs.height
        del sweep
        scripts: dict[str, float] = {}
        for name in SCRIPTS:
            begun, cpu = time.perf_counter(), _children_cpu_seconds()
            subprocess.run([sys.executable, f"analysis/{name}.py", location], check=True, stdout=subprocess.DEVNULL)
            scripts[f"{name}_seconds"] = time.perf_counter() - begun
            scripts[f"{name}_cpu_seconds"] = _children_cpu_seconds() - cpu
        command = [sys.executable, "-m", "tests.benchmarks.analysis_growth", "--measure", location]
        measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return Growth(trials=size, records=records, **scripts, **measured)


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
    main(tyro.cli(Arguments))

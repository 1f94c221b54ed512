"""What the driver takes as nodes and trials grow: pretended nodes that train in no time, and no Ray.

    python -m tests.benchmarks.many_nodes [--nodes 20 200 2000] [--trials 500 5000 20000]

All that the driver does for a record is real: the fork tree, the ledger and its files, progress. What Ray adds for a
trial is in `tests.benchmarks.growth`.
"""

from __future__ import annotations

import heapq
import io
import itertools
import random
import tempfile
import time
from dataclasses import asdict, dataclass

import psutil
import tyro
from rich.console import Console

from analysis.store import SweepStore
from sweeps.ledger.ledger import Ledger
from sweeps.sharing.tree import ForkTree
from sweeps.tuning.driver import Run
from sweeps.tuning.placement import Placement
from sweeps.watching.progress import Progress
from tests.benchmarks import figures, stand_ins
from tests.sweeps.runs import made_up_record


@dataclass(frozen=True)
class Arguments:
    """Measures what the driver takes as nodes and trials grow."""

    nodes: tuple[int, ...] = (20, 200, 2_000)
    """Numbers of nodes, of one trial at a time each."""
    trials: tuple[int, ...] = (500, 5_000, 20_000)
    """Numbers of trials, one for each number of nodes."""
    epochs: int = 3
    """Of each trial."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What one number of nodes and trials took."""

    nodes: int
    trials: int
    records: int
    seconds: float
    """The driver's own time (CPU) for all of them."""
    first_fifth_seconds: float
    last_fifth_seconds: float
    megabytes: float
    """By how much its memory grew."""


def measure(nodes: int, count: int, epochs: int) -> Growth:
    """Trains that many trials on that many pretended nodes."""
    trials = stand_ins.trials_without_sharing(count, epochs)
    chance, memory = random.Random(0), _megabytes()
    names = (str(number) for number in itertools.count())
    with tempfile.TemporaryDirectory() as folder, Progress(Console(file=io.StringIO()), {}) as progress:
        ledger = Ledger(SweepStore(folder, "s"), trials)
        tree = ForkTree(ledger.members())
        assert list(tree.walk_known()) == []
        run = Run(tree, ledger, Placement(), progress)
        run.room = nodes
        news: list[tuple[float, str, int]] = []
        moments: list[float] = []
        by_id = {trial.trial_id: trial for trial in trials}
        now, working, began = 0.0, {}, time.process_time()
        while True:
            while len(working) < nodes and (job := run.next_job(name := next(names))):
                working[name] = by_id[job.config.trial_id]
                place = {"node": f"node{len(working) % nodes}/0", "device": "cpu", "gpu_fraction": None}
                run.take_in(name, {"place": place})
                heapq.heappush(news, (now + chance.uniform(0.5, 1.5), name, 1))
            run.beat()
            if not news:
                break
            now, name, epoch = heapq.heappop(news)
            run.take_in(name, {"record": made_up_record(working[name], epoch), "checkpoint": None})
            moments.append(time.process_time() - began)
            if epoch == epochs:
                run.complete(name, error=False)
                del working[name]
            else:
                heapq.heappush(news, (now + chance.uniform(0.5, 1.5), name, epoch + 1))
        run.end()
        seconds = time.process_time() - began
        assert ledger.counts() == {"completed": count}
    fifth = len(moments) // 5
    return Growth(
        nodes=nodes,
        trials=count,
        records=len(moments),
        seconds=seconds,
        first_fifth_seconds=moments[fifth - 1],
        last_fifth_seconds=moments[-1] - moments[-1 - fifth],
        megabytes=_megabytes() - memory,
    )


def _megabytes() -> float:
    return psutil.Process().memory_info().rss / 2**20


def table(measured: figures.Rows) -> figures.Table:
    """Returns one row for each number of nodes."""
    return figures.Table(
        ("nodes", "trials", "records", "a record", "of the first fifth", "of the last fifth", "memory a trial"),
        [
            (
                f"{row['nodes']:,}",
                f"{row['trials']:,}",
                f"{row['records']:,}",
                f"{1000 * row['seconds'] / row['records']:.2f} ms",
                f"{1000 * row['first_fifth_seconds'] / (row['records'] // 5):.2f} ms",
                f"{1000 * row['last_fifth_seconds'] / (row['records'] // 5):.2f} ms",
                f"{1000 * row['megabytes'] / row['trials']:.1f} kB",
            )
            for row in measured
        ],
    )


def main(arguments: Arguments) -> None:
    """Measures, prints a table and writes the raw numbers."""
    sizes = zip(arguments.nodes, arguments.trials, strict=True)
    measured = [asdict(measure(nodes, count, arguments.epochs)) for nodes, count in sizes]
    table(measured).show()
    figures.write("many_nodes", asdict(arguments), measured)


if __name__ == "__main__":
    main(tyro.cli(Arguments))

"""The training step: ours, a bare PyTorch loop, the usual script and the arithmetic floor, in turns on the same cores.

    python -m tests.benchmarks.training_step [--rounds 5] [--images 55000] [--optimizer adam] [--profile]

Prints a table and writes `tests/benchmarks/results/training_step.json`. About 7 minutes on 2 cores; on a machine that
does something else the ratios mean little.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import torch
import tyro
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import figures, usual
from tests.benchmarks.usual import BATCH
from workloads import datasets
from workloads.datasets import FASHION_MNIST
from workloads.training import EVALUATION_BATCH, Hardware, Images, train
from workloads.trial import TrialConfig

USUAL_WORKERS = 2
OPTIMIZERS: Mapping[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.001),
    "sgd_momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9),
}
"""What the loops without our code train with; ours looks the same name up in its own table."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one side trains: an epoch."""

    optimizer: str = "adam"
    images: int = 55_000
    usual_workers: int = USUAL_WORKERS
    """Processes of the usual script's DataLoader."""
    validate: bool = False
    """Evaluate the validation images too; the bare loop only."""

    @property
    def steps(self) -> int:
        """Training steps."""
        return -(-self.images // BATCH)


# -- the sides ------------------------------------------------------------------------------------------------------


@cache
def images_in_memory() -> Images:
    """Returns the prepared data, loaded once in each process."""
    return Images(datasets.load(FASHION_MNIST), torch.device("cpu"))


def ours(task: Task) -> float:
    """Returns the seconds that `train` says an epoch's training took."""
    config = TrialConfig(optimizer=task.optimizer, lr=0.001, epochs=1, train_limit=task.images)
    (record,) = train(config, images=images_in_memory())
    return record.train_seconds


def bare_loop(task: Task) -> float:
    """Returns the seconds of an epoch of a loop over tensors in memory that knows loss and accuracy in the end."""
    x, y = images_in_memory().images, images_in_memory().labels
    model = usual.lenet()
    optimizer = OPTIMIZERS[task.optimizer](model)
    loss_sum, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
    started = time.perf_counter()
    for batch in torch.randperm(task.images).split(BATCH):
        inputs, labels = x[batch], y[batch]
        optimizer.zero_grad()
        logits = model(inputs)
        loss = functional.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(batch)
        right += (logits.argmax(1) == labels).sum()
    loss_sum.item(), right.item()
    if task.validate:
        validate(model)
    return time.perf_counter() - started


def validate(model: nn.Module) -> tuple[float, int]:
    """Returns sum of the losses and number of right answers over the validation images, without our code."""
    images = images_in_memory()
    begin, end = images.data.span("val")
    loss_sum, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
    model.eval()
    with torch.inference_mode():
        for batch in torch.arange(begin, end).split(EVALUATION_BATCH):
            logits, labels = model(images.images[batch]), images.labels[batch]
            loss_sum += functional.cross_entropy(logits, labels, reduction="sum")
            right += (logits.argmax(1) == labels).sum()
    return loss_sum.item(), int(right.item())


def usual_script(task: Task) -> float:
    """Returns the seconds of an epoch as tutorials write it: images resized one by one, `.item()` at every step."""
    with tempfile.TemporaryDirectory() as root:
        usual.unpack_as_torchvision_does(Path(root))
        loader = usual.load(root, task.images, task.usual_workers).train
    model = usual.lenet()
    optimizer = OPTIMIZERS[task.optimizer](model)
    started = time.perf_counter()
    usual.train_epoch(model, loader, optimizer, after_batch=lambda: None)
    return time.perf_counter() - started


def usual_script_with_all_threads(task: Task) -> float:
    """Returns the same with torch's own number of threads, which few scripts change."""
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        return usual_script(task)
    finally:
        Hardware(threads=1).apply()


SIDES: Mapping[str, Callable[[Task], float]] = {
    "ours": ours,
    "bare loop": bare_loop,
    "usual script": usual_script_with_all_threads,
    "usual script, 1 thread": usual_script,
}
"""Name -> an epoch's seconds."""
PINNED = ("ours", "bare loop")
"""Sides that stay on one core; the usual scripts have processes of their own and take what they get."""


# -- the arithmetic floor -------------------------------------------------------------------------------------------


def flop_of_a_step() -> int:
    """Returns the floating-point operations of a step's products, forward and backward."""
    model = usual.lenet()
    counter = FlopCounterMode(display=False)
    with counter:
        functional.cross_entropy(model(torch.zeros(BATCH, 1, 32, 32)), torch.zeros(BATCH, dtype=torch.int64)).backward()
    return counter.get_total_flops()


def matrix_product_rate(size: int = 1024, times: int = 20) -> float:
    """Returns the floating-point operations a second of single-precision matrix products, the best of many."""
    one, other = torch.randn(size, size), torch.randn(size, size)
    torch.mm(one, other)

    def seconds() -> float:
        started = time.perf_counter()
        torch.mm(one, other)
        return time.perf_counter() - started

    return 2 * size**3 / min(seconds() for _ in range(times))


def floor(task: Task) -> float:
    """Returns the seconds an epoch's products alone would take."""
    return task.steps * flop_of_a_step() / matrix_product_rate()


# -- measuring ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Seconds of each round, by side; with several processes at once those of the last to end."""

    processes: int
    images: int
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, side: str) -> float:
        """Returns the median of a side's rounds, in seconds."""
        return statistics.median(self.seconds[side])

    def step_milliseconds(self, side: str) -> float:
        """Returns a step's time."""
        return 1000 * self.median(side) / Task(images=self.images).steps

    def images_per_second(self, side: str) -> float:
        """Returns the throughput of all processes together."""
        return self.processes * self.images / self.median(side)

    def ratio(self, other: str) -> float:
        """Returns how many times as fast ours is."""
        return self.median(other) / self.median("ours")


def all_cores() -> list[int]:
    """Returns the cores this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]


def measure_here(task: Task, rounds: int, sides: Sequence[str]) -> Measured:
    """Measures sides in turns in this process, after one short round to warm up."""
    for side in sides:
        SIDES[side](Task(optimizer=task.optimizer, images=BATCH, usual_workers=0))
    measured = Measured(1, task.images, {side: [] for side in sides})
    for _ in range(rounds):
        for side in sides:
            measured.seconds[side].append(SIDES[side](task))
    return measured


def measure(task: Task, rounds: int, cores: Sequence[int], sides: Sequence[str] = (*SIDES, "floor")) -> Measured:
    """Measures sides in turns, in one process for each core at the same time."""
    measured = Measured(len(cores), task.images, {side: [] for side in sides})
    context = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, mp_context=context, initializer=_warm_up, initargs=(task,)) for _ in cores]
    try:
        for _ in range(rounds):
            for side in sides:
                runs = [pool.submit(_timed, side, task, core) for pool, core in zip(pools, cores, strict=True)]
                measured.seconds[side].append(max(run.result() for run in runs))
    finally:
        for pool in pools:
            pool.shutdown()
    return measured


def _warm_up(task: Task) -> None:
    Hardware(threads=1).apply()
    for side in PINNED:
        SIDES[side](Task(optimizer=task.optimizer, images=BATCH))


def _timed(side: str, task: Task, core: int) -> float:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1) if side not in (*PINNED, "floor") else {core})
    return floor(task) if side == "floor" else SIDES[side](task)


def profiled(task: Task, rows: int = 25) -> str:
    """Returns where the time of our step goes, by operator."""
    data = images_in_memory().data
    few = [*range(data.train), data.train, len(data.labels) - 1]  # an image each to validate and to test on
    data = replace(data, images=data.images[few], labels=data.labels[few], val=1)
    config = TrialConfig(optimizer=task.optimizer, lr=0.001, epochs=1, train_limit=task.images)
    images = Images(data, torch.device("cpu"))
    list(train(config, images=images))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        list(train(config, images=images))
    shown: str = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=rows, max_name_column_width=40)
    return shown


# -- the script -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measures the training step: ours, a bare PyTorch loop, the usual script and the arithmetic floor."""

    rounds: int = 5
    """Times each side is measured, in turns."""
    images: int = 55_000
    """Images of an epoch."""
    optimizer: str = "adam"
    """Row of the optimizer table: adam or sgd_momentum."""
    profile: bool = False
    """Print where the time of our step goes, and measure nothing."""


def main() -> None:
    """Measures, prints a table and writes the raw numbers."""
    arguments = tyro.cli(Arguments, config=(tyro.conf.FlagCreatePairsOff,))
    task = Task(optimizer=arguments.optimizer, images=arguments.images)
    if arguments.profile:
        Hardware(threads=1).apply()
        print(profiled(task))
        return
    cores = all_cores()
    found = [measure(task, arguments.rounds, cores[:count]) for count in sorted({1, len(cores)})]
    measured = [vars(one) for one in found]
    table(measured).show()
    figures.write("training_step", vars(arguments), measured)


def table(measured: figures.Rows) -> figures.Table:
    """Returns the medians of every side, and how ours compares."""
    found = [Measured(**row) for row in measured]
    usual_throughput = found[0].images_per_second("usual script")
    rows = [
        (
            side,
            str(one.processes),
            f"{one.step_milliseconds(side):.2f}",
            f"{one.images_per_second(side):,.0f}",
            f"{one.ratio(side):.2f} x",
        )
        for one in found
        for side in one.seconds
    ]
    best = found[-1].images_per_second("ours")
    return figures.Table(
        ("side", "trials at once", "ms a step", "images/s", "ours is"),
        rows,
        [
            f"The whole machine: {found[-1].processes} of ours at once train {best / usual_throughput:.1f} times as "
            "many images a second as one usual script with all threads."
        ],
    )


if __name__ == "__main__":
    main()

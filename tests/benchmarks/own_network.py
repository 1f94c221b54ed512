"""A network of a user's own, an MLP with dropout on Fashion-MNIST: ours against a bare loop of the same, in turns.

    python -m tests.benchmarks.own_network [--rounds 9] [--images 12800]

Both train an epoch and know its mean loss and accuracy in the end. Prints a table and writes
`tests/benchmarks/results/own_network.json`. About a minute.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
import tyro
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from tests.benchmarks import figures
from tests.benchmarks.usual import BATCH
from workloads import Workload, datasets, own
from workloads.datasets import FASHION_MNIST
from workloads.registry import data_of, dataset_of, resolve
from workloads.training import Hardware, Images, train
from workloads.trial import TrialConfig


def network(width: int = 256, dropout: float = 0.2) -> nn.Module:
    """Returns an MLP with two hidden layers."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(1024, width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, 10),
    )


def data() -> Mapping[str, tuple[NDArray, NDArray]]:  # type: ignore[type-arg]
    """Returns Fashion-MNIST as arrays, by split; few images to validate and to test on."""
    whole = datasets.load(FASHION_MNIST)
    train_, val, test = 55_000, slice(55_000, 55_064), slice(60_000, 60_064)
    parts = {"train": slice(train_), "val": val, "test": test}
    return {split: (whole.images[rows], whole.labels[rows]) for split, rows in parts.items()}


@cache
def workload() -> tuple[str, Images]:
    """Returns the workload's name and its data, loaded once."""
    name = own.register(Workload(name="mlp", network=network, data=data))
    return name, Images(data_of(dataset_of(TrialConfig(workload=name))), torch.device("cpu"))


def ours(images: int) -> float:
    """Returns the seconds that `train` says an epoch's training took."""
    name, loaded = workload()
    config = resolve(TrialConfig(workload=name, optimizer="adam", lr=0.001, epochs=1, train_limit=images))
    (record,) = train(config, images=loaded)
    return record.train_seconds


def bare_loop(images: int) -> float:
    """Returns the seconds of an epoch of a loop over tensors in memory."""
    x, y = workload()[1].images, workload()[1].labels
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    loss_sum, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
    model.train()
    started = time.perf_counter()
    for batch in torch.randperm(images).split(BATCH):
        inputs, labels = x[batch], y[batch]
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = functional.cross_entropy(outputs, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss_sum += loss.detach() * len(batch)
        right += (outputs.argmax(1) == labels).sum()
    loss_sum.item(), right.item()
    return time.perf_counter() - started


SIDES: Mapping[str, Callable[[int], float]] = {"ours": ours, "bare loop": bare_loop}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measures the training of a user's own network: ours and a bare loop."""

    rounds: int = 9
    """Times each side is measured, in turns."""
    images: int = 12_800
    """Images of an epoch."""


def measure(rounds: int, images: int) -> list[dict[str, float]]:
    """Returns the seconds of an epoch of each side, by round, after one short round to warm up."""
    Hardware(threads=1).apply()
    for side in SIDES.values():
        side(BATCH)
    return [{name: side(images) for name, side in SIDES.items()} for _ in range(rounds)]


def table(measured: figures.Rows) -> figures.Table:
    """Returns the medians of both sides, and the median of the rounds' ratios."""
    ratio = statistics.median(row["bare loop"] / row["ours"] for row in measured)
    rows = [(side, f"{figures.median(measured, side):.2f}") for side in SIDES]
    return figures.Table(("side", "s an epoch"), rows, [f"Ours is {ratio:.2f} x as fast as the bare loop."])


def main() -> None:
    """Measures, prints a table and writes the raw numbers."""
    arguments = tyro.cli(Arguments, config=(tyro.conf.FlagCreatePairsOff,))
    measured = measure(arguments.rounds, arguments.images)
    table(measured).show()
    figures.write("own_network", vars(arguments), measured)


if __name__ == "__main__":
    main()

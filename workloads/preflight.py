"""Checks before a sweep starts: is the data normalised and shuffled, and can the network overfit one batch?

A fault in data, network or loss shows here in a second instead of in hours of training. Nothing is refused: what looks
wrong is said, and a person decides.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from workloads.datasets import Dataset
from workloads.draws import generator, global_draws
from workloads.registry import train_images
from workloads.sampling import Sampler
from workloads.training import Images, build_model
from workloads.trial import TrialConfig

OVERFIT_LOSS = 0.1
"""A batch is overfitted below this loss, in nats."""
LEARNING_RATE = 0.002
"""Of Adam: the question is put to data, network and loss, not to the sweep's slowest setting."""
STEPS = 200
"""After which a batch should be overfitted: about half a second."""
SECONDS = 2.0
"""After which overfitting the batch is given up: the machine is busy, which is no fault of the network."""
START_TOLERANCE = 0.25
"""How far the loss at the start may be from ln(classes), as a part of that."""
BATCH = 64
"""At most that many images are overfitted."""
LOOKED_AT = 1_000
"""Training images of which mean and deviation are taken."""
MEAN_WITHIN, DEVIATION_WITHIN = 0.5, (0.5, 2.0)


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What the checks saw."""

    classes: int
    start_loss: float
    """Mean over the batch with the initial weights."""
    final_loss: float
    """The same after overfitting it."""
    steps: int
    seconds: float
    mean: float
    """Of the training images, normalised."""
    deviation: float
    classes_in_batch: int
    shuffled: bool
    """Whether the images come in another order than they are kept in, and in another in the next epoch."""

    @property
    def overfits(self) -> bool:
        """Whether the batch was overfitted."""
        return self.final_loss < OVERFIT_LOSS

    def warnings(self) -> list[str]:
        """Returns what looks wrong, a sentence each."""
        found = []
        usual = math.log(self.classes)
        if not abs(self.start_loss - usual) <= START_TOLERANCE * usual:
            found.append(
                f"the loss at the start is {self.start_loss:.3g}, expected about ln({self.classes}) = {usual:.3g}: "
                "look at the initial weights and the scale of the images"
            )
        if self.steps >= STEPS and not self.overfits:
            found.append(
                f"one batch could not be overfitted: its loss went from {self.start_loss:.3g} to "
                f"{self.final_loss:.3g} in {self.steps} steps ({self.seconds:.1f} s), expected below "
                f"{OVERFIT_LOSS:g}: look at the labels and the network"
            )
        low, high = DEVIATION_WITHIN
        if not (abs(self.mean) <= MEAN_WITHIN and low <= self.deviation <= high):
            found.append(
                f"the training images have mean {self.mean:.3g} and deviation {self.deviation:.3g}, expected about 0 "
                "and 1: they are not normalised"
            )
        if not self.shuffled:
            found.append("the images come in the order they are kept in, or the same in every epoch: not shuffled")
        if self.classes_in_batch < 2:
            found.append("the first batch holds one class only: the images are sorted by class")
        return found


def check(config: TrialConfig, data: Dataset) -> Preflight:
    """Returns what a trial's data and network look like before it is trained. Takes at most a few seconds, on the CPU.

    Args:
        config: The trial, its settings complete.
        data: Its data set.
    """
    images = Images(data, torch.device("cpu"))
    available = data.labels[: train_images(config)]
    sampler = Sampler(available, len(data.classes), config.workload_settings)
    orders = [sampler.order(generator(config.seed, epoch)) for epoch in (1, 2)]
    sorted_ = torch.equal(orders[0], orders[0].sort().values)
    indices = orders[0][: min(config.batch_size, BATCH)]
    batch, labels = images.images[indices], images.labels[indices]

    model = build_model(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    started = time.perf_counter()
    losses: list[float] = []
    # Overfitting is what dropout is there to prevent; batch normalisation learns its statistics from the batch.
    model.eval()
    for layer in model.modules():
        layer.training = isinstance(layer, nn.modules.batchnorm._BatchNorm)
    with _one_thread(), global_draws(config.seed):
        while not losses or (len(losses) <= STEPS and time.perf_counter() - started < SECONDS):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(batch), labels)
            losses.append(loss.item())
            if losses[-1] < OVERFIT_LOSS:
                break
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    some = images.images[: min(LOOKED_AT, len(available))]
    return Preflight(
        classes=len(data.classes),
        start_loss=losses[0],
        final_loss=losses[-1],
        steps=len(losses) - 1,
        seconds=time.perf_counter() - started,
        mean=some.mean().item(),
        deviation=some.std().item(),
        classes_in_batch=len(set(labels.tolist())),
        shuffled=not sorted_ and not torch.equal(*orders),
    )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Small batches gain nothing from more threads, and lose much where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def report(config: TrialConfig, data: Dataset) -> list[str]:
    """Returns what to tell a person: warnings, or one line that all is well. Never raises: a check stops no sweep."""
    try:
        seen = check(config, data)
    except Exception as error:  # noqa: BLE001 - the sweep will say what is wrong with the trial itself
        return [f"checks before the start failed: {type(error).__name__}: {' '.join(str(error).split())}"]
    if warnings := seen.warnings():
        return [f"check before the start: {warning}" for warning in warnings]
    overfitted = f"overfits one batch in {seen.steps} steps"
    if not seen.overfits:
        overfitted = f"one batch not yet overfitted when {SECONDS:g} s were over (loss {seen.final_loss:.2f})"
    return [
        f"checked: loss at the start {seen.start_loss:.2f} (ln {seen.classes} = {math.log(seen.classes):.2f}), "
        f"{overfitted}, images shuffled and normalised"
    ]

"""Preflight checks: is the data normalised and shuffled, and can the network overfit one batch?

They find bugs in data, network or loss in a second instead of after hours of training. They only warn: the sweep starts
anyway.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from workloads.datasets import Dataset
from workloads.draws import generator, global_draws
from workloads.own_data import OwnDataset
from workloads.registry import objective_of_trial, train_images
from workloads.training import Images, build_model, sampler_of
from workloads.trial import TrialConfig

OVERFIT_LOSS = 0.1
"""A batch counts as overfit below this loss, in nats, if the loss is cross-entropy on class labels."""
OVERFIT_SHARE = 0.5
"""With other losses, whose values may be anything: below this fraction of the initial loss."""
LEARNING_RATE = 0.002
"""For Adam: the check is about data, network and loss, not about the sweep's own optimizers."""
STEPS = 200
"""Steps within which a batch should be overfit: about half a second."""
SECONDS = 2.0
"""Time limit for overfitting the batch; exceeding it means a busy machine, not a broken network."""
START_TOLERANCE = 0.25
"""Allowed relative deviation of the initial loss from ln(classes)."""
BATCH = 64
"""Maximum size of the batch to overfit."""
LOOKED_AT = 1_000
"""Training images used to estimate mean and standard deviation."""
MEAN_WITHIN, DEVIATION_WITHIN = 0.5, (0.5, 2.0)


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """The results of the checks."""

    classes: int
    """0 if the loss is not cross-entropy on class labels."""
    start_loss: float
    """Mean over the batch with the initial weights."""
    final_loss: float
    """Mean over the batch after training on it."""
    steps: int
    seconds: float
    mean: float | None
    """Of the training inputs; None if they are no measurements (whole numbers)."""
    deviation: float | None
    classes_in_batch: int
    shuffled: bool
    """Whether the images' order differs from the stored order and from epoch to epoch."""

    @property
    def overfits(self) -> bool:
        """Whether the batch was overfit."""
        return self.final_loss < self.overfit_loss

    @property
    def overfit_loss(self) -> float:
        """The loss below which a batch counts as overfit."""
        return OVERFIT_LOSS if self.classes else OVERFIT_SHARE * self.start_loss

    def warnings(self) -> list[str]:
        """Returns one sentence for each thing that looks wrong."""
        found = []
        usual = math.log(self.classes) if self.classes else self.start_loss
        if not abs(self.start_loss - usual) <= START_TOLERANCE * usual:
            found.append(
                f"the initial loss is {self.start_loss:.3g}, expected about ln({self.classes}) = {usual:.3g}: "
                "check the initial weights and the scale of the images"
            )
        if self.steps >= STEPS and not self.overfits:
            found.append(
                f"the network cannot overfit one batch: the loss went from {self.start_loss:.3g} to "
                f"{self.final_loss:.3g} in {self.steps} steps ({self.seconds:.1f} s), expected below "
                f"{self.overfit_loss:.2g}: check the targets and the network"
            )
        low, high = DEVIATION_WITHIN
        if (
            self.mean is not None
            and self.deviation is not None
            and not (abs(self.mean) <= MEAN_WITHIN and low <= self.deviation <= high)
        ):
            found.append(
                f"the training inputs are not normalised: mean {self.mean:.3g} and standard deviation "
                f"{self.deviation:.3g}, expected about 0 and 1: subtract the mean of the training inputs and divide by "
                "their standard deviation, a column or channel at a time"
            )
        if not self.shuffled:
            found.append("the examples are not shuffled: they come in stored order, or in the same order every epoch")
        if self.classes and self.classes_in_batch < 2:
            found.append("the first batch contains only one class: the examples seem to be sorted by class")
        return found


def check(config: TrialConfig, data: Dataset | OwnDataset) -> Preflight:
    """Runs the checks for a trial; takes at most a few seconds, on the CPU.

    Args:
        config: The trial, with all settings filled in.
        data: Its data set.
    """
    images = Images(data, torch.device("cpu"))
    sampler, loss_of = sampler_of(config, images), objective_of_trial(config).loss
    orders = [sampler.order(generator(config.batches_seed(epoch), epoch)) for epoch in (1, 2)]
    sorted_ = torch.equal(orders[0], orders[0].sort().values)
    batch, targets = images.take("train", orders[0][: min(config.batch_size, BATCH)])
    classes = len(data.classes) if loss_of.of_classes and targets.ndim == 1 else 0

    model = build_model(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    started = time.perf_counter()
    losses: list[float] = []
    # Dropout is off, as it prevents overfitting; batch normalisation uses the batch's own statistics.
    model.eval()
    for layer in model.modules():
        layer.training = isinstance(layer, nn.modules.batchnorm._BatchNorm)
    with _one_thread(), global_draws(config.seed):
        while not losses or (len(losses) <= STEPS and time.perf_counter() - started < SECONDS):
            optimizer.zero_grad()
            loss = loss_of.of(model(batch), targets)
            losses.append(loss.item())
            enough = OVERFIT_LOSS if classes else OVERFIT_SHARE * losses[0]
            if losses[-1] < enough:
                break
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    some, _ = images.take("train", torch.arange(min(LOOKED_AT, train_images(config))))
    measured = some.is_floating_point()
    return Preflight(
        classes=classes,
        start_loss=losses[0],
        final_loss=losses[-1],
        steps=len(losses) - 1,
        seconds=time.perf_counter() - started,
        mean=some.mean().item() if measured else None,
        deviation=some.std().item() if measured else None,
        classes_in_batch=len(set(targets.tolist())) if classes else 0,
        shuffled=not sorted_ and not torch.equal(*orders),
    )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Small batches gain nothing from more threads, which are slow if the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def report(config: TrialConfig, data: Dataset | OwnDataset) -> list[str]:
    """Returns the lines to print: warnings, or one line if all is well. Never raises, so it cannot stop a sweep."""
    try:
        seen = check(config, data)
    except Exception as error:  # noqa: BLE001 - the trial itself will report what is wrong
        return [f"preflight checks failed: {type(error).__name__}: {' '.join(str(error).split())}"]
    if warnings := seen.warnings():
        return [f"preflight: {warning}" for warning in warnings]
    expected = f" (ln {seen.classes} = {math.log(seen.classes):.2f})" if seen.classes else ""
    overfitted = f"overfits one batch in {seen.steps} steps"
    if not seen.overfits:
        overfitted = f"did not finish overfitting one batch in {SECONDS:g} s (loss {seen.final_loss:.2f})"
    elif not seen.classes:
        overfitted = f"halved on one batch in {seen.steps} steps"
    examples = "examples" if isinstance(data, OwnDataset) else "images"
    normalised = " and normalised" if seen.mean is not None else ""
    return [
        f"preflight: initial loss {_number(seen.start_loss)}{expected}, {overfitted}, {examples} shuffled{normalised}"
    ]


def _number(loss: float) -> str:
    return f"{loss:.2f}" if 0.1 <= loss < 1000 else f"{loss:.3g}"

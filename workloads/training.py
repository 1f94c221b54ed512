"""train: one trial, from its config to its records. Knows nothing of Ray and depends on no global state."""

from __future__ import annotations

import io
import math
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from workloads import datasets
from workloads.datasets import Dataset, Split
from workloads.lenet import initialise
from workloads.optimizers import OPTIMIZERS
from workloads.registry import WORKLOADS, dataset_of, resolve, steps_per_epoch, train_images
from workloads.schedulers import Schedule
from workloads.trial import Diverged, EpochRecord, TrialConfig

EVALUATION_BATCH = 250
"""Images evaluated at once; part of the numbers, as sums depend on it in the last bits."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a trial was granted, and how cuDNN may use it."""

    gpu: bool = False
    """Train on the (first visible) GPU."""
    threads: int = 1
    """CPU threads; results are bitwise equal only for equal numbers of them."""
    gpu_memory_fraction: float | None = None
    """The share of the GPU's memory the trial may take; None for all."""
    cudnn_benchmark: bool = False
    """`torch.backends.cudnn.benchmark`: let cuDNN try which algorithm is fastest; its choice may differ each time."""
    cudnn_deterministic: bool = True
    """`torch.backends.cudnn.deterministic`: only algorithms that give the same bits every time."""

    def apply(self) -> torch.device:
        """Sets the process up and returns the device to train on."""
        torch.set_num_threads(self.threads)
        if not self.gpu:
            return torch.device("cpu")
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        torch.backends.cudnn.deterministic = self.cudnn_deterministic
        if self.gpu_memory_fraction is not None:
            torch.cuda.set_per_process_memory_fraction(self.gpu_memory_fraction)
        return torch.device("cuda")


@dataclass(frozen=True, kw_only=True)
class State:
    """What training was after an epoch: all that is needed to go on from there."""

    model: dict[str, Tensor]
    """The network's state."""
    optimizer: dict[int, dict[str, Any]]
    """The optimizer's state for each parameter; its hyperparameters follow from the schedule."""
    history: tuple[EpochRecord, ...]
    """The records so far: a metric-driven schedule is replayed from them."""

    @property
    def epoch(self) -> int:
        """The epochs trained."""
        return len(self.history)

    def to_bytes(self) -> bytes:
        """Returns the state as a file that `torch.load(..., weights_only=True)` reads."""
        buffer = io.BytesIO()
        history = [record.to_json() for record in self.history]
        content = {"model": self.model, "optimizer": self.optimizer, "epoch": self.epoch, "history": history}
        torch.save(content, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> State:
        """Returns the state that `to_bytes` wrote. Nothing but tensors and plain values is unpickled."""
        values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        history = tuple(EpochRecord(**record) for record in values["history"])
        return cls(model=values["model"], optimizer=values["optimizer"], history=history)


def generator(*key: int) -> Generator:
    """Returns a random generator that is a function of the key, e.g. (seed, epoch)."""
    low, high = np.random.SeedSequence(key).generate_state(2, np.uint32).tolist()
    return Generator().manual_seed((high << 32) | low)


def build_model(config: TrialConfig) -> nn.Module:
    """Returns the trial's network with its initial weights, a function of the seed."""
    workload = WORKLOADS[config.workload]
    # Layers draw weights of their own from torch's global generator, which is the caller's: it stays as it was.
    with torch.random.fork_rng(devices=()):
        model = workload.model(dataset_of(config.workload), config.workload_settings)
    initialise(model, generator(config.seed))
    return model


def train(
    config: TrialConfig,
    *,
    images: Images | None = None,
    hardware: Hardware | None = None,
    start: State | None = None,
    save: Callable[[State], None] | None = None,
    test_epochs: Collection[int] = (),
) -> Iterator[EpochRecord]:
    """Trains one trial, epoch by epoch.

    Args:
        config: What to train.
        images: Its data set, on the hardware's device; None loads it.
        hardware: What to train on; None is one CPU thread.
        start: Where to go on from, a state this trial (or one equal to it so far) had; None starts afresh.
        save: Called with the state after every epoch, before the epoch's record is yielded.
        test_epochs: Evaluate the test images after these epochs too, not only after the last.

    Yields:
        A record for each epoch trained here.

    Raises:
        ValueError: The config is not valid.
        Diverged: A loss became infinite or NaN.
    """
    config = resolve(config)
    device = (hardware or Hardware()).apply()
    images = images or Images(datasets.load(dataset_of(config.workload).name), device)
    model = build_model(config).to(device)
    optimizer = OPTIMIZERS[config.optimizer].build(model, config.lr, config.optimizer_settings)
    schedule = Schedule(config, optimizer, steps_per_epoch(config))
    history = list(start.history) if start else []
    if start:
        model.load_state_dict(start.model)
        for record in history:
            schedule.replay(record.to_json())
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": start.optimizer, "param_groups": groups})

    for epoch in range(len(history) + 1, config.epochs + 1):
        started = time.perf_counter()
        lr = optimizer.param_groups[0]["lr"]
        train_loss, train_accuracy, lr_last, evaluations = _train_epoch(
            config, epoch, model, optimizer, schedule, images
        )
        trained = time.perf_counter()
        val_loss, val_accuracy = evaluate(model, images, "val")
        tests = epoch == config.epochs or config.test_every_epoch or epoch in test_epochs
        test_loss, test_accuracy = evaluate(model, images, "test") if tests else (None, None)
        evaluated = time.perf_counter()
        for name, loss in (("training", train_loss), ("validation", val_loss), ("test", test_loss)):
            if loss is not None and not math.isfinite(loss):
                raise Diverged(f"{name} loss is {loss} in epoch {epoch}")
        record = EpochRecord(
            trial_id=config.trial_id,
            epoch=epoch,
            lr=float(lr),
            lr_last=float(lr_last),
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            function_evaluations=evaluations,
            train_seconds=trained - started,
            eval_seconds=evaluated - trained,
            computed_by=config.trial_id,
        )
        schedule.step_epoch(record.to_json())
        history.append(record)
        if save is not None:
            state = optimizer.state_dict()["state"]
            save(State(model=model.state_dict(), optimizer=state, history=tuple(history)))
        yield record


class Images:
    """A data set on a device.

    Args:
        data: The data set.
        device: Where its tensors go; on the CPU they share memory with the arrays.
    """

    def __init__(self, data: Dataset, device: torch.device) -> None:
        self.data = data
        with warnings.catch_warnings():
            # Arrays in Ray's object store are read-only, and nothing here writes to them.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
            self.images = torch.from_numpy(data.images).to(device)
            self.labels = torch.from_numpy(data.labels).to(device)

    def batches(self, split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields all images (n, c, 32, 32) and labels (n,) of a split in order, at most `size` at a time."""
        begin, end = self.data.span(split)
        for low in range(begin, end, size):
            high = min(low + size, end)
            yield self.images[low:high], self.labels[low:high]


def _train_epoch(
    config: TrialConfig, epoch: int, model: nn.Module, optimizer: Any, schedule: Schedule, images: Images
) -> tuple[float, float, float, int]:
    """Trains one epoch and returns mean loss, accuracy, the last step's learning rate, and loss evaluations."""
    model.train()
    device = images.images.device
    # The training split comes first, so positions in the order are indices of images.
    order = torch.randperm(train_images(config), generator=generator(config.seed, epoch)).to(device)
    losses: list[Tensor] = []
    hits: list[Tensor] = []
    evaluations = 0
    lr = 0.0
    for indices in torch.split(order, config.batch_size):
        batch, labels = images.images[indices], images.labels[indices]
        first: list[tuple[Tensor, Tensor]] = []

        def closure() -> Tensor:
            nonlocal evaluations
            evaluations += 1
            optimizer.zero_grad()
            logits = model(batch)  # noqa: B023 - called within this turn of the loop
            loss = functional.cross_entropy(logits, labels)  # noqa: B023
            loss.backward()  # type: ignore[no-untyped-call]
            first.append((loss.detach(), logits.detach()))  # noqa: B023
            return loss

        optimizer.step(closure)
        loss, logits = first[0]
        losses.append(loss * len(labels))
        hits.append((logits.argmax(1) == labels).sum())
        lr = optimizer.param_groups[0]["lr"]
        schedule.step_batch()
    mean_loss = torch.stack(losses).double().sum().item() / len(order)
    return mean_loss, torch.stack(hits).sum().item() / len(order), lr, evaluations


def evaluate(model: nn.Module, images: Images, split: Split) -> tuple[float, float]:
    """Returns mean loss and accuracy over all images of a split, the model in evaluation mode."""
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=images.images.device)
    hits = torch.zeros((), dtype=torch.int64, device=images.images.device)
    with torch.inference_mode():
        for batch, labels in images.batches(split, EVALUATION_BATCH):
            logits = model(batch)
            loss += functional.cross_entropy(logits, labels, reduction="sum")
            hits += (logits.argmax(1) == labels).sum()
    begin, end = images.data.span(split)
    return loss.item() / (end - begin), hits.item() / (end - begin)


def seconds_per_epoch(config: TrialConfig, hardware: Hardware) -> float:
    """Returns about how long an epoch takes, from a few steps on made-up images.

    Args:
        config: The trial, its settings complete.
        hardware: What it would be trained on.
    """
    device = hardware.apply()
    dataset = dataset_of(config.workload)
    model = build_model(config).to(device)
    optimizer = OPTIMIZERS[config.optimizer].build(model, config.lr, config.optimizer_settings)
    shape = (config.batch_size, dataset.channels, datasets.SIZE, datasets.SIZE)
    batch = torch.zeros(shape, device=device)
    labels = torch.zeros(config.batch_size, dtype=torch.int64, device=device)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(batch), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def timed(action: Callable[[], object], times: int) -> float:
        action()
        started = time.perf_counter()
        for _ in range(times):
            action()
        if hardware.gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / times

    step = timed(lambda: optimizer.step(closure), 10)  # type: ignore[arg-type]
    with torch.inference_mode():
        forward = timed(lambda: model(batch), 10) / config.batch_size
    return step * steps_per_epoch(config) + forward * dataset.val

"""train: one trial, from its config to its records. Knows nothing of Ray and depends on no global state."""

from __future__ import annotations

import copy
import io
import math
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from workloads import datasets
from workloads.augmentation import Augmentation
from workloads.datasets import Dataset, DatasetRow, Split
from workloads.draws import generator, global_draws
from workloads.optimizers import OPTIMIZERS
from workloads.registry import WORKLOADS, about_imbalance, dataset_of, resolve, steps_per_epoch, train_images
from workloads.sampling import Sampler
from workloads.schedulers import Schedule
from workloads.trial import Diverged, EpochRecord, TrialConfig, canonical_json

EVALUATION_BATCH = 250
"""Images evaluated at once; part of the numbers, as sums depend on it in the last bits."""

_AUGMENTATION, _NETWORK, _EVALUATION = 1, 2, 3
"""Keep the draws of augmentation, and those inside a network, apart from those of the order."""


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
class ImageFormat:
    """What has to be known of the images a network was trained on to show it another one."""

    classes: tuple[str, ...]
    """What the network's outputs mean, in their order."""
    channels: int
    size: int
    """Height and width, in pixels."""
    mean: tuple[float, ...]
    """Per channel, taken off the pixels scaled to [0, 1]."""
    std: tuple[float, ...]
    """Per channel, what is left is divided by it."""

    @classmethod
    def of(cls, data: Dataset) -> ImageFormat | None:
        """Returns the format of a data set; None if it does not say how it was normalised."""
        if not data.mean:
            return None
        _, channels, size, _ = data.images.shape
        return cls(classes=data.classes, channels=channels, size=size, mean=data.mean, std=data.std)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ImageFormat:
        """Returns the format that `asdict` described."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class State:
    """What training was after an epoch: all that is needed to go on from there."""

    config: TrialConfig
    """What was trained, its settings complete."""
    model: dict[str, Tensor]
    """The network's state."""
    optimizer: dict[int, dict[str, Any]]
    """The optimizer's state for each parameter; its hyperparameters follow from the schedule."""
    history: tuple[EpochRecord, ...]
    """The records so far: a metric-driven schedule is replayed from them."""
    images: ImageFormat | None = None
    """What the images were like, for those who use the network; None in old checkpoints. Going on does not need it."""

    @property
    def epoch(self) -> int:
        """The epochs trained."""
        return len(self.history)

    def to_bytes(self) -> bytes:
        """Returns the state as a file that `torch.load(..., weights_only=True)` reads."""
        buffer = io.BytesIO()
        history = [record.to_json() for record in self.history]
        content = {
            "config": self.config.to_json(),
            "model": self.model,
            "optimizer": self.optimizer,
            "epoch": self.epoch,
            "history": history,
            "images": None if self.images is None else asdict(self.images),
        }
        torch.save(content, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> State:
        """Returns the state that `to_bytes` wrote. Nothing but tensors and plain values is unpickled."""
        values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        history = tuple(EpochRecord(**record) for record in values["history"])
        config = TrialConfig.from_json(values["config"])
        images = values.get("images")
        return cls(
            config=config,
            model=values["model"],
            optimizer=values["optimizer"],
            history=history,
            images=None if images is None else ImageFormat.from_json(images),
        )


def build_model(config: TrialConfig, dataset: DatasetRow | None = None) -> nn.Module:
    """Returns the trial's network with its initial weights, a function of the seed whatever its layers are.

    Args:
        config: The trial, its settings complete.
        dataset: What is known of the data set; None looks it up.
    """
    workload = WORKLOADS[config.workload]
    with global_draws(config.seed, 0, _NETWORK):
        model = workload.model(dataset or dataset_of(config), config.workload_settings)
    if workload.initialise is not None:
        workload.initialise(model, generator(config.seed))
    return model


def train(
    config: TrialConfig,
    *,
    images: Images | None = None,
    hardware: Hardware | None = None,
    start: State | None = None,
    save: Callable[[State], object] | None = None,
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
        InputError: The config is not valid.
        Diverged: A loss became infinite or NaN.
    """
    config = resolve(config)
    device = (hardware or Hardware()).apply()
    images = images or Images(datasets.load(dataset_of(config)), device)
    model = build_model(config).to(device)
    optimizer = OPTIMIZERS[config.optimizer].build(model, config.lr, config.optimizer_settings)
    schedule = Schedule(config, optimizer, steps_per_epoch(config))
    history = list(start.history) if start else []
    if start:
        model.load_state_dict(start.model)
        for record in history:
            schedule.replay(record.to_json())
        groups = optimizer.state_dict()["param_groups"]
        # torch takes the tensors it is given as its own, and changes them in training.
        optimizer.load_state_dict({"state": copy.deepcopy(start.optimizer), "param_groups": groups})

    begin, _ = images.data.span("train")
    available = images.data.labels[begin : begin + train_images(config)]
    sampler = Sampler(available, len(images.data.classes), config.workload_settings)
    step = _Step(config, model, optimizer, sampler.class_weights(), images.images.device)
    image_format = ImageFormat.of(images.data)
    for epoch in range(len(history) + 1, config.epochs + 1):
        started = time.perf_counter()
        lr = optimizer.param_groups[0]["lr"]
        # Seeded once for all steps: they draw in turn, so what a step draws is a function of seed, epoch and step.
        with global_draws(config.seed, epoch, _NETWORK, device=images.images.device):
            trained_epoch = _train_epoch(config, epoch, step, sampler, schedule, images)
        trained = time.perf_counter()
        val = evaluate(model, images, "val")
        tests = epoch == config.epochs or config.test_every_epoch or epoch in test_epochs
        test = evaluate(model, images, "test") if tests else None
        evaluated = time.perf_counter()
        by_class = about_imbalance(config)
        # Not the test loss, which a training that shares this path may ask for and this one not: no outcome of one may
        # depend on what another looks at.
        for name, loss in {"training": trained_epoch.loss, "validation": val.loss}.items():
            if not math.isfinite(loss):
                raise Diverged(f"{name} loss is {loss} in epoch {epoch}")
        record = EpochRecord(
            trial_id=config.trial_id,
            epoch=epoch,
            lr=float(lr),
            lr_last=float(trained_epoch.lr_last),
            train_loss=trained_epoch.loss,
            train_accuracy=trained_epoch.accuracy,
            val_loss=val.loss,
            val_accuracy=val.accuracy,
            test_loss=_finite(test.loss) if test else None,
            test_accuracy=test.accuracy if test else None,
            function_evaluations=trained_epoch.evaluations,
            train_seconds=trained - started,
            eval_seconds=evaluated - trained,
            computed_by=config.trial_id,
            grad_norm=_finite(trained_epoch.grad_norm),
            val_balanced_accuracy=val.balanced_accuracy if by_class else None,
            val_class_accuracy=canonical_json(val.class_accuracy) if by_class else None,
            test_balanced_accuracy=test.balanced_accuracy if test and by_class else None,
            test_class_accuracy=canonical_json(test.class_accuracy) if test and by_class else None,
        )
        schedule.step_epoch(record.to_json())
        history.append(record)
        if save is not None:
            tensors = {"model": model.state_dict(), "optimizer": optimizer.state_dict()["state"]}
            # Copies: training goes on in these very tensors.
            save(State(config=config, history=tuple(history), images=image_format, **copy.deepcopy(tensors)))
        yield record


def _finite(value: float | None) -> float | None:
    """Returns a number that a record can hold: None for one that is infinite or NaN."""
    return value if value is not None and math.isfinite(value) else None


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


class _Step:
    """One training step: gradient of the loss on a batch, clipped if that is asked for, and the optimizer's step."""

    def __init__(
        self, config: TrialConfig, model: nn.Module, optimizer: Any, class_weights: Tensor | None, device: torch.device
    ) -> None:
        settings = config.workload_settings
        self.model = model
        self.optimizer = optimizer
        self.evaluations = 0
        self._parameters = list(model.parameters())
        self._loss: dict[str, Any] = {
            "weight": None if class_weights is None else class_weights.to(device),
            "label_smoothing": settings["label_smoothing"],
        }
        self._clip_norm: Any = settings["clip_norm"]

    def __call__(self, batch: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns loss, logits and, where gradients are clipped, their norm before that: of the first evaluation."""
        first: list[tuple[Tensor, Tensor, Tensor | None]] = []

        def closure() -> Tensor:
            self.evaluations += 1
            self.optimizer.zero_grad()
            logits = self.model(batch)
            loss = functional.cross_entropy(logits, labels, **self._loss)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = None
            if self._clip_norm is not None:
                norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
            first.append((loss.detach(), logits.detach(), norm))
            return loss

        self.optimizer.step(closure)
        return first[0]


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """What an epoch of training measured."""

    loss: float
    accuracy: float
    grad_norm: float | None
    lr_last: float
    evaluations: int


def _train_epoch(
    config: TrialConfig, epoch: int, step: _Step, sampler: Sampler, schedule: Schedule, images: Images
) -> _Trained:
    step.model.train()
    device = images.images.device
    # The training split comes first, so positions in the order are indices of images.
    order = sampler.order(generator(config.seed, epoch)).to(device)
    augment, draws = Augmentation.of(config.workload_settings), generator(config.seed, epoch, _AUGMENTATION)
    losses: list[Tensor] = []
    hits: list[Tensor] = []
    norms: list[Tensor] = []
    evaluations, lr = step.evaluations, 0.0
    for indices in torch.split(order, config.batch_size):
        labels = images.labels[indices]
        loss, logits, norm = step(augment(images.images[indices], draws), labels)
        losses.append(loss * len(labels))
        hits.append((logits.argmax(1) == labels).sum())
        if norm is not None:
            norms.append(norm)
        lr = step.optimizer.param_groups[0]["lr"]
        schedule.step_batch()
    return _Trained(
        loss=torch.stack(losses).double().sum().item() / len(order),
        accuracy=torch.stack(hits).sum().item() / len(order),
        grad_norm=torch.stack(norms).double().mean().item() if norms else None,
        lr_last=lr,
        evaluations=step.evaluations - evaluations,
    )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a network makes of a split's images, all of them."""

    images: int
    loss: float
    """Mean over the images: plain cross-entropy, whatever was minimised."""
    accuracy: float
    class_accuracy: tuple[float | None, ...]
    """Of each class; None for one without images."""

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the classes' accuracies."""
        found = [accuracy for accuracy in self.class_accuracy if accuracy is not None]
        return math.fsum(found) / len(found)


def evaluate(model: nn.Module, images: Images, split: Split) -> Evaluation:
    """Returns loss and accuracies over all images of a split, the model in evaluation mode, without gradients.

    A model that draws random numbers even so is given the same ones every time.
    """
    model.eval()
    device = images.images.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    right: list[Tensor] = []
    with torch.inference_mode(), global_draws(0, 0, _EVALUATION, device=device):
        for batch, labels in images.batches(split, EVALUATION_BATCH):
            logits = model(batch)
            loss += functional.cross_entropy(logits, labels, reduction="sum")
            right.append(logits.argmax(1) == labels)
        begin, end = images.data.span(split)
        hit = images.labels[begin:end][torch.cat(right)]
        classes = len(images.data.classes)
        counts = [torch.bincount(some, minlength=classes).tolist() for some in (hit, images.labels[begin:end])]
    return Evaluation(
        images=end - begin,
        loss=loss.item() / (end - begin),
        accuracy=sum(counts[0]) / (end - begin),
        class_accuracy=tuple(hits / all_ if all_ else None for hits, all_ in zip(*counts, strict=True)),
    )


def seconds_per_epoch(config: TrialConfig, hardware: Hardware) -> float:
    """Returns about how long an epoch takes, from a few steps on made-up images.

    Args:
        config: The trial, its settings complete.
        hardware: What it would be trained on.
    """
    device = hardware.apply()
    dataset = dataset_of(config)
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

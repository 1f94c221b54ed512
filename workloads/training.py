"""train: trains one trial, from its config to its records. Independent of Ray and of global state."""

from __future__ import annotations

import copy
import io
import math
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workloads.augmentation import Augmentation
from workloads.datasets import SIZE, Dataset, Split
from workloads.draws import generator, global_draws
from workloads.errors import InputError
from workloads.objectives import CLASSIFICATION, Objective, accuracy, measured
from workloads.optimizers import OPTIMIZERS
from workloads.own_data import SPLITS, OwnData, OwnDataset, Part
from workloads.registry import (
    WORKLOADS,
    DataSource,
    about_imbalance,
    data_of,
    dataset_of,
    objective_of_trial,
    resolve,
    settings_of,
    steps_per_epoch,
    train_images,
)
from workloads.sampling import Sampler
from workloads.schedulers import Schedule
from workloads.states import History, Names, tensors_digest
from workloads.trial import Diverged, EpochRecord, TrialConfig, canonical_json, packed

EVALUATION_BATCH = 250
"""Images per evaluation batch; changing it changes the last bits of the results."""

CONTEXT_BYTES = 512 * 2**20
"""What a process takes of a GPU's memory besides what torch allocates for tensors: CUDA's context, and its kernels."""

_AUGMENTATION, _NETWORK, _EVALUATION = 1, 2, 3
"""Key parts that make the draws for augmentation, network and evaluation independent of those for the image order."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The resources granted to a trial, and how a GPU computes."""

    gpu: bool = False
    """Train on the (first visible) GPU."""
    threads: int = 1
    """CPU threads; results are bitwise equal only for the same number of threads."""
    gpu_memory_fraction: float | None = None
    """The fraction of the GPU's memory the trial's process may use; None for all."""
    cudnn_benchmark: bool = False
    """`torch.backends.cudnn.benchmark`: let cuDNN pick the fastest algorithm; its choice may vary between runs."""
    cudnn_deterministic: bool = True
    """`torch.backends.cudnn.deterministic`: use only deterministic algorithms."""
    tf32: bool = False
    """Let GPUs that can (Ampere and later) round the factors of convolutions and matrix products to 10 bits, which is
    faster; torch does so for convolutions unless it is told not to."""

    def apply(self) -> torch.device:
        """Configures the process and returns the device to train on.

        Raises:
            InputError: The fraction of the GPU's memory is too small for any process.
        """
        torch.set_num_threads(self.threads)
        if not self.gpu:
            return torch.device("cpu")
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        torch.backends.cudnn.deterministic = self.cudnn_deterministic
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.tf32
        if self.gpu_memory_fraction is not None:
            torch.cuda.set_per_process_memory_fraction(self._fraction_of_tensors(self.gpu_memory_fraction))
        elif torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            # A worker trains many paths, and may have had less before.
            torch.cuda.set_per_process_memory_fraction(1.0)
        return torch.device("cuda")

    @staticmethod
    def _fraction_of_tensors(fraction: float) -> float:
        """Returns the fraction of the GPU's memory left for tensors, so that as many processes as it says do fit."""
        total: int = torch.cuda.get_device_properties(0).total_memory
        if fraction * total <= CONTEXT_BYTES:
            raise InputError(
                f"{fraction:g} of a GPU with {total / 2**30:.3g} GiB is not enough for a process, which takes "
                f"{CONTEXT_BYTES / 2**30:g} GiB before it trains anything: give each trial more with --gpus-per-trial"
            )
        return fraction - CONTEXT_BYTES / total


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """The format of a network's training images, needed to prepare new ones."""

    classes: tuple[str, ...]
    """The class names, in the order of the network's outputs."""
    channels: int
    size: int
    """Height and width, in pixels."""
    mean: tuple[float, ...]
    """Mean per channel, subtracted from pixels scaled to [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation per channel, by which the result is divided."""

    @classmethod
    def of(cls, data: Dataset | OwnDataset) -> ImageFormat | None:
        """Returns the format of a data set; None if its normalisation is unknown."""
        if isinstance(data, OwnDataset) or not data.mean:
            return None
        _, channels, size, _ = data.images.shape
        return cls(classes=data.classes, channels=channels, size=size, mean=data.mean, std=data.std)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ImageFormat:
        """Returns the format from the output of `asdict`."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class State:
    """The state of training after an epoch: everything needed to resume."""

    config: TrialConfig
    """The trial, with all settings filled in."""
    model: dict[str, Tensor]
    """The network's state."""
    optimizer: dict[int, dict[str, Any]]
    """The optimizer's state for each parameter; its hyperparameters follow from the schedule."""
    history: tuple[EpochRecord, ...]
    """The records so far, from which a metric-driven schedule is replayed."""
    images: ImageFormat | None = None
    """The image format, for inference; None in old checkpoints. Not needed to resume."""

    @property
    def epoch(self) -> int:
        """The number of epochs trained."""
        return len(self.history)

    @property
    def digest(self) -> str:
        """The name of the state: a function of its values (`workloads.states`)."""
        return tensors_digest({"model": self.model, "optimizer": self.optimizer}) + History(self.history).digest

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
        """Returns the state from the output of `to_bytes`. Only tensors and plain values are unpickled."""
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


def build_model(config: TrialConfig, dataset: DataSource | None = None) -> nn.Module:
    """Returns the trial's network with its initial weights, which are a function of its `weights_seed`.

    Args:
        config: The trial, with all settings filled in.
        dataset: The row of its data set; None looks it up.
    """
    workload = WORKLOADS[config.workload]
    with global_draws(config.weights_seed, 0, _NETWORK):
        model = workload.model(dataset or dataset_of(config), config.workload_settings)
    if workload.initialise is not None:
        workload.initialise(model, generator(config.weights_seed))
    return model


def initial_digest(config: TrialConfig) -> str:
    """Returns the digest of the state that a trial begins with, on the CPU: a function of its seed.

    Args:
        config: The trial, with all settings filled in.
    """
    model = build_model(config)
    optimizer = OPTIMIZERS[config.optimizer].build(model, config.lr, config.optimizer_settings)
    return State(config=config, history=(), **_tensors(model, optimizer)).digest


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
        config: The trial.
        images: Its data set, on the hardware's device; None loads it.
        hardware: What to train on; None means one CPU thread.
        start: A state to resume from, of this trial or of one identical up to there; None starts from scratch.
        save: Called with the state after every epoch, before the epoch's record is yielded.
        test_epochs: Evaluate the test images after these epochs, in addition to the last.

    Yields:
        A record for each epoch trained here.

    Raises:
        InputError: The config is not valid.
        Diverged: A loss became infinite or NaN.
    """
    config = resolve(config)
    device = (hardware or Hardware()).apply()
    images = images or Images(data_of(dataset_of(config)), device)
    model = build_model(config).to(device)
    optimizer = OPTIMIZERS[config.optimizer].build(model, config.lr, config.optimizer_settings)
    schedule = Schedule(config, optimizer, steps_per_epoch(config))
    history = list(start.history) if start else []
    if start:
        model.load_state_dict(start.model)
        for record in history:
            schedule.replay(record.to_json())
        groups = optimizer.state_dict()["param_groups"]
        # A copy, because torch keeps the given tensors and changes them in training.
        optimizer.load_state_dict({"state": copy.deepcopy(start.optimizer), "param_groups": groups})

    sampler = sampler_of(config, images)
    objective = objective_of_trial(config)
    step = _Step(config, model, optimizer, sampler.class_weights(), images.device)
    image_format = ImageFormat.of(images.data)
    names = Names(_tensors(model, optimizer), history)
    for epoch in range(len(history) + 1, config.epochs + 1):
        started = time.perf_counter()
        lr = optimizer.param_groups[0]["lr"]
        # Seeded once per epoch: the steps draw in order, so a step's draws are a function of seed, epoch and step.
        with global_draws(config.batches_seed(epoch), epoch, _NETWORK, device=images.device):
            trained_epoch = _train_epoch(config, epoch, step, sampler, schedule, images)
        trained = time.perf_counter()
        val = evaluate(model, images, "val", objective)
        tests = epoch == config.epochs or config.test_every_epoch or epoch in test_epochs
        test = evaluate(model, images, "test", objective) if tests else None
        evaluated = time.perf_counter()
        by_class = about_imbalance(config)
        # Not the test loss: trials that share this path may evaluate it at different epochs, which must not change
        # their outcome.
        outcome = {"training loss": trained_epoch.loss, "validation loss": val.loss}
        for name, value in (outcome | {f"validation {objective.measure.name}": val.accuracy}).items():
            if not math.isfinite(value):
                raise Diverged(f"{name} is {value} in epoch {epoch}")
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
            val_right=packed(val.right.tolist()) if config.per_image and val.right is not None else None,
        )
        schedule.step_epoch(record.to_json())
        tensors = _tensors(model, optimizer)
        record = names.added_to(record, tensors)
        history.append(record)
        if save is not None:
            # A copy, because training continues in these tensors.
            save(State(config=config, history=tuple(history), images=image_format, **copy.deepcopy(tensors)))
        yield record


def _tensors(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    """Returns the tensors that training changes, as fields of a `State`."""
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()["state"]}


def _finite(value: float | None) -> float | None:
    """Returns None instead of an infinite or NaN value."""
    return value if value is not None and math.isfinite(value) else None


class Images:
    """A data set on a device: images or whatever else the inputs of its examples are.

    Args:
        data: The data set.
        device: The device of its tensors; on the CPU they share memory with the arrays.
    """

    def __init__(self, data: Dataset | OwnDataset, device: torch.device) -> None:
        self.data = data
        self.device = device
        parts = data.parts if isinstance(data, OwnDataset) else _parts(data)
        # Splits may be rows of the same arrays, which go to the device once.
        moved: dict[int, Tensor] = {}
        self._parts = {split: _Examples(part, device, moved) for split, part in parts.items()}

    @property
    def images(self) -> Tensor:
        """All images of a data set of images, in the order train, validation, test."""
        return self._parts["train"].inputs_of_all

    @property
    def labels(self) -> Tensor:
        """Their labels."""
        return self._parts["train"].targets_of_all

    def count(self, split: Split) -> int:
        """Returns the number of examples of a split."""
        return self._parts[split].count

    def take(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the inputs and targets of some examples of a split."""
        return self._parts[split].take(indices)

    def targets(self, split: Split, count: int | None = None) -> Tensor:
        """Returns the targets of the first examples of a split; None for all."""
        part = self._parts[split]
        return part.slice(0, part.count if count is None else count)[1]

    def batches(self, split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the inputs (n, ...) and targets (n, ...) of a split in order, at most `size` at a time."""
        part = self._parts[split]
        for low in range(0, part.count, size):
            yield part.slice(low, min(low + size, part.count))


def _parts(data: Dataset) -> Mapping[Split, Part]:
    """Returns the splits of a data set whose images are in the order train, validation, test."""
    whole = Part(inputs=data.images, targets=data.labels)
    return {split: replace(whole, span=data.span(split)) for split in SPLITS}


class _Examples:
    """The examples of a split on a device."""

    def __init__(self, part: Part, device: torch.device, moved: dict[int, Tensor]) -> None:
        def tensor(array: NDArray[Any]) -> Tensor:
            if id(array) not in moved:
                with warnings.catch_warnings():
                    # Arrays in Ray's object store are read-only; we never write to them.
                    warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
                    moved[id(array)] = torch.from_numpy(array).to(device)
            return moved[id(array)]

        self.inputs_of_all, self.targets_of_all = tensor(part.inputs), tensor(part.targets)
        self._order = None if part.order is None else tensor(part.order)
        self._begin, self._end = part.bounds
        self.count = len(part)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the inputs and targets of some examples."""
        if self._order is not None:
            indices = self._order[indices]
        elif self._begin:
            indices = indices + self._begin
        return self.inputs_of_all[indices], self.targets_of_all[indices]

    def slice(self, low: int, high: int) -> tuple[Tensor, Tensor]:
        """Returns the inputs and targets of the examples from `low` to before `high`."""
        if self._order is not None:
            rows = self._order[low:high]
            return self.inputs_of_all[rows], self.targets_of_all[rows]
        begin, end = self._begin + low, self._begin + high
        return self.inputs_of_all[begin:end], self.targets_of_all[begin:end]


def sampler_of(config: TrialConfig, images: Images) -> Sampler:
    """Returns what draws the training examples of a trial's epochs.

    Args:
        config: The trial, with all settings filled in.
        images: Its data set.
    """
    labels = images.targets("train", train_images(config)).cpu().numpy()
    return Sampler(labels, len(images.data.classes), settings_of(config))


class _Step:
    """One training step: gradient of the loss on a batch, optional clipping, and the optimizer's step."""

    def __init__(
        self, config: TrialConfig, model: nn.Module, optimizer: Any, class_weights: Tensor | None, device: torch.device
    ) -> None:
        settings = settings_of(config)
        self.objective = objective_of_trial(config)
        self.model = model
        self.optimizer = optimizer
        self.evaluations = 0
        self._parameters = list(model.parameters())
        self._loss: dict[str, Any] = {}
        if self.objective.loss.of_classes:
            self._loss["weight"] = None if class_weights is None else class_weights.to(device)
            self._loss["label_smoothing"] = settings["label_smoothing"]
        self._clip_norm: Any = settings["clip_norm"]

    def __call__(self, batch: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns loss, outputs and, if gradients are clipped, their norm before that: of the first evaluation."""
        first: list[tuple[Tensor, Tensor, Tensor | None]] = []

        def closure() -> Tensor:
            self.evaluations += 1
            self.optimizer.zero_grad()
            outputs = self.model(batch)
            loss = self.objective.loss.of(outputs, targets, **self._loss)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = None
            if self._clip_norm is not None:
                norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
            first.append((loss.detach(), outputs.detach(), norm))
            return loss

        self.optimizer.step(closure)
        return first[0]


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """The training metrics of an epoch."""

    loss: float
    accuracy: float | None
    """The workload's measure, whatever it is; None if it needs a whole split."""
    grad_norm: float | None
    lr_last: float
    evaluations: int


def _train_epoch(
    config: TrialConfig, epoch: int, step: _Step, sampler: Sampler, schedule: Schedule, images: Images
) -> _Trained:
    step.model.train()
    seed = config.batches_seed(epoch)
    order = sampler.order(generator(seed, epoch)).to(images.device)
    batches = torch.split(order, config.batch_size)
    augment, size = Augmentation.of(settings_of(config)), images.images.shape[-2:]
    draws = augment.draw([len(batch) for batch in batches], size, generator(seed, epoch, _AUGMENTATION), images.device)
    losses: list[Tensor] = []
    values: list[Tensor] = []
    norms: list[Tensor] = []
    evaluations, lr = step.evaluations, 0.0
    for indices, drawn in zip(batches, draws, strict=True):
        batch, targets = images.take("train", indices)
        loss, outputs, norm = step(augment(batch, drawn), targets)
        losses.append(loss * len(targets))
        value = step.objective.batch_sum(outputs, targets, losses[-1])
        if value is not None:
            values.append(value)
        if norm is not None:
            norms.append(norm)
        lr = step.optimizer.param_groups[0]["lr"]
        schedule.step_batch()
    return _Trained(
        loss=torch.stack(losses).double().sum().item() / len(order),
        accuracy=torch.stack(values).sum().item() / len(order) if values else None,
        grad_norm=torch.stack(norms).double().mean().item() if norms else None,
        lr_last=lr,
        evaluations=step.evaluations - evaluations,
    )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A network's results on all examples of a split."""

    images: int
    """Number of examples."""
    loss: float
    """Mean over the examples, without smoothing or weights."""
    accuracy: float
    """The workload's measure, whatever it is."""
    class_accuracy: tuple[float | None, ...] = ()
    """Accuracy of each class, None for a class without examples; empty unless an example has one class label."""
    right: Tensor | None = None
    """Which examples are right (n,), bool; None unless each is right or wrong."""

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the classes' accuracies."""
        found = [accuracy for accuracy in self.class_accuracy if accuracy is not None]
        return math.fsum(found) / len(found)


def evaluate(model: nn.Module, images: Images, split: Split, objective: Objective = CLASSIFICATION) -> Evaluation:
    """Returns loss and measure over all examples of a split, in evaluation mode and without gradients.

    A model that still draws random numbers in evaluation mode gets the same ones every time.

    Args:
        model: The network.
        images: The data set.
        split: Which examples.
        objective: What to measure.
    """
    model.eval()
    device, measurement = images.device, objective.measurement
    loss = torch.zeros((), dtype=torch.float64, device=device)
    found: list[Tensor] = []
    with torch.inference_mode(), global_draws(0, 0, _EVALUATION, device=device):
        for batch, targets in images.batches(split, EVALUATION_BATCH):
            outputs = model(batch)
            total = objective.loss.total(outputs, targets)
            loss += total
            if measurement.of is None:
                found.append(total.double())
            else:
                found.append(outputs if measurement.whole else measurement.of(outputs, targets))
        count, all_targets = images.count(split), images.targets(split)
        if measurement.whole:
            assert measurement.of is not None
            value = measured(measurement.of(torch.cat(found), all_targets))
        elif measurement.of is None:
            value = loss.item() / count
        else:
            value = torch.cat(found).sum(dtype=torch.float64).item() / count
        right = torch.cat(found) if measurement.of is accuracy and found[0].dtype == torch.bool else None
        by_class = () if right is None else _by_class(right, all_targets, images)
    return Evaluation(images=count, loss=loss.item() / count, accuracy=value, class_accuracy=by_class, right=right)


def _by_class(right: Tensor, labels: Tensor, images: Images) -> tuple[float | None, ...]:
    """Returns the accuracy of each class (`Evaluation.class_accuracy`)."""
    classes = len(images.data.classes)
    if labels.ndim != 1 or labels.is_floating_point() or not classes:
        return ()
    counts = [torch.bincount(some, minlength=classes).tolist() for some in (labels[right], labels)]
    return tuple(hits / all_ if all_ else None for hits, all_ in zip(*counts, strict=True))


def seconds_per_epoch(config: TrialConfig, hardware: Hardware) -> float:
    """Estimates how long an epoch takes, from a few steps on made-up or sample examples.

    Args:
        config: The trial, with all settings filled in.
        hardware: The hardware to train on.
    """
    device = hardware.apply()
    dataset, objective = dataset_of(config), objective_of_trial(config)
    model = build_model(config).to(device)
    optimizer = OPTIMIZERS[config.optimizer].build(model, config.lr, config.optimizer_settings)
    batch, targets = (tensor.to(device) for tensor in _some_batch(config))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective.loss.of(model(batch), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def now() -> float:
        if hardware.gpu:  # it works on what it was given while the program goes on
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(action: Callable[[], object], times: int) -> float:
        action()
        started = now()
        for _ in range(times):
            action()
        return (now() - started) / times

    step = timed(lambda: optimizer.step(closure), 10)  # type: ignore[arg-type]
    with torch.inference_mode():
        forward = timed(lambda: model(batch), 10) / config.batch_size
    return step * steps_per_epoch(config) + forward * dataset.val


def _some_batch(config: TrialConfig) -> tuple[Tensor, Tensor]:
    """Returns a batch of a trial's size: black images, or examples of a user's own data, repeated."""
    source = dataset_of(config)
    if isinstance(source, OwnData):
        part = source.sample.parts["train"]
        rows = torch.arange(config.batch_size) % len(part)
        return torch.from_numpy(part.inputs)[rows], torch.from_numpy(part.targets)[rows]
    shape = (config.batch_size, source.channels, SIZE, SIZE)
    return torch.zeros(shape), torch.zeros(config.batch_size, dtype=torch.int64)

"""Trains on the pretended GPU, and prints what it saw as a line of JSON for each case.

    python -m tests.workloads.on_pretended_gpu

A process of its own, as the device stays in the process that has set it up.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.workloads.pretended_gpu import COUNTS, NAME, DeviceMismatchError, pretended_gpu, set_up
from workloads import training
from workloads.augmentation import Augmentation
from workloads.datasets import SIZE, Dataset
from workloads.draws import generator
from workloads.evaluate import check_accuracy
from workloads.optimizers import OPTIMIZERS
from workloads.training import Hardware, Images, State, train
from workloads.trial import CLOCK_FIELDS, EpochRecord, TrialConfig

TRAIN, VAL, TEST, CLASSES, BATCH = 100, 300, 20, 4, 30
"""Images of each split: four steps an epoch, the last smaller, and two batches of validation."""
STEPS = -(-TRAIN // BATCH)
BASE = TrialConfig(workload="lenet_synthetic", epochs=2, train_limit=TRAIN, batch_size=BATCH, lr=0.001)

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "label_smoothing": {"label_smoothing": 0.1},
    "clip_norm": {"clip_norm": 1.0},
    "shift": {"shift": 3},
    "flip": {"flip": True},
    "erasing": {"erasing": 0.5},
    "batch_norm": {"batch_norm": True},
    "class_weights": {"balance": "class_weights", "thin_classes": (0,), "thin_to": 0.5},
    "oversample": {"balance": "oversample", "thin_classes": (0,), "thin_to": 0.5},
}
EVERYTHING = {name: value for settings in SETTINGS.values() for name, value in settings.items()}
SCHEDULES: Mapping[str, Mapping[str, Any]] = {
    "cosine": {},
    "one_cycle": {},
    "plateau": {"patience": 0},
    "none": {"warmup_epochs": 1},
}


def cases() -> Iterator[tuple[str, TrialConfig]]:
    """Yields the trials, each with its name."""
    for name, row in OPTIMIZERS.items():
        if not row.not_applicable:
            yield f"optimizer {name}", BASE.replace(optimizer=name, lr=row.lrs[len(row.lrs) // 2])
    for name, settings in SETTINGS.items():
        yield f"setting {name}", BASE.replace(workload_settings=settings)
    for name, settings in SCHEDULES.items():
        yield f"schedule {name}", BASE.replace(scheduler=name, scheduler_settings=settings)
    for name in ("sgd_momentum", "muon", "nadam"):
        yield f"everything, {name}", BASE.replace(optimizer=name, workload_settings=EVERYTHING)


def made_up() -> Dataset:
    """Returns noise with labels."""
    random, count = np.random.default_rng(0), TRAIN + VAL + TEST
    images = random.standard_normal((count, 1, SIZE, SIZE), dtype=np.float32)
    labels = random.integers(0, CLASSES, count)
    classes = tuple(map(str, range(CLASSES)))
    return Dataset(name="noise", images=images, labels=labels, train=TRAIN, val=VAL, classes=classes, digest="")


class Spy:
    """Counts what happens within a function, call by call."""

    def __init__(self, name: str) -> None:
        self._function = getattr(training, name)
        self.calls: list[Counter[str]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = Counter(COUNTS)
        found = self._function(*args, **kwargs)
        self.calls.append(Counter(COUNTS) - before)
        return found


def places(state: State) -> dict[str, list[str]]:
    """Returns on which devices an optimizer's state is, by its name there."""
    found: dict[str, set[str]] = {}
    for values in state.optimizer.values():
        for name, value in values.items():
            on = {leaf.device.type for leaf in tree_leaves(value) if isinstance(leaf, Tensor)}
            found.setdefault(name, set()).update(on)
    return {name: sorted(on) for name, on in sorted(found.items())}


def measured(record: EpochRecord) -> dict[str, Any]:
    return {name: value for name, value in record.to_json().items() if name not in CLOCK_FIELDS}


def seen(config: TrialConfig, images: Images) -> dict[str, Any]:
    """Trains a trial, trains its second epoch once more from the checkpoint of the first, and returns what it saw."""
    states: list[State] = []
    files: list[bytes] = []

    def keep(state: State) -> None:
        states.append(state)
        files.append(state.to_bytes())

    epoch, evaluation = Spy("_train_epoch"), Spy("evaluate")
    on_gpu: dict[str, Any] = {"images": images, "hardware": Hardware(gpu=True), "save": keep}
    with mock.patch.object(training, "_train_epoch", epoch), mock.patch.object(training, "evaluate", evaluation):
        whole = list(train(config, **on_gpu))
        resumed = list(train(config, start=State.from_bytes(files[0]), **on_gpu))
    tested = check_accuracy(State.from_bytes(files[1]), images)["test"]
    return {
        "resumed": measured(whole[1]) == measured(resumed[0]),
        "places": places(states[1]),
        "resumed_places": places(states[2]),
        "epochs": epoch.calls,
        "evaluation": evaluation.calls[0],
        "tested": tested.accuracy == whole[1].test_accuracy,
        "weights": sorted({tensor.device.type for tensor in states[1].model.values()}),
    }


def faults(device: torch.device) -> dict[str, str]:
    """Returns what the device says of mistakes that a GPU would show: it must see each."""
    there, here = torch.ones(2, 2).to(device), torch.ones(2, 2)
    mask = there > 0
    mistakes: dict[str, Callable[[], object]] = {
        "an operand on the CPU": lambda: there + here,
        "a result for the CPU": lambda: here.add_(there),
        "weights on the CPU": lambda: torch.nn.functional.linear(there, here),
        "a number asked for": lambda: there.sum().item(),
        "a decision by a value": lambda: bool(there.sum() > 3),
        "a mask as an index": lambda: there[mask],
        "indices on the CPU": lambda: there[torch.tensor([0, 1])],
        "a tensor made from numbers": lambda: torch.tensor([1.0, 2.0], device=device),
        "a copy": lambda: there.copy_(here),
        "a copy back": lambda: there.cpu(),
        "nothing wrong": lambda: (there @ there + 1).sum() * torch.tensor(2.0),
    }
    found: dict[str, str] = {}
    for name, mistake in mistakes.items():
        before = Counter(COUNTS)
        try:
            mistake()
        except DeviceMismatchError:
            found[name] = "refused"
        else:
            found[name] = ", ".join(f"{what} {count}" for what, count in sorted((Counter(COUNTS) - before).items()))
    return found


def moved(images: Images) -> Tensor:
    """Returns some images, shifted."""
    augmentation, some = Augmentation(shift=2), images.images[:5]
    (drawn,) = augmentation.draw([len(some)], some.shape[-2:], generator(0), some.device)
    return augmentation(some, drawn)


def main() -> None:
    """Prints what was seen; nothing where torch lacks the device."""
    torch.set_num_threads(1)
    try:
        set_up()
    except ImportError:
        return
    with pretended_gpu() as device, mock.patch.object(Hardware, "apply", return_value=device):
        print(json.dumps({"faults": faults(device)}))
        images = Images(made_up(), device)
        print(json.dumps({"strides of moved grey images": moved(images).stride()}))
        for name, config in cases():
            try:
                found = seen(config, images)
            except Exception as error:  # a case that fails is a result, the others go on
                if "-v" in sys.argv:
                    raise
                found = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps({name: found}), flush=True)
    assert device.type == NAME


if __name__ == "__main__":
    main()

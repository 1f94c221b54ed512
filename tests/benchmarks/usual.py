"""What a user would write instead: images from torchvision prepared one by one, one loop, and plain Ray Tune or `for`.

    python -m tests.benchmarks.usual {tune,loop} SPEC

trains the trials of a specification (`Spec` as JSON) one way or the other; `whole_sweep` times it.
"""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchvision
import tyro
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms

from workloads import datasets
from workloads.datasets import FASHION_MNIST
from workloads.optimizers import OPTIMIZERS
from workloads.registry import steps_per_epoch
from workloads.schedulers import SCHEDULERS, UNSCHEDULED, Horizon
from workloads.trial import TrialConfig

BATCH = 64
TRAIN_IMAGES = 55_000
"""The rest of the training images is for validation."""


def lenet() -> nn.Sequential:
    """Returns the network without our code."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def unpack_as_torchvision_does(root: Path) -> None:
    """Writes the shipped files where `torchvision.datasets.FashionMNIST(root)` looks for its download."""
    shipped = Path(datasets.__file__).parent / "data" / "fashion-mnist"
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for path in shipped.glob("*.gz"):
        (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))


@dataclass(frozen=True)
class Loaders:
    """Images as tutorials load them."""

    train: DataLoader[Any]
    val: DataLoader[Any]
    test: DataLoader[Any]


def load(root: str, images: int, workers: int) -> Loaders:
    """Returns loaders of the first training images, of the validation and of the test images."""
    prepare = transforms.Compose(
        [
            transforms.Resize((32, 32)),
            transforms.ToTensor(),
            transforms.Normalize(FASHION_MNIST.mean, FASHION_MNIST.std),
        ]
    )
    data = torchvision.datasets.FashionMNIST(root, train=True, transform=prepare)
    test = torchvision.datasets.FashionMNIST(root, train=False, transform=prepare)

    def loader(chosen: Any, *, shuffle: bool) -> DataLoader[Any]:
        # What a script gets on Linux; a process that was itself spawned would have its workers import torch first.
        context = "fork" if workers else None
        return DataLoader(chosen, BATCH, shuffle=shuffle, num_workers=workers, multiprocessing_context=context)

    return Loaders(
        train=loader(Subset(data, range(images)), shuffle=True),
        val=loader(Subset(data, range(TRAIN_IMAGES, len(data))), shuffle=False),
        test=loader(test, shuffle=False),
    )


def train_epoch(
    model: nn.Module, loader: DataLoader[Any], optimizer: torch.optim.Optimizer, after_batch: Callable[[], object]
) -> tuple[float, float]:
    """Trains an epoch as tutorials write it, and returns mean loss and accuracy: `.item()` at every step."""
    criterion = nn.CrossEntropyLoss()
    losses, right, seen = np.array([]), 0, 0
    for inputs, labels in loader:
        optimizer.zero_grad()
        logits = model(inputs)
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        after_batch()
        losses = np.append(losses, loss.item())
        right += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
    return float(losses.mean()), right / seen


def evaluate(model: nn.Module, loader: DataLoader[Any]) -> tuple[float, float]:
    """Returns mean loss and accuracy."""
    criterion = nn.CrossEntropyLoss()
    losses, right, seen = np.array([]), 0, 0
    model.eval()
    with torch.no_grad():
        for inputs, labels in loader:
            logits = model(inputs)
            losses = np.append(losses, criterion(logits, labels).item())
            right += (logits.argmax(1) == labels).sum().item()
            seen += len(labels)
    model.train()
    return float(losses.mean()), right / seen


# -- whole sweeps ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What to train."""

    trials: list[dict[str, Any]]
    """`TrialConfig.to_json`, settings complete."""
    images: int
    workers: int
    """Processes of each trial's DataLoader."""
    data: str
    """Where torchvision finds its files."""
    results: str
    """Folder for what comes out."""


def began(spec: Spec) -> Path:
    """Returns a file that appears when the first trial begins."""
    return Path(spec.data) / "began"


@dataclass(frozen=True)
class Epoch:
    """What an epoch gave."""

    metrics: dict[str, float | None]
    state: tuple[Any, Any]
    """That of model and optimizer."""


def train(trial: TrialConfig, spec: Spec) -> Iterator[Epoch]:
    """Trains a trial, with the optimizer and the schedule that our tables build, but for warm-up."""
    if not began(spec).exists():
        began(spec).touch()
    loaders = load(spec.data, spec.images, spec.workers)
    model = lenet()
    optimizer = OPTIMIZERS[trial.optimizer].build(model, trial.lr, trial.optimizer_settings)
    row = SCHEDULERS[trial.scheduler]
    settings = {name: value for name, value in trial.scheduler_settings.items() if name != "warmup_epochs"}
    horizon = Horizon(lr=trial.lr, epochs=trial.epochs, steps_per_epoch=steps_per_epoch(trial))
    schedule: Any = None if row.name == UNSCHEDULED else row.build(optimizer, settings, horizon)
    after_batch = schedule.step if schedule is not None and row.steps_on == "batch" else lambda: None
    for epoch in range(1, trial.epochs + 1):
        train_loss, train_accuracy = train_epoch(model, loaders.train, optimizer, after_batch)
        val_loss, val_accuracy = evaluate(model, loaders.val)
        last = epoch == trial.epochs
        test_loss, test_accuracy = evaluate(model, loaders.test) if last else (None, None)
        metrics: dict[str, float | None] = {
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
        }
        if schedule is not None and row.steps_on != "batch":
            schedule.step(*([metrics[settings["monitor"]]] if row.steps_on == "metric" else []))
        yield Epoch(metrics, (model.state_dict(), optimizer.state_dict()))


def with_a_loop(spec: Spec) -> None:
    """Trains one trial after the other, with torch's own number of threads, and writes a table."""
    Path(spec.results).mkdir(parents=True)
    with (Path(spec.results) / "results.csv").open("w") as file:
        writer = csv.writer(file)
        for trial in map(TrialConfig.from_json, spec.trials):
            for number, epoch in enumerate(train(trial, spec), 1):
                writer.writerow([trial.optimizer, trial.lr, trial.scheduler, number, *epoch.metrics.values()])
                print(number, epoch.metrics)


def with_tune(spec: Spec) -> None:
    """Trains every trial with Ray Tune as its tutorials show: a function, a grid, a checkpoint with every report."""
    from ray import tune  # here, as whoever only wants the loop needs no Ray

    def trainable(config: dict[str, Any]) -> None:
        for epoch in train(TrialConfig.from_json(config["trial"]), spec):
            with tempfile.TemporaryDirectory() as folder:
                torch.save(epoch.state, Path(folder) / "checkpoint.pt")
                tune.report(epoch.metrics, checkpoint=tune.Checkpoint.from_directory(folder))

    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"trial": tune.grid_search(spec.trials)},
        tune_config=tune.TuneConfig(metric="val_accuracy", mode="max"),
        run_config=tune.RunConfig(name="usual", storage_path=spec.results),
    )
    print(tuner.fit().get_best_result().metrics)


WAYS: dict[str, Callable[[Spec], None]] = {"tune": with_tune, "loop": with_a_loop}


@dataclass(frozen=True)
class Arguments:
    """Trains the trials of a specification as a user would without forksweep."""

    way: tyro.conf.Positional[Literal["tune", "loop"]]
    spec: tyro.conf.Positional[Path]


def write_spec(spec: Spec, path: Path) -> None:
    """Writes a specification for the command line."""
    path.write_text(json.dumps(asdict(spec)))


if __name__ == "__main__":
    chosen = tyro.cli(Arguments)
    WAYS[chosen.way](Spec(**json.loads(chosen.spec.read_text())))

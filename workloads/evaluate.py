"""check_accuracy: evaluates a checkpoint on all training, validation and test images.

    python -m workloads.evaluate results/optimizers/checkpoints/<trial>/<epoch>-<digest>.pt

The columns `checkpoint` and `best_checkpoint` of `trials.parquet` give each trial's files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import torch
from rich.table import Table
from tyro.conf import Positional, arg

from workloads.console import complaining, parse
from workloads.datasets import DATA_ROOT, Split
from workloads.errors import InputError
from workloads.registry import WORKLOADS, data_of, dataset_of, objective_of_trial
from workloads.rows import find
from workloads.training import Evaluation, Hardware, Images, State, build_model, evaluate


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Evaluates a checkpoint on all images of each split."""

    checkpoint: Positional[Annotated[str, arg(metavar="CHECKPOINT")]]
    """A file from a sweep's folder checkpoints/."""
    data_root: Annotated[str, arg(metavar="PATH")] = str(DATA_ROOT)
    """The folder of downloaded data sets."""
    gpu: bool = False
    """Evaluate on the (first visible) GPU."""


def load_state(path: Path) -> State:
    """Returns the state in a checkpoint file.

    Raises:
        InputError: The file is not one of forksweep's checkpoints.
        OSError: The file cannot be read.
    """
    content = path.read_bytes()
    try:
        return State.from_bytes(content)
    except Exception as error:  # noqa: BLE001 - unpickling an unrelated file can raise anything
        raise InputError(f"{path} is damaged or not a forksweep checkpoint ({type(error).__name__})") from None


def check_accuracy(state: State, images: Images) -> Mapping[Split, Evaluation]:
    """Evaluates a state's network on all images of every split, in evaluation mode and without gradients.

    Args:
        state: A training state.
        images: Its data set, on the device to evaluate on.
    """
    model = build_model(state.config).to(images.device)
    model.load_state_dict(state.model)
    objective = objective_of_trial(state.config)
    return {split: evaluate(model, images, split, objective) for split in get_args(Split)}


def main(words: Sequence[str] | None = None) -> None:
    """Runs the program on a command line; None means the process's own."""
    with complaining() as console:
        arguments = parse(Arguments, words, prog="python -m workloads.evaluate")
        if arguments.gpu and not torch.cuda.is_available():
            raise InputError("--gpu was given, but torch finds no GPU")
        state = load_state(Path(arguments.checkpoint))
        find("workload", WORKLOADS, state.config.workload)  # a network that only some script adds is not known here
        device = Hardware(gpu=True).apply() if arguments.gpu else torch.device("cpu")
        images = Images(data_of(dataset_of(state.config), Path(arguments.data_root)), device)
        config = state.config
        table = Table(title=f"{config.workload}, {config.optimizer}, lr {config.lr:g}: after epoch {state.epoch}")
        for column in ("split", "images", "loss", "accuracy", "balanced accuracy"):
            table.add_column(column, justify="left" if column == "split" else "right")
        for split, found in check_accuracy(state, images).items():
            numbers = (f"{number:.4f}" for number in (found.loss, found.accuracy, found.balanced_accuracy))
            table.add_row(split, f"{found.images:,}", *numbers)
        console.print(table)


if __name__ == "__main__":
    main()

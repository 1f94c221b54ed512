"""Prints a network: its layers, their output shapes and parameter counts.

python -m workloads.describe lenet
python -m workloads.describe lenet_cifar10 batch_norm=true
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from rich.table import Table
from torch import Tensor, nn
from tyro.conf import Positional, arg

from workloads.console import complaining, parse
from workloads.datasets import FASHION_MNIST, SIZE, DatasetRow
from workloads.errors import InputError
from workloads.registry import WORKLOADS, dataset_of, resolve
from workloads.training import build_model
from workloads.trial import Setting, TrialConfig


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Prints a network's layers, output shapes and parameter counts."""

    workload: Positional[Annotated[str, arg(metavar="WORKLOAD")]] = "lenet"
    """A workload, e.g. lenet_cifar10; a network's name alone means on Fashion-MNIST."""
    settings: Positional[Annotated[tuple[str, ...], arg(metavar="SETTING=VALUE")]] = ()
    """Settings of the workload, e.g. batch_norm=true."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of a network."""

    name: str
    description: str
    shape: tuple[int, ...]
    """Output shape for one image."""
    parameters: int


def layers(model: nn.Module, shape: tuple[int, ...]) -> list[Layer]:
    """Returns a network's innermost layers, in execution order.

    Args:
        model: The network.
        shape: The shape of one image.
    """
    found: list[Layer] = []

    def note(name: str) -> object:
        def hook(layer: nn.Module, _: object, output: Tensor) -> None:
            parameters = sum(parameter.numel() for parameter in layer.parameters())
            found.append(
                Layer(name=name, description=repr(layer), shape=tuple(output.shape[1:]), parameters=parameters)
            )

        return hook

    innermost = [(name, layer) for name, layer in model.named_modules() if not any(layer.children())]
    hooks = [layer.register_forward_hook(note(name)) for name, layer in innermost]
    model.eval()
    with torch.inference_mode():
        model(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Runs the program on a command line; None means the process's own."""
    with complaining() as console:
        arguments = parse(Arguments, words, prog="python -m workloads.describe")
        workload = _workload(arguments.workload)
        config = resolve(TrialConfig(workload=workload, workload_settings=_settings(arguments.settings)))
        dataset = dataset_of(config)
        assert isinstance(dataset, DatasetRow), "a user's own workload is known to their own script only"
        shape = (dataset.channels, SIZE, SIZE)
        found = layers(build_model(config), shape)
        table = Table(title=f"{config.workload}: images {_shape(shape)}, {len(dataset.classes)} classes")
        table.add_column("layer")
        table.add_column("output")
        table.add_column("parameters", justify="right")
        for layer in found:
            table.add_row(layer.description, _shape(layer.shape), f"{layer.parameters:,}" if layer.parameters else "")
        table.add_section()
        table.add_row("total", "", f"{sum(layer.parameters for layer in found):,}")
        console.print(table)


def _workload(name: str) -> str:
    on_fashion_mnist = f"{name}_{FASHION_MNIST.name}"
    return on_fashion_mnist if on_fashion_mnist in WORKLOADS else name


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _settings(texts: tuple[str, ...]) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"settings must be NAME=VALUE (e.g. batch_norm=true), not {text!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


if __name__ == "__main__":
    main()

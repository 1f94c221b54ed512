"""LeNet-5 with ReLU and max-pooling, for 32x32 images (after LeCun et al. 1998, doi:10.1109/5.726791)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from workloads.pooling import MaxPool2x2


class LeNet(nn.Module):
    """Two convolutions, three linear layers: 61,706 parameters for one channel and ten classes.

    Args:
        channels: Channels of the images.
        classes: Number of classes.
        batch_norm: Normalise each convolution's output over the batch (arXiv:1502.03167), before the ReLU.
    """

    def __init__(self, channels: int = 1, classes: int = 10, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(channels, 6, batch_norm),
            *_pooled_relu(),
            *_convolution(6, 16, batch_norm),
            *_pooled_relu(),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (n, classes) for images (n, channels, 32, 32)."""
        logits: Tensor = self.layers(images)
        return logits


def _convolution(inputs: int, outputs: int, batch_norm: bool) -> list[nn.Module]:
    # Batch normalisation cancels the convolution's bias and has its own.
    convolution = nn.Conv2d(inputs, outputs, 5, bias=not batch_norm)
    return [convolution, nn.BatchNorm2d(outputs)] if batch_norm else [convolution]


def _pooled_relu() -> list[nn.Module]:
    # ReLU first would give the same bits, forward and backward, but process four times as many values.
    return [MaxPool2x2(), nn.ReLU()]


def initialise(model: nn.Module, generator: Generator) -> None:
    """Initialises weights and biases like torch's defaults, but from the given generator.

    Uniform in +-1/sqrt(fan-in) for convolutions and linear layers; other layers keep their constants.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for parameter in (module.weight, module.bias):
                if parameter is not None:
                    with torch.no_grad():
                        parameter.uniform_(-bound, bound, generator=generator)

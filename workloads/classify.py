"""Classifies images with a trained network from a checkpoint, without the data set.

from PIL import Image
from workloads.classify import load_classifier

classify = load_classifier("results/optimizers/checkpoints/<trial>/<epoch>-<digest>.pt")
image = Image.open("photo.jpg")
print(classify(image))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from workloads.datasets import DatasetRow, Raw, normalise
from workloads.errors import InputError
from workloads.evaluate import load_state
from workloads.image_files import ImageError, pixels
from workloads.registry import WORKLOADS
from workloads.rows import find
from workloads.training import ImageFormat, build_model


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A trained network that classifies images."""

    network: nn.Module
    """In evaluation mode, on the CPU."""
    format: ImageFormat
    """The format of its input images and the meaning of its outputs."""

    def __call__(self, image: Image.Image) -> str:
        """Returns the name of the most probable class."""
        probabilities = self.probabilities(image)
        return max(probabilities, key=probabilities.__getitem__)

    def probabilities(self, image: Image.Image) -> dict[str, float]:
        """Returns the probability of each class."""
        with torch.inference_mode():
            found = self.network(self.prepare(image)).softmax(1)[0]
        return dict(zip(self.format.classes, found.tolist(), strict=True))

    def prepare(self, image: Image.Image) -> Tensor:
        """Returns an image as network input: (1, channels, 32, 32), normalised like the training images.

        Args:
            image: An image as opened by Pillow: any size, grey or colour, rotated by EXIF or not, transparent or not.

        Raises:
            InputError: It has more than 8 bits per channel.
        """
        try:
            values = pixels(image, grey=self.format.channels == 1, size=self.format.size)
        except ImageError as error:
            raise InputError(f"the image {error}") from None
        channels_first = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
        return torch.from_numpy(normalise(channels_first[None], self.format.mean, self.format.std))


def load_classifier(path: str | Path) -> Classifier:
    """Returns the network of a checkpoint.

    Args:
        path: A file from a sweep's folder checkpoints/.

    Raises:
        InputError: The file is not a forksweep checkpoint, is too old to hold the image format, or has a network that
            is not in the table.
        OSError: The file cannot be read.
    """
    state = load_state(Path(path))
    if state.images is None:
        raise InputError(f"{path} is from an older version and lacks the image format; train the network again")
    find("workload", WORKLOADS, state.config.workload)
    network = build_model(state.config, _as_row(state.images))
    network.load_state_dict(state.model)
    return Classifier(network=network.eval(), format=state.images)


def _as_row(images: ImageFormat) -> DatasetRow:
    """Returns a stand-in row to build the network with, as the data set itself is not needed."""

    def read(root: Path) -> Raw:
        raise AssertionError("a checkpoint holds no images")

    return DatasetRow(
        name="of a checkpoint",
        doc="The data set of a checkpoint.",
        read=read,
        train=0,
        val=0,
        test=0,
        mean=images.mean,
        std=images.std,
        channels=images.channels,
        classes=images.classes,
    )

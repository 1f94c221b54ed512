"""A trained network put to use: from a checkpoint and an image to the name of a class, without the data set.

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
    """A trained network that says what is on an image."""

    network: nn.Module
    """In evaluation mode, on the CPU."""
    format: ImageFormat
    """What its images are like and its outputs mean."""

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
        """Returns an image as the network takes it: (1, channels, 32, 32), normalised as its training images were.

        Args:
            image: As it was opened: of any size, in grey or colour, upright or turned by its EXIF, transparent or not.

        Raises:
            InputError: It has more than 8 bits for each channel.
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
        InputError: The file is not a checkpoint of ours, an old one that does not say how images are prepared, or of a
            network that is not in the table.
        OSError: It cannot be read.
    """
    state = load_state(Path(path))
    if state.images is None:
        raise InputError(f"{path} does not say how its images were prepared: it is of an older version; train it again")
    find("workload", WORKLOADS, state.config.workload)
    network = build_model(state.config, _as_row(state.images))
    network.load_state_dict(state.model)
    return Classifier(network=network.eval(), format=state.images)


def _as_row(images: ImageFormat) -> DatasetRow:
    """Returns what a network is built for: a data set that need not be here."""

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

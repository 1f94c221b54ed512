"""DATASETS: every published data set, one row each, read or downloaded with torchvision."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.datasets import FASHION_MNIST, SYNTHETIC, DatasetRow, Raw

Part = Callable[[Any], tuple[NDArray[np.uint8], NDArray[np.int64]]]
"""Images and labels of one of torchvision's data sets."""


def _published(
    torchvision_class: str,
    part: Part,
    *,
    split_by_name: bool = False,
    arguments: Mapping[str, Any] | None = None,
    **known: Any,
) -> DatasetRow:
    """Returns the row of one of torchvision's data sets.

    Args:
        torchvision_class: Its name in `torchvision.datasets`.
        part: Extracts images and labels from it.
        split_by_name: Whether it takes `split="train"` instead of `train=True`.
        arguments: Further arguments of the class.
        known: The row's other fields.
    """

    def opened(root: Path, *, download: bool) -> list[Any]:
        # Imported here because it takes a second and is not needed once a data set is prepared.
        from torchvision import datasets

        kinds = [{"split": "train"}, {"split": "test"}] if split_by_name else [{"train": True}, {"train": False}]
        make = getattr(datasets, torchvision_class)
        return [make(root, download=download, **kind, **(arguments or {})) for kind in kinds]

    def read(root: Path) -> Raw:
        (train_images, train_labels), (test_images, test_labels) = map(part, opened(root, download=False))
        return Raw(
            train_images=train_images, train_labels=train_labels, test_images=test_images, test_labels=test_labels
        )

    def fetch(root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        opened(root, download=True)

    return DatasetRow(read=read, fetch=fetch, **known)


def _grey(data: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.asarray(data.data), np.asarray(data.targets, np.int64)


def _qmnist(data: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    # Each label comes with seven more numbers: who wrote it, and where.
    return np.asarray(data.data), np.asarray(data.targets, np.int64)[:, 0]


def _emnist(data: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = _grey(data)
    return images.transpose(0, 2, 1), labels  # published transposed


def _svhn(data: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return data.data.transpose(0, 2, 3, 1), np.asarray(data.labels, np.int64)


_DIGITS = tuple("0123456789")


def _idx_files(folder: str) -> tuple[str, ...]:
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(f"{folder}/raw/{part}-ubyte" for part in parts)


DATASETS: Mapping[str, DatasetRow] = {
    row.name: row
    for row in (
        FASHION_MNIST,
        _published(
            "MNIST",
            _grey,
            name="mnist",
            doc="70,000 grey images of handwritten digits (LeCun et al. 1998, doi:10.1109/5.726791).",
            files=_idx_files("MNIST"),
            train=55_000,
            val=5_000,
            test=10_000,
            classes=_DIGITS,
        ),
        _published(
            "KMNIST",
            _grey,
            name="kmnist",
            doc="70,000 grey images of ten handwritten Japanese syllables (arXiv:1812.01718).",
            files=_idx_files("KMNIST"),
            train=55_000,
            val=5_000,
            test=10_000,
            classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        ),
        _published(
            "QMNIST",
            _qmnist,
            name="qmnist",
            doc="120,000 grey images of digits: MNIST with its 60,000 test images restored (arXiv:1905.10498).",
            files=tuple(
                f"QMNIST/raw/qmnist-{part}-{kind}"
                for part in ("train", "test")
                for kind in ("images-idx3-ubyte", "labels-idx2-int")
            ),
            train=55_000,
            val=5_000,
            test=60_000,
            classes=_DIGITS,
        ),
        _published(
            "EMNIST",
            _emnist,
            arguments={"split": "balanced"},
            name="emnist",
            doc="131,600 grey images of digits and letters in 47 classes: the balanced split (arXiv:1702.05373).",
            files=tuple(
                f"EMNIST/raw/emnist-balanced-{part}-{kind}-ubyte"
                for part in ("train", "test")
                for kind in ("images-idx3", "labels-idx1")
            ),
            train=103_400,
            val=9_400,
            test=18_800,
            # Lowercase letters that look like their capitals share their class.
            classes=(*_DIGITS, *string.ascii_uppercase, *"abdefghnqrt"),
        ),
        _published(
            "USPS",
            _grey,
            name="usps",
            doc="9,298 grey images of digits from envelopes (Hull 1994, doi:10.1109/34.291440).",
            files=("usps.bz2", "usps.t.bz2"),
            train=6_561,
            val=730,
            test=2_007,
            classes=_DIGITS,
        ),
        _published(
            "CIFAR10",
            _grey,
            name="cifar10",
            doc="60,000 colour images of animals and vehicles in ten classes (Krizhevsky 2009).",
            files=tuple(
                f"cifar-10-batches-py/{file}"
                for file in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
            ),
            train=45_000,
            val=5_000,
            test=10_000,
            channels=3,
            classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        ),
        _published(
            "SVHN",
            _svhn,
            split_by_name=True,
            name="svhn",
            doc="99,289 colour images of house numbers' digits (Netzer et al. 2011).",
            files=("train_32x32.mat", "test_32x32.mat"),
            train=68_257,
            val=5_000,
            test=26_032,
            channels=3,
            classes=_DIGITS,
        ),
        SYNTHETIC,
    )
}
"""Name -> row."""

"""Image data sets, prepared once: decoded, resized to 32x32, normalised, split, and kept as arrays.

The prepared arrays are cached in the user's cache folder under the digest of what they were made from, so that only the
first start pays for them.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image

from workloads.trial import canonical_json, digest

Split = Literal["train", "val", "test"]
SIZE = 32
"""Height and width of a prepared image, in pixels."""
SPLIT_SEED = 0
"""Decides which training images are held out for validation: the same for every trial and sweep."""
_PREPARATION = 1
"""Raised when the preparation changes, so that older caches are not used."""


class DataError(Exception):
    """A data set's files are missing or not what they should be."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A prepared data set: images in the order train, validation, test."""

    name: str
    images: NDArray[np.float32]
    """(n, channels, 32, 32), normalised."""
    labels: NDArray[np.int64]
    """(n,), from 0."""
    train: int
    """Number of training images."""
    val: int
    """Number of validation images; the rest is for testing."""
    classes: tuple[str, ...]
    digest: str
    """Of everything the arrays depend on."""

    def span(self, split: Split) -> tuple[int, int]:
        """Returns where a split's images begin and end."""
        ends = (0, self.train, self.train + self.val, len(self.labels))
        index = ("train", "val", "test").index(split)
        return ends[index], ends[index + 1]


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A data set as it was published."""

    train_images: NDArray[np.uint8]
    """(n, height, width) or (n, height, width, channels)."""
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """Where a data set comes from and what is known of it."""

    name: str
    doc: str
    read: Callable[[], Raw]
    digests: Mapping[str, str]
    """File -> SHA-256 of its content."""
    train: int
    """Training images left after validation images are held out."""
    val: int
    test: int
    mean: tuple[float, ...]
    """Per channel, of the training images scaled to [0, 1]."""
    std: tuple[float, ...]
    channels: int
    classes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Hash of everything that the prepared arrays depend on."""
        inputs = [dict(self.digests), self.train, self.val, self.mean, self.std, SIZE, SPLIT_SEED, _PREPARATION]
        return digest(canonical_json(inputs))


def read_idx(path: Path, sha256: str) -> NDArray[np.uint8]:
    """Returns the array of a gzipped IDX file of unsigned bytes (yann.lecun.com/exdb/mnist).

    Args:
        path: The file.
        sha256: Digest of its content, unpacked.

    Raises:
        DataError: The file is missing, damaged or not the one expected.
    """
    remedy = f"it is part of the project, restore it: git checkout -- {path}"
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {remedy}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); {remedy}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} is damaged: its content has SHA-256 {found[:16]}..., expected {sha256[:16]}...; {remedy}"
        )
    zero, kind, dimensions = struct.unpack(">HBB", content[:4])
    assert (zero, kind) == (0, 8), "the digest vouches for the format"
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


_FASHION_MNIST = Path(__file__).parent / "data" / "fashion-mnist"
_FASHION_MNIST_DIGESTS = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def _read_fashion_mnist() -> Raw:
    arrays = [read_idx(_FASHION_MNIST / file, sha256) for file, sha256 in _FASHION_MNIST_DIGESTS.items()]
    return Raw(
        train_images=arrays[0],
        train_labels=arrays[1].astype(np.int64),
        test_images=arrays[2],
        test_labels=arrays[3].astype(np.int64),
    )


DATASETS: Mapping[str, DatasetRow] = {
    row.name: row
    for row in (
        DatasetRow(
            name="fashion_mnist",
            doc="70,000 grey images of clothing in ten classes (arXiv:1708.07747), shipped with the project.",
            read=_read_fashion_mnist,
            digests=_FASHION_MNIST_DIGESTS,
            train=55_000,
            val=5_000,
            test=10_000,
            mean=(0.2860,),
            std=(0.3530,),
            channels=1,
            classes=(
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
        ),
    )
}
"""Name -> row."""


def resize(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns images (n, h, w[, c]) resized to (n, c, 32, 32) as torchvision's `Resize` does: bilinear, by Pillow."""
    resized = np.stack([np.asarray(Image.fromarray(i).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for i in images])
    return resized[:, None] if resized.ndim == 3 else resized.transpose(0, 3, 1, 2)


def normalise(images: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Returns images (n, c, h, w) scaled to [0, 1], less the mean, over the standard deviation, per channel."""
    scaled = images.astype(np.float32) / np.float32(255)
    scaled -= np.asarray(mean, np.float32)[:, None, None]
    scaled /= np.asarray(std, np.float32)[:, None, None]
    return scaled


def cache_folder() -> Path:
    """Returns where prepared data sets are kept: `FORKSWEEP_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("FORKSWEEP_CACHE") or platformdirs.user_cache_dir("forksweep"))


def load(name: str) -> Dataset:
    """Returns a prepared data set, from the cache or made now (about 10 s for Fashion-MNIST).

    Raises:
        ValueError: There is no such data set.
        DataError: Its files are missing or damaged.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    row = DATASETS[name]
    images, labels = _cached(row) or _prepare(row)
    return Dataset(
        name=name, images=images, labels=labels, train=row.train, val=row.val, classes=row.classes, digest=row.digest
    )


def _prepare(row: DatasetRow) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    raw = row.read()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(raw.train_labels))
    small = resize(np.concatenate([raw.train_images[order], raw.test_images]))
    images = normalise(small, row.mean, row.std)
    labels = np.concatenate([raw.train_labels[order], raw.test_labels])
    _write_cache(row, images, labels)
    return images, labels


def _cache_files(row: DatasetRow) -> tuple[Path, Path]:
    folder = cache_folder() / f"{row.name}-{row.digest}"
    return folder / "images.npy", folder / "labels.npy"


def _write_cache(row: DatasetRow, images: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Keeps prepared arrays; a cache folder that cannot be written costs time at the next start, nothing else."""
    arrays: tuple[NDArray[Any], ...] = (images, labels)
    for path, array in zip(_cache_files(row), arrays, strict=True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                whole = Path(folder) / path.name
                np.save(whole, array)
                whole.replace(path)
            path.with_suffix(".sha256").write_text(_sha256(path))
        except OSError:
            return


def _cached(row: DatasetRow) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
    images, labels = _cache_files(row)
    try:
        if all(path.with_suffix(".sha256").read_text() == _sha256(path) for path in (images, labels)):
            return np.load(images), np.load(labels)
    except (OSError, UnicodeDecodeError):
        return None
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Image data sets, prepared once: decoded, resized to 32x32, normalised, split, and kept as arrays.

The prepared arrays are cached in the user's cache folder under a digest of their inputs, so only the first start has to
prepare them.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import struct
import tempfile
import textwrap
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image

from workloads.errors import InputError
from workloads.trial import canonical_json, digest

Split = Literal["train", "val", "test"]
SIZE = 32
"""Height and width of a prepared image, in pixels."""
SPLIT_SEED = 0
"""Determines which training images are held out for validation: the same for every trial and sweep."""
_PREPARATION = 1
"""Increase this when the preparation changes, to invalidate older caches."""

DATA_ROOT = Path("data")
"""Default folder for downloaded data sets."""


class DataError(InputError):
    """A data set's files are missing or invalid."""


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
    """Number of validation images; the rest are test images."""
    classes: tuple[str, ...]
    digest: str
    """Digest of everything the arrays depend on."""
    mean: tuple[float, ...] = ()
    """Mean per channel of images scaled to [0, 1], subtracted in normalisation; empty if unknown."""
    std: tuple[float, ...] = ()

    def span(self, split: Split) -> tuple[int, int]:
        """Returns the first index of a split's images and the index after the last."""
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
    ordered: bool = False
    """Whether the validation images already come last among the training images; if not, they are drawn at random."""


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """Where a data set comes from, and what is known about it before it is read."""

    name: str
    doc: str
    read: Callable[[Path], Raw]
    """Reads it from the data root."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """File -> SHA-256 of its content, for files with fixed content."""
    files: tuple[str, ...] = ()
    """The other files, relative to the data root: their content is part of the digest."""
    fetch: Callable[[Path], None] | None = None
    """Downloads them to the data root."""
    train: int
    """Number of training images after holding out the validation images."""
    val: int
    test: int
    mean: tuple[float, ...] | None = None
    """Mean per channel of the training images scaled to [0, 1]; None to compute it during preparation."""
    std: tuple[float, ...] | None = None
    channels: int = 1
    classes: tuple[str, ...]

    def digest(self, root: Path = DATA_ROOT) -> str:
        """Returns the digest of everything the prepared arrays depend on.

        Args:
            root: The data root; missing files are downloaded to it.

        Raises:
            DataError: Files are missing and cannot be downloaded.
        """
        contents = dict(self.digests) | {
            file: _content_digest(path) for file, path in self._found(expanded(root)).items()
        }
        inputs = [contents, self.train, self.val, self.mean, self.std, SIZE, SPLIT_SEED, _PREPARATION]
        return digest(canonical_json(inputs))

    def _found(self, root: Path) -> dict[str, Path]:
        """Returns the path of each file, after downloading missing ones."""
        paths = {file: root / file for file in self.files}
        if self.fetch is None or all(path.exists() for path in paths.values()):
            return paths
        reason = "they were not downloaded"
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                self.fetch(root)
        except Exception as error:  # noqa: BLE001 - the remedy is the same for every error
            reason = f"downloading them failed: {textwrap.shorten(str(error), 200, placeholder=' ...')}"
        if missing := [file for file, path in paths.items() if not path.exists()]:
            raise DataError(
                f"data set {self.name!r} needs files that are not in {root.absolute()} ({reason}): "
                f"{', '.join(missing)}; put them there or pass another folder with --data-root"
            )
        return paths


def expanded(path: Path) -> Path:
    """Expands `~` to the home folder, which shells do not do after a colon or an equals sign."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser fails on names that merely start with ~


def read_idx(path: Path, sha256: str) -> NDArray[np.uint8]:
    """Returns the array of a gzipped IDX file of unsigned bytes (yann.lecun.com/exdb/mnist).

    Args:
        path: The file.
        sha256: Digest of its uncompressed content.

    Raises:
        DataError: The file is missing, damaged or not the one expected.
    """
    remedy = f"it is part of the project; restore it with git checkout -- {path}"
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


def _read_fashion_mnist(root: Path) -> Raw:
    arrays = [read_idx(_FASHION_MNIST / file, sha256) for file, sha256 in _FASHION_MNIST_DIGESTS.items()]
    return Raw(
        train_images=arrays[0],
        train_labels=arrays[1].astype(np.int64),
        test_images=arrays[2],
        test_labels=arrays[3].astype(np.int64),
    )


FASHION_MNIST = DatasetRow(
    name="fashion_mnist",
    doc="70,000 grey images of clothing in ten classes (arXiv:1708.07747), shipped with the project.",
    read=_read_fashion_mnist,
    digests=_FASHION_MNIST_DIGESTS,
    train=55_000,
    val=5_000,
    test=10_000,
    mean=(0.2860,),
    std=(0.3530,),
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
)


def synthetic(root: Path) -> Raw:
    """Returns small images of vertical, horizontal and diagonal stripes in noise, learned in seconds."""
    random = np.random.default_rng(SYNTHETIC_SEED)
    labels = random.integers(0, len(_STRIPES), 1_200)
    y, x = np.mgrid[:28, :28]
    waves = np.stack([np.sin(down * y + across * x) for down, across in _STRIPES.values()])
    noisy = 128 + 64 * waves[labels] + random.normal(0, 40, (len(labels), 28, 28))
    images = noisy.clip(0, 255).astype(np.uint8)
    return Raw(
        train_images=images[:1_000], train_labels=labels[:1_000], test_images=images[1_000:], test_labels=labels[1_000:]
    )


SYNTHETIC_SEED = 8
_STRIPES: Mapping[str, tuple[float, float]] = {
    "vertical": (0.0, 0.8),
    "horizontal": (0.8, 0.0),
    "falling": (0.6, -0.6),
    "rising": (0.6, 0.6),
}
"""Class -> phase change per pixel downwards and to the right."""

SYNTHETIC = DatasetRow(
    name="synthetic",
    doc="1,200 grey images of stripes in noise, in four classes: generated, for tests and quick trials.",
    read=synthetic,
    digests={"generator": "1"},
    train=800,
    val=200,
    test=200,
    classes=tuple(_STRIPES),
)


def resize(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resizes images (n, h, w[, c]) to (n, c, 32, 32) like torchvision's `Resize`: bilinear, with Pillow."""
    resized = np.stack([np.asarray(Image.fromarray(i).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for i in images])
    return resized[:, None] if resized.ndim == 3 else resized.transpose(0, 3, 1, 2)


def normalise(images: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Scales images (n, c, h, w) to [0, 1], subtracts the mean and divides by the standard deviation per channel."""
    scaled = images.astype(np.float32) / np.float32(255)
    scaled -= np.asarray(mean, np.float32)[:, None, None]
    scaled /= np.asarray(std, np.float32)[:, None, None]
    return scaled


def cache_folder() -> Path:
    """Returns the folder of prepared data sets: `FORKSWEEP_CACHE` or the user's cache folder."""
    return Path(os.environ.get("FORKSWEEP_CACHE") or platformdirs.user_cache_dir("forksweep"))


def load(row: DatasetRow, root: Path = DATA_ROOT) -> Dataset:
    """Returns a prepared data set, from the cache or prepared now (about 10 s for Fashion-MNIST).

    Args:
        row: The data set.
        root: The folder of downloaded data sets; missing files are downloaded to it.

    Raises:
        DataError: Its files are missing or damaged.
    """
    root = expanded(root)
    digest = row.digest(root)
    folder = cache_folder() / f"{row.name.partition(':')[0]}-{digest}"
    images, labels, scale = _cached(folder) or _prepare(row, root, folder)
    return Dataset(
        name=row.name,
        images=images,
        labels=labels,
        train=row.train,
        val=row.val,
        classes=row.classes,
        digest=digest,
        mean=tuple(scale[0].tolist()),
        std=tuple(scale[1].tolist()),
    )


Prepared = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]
"""Images, labels, and the mean and standard deviation (2, channels) that the images were normalised with."""


def _prepare(row: DatasetRow, root: Path, folder: Path) -> Prepared:
    raw = _read(row, root)
    order = np.arange(len(raw.train_labels))
    if not raw.ordered:
        order = np.random.default_rng(SPLIT_SEED).permutation(order)
    small = resize(np.concatenate([raw.train_images[order], raw.test_images]))
    known = None if row.mean is None or row.std is None else (row.mean, row.std)
    mean, std = known or mean_and_deviation(small[: row.train])
    labels = np.concatenate([raw.train_labels[order], raw.test_labels])
    prepared = normalise(small, mean, std), labels, np.array([mean, std])
    _write_cache(folder, prepared)
    return prepared


def _read(row: DatasetRow, root: Path) -> Raw:
    """Reads a row's data and checks it against the row."""
    try:
        raw = row.read(root)
    except DataError:
        raise
    except (RuntimeError, OSError, ValueError, TypeError, EOFError, AssertionError) as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
        raise DataError(f"data set {row.name!r} in {root.absolute()} is damaged: {reason}; {_remedy(row)}") from None
    found = {"training images": len(raw.train_labels), "test images": len(raw.test_labels)}
    for (what, count), expected in zip(found.items(), (row.train + row.val, row.test), strict=True):
        if count != expected:
            raise DataError(
                f"data set {row.name!r} in {root.absolute()} is damaged: "
                f"it has {count:,} {what}, expected {expected:,}; {_remedy(row)}"
            )
    for labels in (raw.train_labels, raw.test_labels):
        if not (labels.min(initial=0) >= 0 and labels.max(initial=0) < len(row.classes)):
            raise DataError(
                f"data set {row.name!r} in {root.absolute()} is damaged: it has labels from "
                f"{labels.min()} to {labels.max()}, expected 0 to {len(row.classes) - 1}; {_remedy(row)}"
            )
    return raw


def _remedy(row: DatasetRow) -> str:
    # Never suggest deleting what cannot be downloaded again: it may be the only copy.
    return "delete its files to download them again" if row.fetch else "restore its files"


def mean_and_deviation(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation per channel of images (n, c, h, w) scaled to [0, 1]."""
    # From a histogram: exact, and without a float64 copy of the images.
    counts = np.stack([np.bincount(images[:, c].ravel(), minlength=256) for c in range(images.shape[1])])
    levels = np.arange(256) / 255
    mean = counts @ levels / counts.sum(1)
    variance = (counts * (levels - mean[:, None]) ** 2).sum(1) / counts.sum(1)
    # Do not scale a constant channel.
    std = np.where((counts > 0).sum(1) > 1, np.sqrt(variance), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def _write_cache(folder: Path, prepared: Prepared) -> None:
    """Caches prepared arrays; if the cache folder cannot be written, the next start just prepares them again."""
    arrays: tuple[NDArray[Any], ...] = prepared
    for path, array in zip(_cache_files(folder), arrays, strict=True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                whole = Path(scratch) / path.name
                np.save(whole, array)
                whole.replace(path)
            path.with_suffix(".sha256").write_text(_sha256(path))
        except OSError:
            return


def _cache_files(folder: Path) -> tuple[Path, Path, Path]:
    return folder / "images.npy", folder / "labels.npy", folder / "scale.npy"


def _cached(folder: Path) -> Prepared | None:
    """Returns the cached arrays; None if a file is missing (older caches have no scale) or damaged."""
    images, labels, scale = files = _cache_files(folder)
    try:
        if all(path.with_suffix(".sha256").read_text() == _sha256(path) for path in files):
            return np.load(images), np.load(labels), np.load(scale)
    except (OSError, UnicodeDecodeError):
        return None
    return None


def _content_digest(path: Path) -> str:
    """Returns a file's SHA-256, recomputed only if its size or modification time changed."""
    try:
        info = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return _content_digest_of(path, info.st_size, info.st_mtime_ns)


@cache
def _content_digest_of(path: Path, size: int, changed_ns: int) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

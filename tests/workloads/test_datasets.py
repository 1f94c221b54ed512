"""Data sets: what is shipped, how it is prepared, and what happens to damaged files and caches."""

import gzip
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms

from workloads import datasets
from workloads.datasets import DATA_ROOT, FASHION_MNIST, SPLIT_SEED, SYNTHETIC, DataError, Dataset, DatasetRow, Raw
from workloads.published import DATASETS

ROW = FASHION_MNIST
SHIPPED = Path(datasets.__file__).parent / "data" / "fashion-mnist"


@pytest.fixture(scope="module")
def raw() -> Raw:
    return ROW.read(DATA_ROOT)


# -- what is prepared -----------------------------------------------------------------------------------------------


def test_prepared_images_are_those_of_torchvision(dataset: Dataset, raw: Raw) -> None:
    prepare = transforms.Compose(
        [transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize(ROW.mean, ROW.std)]
    )
    order = np.random.default_rng(SPLIT_SEED).permutation(60_000)
    originals = np.concatenate([raw.train_images[order], raw.test_images])
    # From the beginning, both sides of each split's end, and the end.
    chosen = [*range(100), *range(54_950, 55_050), *range(59_950, 60_050), *range(69_900, 70_000)]
    expected = torch.stack([prepare(Image.fromarray(originals[i])) for i in chosen]).numpy()
    assert expected.shape == (400, 1, 32, 32)
    np.testing.assert_allclose(dataset.images[chosen], expected, rtol=1e-6, atol=1e-6)


def test_mean_and_deviation_of_the_training_images(raw: Raw) -> None:
    counts = sum(np.bincount(part.ravel(), minlength=256) for part in np.array_split(raw.train_images, 20))
    levels = np.arange(256) / 255
    assert counts.sum() == 60_000 * 28 * 28
    mean = (counts * levels).sum() / counts.sum()
    std = np.sqrt((counts * (levels - mean) ** 2).sum() / counts.sum())
    assert (round(mean, 4), round(std, 4)) == (0.2860, 0.3530) == (*ROW.mean, *ROW.std)


def test_splits(dataset: Dataset, raw: Raw) -> None:
    assert [dataset.span(split) for split in ("train", "val", "test")] == [
        (0, 55_000),
        (55_000, 60_000),
        (60_000, 70_000),
    ]
    assert (dataset.images.shape, dataset.images.dtype) == ((70_000, 1, 32, 32), np.float32)
    assert (dataset.labels.shape, dataset.labels.dtype) == ((70_000,), np.int64)
    # Every published image is there once: the right number of each class, in an order that is a permutation.
    assert np.bincount(dataset.labels[:60_000]).tolist() == [6_000] * 10 == np.bincount(raw.train_labels).tolist()
    assert np.bincount(dataset.labels[60_000:]).tolist() == [1_000] * 10
    assert np.array_equal(dataset.labels[60_000:], raw.test_labels)
    order = np.random.default_rng(SPLIT_SEED).permutation(60_000)
    assert np.array_equal(np.sort(order), np.arange(60_000))
    assert np.array_equal(dataset.labels[:60_000], raw.train_labels[order])


def test_the_split_is_fixed(dataset: Dataset) -> None:
    # Another numpy, or an edit of the preparation, must not move an image between training and validation unnoticed.
    held_out = dataset.labels[slice(*dataset.span("val"))].astype(np.uint8)
    assert hashlib.sha256(held_out.tobytes()).hexdigest()[:16] == "d3d7065c3539058b"


def test_rows_fit_their_data() -> None:
    for name, row in DATASETS.items():
        assert name == row.name
        assert (row.mean is None) == (row.std is None)
        assert row.mean is None or len(row.mean) == len(row.std or ()) == row.channels
        assert row.files or row.digests, "its content is part of its digest"
        assert bool(row.files) == (row.fetch is not None)


def test_colour_images_are_resized_and_normalised_by_channel() -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 0, 51, 255
    small = datasets.resize(pixels)
    assert (small.shape, small.dtype) == ((2, 3, 32, 32), np.uint8)
    scaled = datasets.normalise(small, (0.0, 0.1, 0.5), (1.0, 0.1, 0.25))
    np.testing.assert_allclose(scaled[:, :, 0, 0], [[0.0, 1.0, 2.0]] * 2, rtol=1e-6)
    assert np.ptp(scaled, axis=(2, 3)).max() == 0


# -- what is shipped ------------------------------------------------------------------------------------------------


def _flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _write_other_content(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x02ab"))


def _write_text(path: Path) -> None:
    path.write_text("<html>not found</html>")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (_flip_a_byte, "damaged"),
    "cut short": (_cut_short, "damaged"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "other content": (_write_other_content, "damaged"),
    "not gzip": (_write_text, "damaged"),
    "missing": (Path.unlink, "missing"),
}


@pytest.mark.parametrize("file", ROW.digests)
@pytest.mark.parametrize(("damage", "word"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_file(file: str, damage: Callable[[Path], object], word: str, tmp_path: Path) -> None:
    path = tmp_path / file
    shutil.copy(SHIPPED / file, path)
    damage(path)
    with pytest.raises(DataError) as error:
        datasets.read_idx(path, ROW.digests[file])
    message = str(error.value)
    assert message.startswith(f"{path} is {word}")
    assert "restore it" in message
    assert "\n" not in message


def test_idx_arrays() -> None:
    shapes = [datasets.read_idx(SHIPPED / file, sha256).shape for file, sha256 in ROW.digests.items()]
    assert shapes == [(60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,)]


def test_licence_and_origin_are_beside_the_data() -> None:
    assert "MIT" in (SHIPPED / "LICENSE").read_text()
    assert "github.com/zalandoresearch/fashion-mnist" in (SHIPPED / "README.md").read_text()


# -- the cache ------------------------------------------------------------------------------------------------------


class _Source:
    """Twelve random images, and how often they were read."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self, root: Path) -> Raw:
        self.reads += 1
        random = np.random.default_rng(7)

        def images(count: int) -> NDArray[np.uint8]:
            return random.integers(0, 256, (count, 28, 28), np.uint8)

        return Raw(
            train_images=images(8),
            train_labels=np.arange(8),
            test_images=images(4),
            test_labels=np.arange(4),
        )


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _Source:
    """The source of a tiny data set named `tiny`, its cache in a folder of the test's own."""
    monkeypatch.setenv("FORKSWEEP_CACHE", str(tmp_path / "cache"))
    return _Source()


def _tiny(source: _Source) -> DatasetRow:
    return replace(ROW, name="tiny", read=source, digests={"a file": "00"}, train=6, val=2, test=4)


CACHE_FILES = ["images.npy", "images.sha256", "labels.npy", "labels.sha256", "scale.npy", "scale.sha256"]


def test_cache_spares_the_preparation(source: _Source, tmp_path: Path) -> None:
    assert not (tmp_path / "cache").exists()
    first, second = datasets.load(_tiny(source)), datasets.load(_tiny(source))
    assert source.reads == 1
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.labels, second.labels)
    assert first.images.dtype == second.images.dtype == np.float32
    names = sorted(path.name for path in (tmp_path / "cache" / f"tiny-{first.digest}").iterdir())
    assert names == CACHE_FILES


@pytest.mark.parametrize(
    "file", ["images.npy", "images.sha256", "labels.npy", "labels.sha256", "scale.npy", "scale.sha256"]
)
@pytest.mark.parametrize(
    "damage",
    [_flip_a_byte, _cut_short, _write_text, Path.unlink, lambda path: path.write_bytes(b"\xff\xfe")],
    ids=["flipped byte", "cut short", "text", "missing", "not text"],
)
def test_damaged_cache_is_made_anew(
    file: str, damage: Callable[[Path], object], source: _Source, tmp_path: Path
) -> None:
    first = datasets.load(_tiny(source))
    (path,) = (tmp_path / "cache").rglob(file)
    damage(path)
    second = datasets.load(_tiny(source))
    assert source.reads == 2
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.labels, second.labels)
    datasets.load(_tiny(source))
    assert source.reads == 2, "the cache is whole again"


def test_cache_folder_that_cannot_be_written(source: _Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocking = tmp_path / "file"
    blocking.write_text("in the way")
    monkeypatch.setenv("FORKSWEEP_CACHE", str(blocking / "cache"))
    first, second = datasets.load(_tiny(source)), datasets.load(_tiny(source))
    assert source.reads == 2
    assert np.array_equal(first.images, second.images)
    assert blocking.read_text() == "in the way"


def test_full_disk_leaves_nothing_half_written(
    source: _Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    datasets.load(_tiny(source))
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "change",
    [{"digests": {"a file": "01"}}, {"mean": (0.5,)}, {"std": (0.5,)}, {"train": 5, "val": 3}],
    ids=["content", "mean", "std", "split"],
)
def test_cache_is_keyed_by_all_it_depends_on(change: dict[str, object], source: _Source) -> None:
    datasets.load(_tiny(source))
    datasets.load(replace(_tiny(source), **change))  # type: ignore[arg-type]
    assert source.reads == 2


def test_digests_stay_as_they_are() -> None:
    # Stored sweeps are compared with them: one that changes refuses to go on with every sweep there is.
    assert FASHION_MNIST.digest() == "1e5d7827070756c5"
    assert SYNTHETIC.digest() == "40242dcea6baaffd"


def test_default_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FORKSWEEP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in datasets.cache_folder().parents
    assert datasets.cache_folder().name == "forksweep"

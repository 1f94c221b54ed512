"""Published data sets, read from small files in the real formats that the tests write."""

from __future__ import annotations

import bz2
import hashlib
import pickle
import re
import struct
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from numpy.typing import NDArray

from workloads import datasets
from workloads.datasets import DataError, DatasetRow
from workloads.published import DATASETS
from workloads.registry import WORKLOADS

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
TRAIN, TEST = 24, 8


def made_up(row: DatasetRow, count: int, size: int, seed: int) -> Arrays:
    """Returns random images and labels, the last of the classes among them."""
    random = np.random.default_rng(seed)
    shape = (count, size, size) if row.channels == 1 else (count, size, size, 3)
    labels = random.integers(0, len(row.classes), count)
    labels[0] = len(row.classes) - 1
    return random.integers(0, 256, shape, np.uint8), labels


def idx(array: NDArray[Any]) -> bytes:
    """Returns an array in the IDX format: of bytes, or of big-endian integers of four."""
    kind, dtype = (8, ">u1") if array.dtype == np.uint8 else (12, ">i4")
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.astype(dtype).tobytes()


def write_arrays(root: Path, row: DatasetRow, arrays: list[NDArray[Any]]) -> None:
    for file, array in zip(row.files, arrays, strict=True):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(idx(array))


def write_idx(root: Path, row: DatasetRow, parts: list[Arrays]) -> None:
    write_arrays(root, row, [array for images, labels in parts for array in (images, labels.astype(np.uint8))])


def write_emnist(root: Path, row: DatasetRow, parts: list[Arrays]) -> None:
    write_idx(root, row, [(images.transpose(0, 2, 1), labels) for images, labels in parts])


def write_qmnist(root: Path, row: DatasetRow, parts: list[Arrays]) -> None:
    arrays: list[NDArray[Any]] = []
    for images, labels in parts:
        about = np.zeros((len(labels), 8), np.int64)
        about[:, 0], about[:, 1] = labels, 4
        arrays += [images, about]
    write_arrays(root, row, arrays)


def write_usps(root: Path, row: DatasetRow, parts: list[Arrays]) -> None:
    for file, (images, labels) in zip(row.files, parts, strict=True):
        lines = []
        for image, label in zip(images, labels, strict=True):
            # A little above the middle of a level, as torchvision rounds down.
            values = (image.astype(float).ravel() + 0.01) / 255 * 2 - 1
            lines.append(" ".join([str(label + 1), *(f"{i + 1}:{value:.6f}" for i, value in enumerate(values))]))
        (root / file).write_bytes(bz2.compress("\n".join(lines).encode()))


def write_cifar10(root: Path, row: DatasetRow, parts: list[Arrays]) -> None:
    (images, labels), test = parts
    thirds = [(images[start::5], labels[start::5]) for start in range(5)]
    for file, part in zip(row.files, [*thirds, test], strict=False):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = part[0].transpose(0, 3, 1, 2).reshape(len(part[1]), -1)
        path.write_bytes(pickle.dumps({"data": rows, "labels": part[1].tolist()}))
    (root / row.files[-1]).write_bytes(pickle.dumps({"label_names": list(row.classes)}))


def write_svhn(root: Path, row: DatasetRow, parts: list[Arrays]) -> None:
    for file, (images, labels) in zip(row.files, parts, strict=True):
        tens = np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)
        scipy.io.savemat(root / file, {"X": images.transpose(1, 2, 3, 0), "y": tens})


WRITERS: dict[str, tuple[Callable[[Path, DatasetRow, list[Arrays]], None], int]] = {
    "mnist": (write_idx, 28),
    "kmnist": (write_idx, 28),
    "qmnist": (write_qmnist, 28),
    "emnist": (write_emnist, 28),
    "usps": (write_usps, 16),
    "cifar10": (write_cifar10, 32),
    "svhn": (write_svhn, 32),
}
DOWNLOADED = [row for row in DATASETS.values() if row.fetch is not None]


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def trust(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets torchvision expect the checksums of the files there are."""
    folder = root / "cifar-10-batches-py"
    if folder.exists():
        for name in ("train_list", "test_list"):
            known = getattr(torchvision.datasets.CIFAR10, name)
            monkeypatch.setattr(torchvision.datasets.CIFAR10, name, [[file, md5(folder / file)] for file, _ in known])
        meta = torchvision.datasets.CIFAR10.meta | {"md5": md5(folder / "batches.meta")}
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "meta", meta)
    if (root / "train_32x32.mat").exists():
        known_splits = torchvision.datasets.SVHN.split_list
        found = {
            split: [url, file, md5(root / file)]
            for split, (url, file, _) in known_splits.items()
            if (root / file).exists()
        }
        monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", found)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("FORKSWEEP_CACHE", str(tmp_path / "cache"))


def small(row: DatasetRow) -> DatasetRow:
    return replace(row, train=TRAIN - 6, val=6, test=TEST)


def write(row: DatasetRow, root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Arrays]:
    writer, size = WRITERS[row.name]
    root.mkdir(parents=True, exist_ok=True)
    parts = [made_up(row, TRAIN, size, 1), made_up(row, TEST, size, 2)]
    writer(root, row, parts)
    trust(root, monkeypatch)
    return parts


@pytest.mark.parametrize("row", DOWNLOADED, ids=[row.name for row in DOWNLOADED])
def test_what_is_read_is_what_was_written(row: DatasetRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (train, train_labels), (test, test_labels) = write(row, tmp_path, monkeypatch)
    raw = row.read(tmp_path)
    if row.name == "cifar10":
        shuffled = np.concatenate([np.arange(start, TRAIN, 5) for start in range(5)])
        train, train_labels = train[shuffled], train_labels[shuffled]
    assert np.array_equal(raw.train_images, train)
    assert np.array_equal(raw.test_images, test)
    assert raw.train_images.dtype == raw.test_images.dtype == np.uint8
    assert raw.train_labels.tolist() == train_labels.tolist()
    assert raw.test_labels.tolist() == test_labels.tolist()
    assert raw.train_labels.max() == len(row.classes) - 1


@pytest.mark.parametrize("row", DOWNLOADED, ids=[row.name for row in DOWNLOADED])
def test_prepared_images_are_normalised_by_their_training_split(
    row: DatasetRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(row, tmp_path, monkeypatch)
    prepared = datasets.load(small(row), tmp_path)
    assert prepared.images.shape == (TRAIN + TEST, row.channels, 32, 32)
    assert [prepared.span(split) for split in ("train", "val", "test")] == [(0, 18), (18, 24), (24, 32)]
    trained = prepared.images[:18].astype(np.float64)
    np.testing.assert_allclose(trained.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(trained.std((0, 2, 3)), 1, rtol=1e-5)
    again = datasets.load(small(row), tmp_path)
    assert np.array_equal(again.images, prepared.images)


@pytest.mark.parametrize("row", DOWNLOADED, ids=[row.name for row in DOWNLOADED])
def test_without_network_the_error_names_folder_and_files(row: DatasetRow, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        datasets.load(row, tmp_path / "root")
    message = str(error.value)
    assert message.startswith(f"data set {row.name!r} needs files that are not in {tmp_path / 'root'} (downloading")
    assert all(file in message for file in row.files)
    assert "--data-root" in message
    assert "\n" not in message


def test_other_files_have_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = small(DATASETS["mnist"])
    write(row, tmp_path, monkeypatch)
    before = row.digest(tmp_path)
    assert row.digest(tmp_path) == before
    path = tmp_path / row.files[0]
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    assert row.digest(tmp_path) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "it has 24 training images, expected 60,000"),
        ({"train": 18, "val": 6}, "it has 8 test images, expected 10,000"),
        ({"train": 18, "val": 6, "test": 8, "classes": ("0", "1", "2")}, "it has labels from 0 to 9, expected 0 to 2"),
    ],
)
def test_files_of_another_data_set(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = DATASETS["mnist"]
    write(row, tmp_path, monkeypatch)
    with pytest.raises(DataError, match=message):
        datasets.load(replace(row, **change), tmp_path)


def test_a_data_root_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    row = small(DATASETS["mnist"])
    write(row, tmp_path / "data", monkeypatch)
    there, here = (datasets.load(row, Path(root)) for root in (tmp_path / "data", "~/data"))
    assert there.digest == here.digest
    with pytest.raises(DataError, match=re.escape(f"not in {tmp_path}/elsewhere (")):
        datasets.load(row, Path("~/elsewhere"))


def test_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = small(DATASETS["mnist"])
    write(row, tmp_path, monkeypatch)
    (tmp_path / row.files[0]).write_bytes(b"\0\0\x08\x03")
    with pytest.raises(
        DataError, match=r"^data set 'mnist' in .* is damaged: .*delete its files to download them again$"
    ):
        datasets.load(row, tmp_path)


def test_every_data_set_has_a_workload_and_every_format_a_test() -> None:
    assert {row.name for row in DOWNLOADED} == set(WRITERS)
    assert {f"lenet_{name}" for name in DATASETS} == set(WORKLOADS) - {"lenet_csv"}
    # As torchvision names them.
    assert DATASETS["emnist"].classes == tuple(torchvision.datasets.EMNIST.classes_split_dict["balanced"])
    assert DATASETS["kmnist"].classes == tuple(torchvision.datasets.KMNIST.classes)


def test_mean_and_deviation() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), np.uint8)
    images[:, 2] = 7
    mean, std = datasets.mean_and_deviation(images)
    scaled = torch.from_numpy(images).double() / 255
    assert mean == pytest.approx(scaled.mean((0, 2, 3)).tolist())
    assert std[:2] == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist()[:2])
    assert std[2] == 1, "nothing to divide by"

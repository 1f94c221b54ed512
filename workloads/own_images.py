"""One's own images as a data set: a CSV of file names and labels beside the images.

    file,label,split
    images/a.png,cat,train
    images/b.png,dog,test

File names are relative to the CSV. Classes are the labels found, in order of name. Without a column `split` (train, val
or test), a tenth of the images is held out for testing and a tenth for validation, drawn by a fixed seed.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from workloads.datasets import SIZE, SPLIT_SEED, DataError, DatasetRow, Raw

NAME = "csv"
COLUMNS = ("file", "label")
SPLITS = ("train", "val", "test")
HELD_OUT = 0.1
"""Part of the images for validation, and as many for testing, where the CSV does not say."""
_SHOWN = 5
_GREY = ("1", "L", "LA")
"""Pillow's modes of one channel of 8 bits at most (and perhaps transparency)."""
_DEEP = ("I", "F")
"""What Pillow's modes of more than 8 bits begin with: it would cut them off at white."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the CSV."""

    number: int
    """Counted from 1, the header's."""
    file: str
    label: str
    split: str


def own_images(path: str) -> DatasetRow:
    """Returns the row of the data set that a CSV describes.

    Args:
        path: The CSV.

    Raises:
        DataError: It is missing, or lines are not what they should be; the message names each by its number.
    """
    if not path:
        raise DataError("no CSV is given; name one with --dataset csv:PATH")
    try:
        info = Path(path).stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a CSV of file names and labels") from None
    return _own_images(path, info.st_size, info.st_mtime_ns)


@cache
def _own_images(path: str, size: int, changed_ns: int) -> DatasetRow:
    folder = Path(path).parent
    lines = read_lines(Path(path))
    classes = tuple(sorted({line.label for line in lines}))
    # In random order, as the first of the training images must be like the others.
    shuffled = [lines[index] for index in np.random.default_rng(SPLIT_SEED).permutation(len(lines))]
    ordered = [line for split in SPLITS for line in shuffled if line.split == split]
    counts = {split: sum(line.split == split for line in lines) for split in SPLITS}
    channels = _channels(folder / ordered[0].file)

    def read(root: Path) -> Raw:
        images = _read_images(Path(path), ordered, channels)
        labels = np.array([classes.index(line.label) for line in ordered])
        first_test = counts["train"] + counts["val"]
        return Raw(
            train_images=images[:first_test],
            train_labels=labels[:first_test],
            test_images=images[first_test:],
            test_labels=labels[first_test:],
            ordered=True,
        )

    return DatasetRow(
        name=f"{NAME}:{path}",
        doc=f"The images listed in {path}.",
        read=read,
        files=(path, *(str(folder / line.file) for line in lines)),
        train=counts["train"],
        val=counts["val"],
        test=counts["test"],
        channels=channels,
        classes=classes,
    )


def read_lines(path: Path) -> list[Line]:
    """Returns the lines of a CSV, each with a split.

    Raises:
        DataError: The columns are not there, or lines are not what they should be.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            rows = [(reader.line_num, row) for row in reader]
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from None
    if missing := [name for name in COLUMNS if name not in columns]:
        raise DataError(
            f"{path} has no column {', '.join(missing)}; its first line must name the columns file and label, and may "
            f"name split, not {', '.join(columns) or 'nothing'}"
        )
    own_splits = "split" in columns
    lines = [
        Line(number=number, **{name: (row.get(name) or "").strip() for name in (*COLUMNS, "split")})
        for number, row in rows
    ]
    _refuse(path, [(line.number, complaint) for line in lines for complaint in _complaints(path, line, own_splits)])
    _refuse(path, _repeated(lines))
    lines = lines if own_splits else drawn(lines)
    if empty := [split for split in SPLITS if not any(line.split == split for line in lines)]:
        raise DataError(
            f"{path} has no images for {', '.join(empty)}: list more images, or name splits in a column split"
        )
    trained = {line.label for line in lines if line.split == "train"}
    untrained = [line for line in lines if line.label not in trained]
    _refuse(path, [(line.number, f"the class {line.label} has no training image") for line in untrained])
    if len(trained) < 2:
        raise DataError(f"{path} has one class only, {', '.join(trained)}: there is nothing to tell apart")
    return lines


def drawn(lines: Sequence[Line]) -> list[Line]:
    """Returns the lines with splits drawn by a fixed seed."""
    held = max(1, round(HELD_OUT * len(lines)))
    splits = ["val"] * held + ["test"] * held + ["train"] * (len(lines) - 2 * held)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(lines))
    split_of = dict(zip(order.tolist(), splits, strict=False))
    return [replace(line, split=split_of[index]) for index, line in enumerate(lines)]


def _complaints(path: Path, line: Line, own_splits: bool) -> list[str]:
    found = []
    if not line.file:
        found.append("no file name")
    elif not (path.parent / line.file).is_file():
        found.append(f"no such file {line.file}")
    if not line.label:
        found.append("no label")
    if own_splits and line.split not in SPLITS:
        found.append(f"split must be one of {', '.join(SPLITS)}, not {line.split!r}")
    return found


def _repeated(lines: Sequence[Line]) -> list[tuple[int, str]]:
    """Returns the lines that list an image again: trained on and tested with, it would make a network look better."""
    first: dict[str, int] = {}
    return [
        (line.number, f"{line.file} is in line {first[line.file]} already")
        for line in lines
        if first.setdefault(line.file, line.number) != line.number
    ]


def _refuse(path: Path, complaints: Sequence[tuple[int, str]]) -> None:
    if complaints:
        shown = "; ".join(f"line {number}: {complaint}" for number, complaint in complaints[:_SHOWN])
        more = f"; and {len(complaints) - _SHOWN} more" if len(complaints) > _SHOWN else ""
        raise DataError(f"{path} has lines that cannot be used: {shown}{more}")


def _channels(path: Path) -> int:
    try:
        with Image.open(path) as image:
            return 1 if image.mode in _GREY else 3
    except (OSError, UnidentifiedImageError):
        return 3  # whatever it is, reading the images will name it


def _read_images(path: Path, lines: Sequence[Line], channels: int) -> NDArray[np.uint8]:
    """Returns the images (n, 32, 32[, 3]), all grey if the first is."""
    images, complaints = [], []
    for line in lines:
        try:
            with Image.open(path.parent / line.file) as image:
                if image.mode.startswith(_DEEP):
                    complaints.append((line.number, f"{line.file} has more than 8 bits for each channel"))
                    continue
                small = image.convert("L" if channels == 1 else "RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            images.append(np.asarray(small))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            complaints.append((line.number, f"{line.file} is not an image that can be read ({type(error).__name__})"))
    _refuse(path, sorted(complaints))
    return np.stack(images)

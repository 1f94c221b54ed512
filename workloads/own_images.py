"""One's own images as a data set: a CSV of file names and labels beside the images.

    file,label,split
    images/a.png,cat,train
    images/b.png,dog,test

File names are relative to the CSV. Classes are the labels found, in order of name; labels that differ in capitals alone
are two classes, as letters may be. What the column `split` names no image for, validation or testing, is held out of
the training images: a tenth of them for each, drawn by a fixed seed. The images are grey if the files of all of them
are, otherwise all are in colour.
"""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workloads import csv_files, image_files
from workloads.csv_files import bare, shown
from workloads.datasets import SIZE, SPLIT_SEED, DataError, DatasetRow, Raw, expanded
from workloads.image_files import ImageError, Looks

NAME = "csv"
COLUMNS = ("file", "label")
SPLIT = "split"
SPLITS = ("train", "val", "test")
HELD_OUT = 0.1
"""Part of the training images held out for validation, and as many for testing, where the CSV names none."""
_PREPARATION = "2"
"""Raised when the preparation of one's own images changes, so that older caches are not used."""
_SHOWN = 10
_QUICK_PIXELS = 200_000_000
"""As many are decoded (in a few seconds) to complete a list of complaints."""
_SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    os.path.expanduser,
    lambda name: unicodedata.normalize("NFC", name),
    lambda name: unicodedata.normalize("NFD", name),
    lambda name: name.replace("\\", "/"),
)
"""How a file may be called on the disk if it is called otherwise in the CSV: the first that is there is taken.

Some systems take accented letters apart, and some write backslashes between folders.
"""

Complaint = tuple[int, str]
"""Number of the line, what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the CSV."""

    number: int
    """Counted from 1, the header's."""
    file: str
    label: str
    split: str
    path: Path | None = None
    """Where the file is; None: nowhere."""
    looks: Looks | None = None
    """None: it is not an image that can be used."""


def absolute(path: str) -> str:
    """Returns the path of a CSV as trials keep it, whose workers run in folders of their own.

    Args:
        path: Relative to the current folder, `~` for one's own; empty stays empty.
    """
    if not path:
        return path
    whole = expanded(Path(path)).absolute()
    return str(whole.parent.resolve() / whole.name if ".." in whole.parts else whole)


def own_images(path: str) -> DatasetRow:
    """Returns the row of the data set that a CSV describes.

    Args:
        path: The CSV.

    Raises:
        DataError: It is missing, or lines are not what they should be; the message names each by its number.
    """
    if not path:
        raise DataError("no CSV is given; name one with --dataset csv:PATH")
    info = csv_files.file_info(Path(path))
    return _own_images(path, info.st_size, info.st_mtime_ns)


@cache
def _own_images(path: str, size: int, changed_ns: int) -> DatasetRow:
    lines = read_lines(Path(path))
    classes = tuple(sorted({line.label for line in lines}))
    # In random order, as the first of the training images must be like the others.
    shuffled = [lines[index] for index in np.random.default_rng(SPLIT_SEED).permutation(len(lines))]
    ordered = [line for split in SPLITS for line in shuffled if line.split == split]
    counts = Counter(line.split for line in lines)
    grey = all(line.looks and line.looks.grey for line in lines)

    def read(root: Path) -> Raw:
        images, complaints = _decoded(ordered, grey=grey)
        _refuse(Path(path), complaints)
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
        digests={"preparation": _PREPARATION, "channels": "grey" if grey else "colour"},
        files=(path, *(str(line.path) for line in lines)),
        train=counts["train"],
        val=counts["val"],
        test=counts["test"],
        channels=1 if grey else 3,
        classes=classes,
    )


def read_lines(path: Path) -> list[Line]:
    """Returns the lines of a CSV, each with a split.

    Raises:
        DataError: The columns are not there, or lines are not what they should be: all that is wrong is said at once.
    """
    columns, rows = csv_files.read_rows(path, COLUMNS, (SPLIT,))
    if not rows:
        raise DataError(f"{path} lists no images: below its first line, each line must name a file and a label")
    lines, complaints = [], []
    for row in rows:
        # Without a column, all are there to be drawn from.
        line, wrong = _line(path.parent, row, row.cells.get(SPLIT, "") if SPLIT in columns else "train")
        lines.append(line)
        complaints += [(row.number, complaint) for complaint in wrong]
    complaints += [*_repeated(lines), *_alike(lines), *_untrained(lines)]
    if complaints:
        complaints += _quickly_decoded(lines)
    _refuse(path, complaints)
    lines = drawn(lines)
    if not any(line.split == "train" for line in lines):
        raise DataError(f"{path} has no images for train: list more images, or name some so in the column split")
    _refuse(path, _untrained(lines))
    if len(labels := {line.label for line in lines}) < 2:
        raise DataError(f"{path} has one class only, {', '.join(labels)}: there is nothing to tell apart")
    return lines


def drawn(lines: Sequence[Line]) -> list[Line]:
    """Returns the lines with images held out of those for training, by a fixed seed, for the splits that have none."""
    training = [index for index, line in enumerate(lines) if line.split == "train"]
    held = max(1, round(HELD_OUT * len(training)))
    named = {line.split for line in lines}
    splits = [split for split in ("val", "test") if split not in named for _ in range(held)]
    order = np.random.default_rng(SPLIT_SEED).permutation(training).tolist()
    split_of = dict(zip(order, splits, strict=False))
    return [replace(line, split=split_of.get(index, line.split)) for index, line in enumerate(lines)]


def _line(folder: Path, row: csv_files.Row, split: str) -> tuple[Line, list[str]]:
    """Returns a line, and what is wrong with it as far as it can be seen without the others."""
    line = Line(
        number=row.number, file=row.cells.get("file", ""), label=row.cells.get("label", ""), split=split.lower()
    )
    wrong = []
    if row.surplus:
        wrong.append("more cells than columns (a name with a delimiter in it is put in quotation marks)")
    if not line.file:
        wrong.append("no file name")
    elif (path := _located(folder, line.file)) is None:
        wrong.append(_missing(folder, line.file))
    else:
        line = replace(line, path=path)
        try:
            line = replace(line, looks=image_files.looks(path))
        except ImageError as error:
            wrong.append(f"{shown(line.file)} {error}")
    if not bare(line.label):
        wrong.append("no label")
    if line.split not in SPLITS:
        wrong.append(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    return line, wrong


def _located(folder: Path, file: str) -> Path | None:
    """Returns where a file is, whichever way its name is written."""
    paths = (folder / spelling(file) for spelling in _SPELLINGS)
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113 - Path's own may raise


def _missing(folder: Path, file: str) -> str:
    path = folder / file
    if os.path.isdir(path):  # noqa: PTH112 - Path's own may raise
        return f"{shown(file)} is a folder"
    try:
        alike = _names(path.parent, path.parent.stat().st_mtime_ns).get(bare(path.name).casefold())
    except (OSError, ValueError):
        alike = None
    return f"no such file {shown(file)}" + (f" (there is {shown(alike)})" if alike else "")


@cache
def _names(folder: Path, changed_ns: int) -> Mapping[str, str]:
    """Returns the files of a folder, by what they would be called by someone careless."""
    return {bare(path.name).casefold(): path.name for path in folder.iterdir()}


def _repeated(lines: Iterable[Line]) -> list[Complaint]:
    """Returns the lines that list an image again: trained on and tested with, it would make a network look better.

    A file is the same by any of its names: spelled otherwise, linked to, absolute or relative.
    """
    first: dict[tuple[int, int], Line] = {}
    complaints = []
    for line in lines:
        if line.path is None:
            continue
        info = line.path.stat()
        earlier = first.setdefault((info.st_dev, info.st_ino), line)
        if earlier is not line:
            name = "" if earlier.file == line.file else f", as {shown(earlier.file)}"
            complaints.append((line.number, f"{shown(line.file)} is in line {earlier.number} already{name}"))
    return complaints


def _alike(lines: Sequence[Line]) -> list[Complaint]:
    """Returns the first line of each label that looks like another one, but is written otherwise."""
    first: dict[str, Line] = {}
    for line in lines:
        if bare(line.label):
            first.setdefault(line.label, line)
    complaints = []
    seen: dict[str, Line] = {}
    for line in first.values():
        earlier = seen.setdefault(bare(line.label), line)
        if earlier is not line:
            complaints.append(
                (
                    line.number,
                    f"the label {line.label!a} looks like {earlier.label!a} of line {earlier.number}, but is written "
                    f"with other characters: write both alike",
                )
            )
    return complaints


def _untrained(lines: Sequence[Line]) -> list[Complaint]:
    # A line whose split is misspelled may be meant for training.
    trained = {line.label for line in lines if line.split not in ("val", "test")}
    return [
        (
            line.number,
            f"the class {shown(line.label)} has no training image: list more of it, or give one the split train",
        )
        for line in lines
        if line.label not in trained and bare(line.label)
    ]


def _quickly_decoded(lines: Iterable[Line]) -> list[Complaint]:
    """Returns the lines whose images turn out to be damaged, as far as that is found in a few seconds."""
    opened = [(line, line.looks.pixels) for line in lines if line.looks]
    totals = itertools.accumulate(pixels for _, pixels in opened)
    return _decoded([line for (line, _), total in zip(opened, totals, strict=True) if total <= _QUICK_PIXELS])[1]


def _decoded(lines: Iterable[Line], *, grey: bool = False) -> tuple[NDArray[np.uint8], list[Complaint]]:
    """Returns the images (n, 32, 32[, 3]) that can be decoded, and the lines of those that cannot."""
    images, complaints = [], []
    for line in lines:
        assert line.path is not None
        try:
            images.append(image_files.small(line.path, grey=grey))
        except ImageError as error:
            complaints.append((line.number, f"{shown(line.file)} {error}"))
    return np.stack(images) if images else np.empty((0, SIZE, SIZE), np.uint8), complaints


def _refuse(path: Path, complaints: Sequence[Complaint]) -> None:
    if complaints:
        ordered = sorted(complaints, key=lambda complaint: complaint[0])
        said = "; ".join(f"line {number}: {complaint}" for number, complaint in ordered[:_SHOWN])
        more = f"; and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
        raise DataError(f"{path} has lines that cannot be used: {said}{more}")

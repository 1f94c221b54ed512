"""The user's own images as a data set, listed in a CSV of file names and labels.

    file,label,split
    images/a.png,cat,train
    images/b.png,dog,test

File names are relative to the CSV. The classes are the labels found, sorted by name; labels are case-sensitive, since
the classes may be letters. If the column `split` names no validation (or test) images, a tenth of the training images
is held out for it, drawn with a fixed seed. Images are converted to grey if all files are grey, otherwise to colour.
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
"""Fraction of the training images held out for validation, and the same for testing, if the CSV names none."""
_PREPARATION = "2"
"""Increase this when the preparation of own images changes, to invalidate older caches."""
_SHOWN = 10
_QUICK_PIXELS = 200_000_000
"""How many pixels to decode (in a few seconds) to find damaged images for a list of complaints."""
_SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    os.path.expanduser,
    lambda name: unicodedata.normalize("NFC", name),
    lambda name: unicodedata.normalize("NFD", name),
    lambda name: name.replace("\\", "/"),
)
"""Spellings of a file name to try: the first one that exists on disk is used.

Some systems decompose accented letters, and some use backslashes between folders.
"""

Complaint = tuple[int, str]
"""Line number, what is wrong with the line."""


@dataclass(frozen=True, kw_only=True)
class ListedImage:
    """An image listed in the CSV."""

    number: int
    """Its line number; the header is line 1."""
    file: str
    label: str
    split: str
    path: Path | None = None
    """Where the file is; None if it does not exist."""
    looks: Looks | None = None
    """None if it is not a usable image."""


def absolute(path: str) -> str:
    """Returns the absolute path of a CSV, since workers run in other folders.

    Args:
        path: Relative to the current folder, `~` for the home folder; an empty path stays empty.
    """
    if not path:
        return path
    whole = expanded(Path(path)).absolute()
    return str(whole.parent.resolve() / whole.name if ".." in whole.parts else whole)


def own_images(path: str) -> DatasetRow:
    """Returns the row for the data set that a CSV describes.

    Args:
        path: The CSV.

    Raises:
        DataError: The CSV is missing or has invalid lines; the message gives their numbers.
    """
    if not path:
        raise DataError("no CSV given; pass one with --dataset csv:PATH")
    info = csv_files.file_info(Path(path))
    return _own_images(path, info.st_size, info.st_mtime_ns)


@cache
def _own_images(path: str, size: int, changed_ns: int) -> DatasetRow:
    lines = read_lines(Path(path))
    classes = tuple(sorted({line.label for line in lines}))
    # Shuffled, because --train-limit uses the first training images, which must be representative.
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


def read_lines(path: Path) -> list[ListedImage]:
    """Returns the lines of a CSV, each with a split.

    Raises:
        DataError: Columns are missing or lines are invalid; the message lists all problems at once.
    """
    columns, rows = csv_files.read_rows(path, COLUMNS, (SPLIT,))
    if not rows:
        raise DataError(f"{path} lists no images; each line after the header must name a file and a label")
    lines, complaints = [], []
    for row in rows:
        # Without the column, all images are training images, from which the other splits are drawn.
        line, wrong = _line(path.parent, row, row.cells.get(SPLIT, "") if SPLIT in columns else "train")
        lines.append(line)
        complaints += [(row.number, complaint) for complaint in wrong]
    complaints += [*_repeated(lines), *_alike(lines), *_untrained(lines)]
    if complaints:
        complaints += _quickly_decoded(lines)
    _refuse(path, complaints)
    lines = drawn(lines)
    if not any(line.split == "train" for line in lines):
        raise DataError(f"{path} has no training images; list more images or set the column split of some to train")
    _refuse(path, _untrained(lines))
    if len(labels := {line.label for line in lines}) < 2:
        raise DataError(f"{path} has only one class, {', '.join(labels)}; list images of at least two")
    return lines


def drawn(lines: Sequence[ListedImage]) -> list[ListedImage]:
    """Moves training images, drawn with a fixed seed, to the validation or test split if it is empty."""
    training = [index for index, line in enumerate(lines) if line.split == "train"]
    held = max(1, round(HELD_OUT * len(training)))
    named = {line.split for line in lines}
    splits = [split for split in ("val", "test") if split not in named for _ in range(held)]
    order = np.random.default_rng(SPLIT_SEED).permutation(training).tolist()
    split_of = dict(zip(order, splits, strict=False))
    return [replace(line, split=split_of.get(index, line.split)) for index, line in enumerate(lines)]


def _line(folder: Path, row: csv_files.Row, split: str) -> tuple[ListedImage, list[str]]:
    """Returns a line and what is wrong with it, apart from conflicts with other lines."""
    line = ListedImage(
        number=row.number, file=row.cells.get("file", ""), label=row.cells.get("label", ""), split=split.lower()
    )
    wrong = []
    if row.surplus:
        wrong.append("more cells than columns (put names that contain the delimiter in quotation marks)")
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
    """Returns the path of a file, trying each spelling of its name."""
    paths = (folder / spelling(file) for spelling in _SPELLINGS)
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113 - Path.is_file may raise


def _missing(folder: Path, file: str) -> str:
    path = folder / file
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir may raise
        return f"{shown(file)} is a folder"
    try:
        alike = _names(path.parent, path.parent.stat().st_mtime_ns).get(bare(path.name).casefold())
    except (OSError, ValueError):
        alike = None
    return f"no such file {shown(file)}" + (f" (did you mean {shown(alike)}?)" if alike else "")


@cache
def _names(folder: Path, changed_ns: int) -> Mapping[str, str]:
    """Returns the files of a folder by their normalised, case-folded names."""
    return {bare(path.name).casefold(): path.name for path in folder.iterdir()}


def _repeated(lines: Iterable[ListedImage]) -> list[Complaint]:
    """Returns the lines that list an image again, which could leak it from the training to the test split.

    Finds a file under any of its names: another spelling, a link, an absolute or relative path.
    """
    first: dict[tuple[int, int], ListedImage] = {}
    complaints = []
    for line in lines:
        if line.path is None:
            continue
        info = line.path.stat()
        earlier = first.setdefault((info.st_dev, info.st_ino), line)
        if earlier is not line:
            name = "" if earlier.file == line.file else f" as {shown(earlier.file)}"
            complaints.append((line.number, f"{shown(line.file)} is already listed in line {earlier.number}{name}"))
    return complaints


def _alike(lines: Sequence[ListedImage]) -> list[Complaint]:
    """Returns the first line of each label that looks like an earlier one but uses different characters."""
    first: dict[str, ListedImage] = {}
    for line in lines:
        if bare(line.label):
            first.setdefault(line.label, line)
    complaints = []
    seen: dict[str, ListedImage] = {}
    for line in first.values():
        earlier = seen.setdefault(bare(line.label), line)
        if earlier is not line:
            complaints.append(
                (
                    line.number,
                    f"the label {line.label!a} looks like {earlier.label!a} in line {earlier.number} but uses "
                    f"different characters: write both the same way",
                )
            )
    return complaints


def _untrained(lines: Sequence[ListedImage]) -> list[Complaint]:
    # A line with a misspelled split may be meant for training.
    trained = {line.label for line in lines if line.split not in ("val", "test")}
    return [
        (
            line.number,
            f"the class {shown(line.label)} has no training image: list more of its images or set one's split to train",
        )
        for line in lines
        if line.label not in trained and bare(line.label)
    ]


def _quickly_decoded(lines: Iterable[ListedImage]) -> list[Complaint]:
    """Returns the lines with damaged images, as far as a few seconds of decoding can find them."""
    opened = [(line, line.looks.pixels) for line in lines if line.looks]
    totals = itertools.accumulate(pixels for _, pixels in opened)
    return _decoded([line for (line, _), total in zip(opened, totals, strict=True) if total <= _QUICK_PIXELS])[1]


def _decoded(lines: Iterable[ListedImage], *, grey: bool = False) -> tuple[NDArray[np.uint8], list[Complaint]]:
    """Returns the decoded images (n, 32, 32[, 3]), and complaints about those that cannot be decoded."""
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
        raise DataError(f"{path} has invalid lines: {said}{more}")

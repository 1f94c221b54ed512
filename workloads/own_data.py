"""A user's own data: arrays, tensors or a torch data set, checked, split, and read once.

What is given is one of

    (inputs, targets)                            split here: a tenth for validation, a tenth for test
    {"train": (inputs, targets), "test": ...}    as it is split; what of val and test is missing is split off train
    a map-style torch `Dataset`                  read example by example, once; also as a value of the mapping
    a function that returns one of these

Arrays in memory go to Ray's store, where all workers of a node share them. Memory-mapped ones (`numpy.load(path,
mmap_mode="r")`) stay in their file, which each node must see under the same path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workloads import blame
from workloads.datasets import SPLIT_SEED, Split, cache_folder
from workloads.trial import canonical_json, digest

SPLITS: tuple[Split, ...] = get_args(Split)
HELD_OUT = 0.1
"""Fraction of the examples that is split off for validation, and the same for test, where none are given."""
FEWEST = 10
"""Examples that can be split."""
SAMPLE = {"train": 192, "val": 128, "test": 128}
"""How many examples of each split travel with the workload, for the checks and probes made without the data."""
SAMPLE_BYTES = 32 * 2**20
"""The most that the sample of a split may take; then it has fewer examples, but at least two."""
_CHUNK = 64 * 2**20
"""Bytes of an array that are looked at together."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The examples of a split: rows of two arrays."""

    inputs: NDArray[Any]
    targets: NDArray[Any]
    order: NDArray[np.int64] | None = None
    """Which rows, in which order; None for those of the span as they are."""
    span: tuple[int, int] | None = None
    """The first row and the row after the last; None for all."""

    @property
    def bounds(self) -> tuple[int, int]:
        """The first row and the row after the last."""
        return (0, len(self.targets)) if self.span is None else self.span

    def __len__(self) -> int:
        begin, end = self.bounds
        return end - begin if self.order is None else len(self.order)

    def first(self, count: int) -> Part:
        """Returns a copy of the first examples, in memory."""
        begin, end = self.bounds
        rows = slice(begin, min(begin + count, end)) if self.order is None else self.order[:count]
        return Part(inputs=np.array(self.inputs[rows]), targets=np.array(self.targets[rows]))

    def __getstate__(self) -> dict[str, Any]:
        return {name: _packed(value) for name, value in vars(self).items()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value.opened() if isinstance(value, _Mapped) else value)


@dataclass(frozen=True)
class _Mapped:
    """A memory-mapped array, as it travels: the place of its bytes."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def opened(self) -> NDArray[Any]:
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


def _packed(value: Any) -> Any:
    if not _is_mapped(value):
        return value
    return _Mapped(str(Path(value.filename).absolute()), value.dtype.str, value.shape, value.offset)


def _is_mapped(value: object) -> bool:
    """Whether an array is a whole memory-mapped file, or the data of one: a part of it would be copied."""
    return (
        isinstance(value, np.memmap)
        and value.filename is not None
        and value.flags.c_contiguous
        and not isinstance(value.base, np.memmap)
    )


@dataclass(frozen=True, kw_only=True)
class OwnDataset:
    """A user's data, ready to train on; stands where a `Dataset` does."""

    name: str
    parts: Mapping[Split, Part]
    classes: tuple[str, ...] = ()
    """The classes, if targets are class labels; else empty."""

    @property
    def train(self) -> int:
        """Number of training examples."""
        return len(self.parts["train"])


class OwnData:
    """Where the data of an own workload come from: read when first asked for, in one process only.

    What travels to workers is what is known about them, and a sample; the data come by Ray's store.

    Args:
        name: Its name, in tables.
        given: The data, or a function that returns them.
        of_classes: Whether targets are class labels; None if they may be anything.
        classes: Names of the classes; empty to number them.
    """

    def __init__(self, name: str, given: Any, *, of_classes: bool | None, classes: tuple[str, ...] = ()) -> None:
        self.name = name
        self._given = given
        self._of_classes = of_classes
        self._names = classes

    def __getstate__(self) -> dict[str, Any]:
        # All that is known is found out before it travels.
        kept = {"name": self.name, "_of_classes": self._of_classes, "_names": self._names, "_given": None}
        return kept | {known: getattr(self, known) for known in ("counts", "classes", "digest_of_all", "sample")}

    @cached_property
    def dataset(self) -> OwnDataset:
        """The data.

        Raises:
            OwnCodeError: The user's function raised, or what it gives cannot be used.
        """
        function = self._given if _is_function(self._given) else None
        try:
            given = self._given if function is None else function()
        except Exception as error:
            raise blame.blamed(error, "data", function) from error
        parts = _split(_read(given, function), function)
        for split, part in parts.items():
            _check(part, split, self._of_classes, function)
        classes = self._names or _classes_of(given)
        if self._of_classes:
            # A large memory-mapped one is read in whole here: labels are small.
            most = max(int(np.max(part.targets)) for part in parts.values())
            if classes and most >= len(classes):
                raise blame.refused(
                    f"labels must be from 0 to {len(classes) - 1}, as there are {len(classes)} classes, not {most}",
                    function,
                )
            classes = classes or tuple(str(label) for label in range(most + 1))
        return OwnDataset(name=self.name, parts=parts, classes=classes if self._of_classes else ())

    @cached_property
    def counts(self) -> dict[Split, int]:
        """Split -> number of examples."""
        return {split: len(part) for split, part in self.dataset.parts.items()}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes; empty if targets are no class labels."""
        return self.dataset.classes

    @cached_property
    def sample(self) -> OwnDataset:
        """The first examples of each split."""
        parts = {}
        for split, part in self.dataset.parts.items():
            one = max(1, part.inputs[:1].nbytes + part.targets[:1].nbytes)
            parts[split] = part.first(max(2, min(SAMPLE[split], SAMPLE_BYTES // one)))
        return OwnDataset(name=self.name, parts=parts, classes=self.classes)

    @cached_property
    def digest_of_all(self) -> str:
        """Digest of all examples, their types and their splits."""
        parts = self.dataset.parts.items()
        return digest(canonical_json([self.classes, {split: _digest_of(part) for split, part in parts}]))

    @property
    def train(self) -> int:
        """Number of training examples."""
        return self.counts["train"]

    @property
    def val(self) -> int:
        """Number of validation examples."""
        return self.counts["val"]

    @property
    def test(self) -> int:
        """Number of test examples."""
        return self.counts["test"]

    def digest(self, root: Path | None = None) -> str:
        """Returns the digest of the data; they are in no data root."""
        return self.digest_of_all


def _is_function(given: object) -> bool:
    return callable(given) and not isinstance(given, torch.utils.data.Dataset)


Given = Mapping[str, tuple[Any, Any]]


def _read(given: Any, function: Callable[..., Any] | None) -> dict[str, Part]:
    """Returns what was given as arrays, by split; all in "all" where it is not split."""
    if isinstance(given, Mapping):
        if unknown := [name for name in given if name not in SPLITS]:
            raise blame.refused(f"data has splits train, val and test, not {unknown[0]!r}", function)
        if "train" not in given:
            raise blame.refused("data has no split 'train'", function)
        return {name: _read_part(given[name], name, function) for name in SPLITS if name in given}
    return {"all": _read_part(given, "data", function)}


def _read_part(given: Any, what: str, function: Callable[..., Any] | None) -> Part:
    if isinstance(given, torch.utils.data.Dataset):
        return _read_examples(given, what, function)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise blame.refused(
            f"{what} must be (inputs, targets) or a torch Dataset with a length"
            f"{', or a mapping of those by split' if what == 'data' else ''}, not {_kind(given)}",
            function,
        )
    inputs, targets = (_array(one, f"{what}: {name}", function) for one, name in zip(given, _NAMES, strict=True))
    targets = _labels_in_64_bits(targets)
    if len(inputs) != len(targets):
        raise blame.refused(f"{what}: there are {len(inputs):,} inputs but {len(targets):,} targets", function)
    return Part(inputs=inputs, targets=targets)


_NAMES = ("inputs", "targets")


def _read_examples(given: Any, what: str, function: Callable[..., Any] | None) -> Part:
    """Reads a torch data set, once; what it draws at random would be frozen, and is refused."""
    if not hasattr(given, "__len__"):
        raise blame.refused(f"{what} must be a map-style Dataset, with a length, not {_kind(given)}", function)
    if len(given) == 0:
        raise blame.refused(f"{what} has no examples", function)
    try:
        first, again = given[0], given[0]
        if not isinstance(first, (tuple, list)) or len(first) != 2:
            raise blame.refused(f"{what}: an example must be (input, target), not {_kind(first)}", function)
        if any(not np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(first, again, strict=True)):
            raise blame.refused(
                f"{what}: example 0 is different each time it is read, and examples are read once: leave out random "
                "transforms (augmentation belongs into the network, or use workload.shift, workload.flip and "
                "workload.erasing)",
                function,
            )
        inputs = np.empty((len(given), *np.shape(np.asarray(first[0]))), np.asarray(first[0]).dtype)
        targets = np.empty((len(given), *np.shape(np.asarray(first[1]))), np.asarray(first[1]).dtype)
        for number in range(len(given)):
            one = given[number]
            for array, value, name in zip((inputs, targets), one, _NAMES, strict=True):
                value = np.asarray(value)
                if value.shape != array.shape[1:]:
                    raise blame.refused(
                        f"{what}: all {name} must have one shape, but example 0 has {array.shape[1:]} and example "
                        f"{number:,} has {value.shape}",
                        function,
                    )
                array[number] = value
    except blame.OwnCodeError:
        raise
    except Exception as error:
        raise blame.blamed(error, f"reading {what}", function) from error
    return Part(inputs=_typed(inputs), targets=_labels_in_64_bits(_typed(targets)))


def _labels_in_64_bits(targets: NDArray[Any]) -> NDArray[Any]:
    return targets if targets.dtype.kind not in "iu" or targets.dtype == np.int64 else targets.astype(np.int64)


def _array(given: Any, what: str, function: Callable[..., Any] | None) -> NDArray[Any]:
    try:
        array = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asanyarray(given)
    except (ValueError, TypeError) as error:
        raise blame.blamed(error, what, function) from error
    if array.ndim == 0 or array.dtype.kind not in "fiub":
        raise blame.refused(
            f"{what} must be an array or a tensor of numbers, one row for each example, not {_kind(given)}", function
        )
    return array if _is_mapped(array) else _typed(np.asarray(array))


def _typed(array: NDArray[Any]) -> NDArray[Any]:
    """Returns an array in a type that networks take: double precision becomes single, other whole numbers 64 bits."""
    if array.dtype.kind == "f" and array.dtype != np.float16:
        return np.ascontiguousarray(array, np.float32)
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        return np.ascontiguousarray(array, np.int64)
    if array.dtype.kind == "b":
        return np.ascontiguousarray(array, np.float32)
    return np.ascontiguousarray(array)


def _split(found: dict[str, Part], function: Callable[..., Any] | None) -> dict[Split, Part]:
    """Returns all three splits; those that are not given are drawn from the training examples, with a fixed seed."""
    for name, part in found.items():
        if len(part) == 0:
            raise blame.refused(f"{'data' if name == 'all' else f'split {name!r}'} has no examples", function)
    whole = found.get("all") or found["train"]
    missing: list[Split] = [split for split in ("val", "test") if split not in found]
    parts: dict[Split, Part] = {split: found[split] for split in SPLITS if split in found and split != "train"}
    if not missing:
        return {"train": whole, **parts}
    if len(whole) < FEWEST:
        raise blame.refused(
            f"{len(whole)} examples are too few to split off {' and '.join(missing)}: {FEWEST} are the fewest; or give "
            "these splits",
            function,
        )
    order = np.random.default_rng(SPLIT_SEED).permutation(len(whole))
    each = max(1, round(HELD_OUT * len(whole)))
    for number, split in enumerate(missing):
        parts[split] = Part(
            inputs=whole.inputs,
            targets=whole.targets,
            order=np.sort(order[len(whole) - (number + 1) * each : len(whole) - number * each]),
        )
    rest = order[: len(whole) - len(missing) * each]
    train = Part(inputs=whole.inputs, targets=whole.targets, order=rest)
    return {"train": train, "val": parts["val"], "test": parts["test"]}


def _check(part: Part, split: Split, of_classes: bool | None, function: Callable[..., Any] | None) -> None:
    """Refuses numbers that cannot be trained on."""
    for array, what in zip((part.inputs, part.targets), _NAMES, strict=True):
        if (bad := _first_not_finite(array)) is not None:
            raise blame.refused(f"{what} of {split}: example {bad:,} is NaN or infinite", function)
    if of_classes is None:
        return
    if not of_classes:
        if part.targets.dtype.kind != "f":
            raise blame.refused(
                f"targets of {split} must be floating-point numbers for this loss, not {part.targets.dtype}; for class "
                "labels use loss='cross_entropy'",
                function,
            )
        return
    if part.targets.dtype.kind not in "iu":
        raise blame.refused(
            f"targets of {split} must be class labels for this loss, whole numbers from 0, not {part.targets.dtype}; "
            "for numbers use loss='mse', for targets of 0 and 1 loss='bce'",
            function,
        )
    if (least := int(np.min(part.targets))) < 0:
        raise blame.refused(f"labels of {split} must be from 0, not {least}", function)


def _first_not_finite(array: NDArray[Any]) -> int | None:
    """Returns the first row with a value that is NaN or infinite."""
    if array.dtype.kind != "f":
        return None
    rows = max(1, _CHUNK // max(1, array[:1].nbytes))
    for low in range(0, len(array), rows):
        finite = np.isfinite(array[low : low + rows])
        if not finite.all():
            return low + int(np.argmin(finite.reshape(len(finite), -1).all(1)))
    return None


def _classes_of(given: Any) -> tuple[str, ...]:
    """Returns the names of the classes that a torch data set knows."""
    first = given.get("train") if isinstance(given, Mapping) else given
    names = getattr(first, "classes", ())
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()


def _digest_of(part: Part) -> list[str]:
    return [_array_digest(array) for array in (part.inputs, part.targets)] + [
        "" if part.order is None else _array_digest(part.order)
    ]


def _array_digest(array: NDArray[Any]) -> str:
    """Returns the digest of an array; that of a file is remembered until its size or modification time changes."""
    if not _is_mapped(array):
        return _bytes_digest(array)
    path = Path(str(array.filename)).absolute()  # type: ignore[attr-defined]
    info = path.stat()
    known = [str(path), info.st_size, info.st_mtime_ns, array.dtype.str, list(array.shape), array.offset]  # type: ignore[attr-defined]
    note = cache_folder() / f"mapped-{digest(canonical_json(known))}.json"
    try:
        found: str = json.loads(note.read_text())
    except (OSError, ValueError):
        found = _bytes_digest(array)
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps(found))
        except OSError:  # read again next time
            pass
    return found


def _bytes_digest(array: NDArray[Any]) -> str:
    whole = hashlib.sha256(canonical_json([array.dtype.str, list(array.shape)]).encode())
    rows = max(1, _CHUNK // max(1, array[:1].nbytes))
    for low in range(0, len(array), rows):
        whole.update(np.ascontiguousarray(array[low : low + rows]).data)
    return whole.hexdigest()


def _kind(value: object) -> str:
    """Returns what something is, for people."""
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__

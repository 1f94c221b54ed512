"""Digests of training states: a name for each state, so that records can say which one they came from and led to.

A state is the network's and the optimizer's tensors, and what has been measured so far, from which a schedule that
watches a metric is replayed. Its digest is a function of these values, not of the bytes of a file: 16 hexadecimal
digits for the tensors, then 16 for what was measured. Neither the schedule nor what the test images gave is part of it,
nor any time: trials that share an epoch have the same state, as if each had trained alone. The second half follows from
the records alone, so a changed number is found even where no weights are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from workloads.trial import STATE_FIELDS, TEST_FIELDS, EpochRecord, digest

HISTORY_FIELDS: tuple[str, ...] = (
    *("epoch", "lr", "lr_last", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "function_evaluations"),
    *("grad_norm", "val_balanced_accuracy", "val_class_accuracy"),
)
"""What is known of an epoch that is the same for all trials that share it. Not to be changed: digests are stored."""
HALF = 16
"""Hexadecimal digits of each half."""


def tensors_digest(values: object) -> str:
    """Returns the digest of tensors and plain values in dictionaries, lists and tuples, whatever device they are on."""
    whole = hashlib.sha256()
    _feed(whole, values)
    return whole.hexdigest()[:HALF]


def _feed(whole: Any, value: object) -> None:
    if isinstance(value, Tensor):
        value = value.detach() if value.layout == torch.strided else value.detach().to_dense()
        whole.update(f"{value.dtype}{list(value.shape)}".encode())
        # As bytes: NumPy lacks some of torch's types.
        whole.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        for key, item in sorted(value.items(), key=lambda pair: str(pair[0])):
            whole.update(f"{key!r}:".encode())
            _feed(whole, item)
        whole.update(b"}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            _feed(whole, item)
        whole.update(b"]")
    else:
        # What else there might be has no value that is the same in every process.
        plain = isinstance(value, (bool, int, float, str, type(None)))
        whole.update((repr(value) if plain else type(value).__name__).encode() + b";")


class History:
    """The digest of what has been measured, epoch by epoch.

    Args:
        records: Those so far, from the first epoch on.
    """

    def __init__(self, records: Iterable[EpochRecord] = ()) -> None:
        self._whole = hashlib.sha256()
        for record in records:
            self.add(record.to_json())

    def add(self, record: Mapping[str, Any]) -> None:
        """Takes in the next epoch's record."""
        self._whole.update(_as_text(record, HISTORY_FIELDS))

    @property
    def digest(self) -> str:
        """The digest of the records so far."""
        return self._whole.hexdigest()[:HALF]


def test_digest(state: str, record: Mapping[str, Any]) -> str:
    """Returns the digest of a state and of what the test images gave in it."""
    return digest(state.encode() + _as_text(record, [name for name in TEST_FIELDS if name not in STATE_FIELDS]))


def _as_text(record: Mapping[str, Any], names: Iterable[str]) -> bytes:
    """Returns the values that are there, with their names: fields that are added later change nothing."""
    values = ((name, record[name]) for name in names if record.get(name) is not None)
    said = (f"{name}={float(v) if isinstance(v, (int, float)) else v!r}" for name, v in values)
    return (",".join(said) + "\n").encode()


class Names:
    """Names the states of a training, one after the other.

    Args:
        tensors: Those it begins with: of the network and of the optimizer.
        history: The records so far.
    """

    def __init__(self, tensors: object, history: Iterable[EpochRecord]) -> None:
        self._history = History(history)
        # Of the tensors themselves, not as the last record says: a checkpoint may have been changed since.
        self._current = tensors_digest(tensors) + self._history.digest

    def added_to(self, record: EpochRecord, tensors: object) -> EpochRecord:
        """Returns the record of the next epoch with the names of its states.

        Args:
            record: What was measured.
            tensors: Those it led to.
        """
        values, before = record.to_json(), self._current
        self._history.add(values)
        self._current = after = tensors_digest(tensors) + self._history.digest
        tested = any(values[name] is not None for name in TEST_FIELDS)
        return replace(
            record, state_before=before, state_after=after, test_digest=test_digest(after, values) if tested else None
        )

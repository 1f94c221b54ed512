"""LOSSES and MEASURES: what a network is trained on and ranked by, one row each; or functions of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workloads.errors import InputError, did_you_mean
from workloads.measure import ACCURACY, Measure

Function = Callable[..., Tensor]
"""Outputs of the network and targets, both of a batch, in; a tensor out."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What training minimises."""

    name: str
    """In configurations."""
    doc: str
    """In words, as sentences say it."""
    of: Function
    """(outputs, targets) -> the mean over a batch, a scalar."""
    total: Function
    """(outputs, targets) -> the sum over the examples of a batch, whose means over a batch `of` takes."""
    unit: str = ""
    """Of its values; empty if there is none worth saying."""
    measure: str = ""
    """What configurations are ranked by unless the user says: a row of `MEASURES`; empty for the loss itself."""
    of_classes: bool = False
    """Whether targets are class labels: then label smoothing and class weights apply (`of` takes both)."""


def _total(mean: Function) -> Function:
    """Returns the sum over examples of a loss that takes the mean over a batch."""
    return lambda outputs, targets: mean(outputs, targets) * len(targets)


def _cross_entropy_total(outputs: Tensor, targets: Tensor) -> Tensor:
    total = functional.cross_entropy(outputs, targets, reduction="sum")
    return total if targets.ndim == 1 else total / targets[0].numel()


LOSSES: Mapping[str, Loss] = {
    row.name: row
    for row in (
        Loss(
            name="cross_entropy",
            doc="cross-entropy",
            of=functional.cross_entropy,
            total=_cross_entropy_total,
            unit="nats",
            measure="accuracy",
            of_classes=True,
        ),
        Loss(
            name="mse",
            doc="mean squared error",
            of=functional.mse_loss,
            total=_total(functional.mse_loss),
            measure="mean_absolute_error",
        ),
        Loss(
            name="mae",
            doc="mean absolute error",
            of=functional.l1_loss,
            total=_total(functional.l1_loss),
            measure="mean_absolute_error",
        ),
        Loss(
            name="bce",
            doc="binary cross-entropy",
            of=functional.binary_cross_entropy_with_logits,
            total=_total(functional.binary_cross_entropy_with_logits),
            unit="nats",
            measure="accuracy",
        ),
    )
}
"""Name -> row. Cross-entropy takes logits (n, classes, ...) and labels (n, ...); binary cross-entropy takes logits and
targets from 0 to 1 of the same shape; the other two take outputs and targets of the same shape."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What configurations are ranked by, and how it is measured."""

    measure: Measure
    of: Function | None
    """(outputs, targets) -> a value for each example (n,), of which the mean is taken; or, if `whole`, one number. None
    takes the loss."""
    whole: bool = False
    """Whether it is measured on all examples of a split at once (`measured`), e.g. an area under a curve; if so, not
    while training."""


def _means(values: Tensor) -> Tensor:
    """Returns the mean of each example's values (n, ...) as (n,)."""
    return values if values.ndim == 1 else values.flatten(1).double().mean(1)


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns which examples are right (n,): as a fraction of each, if an example has several targets.

    Args:
        outputs: Logits: (n, classes, ...) for class labels, or of the shape of the targets for targets of 0 or 1.
        targets: Class labels (n, ...), or floating-point targets of 0 or 1.
    """
    if targets.is_floating_point():
        return _means((outputs > 0) == (targets > 0.5))
    return _means(outputs.argmax(1) == targets)


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns each example's mean absolute error (n,)."""
    return _means((outputs - targets).abs())


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns each example's mean squared error (n,)."""
    return _means((outputs - targets).square())


def _error(name: str, of: Function) -> Measurement:
    return Measurement(measure=Measure(name=name, higher_is_better=False, least=0.0), of=of)


MEASURES: Mapping[str, Measurement] = {
    "accuracy": Measurement(measure=ACCURACY, of=accuracy),
    "mean_absolute_error": _error("mean absolute error", absolute_error),
    "mean_squared_error": _error("mean squared error", squared_error),
}
"""Name -> row; besides, 'loss' ranks by the loss itself."""

LOSS = "loss"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a network is trained on and ranked by."""

    loss: Loss
    measurement: Measurement

    @property
    def measure(self) -> Measure:
        """What configurations are ranked by, in words."""
        return self.measurement.measure

    @property
    def each_right(self) -> bool:
        """Whether an example is right or wrong."""
        return self.measurement.of is accuracy

    def batch_sum(self, outputs: Tensor, targets: Tensor, loss: Tensor) -> Tensor | None:
        """Returns the sum of the measure's values over a batch, in double precision; None if it needs a whole split.

        Args:
            outputs: Of the network.
            targets: Of the batch.
            loss: Of the batch, summed over its examples.
        """
        if self.measurement.whole:
            return None
        if self.measurement.of is None:
            return loss.double()
        return self.measurement.of(outputs, targets).sum(dtype=torch.float64)


CLASSIFICATION = Objective(loss=LOSSES["cross_entropy"], measurement=MEASURES["accuracy"])
"""Of all shipped workloads."""


def objective_of(
    loss: str | Function, measure: str | Function | None = None, higher_is_better: bool | None = None
) -> Objective:
    """Returns what a user asks for.

    Args:
        loss: A row of `LOSSES`, or a function of outputs and targets that returns the mean over a batch.
        measure: A row of `MEASURES`, 'loss', or a function of the outputs and targets of a whole split; None takes what
            the loss is usually ranked by.
        higher_is_better: Of a function; rows know it.

    Raises:
        InputError: A name is unknown, or it is not said which values of a function are better.
    """
    if callable(loss):
        row = Loss(name=_name(loss), doc=_words(_name(loss)), of=loss, total=_total(loss))
    else:
        row = _find("loss", LOSSES, loss)
    if callable(measure):
        if higher_is_better is None:
            raise InputError(
                f"measure={_name(measure)} is a function of yours: say higher_is_better=True or "
                "higher_is_better=False beside it"
            )
        words = _words(_name(measure))
        if words in _TAKEN:
            raise InputError(f"call the function of your measure something else than {_name(measure)}")
        own = Measure(name=words, higher_is_better=higher_is_better)
        measurement = Measurement(measure=own, of=measure, whole=True)
    elif higher_is_better is not None:
        raise InputError("higher_is_better is for a measure that is a function of yours: leave it out")
    elif measure == LOSS or (measure is None and not row.measure):
        words = row.doc if row.doc not in _TAKEN else f"own {row.doc}"
        measurement = Measurement(measure=Measure(name=words, higher_is_better=False), of=None)
    else:
        measurement = _find("measure", MEASURES, measure or row.measure)
    named = replace(measurement.measure, loss_unit=row.unit)
    return Objective(loss=row, measurement=replace(measurement, measure=named))


R = TypeVar("R")

_TAKEN = ("loss", "accuracy")
"""Names that columns have for something else."""


def _find(what: str, rows: Mapping[str, R], name: object) -> R:
    if not isinstance(name, str) or name not in rows:
        hint = did_you_mean(name, rows) if isinstance(name, str) else ""
        known = ", ".join([*rows, LOSS] if what == "measure" else rows)
        raise InputError(f"unknown {what} {name!r}{hint}; known: {known}, or a function of outputs and targets")
    return rows[name]


def _name(function: Function) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return name if name != "<lambda>" else "own"


def _words(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def measured(values: object) -> float:
    """Returns what a measure of a whole split comes to: one number as it is, several as their mean.

    Raises:
        TypeError: It is neither a number nor one for each example.
        ValueError: As before.
    """
    if isinstance(values, Tensor) and values.ndim == 1 and len(values) > 1:
        return values.double().mean().item()
    if isinstance(values, (Tensor, np.ndarray, np.generic)):
        return float(values.item())
    if isinstance(values, (int, float)):
        return float(values)
    raise TypeError(type(values).__name__)

"""What goes into a trial and what comes out: `TrialConfig` in, `EpochRecord` out.

Nothing is imported here but the standard library (and our error type), so that analysis can use it without torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, get_args

from workloads.errors import InputError

Setting = bool | int | float | str | None | tuple[int | float, ...]
Settings = Mapping[str, Setting]

Status = Literal["completed", "early_stopped", "diverged", "out_of_memory", "failed", "cancelled", "pending"]
STATUSES: tuple[Status, ...] = get_args(Status)
"""Every status a trial can have, as written to `trials.parquet`."""

FINAL_STATUSES: frozenset[Status] = frozenset({"completed", "early_stopped", "diverged"})
"""A trial with one of these has its answer: running the sweep again does not run it again."""

FAILED_STATUSES: frozenset[Status] = frozenset({"failed", "out_of_memory"})
"""A trial with one of these has none, for a reason that may go away (a worker, its memory): `--retry-failed` runs it
again. If the same training turns out to be known from another trial, that is its answer too."""

SETTINGS_OF: dict[str, str] = {
    "workload": "workload_settings",
    "optimizer": "optimizer_settings",
    "scheduler": "scheduler_settings",
}
"""Kind of row -> the field of `TrialConfig` that holds the settings given to it."""


ADDED_LATER: Mapping[str, Any] = {}
"""Field (`init_seed`) or setting (`workload.mixup`) that was added once trials were stored -> the value at which trials
train as they did before there was one. At that value it is no part of a trial's identity, so stored trials keep their
ids: whoever adds a field or a setting adds a line here."""


def canonical_json(value: object) -> str:
    """Returns the one JSON text of a value: keys sorted, no white space, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str | bytes, length: int = 16) -> str:
    """Returns the first `length` hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:length]


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One training, completely described: equal configs train bit for bit equally on one type of machine.

    Raises:
        InputError: A value is out of its range; the message names the field, the value and what is allowed.
    """

    workload: str = "lenet_fashion_mnist"
    """What is trained: the name of a row of `WORKLOADS`."""
    workload_settings: Settings = field(default_factory=dict)
    """Settings of the workload's row, e.g. label smoothing."""
    optimizer: str = "adam"
    """The name of a row of `OPTIMIZERS`."""
    optimizer_settings: Settings = field(default_factory=dict)
    """Settings of the optimizer's row but for its learning rate, e.g. momentum."""
    scheduler: str = "none"
    """The name of a row of `SCHEDULERS`."""
    scheduler_settings: Settings = field(default_factory=dict)
    """Settings of the schedule's row, e.g. its factor."""
    lr: float = 0.001
    """Initial learning rate: what the schedule scales."""
    batch_size: int = 64
    """Images per training step; an epoch's last batch may be smaller."""
    epochs: int = 30
    """Number of passes over the training images."""
    seed: int = 21
    """Decides initial weights, order of the images, augmentation and what the network draws (dropout)."""
    train_limit: int | None = None
    """Train on the first that many training images; None means all."""
    test_every_epoch: bool = False
    """Evaluate the test images after every epoch, not only after the last."""

    def __post_init__(self) -> None:
        for name in SETTINGS_OF.values():
            frozen = {key: _frozen(value) for key, value in sorted(getattr(self, name).items())}
            object.__setattr__(self, name, frozen)
        _check_number("lr", self.lr, float, above=0)
        object.__setattr__(self, "lr", float(self.lr))
        for name in ("batch_size", "epochs"):
            _check_number(name, getattr(self, name), int, at_least=1)
        _check_number("seed", self.seed, int, at_least=0)
        if self.train_limit is not None:
            _check_number("train_limit", self.train_limit, int, at_least=1)

    def to_json(self) -> dict[str, Any]:
        """Returns the config as plain JSON values; `from_json` is the way back."""
        return {
            f.name: _thawed(getattr(self, f.name))
            for f in fields(self)  # not asdict: it would copy every mapping deeply, slow for thousands of trials
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialConfig:
        """Returns the config that `to_json` described.

        Raises:
            InputError: A field is unknown.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise InputError(f"unknown trial fields {unknown}; known: {[f.name for f in fields(cls)]}")
        return cls(**values)

    @cached_property
    def trial_id(self) -> str:
        """16 hexadecimal digits: the hash of `identity`, the same everywhere."""
        return digest(canonical_json(self.identity()))

    def identity(self) -> dict[str, Any]:
        """Returns what makes the trial what it is: `to_json` without what `ADDED_LATER` says changes nothing."""
        values = self.to_json()
        for name, neutral in ADDED_LATER.items():
            kind, dot, setting = name.partition(".")
            holder, key = (values[SETTINGS_OF[kind]], setting) if dot else (values, name)
            if _frozen(holder.get(key, neutral)) == _frozen(neutral):
                holder.pop(key, None)
        return values

    def __hash__(self) -> int:
        return hash(self.trial_id)

    def replace(self, **changes: Any) -> TrialConfig:
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def _frozen(value: Any) -> Setting:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _thawed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: list(item) if isinstance(item, tuple) else item for key, item in value.items()}
    return value


def _check_number(
    name: str,
    value: object,
    kind: type[int] | type[float],
    *,
    above: float | None = None,
    at_least: float | None = None,
) -> None:
    wanted = "a whole number" if kind is int else "a number"
    wanted += f" above {above}" if above is not None else f" of at least {at_least}"
    ok = isinstance(value, (int,) if kind is int else (int, float)) and not isinstance(value, bool)
    if not (
        ok
        and isinstance(value, (int, float))
        and math.isfinite(value)
        and (above is None or value > above)
        and (at_least is None or value >= at_least)
    ):
        raise InputError(f"{name} must be {wanted}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What one epoch of one trial measured. Losses are means over images, accuracies fractions in [0, 1]."""

    trial_id: str
    """The trial this record belongs to."""
    epoch: int
    """Counted from 1."""
    lr: float
    """Learning rate of the epoch's first step."""
    lr_last: float
    """Learning rate of the epoch's last step."""
    train_loss: float
    """Mean over the training images of what was minimised (smoothed, weighted), each as its batch was trained."""
    train_accuracy: float
    """Fraction of the training images right, measured like `train_loss`."""
    val_loss: float
    """Mean over the validation images after the epoch."""
    val_accuracy: float
    """Fraction of the validation images right after the epoch."""
    test_loss: float | None
    """Mean over the test images after the epoch; None where not evaluated, or (beside an accuracy) not finite."""
    test_accuracy: float | None
    """Fraction of the test images right after the epoch; None where not evaluated."""
    function_evaluations: int
    """Forward and backward passes: one for each batch, more where an optimizer searches along a line (LBFGS)."""
    train_seconds: float
    """Wall time of the epoch's training."""
    eval_seconds: float
    """Wall time of its evaluations."""
    computed_by: str
    """The trial whose training this record comes from."""
    grad_norm: float | None = None
    """Mean norm of the gradient before it was clipped; None where it is not, or not finite."""
    val_balanced_accuracy: float | None = None
    """Mean of the classes' accuracies on the validation images; None but for trials about imbalance."""
    val_class_accuracy: str | None = None
    """Each class's accuracy on the validation images, as a JSON list (null for a class without any); None likewise."""
    test_balanced_accuracy: float | None = None
    """Like `val_balanced_accuracy`, on the test images where those were evaluated."""
    test_class_accuracy: str | None = None
    """Like `val_class_accuracy`, on the test images where those were evaluated."""

    def to_json(self) -> dict[str, Any]:
        """Returns the record as plain JSON values."""
        return {name: getattr(self, name) for name in RECORD_FIELDS}


RECORD_FIELDS: tuple[str, ...] = tuple(f.name for f in fields(EpochRecord))
"""Names of an `EpochRecord`'s fields, in order."""

TEST_FIELDS: tuple[str, ...] = tuple(name for name in RECORD_FIELDS if name.startswith("test_"))
"""Those that hold what was measured on the test images."""


class Diverged(Exception):  # noqa: N818 - an outcome, not an error
    """A loss became infinite or NaN: the trial's training ends here, which is a result."""

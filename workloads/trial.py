"""Input and output of a trial: `TrialConfig` in, `EpochRecord` out.

Imports only the standard library (and our error type), so that analysis can use it without torch.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, get_args

from workloads.errors import InputError

Setting = bool | int | float | str | None | tuple[int | float, ...]
Settings = Mapping[str, Setting]

Status = Literal["completed", "early_stopped", "diverged", "out_of_memory", "failed", "cancelled", "pending"]
STATUSES: tuple[Status, ...] = get_args(Status)
"""Every trial status, as written to `trials.parquet`."""

FINAL_STATUSES: frozenset[Status] = frozenset({"completed", "diverged"})
"""A trial with one of these statuses has its result: rerunning the sweep skips it. One that was stopped early goes on
if a question asks for it and does not stop it again."""

FAILED_STATUSES: frozenset[Status] = frozenset({"failed", "out_of_memory"})
"""A trial with one of these statuses has no result, for a reason that may be transient (its worker, memory):
`--retry-failed` reruns it. If another trial turns out to be the same training, it gets that trial's result."""

SETTINGS_OF: dict[str, str] = {
    "workload": "workload_settings",
    "optimizer": "optimizer_settings",
    "scheduler": "scheduler_settings",
}
"""Kind of row -> the field of `TrialConfig` that holds its settings."""


ADDED_LATER: Mapping[str, Any] = {"init_seed": None, "order_seed": None, "reorder_from": None, "per_image": False}
"""Field (`init_seed`) or setting (`workload.mixup`) added after trials had been stored -> the value that reproduces
training as it was before. At that value it is not part of a trial's identity, so stored trials keep their ids. If you
add a field or a setting, add an entry here."""


def canonical_json(value: object) -> str:
    """Returns the canonical JSON of a value: sorted keys, no whitespace, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str | bytes, length: int = 16) -> str:
    """Returns the first `length` hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:length]


@dataclass(frozen=True, kw_only=True)
class Role:
    """What a field of `TrialConfig` is to everything else: columns, axes, flags, names and sharing follow from it."""

    doc: str
    """Its column in the tables, in words."""
    unit: Literal["", "epochs", "images"] = ""
    """Of that column."""
    phrase: str | None = None
    """How a configuration's name says its value, e.g. `lr {}`; None for what is no part of a configuration."""
    flag: str | None = None
    """The option, and the field of `Sweep`, that gives its values; None for none."""
    is_axis: bool = True
    """Whether `--grid` and a sweep's own grid can vary it."""
    shares: bool = False
    """Whether trials that differ in it can still be the same training for a while: what they apply next tells."""


def _said(default: Any, doc: str, **role: Any) -> Any:
    """Returns a field of `TrialConfig`, with its `Role`."""
    return field(default=default, metadata={"role": Role(doc=doc, **role)})


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """The complete description of a trial: equal configs train bitwise identically on the same type of machine.

    Raises:
        InputError: A value is out of range; the message names the field, the value and what is allowed.
    """

    workload: str = _said("lenet_fashion_mnist", "what was trained: network and data set", phrase="{}")
    """What to train: the name of a row of `WORKLOADS`."""
    workload_settings: Settings = field(default_factory=dict)
    """Settings of the workload, e.g. label smoothing."""
    optimizer: str = _said("adam", "name of the optimizer", phrase="{}", flag="optimizers")
    """The name of a row of `OPTIMIZERS`."""
    optimizer_settings: Settings = field(default_factory=dict)
    """Settings of the optimizer except its learning rate, e.g. momentum."""
    scheduler: str = _said("none", "name of the learning-rate schedule", phrase="{}", flag="schedulers", shares=True)
    """The name of a row of `SCHEDULERS`."""
    scheduler_settings: Settings = field(default_factory=dict, metadata={"shares": True})
    """Settings of the learning-rate schedule, e.g. its factor."""
    lr: float = _said(0.001, "initial learning rate", phrase="lr {}", flag="lrs", shares=True)
    """Initial learning rate, which the schedule scales."""
    batch_size: int = _said(64, "images per training step", unit="images", phrase="batch size {}", flag="batch_size")
    """Images per training step; the last batch of an epoch may be smaller."""
    epochs: int = _said(30, "epochs planned", unit="epochs", phrase="{} epochs", flag="epochs", shares=True)
    """Number of passes over the training images."""
    seed: int = _said(
        21, "random seed of initial weights, image order, augmentation and dropout", flag="seeds", shares=True
    )
    """Determines initial weights, image order, augmentation and the network's own randomness (dropout)."""
    train_limit: int | None = _said(
        None,
        "number of training images used, from the start; null for all",
        unit="images",
        phrase="{} images",
        flag="train_limit",
    )
    """Number of training images to use, from the start; None means all."""
    test_every_epoch: bool = _said(
        False, "whether the test images are evaluated after every epoch", is_axis=False, shares=True
    )
    """Evaluate on the test images after every epoch instead of only after the last."""
    init_seed: int | None = _said(
        None, "random seed of the initial weights; null for `seed`", phrase="init seed {}", shares=True
    )
    """Determines the initial weights, instead of the seed; None leaves them to it."""
    order_seed: int | None = _said(
        None,
        "random seed of image order, augmentation and dropout, from `reorder_from` on; null for `seed`",
        phrase="order seed {}",
        shares=True,
    )
    """Determines image order, augmentation and the network's own randomness, instead of the seed; None leaves them to
    it."""
    reorder_from: int | None = _said(
        None,
        "first epoch for which `order_seed` counts; before it `seed` does; null for all epochs",
        phrase="from epoch {}",
        shares=True,
    )
    """The first epoch (counted from 1) for which the order seed counts; the seed does before. None means from the
    start. Two trials that differ in nothing else are the same training up to there."""
    per_image: bool = _said(False, "whether records tell which validation images were right")
    """Record of each validation image whether it is right. Trials that do share nothing with those that do not."""

    def __post_init__(self) -> None:
        for name in SETTINGS_OF.values():
            frozen = {key: _frozen(value) for key, value in sorted(getattr(self, name).items())}
            object.__setattr__(self, name, frozen)
        _check_number("lr", self.lr, float, above=0)
        object.__setattr__(self, "lr", float(self.lr))
        for name in ("batch_size", "epochs"):
            _check_number(name, getattr(self, name), int, at_least=1)
        _check_number("seed", self.seed, int, at_least=0)
        for name, least in {"train_limit": 1, "init_seed": 0, "order_seed": 0, "reorder_from": 2}.items():
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name), int, at_least=least)
        if not self.seeded:  # then trials that differ in their seed are one
            object.__setattr__(self, "seed", self.init_seed)

    @property
    def seeded(self) -> bool:
        """Whether the seed determines anything: not if the two others say it all."""
        return self.init_seed is None or self.order_seed is None or self.reorder_from is not None

    @property
    def weights_seed(self) -> int:
        """What determines the initial weights."""
        return self.seed if self.init_seed is None else self.init_seed

    def batches_seed(self, epoch: int) -> int:
        """Returns what determines an epoch's order of images, augmentation and the network's own randomness.

        Args:
            epoch: Counted from 1.
        """
        reordered = self.order_seed is not None and (self.reorder_from is None or epoch >= self.reorder_from)
        return self.order_seed if reordered and self.order_seed is not None else self.seed

    def to_json(self) -> dict[str, Any]:
        """Returns the config as plain JSON values; `from_json` is the inverse."""
        return {
            f.name: _thawed(getattr(self, f.name))
            for f in fields(self)  # not asdict: it deep-copies every mapping, which is slow for thousands of trials
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrialConfig:
        """Returns the config from the output of `to_json`.

        Raises:
            InputError: A field is unknown.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise InputError(f"unknown trial fields {unknown}; known: {[f.name for f in fields(cls)]}")
        return cls(**values)

    @cached_property
    def trial_id(self) -> str:
        """16 hexadecimal digits: the hash of `identity`, the same on every machine."""
        return digest(canonical_json(self.identity()))

    def identity(self) -> dict[str, Any]:
        """Returns the values that identify the trial: `to_json` minus `ADDED_LATER` entries at their neutral value."""
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


def configuration_id(trial: TrialConfig) -> str:
    """Returns what a trial's configuration is known by: the id of the trial at seed 0, whatever its own."""
    return (trial if trial.seed == 0 else trial.replace(seed=0)).trial_id


def configurations_digest(trials: Iterable[TrialConfig]) -> str:
    """Returns a hash of the configurations of trials, whatever their seeds and order."""
    return digest(canonical_json(sorted({configuration_id(trial) for trial in trials})))


LEFT_TO_SEED: Mapping[str, None] = {"init_seed": None, "order_seed": None, "reorder_from": None}
"""The fields that say what the seed does not determine, at the values that leave everything to it."""

FIELDS: Mapping[str, Role] = {f.name: f.metadata["role"] for f in fields(TrialConfig) if "role" in f.metadata}
"""Field of a trial, without those that hold settings -> what it is to everything else."""

SHARING: frozenset[str] = frozenset(
    f.name for f in fields(TrialConfig) if f.metadata.get("shares") or (f.name in FIELDS and FIELDS[f.name].shares)
)
"""The fields that differ between trials which may share training."""


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
    """The measurements of one epoch of one trial. Losses are means over images, accuracies are fractions in [0, 1]."""

    trial_id: str
    """The trial this record belongs to."""
    epoch: int
    """Counted from 1."""
    lr: float
    """Learning rate of the epoch's first step."""
    lr_last: float
    """Learning rate of the epoch's last step."""
    train_loss: float
    """Mean training objective (with smoothing and weights) over the training images, measured while training."""
    train_accuracy: float | None
    """Accuracy on the training images, measured like `train_loss`; None if the workload's measure needs a whole split.

    For a workload with another measure, the fields named accuracy hold that measure's values."""
    val_loss: float
    """Mean over the validation images after the epoch."""
    val_accuracy: float
    """Accuracy on the validation images after the epoch."""
    test_loss: float | None
    """Mean over the test images after the epoch; None if not evaluated, or (with a test accuracy) if not finite."""
    test_accuracy: float | None
    """Accuracy on the test images after the epoch; None if not evaluated."""
    function_evaluations: int
    """Forward and backward passes: one per batch, more if the optimizer performs a line search (LBFGS)."""
    train_seconds: float
    """Wall time of training in this epoch."""
    eval_seconds: float
    """Wall time of evaluation in this epoch."""
    computed_by: str
    """The trial whose training this record comes from."""
    grad_norm: float | None = None
    """Mean gradient norm before clipping; None if gradients are not clipped or the norm is not finite."""
    val_balanced_accuracy: float | None = None
    """Mean of the per-class validation accuracies; None unless classes are thinned or balanced."""
    val_class_accuracy: str | None = None
    """Validation accuracy of each class, as a JSON list (null for a class without images); None unless classes are
    thinned or balanced."""
    test_balanced_accuracy: float | None = None
    """Like `val_balanced_accuracy`, on the test images; None if not evaluated."""
    test_class_accuracy: str | None = None
    """Like `val_class_accuracy`, on the test images; None if not evaluated."""
    val_right: str | None = None
    """Which validation images are right after the epoch, as of `packed`; None unless asked for (`per_image`)."""
    state_before: str | None = None
    """Digest of the training state the epoch began with (`workloads.states`); None in records of older versions."""
    state_after: str | None = None
    """Digest of the training state the epoch led to; None in records of older versions."""
    test_digest: str | None = None
    """Digest of `state_after` and of what was measured on the test images; None if they were not evaluated."""

    def to_json(self) -> dict[str, Any]:
        """Returns the record as plain JSON values."""
        return {name: getattr(self, name) for name in RECORD_FIELDS}


RECORD_FIELDS: tuple[str, ...] = tuple(f.name for f in fields(EpochRecord))
"""Names of the fields of `EpochRecord`, in order."""

TEST_FIELDS: tuple[str, ...] = tuple(name for name in RECORD_FIELDS if name.startswith("test_"))
"""The fields measured on the test images."""

STATE_FIELDS: tuple[str, ...] = ("state_before", "state_after", "test_digest")
"""The fields that name training states: digests of what else is known, not measurements."""

CLOCK_FIELDS: tuple[str, ...] = ("train_seconds", "eval_seconds")
"""The fields that differ from one training to the next, though all else is the same."""

RECORDED_LATER: frozenset[str] = frozenset({"val_right", *STATE_FIELDS})
"""Fields of `EpochRecord` added after trials had been stored: no part of what identifies how a trial trains."""


def packed(right: Sequence[bool]) -> str:
    """Returns which examples are right as a text: how many there are, a colon, and a bit for each in base64.

    Args:
        right: In the order of the examples, whose bits go from the highest to the lowest of each byte.
    """
    bits = "".join("01"[bool(one)] for one in right)
    content = int(bits.ljust(-(-len(bits) // 8) * 8, "0") or "0", 2).to_bytes(-(-len(bits) // 8), "big")
    return f"{len(bits)}:{base64.b64encode(content).decode()}"


class Diverged(Exception):  # noqa: N818 - an outcome, not an error
    """A loss became infinite or NaN: training stops here, and that is the trial's result."""

"""`Workload`: a network and data of the user's own, from a few lines of their own file.

mine = Workload(name="mlp", network=build, data=load, loss="mse")
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from workloads import blame
from workloads.draws import global_draws
from workloads.errors import InputError
from workloads.objectives import Function, Objective, measured, objective_of
from workloads.own_data import OwnData, OwnDataset
from workloads.registry import SETTINGS, WORKLOADS, DataSource, WorkloadRow
from workloads.rows import Default, Range, Refusals
from workloads.trial import Setting, Settings, TrialConfig, canonical_json

LIKE_IMAGES = ("shift", "flip", "erasing")
"""Settings that augment images: inputs (n, channels, height, width) in floating point."""
CHECKED = 16
"""Examples of the batch that a network is checked with before anything starts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """A network and data of the user's own, and what it is trained on and ranked by.

    What is wrong with it is said when its row is asked for, by the sweep: in one line.
    """

    name: str
    """What it is called in tables; a changed network under the same name is not mixed with trials of the old one."""
    network: Callable[..., nn.Module]
    """A function (or class) that returns the network with its initial weights. Its keyword parameters, each with a
    default, are settings: axes such as `--grid workload.width=64,128`."""
    data: Any
    """Arrays, tensors or a torch data set, with splits or without, or a function that returns them
    (`workloads.own_data`)."""
    loss: str | Function = "cross_entropy"
    """A row of `LOSSES`, or a function of outputs and targets that returns the mean over a batch."""
    measure: str | Function | None = None
    """What configurations are ranked by: a row of `MEASURES`, 'loss', or a function of outputs and targets, all those
    of a split at once, that returns one number or a value for each example. None takes what the loss is usually ranked
    by: accuracy for classes, the mean absolute error for numbers."""
    higher_is_better: bool | None = None
    """Of a measure that is a function."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Setting -> the numbers allowed."""
    choices: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)
    """Setting -> the values allowed, if it is not a number."""
    refuses: Refusals = field(default_factory=dict)
    """Reason -> which combinations of settings make no sense: a sweep drops and counts them."""
    classes: tuple[str, ...] = ()
    """Names of the classes; by default those of a torch data set, or numbers."""

    _place: str | None = field(default=None, init=False, repr=False)
    """Where it is stated."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", blame.here())

    @cached_property
    def row(self) -> WorkloadRow:
        """Its row of `WORKLOADS`.

        Raises:
            InputError: A field is of another kind than it should be, or cannot be used; with file and line.
        """
        try:
            return self._row()
        except blame.OwnCodeError:
            raise
        except InputError as error:
            raise self.refused(str(error)) from None

    def refused(self, reason: str) -> blame.OwnCodeError:
        """Returns that the workload cannot be used, with the place where it is stated."""
        return blame.OwnCodeError(f"{self._place}: {reason}" if self._place else reason)

    def _row(self) -> WorkloadRow:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"a workload's name must be a text, not {self.name!r}")
        if isinstance(self.network, nn.Module) or not callable(self.network):
            raise InputError(
                f"network of workload {self.name!r} must be a function or class that builds the network, so that every "
                f"seed has initial weights of its own, not {type(self.network).__name__}"
            )
        objective = objective_of(self.loss, self.measure, self.higher_is_better)
        # What targets a function of the user's own takes, it knows itself.
        of_classes = objective.loss.of_classes if isinstance(self.loss, str) else None
        settings = _settings_of(self.network)
        for what, given in {"ranges": self.ranges, "choices": self.choices}.items():
            for name in given:
                if name not in settings:
                    raise blame.refused(
                        f"{what} of workload {self.name!r} has {name!r}, which the network does not take as a "
                        f"keyword; it takes: {', '.join(settings) or 'none'}",
                        self.network,
                    )
        return WorkloadRow(
            name=self.name,
            doc=(inspect.getdoc(self.network) or "").partition("\n")[0] or "A network of your own.",
            dataset=self.name,
            model=_Build(self.network),
            settings=settings,
            choices=self.choices,
            allowed=self.ranges,
            refuses=self.refuses,
            shared=frozenset(SETTINGS) - {"batch_norm"} if of_classes else frozenset({"clip_norm"}),
            objective=objective,
            data=OwnData(self.name, self.data, of_classes=of_classes, classes=tuple(self.classes)),
        )


@dataclass(frozen=True)
class _Build:
    """Builds the network from a trial's settings."""

    network: Callable[..., nn.Module]

    def __call__(self, dataset: DataSource, settings: Settings) -> nn.Module:
        own = {name: value for name, value in settings.items() if name not in SETTINGS}
        try:
            model = self.network(**own)
        except Exception as error:
            raise blame.blamed(error, "the network", self.network) from error
        if not isinstance(model, nn.Module):
            raise blame.refused(f"the network must be a torch.nn.Module, not {type(model).__name__}", self.network)
        return model


def register(workload: Workload) -> str:
    """Puts a user's workload into `WORKLOADS`, where a row of the same name was the user's too, and returns its name.

    Raises:
        InputError: The name is one of ours, or something of it cannot be used.
    """
    row = workload.row
    before = WORKLOADS.get(row.name)
    if before is not None and before.data is None:
        raise workload.refused(f"a workload of forksweep is named {row.name!r} already: give yours another name")
    if before is not row:
        WORKLOADS[row.name] = row
    return row.name


def _settings_of(network: Callable[..., nn.Module]) -> dict[str, Default]:
    """Returns the keyword parameters of a function that builds a network, with their defaults."""
    try:
        parameters = inspect.signature(network, eval_str=True).parameters.values()
    except (NameError, SyntaxError):  # annotations that name something imported for type checkers only
        parameters = inspect.signature(network).parameters.values()
    except (TypeError, ValueError):
        return {}
    found: dict[str, Default] = {}
    for parameter in parameters:
        name, default = parameter.name, parameter.default
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if default is parameter.empty:
            raise blame.refused(
                f"parameter {name!r} of the network needs a default: its parameters are settings, which a sweep can "
                "vary",
                network,
            )
        if name in SETTINGS:
            raise blame.refused(
                f"parameter {name!r} of the network needs another name: workload.{name} exists", network
            )
        if isinstance(default, list):
            default = tuple(default)
        if not isinstance(default, (bool, int, float, str, tuple, type(None))):
            raise blame.refused(
                f"the default of parameter {name!r} of the network must be a number, true or false, a text or a list "
                f"of numbers, not {type(default).__name__}",
                network,
            )
        wants_float = parameter.annotation in (float, "float") and not isinstance(default, bool)
        found[name] = float(default) if wants_float and isinstance(default, int) else default
    return found


def check(config: TrialConfig) -> None:
    """Trains a user's network for one step on a few examples, and measures it, to find what is wrong before the start.

    Args:
        config: A trial, with all settings filled in. Trials of shipped workloads pass.

    Raises:
        OwnCodeError: Something raises, or has another type or shape than it must have; with file and line.
    """
    row = WORKLOADS[config.workload]
    if row.data is not None:
        _check(row, canonical_json(config.to_json()["workload_settings"]))


@cache
def _check(row: WorkloadRow, settings_json: str) -> None:
    assert row.data is not None
    assert isinstance(row.model, _Build)
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(settings_json).items()}
    builder, sample = row.model.network, row.data.sample
    part = sample.parts["train"].first(CHECKED)
    _check_augmentation({name: settings.get(name) for name in LIKE_IMAGES}, part.inputs.shape, part.inputs.dtype.kind)
    inputs, targets = torch.from_numpy(part.inputs), torch.from_numpy(part.targets)
    with global_draws(0):
        model = row.model(row.data, settings)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise blame.refused("the network has no parameters to train", builder)
        model.train()
        outputs = _called(lambda: model(inputs), f"the network, given inputs {tuple(inputs.shape)},", builder)
        _check_outputs(outputs, targets, row.objective, sample, builder)
        own_loss = row.objective.loss.of
        loss = _called(lambda: own_loss(outputs, targets), f"the loss of outputs {_shape(outputs)}", own_loss)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise blame.refused(
                "the loss must be one number, the mean over the batch, with a gradient, not "
                f"{_shape(loss) if isinstance(loss, Tensor) else type(loss).__name__}",
                own_loss,
            )
        _called(loss.reshape(()).backward, "the backward pass of the network", builder)
        model.eval()
        with torch.inference_mode():
            outputs = _called(lambda: model(inputs), "the network, in evaluation mode,", builder)
        _check_measure(row.objective, outputs, targets)


def _check_augmentation(augmentation: Mapping[str, Any], shape: tuple[int, ...], kind: str) -> None:
    asked = [name for name, value in augmentation.items() if value]
    if asked and (len(shape) != 4 or kind != "f"):
        raise InputError(
            f"workload.{asked[0]} is for images, floating-point inputs (n, channels, height, width), not {shape}"
        )


def _check_outputs(
    outputs: object, targets: Tensor, objective: Objective, sample: OwnDataset, builder: Callable[..., Any]
) -> None:
    """Refuses outputs that the loss would misread."""
    if not isinstance(outputs, Tensor):
        raise blame.refused(f"the network must return a tensor, not {type(outputs).__name__}", builder)
    if len(outputs) != len(targets):
        raise blame.refused(
            f"the network must return a row for each of {len(targets)} examples, not {_shape(outputs)}", builder
        )
    if objective.loss.of_classes:
        classes = len(sample.classes)
        if outputs.ndim != targets.ndim + 1 or outputs.shape[:1] + outputs.shape[2:] != targets.shape:
            wanted = (len(targets), "classes", *targets.shape[1:])
            raise blame.refused(
                f"the network must return logits ({', '.join(map(str, wanted))}), as labels are "
                f"{tuple(targets.shape)}, not {_shape(outputs)}",
                builder,
            )
        if outputs.shape[1] < classes:
            raise blame.refused(
                f"the network returns {outputs.shape[1]} logits, but there are {classes} classes, labels 0 to "
                f"{classes - 1}",
                builder,
            )
    elif objective.loss.measure and outputs.shape != targets.shape:
        raise blame.refused(
            f"outputs and targets must have one shape for this loss: the network returns {_shape(outputs)}, targets "
            f"are {tuple(targets.shape)}",
            builder,
        )


def _check_measure(objective: Objective, outputs: Tensor, targets: Tensor) -> None:
    """Refuses a measure of the user's own that returns neither a value for each example nor one number."""
    measurement = objective.measurement
    if measurement.of is None or not measurement.whole:
        return
    of = measurement.of
    values = _called(lambda: of(outputs, targets), f"the measure of outputs {_shape(outputs)}", of)
    try:
        measured(values)
    except (TypeError, ValueError):
        given = _shape(values) if isinstance(values, Tensor) else type(values).__name__
        raise blame.refused(
            f"the measure must return one number, or a value for each of {len(targets)} examples, not {given}", of
        ) from None


def _called(action: Callable[[], Any], what: str, function: Callable[..., Any]) -> Any:
    try:
        return action()
    except blame.OwnCodeError:
        raise
    except Exception as error:
        raise blame.blamed(error, what, function) from error


def _shape(outputs: Tensor) -> str:
    return str(tuple(outputs.shape))

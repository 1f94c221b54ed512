"""OPTIMIZERS: every optimizer a trial can use, one row each.

To add one, add a row: sweeps, report and tests pick it up. Settings are plain numbers, so that each can be an axis of a
sweep; torch's tuples are spelled out (`beta1`, `beta2` for `betas`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from workloads.rows import Row
from workloads.trial import Settings

Build = Callable[[nn.Module, float, Settings], Optimizer]


@dataclass(frozen=True, kw_only=True)
class OptimizerRow(Row):
    """One way to turn gradients into steps."""

    torch_class: type[Optimizer]
    """The class of `torch.optim` that does it."""
    lrs: tuple[float, ...]
    """Grid of learning rates that spans the usual range."""
    fixed: Settings = field(default_factory=dict)
    """Arguments of the class that make this variant what it is: not settings, never an axis."""
    build_with: Build | None = None
    """How to build it where the class alone over all parameters does not do."""
    not_applicable: str | None = None
    """Why no trial can use it; None for all others."""

    def build(self, model: nn.Module, lr: float, settings: Settings) -> Optimizer:
        """Returns the optimizer over a model's parameters.

        Args:
            model: The model to train.
            lr: Initial learning rate.
            settings: A value for each of the row's settings.

        Raises:
            ValueError: torch refuses a value.
        """
        if self.build_with is not None:
            return self.build_with(model, lr, settings)
        return self.torch_class(model.parameters(), lr=lr, **torch_arguments({**self.fixed, **settings}))


_TUPLES: Mapping[str, tuple[str, ...]] = {
    "betas": ("beta1", "beta2"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_min", "step_max"),
    "eps": ("eps1", "eps2"),
}
"""torch's tuple arguments -> the plain settings they are made of."""


def torch_arguments(settings: Settings) -> dict[str, Any]:
    """Returns settings as torch's arguments: `beta1` and `beta2` become `betas`."""
    arguments: dict[str, Any] = dict(settings)
    for argument, names in _TUPLES.items():
        if all(name in settings for name in names):
            arguments[argument] = tuple(arguments.pop(name) for name in names)
    return arguments


class Combined(Optimizer):
    """Several optimizers, each over some of the parameters, as one: one state, one list of groups, one step."""

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        self._parts = list(optimizers)
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._link()

    def _link(self) -> None:
        start = 0
        for part in self._parts:
            count = len(part.param_groups)
            part.param_groups = self.param_groups[start : start + count]
            part.state = self.state
            start += count

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the state of all parts."""
        super().load_state_dict(state_dict)
        self._link()

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Evaluates the closure once, then steps every part."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss


def _muon(model: nn.Module, lr: float, settings: Settings) -> Optimizer:
    parameters = list(model.parameters())
    matrices = [p for p in parameters if p.ndim == 2]
    rest = [p for p in parameters if p.ndim != 2]
    # "match_rms_adamw" scales Muon's steps to AdamW's, so that one learning rate suits both (arXiv:2502.16982).
    muon = torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw", **torch_arguments(settings))
    adamw = torch.optim.AdamW(rest, lr=lr, weight_decay=_number(settings["weight_decay"]))
    return Combined([muon, adamw])


def _number(value: object) -> float:
    assert isinstance(value, (int, float))
    return float(value)


def _nesterov_needs_momentum(settings: Settings) -> str | None:
    if settings["nesterov"] and (not settings["momentum"] or settings["dampening"]):
        return "Nesterov needs a momentum above 0 and no dampening"
    return None


def _dampening_needs_momentum(settings: Settings) -> str | None:
    if settings["dampening"] and not settings["momentum"]:
        return "dampening acts on the momentum, which is 0"
    return None


def _sgd_refuses(settings: Settings) -> str | None:
    return _nesterov_needs_momentum(settings) or _dampening_needs_momentum(settings)


_SGD = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}
_RMSPROP = {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False, "weight_decay": 0.0}
_ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
_ADAPTIVE_LRS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
_ADAM_LRS = (1e-4, 1e-3, 3e-3, 1e-2)

OPTIMIZERS: Mapping[str, OptimizerRow] = {
    row.name: row
    for row in (
        OptimizerRow(
            name="sgd",
            doc="Stochastic gradient descent: a step against the gradient of one batch.",
            torch_class=torch.optim.SGD,
            settings=_SGD,
            lrs=(0.001, 0.01, 0.1, 0.3, 1.0),
            refuses=_sgd_refuses,
        ),
        OptimizerRow(
            name="sgd_momentum",
            doc="SGD with momentum 0.9: steps along a running sum of gradients (Polyak 1964).",
            torch_class=torch.optim.SGD,
            settings=_SGD | {"momentum": 0.9},
            lrs=(0.001, 0.01, 0.03, 0.1),
            refuses=_sgd_refuses,
        ),
        OptimizerRow(
            name="rmsprop",
            doc="RMSprop: gradients divided by a running root mean square (Hinton 2012).",
            torch_class=torch.optim.RMSprop,
            settings=_RMSPROP,
            lrs=(1e-4, 1e-3, 1e-2),
        ),
        OptimizerRow(
            name="adam",
            doc="Adam: momentum over RMSprop's scaling, bias corrected (arXiv:1412.6980).",
            torch_class=torch.optim.Adam,
            settings=_ADAM,
            lrs=_ADAM_LRS,
        ),
    )
}
"""Name -> row. The default sweep takes the first four."""


def describe(row: OptimizerRow) -> str:
    """Returns a row as one line: name, description, and where its class is documented."""
    module = inspect.getmodule(row.torch_class)
    assert module is not None
    return f"{row.name}: {row.doc}"


def unused_classes() -> list[str]:
    """Returns the optimizers of `torch.optim` that no row uses, in order of name."""
    used = {row.torch_class for row in OPTIMIZERS.values()}
    found = {name: value for name, value in vars(torch.optim).items() if inspect.isclass(value)}
    return sorted(n for n, c in found.items() if issubclass(c, Optimizer) and c is not Optimizer and c not in used)

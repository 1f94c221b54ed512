"""OPTIMIZERS: every optimizer a trial can use, one row each.

To add one, add a row: sweeps, report and tests pick it up. Settings are plain numbers, so that each can be an axis of a
sweep; torch's tuples are split (`beta1`, `beta2` for `betas`). Defaults are torch's unless the row's `doc` says
otherwise.

Each row has the space that a search draws from, with `lr` for the learning rate: the row's grid and half a decade to
either side. `momentum`, `beta1` and decoupled weight decay are those of AlgoPerf's baselines (SGD with Nesterov
momentum and AdamW, arXiv:2306.07179); all other ranges are our judgement.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from workloads.rows import Range, Refusals, Row
from workloads.spans import Span
from workloads.trial import Settings

Build = Callable[[nn.Module, float, Settings], Optimizer]

_NOT_NEGATIVE = Range(at_least=0)
_FRACTION = Range(at_least=0, at_most=1)
_BELOW_ONE = Range(at_least=0, below=1)
_POSITIVE = Range(above=0)
_ONE_OR_MORE = Range(at_least=1)

RANGES: Mapping[str, Range] = {
    "momentum": _BELOW_ONE,
    "dampening": _FRACTION,
    "weight_decay": _NOT_NEGATIVE,
    "alpha": _FRACTION,
    "rho": _FRACTION,
    "beta1": _BELOW_ONE,
    "beta2": _BELOW_ONE,
    "eps": _NOT_NEGATIVE,
    "momentum_decay": _NOT_NEGATIVE,
    "lr_decay": _NOT_NEGATIVE,
    "initial_accumulator_value": _NOT_NEGATIVE,
    "lambd": _NOT_NEGATIVE,
    "eta_minus": Range(above=0, below=1),
    "eta_plus": Range(above=1),
    "step_min": _POSITIVE,
    "step_max": _POSITIVE,
    "beta2_decay": Range(at_most=0),
    "eps1": _NOT_NEGATIVE,
    "eps2": _NOT_NEGATIVE,
    "d": _ONE_OR_MORE,
    "ns_a": Range(),
    "ns_b": Range(),
    "ns_c": Range(),
    "ns_steps": Range(at_least=1, below=100),
    "max_iter": _ONE_OR_MORE,
    "max_eval": Range(at_least=1, whole=True),
    "tolerance_grad": _NOT_NEGATIVE,
    "tolerance_change": _NOT_NEGATIVE,
    "history_size": _ONE_OR_MORE,
}
"""Setting -> allowed numbers, for every row that has it."""


@dataclass(frozen=True, kw_only=True)
class OptimizerRow(Row):
    """An optimizer."""

    torch_class: type[Optimizer]
    """The class in `torch.optim`."""
    lrs: tuple[float, ...]
    """Default grid of learning rates, spanning the usual range."""
    build_with: Build | None = None
    """How to build it, if not as `torch_class` over all parameters."""
    not_applicable: str | None = None
    """Why no trial can use it; None if trials can."""
    unscheduled: str | None = None
    """Why learning-rate schedules have no effect on it; None if they have."""

    ranges: ClassVar[Mapping[str, Range]] = RANGES

    def __post_init__(self) -> None:
        object.__setattr__(self, "refuses", {**_REFUSES.get(self.torch_class, {}), **self.refuses})

    def build(self, model: nn.Module, lr: float, settings: Settings) -> Optimizer:
        """Returns the optimizer over a model's parameters.

        Args:
            model: The model to train.
            lr: Initial learning rate.
            settings: A value for each of the row's settings.

        Raises:
            ValueError: torch rejects a value.
        """
        if self.build_with is not None:
            return self.build_with(model, lr, settings)
        return _constructed(self.torch_class, model.parameters(), lr=lr, **torch_arguments(settings))


_TUPLES: Mapping[str, tuple[str, ...]] = {
    "betas": ("beta1", "beta2"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_min", "step_max"),
    "eps": ("eps1", "eps2"),
    "ns_coefficients": ("ns_a", "ns_b", "ns_c"),
}
"""torch's tuple arguments -> the plain settings that form them."""


def torch_arguments(settings: Settings) -> dict[str, Any]:
    """Converts settings to torch's arguments: `beta1` and `beta2` become `betas`."""
    arguments: dict[str, Any] = dict(settings)
    for argument, names in _TUPLES.items():
        if all(name in settings for name in names):
            arguments[argument] = tuple(arguments.pop(name) for name in names)
    return arguments


def _constructed(torch_class: type[Optimizer], parameters: Iterable[Tensor], **arguments: Any) -> Optimizer:
    """Returns an optimizer all of whose state is where its parameters are.

    On a GPU torch keeps counters on the CPU unless it is told that a CUDA graph may capture them; some of them move
    when they are loaded, and a resumed training would compute with other bits, and wait for the GPU in every step.
    """
    parameters = list(parameters)
    on_gpu = any(parameter.device.type != "cpu" for parameter in parameters)
    if on_gpu and "capturable" in inspect.signature(torch_class).parameters:
        arguments["capturable"] = True
    constructor: Callable[..., Optimizer] = torch_class
    return constructor(parameters, **arguments)


class Combined(Optimizer):
    """Several optimizers, each for some of the parameters, combined: one state, one list of groups, one step."""

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
    arguments = torch_arguments(settings)
    adamw = _constructed(torch.optim.AdamW, rest, lr=lr, weight_decay=arguments["weight_decay"])
    return Combined([_constructed(torch.optim.Muon, matrices, lr=lr, **arguments), adamw])


_NESTEROV: Refusals = {"nesterov needs momentum above 0": lambda s: s["nesterov"] and not s["momentum"]}
_DECOUPLED: Refusals = {
    "decoupled_weight_decay has no effect unless weight_decay is above 0": lambda s: (
        s["decoupled_weight_decay"] and not s["weight_decay"]
    ),
}
_REFUSES: Mapping[type[Optimizer], Refusals] = {
    torch.optim.SGD: {
        **_NESTEROV,
        "nesterov needs zero dampening": lambda s: s["nesterov"] and s["dampening"],
        "dampening has no effect unless momentum is above 0": lambda s: s["dampening"] and not s["momentum"],
    },
    torch.optim.Adam: _DECOUPLED,
    torch.optim.NAdam: _DECOUPLED,
    torch.optim.RAdam: _DECOUPLED,
    torch.optim.Rprop: {"step_min is above step_max": lambda s: s["step_min"] > s["step_max"]},
    torch.optim.Muon: _NESTEROV,
}
"""Class -> combinations that make no sense in any of its rows; a row can add more."""

_SGD = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}
_RMSPROP = {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False, "weight_decay": 0.0}
_BETAS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
_ADAM = _BETAS | {"amsgrad": False, "decoupled_weight_decay": False}
_ADAM_LRS = (1e-4, 1e-3, 3e-3, 1e-2)
_HIGHER_ADAM_LRS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
_MOMENTUM_LRS = (0.001, 0.01, 0.03, 0.1)


def _rates(low: float, high: float) -> dict[str, Span]:
    return {"lr": Span(low=low, high=high, scale="log")}


_MOMENTUM = {"momentum": Span(low=0.7, high=0.995, scale="1 - x log")}
_BETA1 = {"beta1": Span(low=0.5, high=0.98, scale="1 - x log")}
_ALPHA = {"alpha": Span(low=0.9, high=0.999, scale="1 - x log")}
_DECAY = {"weight_decay": Span(low=1e-6, high=1e-2, scale="log")}
_DECOUPLED_DECAY = {"weight_decay": Span(low=5e-3, high=1.0, scale="log")}
_SGD_RATES = _rates(3e-4, 3.0)
_MOMENTUM_RATES = _rates(3e-4, 0.3)
_ADAM_RATES = _rates(3e-5, 0.03)
_HIGHER_ADAM_RATES = _rates(1e-4, 0.1)

OPTIMIZERS: Mapping[str, OptimizerRow] = {
    row.name: row
    for row in (
        OptimizerRow(
            name="sgd",
            doc="Plain stochastic gradient descent.",
            torch_class=torch.optim.SGD,
            settings=_SGD,
            lrs=(0.001, 0.01, 0.1, 0.3, 1.0),
            space=_SGD_RATES | _DECAY,
        ),
        OptimizerRow(
            name="sgd_momentum",
            doc="SGD with momentum 0.9 (Polyak 1964).",
            torch_class=torch.optim.SGD,
            settings=_SGD | {"momentum": 0.9},
            lrs=_MOMENTUM_LRS,
            space=_MOMENTUM_RATES | _MOMENTUM | _DECAY,
        ),
        OptimizerRow(
            name="rmsprop",
            doc="RMSprop: gradients divided by their running root mean square (Hinton 2012).",
            torch_class=torch.optim.RMSprop,
            settings=_RMSPROP,
            lrs=(1e-4, 1e-3, 1e-2),
            space=_ADAM_RATES | _ALPHA,
        ),
        OptimizerRow(
            name="adam",
            doc="Adam: momentum and RMSprop scaling, both bias-corrected (arXiv:1412.6980).",
            torch_class=torch.optim.Adam,
            settings=_ADAM,
            lrs=_ADAM_LRS,
            space=_ADAM_RATES | _BETA1,
        ),
        OptimizerRow(
            name="sgd_nesterov",
            doc="SGD with Nesterov momentum 0.9: a look-ahead gradient (Sutskever et al. 2013).",
            torch_class=torch.optim.SGD,
            settings=_SGD | {"momentum": 0.9, "nesterov": True},
            lrs=_MOMENTUM_LRS,
            space=_MOMENTUM_RATES | _MOMENTUM | _DECAY,
        ),
        OptimizerRow(
            name="sgd_dampened",
            doc="SGD along the running mean of gradients: momentum 0.9, dampening 0.9, so steps are as long as SGD's.",
            torch_class=torch.optim.SGD,
            settings=_SGD | {"momentum": 0.9, "dampening": 0.9},
            lrs=(0.001, 0.01, 0.1, 0.3, 1.0),
            space=_SGD_RATES | _DECAY,
        ),
        OptimizerRow(
            name="rmsprop_centered",
            doc="Centered RMSprop: gradients divided by their running standard deviation (arXiv:1308.0850).",
            torch_class=torch.optim.RMSprop,
            settings=_RMSPROP | {"centered": True},
            lrs=(1e-4, 1e-3, 3e-3, 1e-2),
            space=_ADAM_RATES | _ALPHA,
        ),
        OptimizerRow(
            name="rmsprop_momentum",
            doc="RMSprop with momentum 0.9 on the scaled gradients.",
            torch_class=torch.optim.RMSprop,
            settings=_RMSPROP | {"momentum": 0.9},
            lrs=(1e-5, 1e-4, 3e-4, 1e-3),
            space=_rates(3e-6, 3e-3) | _ALPHA | _MOMENTUM,
        ),
        OptimizerRow(
            name="adagrad",
            doc="Adagrad: gradients divided by the root of the sum of all squares so far (Duchi et al. 2011).",
            torch_class=torch.optim.Adagrad,
            settings={"lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10},
            lrs=(1e-3, 1e-2, 3e-2, 1e-1),
            space=_rates(3e-4, 0.3),
        ),
        OptimizerRow(
            name="adadelta",
            doc="Adadelta: RMSprop scaled by the running size of its own updates (arXiv:1212.5701).",
            torch_class=torch.optim.Adadelta,
            settings={"rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
            lrs=(1e-3, 1e-1, 1.0, 3.0, 10.0),
            space=_rates(3e-4, 30.0) | {"rho": Span(low=0.8, high=0.99, scale="1 - x log")},
        ),
        OptimizerRow(
            name="amsgrad",
            doc="AMSGrad: Adam with a non-decreasing second moment (Reddi et al. 2018, arXiv:1904.09237).",
            torch_class=torch.optim.Adam,
            settings=_ADAM | {"amsgrad": True},
            lrs=_ADAM_LRS,
            space=_ADAM_RATES | _BETA1,
        ),
        OptimizerRow(
            name="adamw",
            doc="AdamW: Adam with decoupled weight decay (arXiv:1711.05101).",
            torch_class=torch.optim.AdamW,
            settings=_BETAS | {"weight_decay": 0.01, "amsgrad": False},
            lrs=_ADAM_LRS,
            space=_ADAM_RATES | _BETA1 | _DECOUPLED_DECAY,
        ),
        OptimizerRow(
            name="nadam",
            doc="NAdam: Adam with Nesterov momentum (Dozat 2016).",
            torch_class=torch.optim.NAdam,
            settings=_BETAS | {"momentum_decay": 0.004, "decoupled_weight_decay": False},
            lrs=_ADAM_LRS,
            space=_ADAM_RATES | _BETA1,
        ),
        OptimizerRow(
            name="radam",
            doc="RAdam: starts as SGD with momentum until Adam's second moment is reliable (arXiv:1908.03265).",
            torch_class=torch.optim.RAdam,
            settings=_BETAS | {"decoupled_weight_decay": False},
            lrs=_HIGHER_ADAM_LRS,
            space=_HIGHER_ADAM_RATES | _BETA1,
        ),
        OptimizerRow(
            name="adamax",
            doc="Adamax: Adam based on the infinity norm (arXiv:1412.6980, section 7).",
            torch_class=torch.optim.Adamax,
            settings=_BETAS,
            lrs=_HIGHER_ADAM_LRS,
            space=_HIGHER_ADAM_RATES | _BETA1,
        ),
        OptimizerRow(
            # torch keeps the averaged weights (from step t0 on) in the optimizer's state, where nothing evaluates them,
            # so a setting t0 would have no effect.
            name="asgd",
            doc="ASGD: SGD with decay lambd and a decreasing rate; its average is not evaluated (Polyak 1992).",
            torch_class=torch.optim.ASGD,
            settings={"lambd": 1e-4, "alpha": 0.75, "weight_decay": 0.0},
            lrs=(0.001, 0.01, 0.1, 0.3, 1.0),
            space=_SGD_RATES | {"lambd": Span(low=1e-6, high=1e-2, scale="log")},
        ),
        OptimizerRow(
            name="rprop",
            doc="Rprop: a step size per weight, which grows while its gradient keeps its sign (Riedmiller 1993).",
            torch_class=torch.optim.Rprop,
            settings={"eta_minus": 0.5, "eta_plus": 1.2, "step_min": 1e-6, "step_max": 50.0},
            lrs=(1e-5, 1e-4, 1e-3, 1e-2),
            space=_rates(3e-6, 0.03) | {"eta_minus": Span(low=0.3, high=0.8), "eta_plus": Span(low=1.05, high=1.5)},
            unscheduled="its learning rate only sets the size of the first step",
        ),
        OptimizerRow(
            name="adafactor",
            doc="Adafactor: Adam without momentum and with a factored second moment (arXiv:1804.04235); steps are "
            "relative to the weights, and the rate is capped at 1/sqrt(step).",
            torch_class=torch.optim.Adafactor,
            settings={"beta2_decay": -0.8, "eps1": None, "eps2": 1e-3, "d": 1.0, "weight_decay": 0.0},
            lrs=(1e-3, 1e-2, 3e-2, 1e-1, 3e-1),
            space=_rates(3e-4, 1.0) | {"beta2_decay": Span(low=-1.0, high=-0.5)},
        ),
        OptimizerRow(
            name="muon",
            doc="Muon: orthogonalised momentum for linear layers (kellerjordan.github.io/posts/muon), AdamW for the "
            "rest; by default its steps are scaled to match AdamW's, so one rate suits both (arXiv:2502.16982).",
            torch_class=torch.optim.Muon,
            settings={
                "weight_decay": 0.1,
                "momentum": 0.95,
                "nesterov": True,
                "ns_a": 3.4445,
                "ns_b": -4.775,
                "ns_c": 2.0315,
                "ns_steps": 5,
                "eps": 1e-7,
                "adjust_lr_fn": "match_rms_adamw",
            },
            choices={"adjust_lr_fn": ("original", "match_rms_adamw", "spectral_unclamped")},
            lrs=_ADAM_LRS,
            space=_ADAM_RATES | _MOMENTUM | _DECOUPLED_DECAY,
            build_with=_muon,
        ),
        OptimizerRow(
            name="lbfgs",
            doc="L-BFGS: quasi-Newton steps, each evaluating its batch several times (Liu & Nocedal 1989). For small "
            "batches, it uses line search, 4 iterations and a history of 10 by default (torch: none, 20, 100).",
            torch_class=torch.optim.LBFGS,
            settings={
                "max_iter": 4,
                "max_eval": None,
                "tolerance_grad": 1e-7,
                "tolerance_change": 1e-9,
                "history_size": 10,
                "line_search_fn": "strong_wolfe",
            },
            choices={"line_search_fn": (None, "strong_wolfe")},
            lrs=(1e-3, 1e-1, 1.0, 3.0),
            space=_rates(3e-4, 10.0),
        ),
        OptimizerRow(
            name="sparse_adam",
            doc="SparseAdam: Adam that updates only weights with a gradient, for sparse embeddings.",
            torch_class=torch.optim.SparseAdam,
            settings={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
            lrs=(1e-3,),
            space=_rates(3e-4, 3e-3) | _BETA1,
            not_applicable="it only supports sparse gradients, and this network's gradients are all dense",
        ),
    )
}
"""Name -> row. The default sweep takes the first four."""

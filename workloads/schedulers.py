"""SCHEDULERS: every learning-rate schedule a trial can use, one row each; and `Schedule`, which applies one to a trial.

Schedules count epochs and scale `TrialConfig.lr` (for one-cycle and cyclic, `lr` is the peak). Every row also has the
setting `warmup_epochs`: linear warm-up for that many epochs, after which the schedule runs over the remaining epochs.
To add a schedule, add a row.

Each row has the space that a search draws from; epochs in it are shares of a trial's epochs. These ranges are our
judgement, around the defaults. A constant rate has none, and warm-up is drawn for the schedules that are smooth.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from workloads.optimizers import OPTIMIZERS
from workloads.rows import NotApplicableError, Range, Row
from workloads.spans import Span
from workloads.trial import Setting, Settings, TrialConfig, canonical_json, digest

Metrics = Mapping[str, Any]
"""An epoch's metrics by name; a metric-driven schedule reads the one it monitors and does nothing without it."""

UNSCHEDULED = "none"
"""The row that keeps the learning rate constant."""

_NOT_NEGATIVE = Range(at_least=0)
_POSITIVE = Range(above=0)
_FACTOR = Range(above=0, at_most=1)
_ONE_OR_MORE = Range(at_least=1)
_BELOW_ONE = Range(at_least=0, below=1)

RANGES: Mapping[str, Range] = {
    "warmup_epochs": _NOT_NEGATIVE,
    "k": _NOT_NEGATIVE,
    "gamma": _POSITIVE,
    "factor": _FACTOR,
    "start_factor": _FACTOR,
    "end_factor": Range(at_least=0, at_most=1),
    "power": _POSITIVE,
    "step_size": _ONE_OR_MORE,
    "start_epoch": _NOT_NEGATIVE,
    "after_epoch": _ONE_OR_MORE,
    "milestones": _ONE_OR_MORE,
    "total_iters": _ONE_OR_MORE,
    "decay_epochs": _ONE_OR_MORE,
    "t_max": _ONE_OR_MORE,
    "t_0": _ONE_OR_MORE,
    "t_mult": _ONE_OR_MORE,
    "eta_min": _NOT_NEGATIVE,
    "patience": _NOT_NEGATIVE,
    "threshold": _NOT_NEGATIVE,
    "cooldown": _NOT_NEGATIVE,
    "min_lr": _NOT_NEGATIVE,
    "eps": _NOT_NEGATIVE,
    "pct_start": _BELOW_ONE,
    "div_factor": _ONE_OR_MORE,
    "final_div_factor": _ONE_OR_MORE,
    "epochs_up": _POSITIVE,
    "epochs_down": _POSITIVE,
    "base_momentum": _BELOW_ONE,
    "max_momentum": _BELOW_ONE,
}
"""Setting -> allowed numbers, for every row that has it."""


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """The length of a schedule."""

    lr: float
    """The trial's learning rate."""
    epochs: int
    """The trial's epochs minus warm-up."""
    steps_per_epoch: int
    """Training steps per epoch."""

    def steps(self, epochs: float) -> int:
        """Converts epochs to training steps, at least 1."""
        return max(1, round(epochs * self.steps_per_epoch))


Build = Callable[[Optimizer, dict[str, Any], Horizon], LRScheduler]


@dataclass(frozen=True, kw_only=True)
class SchedulerRow(Row):
    """A learning-rate schedule."""

    steps_on: Literal["batch", "epoch", "metric"]
    """When it steps: after every batch, after every epoch, or after every epoch depending on a metric."""
    torch_classes: tuple[type[LRScheduler], ...]
    """The `torch.optim.lr_scheduler` classes it uses."""
    build: Build
    """Returns torch's scheduler for an optimizer, the row's settings and a horizon."""

    ranges: ClassVar[Mapping[str, Range]] = RANGES

    def horizon(self, settings: Settings, epochs: int) -> int:
        """Returns the epochs left after warm-up.

        Raises:
            NotApplicableError: No epochs are left.
        """
        warmup = settings["warmup_epochs"]
        assert isinstance(warmup, int)
        if warmup >= epochs:
            raise NotApplicableError(f"scheduler.warmup_epochs must be below the trial's {epochs} epochs, not {warmup}")
        return epochs - warmup


def _whole(epochs: int) -> int:
    return epochs


def _half(epochs: int) -> int:
    return max(1, epochs // 2)


def _third(epochs: int) -> int:
    return max(1, epochs // 3)


def _third_rounded_up(epochs: int) -> int:
    return -(-epochs // 3)


def _third_at_least_two(epochs: int) -> int:
    return max(2, epochs // 3)


def _sixth(epochs: int) -> int:
    return max(1, epochs // 6)


def _sixth_exactly(epochs: int) -> float:
    return epochs / 6


def _half_and_three_quarters(epochs: int) -> tuple[int, ...]:
    return (max(1, epochs // 2), max(2, epochs * 3 // 4))


MONITORS: Mapping[str, Literal["min", "max"]] = {
    "train_loss": "min",
    "val_loss": "min",
    "val_accuracy": "max",
    "val_score": "max",
    "val_error": "min",
}
"""Metrics a plateau schedule can monitor -> whether lower or higher is better. The last two are the measure of a
workload that is not measured by accuracy."""
SCORES = ("val_accuracy", "val_score", "val_error")
"""Those that are the measure on the validation examples: one number, named by what it is."""


def _plateau(optimizer: Optimizer, s: dict[str, Any], h: Horizon) -> LRScheduler:
    settings = {name: value for name, value in s.items() if name != "monitor"}
    return ReduceLROnPlateau(optimizer, mode=MONITORS[s["monitor"]], **settings)


def _sequential(optimizer: Optimizer, s: dict[str, Any], h: Horizon) -> LRScheduler:
    held = lr_scheduler.ConstantLR(optimizer, factor=1)
    line = lr_scheduler.LinearLR(optimizer, 1, s["end_factor"], total_iters=s["decay_epochs"])
    return lr_scheduler.SequentialLR(optimizer, [held, line], milestones=[h.epochs - s["decay_epochs"]])


def _chained(optimizer: Optimizer, s: dict[str, Any], h: Horizon) -> LRScheduler:
    ramp = lr_scheduler.LinearLR(optimizer, s["start_factor"], total_iters=s["total_iters"])
    return lr_scheduler.ChainedScheduler([ramp, lr_scheduler.ExponentialLR(optimizer, s["gamma"])])


def _one_cycle(optimizer: Optimizer, s: dict[str, Any], h: Horizon) -> LRScheduler:
    settings = s | {"cycle_momentum": _cycles_momentum("one_cycle", optimizer, s)}
    return lr_scheduler.OneCycleLR(optimizer, max_lr=h.lr, total_steps=h.steps(h.epochs), **settings)


def _cyclic(optimizer: Optimizer, s: dict[str, Any], h: Horizon) -> LRScheduler:
    return lr_scheduler.CyclicLR(
        optimizer,
        base_lr=h.lr / s["div_factor"],
        max_lr=h.lr,
        step_size_up=h.steps(s["epochs_up"]),
        step_size_down=h.steps(s["epochs_down"]),
        mode=s["mode"],
        gamma=s["gamma"] ** (1 / h.steps_per_epoch),
        cycle_momentum=_cycles_momentum("cyclic", optimizer, s),
        base_momentum=s["base_momentum"],
        max_momentum=s["max_momentum"],
    )


def _cycles_momentum(name: str, optimizer: Optimizer, s: dict[str, Any]) -> bool:
    """Returns whether momentum is cycled: only if the optimizer has any, since adding it would change the optimizer.

    Raises:
        NotApplicableError: A momentum setting is given, but momentum is not cycled.
    """
    momentum = optimizer.defaults.get("momentum") or optimizer.defaults.get("betas", (0,))[0]
    cycled = bool(momentum and s["cycle_momentum"])
    idle = [] if cycled else ["base_momentum", "max_momentum"] if momentum else list(_MOMENTUM_CYCLE)
    given = [setting for setting in idle if s[setting] != SCHEDULERS[name].settings[setting]]
    if given:
        raise NotApplicableError(f"momentum is not cycled, so setting {' and '.join(given)} has no effect")
    return cycled


def _epochs(low: float, high: float) -> Span:
    return Span(low=low, high=high, whole=True, of_epochs=True)


_WARMUP = {"warmup_epochs": _epochs(0.0, 0.2)}
_EVERY_EPOCH = {"gamma": Span(low=0.7, high=0.99, scale="1 - x log")}
_FACTORS = Span(low=0.05, high=0.8, scale="log")
_MOMENTUM_CYCLE = {"cycle_momentum": True, "base_momentum": 0.85, "max_momentum": 0.95}
_EXP_RANGE_GAMMA = 0.9

_ROWS: tuple[SchedulerRow, ...] = (
    SchedulerRow(
        name=UNSCHEDULED,
        doc="Constant learning rate.",
        steps_on="epoch",
        torch_classes=(lr_scheduler.LambdaLR,),
        build=lambda o, s, h: lr_scheduler.LambdaLR(o, lambda epoch: 1.0),
    ),
    SchedulerRow(
        name="time_based",
        doc="Time-based decay: lr / (1 + k * epoch) (LambdaLR).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.LambdaLR,),
        settings={"k": 0.5},
        space={"k": Span(low=0.05, high=5.0, scale="log")},
        build=lambda o, s, h: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + s["k"] * epoch)),
    ),
    SchedulerRow(
        name="step",
        doc="Multiplied by gamma every step_size epochs (StepLR); by default every third of the schedule.",
        steps_on="epoch",
        torch_classes=(lr_scheduler.StepLR,),
        settings={"step_size": _third, "gamma": 0.5},
        space={"step_size": _epochs(0.1, 0.5), "gamma": _FACTORS},
        build=lambda o, s, h: lr_scheduler.StepLR(o, **s),
    ),
    SchedulerRow(
        name="exponential",
        doc="Multiplied by gamma every epoch (ExponentialLR).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.ExponentialLR,),
        settings={"gamma": 0.9},
        space=_EVERY_EPOCH,
        build=lambda o, s, h: lr_scheduler.ExponentialLR(o, **s),
    ),
    SchedulerRow(
        name="plateau",
        doc="Multiplied by factor when the monitored metric has not improved by more than threshold for more than "
        "patience epochs (ReduceLROnPlateau).",
        steps_on="metric",
        torch_classes=(ReduceLROnPlateau,),
        settings={
            "monitor": "train_loss",
            "factor": 0.3,
            "patience": 2,
            "threshold": 0.1,
            "threshold_mode": "rel",
            "cooldown": 0,
            "min_lr": 0.0,
            "eps": 1e-8,
        },
        choices={"monitor": tuple(MONITORS), "threshold_mode": ("rel", "abs")},
        refuses={"a factor of 1 has no effect": lambda s: s["factor"] == 1},
        space={
            "factor": _FACTORS,
            "patience": _epochs(0.0, 0.3),
            "threshold": Span(low=1e-4, high=0.1, scale="log"),
        },
        build=_plateau,
    ),
    SchedulerRow(
        name="cosine",
        doc="Cosine annealing to eta_min over t_max epochs (CosineAnnealingLR, arXiv:1608.03983).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.CosineAnnealingLR,),
        settings={"t_max": _whole, "eta_min": 0.0},
        space=_WARMUP,
        build=lambda o, s, h: lr_scheduler.CosineAnnealingLR(o, T_max=s["t_max"], eta_min=s["eta_min"]),
    ),
    SchedulerRow(
        name="one_cycle",
        doc="Up to the trial's learning rate and down to almost zero, stepped every batch (OneCycleLR, "
        "arXiv:1708.07120). Momentum is cycled inversely, if the optimizer has any (except muon, where it stays).",
        steps_on="batch",
        torch_classes=(lr_scheduler.OneCycleLR,),
        settings=_MOMENTUM_CYCLE
        | {
            "pct_start": 0.3,
            "anneal_strategy": "cos",
            "div_factor": 25.0,
            "final_div_factor": 1e4,
            "three_phase": False,
        },
        choices={"anneal_strategy": ("cos", "linear")},
        refuses={"three_phase needs pct_start to be at most 0.5": lambda s: s["three_phase"] and s["pct_start"] > 0.5},
        space={
            "pct_start": Span(low=0.1, high=0.5),
            "div_factor": Span(low=5.0, high=100.0, scale="log"),
            "final_div_factor": Span(low=100.0, high=1e5, scale="log"),
        },
        build=_one_cycle,
    ),
    SchedulerRow(
        name="multiplicative",
        doc="Constant for start_epoch epochs, then multiplied by gamma before every epoch (MultiplicativeLR).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.MultiplicativeLR,),
        settings={"start_epoch": _third, "gamma": 0.9},
        space={"start_epoch": _epochs(0.0, 0.6)} | _EVERY_EPOCH,
        build=lambda o, s, h: lr_scheduler.MultiplicativeLR(
            o, lambda epoch: s["gamma"] if epoch >= s["start_epoch"] else 1.0
        ),
    ),
    SchedulerRow(
        name="multi_step",
        doc="Multiplied by gamma at each milestone (MultiStepLR); by default at half and three quarters.",
        steps_on="epoch",
        torch_classes=(lr_scheduler.MultiStepLR,),
        settings={"milestones": _half_and_three_quarters, "gamma": 0.1},
        space={"gamma": _FACTORS},
        build=lambda o, s, h: lr_scheduler.MultiStepLR(o, **s),
    ),
    SchedulerRow(
        name="cut",
        doc="Multiplied by factor once, after after_epoch epochs (MultiStepLR with one milestone); by default after "
        "half of them.",
        steps_on="epoch",
        torch_classes=(lr_scheduler.MultiStepLR,),
        settings={"after_epoch": _half, "factor": 0.1},
        refuses={
            "a factor of 1 has no effect": lambda s: s["factor"] == 1,
            "after_epoch must be below the number of epochs after warm-up, or the rate is never cut": lambda s: (
                s["after_epoch"] > max(1, s["epochs"] - 1)
            ),
        },
        space={"after_epoch": _epochs(0.2, 0.9), "factor": _FACTORS},
        build=lambda o, s, h: lr_scheduler.MultiStepLR(o, milestones=[s["after_epoch"]], gamma=s["factor"]),
    ),
    SchedulerRow(
        name="constant",
        doc="Multiplied by factor for the first total_iters epochs, then the initial rate (ConstantLR).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.ConstantLR,),
        settings={"factor": 1 / 3, "total_iters": _sixth},
        space={"factor": _FACTORS, "total_iters": _epochs(0.05, 0.3)},
        build=lambda o, s, h: lr_scheduler.ConstantLR(o, **s),
    ),
    SchedulerRow(
        name="linear",
        doc="Linear from start_factor to end_factor times the initial rate over total_iters epochs (LinearLR).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.LinearLR,),
        settings={"start_factor": 1.0, "end_factor": 0.0, "total_iters": _whole},
        space={"end_factor": Span(low=0.0, high=0.2)} | _WARMUP,
        build=lambda o, s, h: lr_scheduler.LinearLR(o, **s),
    ),
    SchedulerRow(
        name="polynomial",
        doc="lr * (1 - epoch / total_iters) ** power (PolynomialLR; power 0.9 as in arXiv:1606.00915).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.PolynomialLR,),
        settings={"total_iters": _whole, "power": 0.9},
        space={"power": Span(low=0.5, high=3.0, scale="log")} | _WARMUP,
        build=lambda o, s, h: lr_scheduler.PolynomialLR(o, **s),
    ),
    SchedulerRow(
        name="cosine_restarts",
        doc="Cosine annealing with warm restarts: the first cycle takes t_0 epochs, each next one t_mult times as long "
        "(CosineAnnealingWarmRestarts, arXiv:1608.03983).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.CosineAnnealingWarmRestarts,),
        settings={"t_0": _third_rounded_up, "t_mult": 2, "eta_min": 0.0},
        space={"t_0": _epochs(0.15, 0.5), "t_mult": Span(low=1, high=3, whole=True)},
        build=lambda o, s, h: lr_scheduler.CosineAnnealingWarmRestarts(
            o, T_0=s["t_0"], T_mult=s["t_mult"], eta_min=s["eta_min"]
        ),
    ),
    SchedulerRow(
        name="cyclic",
        doc="Up to the trial's learning rate and down again, repeatedly, stepped every batch (CyclicLR, "
        "arXiv:1506.01186). Momentum as in one_cycle. In mode exp_range, gamma is the factor per epoch.",
        steps_on="batch",
        torch_classes=(lr_scheduler.CyclicLR,),
        settings=_MOMENTUM_CYCLE
        | {
            "div_factor": 10.0,
            "epochs_up": _sixth_exactly,
            "epochs_down": _sixth_exactly,
            "mode": "triangular",
            "gamma": _EXP_RANGE_GAMMA,
        },
        choices={"mode": ("triangular", "triangular2", "exp_range")},
        refuses={
            "gamma has no effect unless mode is exp_range": lambda s: (
                s["mode"] != "exp_range" and s["gamma"] != _EXP_RANGE_GAMMA
            ),
        },
        space={
            "div_factor": Span(low=3.0, high=30.0, scale="log"),
            "epochs_up": Span(low=0.05, high=0.25, of_epochs=True),
            "epochs_down": Span(low=0.05, high=0.25, of_epochs=True),
        },
        build=_cyclic,
    ),
    SchedulerRow(
        name="sequential",
        doc="Constant, then linear decay to end_factor times the initial rate over the last decay_epochs epochs "
        "(SequentialLR of ConstantLR and LinearLR, arXiv:2405.18392).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.SequentialLR, lr_scheduler.ConstantLR, lr_scheduler.LinearLR),
        settings={"decay_epochs": _third_at_least_two, "end_factor": 0.0},
        space={"decay_epochs": _epochs(0.1, 0.6), "end_factor": Span(low=0.0, high=0.1)},
        build=_sequential,
    ),
    SchedulerRow(
        name="chained",
        doc="Linear from start_factor to 1 over total_iters epochs, and multiplied by gamma every epoch "
        "(ChainedScheduler of LinearLR and ExponentialLR).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.ChainedScheduler, lr_scheduler.LinearLR, lr_scheduler.ExponentialLR),
        settings={"start_factor": 1 / 3, "total_iters": _sixth, "gamma": 0.9},
        space={"start_factor": _FACTORS, "total_iters": _epochs(0.05, 0.3)} | _EVERY_EPOCH,
        build=_chained,
    ),
)


def _with_warmup(row: SchedulerRow) -> SchedulerRow:
    return SchedulerRow(**(vars(row) | {"settings": {**row.settings, "warmup_epochs": 0}}))


SCHEDULERS: Mapping[str, SchedulerRow] = {row.name: _with_warmup(row) for row in _ROWS}
"""Name -> row."""


class Schedule:
    """Sets an optimizer's learning rate (and momentum) throughout a trial.

    Args:
        config: The trial, with all settings filled in.
        optimizer: The optimizer; its learning rate is set immediately.
        steps_per_epoch: Training steps per epoch.
    """

    def __init__(self, config: TrialConfig, optimizer: Optimizer, steps_per_epoch: int) -> None:
        self._config = config
        self._optimizer = optimizer
        self._row = SCHEDULERS[config.scheduler]
        self._horizon = Horizon(
            lr=config.lr,
            epochs=self._row.horizon(config.scheduler_settings, config.epochs),
            steps_per_epoch=steps_per_epoch,
        )
        self._warmup = config.epochs - self._horizon.epochs
        self._epoch = 0
        # torch warns if a scheduler is stepped before its optimizer; replay() does so on purpose.
        optimizer._opt_called = True  # type: ignore[attr-defined]
        self._scheduler = self._next_phase()

    def _next_phase(self) -> LRScheduler:
        """Returns the warm-up scheduler, or the row's own scheduler after warm-up."""
        if self._epoch < self._warmup:
            return lr_scheduler.LambdaLR(self._optimizer, lambda epoch: (epoch + 1) / (self._warmup + 1))
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.lr
            group.pop("initial_lr", None)
        settings = {k: v for k, v in self._config.scheduler_settings.items() if k != "warmup_epochs"}
        return self._row.build(self._optimizer, settings, self._horizon)

    @property
    def steps_on_batches(self) -> bool:
        """Whether values change from batch to batch in this epoch."""
        return self._row.steps_on == "batch" and self._epoch >= self._warmup

    def step_batch(self) -> None:
        """Ends a training step."""
        if self.steps_on_batches:
            self._scheduler.step()

    def step_epoch(self, metrics: Metrics) -> None:
        """Ends an epoch.

        Args:
            metrics: The epoch's metrics. Without the monitored metric (in a forecast), a metric-driven schedule does
                nothing.
        """
        warming_up = self._epoch < self._warmup
        self._epoch += 1
        if warming_up and self._epoch == self._warmup:
            self._scheduler = self._next_phase()
        elif warming_up or self._row.steps_on == "epoch":
            self._scheduler.step()
        elif isinstance(self._scheduler, ReduceLROnPlateau):
            monitor = str(self._config.scheduler_settings["monitor"])
            monitor = SCORES[0] if monitor in SCORES else monitor
            if monitor in metrics:
                self._scheduler.step(metrics[monitor])

    def replay(self, metrics: Metrics) -> None:
        """Replays an epoch trained earlier, so that the next one starts with the same values."""
        for _ in range(self._horizon.steps_per_epoch if self.steps_on_batches else 0):
            self.step_batch()
        self.step_epoch(metrics)

    def skip_warmup(self) -> None:
        """Advances to the first epoch after warm-up."""
        while self._epoch < self._warmup:
            self.step_epoch({})

    def values(self) -> tuple[tuple[Setting, ...], ...]:
        """Returns the current learning rate, momentum and first beta of each parameter group."""
        return tuple((g["lr"], g.get("momentum"), g.get("betas", (None,))[0]) for g in self._optimizer.param_groups)


class Trace:
    """The hyperparameters that a trial's schedule applies, epoch by epoch, without training.

    Args:
        config: The trial, with all settings filled in.
        steps_per_epoch: Training steps per epoch.
    """

    def __init__(self, config: TrialConfig, steps_per_epoch: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._schedule = Schedule(config, bare_optimizer(config), steps_per_epoch)
        self._next: Hashable = None

    def next_epoch(self) -> Hashable:
        """Returns the values at every step of the next epoch, in a form to compare trials by."""
        if self._next is None:
            values = self._schedule.values()
            if self._schedule.steps_on_batches:
                steps = [values]
                for _ in range(self._steps_per_epoch):
                    self._schedule.step_batch()
                    steps.append(self._schedule.values())
                self._next = digest(canonical_json(steps[:-1]), 64)
            else:
                self._next = values
        return self._next

    def observe(self, metrics: Metrics) -> None:
        """Ends the next epoch with these metrics."""
        self.next_epoch()
        self._schedule.step_epoch(metrics)
        self._next = None


class Applied:
    """Everything that a trial applies, epoch by epoch: its schedule's values, and the order of its images.

    Args:
        config: The trial, with all settings filled in.
        steps_per_epoch: Training steps per epoch.
    """

    def __init__(self, config: TrialConfig, steps_per_epoch: int) -> None:
        self._config = config
        self._trace = Trace(config, steps_per_epoch)
        self._epoch = 1

    def next_epoch(self) -> Hashable:
        """Returns what the next epoch applies, in a form to compare trials by."""
        return self._config.batches_seed(self._epoch), self._trace.next_epoch()

    def observe(self, metrics: Metrics) -> None:
        """Ends the next epoch with these metrics."""
        self._trace.observe(metrics)
        self._epoch += 1


def bare_optimizer(config: TrialConfig) -> Optimizer:
    """Returns the trial's optimizer over two tiny parameters, for its hyperparameters only.

    Raises:
        ValueError: torch rejects a setting.
    """
    # Not a layer, because its initial weights would be drawn from torch's global generator.
    model = nn.ParameterList([torch.zeros(1, 1), torch.zeros(1)])
    return OPTIMIZERS[config.optimizer].build(model, config.lr, config.optimizer_settings)

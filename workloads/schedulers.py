"""SCHEDULERS: every learning-rate schedule a trial can use, one row each, and how a trial is driven by one.

Time is counted in epochs; `TrialConfig.lr` is the rate a schedule scales (for one-cycle and cyclic: its peak). Every
row also knows `warmup_epochs`: that many epochs of linear warm-up before it, after which it starts with what is left of
the horizon. To add a schedule, add a row.
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
from workloads.trial import Setting, Settings, TrialConfig, canonical_json, digest

Metrics = Mapping[str, Any]
"""What an epoch measured, by name; a metric-driven schedule reads the one it monitors, and does not act without it."""

UNSCHEDULED = "none"
"""The row that leaves the learning rate alone."""

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
"""Setting -> the numbers it can be, in every row that has it."""


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """How long a schedule runs."""

    lr: float
    """The trial's learning rate."""
    epochs: int
    """Epochs left to it: the trial's, less those of warm-up."""
    steps_per_epoch: int
    """Training steps in each."""

    def steps(self, epochs: float) -> int:
        """Returns a number of epochs as training steps, at least 1."""
        return max(1, round(epochs * self.steps_per_epoch))


Build = Callable[[Optimizer, dict[str, Any], Horizon], LRScheduler]


@dataclass(frozen=True, kw_only=True)
class SchedulerRow(Row):
    """One way to change the learning rate while training."""

    steps_on: Literal["batch", "epoch", "metric"]
    """After what it acts: every batch, every epoch, or every epoch on what the epoch measured."""
    torch_classes: tuple[type[LRScheduler], ...]
    """The classes of `torch.optim.lr_scheduler` it is made of."""
    build: Build
    """Returns torch's scheduler for an optimizer, the row's settings and a horizon."""

    ranges: ClassVar[Mapping[str, Range]] = RANGES

    def horizon(self, settings: Settings, epochs: int) -> int:
        """Returns the epochs left after warm-up.

        Raises:
            NotApplicableError: None are left.
        """
        warmup = settings["warmup_epochs"]
        assert isinstance(warmup, int)
        if warmup >= epochs:
            raise NotApplicableError(f"scheduler.warmup_epochs must be below the trial's {epochs} epochs, not {warmup}")
        return epochs - warmup


def _whole(epochs: int) -> int:
    return epochs


def _third(epochs: int) -> int:
    return max(1, epochs // 3)


def _third_rounded_up(epochs: int) -> int:
    return -(-epochs // 3)


def _third_but_two(epochs: int) -> int:
    return max(2, epochs // 3)


def _sixth(epochs: int) -> int:
    return max(1, epochs // 6)


def _sixth_exactly(epochs: int) -> float:
    return epochs / 6


def _half_and_three_quarters(epochs: int) -> tuple[int, ...]:
    return (max(1, epochs // 2), max(2, epochs * 3 // 4))


MONITORS: Mapping[str, Literal["min", "max"]] = {"train_loss": "min", "val_loss": "min", "val_accuracy": "max"}
"""What a plateau schedule can watch, and which way is better."""


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
    """Returns whether momentum is cycled: only one that is there, as turning one on would make another optimizer.

    Raises:
        NotApplicableError: A setting of that cycle is given, and none takes place.
    """
    momentum = optimizer.defaults.get("momentum") or optimizer.defaults.get("betas", (0,))[0]
    cycled = bool(momentum and s["cycle_momentum"])
    idle = [] if cycled else ["base_momentum", "max_momentum"] if momentum else list(_MOMENTUM_CYCLE)
    given = [setting for setting in idle if s[setting] != SCHEDULERS[name].settings[setting]]
    if given:
        raise NotApplicableError(f"no momentum is cycled, so {' and '.join(given)} would change nothing")
    return cycled


_MOMENTUM_CYCLE = {"cycle_momentum": True, "base_momentum": 0.85, "max_momentum": 0.95}
_EXP_RANGE_GAMMA = 0.9

_ROWS: tuple[SchedulerRow, ...] = (
    SchedulerRow(
        name=UNSCHEDULED,
        doc="The learning rate stays what it is.",
        steps_on="epoch",
        torch_classes=(lr_scheduler.LambdaLR,),
        build=lambda o, s, h: lr_scheduler.LambdaLR(o, lambda epoch: 1.0),
    ),
    SchedulerRow(
        name="time_based",
        doc="Time-based decay: lr / (1 + k * epoch), from the initial rate (LambdaLR).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.LambdaLR,),
        settings={"k": 0.5},
        build=lambda o, s, h: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + s["k"] * epoch)),
    ),
    SchedulerRow(
        name="step",
        doc="Multiplied by gamma every step_size epochs (StepLR); a third of the horizon by default.",
        steps_on="epoch",
        torch_classes=(lr_scheduler.StepLR,),
        settings={"step_size": _third, "gamma": 0.5},
        build=lambda o, s, h: lr_scheduler.StepLR(o, **s),
    ),
    SchedulerRow(
        name="exponential",
        doc="Multiplied by gamma every epoch (ExponentialLR).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.ExponentialLR,),
        settings={"gamma": 0.9},
        build=lambda o, s, h: lr_scheduler.ExponentialLR(o, **s),
    ),
    SchedulerRow(
        name="plateau",
        doc="Multiplied by factor when the monitored metric has not improved for more than patience epochs "
        "(ReduceLROnPlateau); improved means by more than threshold.",
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
        refuses={"a factor of 1 changes nothing": lambda s: s["factor"] == 1},
        build=_plateau,
    ),
    SchedulerRow(
        name="cosine",
        doc="Half a cosine from the initial rate to eta_min over t_max epochs (CosineAnnealingLR, arXiv:1608.03983).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.CosineAnnealingLR,),
        settings={"t_max": _whole, "eta_min": 0.0},
        build=lambda o, s, h: lr_scheduler.CosineAnnealingLR(o, T_max=s["t_max"], eta_min=s["eta_min"]),
    ),
    SchedulerRow(
        name="one_cycle",
        doc="Up to the trial's rate and down to almost nothing, batch by batch; momentum the other way, if there is "
        "one (muon's two parts have one each: they stay) (OneCycleLR, arXiv:1708.07120).",
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
        refuses={"three phases need a pct_start of at most 0.5": lambda s: s["three_phase"] and s["pct_start"] > 0.5},
        build=_one_cycle,
    ),
    SchedulerRow(
        name="multiplicative",
        doc="The initial rate for start_epoch epochs, then multiplied by gamma before every epoch (MultiplicativeLR).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.MultiplicativeLR,),
        settings={"start_epoch": _third, "gamma": 0.9},
        build=lambda o, s, h: lr_scheduler.MultiplicativeLR(
            o, lambda epoch: s["gamma"] if epoch >= s["start_epoch"] else 1.0
        ),
    ),
    SchedulerRow(
        name="multi_step",
        doc="Multiplied by gamma after each of milestones (MultiStepLR); after half and three quarters by default.",
        steps_on="epoch",
        torch_classes=(lr_scheduler.MultiStepLR,),
        settings={"milestones": _half_and_three_quarters, "gamma": 0.1},
        build=lambda o, s, h: lr_scheduler.MultiStepLR(o, **s),
    ),
    SchedulerRow(
        name="constant",
        doc="Multiplied by factor for the first total_iters epochs, then the initial rate (ConstantLR).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.ConstantLR,),
        settings={"factor": 1 / 3, "total_iters": _sixth},
        build=lambda o, s, h: lr_scheduler.ConstantLR(o, **s),
    ),
    SchedulerRow(
        name="linear",
        doc="A line from start_factor to end_factor times the initial rate over total_iters epochs (LinearLR).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.LinearLR,),
        settings={"start_factor": 1.0, "end_factor": 0.0, "total_iters": _whole},
        build=lambda o, s, h: lr_scheduler.LinearLR(o, **s),
    ),
    SchedulerRow(
        name="polynomial",
        doc="lr * (1 - epoch / total_iters) ** power (PolynomialLR; power 0.9 after arXiv:1606.00915).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.PolynomialLR,),
        settings={"total_iters": _whole, "power": 0.9},
        build=lambda o, s, h: lr_scheduler.PolynomialLR(o, **s),
    ),
    SchedulerRow(
        name="cosine_restarts",
        doc="Half cosines, the first over t_0 epochs, each next t_mult times as long (CosineAnnealingWarmRestarts, "
        "arXiv:1608.03983).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.CosineAnnealingWarmRestarts,),
        settings={"t_0": _third_rounded_up, "t_mult": 2, "eta_min": 0.0},
        build=lambda o, s, h: lr_scheduler.CosineAnnealingWarmRestarts(
            o, T_0=s["t_0"], T_mult=s["t_mult"], eta_min=s["eta_min"]
        ),
    ),
    SchedulerRow(
        name="cyclic",
        doc="Up to the trial's rate and down again, over and over, batch by batch; momentum the other way, if there is "
        "one, as for one_cycle (CyclicLR, arXiv:1506.01186). gamma is the factor of an epoch, in mode exp_range.",
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
            "gamma acts in mode exp_range": lambda s: s["mode"] != "exp_range" and s["gamma"] != _EXP_RANGE_GAMMA,
        },
        build=_cyclic,
    ),
    SchedulerRow(
        name="sequential",
        doc="The initial rate, then a line to end_factor times it over the last decay_epochs epochs (SequentialLR of "
        "ConstantLR and LinearLR, arXiv:2405.18392).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.SequentialLR, lr_scheduler.ConstantLR, lr_scheduler.LinearLR),
        settings={"decay_epochs": _third_but_two, "end_factor": 0.0},
        build=_sequential,
    ),
    SchedulerRow(
        name="chained",
        doc="A line from start_factor to 1 over total_iters epochs, times gamma every epoch (ChainedScheduler of "
        "LinearLR and ExponentialLR).",
        steps_on="epoch",
        torch_classes=(lr_scheduler.ChainedScheduler, lr_scheduler.LinearLR, lr_scheduler.ExponentialLR),
        settings={"start_factor": 1 / 3, "total_iters": _sixth, "gamma": 0.9},
        build=_chained,
    ),
)


def _with_warmup(row: SchedulerRow) -> SchedulerRow:
    return SchedulerRow(**(vars(row) | {"settings": {**row.settings, "warmup_epochs": 0}}))


SCHEDULERS: Mapping[str, SchedulerRow] = {row.name: _with_warmup(row) for row in _ROWS}
"""Name -> row."""


class Schedule:
    """Drives the hyperparameters of one optimizer through a trial.

    Args:
        config: The trial, its settings complete.
        optimizer: What is driven; its learning rate is set at once.
        steps_per_epoch: Training steps in each epoch.
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
        # torch warns of a scheduler stepped before its optimizer; a replay does just that, and rightly.
        optimizer._opt_called = True  # type: ignore[attr-defined]
        self._scheduler = self._next_phase()

    def _next_phase(self) -> LRScheduler:
        """Returns the warm-up, or the row's own scheduler once that is over."""
        if self._epoch < self._warmup:
            return lr_scheduler.LambdaLR(self._optimizer, lambda epoch: (epoch + 1) / (self._warmup + 1))
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.lr
            group.pop("initial_lr", None)
        settings = {k: v for k, v in self._config.scheduler_settings.items() if k != "warmup_epochs"}
        return self._row.build(self._optimizer, settings, self._horizon)

    @property
    def steps_on_batches(self) -> bool:
        """Whether this epoch's values change from batch to batch."""
        return self._row.steps_on == "batch" and self._epoch >= self._warmup

    def step_batch(self) -> None:
        """Ends a training step."""
        if self.steps_on_batches:
            self._scheduler.step()

    def step_epoch(self, metrics: Metrics) -> None:
        """Ends an epoch.

        Args:
            metrics: What it measured. Without what a metric-driven schedule monitors (a forecast), it does not act.
        """
        warming_up = self._epoch < self._warmup
        self._epoch += 1
        if warming_up and self._epoch == self._warmup:
            self._scheduler = self._next_phase()
        elif warming_up or self._row.steps_on == "epoch":
            self._scheduler.step()
        elif isinstance(self._scheduler, ReduceLROnPlateau):
            monitor = str(self._config.scheduler_settings["monitor"])
            if monitor in metrics:
                self._scheduler.step(metrics[monitor])

    def replay(self, metrics: Metrics) -> None:
        """Goes through an epoch that was trained before, so that the next one begins as it did."""
        for _ in range(self._horizon.steps_per_epoch if self.steps_on_batches else 0):
            self.step_batch()
        self.step_epoch(metrics)

    def skip_warmup(self) -> None:
        """Goes on to the first epoch after warm-up, where the row's own scheduler takes over."""
        while self._epoch < self._warmup:
            self.step_epoch({})

    def values(self) -> tuple[tuple[Setting, ...], ...]:
        """Returns what a schedule can set (learning rate, momentum, first beta), as it is now, for each group."""
        return tuple((g["lr"], g.get("momentum"), g.get("betas", (None,))[0]) for g in self._optimizer.param_groups)


class Trace:
    """The hyperparameters a trial's schedule applies, epoch by epoch, without training anything.

    Args:
        config: The trial, its settings complete.
        steps_per_epoch: Training steps in each epoch.
    """

    def __init__(self, config: TrialConfig, steps_per_epoch: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._schedule = Schedule(config, bare_optimizer(config), steps_per_epoch)
        self._next: Hashable = None

    def next_epoch(self) -> Hashable:
        """Returns the values at every step of the next epoch: equal for two trials when they train it equally."""
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
        """Goes on to the epoch after the next, which measured these metrics."""
        self.next_epoch()
        self._schedule.step_epoch(metrics)
        self._next = None


def bare_optimizer(config: TrialConfig) -> Optimizer:
    """Returns the trial's optimizer over two tiny parameters: its hyperparameters and nothing to train.

    Raises:
        InputError: torch refuses a setting.
    """
    # Not a layer: its initial weights would come from torch's global generator, which is the caller's.
    model = nn.ParameterList([torch.zeros(1, 1), torch.zeros(1)])
    return OPTIMIZERS[config.optimizer].build(model, config.lr, config.optimizer_settings)

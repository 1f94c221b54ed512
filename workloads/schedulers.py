"""SCHEDULERS: every learning-rate schedule a trial can use, one row each, and how a trial is driven by one.

Time is counted in epochs; `TrialConfig.lr` is the rate a schedule scales (for one-cycle and cyclic: its peak). Every row
also knows `warmup_epochs`: that many epochs of linear warm-up before it, after which it starts with what is left of the
horizon. To add a schedule, add a row.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from workloads.optimizers import OPTIMIZERS
from workloads.rows import Row
from workloads.trial import Setting, Settings, TrialConfig, canonical_json, digest

Metrics = Mapping[str, float]
"""What an epoch measured, by name; a metric-driven schedule reads the one it monitors."""


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


def _third(epochs: int) -> int:
    return max(1, epochs // 3)


def _sixth(epochs: int) -> int:
    return max(1, epochs // 6)


def _whole(epochs: int) -> int:
    return epochs


def _half_and_three_quarters(epochs: int) -> tuple[int, ...]:
    return (max(1, epochs // 2), max(2, epochs * 3 // 4))


def _cycles_momentum(optimizer: Optimizer) -> bool:
    """Whether there is a momentum to cycle: turning one on would make another optimizer of it."""
    return "betas" in optimizer.defaults or bool(optimizer.defaults.get("momentum"))


MONITORS: Mapping[str, Literal["min", "max"]] = {"train_loss": "min", "val_loss": "min", "val_accuracy": "max"}
"""What a plateau schedule can watch, and which way is better."""


def _plateau(optimizer: Optimizer, s: dict[str, Any], h: Horizon) -> LRScheduler:
    settings = {name: value for name, value in s.items() if name != "monitor"}
    return ReduceLROnPlateau(optimizer, mode=MONITORS[s["monitor"]], **settings)


_MOMENTUM = {"base_momentum": 0.85, "max_momentum": 0.95}

_ROWS: tuple[SchedulerRow, ...] = (
    SchedulerRow(
        name="none",
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
        doc="Multiplied by factor when the monitored metric has not improved for more than patience epochs.",
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
        doc="Up to the trial's rate and down to almost nothing, batch by batch; momentum the other way (arXiv:1708.07120).",
        steps_on="batch",
        torch_classes=(lr_scheduler.OneCycleLR,),
        settings={"pct_start": 0.3, "anneal_strategy": "cos", "div_factor": 25.0, "final_div_factor": 1e4}
        | {"three_phase": False}
        | _MOMENTUM,
        choices={"anneal_strategy": ("cos", "linear")},
        build=lambda o, s, h: lr_scheduler.OneCycleLR(
            o, max_lr=h.lr, total_steps=h.steps(h.epochs), cycle_momentum=_cycles_momentum(o), **s
        ),
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
        self._steps_per_epoch = steps_per_epoch
        warmup = config.scheduler_settings["warmup_epochs"]
        assert isinstance(warmup, int)
        self._warmup = min(warmup, config.epochs)
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
        epochs = max(1, self._config.epochs - self._warmup)
        horizon = Horizon(lr=self._config.lr, epochs=epochs, steps_per_epoch=self._steps_per_epoch)
        return self._row.build(self._optimizer, settings, horizon)

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
            metrics: What it measured; at least what the schedule monitors.
        """
        warming_up = self._epoch < self._warmup
        self._epoch += 1
        if warming_up and self._epoch == self._warmup:
            self._scheduler = self._next_phase()
        elif warming_up or self._row.steps_on == "epoch":
            self._scheduler.step()
        elif isinstance(self._scheduler, ReduceLROnPlateau):
            monitor = self._config.scheduler_settings["monitor"]
            assert isinstance(monitor, str)
            self._scheduler.step(metrics[monitor])

    def replay(self, metrics: Metrics) -> None:
        """Goes through an epoch that was trained before, so that the next one begins as it did."""
        for _ in range(self._steps_per_epoch if self.steps_on_batches else 0):
            self.step_batch()
        self.step_epoch(metrics)

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
        ValueError: torch refuses a setting.
    """
    return OPTIMIZERS[config.optimizer].build(nn.Linear(1, 1), config.lr, config.optimizer_settings)

"""What a sweep script states: one question and the trials that answer it; and how options make a plan of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.grid import Grid, Point, axis, check_axis, parse_axis, product, to_config
from sweeps.options import Options
from workloads.errors import InputError
from workloads.optimizers import OPTIMIZERS
from workloads.own_images import NAME as OWN_IMAGES
from workloads.published import DATASETS
from workloads.registry import resolve
from workloads.rows import NotApplicableError, Row, find
from workloads.schedulers import SCHEDULERS
from workloads.trial import Setting, TrialConfig

ALL = "all"
"""Stands for a whole table on the command line."""

LARGEST = {"epochs": 2**31 - 1, "train_limit": 2**31 - 1, "seed": 2**63 - 1}
"""Field of a trial -> the largest number that its column holds."""

FLAG_OF_AXIS = {
    "optimizer": "optimizers",
    "scheduler": "schedulers",
    "lr": "lrs",
    "epochs": "epochs",
    "seed": "seeds",
    "batch_size": "batch_size",
    "train_limit": "train_limit",
}
"""Axis -> the option (and the field of `Sweep`) that gives its values."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A named question and the trials that answer it, before the command line narrows or widens it."""

    name: str
    """Folder of the results, unless `--name` says otherwise."""
    question: str
    """What the sweep answers, in one sentence."""
    optimizers: tuple[str, ...] = ("sgd_momentum",)
    """Rows of `OPTIMIZERS`."""
    schedulers: tuple[str, ...] = ("none",)
    """Rows of `SCHEDULERS`."""
    lrs: tuple[float, ...] | None = None
    """Learning rates; None takes each optimizer's own grid."""
    epochs: int = 30
    seeds: tuple[int, ...] = (21,)
    batch_size: int = 64
    train_limit: int | None = None
    """Train on the first that many training images; None means all."""
    grid: Sequence[Point] = ({},)
    """More axes, made with `sweeps.grid`; an axis given here replaces the field above."""
    plots: tuple[str, ...] = ()
    """The pictures that show the answer, by name; none means all that have something to say."""

    @property
    def grid_axes(self) -> set[str]:
        """The axes of the sweep's own grid."""
        return {name for point in self.grid for name in point}

    def default_options(self) -> Options:
        """Returns what the command line starts from; None where the sweep's own grid says it."""
        values: dict[str, Any] = {
            flag: None if axis_name in self.grid_axes else getattr(self, flag)
            for axis_name, flag in FLAG_OF_AXIS.items()
        }
        return Options(name=self.name, **values)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The trials of a sweep, and what was left out."""

    trials: tuple[TrialConfig, ...]
    left_out: dict[str, int]
    """Reason -> how many combinations make no sense."""


def check_sweep(sweep: Sweep) -> None:
    """Refuses a sweep whose fields are of another kind than they should be.

    Raises:
        InputError: One is.
    """
    for name in ("name", "question"):
        value = getattr(sweep, name)
        if not isinstance(value, str):
            raise InputError(f"the sweep's {name} must be a text, not {value!r}")
    if not isinstance(sweep.grid, Sequence) or not all(isinstance(point, Mapping) for point in sweep.grid):
        raise InputError(f"the sweep's grid must be made with sweeps.grid (axis, product, chain), not {sweep.grid!r}")


def plan(sweep: Sweep, options: Options) -> Plan:
    """Returns the trials of a sweep under the given options, every setting filled in and checked.

    Raises:
        InputError: An option names something unknown or out of range, or nothing is left to run.
    """
    trials: dict[str, TrialConfig] = {}
    left_out: Counter[str] = Counter()
    base = TrialConfig(test_every_epoch=options.test_every_epoch)
    for point in points(sweep, options):
        try:
            config = resolve(to_config(point, base))
        except NotApplicableError as reason:
            left_out[str(reason)] += 1
            continue
        for name, most in LARGEST.items():
            if (getattr(config, name) or 0) > most:
                raise InputError(f"{name} must be at most {most}, not {getattr(config, name)}")
        trials.setdefault(config.trial_id, config)
    if not trials:
        raise InputError("no trial is left to run: " + ("; ".join(left_out) or "the grid is empty"))
    return Plan(trials=tuple(trials.values()), left_out=dict(left_out))


def points(sweep: Sweep, options: Options) -> Grid:
    """Returns every combination that sweep and options ask for.

    `--grid` replaces the axes it names, flags replace the axes of the sweep's own grid. Where nothing gives a learning
    rate, the optimizer's own grid does.

    Raises:
        InputError: A name or an axis is unknown, or an axis is given twice.
    """
    for name in sorted(sweep.grid_axes):
        check_axis(name)
    asked = _asked_grid(sweep, options)
    for name, grid in _dataset_axes(options.dataset).items():
        if name in asked:
            raise InputError(f"axis {name!r} is given twice; give it once, by --grid or by --dataset")
        asked[name] = grid
    found: Grid = []
    for own in sweep.grid:
        axes = _flag_axes(sweep, options, own) | asked
        rest = {name: value for name, value in own.items() if name not in axes}
        for point in product([rest], *axes.values()):
            lrs = find("optimizer", OPTIMIZERS, str(point["optimizer"])).lrs
            found += [point] if "lr" in point else product([point], axis("lr", *lrs))
    return list({json.dumps(point, sort_keys=True): point for point in found}.values())


def _flag_axes(sweep: Sweep, options: Options, own: Point) -> dict[str, Grid]:
    """Returns the axes that flags ask for, and those of the sweep's fields that a point of its own grid lacks."""
    axes = {}
    for name, flag in FLAG_OF_AXIS.items():
        given = getattr(options, flag)
        if given is None and name not in own:
            given = getattr(sweep, flag)
        if given is not None:
            axes[name] = axis(name, *_values(name, given))
    return axes


def _asked_grid(sweep: Sweep, options: Options) -> dict[str, Grid]:
    """Returns the axes of `--grid`, by name."""
    defaults = sweep.default_options()
    asked: dict[str, Grid] = {}
    for text in options.grid:
        grid = parse_axis(text)
        (name,) = grid[0]
        flag = FLAG_OF_AXIS.get(name)
        if name in asked or (flag and getattr(options, flag) != getattr(defaults, flag)):
            raise InputError(f"axis {name!r} is given twice; give it once, by --grid or by its own flag")
        asked[name] = grid
    return asked


def _dataset_axes(dataset: str | None) -> dict[str, Grid]:
    """Returns the axes that `--dataset` asks for."""
    if dataset is None:
        return {}
    kind, colon, path = dataset.partition(":")
    if kind == OWN_IMAGES and colon:
        return {
            "workload": axis("workload", f"lenet_{OWN_IMAGES}"),
            "workload.path": axis("workload.path", path),
        }
    if dataset not in DATASETS:
        raise InputError(f"unknown data set {dataset!r}; known: {', '.join(DATASETS)}, {OWN_IMAGES}:PATH")
    return {"workload": axis("workload", f"lenet_{dataset}")}


def _values(name: str, given: Any) -> tuple[Setting, ...]:
    """Returns the values of an axis as its flag gave them: names are looked up, 'all' is the whole table."""
    values = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    tables: dict[str, Mapping[str, Row]] = {"optimizer": OPTIMIZERS, "scheduler": SCHEDULERS}
    if name not in tables:
        return values
    table = tables[name]
    return tuple(table) if ALL in values else tuple(find(name, table, str(value)).name for value in values)

"""What a sweep script states: one question and the trials that answer it; and how options make a plan of it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sweeps.question.grid import Grid, Point, axis, check_axis, parse_axis, product, to_config
from sweeps.question.options import Options
from sweeps.question.samplers import DEFAULT
from sweeps.question.space import TABLES, Search, refuse_ranges
from workloads.errors import InputError, did_you_mean
from workloads.optimizers import OPTIMIZERS
from workloads.own import Workload, check, register
from workloads.own_images import NAME as OWN_IMAGES
from workloads.published import DATASETS
from workloads.registry import measure_of, resolve
from workloads.rows import NotApplicableError, find
from workloads.spans import is_range
from workloads.trial import FIELDS, Setting, TrialConfig

ALL = "all"
"""Stands for a whole table on the command line."""

LARGEST = {
    f.name: 2**63 - 1 if f.name.endswith("seed") else 2**31 - 1
    for f in fields(TrialConfig)
    if f.type in ("int", "int | None")
}
"""Field of a trial -> the largest number that its column holds."""

FLAG_OF_AXIS = {name: role.flag for name, role in FIELDS.items() if role.flag is not None}
"""Axis -> the option (and the field of `Sweep`) that gives its values."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A named question and the trials that answer it, before the command line narrows or widens it."""

    name: str
    """Folder of the results, unless `--name` says otherwise."""
    question: str
    """What the sweep answers, in one sentence."""
    workload: str | Workload | tuple[str | Workload, ...] | None = None
    """What to train: your own `Workload`, or a row of `WORKLOADS`, or several; None for LeNet on Fashion-MNIST."""
    optimizers: tuple[str, ...] = ("sgd_momentum",)
    """Rows of `OPTIMIZERS`."""
    schedulers: tuple[str, ...] = ("none",)
    """Rows of `SCHEDULERS`."""
    lrs: tuple[float | str, ...] | None = None
    """Learning rates; None takes each optimizer's own grid, or in a search its own range."""
    epochs: int = 30
    seeds: tuple[int, ...] = (21,)
    batch_size: int = 64
    train_limit: int | None = None
    """Train on the first that many training images; None means all."""
    trials: int | None = None
    """Draw so many trials from the space of each optimizer and schedule (a search); None for the grid."""
    grid: Sequence[Point] = ({},)
    """More axes, made with `sweeps.question.grid`; an axis given here replaces the field above."""
    plots: tuple[str, ...] = ()
    """The pictures that show the answer, by name; none means all that have something to say."""

    @property
    def grid_axes(self) -> set[str]:
        """The axes of the sweep's own grid."""
        return {name for point in self.grid for name in point}

    @property
    def workloads(self) -> tuple[str | Workload, ...]:
        """What to train, as given; none means the default."""
        if self.workload is None:
            return ()
        return self.workload if isinstance(self.workload, tuple) else (self.workload,)

    def default_options(self) -> Options:
        """Returns what the command line starts from; None where the sweep's own grid says it."""
        values: dict[str, Any] = {
            flag: None if axis_name in self.grid_axes else getattr(self, flag)
            for axis_name, flag in FLAG_OF_AXIS.items()
        }
        if values["lrs"] is not None:
            values["lrs"] = tuple(str(lr) for lr in values["lrs"])
        return Options(name=self.name, trials=self.trials, **values)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The trials of a sweep, and what was left out."""

    trials: tuple[TrialConfig, ...]
    left_out: dict[str, int]
    """Reason -> how many combinations make no sense."""
    notes: tuple[str, ...] = ()
    """What else to say about them."""
    search: Search | None = None
    """How they were drawn; None for a grid."""


def check_sweep(sweep: Sweep) -> None:
    """Refuses a sweep whose fields are of another kind than they should be.

    Raises:
        InputError: One is.
    """
    for name in ("name", "question"):
        value = getattr(sweep, name)
        if not isinstance(value, str):
            raise InputError(f"the sweep's {name} must be a text, not {value!r}")
    for lr in sweep.lrs or ():
        if not isinstance(lr, (int, float)) and not is_range(lr):
            raise InputError(f"lr must be a number above 0, not {lr!r}")
    if not isinstance(sweep.grid, Sequence) or not all(isinstance(point, Mapping) for point in sweep.grid):
        raise InputError(f"the sweep's grid must be made with axis, product and chain, not {sweep.grid!r}")


def plan(sweep: Sweep, options: Options) -> Plan:
    """Returns the trials of a sweep under the given options, every setting filled in and checked.

    Workloads of the user's own are known from here on.

    Raises:
        InputError: An option names something unknown or out of range, or nothing is left to run.
    """
    for workload in sweep.workloads:
        if isinstance(workload, Workload):
            register(workload)
    search = search_of(options)
    trials: dict[str, TrialConfig] = {}
    left_out: Counter[str] = Counter()
    base = TrialConfig(test_every_epoch=options.test_every_epoch)
    notes: dict[str, dict[str, None]] = {}
    ranged: dict[str, Setting] = {}
    for given in points(sweep, options):
        ranged |= {name: value for name, value in given.items() if is_range(value)}
        point, without = _fitting(given)
        for name, row in without.items():
            notes.setdefault(f"{name} has no effect on", {})[row] = None
        before = len(trials)
        drawn = _expanded(point, search)
        for one in drawn:
            try:
                config = resolve(to_config(one, base))
            except NotApplicableError as reason:
                left_out[str(reason)] += 1
                continue
            check(config)
            if config.trial_id in trials and not config.seeded:
                notes.setdefault("the seed has no effect on", {})["trials with both init_seed and order_seed"] = None
            for name, most in LARGEST.items():
                if (getattr(config, name) or 0) > most:
                    raise InputError(f"{name} must be at most {most}, not {getattr(config, name)}")
            trials.setdefault(config.trial_id, config)
        if search is not None and not search.learns and 0 < len(trials) - before < search.trials:
            fewer = f"fewer than {search.trials} different settings to draw for"
            notes.setdefault(fewer, {})[f"{point['optimizer']} with schedule {point['scheduler']}"] = None
    if not trials:
        raise InputError("no trial is left to run: " + ("; ".join(left_out) or "the grid is empty"))
    measures = {measure_of(trial).name for trial in trials.values()}
    if len(measures) > 1:
        raise InputError(
            f"one question has one measure, not {' and '.join(sorted(measures))}: ask one for each workload"
        )
    if search is not None:
        search.check(ranged)
    said = tuple(f"{note} {', '.join(rows)}" for note, rows in notes.items())
    return Plan(trials=tuple(trials.values()), left_out=dict(left_out), notes=said, search=search)


def trial_at(point: Point, base: TrialConfig) -> TrialConfig | None:
    """Returns the trial of a point, every setting filled in and checked; None if they make no sense together.

    Raises:
        InputError: A value is out of range.
    """
    try:
        return resolve(to_config(_fitting(point)[0], base))
    except NotApplicableError:
        return None


def search_of(options: Options) -> Search | None:
    """Returns how options ask to draw trials; None for a grid.

    Raises:
        InputError: A number is out of range, or a flag of a search is given without one.
    """
    if options.trials is None:
        for flag, value in (("--sampler", options.sampler), ("--sampler-seed", options.sampler_seed)):
            if value is not None:
                raise InputError(f"{flag} is about the draws of a search: add --trials N, or leave out {flag}")
        return None
    if options.more_lrs:
        raise InputError(
            "--more-lrs adds to a grid of learning rates, and --trials draws them: give a wider range with --lrs "
            "LOW..HIGH, or more draws with --trials"
        )
    return Search(trials=options.trials, sampler=options.sampler or DEFAULT, seed=options.sampler_seed or 0)


def _expanded(point: Point, search: Search | None) -> Grid:
    if search is not None:
        return search.expand(point)
    refuse_ranges(point)
    return [point]


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
    if sweep.workloads and options.dataset is not None:
        raise InputError(f"--dataset is for LeNet; this sweep trains {', '.join(_names(sweep))}: leave it out")
    if sweep.workloads and "workload" not in asked and "workload" not in sweep.grid_axes:
        asked["workload"] = axis("workload", *_names(sweep))
    for name, grid in _dataset_axes(options.dataset).items():
        if name in asked:
            raise InputError(f"axis {name!r} is given twice; use either --grid or --dataset")
        asked[name] = grid
    if options.lrs is not None and not options.lrs:
        raise InputError("--lrs needs at least one learning rate, such as 0.01 or adam=0.001")
    lrs = Rates.parse("--lrs", () if options.lrs is None or "lr" in asked else options.lrs)
    more_lrs = Rates.parse("--more-lrs", options.more_lrs)
    found: Grid = []
    optimizers = set()
    for own in sweep.grid:
        axes = _flag_axes(sweep, options, own) | asked
        rest = {name: value for name, value in own.items() if name not in axes}
        for point in product([rest], *axes.values()):
            row = find("optimizer", OPTIMIZERS, str(point["optimizer"]))
            optimizers.add(row.name)
            usual = row.lrs if options.trials is None else (str(row.space["lr"]),)
            own_lrs = (point["lr"],) if "lr" in point else sweep.lrs or usual
            rates = lrs.for_one.get(row.name) or lrs.for_all or own_lrs
            more = more_lrs.for_all + more_lrs.for_one.get(row.name, ())
            found += [{**point, "lr": lr} for lr in (*rates, *more)]
    for rates_of in (lrs, more_lrs):
        rates_of.check(optimizers)
    return _with_more_seeds(_once(found), options.more_seeds)


def _names(sweep: Sweep) -> list[str]:
    return [one.name if isinstance(one, Workload) else one for one in sweep.workloads]


@dataclass(frozen=True)
class Rates:
    """Learning rates as `--lrs` and `--more-lrs` give them."""

    flag: str
    for_all: tuple[float | str, ...] = ()
    """Numbers, and ranges as texts."""
    for_one: Mapping[str, tuple[float | str, ...]] = field(default_factory=dict)
    """Optimizer -> its learning rates."""

    @classmethod
    def parse(cls, flag: str, texts: Iterable[str | float]) -> Rates:
        """Returns the rates that texts such as `0.01`, `adam=0.001,0.003` and `1e-4..0.1` name.

        Raises:
            InputError: A text is not of that form.
        """
        for_all: list[float | str] = []
        for_one: dict[str, tuple[float | str, ...]] = {}
        for text in texts:
            optimizer, equals, values = str(text).rpartition("=")
            rates = tuple(_rate(flag, str(text), value) for value in values.split(","))
            if equals:
                name = find("optimizer", OPTIMIZERS, optimizer.strip()).name
                for_one[name] = (*for_one.get(name, ()), *rates)
            else:
                for_all += rates
        return cls(flag, tuple(for_all), for_one)

    def check(self, optimizers: Collection[str]) -> None:
        """Refuses rates for an optimizer that the sweep does not train.

        Raises:
            InputError: There are some.
        """
        for name in self.for_one.keys() - optimizers:
            raise InputError(
                f"{self.flag} gives learning rates for {name}, which this sweep does not train; "
                f"it trains {', '.join(sorted(optimizers))} (--optimizers)"
            )


def _rate(flag: str, whole: str, text: str) -> float | str:
    if is_range(text):
        return text.strip()
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"{flag} takes learning rates (0.01 0.1) or those of one optimizer (adam=0.001,0.003), not {whole!r}"
        ) from None


def _with_more_seeds(points: Grid, count: int) -> Grid:
    """Returns the points, and each again with so many seeds more: the smallest from 1 on that none has yet."""
    if count < 0:
        raise InputError(f"--more-seeds must be 0 or more, not {count}")
    used = {point["seed"] for point in points}
    new = list(itertools.islice((seed for seed in itertools.count(1) if seed not in used), count))
    return points + _once([{**point, "seed": seed} for point in points for seed in new])


def _once(points: Grid) -> Grid:
    return list({json.dumps(point, sort_keys=True): point for point in points}.values())


def _fitting(point: Point) -> tuple[Point, dict[str, str]]:
    """Returns a point without the settings that its rows lack and others have, and those: setting -> row's name.

    What no row of a table has is left in, to be refused.
    """
    lacking = {}
    for name in point:
        kind, dot, setting = name.partition(".")
        if dot:
            table = TABLES[kind]
            row = table.get(str(point.get(kind, getattr(TrialConfig(), kind))))
            if row and setting not in row.settings and any(setting in other.settings for other in table.values()):
                lacking[name] = row.name
    return {name: value for name, value in point.items() if name not in lacking}, lacking


def _flag_axes(sweep: Sweep, options: Options, own: Point) -> dict[str, Grid]:
    """Returns the axes that flags ask for, and those of the sweep's fields that a point of its own grid lacks.

    All but the learning rate: its grid depends on the optimizer.
    """
    axes = {}
    for name, flag in FLAG_OF_AXIS.items():
        given = getattr(options, flag)
        if given is None and name not in own:
            given = getattr(sweep, flag)
        if given is not None and name != "lr":
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
            raise InputError(f"axis {name!r} is given twice; use either --grid or its own flag")
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
        hint = did_you_mean(dataset, DATASETS)
        raise InputError(f"unknown data set {dataset!r}{hint}; known: {', '.join(DATASETS)}, {OWN_IMAGES}:PATH")
    return {"workload": axis("workload", f"lenet_{dataset}")}


def _values(name: str, given: Any) -> tuple[Setting, ...]:
    """Returns the values of an axis as its flag gave them: names are looked up, 'all' is the whole table."""
    values = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    if name not in TABLES:
        return values
    table = TABLES[name]
    return tuple(table) if ALL in values else tuple(find(name, table, str(value)).name for value in values)

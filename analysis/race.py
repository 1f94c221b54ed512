"""How a sweep's race went: its rounds again, from the stored trials, with what each of them saw.

A race is a policy of `sweeps`, which goes by the results that are there and by nothing else. So the same rounds
(`statistics.rounds`) on the stored results give the course that the race took.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.measures import common_measure
from analysis.statistics.outlook import Outlook, outlook
from analysis.statistics.rounds import Course, run, seed_order
from analysis.store import SweepSpec
from workloads.measure import Measure
from workloads.trial import TrialConfig, configuration_id, configurations_digest

MOST_SEEDS = 30
"""Of a configuration in a race, unless the question says otherwise."""
_VALUE = "final_val_accuracy"
_NOT_ENDED = ("pending", "cancelled", "early_stopped")
"""Statuses of trials that are trained yet if they are raced."""


@dataclass(frozen=True, kw_only=True)
class Race:
    """A race, as far as it has come."""

    course: Course
    """How it went; its indices are places in the following."""
    configurations: tuple[int, ...]
    """What was compared: the `configuration` of the tables."""
    labels: tuple[str, ...]
    """The settings of each that vary, in words."""
    care: float | None
    """The smallest difference that matters; None if any does."""

    @property
    def trials(self) -> int:
        """How many trials it has looked at."""
        return int(self.course.used.sum())

    @property
    def most_seeds(self) -> int:
        """How many of those the configuration has that has most."""
        return int(self.course.used.sum(axis=1).max())

    @property
    def worse(self) -> list[tuple[int, int]]:
        """Pairs of `configuration`: one that is out, and the one that it was shown to be worse than.

        What is out because it diverges is in no pair, nor is what came back because that other one diverged later on.
        """
        by = {one.configuration: one.against for one in self.course.events if one.standing == "worse"}
        return [
            (self.configurations[one], self.configurations[other])
            for one, other in by.items()
            if self.course.standings[one] == "worse" and other is not None
        ]

    @property
    def equal(self) -> list[tuple[int, int]]:
        """Pairs of `configuration`: one that is practically equal to the leader, or has the same results, and that."""
        if self.course.leader is None:
            return []
        alike = ("practically equal", "same results")
        leader = self.configurations[self.course.leader]
        standings = zip(self.configurations, self.course.standings, strict=True)
        return [(one, leader) for one, standing in standings if standing in alike]


def raced(specs: Sequence[SweepSpec], trials: pl.DataFrame) -> Race | None:
    """Returns how a sweep's race went, finished or not, every round's intervals included.

    Args:
        specs: What was asked.
        trials: The trials table, with `configuration` and `label`.

    Returns:
        None if no race was asked for, if there are several sweeps, or if there are trials of configurations that were
        not in the race (`load(..., everything=True)`).
    """
    if len(specs) != 1 or not (asked := specs[0].race):
        return None
    (spec,) = specs
    of = _rows(spec)
    if configurations_digest(spec.trials) != asked["configurations"]:
        return None
    named = _named(trials, of)
    values, ended, diverged = _results(trials, of, asked["seeds"], common_measure(specs))
    course = run(
        values,
        ended,
        diverged,
        _groups(spec.trials, of),
        care=spec.care,
        level=asked["level"],
        start=asked["start"],
        looks=True,
    )
    return Race(
        course=course,
        configurations=tuple(configuration for configuration, _ in named),
        labels=tuple(label for _, label in named),
        care=spec.care,
    )


def ahead(specs: Sequence[SweepSpec], trials: pl.DataFrame, most: int = MOST_SEEDS) -> Outlook | None:
    """Returns what it would take to decide a question by a race, from what is known of it.

    Args:
        specs: What was asked, by a race or not.
        trials: The trials table.
        most: Seeds that a configuration may have at most.

    Returns:
        None if there is nothing to decide: a single configuration, several data sets or sweeps.
    """
    if len(specs) != 1 or trials["dataset"].n_unique() > 1:
        return None
    (spec,) = specs
    of = _rows(spec)
    if max(of.values()) == 0:
        return None
    seeds = seed_order(trials["seed"], most, first=spec.race["seeds"] if spec.race else ())
    values, ended, diverged = _results(trials, of, seeds, common_measure(specs))
    groups = _groups(spec.trials, of)
    course = run(values, ended, diverged, groups, care=spec.care)
    epochs = dict(sorted((of[trial.trial_id], trial.epochs) for trial in spec.trials))
    return outlook(course, values, list(epochs.values()), groups, spec.care)


def _rows(spec: SweepSpec) -> dict[str, int]:
    """Returns trial -> the place of its configuration; a race's trials are stored by configuration."""
    ids = {trial.trial_id: configuration_id(trial) for trial in spec.trials}
    row = {one: place for place, one in enumerate(dict.fromkeys(ids.values()))}
    return {trial_id: row[one] for trial_id, one in ids.items()}


def _named(trials: pl.DataFrame, of: Mapping[str, int]) -> list[tuple[int, str]]:
    """Returns number and label of each configuration of the race."""
    found: dict[int, tuple[int, str]] = {}
    for trial_id, configuration, label in trials.select("trial_id", "configuration", "label").iter_rows():
        found.setdefault(of[trial_id], (configuration, label))
    return [found[place] for place in sorted(found)]


def _results(
    trials: pl.DataFrame, of: Mapping[str, int], seeds: Sequence[int], measure: Measure
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Returns value, more is better, whether ended and whether diverged, each of shape (configurations, seeds)."""
    shape = max(of.values()) + 1, len(seeds)
    values, ended, diverged = np.full(shape, np.nan), np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    column = {seed: place for place, seed in enumerate(seeds)}
    asked = pl.col("trial_id").is_in(list(of)) & pl.col("seed").is_in(list(seeds))
    used = trials.filter(asked).select("trial_id", "seed", "status", _VALUE)
    for trial_id, seed, status, value in used.iter_rows():
        place = of[trial_id], column[seed]
        ended[place], diverged[place] = status not in _NOT_ENDED, status == "diverged"
        if status == "completed" and value is not None:
            values[place] = measure.sign * value
    return values, ended, diverged


def _groups(trials: Iterable[TrialConfig], of: Mapping[str, int]) -> list[int] | None:
    """Returns each configuration's group, by optimizer and schedule; None if there is only one."""
    names = dict(sorted((of[trial.trial_id], (trial.optimizer, trial.scheduler)) for trial in trials))
    number = {name: place for place, name in enumerate(dict.fromkeys(names.values()))}
    return [number[name] for name in names.values()] if len(number) > 1 else None

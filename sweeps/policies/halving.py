"""Successive halving: after a third of the epochs, and a third of that, ..., only the best third of each group goes on.

Synchronous (Jamieson & Talwalkar 2016, arXiv:1502.07943): all configurations of a group reach a rung before any of them
is judged by it, so nothing depends on which came first. Which go on is a pure function of the learning curves. No
decision is stored: what is known of a sweep that was killed, resumed or widened decides the same again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from statistics import fmean

from sweeps.policies.policy import Decision, Outcome, Results
from workloads.errors import InputError
from workloads.trial import TrialConfig, configuration_id

ETA = 3
"""Of the configurations of a group, one in so many goes on; rungs are so many times as far apart."""


@dataclass(frozen=True, kw_only=True)
class Rungs:
    """What halving lets through, if no training fails."""

    going_on: tuple[tuple[int, int], ...]
    """Epoch of each rung, and how many configurations go on from it."""
    trial_epochs: int
    """Epochs of all trials together, as if each trained alone."""
    without: int
    """The same, if none was stopped."""


@dataclass(frozen=True, kw_only=True)
class Halving:
    """Trains all its trials to the first rung, and the best third of each group on to the next.

    A group is one optimizer with one schedule: groups get equal budgets.

    Raises:
        InputError: There is nothing to stop.
    """

    trials: tuple[TrialConfig, ...]
    policy_id: None = None

    def __post_init__(self) -> None:
        lengths = sorted({trial.epochs for trial in self.trials})
        if len(lengths) > 1:
            raise InputError(
                "--stop-early halving compares trials of one length, not of "
                f"{', '.join(map(str, lengths))} epochs: ask for each"
            )
        if lengths[0] < ETA:
            raise InputError(f"--stop-early halving needs {ETA} epochs or more, not {lengths[0]} (--epochs)")
        if not self.rungs:
            most = max(map(len, self._groups))
            raise InputError(
                f"--stop-early halving needs {ETA} configurations or more of an optimizer and schedule, not {most}: "
                "ask for more, or leave it out"
            )

    @cached_property
    def _groups(self) -> tuple[tuple[str, ...], ...]:
        """The configurations of each group, in order."""
        found: dict[tuple[str, str, str], dict[str, None]] = {}
        for trial, name in zip(self.trials, self._names, strict=True):
            found.setdefault((trial.workload, trial.optimizer, trial.scheduler), {})[name] = None
        return tuple(map(tuple, found.values()))

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(map(configuration_id, self.trials))

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which configurations are stopped, rising; no more than a group has configurations for."""
        epochs, count = self.trials[0].epochs, max(map(len, self._groups))
        found = []
        while epochs >= ETA and count >= ETA:
            epochs, count = epochs // ETA, count // ETA
            found.append(epochs)
        return tuple(reversed(found))

    def decide(self, known: Results) -> Decision:
        """Returns which trials stop at the rung that all have reached last, and where the others pause next."""
        still = list(self._groups)
        stopped: dict[str, str] = {}
        reason = f"all {len(self.trials):,} trials to epoch {self.rungs[0]}"
        for place, rung in enumerate(self.rungs):
            if not self._reached(known, still, rung):
                return Decision(add=self.trials, stop=self._of(stopped), until=rung, reason=reason)
            before = sum(map(len, still))
            still = [self._best(group, known, rung, stopped) for group in still]
            reason = f"{sum(map(len, still)):,} of {before:,} configurations go on after epoch {rung}."
            reason += "" if place + 1 < len(self.rungs) else " They are trained to the end."
        return Decision(add=self.trials, stop=self._of(stopped), over=True, reason=reason)

    def ordered(self, trials: Iterable[TrialConfig]) -> list[TrialConfig]:
        """Returns trials as they come: in the order of the question."""
        return list(trials)

    def to_json(self) -> None:
        """Returns nothing: a report tells from the trials' statuses."""

    def outlook(self, known: Results) -> Rungs:
        """Returns what goes on at each rung, and what that takes in all, whatever is known."""
        sizes, reached = list(map(len, self._groups)), 0
        each = [sum(len(self._seeds[name]) for name in group) / len(group) for group in self._groups]
        going_on, total = [], 0.0
        for rung in self.rungs:
            total += (rung - reached) * sum(size * many for size, many in zip(sizes, each, strict=True))
            sizes, reached = [_goes_on(size) for size in sizes], rung
            going_on.append((rung, sum(sizes)))
        epochs = self.trials[0].epochs
        total += (epochs - reached) * sum(size * many for size, many in zip(sizes, each, strict=True))
        return Rungs(going_on=tuple(going_on), trial_epochs=round(total), without=epochs * len(self.trials))

    def _reached(self, known: Results, groups: Iterable[tuple[str, ...]], rung: int) -> bool:
        """Whether all trials of some configurations have come to a rung, or ended before."""
        names = (name for group in groups for name in group)
        return all(_is_at(known.get(name, {}).get(seed), rung) for name in names for seed in self._seeds[name])

    def _best(self, group: tuple[str, ...], known: Results, rung: int, stopped: dict[str, str]) -> tuple[str, ...]:
        """Returns which of a group go on, and notes why the others do not."""
        seeds = self._seeds
        score = {name: _score([known[name][seed] for seed in seeds[name]], rung) for name in group}
        many = _goes_on(len(group))
        best = set(sorted(group, key=score.__getitem__, reverse=True)[:many])  # equal ones in order
        why = f"not among the best {many} of {len(group)} at epoch {rung}"
        stopped |= {name: why for name in group if name not in best}
        return tuple(name for name in group if name in best)

    @cached_property
    def _seeds(self) -> Mapping[str, list[int]]:
        found: dict[str, list[int]] = {}
        for trial, name in zip(self.trials, self._names, strict=True):
            found.setdefault(name, []).append(trial.seed)
        return found

    def _of(self, stopped: Mapping[str, str]) -> dict[str, str]:
        """Returns why trials stop, from why configurations do."""
        named = zip(self.trials, self._names, strict=True)
        return {trial.trial_id: stopped[name] for trial, name in named if name in stopped}


def _goes_on(count: int) -> int:
    return max(1, count // ETA)


def _is_at(outcome: Outcome | None, rung: int) -> bool:
    return outcome is not None and (not outcome.paused or len(outcome.curve) >= rung)


def _score(outcomes: list[Outcome], rung: int) -> tuple[float, float]:
    """Returns how good a configuration is at a rung: few seeds that diverged, then the mean of the others."""
    values = [outcome.curve[rung - 1] for outcome in outcomes if len(outcome.curve) >= rung]
    lost = sum(outcome.diverged for outcome in outcomes if len(outcome.curve) < rung)
    return -lost / len(outcomes), fmean(values) if values else -inf

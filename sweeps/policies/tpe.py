"""Draws where results are best so far: the tree-structured Parzen estimator, from Optuna by ask and tell.

Each group (an optimizer with a schedule) begins with a round of draws that depend on nothing, then gets a few more at a
time (Bergstra et al. 2011; Optuna's `TPESampler`). A round is asked for once all of the last one has ended, and told in
the order in which it was asked for: which draws there are is a function of the results, whoever finished first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sweeps.policies.policy import Decision, Results
from workloads.trial import TrialConfig, configuration_id

if TYPE_CHECKING:  # an optional package
    import optuna

START = 10
"""Draws that each group begins with; the number Optuna begins with too."""
ROUND = 5
"""Draws of a group at a time: more at a time keep more workers busy, and each knows less."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """What gets draws of its own."""

    names: tuple[str, ...]
    """The settings that are drawn."""
    start: tuple[tuple[float, ...], ...]
    """Where the first draws lie: for each setting a place in its range, from 0 to 1."""
    trials: Callable[[Sequence[float]], tuple[TrialConfig, ...]]
    """Places -> the trials there, one for each seed; none where settings make no sense together."""


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """What is still to be drawn."""

    each: int
    """Draws of a group in a round."""
    draws: int
    """Of a group in all."""
    trials: int
    """Of all groups."""


@dataclass(frozen=True, kw_only=True)
class Tpe:
    """Trains rounds of draws in each group, each round where the results so far say that more is to be found."""

    groups: tuple[Group, ...]
    draws: int
    """Of each group, in all."""
    seed: int
    """What tells one series of draws from another."""
    policy_id: None = None

    def decide(self, known: Results) -> Decision:
        """Returns all trials asked for so far and those of the next round, or that there is none."""
        rounds = [self._asked(group, known) for group in self.groups]
        add = tuple(trial for trials, _ in rounds for trial in trials)
        over = all(whole for _, whole in rounds)
        return Decision(add=add, over=over, reason=f"{len(add):,} trials by now: more where the results are best.")

    def ordered(self, trials: Iterable[TrialConfig]) -> list[TrialConfig]:
        """Returns trials as they come: round by round."""
        return list(trials)

    def to_json(self) -> None:
        """Returns nothing: a report tells from the trials."""

    def outlook(self, known: Results) -> Ahead | None:
        """Returns what is still to be drawn after the first round; None if that is all."""
        if self.draws <= START:
            return None
        seeds = [len(next(filter(None, map(group.trials, group.start)), ())) for group in self.groups]
        return Ahead(each=ROUND, draws=self.draws, trials=self.draws * sum(seeds))

    def _asked(self, group: Group, known: Results) -> tuple[list[TrialConfig], bool]:
        """Returns the trials that a group has been asked for, and whether those are all."""
        import optuna

        with _quiet():
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=START, multivariate=True, constant_liar=True, seed=self.seed
            )
            study = optuna.create_study(direction="maximize", sampler=sampler)
            unit: optuna.distributions.BaseDistribution = optuna.distributions.FloatDistribution(0.0, 1.0)
            distributions = dict.fromkeys(group.names, unit)
            asked: list[TrialConfig] = []
            for place in group.start[: self.draws]:
                study.enqueue_trial(dict(zip(group.names, place, strict=True)))
            left, size = self.draws, START
            while left:
                batch = [study.ask(distributions) for _ in range(min(left, size))]
                trials = [group.trials([one.params[name] for name in group.names]) for one in batch]
                asked += [trial for several in trials for trial in several]
                left, size = left - len(batch), ROUND
                values = [_value(several, known) for several in trials]
                if any(value is _PENDING for value in values):
                    return asked, not left
                for one, value in zip(batch, values, strict=True):  # in the order they were asked for
                    study.tell(one, _LOST if value is None else value)
        return asked, True


_PENDING = object()
"""Stands for the value of a draw that has not ended."""
_LOST = -1e300
"""Stands for the value of a draw that diverged or failed: worse than any, and only which is better counts."""


def _value(trials: Sequence[TrialConfig], known: Results) -> Any:
    """Returns the mean result of a draw over its seeds, None if it has none, `_PENDING` while one has not ended."""
    outcomes = [known.get(configuration_id(trial), {}).get(trial.seed) for trial in trials]
    if any(outcome is None for outcome in outcomes):
        return _PENDING
    values = [outcome.value for outcome in outcomes if outcome is not None]
    return fmean(value for value in values if value is not None) if values and None not in values else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna's notes, and that some of its options are experimental, to itself."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)

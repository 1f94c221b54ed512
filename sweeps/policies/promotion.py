"""Early stopping of trials that are all known beforehand: the best of each group are promoted from rung to rung.

More draws promote all that fewer did, except for one that was promoted only because its group was too small. No
decision is stored: what is known of a sweep that was killed, resumed or widened decides the same again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from sweeps.policies.policy import Decision, Results
from sweeps.policies.rungs import Ahead, Group, Rule, ahead, climb, of_trials
from workloads.errors import InputError
from workloads.trial import TrialConfig, configuration_id, digest


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """Trains all its trials to the first rung, and the best of each group on to the next.

    A group is one optimizer with one schedule: groups get equal chances, however slowly one starts.

    Raises:
        InputError: There is nothing to stop.
    """

    trials: tuple[TrialConfig, ...]
    rule: Rule
    drawn: bool = False
    """Whether the trials are in no particular order, as draws are; those of a grid are taken in a mixed one."""
    policy_id: None = None
    eager: bool = True

    def __post_init__(self) -> None:
        lengths = sorted({trial.epochs for trial in self.trials})
        if len(lengths) > 1:
            raise InputError(
                f"--stop-early {self.rule.name} compares trials of one length, not of {', '.join(map(str, lengths))} "
                "epochs: ask for each"
            )
        _ = self.rungs

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which configurations are stopped, rising."""
        return self.rule.rungs(self.trials[0].epochs, max(map(len, self._groups)))

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(map(configuration_id, self.trials))

    @cached_property
    def _groups(self) -> tuple[Group, ...]:
        found: dict[tuple[str, str, str], dict[str, list[int]]] = {}
        for trial, name in zip(self.trials, self._names, strict=True):
            group = found.setdefault((trial.workload, trial.optimizer, trial.scheduler), {})
            group.setdefault(name, []).append(trial.seed)
        groups = found.values()
        return tuple(
            groups if self.drawn else ({name: one[name] for name in sorted(one, key=digest)} for one in groups)
        )

    def decide(self, known: Results) -> Decision:
        """Returns how far each trial is trained by what is known, and which go no further."""
        climbs = [climb(group, known, self.rule, self.rungs) for group in self._groups]
        went_on = [sum(counts) for counts in zip(*(one.went_on for one in climbs), strict=True)]
        told = [f"{many:,} after epoch {rung}" for rung, many in zip(self.rungs, went_on, strict=True)]
        over = all(one.decided for one in climbs)
        return Decision(
            add=self._in_turns,
            stop=of_trials(self.trials, (one.stopped for one in climbs)),
            until=of_trials(self.trials, (one.until for one in climbs)),
            over=over,
            reason=f"Went on, of {sum(map(len, self._groups)):,} configurations: {', '.join(told)}." if over else "",
        )

    def ordered(self, trials: Iterable[TrialConfig]) -> list[TrialConfig]:
        """Returns trials in the order of the question."""
        places = {trial.trial_id: place for place, trial in enumerate(self.trials)}
        return sorted(trials, key=lambda trial: places.get(trial.trial_id, len(places)))

    @cached_property
    def _in_turns(self) -> tuple[TrialConfig, ...]:
        """The trials in the order in which they are begun: the first of each group, the second of each, and so on."""
        turn = {name: place for group in self._groups for place, name in enumerate(group)}
        named = zip(self.trials, self._names, strict=True)
        return tuple(trial for trial, _ in sorted(named, key=lambda pair: turn[pair[1]]))

    def to_json(self) -> None:
        """Returns nothing: a report tells from the trials' statuses."""

    def outlook(self, known: Results) -> Ahead:
        """Returns what is likely to go on from each rung, and what that takes, whatever is known."""
        sizes = list(map(len, self._groups))
        return ahead(sizes, len(self.trials) / sum(sizes), self.trials[0].epochs, self.rule, self.rungs)

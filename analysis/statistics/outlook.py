"""What certainty will cost: how many more seeds a race needs, if means and deviations stay what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.statistics.rounds import Course
from analysis.statistics.sequences import seeds_to_decide
from workloads.console import counted, duration


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What lies ahead of a race."""

    configurations: int
    """That are compared in all."""
    round: int
    """Seeds that those still in the race have; 0 before the first round has ended."""
    most: int
    """Seeds that a configuration may have at most."""
    in_question: int
    """Of these, the leader and those that could still be the best, or as good."""
    seeds: int | None
    """How many more the last of them needs; None where that cannot be told: nothing is known, or means are equal."""
    trials: int
    """How many more that takes; as far as the seeds allow where their number cannot be told."""
    trial_epochs: int

    def said(self, seconds: float | None) -> str:
        """Returns what certainty will cost, for people.

        Args:
            seconds: What an epoch takes, divided by how many train at once; None where that is not known.
        """
        if not self.round:
            return (
                "then one more seed at a time, only for those that could still be the best, until that is decided: at "
                f"most {self.most} seeds for a configuration"
            )
        takes = "" if seconds is None else f", about {duration(self.trial_epochs * seconds)}"
        cost = f"{counted(self.trials, 'trial')}{takes}"
        which = f"{self.in_question:,} of {self.configurations:,} configurations are still in question"
        if self.seeds is None:
            return f"{which}; how many seeds would tell cannot be estimated: at most {cost}"
        left = self.most - self.round
        told = f"about {counted(self.seeds, 'more seed')} would tell"
        return f"{which}; {told}{f', {left:,} at most are allowed' if self.seeds > left else ''}: {cost}"


def outlook(
    course: Course,
    values: npt.NDArray[np.float64],
    epochs: Sequence[int],
    groups: Sequence[object] | None = None,
    care: float | None = None,
) -> Outlook:
    """Returns what certainty will cost from where a race stands.

    Args:
        course: Where it stands.
        values: Shape (configurations, seeds), in the order of the race; NaN where there is none.
        epochs: Of a trial of each configuration.
        groups: Each configuration's group; None if each is its own.
        care: The smallest difference that matters; None if any does.
    """
    count = len(values)
    if course.over or course.leader is None or not course.round:
        rows = np.nonzero(course.asked)[0].tolist()
        return Outlook(
            configurations=count,
            round=course.round,
            most=values.shape[1],
            in_question=0 if course.over else count,
            seeds=0 if course.over else None,
            trials=len(rows),
            trial_epochs=sum(epochs[row] for row in rows),
        )
    most = values.shape[1]
    values, left = values[:, : course.round], most - course.round
    open_ = [one for one, standing in enumerate(course.standings) if standing == "in question"]
    further: dict[int, int | None] = {}
    for one in open_:
        differences = values[course.leader] - values[one]
        differences = differences[~np.isnan(differences)]
        deviation = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
        needed = seeds_to_decide(float(differences.mean()), deviation, course.level, care, course.prior)
        further[one] = None if needed is None else max(needed - len(differences), 1)
    outside = [one for one in open_ if groups is None or groups[one] != groups[course.leader]]
    longest = max((left + 1 if further[one] is None else further[one] or 0 for one in outside), default=0)
    trials = {one: min(further[one] or left, longest, left) for one in open_}
    trials[course.leader] = min(longest, left)
    return Outlook(
        configurations=count,
        round=course.round,
        most=most,
        in_question=len(open_) + 1,
        seeds=longest if all(further[one] is not None for one in outside) else None,
        trials=sum(trials.values()),
        trial_epochs=sum(epochs[one] * count for one, count in trials.items()),
    )

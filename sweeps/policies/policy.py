"""What a policy is asked and what it answers: `Results` in, a `Decision` out.

A policy is asked once all that it asked for has ended, or at any time if it is eager, and its answers come to the same
whoever finished first, and however often and whenever it was asked. So a sweep that is killed and resumed decides the
same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from workloads.errors import InputError
from workloads.trial import TrialConfig, configuration_id


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended, or how far it has come."""

    value: float | None
    """What configurations are compared by, more is better; None where it diverged, or ended without a result."""
    diverged: bool = False
    """It diverged, which is a result; without a value otherwise, it failed, which says nothing about its settings."""
    under_way: bool = False
    """It has not ended: it is trained, waits for it, or is paused at the epoch that a decision lets it train until."""
    curve: tuple[float, ...] = ()
    """What configurations are compared by after each epoch so far, more is better."""


Results = Mapping[str, Mapping[int, Outcome]]
"""What is known: `configuration_id` -> seed -> how that trial ended, or how far it has come."""


def results(ended: Iterable[tuple[TrialConfig, Outcome]]) -> Results:
    """Returns trials that have ended as policies look at them."""
    known: defaultdict[str, dict[int, Outcome]] = defaultdict(dict)
    for trial, outcome in ended:
        known[configuration_id(trial)][trial.seed] = outcome
    return dict(known)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One answer of a policy."""

    add: tuple[TrialConfig, ...] = ()
    """Trials to train in this round."""
    stop: Mapping[str, str] = field(default_factory=dict)
    """Trial -> why it need not go on."""
    until: Mapping[str, int] = field(default_factory=dict)
    """Trial -> the epoch that it is trained to, until the next decision; the others to their last."""
    over: bool = False
    """Nothing more will be added."""
    reason: str = ""
    """Why, in a sentence or a few, for people; empty where there is nothing to be said."""

    def to_json(self) -> dict[str, Any]:
        """Returns the decision as plain JSON values; `from_json` is the way back."""
        return {
            "add": [trial.to_json() for trial in self.add],
            "stop": dict(self.stop),
            "over": self.over,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Decision:
        """Returns the decision that `to_json` described.

        Raises:
            InputError: A field is unknown.
        """
        known = ("add", "stop", "over", "reason")
        if unknown := sorted(set(values) - set(known)):
            raise InputError(f"unknown fields of a decision {unknown}; known: {list(known)}")
        return cls(**{**values, "add": tuple(TrialConfig.from_json(trial) for trial in values.get("add", ()))})


class Prospects(Protocol):
    """What lies ahead, as far as a policy can tell."""

    def said(self, seconds: float | None) -> str:
        """Returns it for people.

        Args:
            seconds: What an epoch takes, divided by how many train at once; None where that is not known.
        """


class Policy(Protocol):
    """Decides what to train next."""

    @property
    def eager(self) -> bool:
        """Whether it may be asked at any time, and does not take back what it has decided when more is known."""

    @property
    def policy_id(self) -> str | None:
        """What its decisions are stored under: a hash of what it compares, and how; None if they need not be stored."""

    def decide(self, known: Results) -> Decision:
        """Returns what to do next, given all results there are; asked when all that was asked for has ended."""

    def ordered(self, trials: Iterable[TrialConfig]) -> list[TrialConfig]:
        """Returns trials in the order of the tables, which depends on nothing but the trials."""

    def to_json(self) -> Mapping[str, Any] | None:
        """Returns what a report has to know of it as plain JSON values; None for nothing."""

    def outlook(self, known: Results) -> Prospects | None:
        """Returns what lies ahead, by what is known; None if there is nothing to be said."""

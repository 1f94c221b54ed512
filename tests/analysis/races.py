"""Races with made-up results: the real policy decides, nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from synthetic import Synthetic, handmade_sweep

from analysis.loading import SweepData, combine
from analysis.schema import DECISION_COLUMNS, polars_schema
from analysis.store import SweepStore
from sweeps.policies import Outcome, Race
from sweeps.policies.policy import results
from workloads.trial import TrialConfig

Train = Callable[[TrialConfig], float | None]
"""Trial -> its final validation accuracy; None if it diverges."""


@dataclass(frozen=True)
class Played:
    """A race that has been run."""

    policy: Race
    sweep: Synthetic
    decisions: pl.DataFrame
    known: tuple[tuple[TrialConfig, Outcome], ...]
    """The trials that have ended."""

    @property
    def data(self) -> SweepData:
        """The race as the statistics see it."""
        return combine([self.sweep.parts], decisions=[self.decisions])

    def write(self, storage_path: str) -> SweepStore:
        """Writes it below a storage path, as a sweep does."""
        store = self.sweep.write(storage_path)
        store.append_decisions(self.decisions.to_dicts())
        return store


def play(policy: Race, train: Train, *, rounds: int | None = None, name: str = "race") -> Played:
    """Returns a race.

    Args:
        policy: Who races, and how.
        train: What comes out.
        rounds: How many decisions are carried out before all that the next one asks for is left pending; None for all.
        name: Of the sweep.
    """
    ended: dict[TrialConfig, Outcome] = {}
    pending: Sequence[TrialConfig] = ()
    rows = []
    while not rows or not rows[-1]["over"]:
        decision = policy.decide(results(ended.items()))
        add = json.dumps([trial.to_json() for trial in decision.add])
        rows.append(
            {"policy": policy.policy_id, "number": len(rows), "over": decision.over, "reason": decision.reason}
            | {"add": add, "stop": "{}"}
        )
        if rounds is not None and len(rows) > rounds:
            pending = decision.add
            break
        for trial in decision.add:
            value = train(trial)
            ended[trial] = Outcome(value=value, diverged=value is None)
    accuracies = {
        trial: ("pending", ()) if trial in pending else _record(ended[trial])
        for trial in policy.ordered([*ended, *pending])
    }
    sweep = handmade_sweep(accuracies, name=name)
    spec = replace(sweep.spec, race=policy.to_json(), care=policy.care)
    decisions = pl.DataFrame(rows, schema=polars_schema(DECISION_COLUMNS))
    return Played(policy, replace(sweep, spec=spec), decisions, tuple(ended.items()))


def _record(outcome: Outcome) -> tuple[str, tuple[float, ...]]:
    return ("diverged", (0.1,)) if outcome.value is None else ("completed", (0.5, outcome.value))


def noisy(means: dict[TrialConfig, float], deviation: float = 0.004) -> Train:
    """Returns results that scatter around means, the same for the same trial every time."""
    place = {one.replace(seed=0): index for index, one in enumerate(means)}

    def train(trial: TrialConfig) -> float:
        one = trial.replace(seed=0)
        own = np.random.default_rng((trial.seed, place[one])).normal()
        return float(np.clip(means[one] + deviation * own, 0, 1))

    return train


def racers(optimizers: Iterable[str], lrs: Iterable[float], **others: object) -> tuple[TrialConfig, ...]:
    """Returns configurations of two epochs."""
    lrs = tuple(lrs)
    return tuple(
        TrialConfig(optimizer=optimizer, lr=lr, epochs=2, seed=0, **others)  # type: ignore[arg-type]
        for optimizer in optimizers
        for lr in lrs
    )

"""Training functions that only sleep, and runs of them through the real path: Ray, Tune, the fork tree, records."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console

from analysis.store import SweepSpec, SweepStore
from sweeps.ledger.ledger import Ledger
from sweeps.sharing.tree import Delivery, ForkTree
from sweeps.tuning.driver import Run
from sweeps.tuning.execution import run_tree
from sweeps.tuning.placement import Placement
from sweeps.tuning.session import ray_session, slots
from sweeps.watching.progress import Progress
from workloads.optimizers import OPTIMIZERS
from workloads.registry import dataset_of, resolve
from workloads.training import State, build_model
from workloads.trial import EpochRecord, TrialConfig

MEASURES = ("lr", "lr_last", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy")


def trials_without_sharing(count: int, epochs: int) -> list[TrialConfig]:
    """Returns trials that differ in their seeds, so that none is shared."""
    return [resolve(TrialConfig(seed=seed, epochs=epochs)) for seed in range(count)]


def sleeping(seconds: float, *, saves: bool) -> Callable[..., Iterator[EpochRecord]]:
    """Returns a training function that sleeps, and saves a state of real size after every epoch if it is to."""

    def train(
        config: TrialConfig, *, save: Callable[[State], None], start: State | None = None, **_: object
    ) -> Iterator[EpochRecord]:
        model = build_model(config)
        optimizer = OPTIMIZERS[config.optimizer].build(model, config.lr, config.optimizer_settings)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        history = list(start.history) if start else []
        for epoch in range(len(history) + 1, config.epochs + 1):
            time.sleep(seconds)
            record = EpochRecord(
                trial_id=config.trial_id,
                epoch=epoch,
                computed_by=config.trial_id,
                function_evaluations=0,
                train_seconds=seconds,
                eval_seconds=0.0,
                **dict.fromkeys(MEASURES, 0.5),  # type: ignore[arg-type]
            )
            history.append(record)
            if saves:
                state = optimizer.state_dict()["state"]
                save(State(config=config, model=model.state_dict(), optimizer=state, history=tuple(history)))
            yield record

    return train


@dataclass(frozen=True)
class Times:
    """When things happened, in seconds since the run began."""

    at_once: int
    """Trainings at the same time."""
    records: tuple[float, ...]
    """When each record came in."""
    session: float
    """Starting Ray."""
    run: float
    """All of it, from starting Ray to its end."""


def run(trials: Sequence[TrialConfig], store: SweepStore, train: Callable[..., Iterator[EpochRecord]]) -> Times:
    """Runs trials on a Ray of their own, or on the one that is there."""
    datasets = {trial.workload: dataset_of(trial).name for trial in trials}
    store.write_spec(
        SweepSpec(name=store.name, question="", command="", trials=tuple(trials), datasets=datasets, fingerprint={})
    )
    ledger = _TimedLedger(store, trials)
    tree = ForkTree(ledger.members())
    assert list(tree.walk_known()) == []
    placement = Placement()
    began = time.perf_counter()
    with ray_session(placement), Progress(Console(file=io.StringIO()), {}) as progress:
        session = time.perf_counter() - began
        at_once = slots(placement)
        run_tree(Run(tree, ledger, placement, progress), train=train)
    assert ledger.counts() == {"completed": len(trials)}
    return Times(
        at_once=at_once,
        records=tuple(moment - began for moment in ledger.moments),
        session=session,
        run=time.perf_counter() - began,
    )


class _TimedLedger(Ledger):
    """A ledger that knows when records came in."""

    def __init__(self, store: SweepStore, trials: Sequence[TrialConfig]) -> None:
        super().__init__(store, trials)
        self.moments: list[float] = []

    def deliver(self, delivery: Delivery, *arguments: object) -> None:  # type: ignore[override]
        self.moments.append(time.perf_counter())
        super().deliver(delivery, *arguments)  # type: ignore[arg-type]

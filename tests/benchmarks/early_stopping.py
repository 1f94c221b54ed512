"""Searches that stop early, for real: ours with halving beside Ray Tune with ASHA, on the same draws.

    python -m tests.benchmarks.early_stopping [--seeds 5] [--images 3200]

Both train the same trials (the same draws, `--sampler-seed` 0, 1, ...) with the same training function and data, two at
once, so that only the orchestration differs. ASHA (Li et al. 2020, arXiv:1810.05934) stops trials as they come, at the
same rungs, and starts every epoch of every trial itself. Reported are all epochs that were trained and the time of the
whole run; the epochs until the first one whose validation accuracy is that of the worse of the two best; and the best
accuracies. Prints a table and writes `tests/benchmarks/results/early_stopping.json`. About 15 minutes on 2 cores.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from sweeps import Sweep, run
from sweeps.question.keywords import options_of
from sweeps.question.sweep import plan
from tests.benchmarks import figures
from workloads.registry import data_of, dataset_of
from workloads.trial import Diverged, EpochRecord, TrialConfig

EPOCHS = 9
SEARCHES: Mapping[str, dict[str, Any]] = {
    "schedules under shared rates": {
        "optimizers": "sgd_momentum",
        "schedulers": ("none", "step", "exponential", "plateau"),
        "lrs": "1e-3..0.3",
        "trials": 9,
    },
    "optimizers": {"optimizers": ("sgd_momentum", "adam"), "schedulers": "none", "trials": 18},
}
"""What is searched -> the flags that say so."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one way of searching took and found."""

    search: str
    side: str
    sampler_seed: int
    seconds: float
    accuracies: tuple[float, ...]
    """Validation accuracy of every epoch that was trained, in the order in which they ended."""


def keywords_of(search: str, sampler_seed: int, images: int) -> dict[str, Any]:
    """Returns a search as `run` takes it."""
    small = {"epochs": EPOCHS, "train_limit": images, "sampler_seed": sampler_seed}
    return SEARCHES[search] | small | {"stop_early": "halving"}


def ours(search: str, sampler_seed: int, images: int) -> Side:
    """Searches as a user does from Python."""
    sweep = Sweep(name="early", question="Which settings?")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = run(sweep, storage_path=folder, preflight=False, **keywords_of(search, sampler_seed, images))
        seconds = time.perf_counter() - started
        records = result.store.read_epochs()
    trained = records.filter(records["computed_by"] == records["trial_id"])
    values = tuple(trained["val_accuracy"].to_list())
    return Side(search=search, side="ours, halving", sampler_seed=sampler_seed, seconds=seconds, accuracies=values)


def trials_of(search: str, sampler_seed: int, images: int) -> Sequence[TrialConfig]:
    """Returns the trials of a search, in the order of its draws, groups in turns."""
    sweep = Sweep(name="early", question="Which settings?")
    found = plan(sweep, options_of(sweep.default_options(), keywords_of(search, sampler_seed, images))).trials
    groups: dict[tuple[str, str], list[TrialConfig]] = {}
    for trial in found:
        groups.setdefault((trial.optimizer, trial.scheduler), []).append(trial)
    return [trial for row in zip(*groups.values(), strict=False) for trial in row]


def with_asha(search: str, sampler_seed: int, images: int) -> Side:
    """Trains the same trials under Ray Tune's ASHA, with checkpoints as its tutorials have them."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    from sweeps.tuning.placement import Placement
    from sweeps.tuning.session import ray_session

    trials = trials_of(search, sampler_seed, images)
    started = time.perf_counter()
    with ray_session(Placement(), num_cpus=2), tempfile.TemporaryDirectory() as folder:
        data = data_of(dataset_of(trials[0]))
        order = Path(folder) / "order"
        order.touch()
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_train, data=data, order=str(order)), {"cpu": 1}),
            param_space={"trial": tune.grid_search([json.dumps(trial.to_json()) for trial in trials])},
            tune_config=tune.TuneConfig(
                metric="val_accuracy",
                mode="max",
                scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=3),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(name="asha", storage_path=folder, verbose=0),
        )
        tuner.fit()
        values = tuple(float(line) for line in order.read_text().splitlines())
    seconds = time.perf_counter() - started
    return Side(search=search, side="Tune, ASHA", sampler_seed=sampler_seed, seconds=seconds, accuracies=values)


def _train(config: dict[str, Any], data: Any, order: str) -> None:
    import torch
    from ray import tune

    from workloads.training import Images, State, train

    states: list[State] = []
    trial = TrialConfig.from_json(json.loads(config["trial"]))
    records = train(trial, images=Images(data, torch.device("cpu")), save=states.append)
    while (record := _next(records)) is not None:
        with open(order, "a") as file:  # noqa: PTH123 - appended to by several processes, a line at a time
            file.write(f"{record.val_accuracy}\n")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "state.pt").write_bytes(states.pop().to_bytes())
            checkpoint = tune.Checkpoint.from_directory(folder)
            tune.report({"val_accuracy": record.val_accuracy}, checkpoint=checkpoint)


def _next(records: Iterator[EpochRecord]) -> EpochRecord | None:
    """Returns the next record; none where a trial has ended or diverged, which is a result and no failure."""
    with contextlib.suppress(Diverged):
        return next(records, None)
    return None


SIDES = (ours, with_asha)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Searches with early stopping: ours and Ray Tune's ASHA."""

    seeds: int = 5
    """Sampler seeds: as many searches of each kind."""
    images: int = 3200
    """Training images."""


def measure(seeds: int, images: int, searches: Sequence[str] = tuple(SEARCHES)) -> list[Side]:
    """Runs both sides in turns."""
    return [side(search, seed, images) for search in searches for seed in range(seeds) for side in SIDES]


def _until(side: Side, target: float) -> int:
    return next(number for number, value in enumerate(side.accuracies, 1) if value >= target)


def table(measured: figures.Rows) -> figures.Table:
    """Returns medians over sampler seeds; ratios are those of the same seed."""
    sides = [Side(**{**row, "accuracies": tuple(row["accuracies"])}) for row in measured]
    rows, notes = [], []
    for search in dict.fromkeys(side.search for side in sides):
        pairs: dict[int, dict[str, Side]] = {}
        for side in sides:
            if side.search == search:
                pairs.setdefault(side.sampler_seed, {})[side.side] = side
        targets = {seed: min(max(one.accuracies) for one in pair.values()) for seed, pair in pairs.items()}
        names = list(next(iter(pairs.values())))
        for name in names:
            mine = [(pair[name], targets[seed]) for seed, pair in pairs.items()]
            rows.append(
                (
                    f"{search}: {name}",
                    f"{statistics.median(len(one.accuracies) for one, _ in mine):g}",
                    f"{statistics.median(_until(one, target) for one, target in mine):g}",
                    f"{statistics.median(one.seconds for one, _ in mine):.0f}",
                    f"{statistics.median(max(one.accuracies) for one, _ in mine):.4f}",
                )
            )
        first, second = names
        ratio = [
            (len(pair[second].accuracies) / len(pair[first].accuracies), pair[second].seconds / pair[first].seconds)
            for pair in pairs.values()
        ]
        until = [_until(pair[second], targets[s]) / _until(pair[first], targets[s]) for s, pair in pairs.items()]
        epochs, seconds = (statistics.median(values) for values in zip(*ratio, strict=True))
        notes.append(
            f"{search}: {second} trains {epochs:.2f} x the epochs of {first}, {statistics.median(until):.2f} x until "
            f"both have the same best accuracy, and takes {seconds:.2f} x the time."
        )
    columns = ("search", "epochs trained", "until the same best", "seconds", "best val accuracy")
    return figures.Table(columns, rows, notes)


def main() -> None:
    """Measures, prints a table and writes the raw numbers."""
    arguments = tyro.cli(Arguments, config=(tyro.conf.FlagCreatePairsOff,))
    measured = [asdict(side) for side in measure(arguments.seeds, arguments.images)]
    table(measured).show()
    figures.write("early_stopping", vars(arguments), measured)


if __name__ == "__main__":
    main()

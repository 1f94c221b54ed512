"""Made-up sweeps of any size that look like real ones: for tests, pictures and benchmarks. Nothing is trained.

A learning rate has an optimum for each optimizer: far below it training is slow, above it the loss stays higher, far
above it the trial diverges. Lowering the rate lowers the loss that can be reached. Trials with equal learning rates so
far have equal records so far, and the first of them computed them, as in a real sweep.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from analysis.loading import SweepData, combine
from analysis.schema import EPOCH_COLUMNS, STATUS_COLUMNS, polars_schema
from analysis.store import SweepSpec, SweepStore
from workloads.measure import Measure
from workloads.trial import Setting, TrialConfig

OPTIMA: dict[str, float] = {
    "sgd": 0.1,
    "momentum": 0.02,
    "rmsprop": 0.001,
    "adam": 0.002,
    "adamw": 0.002,
    "nadam": 0.001,
}
"""Optimizer -> the learning rate it likes best here; any other name likes 0.01."""

LRS: tuple[float, ...] = (0.0001, 0.001, 0.01, 0.1, 1.0)
PLATEAU_SETTINGS: tuple[dict[str, Setting], ...] = tuple(
    {"factor": factor, "patience": patience, "threshold": threshold}
    for factor, patience, threshold in itertools.product((0.1, 0.3, 0.5), (1, 2, 5, 10), (1e-4, 1e-3, 1e-2, 1e-1))
)
"""The grid of the default plateau sweep."""


MAE = Measure(name="mean absolute error", higher_is_better=False, least=0.0)
"""A measure of a regression: lower is better."""


@dataclass(frozen=True)
class Synthetic:
    """A made-up sweep as the store would hold it."""

    spec: SweepSpec
    epochs: pl.DataFrame
    statuses: pl.DataFrame

    @property
    def parts(self) -> tuple[SweepSpec, pl.DataFrame, pl.DataFrame]:
        """Spec, records and statuses, as `combine` takes them."""
        return self.spec, self.epochs, self.statuses

    @property
    def data(self) -> SweepData:
        """The sweep as the statistics see it."""
        return combine([self.parts])

    def measured(self, measure: Measure, of: Callable[[pl.Expr], pl.Expr], *, train: bool = True) -> Synthetic:
        """Returns the sweep as one of another measure.

        Args:
            measure: What its configurations are ranked by.
            of: Accuracy -> value of that measure.
            train: Whether it is known on the training examples, too.
        """
        known = [name for name in ("train_accuracy", "val_accuracy", "test_accuracy") if train or name[:5] != "train"]
        epochs = self.epochs.with_columns(train_accuracy=pl.col("train_accuracy") if train else pl.lit(None, float))
        measures = dict.fromkeys(self.spec.datasets, measure)
        epochs = epochs.with_columns(of(pl.col(name)).alias(name) for name in known)
        return replace(self, spec=replace(self.spec, measures=measures), epochs=epochs)

    def write(self, storage_path: str) -> SweepStore:
        """Writes spec, records and statuses below a storage path, as a sweep does."""
        store = SweepStore(storage_path, self.spec.name)
        store.write_spec(self.spec)
        store._append("epochs", self.epochs)
        store._append("statuses", self.statuses)
        return store


def synthetic_sweep(
    name: str = "synthetic",
    *,
    optimizers: Sequence[str] = ("sgd", "momentum", "rmsprop", "adam"),
    schedulers: Mapping[str, Sequence[Mapping[str, Setting]]] | Sequence[str] = ("none",),
    lrs: Sequence[float] = LRS,
    seeds: Sequence[int] = (21,),
    epochs: int = 10,
    test_every_epoch: bool = False,
    finished: float = 1.0,
    failed: Sequence[int] = (),
    seed_deviation: float = 0.0025,
    random_seed: int = 0,
) -> Synthetic:
    """Returns a sweep over optimizers x schedulers x settings x lrs x seeds (the seed changes fastest).

    Args:
        name: Name of the sweep.
        optimizers: Names of optimizers.
        schedulers: Names of schedules (`none`, `step`, `exponential`, `cosine`, `time_based`, `plateau`), or each with
            its settings.
        lrs: Initial learning rates.
        seeds: Seeds.
        epochs: Epochs of each trial.
        test_every_epoch: Whether every record has test metrics, or only the last.
        finished: The share of the trials that have ended; the next one is half-way, the others have not begun.
        failed: Positions of trials that failed half-way.
        seed_deviation: Standard deviation of the accuracy from seed to seed.
        random_seed: Decides the noise.
    """
    grid = schedulers if isinstance(schedulers, Mapping) else {scheduler: ({},) for scheduler in schedulers}
    trials = tuple(
        TrialConfig(
            optimizer=optimizer,
            scheduler=scheduler,
            scheduler_settings=settings,
            lr=lr,
            seed=seed,
            epochs=epochs,
            test_every_epoch=test_every_epoch,
        )
        for optimizer in optimizers
        for scheduler, several in grid.items()
        for settings in several
        for lr in lrs
        for seed in seeds
    )
    return synthetic_records(name, trials, finished, failed, seed_deviation, random_seed)


def synthetic_plateau(name: str = "plateau", *, seeds: Sequence[int] = (21,), epochs: int = 30) -> Synthetic:
    """Returns a sweep over the plateau settings, as `sweeps/plateau.py` asks by default."""
    return synthetic_sweep(
        name,
        optimizers=("momentum",),
        schedulers={"plateau": PLATEAU_SETTINGS},
        lrs=(0.02,),
        seeds=seeds,
        epochs=epochs,
    )


def synthetic_cuts(
    name: str = "cuts", *, seeds: Sequence[int] = (1, 2, 3), epochs: int = 10, optimizers: Sequence[str] = ("momentum",)
) -> Synthetic:
    """Returns a sweep of cuts and a few plateau settings, as `sweeps/cuts.py` asks by default."""
    return synthetic_sweep(
        name,
        optimizers=optimizers,
        schedulers={
            "none": ({},),
            "cut": [{"factor": f, "after_epoch": after} for f in (0.1, 0.3) for after in range(1, epochs, 2)],
            "plateau": [{"factor": f, "patience": patience} for f in (0.1, 0.3) for patience in (1, 2)],
        },
        lrs=(0.02,),
        seeds=seeds,
        epochs=epochs,
    )


def synthetic_of_size(trials: int, *, seeds: int = 5, epochs: int = 30) -> Synthetic:
    """Returns a sweep of exactly so many trials, none diverging: optimizers x schedules x rates x seeds, cut off."""
    schedulers = ("none", "step", "exponential", "cosine", "time_based")
    optimizers = (*OPTIMA, "adagrad", "adamax", "radam", "asgd")
    num_lrs = -(-trials // (len(optimizers) * len(schedulers) * seeds))
    sweep = [
        TrialConfig(optimizer=optimizer, scheduler=scheduler, lr=float(f"{lr:.4g}"), seed=seed, epochs=epochs)
        for lr in np.geomspace(1e-4, 0.02, num_lrs)
        for optimizer in optimizers
        for scheduler in schedulers
        for seed in range(seeds)
    ]
    return synthetic_records(f"trials{trials}", tuple(sweep[:trials]))


def handmade_sweep(
    results: Mapping[TrialConfig, tuple[str, Sequence[float]]],
    name: str = "handmade",
    fingerprint: str = "a",
    tests: bool = True,
) -> Synthetic:
    """Returns a sweep from the status and the validation accuracy of every epoch of its trials.

    Of each epoch, training accuracy is 0.02 higher, test accuracy 0.1 lower; the validation loss is 1 - accuracy, the
    test loss 0.1 higher, the training loss half of it.

    Args:
        results: Trial -> its status and accuracies.
        name: Name of the sweep.
        fingerprint: Digest of the code that is pretended to have run.
        tests: Whether there are test metrics.
    """
    spec = SweepSpec(
        name=name,
        question="Which?",
        command=f"python {name}.py",
        trials=tuple(results),
        datasets={trial.workload: f"{trial.workload} images" for trial in results},
        fingerprint={"code": fingerprint, "torch": "2"},
    )
    records = [
        {
            "sweep": name,
            "trial_id": trial.trial_id,
            "epoch": epoch,
            "lr": trial.lr,
            "train_loss": (1 - accuracy) / 2,
            "train_accuracy": accuracy + 0.02,
            "val_loss": 1 - accuracy,
            "val_accuracy": accuracy,
            "test_loss": 1.1 - accuracy if tests else None,
            "test_accuracy": accuracy - 0.1 if tests else None,
            "computed_by": trial.trial_id,
        }
        for trial, (_, accuracies) in results.items()
        for epoch, accuracy in enumerate(accuracies, 1)
    ]
    statuses = [
        {"sweep": name, "trial_id": trial.trial_id, "status": status, "epochs_run": len(accuracies)}
        for trial, (status, accuracies) in results.items()
        if status != "pending"
    ]
    return Synthetic(
        spec,
        pl.DataFrame(records, schema=polars_schema(EPOCH_COLUMNS)),
        pl.DataFrame(statuses, schema=polars_schema(STATUS_COLUMNS)),
    )


def synthetic_records(
    name: str,
    trials: tuple[TrialConfig, ...],
    finished: float = 1.0,
    failed: Sequence[int] = (),
    seed_deviation: float = 0.0025,
    random_seed: int = 0,
) -> Synthetic:
    """Returns a sweep of given trials with made-up records; arguments as of `synthetic_sweep`."""
    rng = np.random.default_rng(random_seed)
    horizon = max(trial.epochs for trial in trials)
    optimum = np.array([OPTIMA.get(trial.optimizer, 0.01) for trial in trials])
    rate = np.array([trial.lr for trial in trials])
    _, seed_index = np.unique([trial.seed for trial in trials], return_inverse=True)
    seed_luck = rng.normal(0, seed_deviation, seed_index.max() + 1)[seed_index]

    ids = np.unique(
        [f"{t.workload} {t.optimizer} {t.optimizer_settings} {t.seed}" for t in trials], return_inverse=True
    )[1]
    loss = np.full(len(trials), 2.3)
    luck = np.zeros(len(trials))
    best, bad = loss.copy(), np.zeros(len(trials), dtype=int)
    columns: dict[str, list[np.ndarray]] = {key: [] for key in ("lr", "train_loss", "val_loss", "val_accuracy", "by")}
    plateau = _PlateauSettings(trials)
    closed_form = np.stack([_closed_form(trial, horizon) for trial in trials])
    for epoch in range(horizon):
        lr = rate * closed_form[:, epoch]
        _, ids = np.unique(np.stack([ids, np.unique(lr, return_inverse=True)[1]]), axis=1, return_inverse=True)
        _, first = np.unique(ids, return_index=True)
        ratio = lr / optimum
        floor = 0.12 + 0.06 * np.minimum(ratio, 20) + 0.02 * np.exp(-epoch / 8)
        loss = floor + (np.maximum(loss, floor) - floor) * np.exp(-0.9 * np.minimum(ratio, 1) ** 0.4)
        luck = 0.8 * luck + rng.normal(0, 0.6 * seed_deviation, len(trials))[first][ids]
        val_loss = loss + 0.1 + 0.004 * epoch * (0.4 - np.minimum(loss, 0.4)) / 0.4 - 4 * (luck + seed_luck)
        accuracy = np.clip(0.1 + 0.85 * np.exp(-0.23 * loss) + luck + seed_luck, 0.1, 1)
        for key, values in zip(columns, (lr, loss, val_loss, accuracy, first[ids]), strict=True):
            columns[key].append(values)
        better = loss < best * (1 - plateau.threshold)
        best, bad = np.where(better, loss, best), np.where(better, 0, bad + 1)
        falls = plateau.active & (bad > plateau.patience)
        rate, bad = np.where(falls, rate * plateau.factor, rate), np.where(falls, 0, bad)

    planned = np.array([trial.epochs for trial in trials])
    num_finished = int(finished * len(trials))
    status = np.where(np.arange(len(trials)) < num_finished, "completed", "pending").astype(object)
    run = np.where(status == "completed", planned, 0)
    run[num_finished : num_finished + 1] = planned[num_finished : num_finished + 1] // 2
    explodes = np.array([trial.lr for trial in trials]) / optimum > 30
    status[explodes & (status == "completed")] = "diverged"
    run = np.where(explodes, np.minimum(run, 1), run)
    status[list(failed)] = "failed"
    run[list(failed)] //= 2
    records = _frame(name, trials, {key: np.stack(several, axis=1) for key, several in columns.items()}, run, status)
    ended = [i for i in range(len(trials)) if status[i] != "pending"]
    errors = {"diverged": "train_loss became infinite in epoch 2", "failed": "WorkerCrashedError: the worker died"}
    statuses = pl.DataFrame(
        [
            {
                "sweep": name,
                "trial_id": trials[i].trial_id,
                "status": status[i],
                "epochs_run": int(run[i]),
                "error": errors.get(status[i]),
            }
            for i in ended
        ],
        schema=polars_schema(STATUS_COLUMNS),
    )
    spec = SweepSpec(
        name=name,
        question="Which made-up trial is best?",
        command=f"python sweeps/{name}.py",
        trials=trials,
        datasets={trial.workload: trial.workload.removeprefix("lenet_") for trial in trials},
        fingerprint={"code": "synthetic", "torch": "none"},
        provenance={"git_commit": "0" * 40},
    )
    return Synthetic(spec, records, statuses)


class _PlateauSettings:
    """The plateau settings of all trials as arrays."""

    def __init__(self, trials: Sequence[TrialConfig]) -> None:
        def column(key: str, default: float) -> np.ndarray:
            return np.array([trial.scheduler_settings.get(key, default) for trial in trials], dtype=float)

        self.active = np.array([trial.scheduler == "plateau" for trial in trials])
        self.factor, self.patience, self.threshold = (
            column("factor", 0.3),
            column("patience", 2),
            column("threshold", 0.1),
        )


def _closed_form(trial: TrialConfig, horizon: int) -> np.ndarray:
    epoch = np.arange(horizon)
    schedules = {
        "step": 0.5 ** (epoch // max(1, trial.epochs // 3)),
        "exponential": 0.9**epoch,
        "cosine": 0.5 * (1 + np.cos(np.pi * np.minimum(epoch, trial.epochs) / trial.epochs)),
        "time_based": 1 / (1 + 0.5 * epoch),
        "cut": np.where(
            epoch >= trial.scheduler_settings.get("after_epoch", trial.epochs // 2),
            trial.scheduler_settings.get("factor", 0.1),
            1.0,
        ),
    }
    return schedules.get(trial.scheduler, np.ones(horizon))


def _frame(
    name: str, trials: Sequence[TrialConfig], columns: Mapping[str, np.ndarray], run: np.ndarray, status: np.ndarray
) -> pl.DataFrame:
    num, horizon = columns["lr"].shape
    epoch = np.tile(np.arange(1, horizon + 1), num)
    keep = epoch <= np.repeat(run, horizon)
    planned = np.repeat([trial.epochs for trial in trials], horizon)
    tested = (epoch == planned) | np.repeat([trial.test_every_epoch for trial in trials], horizon)
    ids = np.array([trial.trial_id for trial in trials])
    flat = {key: values.reshape(-1) for key, values in columns.items()}
    accuracy = flat["val_accuracy"]
    frame = pl.DataFrame(
        {
            "sweep": np.full(len(epoch), name),
            "trial_id": np.repeat(ids, horizon),
            "epoch": epoch,
            "lr": flat["lr"],
            "lr_last": flat["lr"],
            "train_loss": flat["train_loss"],
            "train_accuracy": np.round(55_000 * (0.1 + 0.85 * np.exp(-0.2 * flat["train_loss"]))) / 55_000,
            "val_loss": flat["val_loss"],
            "val_accuracy": np.round(5_000 * accuracy) / 5_000,
            "test_loss": flat["val_loss"] + 0.02,
            "test_accuracy": np.round(10_000 * (accuracy - 0.005)) / 10_000,
            "function_evaluations": np.full(len(epoch), 860),
            "train_seconds": np.full(len(epoch), 6.0),
            "eval_seconds": np.full(len(epoch), 0.25),
            "computed_by": ids[flat["by"]],
        }
    )
    frame = frame.with_columns(
        pl.when(pl.lit(tested)).then(pl.col(metric)).alias(metric) for metric in ("test_loss", "test_accuracy")
    )
    schema = polars_schema(EPOCH_COLUMNS)
    # What is measured of some trials only (clipping, imbalance) is null.
    frame = frame.with_columns(pl.lit(None).alias(column) for column in schema if column not in frame.columns)
    return frame.filter(pl.lit(keep)).select(pl.col(column).cast(type_) for column, type_ in schema.items())

"""The command line, the same for every sweep script: one dataclass, one flag a field."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from tyro.conf import arg

Keep = Literal["none", "final", "best", "all"]
StopEarly = Literal["none", "halving", "median"]
LogTo = Literal["tensorboard", "mlflow"]


def _flag(metavar: str | None = None, default: str | None = None) -> Any:
    """Returns how `--help` shows a flag: the name of its value, and its default in words where it is no value."""
    return arg(metavar=metavar, help_behavior_hint=f"(default: {default})" if default else None)


def _switch(default: str) -> Any:
    """Returns how `--help` shows a flag without a value: what happens without it."""
    return arg(help_behavior_hint=f"(without it: {default})")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a sweep. Flags that take several values take them with spaces or commas: `--lrs 0.01 0.1`."""

    name: Annotated[str, _flag("NAME")]
    """Name of the sweep: its results are a folder of that name."""
    storage_path: Annotated[str, _flag("PATH")] = "results"
    """Where sweeps are kept: a folder, or a URI (s3://bucket/folder, gs://...)."""
    epochs: Annotated[int | None, _flag("N")] = None
    """Passes over the training examples."""
    seeds: Annotated[tuple[int, ...] | None, _flag("N [N ...]")] = None
    """Train every configuration once with each of these seeds; intervals need at least 2, better 5."""
    more_seeds: Annotated[int, _flag("N")] = 0
    """Add that many seeds to --seeds: 1, 2, 3, ... as far as they are not among them."""
    batch_size: Annotated[int | None, _flag("N")] = None
    """Examples per training step."""
    optimizers: Annotated[tuple[str, ...] | None, _flag("NAME [NAME ...]")] = None
    """Optimizers to compare; 'all' for every one there is."""
    lrs: Annotated[tuple[str, ...] | None, _flag("LR [LR ...]", "the sweep's, or each optimizer's own grid")] = None
    """Learning rates, for all optimizers (0.01 0.1) or for one of them (adam=0.001,0.003), or ranges (1e-4..0.1)."""
    more_lrs: Annotated[tuple[str, ...], _flag("LR [LR ...]", "none")] = ()
    """Learning rates to add to --lrs or to the optimizers' own grids, written in the same way."""
    schedulers: Annotated[tuple[str, ...] | None, _flag("NAME [NAME ...]")] = None
    """Learning-rate schedules to compare; 'all' for every one there is."""
    grid: Annotated[tuple[str, ...], _flag("AXIS=VALUES [AXIS=VALUES ...]", "none")] = ()
    """More axes: any setting (optimizer.weight_decay=0,1e-4) or field of a trial (lr=0.01,0.1)."""
    dataset: Annotated[str | None, _flag("NAME", "fashion_mnist")] = None
    """Data set to train LeNet on, e.g. mnist or cifar10; csv:PATH for your own images."""
    data_root: Annotated[str, _flag("PATH")] = "data"
    """Where data sets are; what is missing there is downloaded to it."""
    train_limit: Annotated[int | None, _flag("N", "all")] = None
    """Train on the first N training examples only."""
    test_every_epoch: Annotated[bool, _switch("only after the last")] = False
    """Evaluate the test examples after every epoch."""

    trials: Annotated[int | None, _flag("N", "the grid")] = None
    """Search: draw N times from the space of each optimizer and schedule: from ranges, and what is not given."""
    sampler: Annotated[str | None, _flag("{sobol,random,tpe}", "sobol")] = None
    """With --trials: how draws are spread; tpe goes by results, and needs Optuna."""
    sampler_seed: Annotated[int | None, _flag("N", "0")] = None
    """With --trials: another number, other draws."""

    stop_early: StopEarly = "none"
    """Of each optimizer and schedule, only the best third goes on after 1/9, then 1/3 of the epochs (halving), or the
    better half after each quarter (median)."""

    decide: Annotated[bool, _switch("every configuration gets the same seeds")] = False
    """Give more seeds only to configurations that could still be the best, until that is decided; all begin with 3."""
    then_decide: Annotated[bool, _switch("what is found is not raced")] = False
    """Then race the best of each optimizer and schedule, on seeds that were not searched with."""
    care: Annotated[float | None, _flag("X", "every difference matters")] = None
    """The smallest difference in accuracy (or what else you rank by) that matters to you, e.g. 0.003: closer ones are
    practically equal."""
    max_seeds: Annotated[int | None, _flag("N", "30")] = None
    """With --decide or --then-decide: at most that many seeds for a configuration."""
    hours: Annotated[float | None, _flag("X", "as long as it takes")] = None
    """With them: start nothing that would end later than that many hours after the start of this run."""

    cpus_per_trial: Annotated[float, _flag("X")] = 1.0
    """CPU cores of a trial. Its number of threads follows from it, and the last bits from those."""
    gpus_per_trial: Annotated[float, _flag("X")] = 0.0
    """GPUs of a trial: 0.25 puts four trials on one GPU."""
    max_concurrent: Annotated[int | None, _flag("N", "as many as there is room for")] = None
    """At most N trials at once."""
    address: Annotated[str | None, _flag("ADDRESS", "a Ray of its own on this machine, or the job's")] = None
    """Ray cluster to run on, from one of its nodes: 'auto' or HOST:PORT."""
    dashboard: Annotated[bool, _switch("no dashboard")] = False
    """Start Ray's dashboard too and print its address, which takes a few seconds; a cluster has its own."""
    notify: Annotated[str | None, _flag("URL", "nobody is told")] = None
    """Post a small JSON there when the first trial fails and when the sweep ends."""
    cudnn_benchmark: Annotated[bool, _switch("it does not")] = False
    """Let cuDNN try which algorithm is fastest: the choice, and so the last bits, may differ from run to run."""
    cudnn_deterministic: Annotated[bool, _switch("only those that give the same bits every time")] = True
    """Let cuDNN use all its algorithms."""
    tf32: Annotated[bool, _switch("all bits of a number count")] = False
    """Let GPUs round what they multiply to 10 bits (TF32), which is faster on those that can."""

    keep_checkpoints: Keep = "final"
    """Which weights stay when a trial is complete: none, the final ones, the final and the best, or all."""
    log: Annotated[tuple[LogTo, ...], _flag("{tensorboard,mlflow}", "none")] = ()
    """Write every trial to TensorBoard or MLflow too, while the sweep runs (optional packages)."""
    preflight: Annotated[bool, _switch("a second's check of data and network")] = True
    """Start without checking data and network on one batch."""

    allow_inexact: Annotated[bool, _switch("then such a sweep is refused")] = False
    """Share epochs even if a network of your own gives other numbers when trained again."""
    traceback: Annotated[bool, _switch("one line")] = False
    """Show the whole traceback of an error in your own file."""

    plan: Annotated[bool, _switch("train")] = False
    """Print what would be trained and about how long it would take, and exit."""
    share: Annotated[bool, _switch("epochs that trials share are trained once, for the same numbers")] = True
    """Train every trial alone."""
    fresh: Annotated[bool, _switch("nothing stored is ever lost")] = False
    """Start over: delete everything stored under this name."""
    retry_failed: Annotated[bool, _switch("they stay failed")] = False
    """Run trials again that failed or ran out of memory."""
    fail_fast: Annotated[bool, _switch("the others go on")] = False
    """Stop at the first trial that fails; the same command goes on with the rest."""
    trial_timeout: Annotated[float | None, _flag("SECONDS", "never")] = None
    """End a training as failed if an epoch takes longer than that."""
    smoke_test: Annotated[bool, _switch("the sweep in full size")] = False
    """Try the whole path in under a minute: 2 epochs (3 with --stop-early) on 1,920 examples, under NAME-smoke-test."""


SMOKE_TEST = {"epochs": 2, "train_limit": 1920}
"""What `--smoke-test` makes of a sweep, whatever flags and `--grid` say."""
SMOKE_TEST_SEEDS = 4
"""Of a race, at most so many seeds, unless `--max-seeds` says otherwise."""
SMOKE_TEST_STOPPING = {"epochs": 3}
"""With fewer, nothing could be stopped early."""


def in_small(options: Options) -> Options:
    """Returns the options of a smoke test of what is asked for."""
    grid = tuple(text for text in options.grid if text.partition("=")[0].strip() not in SMOKE_TEST)
    small: dict[str, Any] = dict(SMOKE_TEST) | (
        {"max_seeds": options.max_seeds or SMOKE_TEST_SEEDS} if options.decide or options.then_decide else {}
    )
    small |= SMOKE_TEST_STOPPING if options.stop_early != "none" else {}
    return replace(options, **small, grid=grid, name=f"{options.name}-smoke-test")

"""The command line, the same for every sweep script: one dataclass, one flag a field."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a sweep. Flags that name several values take them after one another: `--lrs 0.01 0.1`."""

    name: str
    """Folder of the results, below the storage path."""
    storage_path: str = "results"
    """Where sweeps are kept: a folder, or a URI that pyarrow knows (s3://bucket/folder, gs://...)."""
    epochs: int | None = None
    """Passes over the training images."""
    seeds: tuple[int, ...] | None = None
    """Every configuration is trained once with each; intervals need at least two, better five."""
    batch_size: int | None = None
    """Images per training step."""
    optimizers: tuple[str, ...] | None = None
    """Rows of the optimizer table; 'all' for the whole table."""
    lrs: tuple[float, ...] | None = None
    """Learning rates; None: each optimizer's own grid."""
    schedulers: tuple[str, ...] | None = None
    """Rows of the schedule table; 'all' for the whole table."""
    grid: tuple[str, ...] = ()
    """More axes, each NAME=VALUE,VALUE: any setting (optimizer.weight_decay=0,1e-4) or field (lr=0.01,0.1)."""
    train_limit: int | None = None
    """Train on the first that many training images (quick looks)."""
    test_every_epoch: bool = False
    """Evaluate the test images after every epoch, not only after the last."""

    cpus_per_trial: float = 1.0
    """CPU cores, and so threads, of a trial; results are bitwise comparable only at equal numbers of threads."""
    gpus_per_trial: float = 0.0
    """GPUs of a trial: 0.25 puts four trials on one."""
    max_concurrent: int | None = None
    """At most that many trials at once; None: as many as there is room for."""
    address: str | None = None
    """Ray cluster to run on ('auto', 'ray://...'); None: a local Ray of its own, or the cluster a job runs in."""
    cudnn_benchmark: bool = False
    """Let cuDNN try which algorithm is fastest (the choice, and so the last bits, may differ from run to run)."""
    cudnn_deterministic: bool = True
    """Let cuDNN use only algorithms that give the same bits every time."""

    plan: bool = False
    """Print what would run and how long it would take, and exit."""
    share: bool = True
    """Train epochs that trials share once; --no-share trains every trial alone, with the same numbers."""
    fresh: bool = False
    """Start over: delete what the sweep has stored under this name. Otherwise it goes on where it stopped."""
    retry_failed: bool = False
    """Run trials again that failed."""
    fail_fast: bool = False
    """Stop at the first trial that fails; the rest is cancelled, and the same command goes on with it."""
    trial_timeout: float | None = None
    """Seconds after which a training that finished no epoch is ended as failed; None: never."""
    smoke_test: bool = False
    """The whole path in under a minute: 2 epochs on 1,920 images, results under NAME-smoke-test."""

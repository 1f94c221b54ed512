"""The command line, the same for every sweep script: one dataclass, one flag a field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

Keep = Literal["none", "final", "best", "all"]
LogTo = Literal["tensorboard", "mlflow"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a sweep. Flags that name several values take them with spaces or commas: `--lrs 0.01 0.1`."""

    name: Annotated[str, arg(metavar="NAME")]
    """Folder of the results, below the storage path."""
    storage_path: Annotated[str, arg(metavar="PATH")] = "results"
    """Where sweeps are kept: a folder, or a URI that pyarrow knows (s3://bucket/folder, gs://...)."""
    epochs: Annotated[int | None, arg(metavar="N")] = None
    """Passes over the training images."""
    seeds: Annotated[tuple[int, ...] | None, arg(metavar="N [N ...]")] = None
    """Every configuration is trained once with each; intervals need at least two, better five."""
    more_seeds: Annotated[int, arg(metavar="N")] = 0
    """That many seeds more than --seeds says: 1, 2, 3, ... without those it names."""
    batch_size: Annotated[int | None, arg(metavar="N")] = None
    """Images per training step."""
    optimizers: Annotated[tuple[str, ...] | None, arg(metavar="NAME [NAME ...]")] = None
    """Rows of the optimizer table; 'all' for the whole table."""
    lrs: Annotated[tuple[str, ...] | None, arg(metavar="X [X ...]")] = None
    """Learning rates, for all optimizers (0.01 0.1) or for one (adam=0.001,0.003); None: each optimizer's own grid."""
    more_lrs: Annotated[tuple[str, ...], arg(metavar="X [X ...]")] = ()
    """Learning rates besides those of --lrs or of the optimizers' own grids, written like them."""
    schedulers: Annotated[tuple[str, ...] | None, arg(metavar="NAME [NAME ...]")] = None
    """Rows of the schedule table; 'all' for the whole table."""
    grid: Annotated[tuple[str, ...], arg(metavar="AXIS [AXIS ...]")] = ()
    """More axes, each NAME=VALUE,VALUE: any setting (optimizer.weight_decay=0,1e-4) or field (lr=0.01,0.1)."""
    dataset: Annotated[str | None, arg(metavar="NAME")] = None
    """Data set to train LeNet on, e.g. mnist, cifar10; csv:PATH for your own images, a CSV of file names and labels."""
    data_root: Annotated[str, arg(metavar="PATH")] = "data"
    """Where downloaded data sets are; what is missing there is downloaded to it."""
    train_limit: Annotated[int | None, arg(metavar="N")] = None
    """Train on the first that many training images (quick looks)."""
    test_every_epoch: bool = False
    """Evaluate the test images after every epoch, not only after the last."""

    cpus_per_trial: Annotated[float, arg(metavar="X")] = 1.0
    """CPU cores, and so threads, of a trial; results are bitwise comparable only at equal numbers of threads."""
    gpus_per_trial: Annotated[float, arg(metavar="X")] = 0.0
    """GPUs of a trial: 0.25 puts four trials on one."""
    max_concurrent: Annotated[int | None, arg(metavar="N")] = None
    """At most that many trials at once; None: as many as there is room for."""
    address: Annotated[str | None, arg(metavar="ADDR")] = None
    """Ray cluster to run on, from one of its nodes ('auto', HOST:PORT); None: a local Ray, or the job's."""
    dashboard: bool = False
    """Start Ray's dashboard with a local Ray and print its address (a few seconds more); a cluster has its own."""
    notify: Annotated[str | None, arg(metavar="URL")] = None
    """Post a small JSON there when the first trial fails and when the sweep ends."""
    cudnn_benchmark: bool = False
    """Let cuDNN try which algorithm is fastest (the choice, and so the last bits, may differ from run to run)."""
    cudnn_deterministic: bool = True
    """Let cuDNN use only algorithms that give the same bits every time; --no-cudnn-deterministic admits all."""

    keep_checkpoints: Keep = "final"
    """Which weights stay when a trial is complete: none, the final ones, final and best, or those of all epochs."""
    log: Annotated[tuple[LogTo, ...], arg(metavar="{tensorboard,mlflow}")] = ()
    """Write every trial to TensorBoard or MLflow too, while the sweep runs (optional packages)."""
    preflight: bool = True
    """Check data and network on one batch before the sweep starts, which takes a second or two."""

    plan: bool = False
    """Print what would run and how long it would take, and exit."""
    share: bool = True
    """Epochs that trials share are trained once; --no-share trains every trial alone, for the same numbers."""
    fresh: bool = False
    """Start over: delete everything stored under this name. Without it nothing stored is ever lost."""
    retry_failed: bool = False
    """Run trials again that failed or ran out of memory."""
    fail_fast: bool = False
    """Stop at the first trial that fails; the rest is cancelled, and the same command goes on with it."""
    trial_timeout: Annotated[float | None, arg(metavar="SECONDS")] = None
    """Seconds after which a training that finished no epoch is ended as failed; None: never."""
    smoke_test: bool = False
    """The whole path in under a minute: 2 epochs on 1,920 images, results under NAME-smoke-test."""

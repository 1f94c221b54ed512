"""What each trial is granted, and on which Ray."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from sweeps.question.options import Options
from workloads.errors import InputError
from workloads.training import Hardware


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What each trial gets, and where; the fields are described in `sweeps.question.options`."""

    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int | None = None
    address: str | None = None
    dashboard: bool = False
    cudnn_benchmark: bool = False
    cudnn_deterministic: bool = True
    tf32: bool = False
    trial_timeout: float | None = None

    @property
    def is_here(self) -> bool:
        """Whether trials train on the cores of this very machine, so that this process can tell how they train."""
        return self.gpus_per_trial == 0 and self.address is None and not in_ray_job()

    def hardware(self) -> Hardware:
        """Returns what a worker may use."""
        return Hardware(
            gpu=self.gpus_per_trial > 0,
            threads=max(1, int(self.cpus_per_trial)),
            gpu_memory_fraction=self.gpus_per_trial if 0 < self.gpus_per_trial < 1 else None,
            cudnn_benchmark=self.cudnn_benchmark,
            cudnn_deterministic=self.cudnn_deterministic,
            tf32=self.tf32,
        )


def placement_of(options: Options) -> Placement:
    """Returns what each trial gets.

    Raises:
        InputError: The flags are out of range, or ask for more than this machine has.
    """
    for flag, value, allowed in (
        ("--cpus-per-trial", options.cpus_per_trial, "0 or more"),
        ("--gpus-per-trial", options.gpus_per_trial, "0 or more"),
        ("--max-concurrent", options.max_concurrent, "1 or more"),
        ("--trial-timeout", options.trial_timeout, "1 or more"),
    ):
        if value is not None and not float(allowed[0]) <= value < float("inf"):
            raise InputError(f"{flag} must be {allowed}, not {value:g}")
    if options.gpus_per_trial > 1:
        raise InputError(
            f"--gpus-per-trial must be at most 1, not {options.gpus_per_trial:g}: a trial trains on one GPU, and "
            "others would be idle"
        )
    if not options.gpus_per_trial:
        for field, flag in _OF_GPUS.items():
            if getattr(options, field) != getattr(Placement, field):
                raise InputError(f"{flag} has no effect on the CPU: leave it out, or add --gpus-per-trial")
    if options.address is None and not in_ray_job():
        for flag, wanted, there, what in (
            ("--cpus-per-trial", options.cpus_per_trial, usable_cores(), "CPU cores"),
            ("--gpus-per-trial", options.gpus_per_trial, usable_gpus(), "GPUs"),
        ):
            if wanted > there:
                apples = f" ({_APPLES})" if what == "GPUs" and torch.backends.mps.is_available() else ""
                raise InputError(f"{flag} {wanted:g} asks for more than this machine has: {there} {what}{apples}")
    return Placement(**{name: getattr(options, name) for name in Placement.__dataclass_fields__})


_OF_GPUS = {
    "cudnn_benchmark": "--cudnn-benchmark",
    "cudnn_deterministic": "--no-cudnn-deterministic",
    "tf32": "--tf32",
}
"""What says how a GPU computes -> its flag."""
_APPLES = "those of Apple are not used: leave the flag out to train on the CPU"


def in_ray_job() -> bool:
    """Whether this process was submitted to a Ray cluster, which it should then use."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def check_storage_path(options: Options) -> None:
    """Refuses a place for results that goes away with the job this is.

    Raises:
        InputError: It is relative, and so below the folder into which Ray unpacked the job.
    """
    path = options.storage_path
    if in_ray_job() and "://" not in path and not Path(path).expanduser().is_absolute():
        raise InputError(
            f"--storage-path {path!r} is below the job's working folder, which is deleted when the job ends: give an "
            "absolute folder or a URI that all nodes see, such as s3://bucket/folder"
        )


def fitting(resource: str, there: float, wanted: float) -> int:
    """Returns how many trials fit on what a node has of a resource.

    Args:
        resource: "CPU" or "GPU": what a trial gets of a GPU is of a single one.
        there: What the node has.
        wanted: What a trial gets, more than 0.
    """
    if resource == "GPU" and wanted < 1:
        return int(there + _ROUNDING) * int(1 / wanted + _ROUNDING)
    return int(there / wanted + _ROUNDING)


_ROUNDING = 1e-9


def slices() -> int:
    """Returns how many slices of GPUs (MIG) this process may use; 0 where GPUs are whole."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return sum(name.strip().startswith("MIG-") for name in visible)


def usable_gpus() -> int:
    """Returns the GPUs this process may use; slices count as such, though CUDA shows a process only the first."""
    return slices() or torch.cuda.device_count()


def usable_cores() -> int:
    """Returns the CPU cores this process may use: those of the machine that affinity and control groups leave it."""
    return max(1, min([_cores_of_process(), *(math.floor(quota + 1e-9) for quota in cpu_quotas())]))


def _cores_of_process() -> int:
    if hasattr(os, "process_cpu_count"):  # since Python 3.13
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quotas(root: Path = Path("/")) -> Iterator[float]:
    """Yields how many cores' time this process's control groups grant it, for each that sets a limit.

    Args:
        root: Where `proc` and `sys` are.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        folder = base / path.strip("/")
        # Limits hold for all groups below; in a container, where the path is the host's, the base is its own group.
        for place in {folder, *folder.parents, base}:
            if place == base or base in place.parents:
                yield from _quota(place)


def _quota(group: Path) -> Iterator[float]:
    """Yields the limit of a control group, of version 2 or 1, if it has one."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        if quota not in ("max", "-1"):
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return

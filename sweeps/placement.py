"""What each trial is granted, and on which Ray."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sweeps.options import Options
from workloads.training import Hardware


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What each trial gets, and where; the fields are described in `sweeps.options`."""

    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int | None = None
    address: str | None = None
    dashboard: bool = False
    cudnn_benchmark: bool = False
    cudnn_deterministic: bool = True
    trial_timeout: float | None = None

    @classmethod
    def of(cls, options: Options) -> Placement:
        """Returns the placement that a command line asks for."""
        return cls(**{name: getattr(options, name) for name in cls.__dataclass_fields__})

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
        )


def in_ray_job() -> bool:
    """Whether this process was submitted to a Ray cluster, which it should then use."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ

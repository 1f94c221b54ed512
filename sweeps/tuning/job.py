"""What the driver tells a worker."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from analysis.store import Checkpoint
from workloads.training import Hardware
from workloads.trial import TrialConfig


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is told: train this path, from the best checkpoint there is."""

    config: TrialConfig
    known: int
    """Epochs the driver has records for."""
    ancestors: tuple[Checkpoint, ...]
    """Checkpoints of other paths to start from, the best first."""
    test_epochs: tuple[int, ...]
    storage_path: str
    name: str
    run: str
    """What tells this run of the sweep from every other."""
    hardware: Hardware
    gpus: float | None
    """GPUs it was granted; None on the CPU."""
    until: int | None = None
    """The epoch after which to end; None for the trial's last."""
    machine: str | None = None
    """What `probe_machine` has to come to there; None where it is the driver's own machine."""
    device: str | None = None
    """The kind of device that it has to be (`workloads.fingerprint.device`); None as before."""
    timeout: float | None
    """Seconds an epoch may take, without what the worker waits for others."""

    def to_json(self) -> str:
        """Returns the job as text: Tune flattens, copies and logs anything richer."""
        return json.dumps(asdict(self) | {"config": self.config.to_json()})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Returns the job that `to_json` described."""
        values = json.loads(text)
        values["config"] = TrialConfig.from_json(values["config"])
        values["ancestors"] = tuple(Checkpoint(**checkpoint) for checkpoint in values["ancestors"])
        values["test_epochs"] = tuple(values["test_epochs"])
        values["hardware"] = Hardware(**values["hardware"])
        return cls(**values)

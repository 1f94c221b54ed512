"""How trials would train, found where they will: on a node of the cluster, with what a trial is granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ray
from ray.exceptions import RayTaskError

from sweeps.tuning.errors import PlacementError
from sweeps.tuning.placement import Placement
from sweeps.tuning.travel import own_code_travels
from workloads.errors import InputError
from workloads.fingerprint import Probes, probe
from workloads.registry import WORKLOADS, WorkloadRow, added_workloads
from workloads.training import Hardware
from workloads.trial import TrialConfig


def probe_there(trials: Sequence[TrialConfig], placement: Placement) -> Probes:
    """Probes the trials in a worker of the Ray that is there; waits for a node if the cluster has to start one.

    Raises:
        InputError: The trials cannot be with what a worker has there.
        PlacementError: A worker cannot compute on the device that it is granted.
    """
    look = ray.remote(num_cpus=placement.cpus_per_trial, num_gpus=placement.gpus_per_trial)(_probe)
    with own_code_travels():
        asked = look.remote(list(trials), placement.hardware(), added_workloads())
    try:
        found: Probes = ray.get(asked)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, InputError):
            raise InputError(str(cause)) from None
        if isinstance(cause, RuntimeError):
            raise PlacementError(_refusal(str(cause))) from None
        raise
    return found


_HELP: Mapping[str, str] = {
    "no kernel image": "this build of torch has no kernels for the architecture of that GPU: install one that has",
    "driver": "update the driver, or install a build of torch for its version of CUDA",
}
"""What torch says -> what to do."""


def _refusal(reason: str) -> str:
    line = reason.strip().partition("\n")[0]
    advice = next((f"; {what}" for words, what in _HELP.items() if words in reason), "")
    return f"a worker cannot compute on what it is granted: {line}{advice}"


def _probe(trials: Sequence[TrialConfig], hardware: Hardware, added: Mapping[str, WorkloadRow]) -> Probes:
    WORKLOADS.update(added)
    return probe(trials, hardware)

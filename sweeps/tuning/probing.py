"""How trials would train, found where they will: on a node of the cluster, with what a trial is granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ray

from sweeps.tuning.placement import Placement
from sweeps.tuning.travel import own_code_travels
from workloads.fingerprint import Probes, probe
from workloads.registry import WORKLOADS, WorkloadRow, added_workloads
from workloads.training import Hardware
from workloads.trial import TrialConfig


def probe_there(trials: Sequence[TrialConfig], placement: Placement) -> Probes:
    """Probes the trials in a worker of the Ray that is there; waits for a node if the cluster has to start one."""
    look = ray.remote(num_cpus=placement.cpus_per_trial, num_gpus=placement.gpus_per_trial)(_probe)
    with own_code_travels():
        asked = look.remote(list(trials), placement.hardware(), added_workloads())
    found: Probes = ray.get(asked)
    return found


def _probe(trials: Sequence[TrialConfig], hardware: Hardware, added: Mapping[str, WorkloadRow]) -> Probes:
    WORKLOADS.update(added)
    return probe(trials, hardware)

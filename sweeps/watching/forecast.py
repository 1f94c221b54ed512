"""What a sweep would train, and about how long it takes: printed before the start, and all that `--plan` does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch

from analysis.store import SweepSpec
from sweeps.ledger.ledger import Ledger
from sweeps.sharing.tree import apart, count_epochs
from sweeps.tuning.placement import Placement, fitting, usable_cores, usable_gpus
from workloads.console import counted, duration
from workloads.training import Hardware, seconds_per_epoch
from workloads.trial import FAILED_STATUSES, TrialConfig

START_SECONDS = 15.0
"""What a sweep takes besides its epochs: Ray and its workers start, tables and report are written. On two cores it is
10 s with nothing else to do, 25 s on a busy machine."""
MEASURE_SECONDS = 60.0
"""What measuring an epoch in a process of its own may take."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is ahead of a sweep."""

    trials: int
    trial_epochs: int
    """Epochs of all trials, as if each trained alone."""
    done: int
    """Trials that have their answer from before."""
    failed: int
    """Trials that failed before, and are not to be run again."""
    taken_over: Mapping[str, int]
    """Other sweep -> trials whose records come from it."""
    left_out: Mapping[str, int]
    """Reason -> combinations that make no sense."""
    least: int
    """Epochs to train if no metric-driven schedule ever acts: what is known beforehand."""
    most: int
    """Epochs to train if metric-driven schedules share nothing."""
    pausing: bool = False
    """Whether it is decided on the way which trials go on."""
    seconds: float | None
    """What an epoch takes, divided by how many train at once; None where it cannot be measured on this machine."""

    def lines(self) -> list[str]:
        """Returns the forecast for people."""
        found = [f"{_trials(self.trials)}, {counted(self.trial_epochs, 'trial-epoch')}"]
        found += [f"left out: {count} x {reason}" for reason, count in self.left_out.items()]
        if self.done:
            found.append(f"done before: {_trials(self.done)}")
        found += [f"taken over from {sweep}: {_trials(count)}" for sweep, count in self.taken_over.items()]
        if self.failed:
            found.append(f"failed before: {_trials(self.failed)} (--retry-failed runs them again)")
        if self.most == 0:
            return [*found, "nothing to train" if self.failed else "everything is done: nothing to train"]
        to_train = "epochs to train until it is decided which go on" if self.pausing else "epochs to train"
        if self.least == self.most:
            return [*found, f"{to_train}: {self.least:,}{self._time(', about ', self.least)}"]
        return [
            *found,
            f"{to_train}: at least {self.least:,}, at most {self.most:,} (schedules that watch a metric fork "
            f"when it says so){self._time(', ', self.least)}{self._time(' to ', self.most)}",
        ]

    def _time(self, before: str, epochs: int) -> str:
        return "" if self.seconds is None else f"{before}{duration(START_SECONDS + epochs * self.seconds)}"


def _trials(count: int) -> str:
    return counted(count, "trial")


def forecast(
    spec: SweepSpec, ledger: Ledger, taken_over: Mapping[str, int], placement: Placement, *, share: bool
) -> Forecast:
    """Returns what is ahead.

    Args:
        spec: What was asked.
        ledger: What is known.
        taken_over: Other sweep -> trials taken over from it.
        placement: What each trial gets.
        share: Whether trials share training.
    """
    left = ledger.open
    failed = sum(count for status, count in ledger.counts().items() if status in FAILED_STATUSES)
    members, stored = ledger.members(), ledger.checkpoints
    ids = [trial.trial_id for trial in spec.trials]
    hardware = placement.hardware()
    seconds = None
    if left:
        alone = in_own_process(left[0], hardware) if hardware.gpu else _measured(left[0], hardware)
        seconds = None if alone is None else alone / min(_lanes(placement), len(left))
    return Forecast(
        trials=len(spec.trials),
        trial_epochs=sum(trial.epochs for trial in spec.trials),
        done=max(0, sum(map(ledger.has_result, ids)) - sum(taken_over.values())),
        failed=failed,
        taken_over=taken_over,
        left_out=spec.left_out,
        least=count_epochs(members, share=share, checkpoints=stored),
        pausing=bool(ledger.until),
        most=count_epochs(apart(members, ledger.metric_driven), share=share, checkpoints=stored),
        seconds=seconds,
    )


def _measured(trial: TrialConfig, hardware: Hardware) -> float | None:
    try:
        return seconds_per_epoch(trial, hardware)
    except Exception:  # noqa: BLE001 - a network that raises fails its trial, which says why
        return None


def in_own_process(trial: TrialConfig, hardware: Hardware) -> float | None:
    """Returns `seconds_per_epoch` from a process of its own, None where it cannot be measured.

    In this one, the GPU's context would stay, with hundreds of megabytes of its memory, until the sweep ends.
    """
    if hardware.gpu and not torch.cuda.is_available():  # a cluster's driver may lack the GPUs of its nodes
        return None
    code = (
        "import json, sys; from workloads.training import Hardware, seconds_per_epoch; "
        "from workloads.trial import TrialConfig; told = json.load(sys.stdin); "
        "print(seconds_per_epoch(TrialConfig.from_json(told['trial']), Hardware(**told['hardware'])))"
    )
    told = json.dumps({"trial": trial.to_json(), "hardware": asdict(hardware)})
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            input=told,
            env=env,
            capture_output=True,
            text=True,
            timeout=MEASURE_SECONDS,
        )
        return float(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):  # a row that only the script knows, no memory, ...
        return None


def _lanes(placement: Placement) -> int:
    """Returns how many trials train at once on this machine (a cluster's size is known only once Ray runs)."""
    # However little of a core a training asks for, it keeps one busy.
    lanes = [int(usable_cores() / max(1.0, placement.cpus_per_trial))]
    if placement.gpus_per_trial > 0:
        lanes.append(fitting("GPU", usable_gpus(), placement.gpus_per_trial))
    if placement.max_concurrent is not None:
        lanes.append(placement.max_concurrent)
    return max(1, min(lanes))

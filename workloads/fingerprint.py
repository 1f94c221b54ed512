"""Fingerprints of what determines a trial's numbers: trials with equal fingerprints are comparable.

A changed comment, commit or processor does not by itself mean different numbers, so none of these is part of it.
Instead, a *probe* runs what training runs: a few steps of the trial's network, loss and optimizer on made-up images, an
evaluation, and the values the schedule applies. Its results are compared bit for bit. They differ on another type of
machine, with another number of threads, or after a code change that affects the numbers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from workloads.datasets import DATA_ROOT, SIZE, Dataset
from workloads.optimizers import OPTIMIZERS
from workloads.own_data import OwnData, OwnDataset
from workloads.registry import WORKLOADS, WorkloadRow, dataset_of, steps_per_epoch
from workloads.schedulers import SCHEDULERS, UNSCHEDULED, Trace
from workloads.training import Hardware, Images, State, train
from workloads.trial import (
    CLOCK_FIELDS,
    LEFT_TO_SEED,
    RECORDED_LATER,
    TEST_FIELDS,
    TrialConfig,
    canonical_json,
    digest,
)

STEPS = 3
"""Training steps of a probe."""
BATCH = 64
"""Images in each of them."""
MOST_STEPS = 50
"""Maximum steps per epoch in the trace of a schedule that steps every batch."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What determines a trial's numbers."""

    data: str
    """Digest of the data set."""
    device: str
    """Kind of device: with the number of threads, or the GPU's model and how it computes."""
    machine: str
    """Digest of a probe common to all trials: differs between types of machine and, usually, versions of torch."""
    training: str
    """Digest of the trial's own probe."""

    def to_json(self) -> dict[str, str]:
        """Returns the fingerprint as plain values."""
        return dataclasses.asdict(self)

    def difference(self, stored: Mapping[str, str]) -> str | None:
        """Returns why a stored trial is not comparable, as a phrase after "trained"; None if it is comparable."""
        for name, value in self.to_json().items():
            if name != "machine" and stored.get(name) != value:
                break
        else:
            return None
        if stored.get("data") != self.data:
            return "on different data"
        if stored.get("device") != self.device:
            return f"on {stored.get('device')}, now {self.device}"
        if stored.get("machine") != self.machine:
            return "on another type of machine or with another version of torch (the same steps give different bits)"
        return "with different code: that of the network, optimizer, schedule or training has changed since"


class Probed(NamedTuple):
    """What the process that trains a trial, or one like it, finds: fields of its fingerprint."""

    device: str
    machine: str
    training: str


Probes = Mapping[str, Probed]
"""Trial id -> what was found."""


def fingerprints(
    trials: Iterable[TrialConfig], hardware: Hardware, data_root: Path = DATA_ROOT, probed: Probes | None = None
) -> dict[str, Fingerprint]:
    """Returns the fingerprint each trial would have if trained now, by trial id.

    Args:
        trials: The trials, with all settings filled in.
        hardware: The hardware of each trial.
        data_root: The folder of downloaded data sets.
        probed: The result of `probe` on the machines that will train the trials; None probes in this process.

    Raises:
        DataError: A data set's files are missing.
    """
    trials = tuple(trials)
    probed = probe(trials, hardware) if probed is None else probed
    rows = {row.name: row for row in map(dataset_of, trials)}
    data = {name: row.digest(data_root) for name, row in rows.items()}
    found = {}
    for trial in trials:
        there = probed[trial.trial_id]._asdict()
        found[trial.trial_id] = Fingerprint(data=data[dataset_of(trial).name], **there)
    return found


def probe(trials: Iterable[TrialConfig], hardware: Hardware) -> Probes:
    """Trains a few steps of each distinct kind of trial in this process; takes about 10 ms per kind of ours."""
    here, machine = device(hardware), probe_machine(hardware)
    return {
        trial.trial_id: Probed(
            here, machine, digest(_probe(_kind(trial), hardware, row) + _trace(_schedule(trial), row))
        )
        for trial in trials
        for row in (WORKLOADS[trial.workload],)
    }


@cache
def probe_machine(hardware: Hardware) -> str:
    """Returns the digest of a few training steps in plain torch: convolutions, a linear layer, a loss."""
    random = np.random.default_rng(0)
    threads = torch.get_num_threads()
    try:
        device = hardware.apply()
        shapes = ((BATCH, 1, SIZE, SIZE), (6, 1, 5, 5), (16, 6, 5, 5), (10, 400))
        normal = (random.standard_normal(shape, dtype=np.float32) * np.float32(0.1) for shape in shapes)
        images, *weights = (torch.from_numpy(values).to(device).requires_grad_() for values in normal)
        labels = torch.arange(BATCH, device=device) % 10
        for _ in range(STEPS):
            hidden = images
            for kernel in weights[:2]:
                hidden = functional.relu(functional.max_pool2d(functional.conv2d(hidden, kernel), 2))
            loss = functional.cross_entropy(functional.linear(hidden.flatten(1), weights[2]), labels)
            gradients = torch.autograd.grad(loss, weights)
            weights = [(w - 0.1 * g).detach().requires_grad_() for w, g in zip(weights, gradients, strict=True)]
        results = [weight.detach().cpu().numpy().tobytes() for weight in weights]
    finally:
        torch.set_num_threads(threads)
    return digest(b"".join(results))


def common(trials: Iterable[TrialConfig], found: Mapping[str, Fingerprint]) -> dict[str, Any]:
    """Returns what determines the numbers of all trials, for display and to compare sweeps.

    Args:
        trials: The trials.
        found: Their fingerprints; trials without one are skipped.
    """
    known = [(dataset_of(trial).name, found[trial.trial_id]) for trial in trials if trial.trial_id in found]
    return {
        "data": dict(sorted({name: print_.data for name, print_ in known}.items())),
        "device": known[0][1].device if known else None,
        "machine": known[0][1].machine if known else None,
    }


def device(hardware: Hardware) -> str:
    """Describes the kind of device that this process trains on, with its settings that affect the numbers.

    Raises:
        RuntimeError: torch finds no GPU that it can use, or none at all.
    """
    if not hardware.gpu:
        return f"cpu, {hardware.threads} thread{'s' if hardware.threads > 1 else ''}"
    benchmark, only = hardware.cudnn_benchmark, hardware.cudnn_deterministic
    settings = {"cudnn benchmark": benchmark, "deterministic": only, "TF32": hardware.tf32}
    return ", ".join(["cuda", _gpu(), *(f"{name} {'on' if value else 'off'}" for name, value in settings.items())])


def _gpu() -> str:
    """Describes the first visible GPU and the libraries that choose its kernels: what else decides the last bits."""
    seen = torch.cuda.get_device_properties(0)
    runtime = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    kind = f"{seen.name} {seen.major}.{seen.minor} with {seen.multi_processor_count} multiprocessors"
    cudnn: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return f"{kind}, {runtime}, cuDNN {cudnn}"


def hardware_of(described: str) -> Hardware:
    """Returns the hardware that `device` described so."""
    kind, _, rest = described.partition(", ")
    if kind == "cpu":
        return Hardware(threads=int(rest.partition(" ")[0]))
    return Hardware(
        gpu=True,
        cudnn_benchmark="benchmark on" in rest,
        cudnn_deterministic="deterministic on" in rest,
        tf32="TF32 on" in rest,
    )


def _kind(trial: TrialConfig) -> str:
    """Returns what a probe depends on: everything except schedule, length, seed and learning rate."""
    plain = TrialConfig()
    probed = trial.replace(
        scheduler=UNSCHEDULED,
        scheduler_settings={},
        lr=OPTIMIZERS[trial.optimizer].lrs[0],
        batch_size=min(trial.batch_size, BATCH),
        epochs=1,
        seed=plain.seed,
        train_limit=_probed_examples(trial),
        test_every_epoch=False,
        per_image=False,
        **LEFT_TO_SEED,
    )
    return canonical_json(probed.to_json())


def _probed_examples(trial: TrialConfig) -> int:
    """Returns how many examples a probe trains on; of a user's own data there may be fewer."""
    source = dataset_of(trial)
    return len(source.sample.parts["train"]) if isinstance(source, OwnData) else STEPS * BATCH


def _schedule(trial: TrialConfig) -> str:
    """Returns what the trace of a trial's schedule depends on, as JSON."""
    plain = trial.replace(seed=TrialConfig().seed, test_every_epoch=False, per_image=False, **LEFT_TO_SEED)
    return canonical_json(plain.to_json())


@cache
def _probe(kind: str, hardware: Hardware, row: WorkloadRow) -> str:
    """Returns the digest of the results of a few training steps of a kind of trial, whose workload has that row."""
    config = TrialConfig.from_json(json.loads(kind))
    threads, states = torch.get_num_threads(), list[State]()
    try:
        images = Images(_made_up(config), hardware.apply())
        record = next(train(config, images=images, hardware=hardware, save=states.append))
    except Exception as error:  # noqa: BLE001 - the trial itself will raise and report the same error
        return digest(f"{type(error).__name__}: {error}")
    finally:
        torch.set_num_threads(threads)
    # Test images are evaluated like validation images, so a probe leaves them out.
    measured = {
        name: value
        for name, value in record.to_json().items()
        if name not in (*TEST_FIELDS, *RECORDED_LATER, *CLOCK_FIELDS, "trial_id", "computed_by")
    }
    whole = hashlib.sha256(repr(sorted(measured.items())).encode())
    for name, tensor in sorted(states[0].model.items()):
        whole.update(name.encode())
        whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


def _made_up(config: TrialConfig) -> Dataset | OwnDataset:
    """Returns noise in the shape of a trial's data set; of a user's own data a sample, as they may be anything."""
    row = dataset_of(config)
    if isinstance(row, OwnData):
        return row.sample
    random = np.random.default_rng(0)
    train, val, count = STEPS * BATCH, 2 * BATCH, (STEPS + 4) * BATCH
    return Dataset(
        name=row.name,
        images=random.standard_normal((count, row.channels, SIZE, SIZE), dtype=np.float32),
        labels=np.arange(count, dtype=np.int64) % len(row.classes),
        train=train,
        val=val,
        classes=row.classes,
        digest="",
    )


@cache
def _trace(schedule: str, row: WorkloadRow) -> str:
    """Returns the digest of the values that a schedule applies, given made-up metrics."""
    config = TrialConfig.from_json(json.loads(schedule))
    steps = steps_per_epoch(config)
    if SCHEDULERS[config.scheduler].steps_on == "batch":
        steps = min(steps, MOST_STEPS)
    values: list[Any] = []
    try:
        trace = Trace(config, steps)
        for epoch in range(1, config.epochs + 1):
            values.append(trace.next_epoch())
            # Improves for a third of the epochs, then stalls, so that plateau schedules act.
            metric = 1 / min(epoch, 1 + config.epochs // 3)
            trace.observe(dict.fromkeys(("train_loss", "val_loss"), metric) | {"val_accuracy": 1 - metric})
    except Exception as error:  # noqa: BLE001 - as in a probe
        values.append(f"{type(error).__name__}: {error}")
    return digest(repr(values))

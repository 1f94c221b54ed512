"""Where numbers come from: what decides them (the fingerprint) and what else is good to know."""

from __future__ import annotations

import datetime
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import workloads
from workloads.datasets import DATA_ROOT
from workloads.registry import dataset_of
from workloads.training import Hardware
from workloads.trial import TrialConfig, digest

ROOT = Path(workloads.__file__).parent
PACKAGES = ("torch", "torchvision", "ray", "numpy", "polars", "pyarrow", "scipy")


def fingerprint(trials: Iterable[TrialConfig], hardware: Hardware, data_root: Path = DATA_ROOT) -> dict[str, Any]:
    """Returns what decides the numbers of a trial: with all of it equal, results are bitwise comparable.

    Args:
        trials: The trials.
        hardware: What each is granted.
        data_root: Where downloaded data sets are.

    Raises:
        DataError: A data set's files are missing.
    """
    rows = {row.name: row for row in map(dataset_of, trials)}
    data = {name: row.digest(data_root) for name, row in rows.items()}
    return {
        "code": code_digest(),
        "data": dict(sorted(data.items())),
        "torch": torch.__version__,
        "device": "cuda" if hardware.gpu else f"cpu, {hardware.threads} thread{'s' if hardware.threads > 1 else ''}",
        "cudnn": [hardware.cudnn_benchmark, hardware.cudnn_deterministic] if hardware.gpu else None,
    }


def code_digest() -> str:
    """Returns the hash of the source of `workloads`: what a trial is."""
    sources = [f"{path.relative_to(ROOT)}\n{digest(path.read_bytes(), 64)}" for path in sorted(ROOT.rglob("*.py"))]
    return digest("\n".join(sources))


def provenance() -> dict[str, Any]:
    """Returns commit, versions, machine and time, for people who ask later."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "machine": {"system": platform.platform(), "processor": _processor()},
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _git(*arguments: str) -> str | None:
    """Returns what git says of the project's checkout, or None where there is none."""
    command = ["git", "-C", str(ROOT.parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")

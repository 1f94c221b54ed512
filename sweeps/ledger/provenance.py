"""Where numbers come from, for people who ask later: commit, code, versions, machine. Nothing is decided by it."""

from __future__ import annotations

import datetime
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import workloads
from workloads.trial import digest

ROOT = Path(workloads.__file__).parent
PACKAGES = ("torch", "torchvision", "ray", "numpy", "polars", "pyarrow", "scipy")


def code_digest() -> str:
    """Returns the hash of the source of `workloads`: what a trial is."""
    sources = [f"{path.relative_to(ROOT)}\n{digest(path.read_bytes(), 64)}" for path in sorted(ROOT.rglob("*.py"))]
    return digest("\n".join(sources))


def provenance() -> dict[str, Any]:
    """Returns commit, versions, machine and time, for people who ask later."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain")),
        "code": code_digest(),
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

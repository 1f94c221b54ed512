"""Runs sweeps as their scripts do, in this process or in one that can be killed, and reads what they left."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from analysis.store import SweepStore
from sweeps import cli
from sweeps.question.sweep import Sweep
from workloads.trial import EpochRecord, TrialConfig

MEASURED = ["lr", "lr_last", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"]
"""What must be equal, bit for bit, however a sweep was run."""

ROOT = Path(__file__).parents[2]


def run_here(
    sweep: Sweep, storage: str, *, max_concurrent: int | None = 1, pictures: bool = False, **options: Any
) -> tuple[int, str]:
    """Runs a sweep in this process, on the Ray that is there; returns the exit status and what it printed.

    To start a second worker, and to draw the pictures of the report, take a second or two each: who looks at what they
    do says so.
    """
    text = io.StringIO()
    chosen = replace(sweep.default_options(), storage_path=storage, max_concurrent=max_concurrent, **options)
    with pytest.MonkeyPatch.context() as patch:
        if not pictures:
            patch.setattr("analysis.plots.draw_plots", lambda *_, **__: [])
        status = cli.carry_out(sweep, chosen, Console(file=text, width=200))
    return status, text.getvalue()


def epochs_of(storage: str, name: str) -> pl.DataFrame:
    """Returns a sweep's records."""
    return SweepStore(storage, name).read_epochs().sort("trial_id", "epoch")


def table_of(storage: str, name: str, table: str = "trials") -> pl.DataFrame:
    """Returns one of the tables a sweep wrote."""
    frame = SweepStore(storage, name).read_table(table)
    assert frame is not None
    return frame


def measured(storage: str, name: str) -> pl.DataFrame:
    """Returns what a sweep measured: everything but times and who computed it."""
    return epochs_of(storage, name).select("trial_id", "epoch", *MEASURED)


def made_up_record(trial: TrialConfig, epoch: int, **changes: Any) -> dict[str, Any]:
    """Returns a record of made-up numbers, all different."""
    last = epoch == trial.epochs
    record = EpochRecord(
        trial_id=trial.trial_id,
        epoch=epoch,
        lr=0.001 * epoch,
        lr_last=0.001 * epoch,
        train_loss=2.0 / epoch,
        train_accuracy=0.1 * epoch,
        val_loss=2.5 / epoch,
        val_accuracy=0.2 * epoch,
        test_loss=3.0 / epoch if last else None,
        test_accuracy=0.15 * epoch if last else None,
        function_evaluations=13,
        train_seconds=1.5,
        eval_seconds=0.5,
        computed_by=trial.trial_id,
        grad_norm=0.5 * epoch,
    )
    return record.to_json() | changes


def write_script(folder: Path, sweep: str, before: str = "") -> Path:
    """Writes a sweep script: the arguments of `Sweep` as text, and code that goes before it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "script.py"
    path.write_text(
        f"from sweeps.cli import main\nfrom sweeps.question.sweep import Sweep\n{textwrap.dedent(before)}\n"
        f"if __name__ == '__main__':\n    main(Sweep({sweep}))\n"
    )
    return path


def start(script: Path, storage: str, *flags: str, **environment: str) -> subprocess.Popen[str]:
    """Starts a sweep script in a process of its own, which knows nothing of the Ray of this one."""
    command = [sys.executable, str(script), "--storage-path", storage, *flags]
    env = without_ray() | environment
    return subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def without_ray() -> dict[str, str]:
    """Returns the environment without what concerns Ray: the address and the token of another one."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def finish(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    """Waits for a sweep script and returns its exit status, output and complaints."""
    output, complaints = process.communicate(timeout=seconds)
    return process.returncode, output, complaints


def run_script(script: Path, storage: str, *flags: str, **environment: str) -> tuple[int, str, str]:
    """Runs a sweep script to its end."""
    return finish(start(script, storage, *flags, **environment))


def free_port() -> int:
    """Returns a TCP port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def statuses(storage: str, name: str) -> Sequence[str]:
    """Returns the statuses of a sweep's trials, in order."""
    return table_of(storage, name)["status"].to_list()


def files_with(text: str, folder: str | Path) -> list[Path]:
    """Returns the files below a folder that hold a text."""
    return [path for path in Path(folder).rglob("*") if path.is_file() and text.encode() in path.read_bytes()]

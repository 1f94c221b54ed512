"""Runs a command and measures it from outside, with every process it starts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    """User and system time of all processes, each as it was last seen."""
    peak_megabytes: float
    """Most memory of all processes together; what several share counts once (proportional set size)."""
    written_megabytes: float
    """What all processes gave to the disk, deleted since or not."""
    files: dict[str, int]
    """Folder -> files seen in it, deleted since or not."""
    left_megabytes: dict[str, float]
    """Folder -> size of the files that are left."""
    lines: tuple[tuple[float, str], ...]
    """What it printed, with the seconds since the start."""

    def seconds_until(self, text: str) -> float:
        """Returns when a line with that text was printed.

        Raises:
            ValueError: None was.
        """
        for seconds, line in self.lines:
            if text in line:
                return seconds
        raise ValueError(f"nothing printed says {text!r}: " + "\n".join(line for _, line in self.lines[-20:]))


def watch(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], folders: Mapping[str, Path]
) -> Usage:
    """Runs a command to its end.

    Args:
        command: The words of the command.
        folder: Where it runs.
        environment: All its environment variables.
        folders: Name -> folder in which files are counted.

    Raises:
        subprocess.CalledProcessError: It failed; the message has the last of what it printed.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    lines: list[tuple[float, str]] = []

    def listen() -> None:
        assert process.stdout is not None
        with process.stdout:
            lines.extend((time.perf_counter() - began, line.rstrip()) for line in process.stdout)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    family = _Family(psutil.Process(process.pid))
    files: dict[str, set[Path]] = {name: set() for name in folders}
    while process.poll() is None:
        family.look()
        for name, path in folders.items():
            files[name].update(_files(path))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SAMPLE_SECONDS)
    seconds = time.perf_counter() - began
    listener.join(timeout=10)
    if process.returncode:
        tail = "\n".join(line for _, line in lines[-20:])
        raise subprocess.CalledProcessError(process.returncode, list(command), output=tail)
    left = {name: list(_files(path)) for name, path in folders.items()}
    return Usage(
        seconds=seconds,
        cpu_seconds=sum(family.cpu_seconds.values()),
        peak_megabytes=family.peak / 1e6,
        written_megabytes=sum(family.written.values()) / 1e6,
        files={name: len(seen.union(left[name])) for name, seen in files.items()},
        left_megabytes={name: sum(map(_size, found)) / 1e6 for name, found in left.items()},
        lines=tuple(lines),
    )


class _Family:
    """A process and all that it starts, also those whose parent has ended since."""

    def __init__(self, root: psutil.Process) -> None:
        self._alive = {root.pid: root}
        self.cpu_seconds: dict[psutil.Process, float] = {}
        self.written: dict[psutil.Process, int] = {}
        self.peak = 0

    def _find(self) -> None:
        """Finds what the processes known so far have started."""
        others = {p.pid: p for p in psutil.process_iter(["ppid"]) if p.pid not in self._alive}
        while new := {pid: p for pid, p in others.items() if p.info["ppid"] in self._alive}:
            self._alive |= new
            others = {pid: p for pid, p in others.items() if pid not in new}

    def look(self) -> None:
        """Takes a sample of every process."""
        self._find()
        together = 0
        for process in list(self._alive.values()):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    self.cpu_seconds[process] = times.user + times.system
                    self.written[process] = process.io_counters().write_bytes
                    together += process.memory_full_info().pss
            except psutil.Error:
                if not process.is_running():
                    del self._alive[process.pid]
        self.peak = max(self.peak, together)


def _files(folder: Path) -> list[Path]:
    """Returns the files below a folder."""
    return [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]


def _size(path: Path) -> int:
    """Returns a file's size, 0 for one that has gone meanwhile: what Ray leaves behind ends a little later."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

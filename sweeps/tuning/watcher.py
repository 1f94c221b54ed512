"""A process beside a worker, which ends it when its training stands still for too long, whatever it hangs in.

Not a thread of the worker: none of Python's runs while C code holds the interpreter's lock, and a timer in C goes on
while processes are stopped (Ctrl-Z, a frozen container) and strikes when they continue. This process is stopped with
the worker, or sees that it is, and counts only the time in which both could run.

Started as `python -m sweeps.tuning.watcher`. From its standard input it reads a line of JSON, then one byte whenever
the worker makes progress (`GO`) or waits for others (`PAUSE`). It ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

GO, PAUSE = b"g", b"p"
DUMP_SIGNAL = signal.SIGUSR2
"""Makes the worker write where it hangs, from a handler in C."""
TICK_SECONDS = 0.25
"""How often the time is taken; when it took more than twice that, everything stood still, and it counts as this."""
QUIET_SECONDS = 0.5
"""What hangs has said all that it is going to say once it has been quiet for that long."""
DUMP_SECONDS = 5.0
"""As long may it take to say it."""


def is_hanging(worker: int, orders: int, seconds: float) -> bool:
    """Returns True once the worker has stood still for too long, False when it ends before.

    Args:
        worker: Its process.
        orders: The file that `GO` and `PAUSE` come from.
        seconds: How long is too long.
    """
    counted: float | None = None
    last = time.monotonic()
    while True:
        ready = select.select([orders], [], [], TICK_SECONDS)[0]
        now = time.monotonic()
        if ready:
            given = os.read(orders, 4096)
            if not given:
                return False
            counted = 0.0 if given.endswith(GO) else None
        elif counted is not None and not _is_stopped(worker):
            counted += now - last if now - last <= 2 * TICK_SECONDS else TICK_SECONDS
            if counted >= seconds:
                return True
        last = now


def _is_stopped(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):  # not Linux, or gone
        return False
    return state in "Tt"


def where_it_hangs(worker: int, dump: int) -> str:
    """Asks the worker for its tracebacks, which come through a pipe, and returns them."""
    os.kill(worker, DUMP_SIGNAL)
    found = b""
    until = time.monotonic() + DUMP_SECONDS
    while (left := until - time.monotonic()) > 0:
        if select.select([dump], [], [], QUIET_SECONDS if found else left)[0]:
            found += os.read(dump, 65536)
        elif found:
            break
    return found.decode(errors="replace")


def end(worker: int, told: dict[str, Any]) -> None:
    """Ends the worker, after where it hangs is stored for the one that takes up its training."""
    try:
        stack = where_it_hangs(worker, told["dump"])
        os.kill(worker, signal.SIGSTOP)  # it must not report an epoch once it counts as failed
        # A second to import, which only a worker that hangs has to spend.
        from analysis.store import SweepStore

        SweepStore(told["storage_path"], told["name"]).write(told["note"], stack.encode())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def main() -> None:
    """Watches the worker that started this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal
    orders = sys.stdin.fileno()
    line = b""
    while not line.endswith(b"\n"):  # byte by byte: what comes after it is for `select` to see
        line += os.read(orders, 1) or b"\n"
    told = json.loads(line)
    worker = os.getppid()
    if is_hanging(worker, orders, told["seconds"]) and os.getppid() == worker:
        end(worker, told)


if __name__ == "__main__":
    main()

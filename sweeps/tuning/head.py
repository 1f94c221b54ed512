"""Whether the head of a Ray cluster answers: if it stays away, Ray ends this process, and says so in its own words."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import ray

KNOCK_SECONDS = 1.0
"""How often the head is knocked at, and how long it may take to open."""
MISSED = 3
"""After so many knocks in vain it counts as away."""
AWAY = (
    "Ray's head at {} does not answer; if it stays away, Ray ends this run within about a minute: everything stored is "
    "still valid, and the same command goes on once Ray runs again"
)
BACK = "Ray's head at {} answers again"


@contextlib.contextmanager
def head_watched(say: Callable[[str], object]) -> Iterator[None]:
    """Says when the head of the Ray that is there does not answer any more, and when it does again.

    Args:
        say: Told so in a sentence, from another thread.
    """
    address = ray.get_runtime_context().gcs_address
    over = threading.Event()

    def watch() -> None:
        missed = 0
        while not over.wait(KNOCK_SECONDS):
            there = _answers(address)
            if there and missed >= MISSED:
                say(BACK.format(address))
            missed = 0 if there else missed + 1
            if missed == MISSED:
                say(AWAY.format(address))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()
    except OSError:
        return False
    return True

"""One run of a sweep at a time: a lock that a killed run does not leave behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from analysis.store import LOCK_FILE, SweepStore
from workloads.errors import InputError

RENEW_SECONDS = 5.0
"""On object stores: how often a run shows that it lives."""
WATCH_SECONDS = 20.0
"""On object stores: a lock that nobody renews for that long is a dead run's; a few renewals may fail."""
LOOK_SECONDS = 1.0
"""On object stores: how often one who waits looks at a lock."""
SETTLE_SECONDS = 1.0
"""On object stores: how long two runs that start together need to see each other."""
CHECKS = 4
"""In that time, a run looks that often whether the lock is still its own."""


class LockedError(InputError):
    """Another run of the sweep is at work."""


class Lock:
    """A lock that is held: while it is not lost, nobody else writes to the sweep. This one cannot be lost."""

    def lost(self) -> bool:
        """Whether another run may have taken over, as this one did not show that it lives for too long."""
        return False


@contextlib.contextmanager
def locked(store: SweepStore, say: Callable[[str], object] = lambda text: None) -> Iterator[Lock]:
    """Holds a sweep's lock.

    Locally it is the operating system's (`flock`), which ends with the process. An object store has none: there, an
    object is renewed while the run lives. No two machines' clocks are compared: who finds the object watches whether it
    changes, and takes over if it does not.

    Args:
        store: The sweep.
        say: Told in a sentence what is waited for.

    Yields:
        The lock, to be asked now and then whether it is lost: a run that was suspended may find another in its place.

    Raises:
        LockedError: Another run holds it.
        OSError: The storage path cannot be written to.
    """
    with _file_lock(store) if store.is_local else _lease(store, say) as lock:
        yield lock


def _refuse(store: SweepStore) -> LockedError:
    return LockedError(
        f"another run of the sweep at {store.location} is running; wait for it, or use another --name or --storage-path"
    )


def _unusable(store: SweepStore, error: OSError) -> OSError:
    return OSError(f"cannot write to {store.location}: {error.strerror}; give another --storage-path")


@contextlib.contextmanager
def _file_lock(store: SweepStore) -> Iterator[Lock]:
    path = Path(store.root) / LOCK_FILE
    new = [folder for folder in path.parents if not folder.exists()]
    with _flock(path, store):
        try:
            yield Lock()
        finally:
            # While it is held: a run that starts now finds either this file, locked, or a new one.
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: somebody has written something
                for folder in new:
                    folder.rmdir()


def _flock(path: Path, store: SweepStore) -> TextIO:
    """Returns the lock file, open and locked."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(store, error) from None
        try:
            file = path.open("w")
        except FileNotFoundError:  # a run that just ended removed the folder again
            continue
        except OSError as error:
            raise _unusable(store, error) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A run that just ended may have removed this very file between our two calls.
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError:
            file.close()
            raise _refuse(store) from None
        file.close()


@contextlib.contextmanager
def _lease(store: SweepStore, say: Callable[[str], object]) -> Iterator[Lock]:
    _watch(store, say)
    lease = _Lease(store)
    lease.claim()
    released = threading.Event()

    def keep() -> None:
        while not released.wait(RENEW_SECONDS) and not lease.lost():
            with contextlib.suppress(OSError):  # the next turn tries again
                lease.renew()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        released.set()
        thread.join()
        lease.release()


def _watch(store: SweepStore, say: Callable[[str], object]) -> None:
    """Returns once there is no lock of a run that lives.

    Raises:
        LockedError: There is one: it changed while it was watched.
    """
    first = _content(store)
    if first is None:
        return
    say(f"a lock is there; watching whether its run is alive ({WATCH_SECONDS:g} s)")
    until = time.monotonic() + WATCH_SECONDS
    while (now := _content(store)) is not None:
        if now != first:
            raise _refuse(store)
        if time.monotonic() >= until:
            return
        time.sleep(LOOK_SECONDS)


class _Lease(Lock):
    """An object that is renewed while the run lives.

    Object stores offer no condition on a write here, so nothing keeps two runs from writing one after the other. What
    holds all the same: a run writes only while it finds itself the owner, and whoever finds another stops. Of two, only
    the one that wrote last goes on.
    """

    def __init__(self, store: SweepStore) -> None:
        self._store = store
        self._owner = f"{uuid.uuid4().hex}-{os.getpid()}"
        self._renewals = 0
        self._confirmed = _time()
        self._lost = False
        self._one_at_a_time = threading.Lock()

    def claim(self) -> None:
        """Becomes the owner.

        Raises:
            LockedError: Another run that started at the same time is.
        """
        self._write()
        for _ in range(CHECKS):
            time.sleep(SETTLE_SECONDS / CHECKS)
            if not self._is_own():
                raise _refuse(self._store)
        self._confirmed = _time()

    def renew(self) -> None:
        """Shows that the run lives, unless another has taken over."""
        with self._one_at_a_time:
            if self._is_own():
                self._write()
                self._confirmed = _time()
            else:
                self._lost = True

    def lost(self) -> bool:
        """Whether another run may have taken over, as this one did not show that it lives for too long."""
        if not self._lost and _time() - self._confirmed > WATCH_SECONDS:
            # Suspended, or cut off from the storage: nothing may be written before it is clear who owns the sweep.
            with contextlib.suppress(OSError):
                self.renew()
        return self._lost

    def release(self) -> None:
        """Removes the lock, unless it is another's."""
        with contextlib.suppress(OSError):  # it ends by itself
            if self._is_own():
                self._store.delete(LOCK_FILE)

    def _write(self) -> None:
        self._renewals += 1
        self._store.write(LOCK_FILE, json.dumps({"owner": self._owner, "renewals": self._renewals}).encode())

    def _is_own(self) -> bool:
        try:
            return bool(json.loads(_content(self._store) or b"{}").get("owner") == self._owner)
        except (ValueError, AttributeError):
            return False


def _content(store: SweepStore) -> bytes | None:
    try:
        return store.read(LOCK_FILE)
    except FileNotFoundError:
        return None


def _time() -> float:
    """Returns a time in seconds that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

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

from analysis.store import LOCK_FILE, SweepStore, patiently
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
SURE = 0.5
"""On object stores: the part of the time it is watched for in which a run that showed that it lives may write."""


class LockedError(InputError):
    """Another run of the sweep is at work."""


class TakenOverError(Exception):
    """Another run of the sweep has taken over from this one, which must not change anything any more.

    Args:
        store: The sweep.
    """

    def __init__(self, store: SweepStore) -> None:
        super().__init__(f"another run has taken over {store.location}, as this one stood still for long")


class Lock:
    """A lock that is held: while it is not lost, nobody else writes to the sweep. This one cannot be lost."""

    def lost(self) -> bool:
        """Whether another run has taken over, as far as that can be known now."""
        return False

    def check(self) -> None:
        """Returns if the sweep's files may be changed.

        Raises:
            TakenOverError: Another run has taken over.
            OSError: It cannot be known now: the storage does not answer.
        """


@contextlib.contextmanager
def locked(store: SweepStore, say: Callable[[str], object] = lambda text: None) -> Iterator[Lock]:
    """Holds a sweep's lock.

    Locally it is the operating system's (`flock`), which ends with the process. An object store has none: there, an
    object is renewed while the run lives. No two machines' clocks are compared: who finds the object watches whether it
    changes, and takes over if it does not. Meanwhile the store asks the lock before it changes a file: a run that was
    suspended or cut off finds out who owns the sweep before it goes on.

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
        store.guard, before = lock.check, store.guard
        try:
            yield lock
        finally:
            store.guard = before


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
    looked = _watch(store, say)
    lease = _Lease(store)
    lease.claim(looked)
    released = threading.Event()

    def keep() -> None:
        while not released.wait(RENEW_SECONDS) and not lease.taken_over:
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


def _watch(store: SweepStore, say: Callable[[str], object]) -> float:
    """Waits until there is no lock of a run that lives; returns when it looked the last time.

    Raises:
        LockedError: There is one: it changed while it was watched.
    """
    looked = _time()  # before: an answer may be long under way
    first = patiently(lambda: _content(store))
    if first is None:
        return looked
    say(f"a lock is there; watching whether its run is alive ({WATCH_SECONDS:g} s)")
    until = time.monotonic() + WATCH_SECONDS
    while True:
        looked = _time()
        now = patiently(lambda: _content(store))
        if now not in (None, first):
            raise _refuse(store)
        if now is None or time.monotonic() >= until:
            return looked
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
        """When it was last known to be the owner: before it wrote, as others may have seen that at once."""
        self.taken_over = False
        """Whether another run has been found to be the owner."""
        self._one_at_a_time = threading.Lock()

    def claim(self, looked: float) -> None:
        """Becomes the owner.

        Args:
            looked: When there was no other.

        Raises:
            LockedError: Another run that started at the same time is.
        """
        patiently(self._write)
        # After a claim that took long, another run may have been sure already that it is alone: it needs to notice.
        settle = SETTLE_SECONDS if _time() - looked < SETTLE_SECONDS / 2 else SETTLE_SECONDS + RENEW_SECONDS
        for _ in range(CHECKS):
            time.sleep(settle / CHECKS)
            if not patiently(self._is_own):
                raise _refuse(self._store)

    def renew(self) -> None:
        """Shows that the run lives, unless another has taken over."""
        with self._one_at_a_time:
            self._renew()

    def _renew(self) -> None:
        if self._is_own():
            self._write()
        else:
            self.taken_over = True

    def _is_sure(self) -> bool:
        """Whether it was known to be the owner not long ago, so that nobody can have taken over since."""
        return _time() - self._confirmed <= SURE * WATCH_SECONDS

    def lost(self) -> bool:
        """Whether another run has taken over, as far as that can be known now."""
        with contextlib.suppress(OSError, TakenOverError):
            self.check()
        return self.taken_over

    def check(self) -> None:
        """Returns if the sweep's files may be changed: not before it is clear who owns it.

        Raises:
            TakenOverError: Another run has taken over.
            OSError: It cannot be known now: the storage does not answer.
        """
        if not self.taken_over and not self._is_sure():
            with self._one_at_a_time:
                if not self._is_sure():  # another thread has found out meanwhile
                    self._renew()
        if self.taken_over:
            raise TakenOverError(self._store)

    def release(self) -> None:
        """Removes the lock, unless it is another's or the storage is away; then it ends by itself."""
        with contextlib.suppress(OSError):
            if self._is_sure() and patiently(self._is_own):
                patiently(lambda: self._store.filesystem.delete_file(f"{self._store.root}/{LOCK_FILE}"))

    def _write(self) -> None:
        self._renewals += 1
        began = _time()
        content = {"owner": self._owner, "renewals": self._renewals}
        self._store.write_once(LOCK_FILE, json.dumps(content).encode())
        self._confirmed = began

    def _is_own(self) -> bool:
        try:
            return bool(json.loads(_content(self._store) or b"{}").get("owner") == self._owner)
        except (ValueError, AttributeError):
            return False


def _content(store: SweepStore) -> bytes | None:
    try:
        return store.read_once(LOCK_FILE)
    except FileNotFoundError:
        return None


def _time() -> float:
    """Returns a time in seconds that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

"""One run of a sweep at a time: a lock that a killed run does not leave behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from analysis.store import LOCK_FILE, SweepStore
from workloads.errors import InputError

LEASE_SECONDS = 60.0
"""On object stores: a lock not renewed for that long is a dead run's."""
RENEW_SECONDS = 15.0
SETTLE_SECONDS = 1.0
"""On object stores: how long two runs that start together need to see each other."""


class LockedError(InputError):
    """Another run of the sweep is at work."""


@contextlib.contextmanager
def locked(store: SweepStore) -> Iterator[None]:
    """Holds a sweep's lock.

    Locally it is the operating system's (`flock`), which ends with the process. An object store has none: there, an
    object is renewed while the run lives, and counts as abandoned after `LEASE_SECONDS`.

    Args:
        store: The sweep.

    Raises:
        LockedError: Another run holds it.
        OSError: The storage path cannot be written to.
    """
    with _file_lock(store) if store.is_local else _lease(store):
        yield


def _refuse(store: SweepStore) -> LockedError:
    return LockedError(
        f"another run of the sweep at {store.location} is at work; wait for it, or use another --name or --storage-path"
    )


def _unusable(store: SweepStore, error: OSError) -> OSError:
    return OSError(f"cannot write to {store.location}: {error.strerror}; give another --storage-path")


@contextlib.contextmanager
def _file_lock(store: SweepStore) -> Iterator[None]:
    path = Path(store.root) / LOCK_FILE
    new = [folder for folder in path.parents if not folder.exists()]
    with _flock(path, store):
        try:
            yield
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
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except BlockingIOError:
            file.close()
            raise _refuse(store) from None
        file.close()


@contextlib.contextmanager
def _lease(store: SweepStore) -> Iterator[None]:
    owner = f"{uuid.uuid4().hex}-{os.getpid()}"
    if _holder(store) is not None:
        raise _refuse(store)
    _renew(store, owner)
    time.sleep(SETTLE_SECONDS)
    if _holder(store) != owner:
        raise _refuse(store)
    released = threading.Event()

    def keep() -> None:
        while not released.wait(RENEW_SECONDS):
            with contextlib.suppress(OSError):  # the next turn tries again
                _renew(store, owner)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        released.set()
        thread.join()
        store.delete(LOCK_FILE)


def _renew(store: SweepStore, owner: str) -> None:
    store.write(LOCK_FILE, json.dumps({"owner": owner, "renewed": time.time()}).encode())


def _holder(store: SweepStore) -> str | None:
    """Returns who holds the lease, or None when nobody alive does."""
    try:
        lease = json.loads(store.read(LOCK_FILE))
        return str(lease["owner"]) if time.time() - lease["renewed"] < LEASE_SECONDS else None
    except (FileNotFoundError, ValueError, KeyError):
        return None

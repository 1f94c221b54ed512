"""The lock of an object store, on a local folder: who holds it, who takes over, and who has to stop."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from analysis.store import LOCK_FILE, SweepStore, TrialStatus
from sweeps.ledger import lock
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.lock import Lock, LockedError, TakenOverError
from sweeps.sharing.tree import ForkTree
from sweeps.tuning.driver import Run
from sweeps.tuning.placement import Placement
from sweeps.watching.progress import Progress
from tests.sweeps.runs import made_up_record
from workloads.trial import TrialConfig


@pytest.fixture
def store(storage: str, monkeypatch: pytest.MonkeyPatch) -> SweepStore:
    """A store whose lock is an object, with times that a test can wait for."""
    for name, seconds in {"RENEW": 0.1, "WATCH": 0.8, "LOOK": 0.05, "SETTLE": 0.2}.items():
        monkeypatch.setattr(f"sweeps.ledger.lock.{name}_SECONDS", seconds)
    return SweepStore(storage, "s")


@contextmanager
def lease(store: SweepStore) -> Iterator[Lock]:
    with lock._lease(SweepStore(store.storage_path, store.name), lambda text: None) as held:
        yield held


def test_a_living_run_is_not_disturbed_and_leaves_nothing(store: SweepStore) -> None:
    with lease(store) as held:
        for _ in range(2):
            with pytest.raises(LockedError), lease(store):
                pass
        assert not held.lost()
        before = store.read(LOCK_FILE)
        time.sleep(0.3)
        assert store.read(LOCK_FILE) != before, "it shows that it lives"
    assert store.files() == []
    with lease(store):
        pass


def test_the_lock_of_a_dead_run_is_taken_over_after_it_was_watched(store: SweepStore) -> None:
    store.write(LOCK_FILE, b'{"owner": "dead", "renewals": 3}')
    said: list[str] = []
    started = time.monotonic()
    with lock._lease(store, said.append):
        assert time.monotonic() - started >= lock.WATCH_SECONDS
    assert said == ["a lock is there; watching whether its run is alive (0.8 s)"]
    assert store.files() == []


def test_a_lock_that_is_released_while_it_is_watched(store: SweepStore) -> None:
    store.write(LOCK_FILE, b"torn")
    threading.Timer(0.2, store.delete, (LOCK_FILE,)).start()
    started = time.monotonic()
    with lease(store):
        assert time.monotonic() - started < 0.8


def test_of_two_that_start_together_one_goes_on(store: SweepStore) -> None:
    won, refused = [], []
    together = threading.Barrier(2)

    def run() -> None:
        together.wait()
        try:
            with lease(store):
                won.append(1)
                time.sleep(0.5)
        except LockedError:
            refused.append(1)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 1)


def test_a_suspended_run_finds_another_in_its_place_and_leaves_its_lock_alone(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lease(store) as suspended:
        now = lock._time()
        theirs = b'{"owner": "another", "renewals": 1}'
        store.write(LOCK_FILE, theirs)
        # Asked before its thread has looked: the time that has passed is enough to make it look itself.
        monkeypatch.setattr("sweeps.ledger.lock._time", lambda: now + 2 * lock.WATCH_SECONDS)
        assert suspended.lost()
    assert store.read(LOCK_FILE) == theirs


def test_a_run_notices_by_itself_that_its_lock_is_gone(store: SweepStore) -> None:
    with lease(store) as held:
        store.delete(LOCK_FILE)
        deadline = time.monotonic() + 5
        while not held.lost():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert store.files() == [], "it is not written anew"


def test_storage_that_does_not_answer_is_no_loss(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(store: SweepStore) -> bytes:
        raise OSError("no answer")

    with lease(store) as held:
        with monkeypatch.context() as outage:
            outage.setattr("sweeps.ledger.lock._content", silent)
            time.sleep(0.3)
            assert not held.lost()
        time.sleep(0.3)
        assert not held.lost()


def as_objects(store: SweepStore) -> None:
    """Lets a local store be used as one that has no folders and no locks of the operating system."""
    Path(store.root).mkdir(parents=True)
    store.is_local = False


def test_nothing_is_changed_before_it_is_clear_who_owns_the_sweep(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_objects(store)
    theirs = b'{"owner": "another", "renewals": 1}'
    with lock.locked(store):
        store.write("kept", b"ours")
        now = lock._time()
        store.write_once(LOCK_FILE, theirs)
        monkeypatch.setattr("sweeps.ledger.lock._time", lambda: now + lock.WATCH_SECONDS)
        for change in (
            lambda: store.write("new", b"ours"),
            lambda: store.delete("kept"),
            lambda: store.append_statuses([TrialStatus(trial_id="a", status="failed", epochs_run=0)]),
            store.clear,
        ):
            with pytest.raises(TakenOverError, match="another run has taken over"):
                change()
    assert store.files() == [LOCK_FILE, "kept"]
    assert store.read(LOCK_FILE) == theirs
    store.write("new", b"somebody's")  # outside of the lock, a store is as it was


def test_a_run_that_was_cut_off_asks_before_it_writes_what_it_was_writing(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt fails, another run takes over, and the storage is back: there must be no second attempt."""
    as_objects(store)
    monkeypatch.setattr("analysis.store.RETRY_SECONDS", (0.01,) * 200)
    theirs = b'{"owner": "another", "renewals": 1}'
    attempts = []
    with lock.locked(store):
        write, read = store.write_once, store.read_once

        def cut_off(path: str, content: bytes = b"") -> bytes:
            attempts.append(path)
            raise OSError("no route to host")

        monkeypatch.setattr(store, "write_once", cut_off)
        monkeypatch.setattr(store, "read_once", cut_off)
        back = threading.Timer(1.2, lambda: (write(LOCK_FILE, theirs), monkeypatch.setattr(store, "read_once", read)))
        back.start()
        with pytest.raises(TakenOverError):
            store.write("records", b"ours")
        back.join()
    assert "records" in attempts
    assert attempts[-1] == LOCK_FILE
    assert store.files() == [LOCK_FILE]


def test_a_slow_claim_gives_the_other_time_to_notice(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One looks, then is slow; another finds no lock either, claims it and begins; the first's claim arrives."""
    settled = []
    monkeypatch.setattr("sweeps.ledger.lock.time.sleep", settled.append)
    for looked_ago, expected in ((0.0, 0.2), (0.15, 0.3)):
        settled.clear()
        lock._Lease(store).claim(lock._time() - looked_ago)
        assert sum(settled) == pytest.approx(expected)


def test_a_run_that_lost_its_lock_stops_and_writes_nothing_more(storage: str) -> None:
    class Lost(Lock):
        def lost(self) -> bool:
            return True

    store = SweepStore(storage, "s")
    trial = TrialConfig(epochs=2)
    theirs = store.save_checkpoint(trial.trial_id, 1, b"another run's")
    ledger = Ledger(store, [trial])
    tree = ForkTree(ledger.members())
    assert list(tree.walk_known()) == []
    run = Run(tree, ledger, Placement(), Progress(Console(file=io.StringIO()), {}), lock=Lost())
    assert run.next_job("1") is not None
    run.take_in("1", {"record": made_up_record(trial, 1), "checkpoint": None})
    ledger._new_statuses.append(TrialStatus(trial_id=trial.trial_id, status="failed", epochs_run=0))
    assert run.beat()
    run.complete("1", error=True)
    run.end()
    assert store.files() == [theirs.path]
    assert "another run has taken over" in str(run.storage_error)

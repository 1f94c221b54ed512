"""The files a sweep is kept in: one run holds the lock, and storage that hesitates is waited for."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest

from analysis.store import RETRY_SECONDS, SweepStore, patiently
from sweeps import cli
from sweeps.ledger.lock import LockedError, locked
from sweeps.question.sweep import Sweep

SWEEP = Sweep(name="s", question="What is there?", schedulers=("none", "step"), lrs=(0.01, 0.1), epochs=3)

# -- the lock -------------------------------------------------------------------------------------------------------


def test_one_holds_the_lock_and_leaves_nothing(storage: str) -> None:
    store = SweepStore(storage, "s")
    with locked(store), pytest.raises(LockedError, match="another run of the sweep"), locked(SweepStore(storage, "s")):
        pass
    assert not Path(storage).exists()
    with locked(store):
        pass


def test_a_lock_in_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as end:
        cli.main(SWEEP, ["--storage-path", str(tmp_path / "file" / "below")])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


# -- storage that hesitates -----------------------------------------------------------------------------------------


def test_storage_that_does_not_answer_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("analysis.store.time.sleep", waited.append)
    answers = iter([OSError("AWS Error NETWORK_CONNECTION"), OSError("again"), None])

    def act() -> str:
        answer = next(answers)
        if answer is not None:
            raise answer
        return "done"

    assert patiently(act) == "done"
    assert waited == list(RETRY_SECONDS[:2])


class Hesitant:
    """A file system that fails some times before it does what it is asked for."""

    def __init__(self, filesystem: Any, errors: list[OSError]) -> None:
        self._filesystem, self._errors = filesystem, errors

    def __getattr__(self, name: str) -> Any:
        if self._errors:
            raise self._errors.pop()
        return getattr(self._filesystem, name)


def test_a_folder_that_goes_away_for_a_moment_is_waited_for(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("analysis.store.time.sleep", waited.append)
    store = SweepStore(storage, "s")
    errors = [OSError(errno.ESTALE, "Stale file handle"), OSError(errno.EIO, "Input/output error")]
    for action, expected in (
        (lambda: store.write("file", b"content"), None),
        (lambda: store.read("file"), b"content"),
        (store.files, ["file"]),
        (lambda: store.delete("file"), None),
        (store.exists, False),
    ):
        waited.clear()
        store.filesystem = Hesitant(pyarrow.fs.LocalFileSystem(), list(errors))
        assert action() == expected
        assert waited == list(RETRY_SECONDS[:2])


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), PermissionError("no"), OSError(28, "No space left")])
def test_what_waiting_does_not_mend_is_raised_at_once(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.store.time.sleep", lambda seconds: pytest.fail("waited"))

    def act() -> None:
        raise error

    with pytest.raises(type(error)):
        patiently(act)

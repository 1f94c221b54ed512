"""What is stored meets what is asked for: taken up, widened, taken over, or refused. Nothing is trained."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
from rich.console import Console
from sweeps.stored import ConflictError

from analysis.store import RETRY_SECONDS, DamagedFileError, SweepStore, TrialStatus, patiently
from sweeps import cli, provenance
from sweeps.lock import LockedError, locked
from sweeps.placement import Placement
from sweeps.sweep import Sweep, plan
from workloads.registry import dataset_of
from workloads.trial import RECORD_FIELDS, TrialConfig

SWEEP = Sweep(name="s", question="What is there?", schedulers=("none", "step"), lrs=(0.01, 0.1), epochs=3)


def records_of(trial: TrialConfig) -> list[dict[str, Any]]:
    """Returns made-up records of a whole trial."""
    rows = []
    for epoch in range(1, trial.epochs + 1):
        row: dict[str, Any] = dict.fromkeys(RECORD_FIELDS, 0.5)
        row |= {"trial_id": trial.trial_id, "epoch": epoch, "computed_by": trial.trial_id, "function_evaluations": 1}
        rows.append(row if epoch == trial.epochs else row | {"test_loss": None, "test_accuracy": None})
    return rows


def fill(storage: str, sweep: Sweep) -> SweepStore:
    """Stores a sweep as if it had been trained to its end."""
    store = SweepStore(storage, sweep.name)
    trials = plan(sweep, sweep.default_options()).trials
    spec = cli.SweepSpec(
        name=sweep.name,
        question=sweep.question,
        command="",
        trials=trials,
        datasets={trial.workload: dataset_of(trial).name for trial in trials},
        fingerprint=provenance.fingerprint(trials, Placement().hardware()),
    )
    store.write_spec(spec)
    store.append_epochs([row for trial in trials for row in records_of(trial)])
    store.append_statuses([TrialStatus(trial_id=t.trial_id, status="completed", epochs_run=t.epochs) for t in trials])
    return store


def ask(storage: str, sweep: Sweep = SWEEP, **options: Any) -> str:
    """Runs a sweep that has nothing to train, or only its plan, and returns what it printed."""
    text = io.StringIO()
    chosen = replace(sweep.default_options(), storage_path=storage, **options)
    assert cli.run(sweep, chosen, Console(file=text, width=500)) == 0
    return text.getvalue()


def test_a_whole_sweep_is_taken_up_as_it_is_but_for_what_a_killed_writer_left(storage: str) -> None:
    store = fill(storage, SWEEP)
    half = Path(store.root, "parts", ".writing-epochs")
    half.write_bytes(b"half")
    assert "everything is done: nothing to train" in ask(storage)
    assert Path(store.root, "report.html").exists()
    assert not half.exists()


def test_a_report_that_cannot_be_written_is_no_fault_of_the_command(storage: str) -> None:
    store = fill(storage, SWEEP)
    in_the_way = Path(store.root, "plots")
    in_the_way.write_text("")
    with pytest.raises(cli.StoppedError, match=r"^cannot write to .*; what is stored stays valid, and the"):
        ask(storage)
    in_the_way.unlink()
    assert "everything is done: nothing to train" in ask(storage)


@pytest.mark.parametrize(
    "options",
    [
        {"seeds": (21, 22)},
        {"lrs": (0.01, 0.1, 0.5)},
        {"schedulers": ("none", "step", "cosine")},
        {"grid": ("epochs=3,5",)},
    ],
    ids=str,
)
def test_widening_is_no_conflict(options: dict[str, Any], storage: str) -> None:
    fill(storage, SWEEP)
    assert "done before: 4 trials" in ask(storage, plan=True, **options)


NARROWER: dict[str, dict[str, Any]] = {
    "2 of its 4 trials are not asked for (lr was 0.1, asked for 0.01)": {"lrs": (0.01,)},
    "2 of its 4 trials are not asked for (scheduler was step, asked for none)": {"schedulers": ("none",)},
    "4 of its 4 trials are not asked for (epochs was 3, asked for 4": {"epochs": 4},
    "4 of its 4 trials are not asked for (train_limit was null, asked for 640)": {"train_limit": 640},
}
"""What the refusal says -> what is asked for."""


@pytest.mark.parametrize("expected", NARROWER)
def test_other_trials_are_refused_with_the_difference_and_the_ways_on(expected: str, storage: str) -> None:
    fill(storage, SWEEP)
    with pytest.raises(ConflictError) as refused:
        ask(storage, **NARROWER[expected])
    assert expected in str(refused.value)
    assert "--name" in str(refused.value)
    assert "--fresh" in str(refused.value)


def test_changed_code_is_refused_and_not_taken_over(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(storage, SWEEP)
    before = provenance.code_digest()
    monkeypatch.setattr(provenance, "code_digest", lambda: "0123456789abcdef")
    with pytest.raises(ConflictError, match=f"code was {before}, is 0123456789abcdef"):
        ask(storage)
    assert "taken over" not in ask(storage, name="sibling", plan=True)


def test_other_threads_are_refused(storage: str) -> None:
    fill(storage, SWEEP)
    with pytest.raises(ConflictError, match="device was cpu, 1 thread, is cpu, 2 threads"):
        ask(storage, cpus_per_trial=2)


def test_completed_trials_are_taken_over_unless_fresh_or_alone(storage: str) -> None:
    fill(storage, SWEEP)
    assert "taken over from s: 4 trials" in ask(storage, name="sibling", plan=True)
    assert "taken over" not in ask(storage, name="sibling", plan=True, fresh=True)
    assert "taken over" not in ask(storage, name="sibling", plan=True, share=False)


def test_fresh_counts_nothing_as_done(storage: str) -> None:
    fill(storage, SWEEP)
    text = ask(storage, plan=True, fresh=True)
    assert "done before" not in text
    assert SweepStore(storage, "s").read_epochs().height == 12, "a plan deletes nothing"


def rewrite_spec(store: SweepStore, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(store.read("sweep.json"))
    change(values)
    store.write("sweep.json", json.dumps(values).encode())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda values: values.update(question="Why?"), "does not match its checksum"),
        (lambda values: values.update(schema_version=0), "has schema version 0, this program writes 1"),
        (lambda values: values.pop("sha256"), "damaged or not forksweep's"),
    ],
)
def test_a_damaged_spec_is_named(change: Callable[[dict[str, Any]], Any], expected: str, storage: str) -> None:
    rewrite_spec(fill(storage, SWEEP), change)
    with pytest.raises(DamagedFileError) as refused:
        ask(storage)
    assert expected in str(refused.value)
    assert "start over with --fresh" in str(refused.value)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_something_else_is_left_alone(fresh: bool, storage: str) -> None:
    folder = Path(storage, "s")
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(ConflictError, match=r"holds files but no sweep\.json: it is not a sweep's folder"):
        ask(storage, fresh=fresh)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_killed_while_starting_over_the_folder_is_still_a_sweeps(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(storage, SWEEP)
    store.write("trials.parquet", b"")
    deleted: list[str] = []
    monkeypatch.setattr(store, "delete", deleted.append)
    store.clear()
    assert deleted[-1] == "sweep.json"
    assert sorted(deleted) == store.files()


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

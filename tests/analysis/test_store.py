"""The sweep's files: what is newest, what a reader sees while somebody writes, and what a killed writer left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from synthetic import synthetic_sweep

from analysis import store as store_module
from analysis.schema import EPOCH_COLUMNS
from analysis.store import MOST_PARTS, TEMPORARY, SweepSpec, SweepStore, TrialStatus
from workloads.trial import Status


def record(epoch: int, trial_id: str = "a" * 16) -> dict[str, Any]:
    return dict.fromkeys((column.name for column in EPOCH_COLUMNS), None) | {"trial_id": trial_id, "epoch": epoch}


def status(what: Status, trial_id: str = "a" * 16) -> TrialStatus:
    return TrialStatus(trial_id=trial_id, status=what, epochs_run=0)


def parts(store: SweepStore, kind: str) -> list[str]:
    return [path for path in store.files("parts") if path.startswith(f"parts/{kind}")]


def last(store: SweepStore) -> str:
    return str(store.read_statuses()["status"].item())


def test_the_newest_status_is_the_one_written_last_whatever_the_clock_says(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 10**18
    monkeypatch.setattr("time.time_ns", lambda: now)
    monkeypatch.setattr("time.time", lambda: now / 1e9)
    SweepStore(storage, "s").append_statuses([status("failed")])
    now -= 3600 * 10**9
    again = SweepStore(storage, "s")
    again.append_statuses([status("completed")])
    assert last(again) == "completed"
    again.compact()
    again.append_statuses([status("failed")])
    assert last(SweepStore(storage, "s")) == "failed"


def test_parts_named_by_the_time_are_older_than_those_written_now(storage: str) -> None:
    store = SweepStore(storage, "s")
    store.append_statuses([status("failed")])
    (path,) = parts(store, "statuses")
    named_by_time = f"parts/statuses-{time.time_ns() + 10**13:020d}-{path[-24:]}"
    store.write(named_by_time, store.read(path))
    store.delete(path)
    again = SweepStore(storage, "s")
    assert last(again) == "failed"
    again.append_statuses([status("completed")])
    assert last(SweepStore(storage, "s")) == "completed"


def test_a_long_run_has_few_parts_with_every_row_once(storage: str) -> None:
    store = SweepStore(storage, "s")
    for epoch in range(1, 5 * MOST_PARTS):
        store.append_epochs([record(epoch)])
        store.append_statuses([status("failed"), status("completed", f"{epoch:016x}")])
        assert len(parts(store, "epochs")) <= MOST_PARTS
    reader = SweepStore(storage, "s")
    assert reader.read_epochs()["epoch"].to_list() == list(range(1, 5 * MOST_PARTS))
    assert reader.read_statuses().height == 5 * MOST_PARTS


@pytest.mark.parametrize("deletions", [0, 1, 3])
def test_killed_while_merging_nothing_is_lost_or_doubled(
    deletions: int, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SweepStore(storage, "s")
    for epoch, what in enumerate(("failed", "cancelled", "completed", "failed"), start=1):
        store.append_epochs([record(epoch)])
        store.append_statuses([status(what)])  # type: ignore[arg-type]
    left = deletions

    def killed(path: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        Path(store.root, path).unlink()

    monkeypatch.setattr(store, "_delete", killed)
    for kind in ("epochs", "statuses"):
        left = deletions
        with pytest.raises(KeyboardInterrupt):
            store._merge(kind, store._parts(kind))
    after = SweepStore(storage, "s")
    assert after.read_epochs()["epoch"].sort().to_list() == [1, 2, 3, 4]
    assert last(after) == "failed"
    after.append_statuses([status("completed")])
    assert last(SweepStore(storage, "s")) == "completed"


def test_merging_leaves_a_damaged_part_to_be_seen(storage: str) -> None:
    store = SweepStore(storage, "s")
    for epoch in (1, 2, 3):
        store.append_epochs([record(epoch)])
    damaged = parts(store, "epochs")[1]
    Path(store.root, damaged).write_bytes(b"torn")
    store.compact()
    reader = SweepStore(storage, "s")
    assert sorted(reader.read_epochs()["epoch"]) == [1, 3]
    assert reader.damaged == [damaged]


def test_a_reader_that_finds_a_part_gone_looks_again(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = SweepStore(storage, "s"), SweepStore(storage, "s")
    for epoch in (1, 2, 3):
        writer.append_epochs([record(epoch)])
    listed = reader.files("parts")
    writer.compact()
    monkeypatch.setattr(reader, "files", first_then([listed, listed], reader.files))
    assert sorted(reader.read_epochs()["epoch"]) == [1, 2, 3]
    monkeypatch.setattr(reader, "files", lambda folder: listed)
    with pytest.raises(FileNotFoundError):
        reader.read_epochs()


def test_a_listing_that_missed_what_happened_meanwhile_is_not_trusted(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder read while parts are merged may show neither the new part nor some of the old ones."""
    writer, reader = SweepStore(storage, "s"), SweepStore(storage, "s")
    for epoch in (1, 2, 3):
        writer.append_epochs([record(epoch)])
    torn = reader.files("parts")[1:]
    monkeypatch.setattr(reader, "files", first_then([torn], reader.files))
    assert sorted(reader.read_epochs()["epoch"]) == [1, 2, 3]


def first_then(answers: list[list[str]], then: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    left = list(answers)
    return lambda folder: left.pop(0) if left else then(folder)


def test_readers_beside_a_run_that_merges(storage: str) -> None:
    SweepStore(storage, "s").append_epochs([record(1)])
    done = threading.Event()

    def write() -> None:
        store = SweepStore(storage, "s")
        for epoch in range(2, 4 * MOST_PARTS):
            store.append_epochs([record(epoch)])
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    most = 0
    try:
        while not done.is_set():
            epochs = SweepStore(storage, "s").read_epochs()["epoch"].sort().to_list()
            assert epochs == list(range(1, len(epochs) + 1))
            assert len(epochs) >= most
            most = len(epochs)
    finally:
        thread.join()


# -- files that are being written -----------------------------------------------------------------------------------


def test_two_writers_of_one_file_do_not_tear_it(storage: str) -> None:
    contents = {bytes([letter]) * 3_000_000 for letter in b"ab"}

    def write(content: bytes) -> None:
        for _ in range(20):
            SweepStore(storage, "s").write("report.html", content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert SweepStore(storage, "s").read("report.html") in contents
    assert [path.name for path in Path(storage, "s").iterdir()] == ["report.html"]


def test_what_a_killed_writer_left_goes_and_what_is_being_written_stays(storage: str) -> None:
    folder = Path(storage, "s")
    folder.mkdir(parents=True)
    code = "import sys; from analysis.store import _temporary_name; print(_temporary_name('x'), flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    theirs = folder / other.stdout.readline().strip()
    mine = folder / store_module._temporary_name("x")
    elsewhere = folder / f"{TEMPORARY}01234567-{os.getpid()}-01234567-x"
    forgotten = folder / f"{TEMPORARY}01234567-1-01234567-x"
    nameless = folder / f"{TEMPORARY}x"
    for path in (theirs, mine, elsewhere, forgotten, nameless):
        path.write_bytes(b"half")
    os.utime(forgotten, (1, 1))
    store = SweepStore(storage, "s")
    store.remove_half_written()
    assert {path for path in (theirs, mine, elsewhere, forgotten, nameless) if path.exists()} == {
        theirs,
        mine,
        elsewhere,
    }
    other.communicate("")
    store.remove_half_written()
    assert not theirs.exists()
    assert store.files() == []


def test_how_old_a_half_written_file_is_does_not_depend_on_this_machines_clock(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    SweepStore(storage, "s").write("x", b"")
    elsewhere = Path(storage, "s", f"{TEMPORARY}01234567-1-01234567-x")
    elsewhere.write_bytes(b"half")
    monkeypatch.setattr("time.time", lambda: 1e10)
    SweepStore(storage, "s").remove_half_written()
    assert elsewhere.exists()


def test_rows_of_an_older_part_lack_newer_columns(storage: str) -> None:
    store = SweepStore(storage, "s")
    store._write_part("epochs", pl.DataFrame({"trial_id": ["a"], "epoch": [1]}, schema_overrides={"epoch": pl.Int32}))
    assert store.read_epochs()["grad_norm"].to_list() == [None]


def test_what_matters_and_how_a_race_was_run_are_kept_and_older_files_lack_them(storage: str) -> None:
    spec = synthetic_sweep("s").spec
    store = SweepStore(storage, "s")
    store.write_spec(replace(spec, care=0.005, race={"seeds": [3, 1]}))
    found = store.read_spec()
    assert found is not None
    assert (found.care, found.race) == (0.005, {"seeds": [3, 1]})
    older = {name: value for name, value in spec.to_json().items() if name not in ("care", "race")}
    assert SweepSpec.from_json(older) == spec
    assert (spec.care, spec.race) == (None, None)

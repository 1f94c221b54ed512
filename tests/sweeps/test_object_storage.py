"""Sweeps on a real S3-speaking server: run, killed, gone on with; and no secret stored."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow.fs
import pytest
from polars.testing import assert_frame_equal

from analysis.loading import open_store
from analysis.store import TEMPORARY, SweepStore, TrialStatus, without_secrets
from sweeps.ledger.lock import LockedError, locked
from sweeps.question.sweep import Sweep
from tests.sweeps.runs import finish, free_port, measured, run_here, start, statuses, table_of, write_script

SECRET = "not-for-anybodys-eyes"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test-user", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
ARGUMENTS = "name='s', question='Does it end as it should?', lrs=(0.01, 0.02), epochs=6"
FLAGS = ("--train-limit", "3200")
SHORT_TIMES = """
    import sweeps.ledger.lock
    sweeps.ledger.lock.RENEW_SECONDS, sweeps.ledger.lock.SETTLE_SECONDS = 0.5, 0.2
"""


class Server(NamedTuple):
    """An S3 server."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def requests(self) -> list[str]:
        """Returns the methods of the requests that it has answered."""
        return re.findall(r"(GET|HEAD|PUT|POST|DELETE) /", self.log.read_text())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The credentials for it are in the environment, as on a real machine."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("w") as file, pytest.MonkeyPatch.context() as environment:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        try:
            deadline = time.monotonic() + 180
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield Server(process, port, log)
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


@pytest.fixture
def bucket(server: Server, request: pytest.FixtureRequest) -> str:
    """The URI of a folder in a bucket of the test's own."""
    name = f"bucket{abs(hash(request.node.name))}"
    query = f"scheme=http&endpoint_override=127.0.0.1:{server.port}&region=us-east-1"
    filesystem, path = pyarrow.fs.FileSystem.from_uri(f"s3://{name}?{query}&allow_bucket_creation=true")
    filesystem.create_dir(path)
    return f"s3://{name}/sweeps/mine?{query}"


def with_credentials(uri: str) -> str:
    return uri.replace("s3://", f"s3://test-user:{SECRET}@")


def wait_for_records(storage: str, count: int, process: subprocess.Popen[str]) -> None:
    store = SweepStore(storage, "s")
    deadline = time.monotonic() + 300
    while len(store.read_epochs()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the sweep stores no records"
        time.sleep(0.2)


def everything_below(storage: str) -> dict[str, bytes]:
    filesystem, path = pyarrow.fs.FileSystem.from_uri(storage)
    files = filesystem.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    return {info.path: filesystem.open_input_stream(info.path).read() for info in files if info.is_file}


@pytest.mark.parametrize(
    "silence", [0, pytest.param(4, marks=pytest.mark.slow)], ids=["killed", "silent server, then killed"]
)
def test_a_sweep_survives_a_killed_driver(
    ray_cluster: None,
    bucket: str,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    silence: int,
) -> None:
    local = str(tmp_path / "local")
    sweep = eval(f"Sweep({ARGUMENTS})", {"Sweep": Sweep})
    assert run_here(sweep, local, train_limit=3200)[0] == 0
    process = start(write_script(tmp_path, ARGUMENTS, SHORT_TIMES), bucket, *FLAGS)
    store = SweepStore(bucket, "s")
    wait_for_records(bucket, 1, process)
    with pytest.raises(LockedError, match="another run of the sweep at s3://"), locked(store):
        pass
    if silence:
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(silence)
        server.process.send_signal(signal.SIGCONT)
        wait_for_records(bucket, 4, process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    printed = "".join(finish(process)[1:])
    assert 0 < len(store.read_epochs()) < 12, "killed too late to mean anything"
    assert ".lock" in store.files()
    # Nobody waits 20 seconds here to see that a run is dead.
    monkeypatch.setattr("sweeps.ledger.lock.WATCH_SECONDS", 2.5)
    monkeypatch.setattr("sweeps.ledger.lock.RENEW_SECONDS", 0.5)
    # The workers of this Ray may know no credentials but those of the URI.
    status, output = run_here(sweep, with_credentials(bucket), train_limit=3200, max_concurrent=1)
    assert status == 0, output
    assert statuses(bucket, "s") == ["completed"] * 2
    assert_frame_equal(measured(bucket, "s"), measured(local, "s"), check_exact=True)
    assert table_of(bucket, "s")["neighbours"].max() == 0, "resumed with --max-concurrent 1"
    files = everything_below(bucket)
    assert {Path(name).name for name in files} >= {"sweep.json", "report.html", "trials.parquet", "epochs.parquet"}
    assert not [name for name in files if name.endswith(".lock")]
    assert not [name for name, content in files.items() if SECRET.encode() in content]
    assert SECRET not in printed + output


def test_a_small_file_takes_one_request_to_write_and_two_to_read(server: Server, bucket: str) -> None:
    store = SweepStore(bucket, "s")
    store.write("parts/first", b"first")
    before = len(server.requests())
    store.write("parts/second", b"x" * 1_000_000)
    store.write("checkpoints/a/b", b"")
    assert server.requests()[before:] == ["PUT", "PUT"]
    assert (store.read("parts/second"), store.read("checkpoints/a/b")) == (b"x" * 1_000_000, b"")
    assert server.requests()[before + 2 :] == ["HEAD", "GET", "HEAD"]
    assert store.files() == ["checkpoints/a/b", "parts/first", "parts/second"]


def test_a_bucket_is_made_if_the_uri_allows_it(server: Server) -> None:
    query = f"scheme=http&endpoint_override=127.0.0.1:{server.port}&region=us-east-1"
    store = SweepStore(f"s3://there-is-none/mine?{query}", "s")
    with pytest.raises(FileNotFoundError, match="Bucket 'there-is-none' not found"):
        store.write("a", b"1")
    store = SweepStore(f"s3://there-is-none/mine?{query}&allow_bucket_creation=true", "s")
    store.write("a", b"1")
    assert store.read("a") == b"1"


def test_a_run_whose_clock_is_two_minutes_ahead_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.ledger.lock.RENEW_SECONDS", 0.5)
    said: list[str] = []
    with locked(SweepStore(bucket, "s")) as lock:
        ahead = time.time() + 120
        monkeypatch.setattr("time.time", lambda: ahead)
        with pytest.raises(LockedError, match="another run of the sweep"), locked(SweepStore(bucket, "s"), said.append):
            pass
        assert not lock.lost()
    assert said == ["a lock is there; watching whether its run is alive (20 s)"]
    assert not SweepStore(bucket, "s").exists()


def test_a_reader_of_a_bucket_whose_parts_are_merged_meanwhile(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = SweepStore(bucket, "s"), SweepStore(bucket, "s")
    for status in ("failed", "completed"):
        writer.append_statuses([TrialStatus(trial_id="a", status=status, epochs_run=0)])  # type: ignore[arg-type]
    listed = [reader.files("parts")] * 2
    look = reader.files
    monkeypatch.setattr(reader, "files", lambda folder: listed.pop() if listed else look(folder))
    writer.compact()
    assert reader.read_statuses()["status"].to_list() == ["completed"]
    assert listed == []


def test_notes_between_workers_do_not_stay_in_a_bucket(bucket: str) -> None:
    store = SweepStore(bucket, "s")
    for name in (f"{TEMPORARY}timeout-01234567-0123456789abcdef", "sweep.json"):
        store.write(name, b"content")
    store.remove_half_written()
    assert [Path(name).name for name in everything_below(bucket)] == ["sweep.json"]


def test_a_query_stays_at_the_end_of_whatever_is_below(bucket: str) -> None:
    folder, _, query = bucket.partition("?")
    store = SweepStore(bucket, "one")
    assert store.location == f"{folder}/one?{query}"
    assert store.locate("sweep.json") == f"{folder}/one/sweep.json?{query}"
    store.write("a/b", b"content")
    assert SweepStore(store.storage_path, "one").read("a/b") == b"content"
    assert open_store(store.uri).read("a/b") == b"content"
    assert store.files() == ["a/b"]
    assert store.exists()
    SweepStore(bucket, "two").write("sweep.json", b"{}")
    assert [(s.name, s.location) for s in store.siblings()] == [("two", f"{folder}/two?{query}")]
    store.clear()
    assert not store.exists()


@pytest.mark.slow  # the S3 client itself is patient, too
def test_storage_that_refuses_for_a_while_is_waited_for(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is gone and comes back: connections are refused meanwhile."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    gone = f"s3://bucket/x?scheme=http&endpoint_override=127.0.0.1:{listener.getsockname()[1]}"
    waits: list[float] = []
    store = SweepStore(gone, "s")
    there = SweepStore(bucket, "s")

    def come_back(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            store.filesystem, store.root = there.filesystem, there.root

    monkeypatch.setattr("analysis.store.time.sleep", come_back)
    store.write("file", b"content")
    listener.close()
    assert waits == [0.2]
    assert there.read("file") == b"content"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://user:pass@bucket/x", "s3://bucket/x"),
        (
            "python a.py --storage-path 's3://user:p%2Fss@b/x?region=y'",
            "python a.py --storage-path 's3://b/x?region=y'",
        ),
        ("s3://b/x?secret_key=hush&region=y", "s3://b/x?secret_key=***&region=y"),
        ("s3://b/x?session_token=hush", "s3://b/x?session_token=***"),
        ("https://example.org/hook?token=hush", "https://example.org/hook?token=***"),
        ("s3://b/x?endpoint_override=http://127.0.0.1:9000", "s3://b/x?endpoint_override=http://127.0.0.1:9000"),
        ("/home/me@work/results", "/home/me@work/results"),
    ],
)
def test_secrets_are_taken_out(text: str, expected: str) -> None:
    assert without_secrets(text) == expected


def test_credentials_in_the_uri_are_used_but_neither_stored_nor_printed(bucket: str) -> None:
    store = SweepStore(with_credentials(bucket), "s")
    store.write("file", b"content")
    assert store.read("file") == b"content"
    assert SECRET in store.uri
    assert SECRET not in store.location

"""What a URL is told, and that a receiver's troubles are not the sweep's."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sweeps.question.sweep import Sweep
from sweeps.watching import notify
from sweeps.watching.notify import Notifier, check_url
from tests.sweeps.runs import run_here


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The URL of a local server, and what was posted there."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_end_of_a_sweep_is_told(
    ray_cluster: None, storage: str, receiver: tuple[str, list[dict[str, Any]]]
) -> None:
    url, posted = receiver
    sweep = Sweep(name="s", question="Who is told?", lrs=(0.01,), epochs=1)
    assert run_here(sweep, storage, train_limit=320, notify=url)[0] == 0
    (told,) = posted
    assert told.pop("seconds") > 0
    assert told == {
        "event": "end",
        "name": "s",
        "location": f"{storage}/s",
        "trials": {"completed": 1},
        "exit_status": 0,
    }


def test_only_the_first_failure_is_told(receiver: tuple[str, list[dict[str, Any]]]) -> None:
    url, posted = receiver
    notifier = Notifier(f"{url}/broken", "s", "/there/s")
    notifier.failure({"failed": 1, "pending": 2}, "RuntimeError: no")
    notifier.failure({"failed": 2, "pending": 1}, "RuntimeError: no more")
    notifier.end({"failed": 2, "completed": 1}, 1)
    told = {body["event"]: body for body in posted}
    assert len(posted) == 2
    assert told["failure"]["error"] == "RuntimeError: no"
    assert told["failure"]["trials"] == {"failed": 1, "pending": 2}
    assert told["end"]["exit_status"] == 1


def test_a_receiver_that_is_silent_or_gone_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "FAREWELL_SECONDS", 0.3)
    release = threading.Event()
    monkeypatch.setattr(notify.urllib.request, "urlopen", lambda *_, **__: release.wait(10))
    started = time.monotonic()
    Notifier("http://127.0.0.1:1", "s", "/there/s").end({"completed": 1}, 0)
    assert time.monotonic() - started < 3
    release.set()
    monkeypatch.undo()
    Notifier("http://127.0.0.1:1", "s", "/there/s").end({"completed": 1}, 0)


@pytest.mark.parametrize("url", ["ftp://example.org/x", "example.org", "http://", "file:///etc/passwd", "http://a:x/"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="--notify takes an http:// or https:// URL"):
        check_url(url)

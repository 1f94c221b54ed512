"""Tells a URL how a sweep fares: at the first failure and at the end, without ever being in its way."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, Literal

from workloads.errors import InputError
from workloads.trial import Status

POST_SECONDS = 10.0
"""A receiver that takes longer is given up."""
FAREWELL_SECONDS = 10.0
"""How long the end of a sweep waits for what is still to be posted."""

Event = Literal["failure", "end"]


def check_url(url: str) -> str:
    """Returns a URL that can be posted to.

    Raises:
        InputError: It is not http or https, or has no host.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise InputError("--notify takes an http:// or https:// URL with a host, such as https://example.org/hook")
    return url


class Notifier:
    """Posts JSON objects from threads of their own; what goes wrong there is nobody's problem.

    Args:
        url: Where to; None for nowhere.
        name: Of the sweep.
        location: Of its results.
    """

    def __init__(self, url: str | None, name: str, location: str) -> None:
        self._url = url
        self._about = {"name": name, "location": location}
        self._started = time.monotonic()
        self._threads: list[threading.Thread] = []
        self._told_of_failure = False

    def failure(self, counts: Mapping[Status, int], error: str | None) -> None:
        """A trial has failed; only the first is told."""
        if not self._told_of_failure:
            self._told_of_failure = True
            self._post("failure", counts, error=error)

    def end(self, counts: Mapping[Status, int], exit_status: int) -> None:
        """The sweep has ended; waits a little for what is still under way."""
        self._post("end", counts, exit_status=exit_status)
        deadline = time.monotonic() + FAREWELL_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _post(self, event: Event, counts: Mapping[Status, int], **more: Any) -> None:
        if self._url is None:
            return
        seconds = round(time.monotonic() - self._started, 3)
        body = {"event": event, **self._about, "trials": dict(counts), "seconds": seconds, **more}
        thread = threading.Thread(target=_send, args=(self._url, json.dumps(body).encode()), daemon=True)
        thread.start()
        self._threads.append(thread)


def _send(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=POST_SECONDS) as answer:
            answer.read(1)
    except Exception:  # noqa: BLE001 - a receiver's troubles, whatever they are, must not be the sweep's
        return

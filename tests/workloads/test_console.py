"""What programs print, whatever the stream is."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.table import Table

from workloads.console import open_console


class Stream(io.TextIOWrapper):
    """A stream that may be a terminal, and what was written to it."""

    def __init__(self, encoding: str, *, terminal: bool) -> None:
        self.bytes = io.BytesIO()
        self.terminal = terminal
        super().__init__(self.bytes, encoding=encoding, errors="strict")

    def isatty(self) -> bool:
        return self.terminal

    def text(self) -> str:
        self.flush()
        return self.bytes.getvalue().decode(self.encoding)


def printed(monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8", *, terminal: bool = False, **env: str) -> str:
    """Returns what comes out of a long line, a table and a word in red."""
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    stream = Stream(encoding, terminal=terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    console = open_console()
    console.print("word " * 100 + "end")
    table = Table(*(f"column {number}" for number in range(40)), box=None)
    table.add_row(*("value" for _ in range(40)))
    console.print(table)
    console.print("[red]caution:[/red] 10 µm … – ×")
    return stream.text()


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("env", [{}, {"COLUMNS": "40"}, {"FORCE_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_away_from_a_terminal_nothing_is_wrapped_or_padded(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = without_colours(printed(monkeypatch, **env)).splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) < 600


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm"}, False),
    ],
    ids=str,
)
def test_colours_away_from_a_terminal(env: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, **env)
    assert ("\x1b[31mcaution:" in text) == coloured
    assert not open_console().is_terminal, "colours are no reason to draw anything anew"


def test_a_terminal_is_as_wide_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        max(map(len, without_colours(printed(monkeypatch, terminal=True, COLUMNS="40", TERM="xterm")).splitlines()))
        <= 40
    )


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_what_an_encoding_lacks_ends_nothing(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    last = printed(monkeypatch, encoding).splitlines()[-1]
    expected = {"latin-1": "caution: 10 µm ? ? ×", "ascii": "caution: 10 ?m ? ? ?", "utf-8": "caution: 10 µm … – ×"}
    assert last == expected[encoding]


def test_a_stream_that_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(sys, "stderr", text)
    open_console(stderr=True).print("x" * 500)
    assert text.getvalue() == "x" * 500 + "\n"

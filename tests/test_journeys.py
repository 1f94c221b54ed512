"""Journeys: commands are typed one after another in one folder, as a reader would, and so is all that they suggest.

Nothing is replaced: scripts run as programs do, on the Ray of the test session, with small data and few epochs. What is
refused fails the test, for a command that a text of ours suggests has to work at the moment it is suggested.
"""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from tests.test_docs import DOCUMENTS, commands

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("ray_cluster")

SMALL = ["--dataset", "synthetic", "--train-limit", "192", "--storage-path", "results"]
"""What makes a sweep small."""


MOST = {"--epochs": 3, "--more-seeds": 1, "--max-seeds": 4}
"""Flag -> the largest number that is left as it stands."""
FEW_SEEDS = ["--max-seeds", "4"]
"""What makes a race short."""


class Reader:
    """Someone who types commands into a terminal, in one folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self._typed: set[str] = set()
        monkeypatch.chdir(folder)

    def types(self, line: str) -> str:
        """Runs a command and returns what it printed; it has to end with status 0."""
        self._typed.add(line)
        words = shlex.split(line)[1:]
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "orig_argv", ["python", *words])
        status: object = 0
        with self._monkeypatch.context() as patch:
            module = words.pop(0) == "-m" if words[0] == "-m" else False
            program = words.pop(0)
            patch.setattr(sys, "argv", [program, *words])
            try:
                if module:
                    runpy.run_module(program, run_name="__main__")
                else:
                    path = Path(program) if Path(program).exists() else ROOT / program
                    runpy.run_path(str(path), run_name="__main__")
            except SystemExit as end:
                status = end.code or 0
        found = self._capsys.readouterr()
        assert status == 0, f"{line}\n{found.out}\n{found.err}"
        assert found.err == "", line
        return found.out

    def follows(self, output: str) -> list[str]:
        """Runs every command that an output suggests and that was not typed yet; returns what they printed."""
        new = [line for line in suggested(output) if line not in self._typed]
        self._typed |= set(new)
        return [self.types(shlex.join(shortened(shlex.split(line)))) for line in new]


def suggested(output: str) -> list[str]:
    """Returns the commands that an output suggests: the indented lines that call Python."""
    return [line.strip() for line in output.splitlines() if re.match(r"\s+\S*python\S* ", line)]


def shortened(words: list[str]) -> list[str]:
    """Returns a command; if it is a race without a budget, with one."""
    return [*words, *FEW_SEEDS] if "--decide" in words and "--max-seeds" not in words else words


def in_small(words: list[str]) -> str:
    """Returns a command of the README for small data, few epochs and seeds; nothing else of it is changed."""
    if not words[0].startswith("sweeps/"):
        return shlex.join(["python", *words])
    after = zip(["", *words[:-1]], words, strict=True)
    words = [str(min(int(word), MOST[flag])) if flag in MOST else word for flag, word in after]
    epochs = [] if "--epochs" in words else ["--epochs", "2"]
    return shlex.join(["python", *shortened(words), *epochs, *SMALL])


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Reader:
    """A reader in an empty folder."""
    return Reader(monkeypatch, capsys, tmp_path)


def test_after_the_first_answer(reader: Reader) -> None:
    """What the first answer suggests, and what the first of those suggests."""
    first = reader.types(in_small(["sweeps/optimizers.py", "--optimizers", "adam"]))
    assert suggested(first), first
    second, *_ = reader.follows(first)
    reader.follows(second)


def test_the_readme_from_top_to_bottom(reader: Reader) -> None:
    typed = 0
    for words in commands(DOCUMENTS["README.md"]):
        if words[0].startswith(("sweeps/", "analysis/")) and "--address" not in words and "s3://" not in str(words):
            if {"csv:photos/list.csv", "--smoke-test", "--hours"} & set(words):
                continue
            reader.types(in_small(words))
            typed += 1
    assert typed >= 10


@pytest.mark.parametrize("script", ["optimizers", "schedulers", "plateau", "cuts", "luck"])
def test_what_a_script_says_of_its_flags(script: str, reader: Reader) -> None:
    """Each of the flags that its docstring names, planned."""
    text = (ROOT / "sweeps" / f"{script}.py").read_text().split('"""')[1]
    flags = [" ".join(code.split()) for code in re.findall(r"`(--[^`]+)`", text)]
    assert flags
    for flag in flags:
        words = [word.replace("warmup_epochs=0,3", "warmup_epochs=0,1") for word in shlex.split(flag)]
        output = reader.types(f"{in_small([f'sweeps/{script}.py', *words])} --plan")
        assert "results:" in output

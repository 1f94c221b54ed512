"""The tables of the benchmarks' README are those of the results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import figures, readme


def test_the_tables_are_up_to_date() -> None:
    text = readme.README.read_text()
    assert sorted(readme.names(text)) == sorted(readme.TABLES), "a place for every result"
    assert readme.rewritten(text) == text, "run: python -m tests.benchmarks.readme"


def test_every_result_has_its_table() -> None:
    assert {path.stem for path in figures.FOLDER.glob("*.json")} <= set(readme.TABLES)


def test_what_is_written_is_read_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "results")
    growth = {"trials": 1_000, "records": 30_000, "trained": 1_556, "microseconds_per_record": 11.68}
    before = "a\n<!-- figures: fork_tree -->\nold\n<!-- end -->\nb\n"
    assert "Not measured yet." in readme.rewritten(before)
    figures.write("fork_tree", {"epochs": 30}, [growth | {"kilobytes_per_trial": 3.516}])
    after = readme.rewritten(before)
    lines = after.splitlines()
    assert lines[0] == "a"
    assert lines[-1] == "b"
    assert "| trials | records | epochs trained | time a record | memory a trial |" in lines
    assert "| 1,000 | 30,000 | 1,556 | 11.7 us | 3.5 kB |" in lines
    assert "old" not in after
    assert readme.rewritten(after) == after


def test_conditions_are_said() -> None:
    made: Mapping[str, Any] = {
        "commit": "0123456789",
        "uncommitted_changes": True,
        "python": "3.11.7",
        "versions": {"torch": "2.9", "ray": "2.60", "polars": "1.0"},
        "machine": {"processor": "A Processor"},
        "started": "2026-11-22T05:28:45+00:00",
    }
    arguments = {"rounds": 5, "images": 3200}
    text = figures.conditions(
        {"arguments": arguments, "provenance": made, "cores": 2, "load_average_at_end": [1.26, 0, 0]}
    )
    for part in (
        *("2026-11-22", "0123456 with uncommitted changes", "2 x A Processor", "ray 2.60", "1.3"),
        "rounds 5, images 3200",
    ):
        assert part in text

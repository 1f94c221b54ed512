"""The sweep that faults strike: its script, and how it ends when nothing happens to it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.sweeps.faults import ARGUMENTS, end_here
from tests.sweeps.runs import write_script


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """Environment variables that give a sweep temporary folders of its own: nobody else writes there."""
    (tmp_path / "tmp").mkdir()
    # Ray's holds sockets, whose paths must be short.
    with tempfile.TemporaryDirectory(prefix="rf", dir="/tmp", ignore_cleanup_errors=True) as short:
        yield {"TMPDIR": str(tmp_path / "tmp"), "RAY_TMPDIR": short}


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script of `tests.sweeps.faults.SWEEP`."""
    return write_script(tmp_path_factory.mktemp("script"), ARGUMENTS)


@pytest.fixture(scope="session")
def undisturbed(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The storage path of that sweep as it ends when nothing happens to it."""
    storage = str(tmp_path_factory.mktemp("undisturbed"))
    end_here(storage)
    return storage

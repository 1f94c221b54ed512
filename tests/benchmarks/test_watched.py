"""A command is measured with all it starts: time, memory, files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.watched import watch

CHILD = """
import time
kept = bytearray(100_000_000)
kept[::1024] = b"x" * len(kept[::1024])
while time.process_time() < 1.0:
    pass
"""
PARENT = f"""
import pathlib, subprocess, sys
pathlib.Path(sys.argv[1], "left").write_bytes(bytes(2_000_000))
gone = pathlib.Path(sys.argv[1], "gone")
gone.write_bytes(bytes(1_000_000))
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
gone.unlink()
print("the end")
"""


def test_what_a_command_and_its_children_take(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    usage = watch(command, folder=tmp_path, environment=os.environ, folders={"here": tmp_path})
    assert usage.seconds > 0.9
    assert 0.3 < usage.cpu_seconds < 10, "the child's second, less what the last sample missed"
    assert 100 < usage.peak_megabytes < 1_000
    assert usage.files == {"here": 2}
    assert usage.left_megabytes == {"here": 2.0}
    assert usage.seconds_until("the end") <= usage.seconds + 1
    with pytest.raises(ValueError, match="nothing printed says 'another'"):
        usage.seconds_until("another")


def test_a_command_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('why'); raise SystemExit(3)"]
    with pytest.raises(subprocess.CalledProcessError) as failure:
        watch(command, folder=tmp_path, environment=os.environ, folders={})
    assert failure.value.returncode == 3
    assert failure.value.output == "why"

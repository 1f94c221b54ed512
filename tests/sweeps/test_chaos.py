"""A sweep struck again and again, at random moments and in random ways, ends like one that nothing befell."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweeps.faults import (
    FAST_RAY,
    FAULTS,
    FLAGS,
    RECORDS,
    Process,
    assert_ends_like,
    count_records,
    damage,
    end_here,
)
from tests.sweeps.runs import finish, start

Tally = Counter[tuple[str, str, str]]
"""Fault, moment and what became of the run -> how often."""


@pytest.fixture(scope="module")
def tally(pytestconfig: pytest.Config) -> Iterator[Tally]:
    """What was struck, when and how that run ended; printed as a table after the last test."""
    found: Tally = Counter()
    yield found
    terminal = pytestconfig.pluginmanager.getplugin("terminalreporter")
    terminal.write_line("")
    terminal.write_line("| fault | moment | that run | times |")
    terminal.write_line("|---|---|---|---|")
    for (fault, moment, result), count in sorted(found.items()):
        terminal.write_line(f"| {fault} | {moment} | {result} | {count} |")


def wait_for_the_moment(process: Process, storage: str, chance: random.Random, *, fresh: bool) -> bool:
    """Waits for some seconds, or for some records and a little longer; returns whether the sweep still runs then."""
    if chance.random() < 0.3:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, 10))
        return process.poll() is None
    known = RECORDS if fresh else count_records(storage)
    wanted = min(RECORDS, chance.randint(1, 10) + (0 if fresh else known))
    while process.poll() is None:
        count = count_records(storage)
        if count >= wanted and count != known:
            time.sleep(chance.uniform(0, 1))
            break
        time.sleep(0.05)
    return process.poll() is None


def chaos(rounds: int, seed: int, script: Path, storage: str, undisturbed: str, tally: Tally) -> None:
    """Strikes a sweep once a round, damages a file after every other one, then lets it finish."""
    print(f"chaos from seed {seed}")
    chance = random.Random(seed)
    for turn in range(1, rounds + 1):
        before = count_records(storage)
        # What is complete already would give nothing to strike.
        again = ("--fresh",) if before == RECORDS else ()
        if again:
            end_here(storage)
            assert_ends_like(undisturbed, storage)
        process = start(script, storage, *FLAGS, *again, **FAST_RAY)
        fault = chance.choice(list(FAULTS))
        if wait_for_the_moment(process, storage, chance, fresh=bool(again)):
            after = count_records(storage)
            moment = "starting" if after in (0, before) else "training" if after < RECORDS else "finishing"
            FAULTS[fault][0](process)
        else:
            fault = moment = "none"
        try:
            status, output, complaints = finish(process, seconds=300)
        except subprocess.TimeoutExpired:
            print(f"round {turn}: {fault} while {moment}: does not end")
            raise
        print(f"round {turn}: {fault} while {moment}, {before} -> {count_records(storage)} records: status {status}")
        assert "Traceback" not in complaints, (output, complaints)
        tally[fault, moment, f"exit status {status}"] += 1
        folder = Path(storage) / "s"
        files = sorted([*folder.glob("parts/*"), *folder.glob("checkpoints/*/*")])
        if files and chance.random() < 0.5:
            victim = chance.choice(files)
            damage(victim, chance)
            kind = victim.name.partition("-")[0] if victim.parent.name == "parts" else victim.parent.parent.name
            print(f"round {turn}: damaged {victim.name}")
            tally["damaged file", f"between runs: {kind}", "noticed, made anew"] += 1
    end_here(storage)
    assert_ends_like(undisturbed, storage)
    tally["(the whole sweep)", f"after {rounds} rounds", "tables bitwise equal to an undisturbed run's"] += 1


@pytest.mark.chaos
def test_chaos_in_short(script: Path, storage: str, undisturbed: str, tally: Tally) -> None:
    chaos(1, 7, script, storage, undisturbed, tally)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(10))
def test_chaos(seed: int, script: Path, storage: str, undisturbed: str, tally: Tally) -> None:
    chaos(8, seed, script, storage, undisturbed, tally)

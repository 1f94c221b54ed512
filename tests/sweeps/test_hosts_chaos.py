"""A cluster of three hosts, struck again and again at random moments, ends every sweep like one that nothing befell.

    FORKSWEEP_CHAOS_FAULTS=200 pytest -n 0 -m chaos tests/sweeps/test_hosts_chaos.py

strikes that often; `FORKSWEEP_CHAOS_MINUTES` ends it after a time; `FORKSWEEP_CHAOS_SEED` makes other choices.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from analysis.store import LOCK_FILE, SweepStore
from tests.hosts.cluster import STORAGE, WORKING, Cluster, Process, cluster, reason_to_skip, signal_program, wait_until
from tests.hosts.switch import Weather
from tests.sweeps.faults import FAST_RAY
from tests.sweeps.runs import finish, write_script
from tests.sweeps.test_hosts import (
    ARGUMENTS,
    AXIS,
    TRIALS,
    assert_ends_like,
    count_records,
    kill_ray,
    run_alone,
    slow_down,
)

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip())),
]

EPOCHS = 80
LONGER, RECORDS = ARGUMENTS.replace("epochs=12", f"epochs={EPOCHS}"), TRIALS * EPOCHS
"""So that most of what befalls a sweep does in mid-training."""
SHORT_TIMES = """
    import analysis.plots
    import sweeps.ledger.lock
    analysis.plots.draw_plots = lambda *_, **__: []
    sweeps.ledger.lock.RENEW_SECONDS, sweeps.ledger.lock.WATCH_SECONDS = 0.5, 4.0
"""
"""Nobody waits 20 seconds after each kill to see that a run is dead, nor for pictures."""
MOST_A_SWEEP = 12
"""After that many faults a sweep is left alone until it ends."""
LONGEST = 300
"""Seconds after which a sweep that is left alone counts as hanging."""

Tally = Counter[tuple[str, str, str]]
"""Fault, moment and what became of the run -> how often."""


@dataclass(frozen=True)
class Struck:
    """What a fault has to strike."""

    hosts: Cluster
    process: Process
    chance: random.Random

    @property
    def worker(self) -> str:
        """A host that is not the head."""
        return self.chance.choice(WORKING[1:])

    def lasts(self, most: float) -> None:
        """Waits for a random time of so many seconds at most."""
        time.sleep(self.chance.uniform(0.5, most))


def storm(most: float, describe: Callable[[Struck], Weather]) -> Callable[[Struck], None]:
    """Returns what makes the network bad for a time."""

    def strike(struck: Struck) -> None:
        struck.hosts.be(describe(struck))
        struck.lasts(most)
        struck.hosts.be(Weather())

    return strike


def kill_worker(struck: Struck) -> None:
    """Kills a worker that trains, on any host."""
    for name in struck.chance.sample(WORKING, len(WORKING)):
        for member in struck.hosts.hosts[name].processes():
            with contextlib.suppress(psutil.Error):
                if member.name().startswith("ray::ImplicitFunc"):
                    member.kill()
                    return


def slow_host(struck: Struck) -> None:
    """Lets all of a host run a tenth of the time, for a while."""
    slow = slow_down(struck.worker)(struck.hosts)
    struck.lasts(6)
    signal_program(slow, signal.SIGKILL)
    slow.communicate()
    for host in struck.hosts.hosts.values():
        for member in host.processes():
            with contextlib.suppress(psutil.Error):
                member.resume()


def tell(number: signal.Signals) -> Callable[[Struck], None]:
    """Returns what sends a signal to the driver."""
    return lambda struck: signal_program(struck.process, number)


def suspend(struck: Struck) -> None:
    """Stops the driver for a while."""
    signal_program(struck.process, signal.SIGSTOP)
    struck.lasts(8)
    signal_program(struck.process, signal.SIGCONT)


HEAD = WORKING[0]
FAULTS: Mapping[str, Callable[[Struck], None]] = {
    "worker host cut off for up to 8 s": storm(8, lambda struck: Weather(cut=(struck.worker,))),
    "storage cut off for up to 8 s": storm(8, lambda struck: Weather(cut=(STORAGE,))),
    "head cut off from a worker for up to 8 s": storm(8, lambda struck: Weather(apart=((HEAD, struck.worker),))),
    "head cut off for up to 8 s": storm(8, lambda struck: Weather(cut=(HEAD,))),
    "200 ms and 5 % loss for up to 8 s": storm(8, lambda struck: Weather(seconds=0.2, loss=0.05)),
    "worker host rebooted": lambda struck: struck.hosts.reboot(struck.worker),
    "worker process killed": kill_worker,
    "head's Ray killed": lambda struck: kill_ray(struck.hosts),
    "host ten times slower for up to 6 s": slow_host,
    "driver killed": tell(signal.SIGKILL),
    "driver suspended for up to 8 s": suspend,
    "driver interrupted": tell(signal.SIGINT),
    "driver terminated": tell(signal.SIGTERM),
}


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The storage path of the sweep as one host alone has it."""
    return run_alone(LONGER, tmp_path_factory)


@pytest.fixture(scope="module")
def tally(pytestconfig: pytest.Config) -> Iterator[Tally]:
    """What was struck, when and what became of that run; printed as a table at the end."""
    found: Tally = Counter()
    yield found
    terminal = pytestconfig.pluginmanager.getplugin("terminalreporter")
    terminal.write_line("\n| fault | " + " | ".join(MOMENTS) + " | what became of that run |")
    terminal.write_line("|---|---|---|---|---|")
    for fault in FAULTS:
        counts = [sum(n for (f, m, _), n in found.items() if (f, m) == (fault, moment)) for moment in MOMENTS]
        ends: Counter[str] = Counter()
        for (struck, _, end), count in found.items():
            ends[end] += count if struck == fault else 0
        became = ", ".join(f"{count} x {end}" for end, count in sorted(ends.items()) if count)
        terminal.write_line(f"| {fault} | {' | '.join(map(str, counts))} | {became} |")
    for (fault, moment, end), count in sorted(found.items()):
        if fault not in FAULTS:
            terminal.write_line(f"| {fault} | {moment} | {count} x {end} |")


def lock_of(storage: str) -> bytes:
    """Returns what the lock says; nothing if there is none."""
    with contextlib.suppress(FileNotFoundError):
        return SweepStore(storage, "s").read(LOCK_FILE)
    return b""


MOMENTS: Mapping[str, float] = {"starting": 8, "training": 3, "finishing": 2}
"""What a sweep is at -> up to so many seconds later it is struck."""


def moment_of(count: int, before: int) -> str:
    return "finishing" if count == RECORDS else "training" if count > before else "starting"


def wait_for_a_moment(process: Process, chance: random.Random, count: Callable[[], int], before: int) -> None:
    """Waits until the sweep is at something chosen by chance, and then a little longer; or until it has ended."""
    # To wait for the end of a sweep that has just begun would take longer than everything else.
    wanted = chance.choices(list(MOMENTS), weights=(2, 8, 4 if count() > 0.7 * RECORDS else 0))[0]
    later, order = chance.uniform(0, MOMENTS[wanted]), list(MOMENTS)

    def come() -> bool:
        return _ended(process) or order.index(moment_of(count(), before)) >= order.index(wanted)

    with contextlib.suppress(subprocess.TimeoutExpired):
        wait_until(come, 300, "hangs")
        process.wait(later)


def _ended(process: Process) -> bool:
    """Whether a process has ended, a little later: to count records is work for the server."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2)
    return process.poll() is not None


def test_chaos_on_three_hosts(
    tmp_path: Path, undisturbed: str, tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = int(os.environ.get("FORKSWEEP_CHAOS_FAULTS", "20"))
    until = time.monotonic() + 60 * float(os.environ.get("FORKSWEEP_CHAOS_MINUTES", "600"))
    chance = random.Random(int(os.environ.get("FORKSWEEP_CHAOS_SEED", "1")))
    script = write_script(tmp_path, LONGER, AXIS + SHORT_TIMES)
    done = 0

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"{time.strftime('%H:%M:%S')} {done}: {text}", flush=True)

    with cluster(**FAST_RAY) as hosts:
        while done < wanted and time.monotonic() < until:
            inside, outside = hosts.bucket()
            strikes, status = 0, -1
            while status != 0:
                hosts.mend()
                before = count_records(outside)
                owner = lock_of(outside)
                process = hosts.sweep(script, inside, "--no-preflight", "--retry-failed")
                wait_until(lambda: process.poll() is not None or lock_of(outside) not in (owner, b""), 300, "no start")  # noqa: B023
                fault = ""
                while process.poll() is None and strikes < MOST_A_SWEEP and done < wanted:
                    wait_for_a_moment(process, chance, lambda: count_records(outside), before)  # noqa: B023
                    if process.poll() is not None:
                        break
                    fault, moment = chance.choice(list(FAULTS)), moment_of(count_records(outside), before)
                    FAULTS[fault](Struck(hosts, process, chance))
                    strikes, done = strikes + 1, done + 1
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(2)
                    end = "went on" if process.poll() in (None, 0) else f"exit status {process.poll()}"
                    tally[fault, moment, end] += 1
                    say(f"{fault} while {moment}, {count_records(outside)} records: {end}")
                    if process.poll() is None:
                        hosts.mend()
                status, output, complaints = finish(process, LONGEST)
                said = (output + complaints).strip().splitlines()[-1:]
                if status != 0:
                    say(f"exit status {status} with {count_records(outside)} records: {said}")
                assert "Traceback" not in output + complaints, (fault, output, complaints)
                assert "bug in forksweep" not in output + complaints, (fault, output, complaints)
                # A Ray that is gone is refused at the start; a signal once all is done finds no handler any more.
                refused = status == 2 and "no Ray cluster answers" in complaints
                too_late = status in (-signal.SIGTERM, -signal.SIGINT) and "Next steps:" in output
                assert refused or too_late or status in (0, 1, 130, -signal.SIGKILL), (fault, output, complaints)
            assert_ends_like(undisturbed, outside)
            tally["(whole sweeps)", f"struck {strikes} times", "tables bitwise equal to an undisturbed run's"] += 1
            say("the sweep ended like an undisturbed one")

"""Sweeps on a cluster of three hosts with a bucket on a fourth, and what hosts and networks do to them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from polars.testing import assert_frame_equal

from analysis.store import SweepStore
from sweeps.question.grid import axis
from sweeps.question.sweep import Sweep
from tests.hosts.cluster import (
    ADDRESSES,
    GCS,
    RAY_FOLDER,
    STORAGE,
    WORKING,
    Cluster,
    Process,
    cluster,
    reason_to_skip,
    signal_program,
    wait_until,
)
from tests.hosts.switch import Weather
from tests.sweeps.runs import ROOT, finish, measured, run_here, statuses, table_of, write_script

ARGUMENTS = (
    "name='s', question='Does it end as it should?', grid=axis('workload', 'lenet_synthetic'), "
    "schedulers=('none', 'step', 'plateau'), lrs=(0.005, 0.01, 0.02, 0.04), epochs=12"
)
TRIALS = 12
AXIS = """
    from sweeps.question.grid import axis
"""
RECEIVED = """
    from sweeps.tuning import execution

    import ray
    from ray._private.internal_api import node_stats

    def run_tree(run, data, train=execution.run_tree):
        size = sum(array.nbytes for one in data.values() for array in (one.images, one.labels))
        train(run, data=data)
        for node in ray.nodes():
            if node["Alive"]:
                stored = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False).store_stats
                times = stored.cumulative_created_bytes / size
                print(f"{node['NodeManagerHostname']} received {times:.4f} times the data")

    execution.run_tree = run_tree
"""

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))


@pytest.fixture(scope="module")
def hosts() -> Iterator[Cluster]:
    """Three hosts with a Ray of one cluster; a test finds them as they were made (`well`)."""
    with cluster() as made:
        yield made


@pytest.fixture
def well(hosts: Cluster) -> Cluster:
    """The hosts, after whatever befell them before was mended."""
    hosts.mend()
    return hosts


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep's script, which says how much of the data each host received."""
    return write_script(tmp_path_factory.mktemp("script"), ARGUMENTS, AXIS + RECEIVED)


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The storage path of the sweep as one host alone has it."""
    return run_alone(ARGUMENTS, tmp_path_factory)


def run_alone(arguments: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Runs a sweep with these arguments on one host; returns its storage path."""
    storage = str(tmp_path_factory.mktemp("undisturbed"))
    sweep: Sweep = eval(f"Sweep({arguments})", {"Sweep": Sweep, "axis": axis})
    status, text = run_here(sweep, storage)
    assert status == 0, text
    return storage


def count_records(storage: str) -> int:
    return len(SweepStore(storage, "s").read_epochs())


def wait_for_records(storage: str, count: int, process: Process, seconds: float = 180) -> None:
    def there() -> bool:
        assert process.poll() is None, process.communicate()
        return count_records(storage) >= count

    wait_until(there, seconds, "the sweep stores no records")


def assert_ends_like(undisturbed: str, storage: str) -> None:
    """Compares a sweep in a bucket with one that nothing befell on one host."""
    assert statuses(storage, "s") == ["completed"] * TRIALS
    assert_frame_equal(measured(storage, "s"), measured(undisturbed, "s"), check_exact=True)
    records = len(table_of(undisturbed, "s", "epochs"))
    assert len(table_of(storage, "s", "epochs")) == records, "no record is lost, and none is there twice"
    assert ".lock" not in SweepStore(storage, "s").files()


def trained_on(cluster: Cluster, storage: str) -> Mapping[str, set[str]]:
    """Returns from which hosts each trial's checkpoints came, by what the bucket's server saw."""
    names = {address: name for name, address in ADDRESSES.items()}
    bucket = storage.removeprefix("s3://").partition("?")[0]
    found: dict[str, set[str]] = {}
    for client, method, path in cluster.requests():
        if method == "PUT" and path.startswith(f"/{bucket}/s/checkpoints/"):
            found.setdefault(path.split("/")[-2], set()).add(names[client])
    return found


def test_a_sweep_on_three_hosts_is_that_of_one(well: Cluster, script: Path, undisturbed: str) -> None:
    inside, outside = well.bucket()
    status, output, complaints = finish(well.sweep(script, inside), 300)
    assert status == 0, (output, complaints)
    assert_ends_like(undisturbed, outside)
    trials = table_of(outside, "s")
    assert {node.partition("/")[0] for node in trials["node"]} == set(WORKING)
    came_from = trained_on(well, outside)
    for trial_id, computed_by, node in zip(trials["trial_id"], last_computed_by(outside), trials["node"], strict=True):
        assert node.partition("/")[0] in came_from[computed_by], trial_id
    received = {line.split()[0]: float(line.split()[2]) for line in output.splitlines() if " received " in line}
    assert set(received) == set(WORKING)
    assert all(1 <= times < 1.5 for times in received.values()), "the data came to each host once"
    assert well.token not in output + complaints


def test_hosts_end_with_the_process_that_made_them_however_it_ends() -> None:
    code = "from tests.hosts.cluster import *\nwith Cluster(): print('made', flush=True), time.sleep(600)"
    maker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    assert maker.stdout.readline() == "made\n"
    made = psutil.Process(maker.pid).children(recursive=True)
    assert len(made) > 10
    maker.kill()
    maker.communicate()
    assert psutil.wait_procs(made, timeout=20)[1] == [], "and with them their networks and memory"


def last_computed_by(storage: str) -> list[str]:
    """Returns which trial's training computed each trial's last epoch, in the order of the table of trials."""
    epochs = table_of(storage, "s", "epochs").sort("epoch").group_by("trial_id").last()
    found = dict(epochs.select("trial_id", "computed_by").iter_rows())
    return [found[trial_id] for trial_id in table_of(storage, "s")["trial_id"]]


# -- faults ---------------------------------------------------------------------------------------------------------


def nothing(hosts: Cluster) -> None:
    """Leaves things as they are."""


def weather(**described: object) -> Callable[[Cluster], None]:
    """Returns what makes the network be like that."""
    return lambda hosts: hosts.be(Weather(**described))  # type: ignore[arg-type]


fair = weather()
head_apart = weather(apart=tuple((WORKING[0], name) for name in WORKING[1:]))


def power_cut(*names: str) -> Callable[[Cluster], None]:
    """Returns what turns hosts off and on again."""

    def strike(hosts: Cluster) -> None:
        for name in names:
            hosts.reboot(name)

    return strike


def kill_ray(hosts: Cluster) -> None:
    """Kills the head's Ray, all of it, but not the sweep, which runs beside it."""
    for member in hosts.head.processes():
        if member.name() in ("gcs_server", "raylet") or member.name().startswith("ray::"):
            with contextlib.suppress(Exception):
                member.kill()


def slow_down(name: str) -> Callable[[Cluster], Process]:
    """Returns what lets all processes of a host run a tenth of the time, as long as the process it returns runs."""
    code = (
        "import os, signal, time\n"
        "while True: os.kill(-1, signal.SIGSTOP); time.sleep(0.18); os.kill(-1, signal.SIGCONT); time.sleep(0.02)"
    )
    return lambda hosts: hosts.hosts[name].start(sys.executable, "-c", code)


SHIFT = """
import os, time

time.time = lambda real=time.time: real() + float(os.environ["CLOCK_SHIFT"])
"""
"""What makes Python's clock wrong. Hosts of one machine share its real one (no namespace has its own), and libfaketime
makes Python's `time.sleep` fail (0.9.10 and Python 3.11)."""


def wrong_clocks(hosts: Cluster) -> None:
    """Starts the workers' Ray again with clocks that are ten minutes ahead and behind."""
    for name, shift in zip(WORKING[1:], ("600", "-600"), strict=True):
        hosts.reboot(name)
        host, folder = hosts.hosts[name], f"{RAY_FOLDER}/clock"
        host.run("sh", "-c", 'mkdir -p "$1" && echo "$2" > "$1/sitecustomize.py"', "sh", folder, SHIFT)
        hosts.start_ray(name, CLOCK_SHIFT=shift, PYTHONPATH=f"{folder}:{ROOT}")
        said = host.run(sys.executable, "-c", "import time; print(time.time())", CLOCK_SHIFT=shift, PYTHONPATH=folder)
        assert abs(float(said) - time.time() - float(shift)) < 60


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What befalls hosts while a sweep trains on them."""

    before: Callable[[Cluster], object] = nothing
    """Done before the sweep starts."""
    strike: Callable[[Cluster], None] = nothing
    """Done in mid-training."""
    seconds: float = 0.0
    """How long it lasts; no longer than the sweep."""
    heal: Callable[[Cluster], None] = nothing
    """Done then."""
    ends: tuple[int, ...] = (0,)
    """The exit statuses of a sweep struck by it; after another than 0, the same command is given once more."""
    says: tuple[str, ...] = ()
    """What the sweep says of it."""
    repair: Callable[[Cluster], None] = nothing
    """Done before the same command is given once more."""


def join_late(hosts: Cluster) -> None:
    """Starts Ray on the third host."""
    hosts.start_ray(WORKING[2])


worker_cut, storage_cut = weather(cut=(WORKING[1],)), weather(cut=(STORAGE,))
FAULTS: Mapping[str, Fault] = {
    "a worker host cut off for 5 s": Fault(strike=worker_cut, seconds=5, heal=fair),
    "a worker host cut off for 2 min": Fault(strike=worker_cut, seconds=120, heal=fair),
    "a worker host cut off for good": Fault(strike=worker_cut),
    "the storage cut off for 5 s": Fault(strike=storage_cut, seconds=5, heal=fair),
    "the storage cut off for 30 s": Fault(strike=storage_cut, seconds=30, heal=fair, ends=(0, 1)),
    "the storage cut off for 5 min": Fault(strike=storage_cut, seconds=300, heal=fair, ends=(0, 1)),
    "the head cut off from all workers for 1 min": Fault(strike=head_apart, seconds=60, heal=fair),
    "200 ms latency and 5 % loss": Fault(before=weather(seconds=0.2, loss=0.05), seconds=900, heal=fair),
    "a host ten times slower": Fault(before=slow_down(WORKING[1]), seconds=900, heal=power_cut(WORKING[1])),
    "a host rebooted": Fault(strike=power_cut(WORKING[1]), seconds=1, heal=lambda hosts: hosts.start_ray(WORKING[1])),
    "the head's Ray killed": Fault(
        strike=kill_ray, ends=(1,), says=(f"Ray's head at {GCS} does not answer",), repair=Cluster.mend
    ),
    "a host that joins late": Fault(before=power_cut(WORKING[2]), strike=join_late),
    "clocks ten minutes apart": Fault(before=wrong_clocks),
}


@pytest.mark.chaos
@pytest.mark.parametrize("name", FAULTS)
def test_ends_complete_after(name: str, well: Cluster, script: Path, undisturbed: str) -> None:
    fault = FAULTS[name]
    inside, outside = well.bucket()
    fault.before(well)
    process = well.sweep(script, inside)
    wait_for_records(outside, 3, process)
    fault.strike(well)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(fault.seconds)
    fault.heal(well)
    status, output, complaints = finish(process, 600)
    print(f"{name}: exit status {status}, {count_records(outside)} records\n{output[-1500:]}\n{complaints[-1500:]}")
    assert "Traceback" not in output + complaints, (output, complaints)
    assert status in fault.ends, (output, complaints)
    assert all(sentence in output for sentence in fault.says), output
    if status != 0:
        fault.repair(well)
        status, output, complaints = finish(well.sweep(script, inside), 600)
        assert status == 0, (output, complaints)
    assert_ends_like(undisturbed, outside)


# -- the lock ---------------------------------------------------------------------------------------------------------


@pytest.mark.chaos
def test_a_driver_that_stood_still_finds_another_in_its_place(well: Cluster, script: Path, undisturbed: str) -> None:
    inside, outside = well.bucket()
    first = well.sweep(script, inside, "--max-concurrent", "1")
    wait_for_records(outside, 2, first)
    signal_program(first, signal.SIGSTOP)
    # It goes on beside the first, which holds one of the three CPUs.
    second = well.sweep(script, inside, "--max-concurrent", "1", host=WORKING[1])
    wait_for_records(outside, count_records(outside) + 3, second)
    asked = len(well.requests())
    signal_program(first, signal.SIGCONT)
    status, output, complaints = finish(first, 120)
    assert (status, complaints.count("\n")) == (1, 1), (output, complaints)
    assert complaints.startswith("stopped: another run has taken over s3://bucket")
    # Workers on its host may store a checkpoint yet, of the bytes that it has anyway, and make sure of the folders.
    changes = [
        (method, path)
        for client, method, path in well.requests()[asked:]
        if client == ADDRESSES[WORKING[0]] and method in ("PUT", "POST", "DELETE")
        if method == "DELETE" or not ("/checkpoints/" in path or path.endswith("/"))
    ]
    assert changes == [], "it writes nothing more"
    status, output, complaints = finish(second, 600)
    assert status == 0, (output, complaints)
    assert_ends_like(undisturbed, outside)


STARTERS = """
import sys, threading, time

from analysis.store import SweepStore
from sweeps.ledger.lock import LockedError, TakenOverError, locked


def end(lock):
    try:
        lock.check()
    except TakenOverError:
        return "lost"
    except OSError:
        return "unsure"
    return "kept"


def start(storage, at):
    time.sleep(max(0, at - time.time()))
    try:
        with locked(SweepStore(storage, "s")) as lock:
            began = time.monotonic()
            time.sleep(12)
            now = time.monotonic()
            print(storage, end(lock), began, now)
    except LockedError:
        print(storage, "refused", 0, 0)


threads = [threading.Thread(target=start, args=(a.split(" ")[0], float(a.split(" ")[1]))) for a in sys.argv[1:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.chaos
@pytest.mark.parametrize("network", [Weather(), Weather(seconds=0.2, loss=0.05)], ids=["fair", "bad"])
def test_of_two_that_start_on_two_hosts_at_any_time_apart_one_wins(well: Cluster, network: Weather) -> None:
    apart = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.3, 2.0, 4.0)
    places = [well.bucket()[0] for _ in apart]
    well.be(network)
    begin = time.time() + 15
    late = [f"{place} {begin + seconds}" for place, seconds in zip(places, apart, strict=True)]
    started = [
        well.hosts[name].start(sys.executable, "-c", STARTERS, *words)
        for name, words in ((WORKING[0], [f"{place} {begin}" for place in places]), (WORKING[1], late))
    ]
    ends = [process.communicate(timeout=200) for process in started]
    well.be(Weather())
    lines = [line.split(" ") for output, _ in ends for line in output.splitlines()]
    for place, seconds in zip(places, apart, strict=True):
        found = sorted((end, float(began), float(ended)) for where, end, began, ended in lines if where == place)
        if network.loss and [end for end, *_ in found] == ["kept", "kept"]:
            # One held it after the other, whose renewals took so long that it saw none before the lock was gone.
            (_, one_began, one_ended), (_, other_began, other_ended) = found
            assert one_ended < other_began or other_ended < one_began, (seconds, found, ends)
        elif network.loss:  # who has lost it, or cannot know, writes nothing
            assert sum(end == "kept" for end, *_ in found) <= 1, (seconds, found, ends)
            assert {end for end, *_ in found} <= {"kept", "lost", "refused", "unsure"}, (seconds, found, ends)
        else:
            assert [end for end, *_ in found] == ["kept", "refused"], (seconds, found)

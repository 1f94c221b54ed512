"""Real sweeps, really killed: whatever dies, the same command ends with the tables of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal

from analysis.store import SweepStore
from sweeps import tuning
from sweeps.cli import INTERRUPTED
from sweeps.sweep import Sweep
from tests.sweeps.runs import finish, measured, run_here, run_script, start, statuses, table_of, write_script
from workloads.training import train
from workloads.trial import EpochRecord, TrialConfig

ARGUMENTS = (
    "name='s', question='Does it end as it should?', schedulers=('none', 'step', 'exponential', 'plateau'), "
    "lrs=(0.01,), epochs=5"
)
FLAGS = ("--train-limit", "3200")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_script(tmp_path_factory.mktemp("script"), ARGUMENTS)


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The storage path of the sweep as it ends when nothing happens to it."""
    storage = str(tmp_path_factory.mktemp("undisturbed"))
    status, text = run_here(eval(f"Sweep({ARGUMENTS})", {"Sweep": Sweep}), storage, train_limit=3200)
    assert status == 0, text
    return storage


def assert_ends_like(undisturbed: str, storage: str) -> None:
    assert statuses(storage, "s") == ["completed"] * 4
    assert_frame_equal(measured(storage, "s"), measured(undisturbed, "s"), check_exact=True)
    folder = Path(storage) / "s"
    leftover = [path.name for path in folder.rglob("*") if path.name.startswith(".")]
    assert leftover == [], "no lock and no half-written file stays behind"


def wait_for_records(storage: str, count: int, process: subprocess.Popen[str], seconds: float = 90) -> None:
    """Waits until a running sweep has stored that many records."""
    store = SweepStore(storage, "s")
    deadline = time.monotonic() + seconds
    while len(store.read_epochs()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the sweep stores no records"
        time.sleep(0.05)


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # gone with another one
            process.kill()


def kill_worker(process: subprocess.Popen[str]) -> None:
    """Kills a worker that trains, in the middle of whatever it does."""
    workers = [child for child in descendants(process) if child.name().startswith("ray::ImplicitFunc")]
    if workers:
        workers[0].kill()


def kill_driver(process: subprocess.Popen[str]) -> None:
    """Kills the sweep itself, and what its Ray then leaves behind: agents that nobody tells to end."""
    children = descendants(process)
    process.kill()
    kill(psutil.wait_procs(children, timeout=5)[1])


def kill_ray(process: subprocess.Popen[str]) -> None:
    """Kills the sweep's Ray: all of its processes."""
    kill(descendants(process))


def interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def terminate(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)


FAULTS: dict[str, tuple[Callable[[subprocess.Popen[str]], None], int]] = {
    "worker killed": (kill_worker, 0),
    "driver killed": (kill_driver, -signal.SIGKILL),
    "interrupted": (interrupt, INTERRUPTED),
    "terminated": (terminate, INTERRUPTED),
}
"""Fault -> what does it, and the sweep's exit status then."""

FAST_RAY = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
"""How soon a driver gives up on a Ray that is gone: by default only after a minute."""


@pytest.mark.parametrize("fault", FAULTS)
def test_ends_complete_after(fault: str, script: Path, storage: str, undisturbed: str) -> None:
    strike, expected = FAULTS[fault]
    scratch = set(Path(tempfile.gettempdir()).glob("forksweep-*"))
    process = start(script, storage, *FLAGS)
    wait_for_records(storage, 5, process)
    children = descendants(process)
    strike(process)
    status, output, complaints = finish(process)
    assert status == expected, (output, complaints)
    assert "Traceback" not in complaints
    assert psutil.wait_procs(children, timeout=20)[1] == [], "no process of the sweep stays behind"
    if status == INTERRUPTED:
        assert "the same command goes on" in output
        assert "pending" in statuses(storage, "s")
        assert set(Path(tempfile.gettempdir()).glob("forksweep-*")) == scratch
    if status != 0:
        status, output, complaints = run_script(script, storage, *FLAGS)
        assert status == 0, (output, complaints)
    assert_ends_like(undisturbed, storage)


def test_ends_complete_after_its_ray_was_stopped(script: Path, storage: str, undisturbed: str) -> None:
    process = start(script, storage, *FLAGS, **FAST_RAY)
    wait_for_records(storage, 5, process)
    kill_ray(process)
    assert finish(process)[0] != 0
    assert run_script(script, storage, *FLAGS)[0] == 0
    assert_ends_like(undisturbed, storage)


def test_a_second_run_is_refused_at_once_and_a_killed_one_leaves_no_lock(script: Path, storage: str) -> None:
    process = start(script, storage, *FLAGS)
    wait_for_records(storage, 1, process)
    status, _, complaints = run_script(script, storage, *FLAGS)
    assert status == 2
    assert "another run of the sweep" in complaints
    assert len(complaints.strip().splitlines()) == 1
    kill_driver(process)
    process.communicate()
    assert run_script(script, storage, *FLAGS, "--plan")[0] == 0


def test_a_full_object_store_only_slows_things_down(storage: str, undisturbed: str) -> None:
    code = """
        import ray
        little = 80 << 20  # bytes; the data set alone takes more than three times that
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=little
        )
    """
    script = write_script(Path(storage).parent / "small", ARGUMENTS, code)
    status, output, complaints = run_script(script, storage, *FLAGS)
    assert status == 0, (output, complaints)
    assert_ends_like(undisturbed, storage)


def damage(path: Path, chance: random.Random) -> None:
    """Cuts a file short or flips one of its bits."""
    content = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        content = content[: chance.randrange(len(content))]
    else:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(content))


def test_damaged_files_are_noticed_and_made_anew(script: Path, storage: str, undisturbed: str) -> None:
    process = start(script, storage, *FLAGS)
    wait_for_records(storage, 10, process)
    interrupt(process)
    assert finish(process)[0] == INTERRUPTED
    chance = random.Random(1)
    for pattern in ("parts/epochs-*", "parts/statuses-*", "checkpoints/*/*"):
        for path in (Path(storage) / "s").glob(pattern):
            damage(path, chance)
    status, output, complaints = run_script(script, storage, *FLAGS)
    assert status == 0, (output, complaints)
    assert_ends_like(undisturbed, storage)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_a_clear_error_and_the_sweep_goes_on_after_space_is_made(
    script: Path, tmp_path: Path, undisturbed: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        status, output, complaints = run_script(script, str(disk), *FLAGS)
        assert status == 1, (output, complaints)
        assert complaints.startswith("stopped: ")
        assert "No space left" in complaints or "space" in complaints
        assert len(complaints.strip().splitlines()) == 1
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert run_script(script, str(disk), *FLAGS)[0] == 0
        assert_ends_like(undisturbed, str(disk))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


SEEDS = Sweep(name="s", question="And if one fails?", lrs=(0.01,), epochs=3, seeds=(1, 2, 3))
FEW = {"train_limit": 640}


def spoil(monkeypatch: pytest.MonkeyPatch, mishap: Callable[[], None]) -> None:
    """Lets a mishap befall seed 2 in its second epoch."""

    def bad(config: TrialConfig, **arguments: Any) -> Iterator[EpochRecord]:
        for record in train(config, **arguments):
            if config.seed == 2 and record.epoch == 2:
                mishap()
            yield record

    monkeypatch.setattr(tuning, "run_tree", partial(tuning.run_tree, train=bad))


def test_a_failing_trial_is_recorded_and_the_others_go_on(
    ray_cluster: None, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def curse() -> None:
        raise RuntimeError("the second seed is cursed")

    spoil(monkeypatch, curse)
    status, text = run_here(SEEDS, storage, **FEW)
    assert status == 1
    assert "1 trials failed" in text
    assert statuses(storage, "s") == ["completed", "failed", "completed"]
    failed = table_of(storage, "s").row(1, named=True)
    assert failed["error"] == "RuntimeError: the second seed is cursed"
    assert "in curse" in failed["traceback"]
    assert failed["epochs_run"] == 1
    monkeypatch.undo()
    status, text = run_here(SEEDS, storage, **FEW)
    assert status == 1, "not tried again unless asked for"
    assert "everything is done" in text
    assert run_here(SEEDS, storage, retry_failed=True, **FEW)[0] == 0
    assert statuses(storage, "s") == ["completed"] * 3


def test_fail_fast_cancels_the_rest_and_the_same_command_goes_on(
    ray_cluster: None, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def curse() -> None:
        raise RuntimeError("no")

    spoil(monkeypatch, curse)
    sweep = replace(SEEDS, seeds=(2, 1, 3))
    assert run_here(sweep, storage, fail_fast=True, max_concurrent=1, **FEW)[0] == 1
    assert statuses(storage, "s") == ["failed", "cancelled", "cancelled"]
    assert run_here(sweep, storage, **FEW)[0] == 1
    assert statuses(storage, "s") == ["failed", "completed", "completed"]


def test_a_trial_that_hangs_is_ended(ray_cluster: None, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang() -> None:
        time.sleep(3600)

    spoil(monkeypatch, hang)
    assert run_here(SEEDS, storage, trial_timeout=8.0, **FEW)[0] == 1
    trials = table_of(storage, "s")
    assert trials["status"].to_list() == ["completed", "failed", "completed"]
    assert trials["error"][1] == "no epoch within 8 s (--trial-timeout)"
    assert "in hang" in trials["traceback"][1]


def test_a_divergence_is_a_result_of_all_who_share_it(ray_cluster: None, storage: str) -> None:
    sweep = Sweep(
        name="s",
        question="How far can one go?",
        optimizers=("sgd",),
        schedulers=("none", "exponential"),
        lrs=(0.01, 1e6),
        epochs=2,
    )
    status, text = run_here(sweep, storage, **FEW)
    assert status == 0, text
    trials = table_of(storage, "s")
    assert trials.filter(pl.col("lr") > 1)["status"].to_list() == ["diverged", "diverged"]
    assert trials.filter(pl.col("lr") < 1)["status"].to_list() == ["completed", "completed"]
    assert trials.filter(pl.col("lr") > 1)["error"][0].startswith("training loss is ")


def chaos(rounds: int, seed: int, script: Path, storage: str, undisturbed: str) -> None:
    """Strikes a sweep at random moments in random ways, then lets it finish."""
    print(f"chaos from seed {seed}")
    chance = random.Random(seed)
    strikes = [strike for strike, _ in FAULTS.values()] + [kill_ray]
    for _ in range(rounds):
        process = start(script, storage, *FLAGS, **FAST_RAY)
        try:
            finish(process, seconds=chance.uniform(4, 16))
        except subprocess.TimeoutExpired:
            strike = chance.choice(strikes)
            print(f"{strike.__name__} after {len(SweepStore(storage, 's').read_epochs())} records")
            strike(process)
        finish(process)
        files = [path for path in (Path(storage) / "s").rglob("*") if path.parent.name != "s" and path.is_file()]
        if files and chance.random() < 0.5:
            victim = chance.choice(sorted(files))
            print(f"damaging {victim.name}")
            damage(victim, chance)
    status, output, complaints = run_script(script, storage, *FLAGS)
    assert status == 0, (output, complaints)
    assert_ends_like(undisturbed, storage)


def test_chaos_in_short(script: Path, storage: str, undisturbed: str) -> None:
    chaos(2, 7, script, storage, undisturbed)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(10))
def test_chaos(seed: int, script: Path, storage: str, undisturbed: str) -> None:
    chaos(8, seed, script, storage, undisturbed)

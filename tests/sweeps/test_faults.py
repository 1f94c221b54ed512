"""Real sweeps, really killed: whatever dies, the same command ends with the tables of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from polars.testing import assert_frame_equal

from analysis.store import SweepStore
from sweeps.sweep import Sweep
from tests.sweeps.runs import finish, measured, run_here, run_script, start, statuses, write_script

ARGUMENTS = (
    "name='s', question='Does it end as it should?', schedulers=('none', 'step', 'exponential', 'plateau'), "
    "lrs=(0.01,), epochs=5, grid=[{'scheduler.warmup_epochs': 0}]"
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


def kill_worker(process: subprocess.Popen[str]) -> None:
    """Kills a worker that trains, in the middle of whatever it does."""
    workers = [child for child in descendants(process) if child.name().startswith("ray::ImplicitFunc")]
    if workers:
        workers[0].kill()


def kill_driver(process: subprocess.Popen[str]) -> None:
    process.kill()


def kill_ray(process: subprocess.Popen[str]) -> None:
    """Kills the sweep's Ray: its head and its node."""
    for child in descendants(process):
        if child.name() in ("gcs_server", "raylet"):
            child.kill()


def interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def terminate(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)


FAULTS: dict[str, tuple[Callable[[subprocess.Popen[str]], None], set[int]]] = {
    "worker killed": (kill_worker, {0}),
    "driver killed": (kill_driver, {-signal.SIGKILL}),
    "interrupted": (interrupt, {130}),
    "terminated": (terminate, {130}),
}
"""Fault -> what does it, and the exit statuses it may have."""

FAST_RAY = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
"""How soon a driver gives up on a Ray that is gone: by default only after a minute."""


@pytest.mark.parametrize("fault", FAULTS)
def test_ends_complete_after(fault: str, script: Path, storage: str, undisturbed: str) -> None:
    strike, expected = FAULTS[fault]
    process = start(script, storage, *FLAGS)
    wait_for_records(storage, 5, process)
    strike(process)
    status, output, complaints = finish(process)
    assert status in expected, (output, complaints)
    assert "Traceback" not in complaints
    if status != 0:
        status, output, complaints = run_script(script, storage, *FLAGS)
        assert status == 0, (output, complaints)
        assert "done before" in output or "so far" in output
    assert_ends_like(undisturbed, storage)


def test_ends_complete_after_its_ray_was_stopped(script: Path, storage: str, undisturbed: str) -> None:
    process = start(script, storage, *FLAGS, **FAST_RAY)
    wait_for_records(storage, 5, process)
    kill_ray(process)
    assert finish(process)[0] != 0
    assert run_script(script, storage, *FLAGS)[0] == 0
    assert_ends_like(undisturbed, storage)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(number: signal.Signals, script: Path, storage: str) -> None:
    scratch = set(Path(tempfile.gettempdir()).glob("forksweep-*"))
    process = start(script, storage, *FLAGS)
    wait_for_records(storage, 2, process)
    children = descendants(process)
    process.send_signal(number)
    status, output, _ = finish(process, seconds=30)
    assert status == 130
    assert "the same command goes on" in output
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert set(Path(tempfile.gettempdir()).glob("forksweep-*")) == scratch
    assert "pending" in statuses(storage, "s")


def test_a_second_run_is_refused_at_once_and_a_killed_one_leaves_no_lock(script: Path, storage: str) -> None:
    process = start(script, storage, *FLAGS)
    wait_for_records(storage, 1, process)
    status, _, complaints = run_script(script, storage, *FLAGS)
    assert status == 2
    assert "another run of the sweep" in complaints
    assert len(complaints.strip().splitlines()) == 1
    process.kill()
    process.communicate()
    assert run_script(script, storage, *FLAGS, "--plan")[0] == 0


def test_a_full_object_store_only_slows_things_down(storage: str, undisturbed: str) -> None:
    import ray

    code = f"""
        import ray
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory={80 << 20})
    """
    script = write_script(Path(storage).parent / "small", ARGUMENTS, code)
    assert ray.is_initialized()
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


@pytest.mark.parametrize("pattern", ["parts/epochs-*", "parts/statuses-*", "checkpoints/*/*"])
def test_damaged_files_are_noticed_and_made_anew(pattern: str, script: Path, storage: str, undisturbed: str) -> None:
    process = start(script, storage, *FLAGS)
    wait_for_records(storage, 8, process)
    interrupt(process)
    assert finish(process)[0] == 130
    chance = random.Random(pattern)
    for path in (Path(storage) / "s").glob(pattern):
        damage(path, chance)
    status, output, complaints = run_script(script, storage, *FLAGS)
    assert status == 0, (output, complaints)
    assert_ends_like(undisturbed, storage)


def test_a_damaged_spec_is_named_and_the_ways_on_too(script: Path, storage: str, undisturbed: str) -> None:
    folder = Path(storage) / "s"
    folder.mkdir(parents=True)
    content = (Path(undisturbed) / "s" / "sweep.json").read_text()
    (folder / "sweep.json").write_text(content.replace("Does it end", "Does it bend"))
    status, _, complaints = run_script(script, storage, *FLAGS)
    assert status == 2
    assert "sweep.json is damaged" in complaints
    assert "--fresh" in complaints
    assert "--name" in complaints


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


BAD_TRAINING = """
    import time
    import sweeps.tuning.execution as execution
    from workloads.training import train

    def bad(config, **arguments):
        for record in train(config, **arguments):
            if config.seed == 2 and record.epoch == 2:
                {what}
            yield record

    execution.train = bad
"""


def bad_script(folder: Path, what: str) -> Path:
    arguments = "name='s', question='And if one fails?', lrs=(0.01,), epochs=3, seeds=(1, 2, 3)"
    return write_script(folder, arguments, BAD_TRAINING.format(what=what))


def test_a_failing_trial_is_recorded_and_the_others_go_on(tmp_path: Path, storage: str) -> None:
    script = bad_script(tmp_path, "raise RuntimeError('the second seed is cursed')")
    status, output, complaints = run_script(script, storage, "--train-limit", "640")
    assert status == 1, (output, complaints)
    assert "1 trials failed" in output
    assert statuses(storage, "s") == ["completed", "failed", "completed"]
    from tests.sweeps.runs import table_of

    failed = table_of(storage, "s").row(1, named=True)
    assert failed["error"] == "RuntimeError: the second seed is cursed"
    assert "in bad" in failed["traceback"]
    assert failed["epochs_run"] == 1
    # Not tried again unless asked for; then with what is right now.
    assert run_script(script, storage, "--train-limit", "640")[0] == 1
    good = write_script(
        tmp_path / "good", "name='s', question='And if one fails?', lrs=(0.01,), epochs=3, seeds=(1, 2, 3)"
    )
    assert run_script(good, storage, "--train-limit", "640", "--retry-failed")[0] == 0
    assert statuses(storage, "s") == ["completed"] * 3


def test_fail_fast_cancels_the_rest_and_the_same_command_goes_on(tmp_path: Path, storage: str) -> None:
    script = bad_script(tmp_path, "raise RuntimeError('no')")
    flags = ("--train-limit", "640", "--max-concurrent", "1", "--fail-fast", "--seeds", "2", "1", "3")
    status, output, complaints = run_script(script, storage, *flags)
    assert status == 1, (output, complaints)
    found = statuses(storage, "s")
    assert "failed" in found
    assert "cancelled" in found
    assert run_script(script, storage, *flags[:-5], "--seeds", "2", "1", "3")[0] == 1
    assert sorted(statuses(storage, "s")) == ["completed", "completed", "failed"]


def test_a_trial_that_hangs_is_ended(tmp_path: Path, storage: str) -> None:
    script = bad_script(tmp_path, "time.sleep(3600)")
    status, output, complaints = run_script(script, storage, "--train-limit", "640", "--trial-timeout", "6")
    assert status == 1, (output, complaints)
    from tests.sweeps.runs import table_of

    trials = table_of(storage, "s")
    assert trials["status"].to_list() == ["completed", "failed", "completed"]
    assert trials["error"][1] == "no epoch within 6 s (--trial-timeout)"
    assert "in bad" in trials["traceback"][1]


def test_a_divergence_is_a_result(tmp_path: Path, storage: str) -> None:
    script = write_script(
        tmp_path,
        "name='s', question='How far can one go?', optimizers=('sgd',), schedulers=('none', 'exponential'), lrs=(0.01, 1e6), epochs=2",
    )
    status, output, complaints = run_script(script, storage, "--train-limit", "640")
    assert status == 0, (output, complaints)
    assert sorted(statuses(storage, "s")) == ["completed", "completed", "diverged", "diverged"]


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

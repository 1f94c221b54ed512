"""Real sweeps, really killed: whatever dies, the same command ends with the tables of an undisturbed run."""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from sweeps.ledger.lock import LockedError
from sweeps.question.grid import axis
from sweeps.question.sweep import Sweep
from sweeps.runner import INTERRUPTED, StoppedError
from sweeps.tuning import execution
from tests.sweeps.faults import (
    ARGUMENTS,
    FAST_RAY,
    FAULTS,
    FLAGS,
    SWEEP,
    TRAIN_LIMIT,
    assert_ends_like,
    count_records,
    damage,
    descendants,
    end_here,
    interrupt,
    kill_driver,
    kill_worker,
    wait_for_records,
)
from tests.sweeps.runs import finish, run_here, run_script, start, statuses, table_of, write_script
from workloads.training import train
from workloads.trial import EpochRecord, TrialConfig


def test_a_sweep_struck_by_one_thing_after_another_ends_like_an_undisturbed_one(
    script: Path, storage: str, undisturbed: str, places: Mapping[str, str]
) -> None:
    process = start(script, storage, *FLAGS)
    wait_for_records(storage, 1, process)
    with pytest.raises(LockedError, match="another run of the sweep"):
        run_here(SWEEP, storage, train_limit=TRAIN_LIMIT)
    kill_worker(process)
    wait_for_records(storage, count_records(storage) + 1, process)
    kill_driver(process)
    assert finish(process)[0] == -9

    chance = random.Random(1)
    for pattern in ("parts/epochs-*", "checkpoints/*/*"):
        victim = chance.choice(sorted((Path(storage) / "s").glob(pattern)))
        damage(victim, chance)

    process = start(script, storage, *FLAGS, **places)
    wait_for_records(storage, count_records(storage) + 1, process)
    children = descendants(process)
    interrupt(process)
    status, output, complaints = finish(process)
    assert (status, complaints) == (INTERRUPTED, "")
    assert output.count("stopping: workers have 10 seconds") == 1
    assert "the same command goes on" in output
    assert "pending" in statuses(storage, "s")
    assert psutil.wait_procs(children, timeout=20)[1] == [], "no process of the sweep stays behind"
    left = [path for place in places.values() for path in Path(place).rglob("*") if not path.is_dir()]
    assert left == [], "no temporary file stays behind"

    end_here(storage)
    assert_ends_like(undisturbed, storage)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_ends_complete_after(
    fault: str, script: Path, storage: str, undisturbed: str, places: Mapping[str, str]
) -> None:
    strike, expected = FAULTS[fault]
    process = start(script, storage, *FLAGS, **FAST_RAY, **places)
    wait_for_records(storage, 5, process)
    children = descendants(process)
    strike(process)
    status, output, complaints = finish(process)
    assert status in expected, (output, complaints)
    assert "Traceback" not in complaints
    assert psutil.wait_procs(children, timeout=20)[1] == [], "no process of the sweep stays behind"
    if status != 0:
        status, output, complaints = run_script(script, storage, *FLAGS)
        assert status == 0, (output, complaints)
    assert_ends_like(undisturbed, storage)


@pytest.mark.slow
def test_the_dashboard_listens_on_this_machine_only(script: Path, storage: str, places: Mapping[str, str]) -> None:
    process = start(script, storage, *FLAGS, "--dashboard", **places)
    wait_for_records(storage, 1, process)
    listening = {
        (member.name(), connection.laddr.ip.removeprefix("::ffff:"))
        for member in descendants(process)
        for connection in member.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    interrupt(process)
    status, output, _ = finish(process)
    assert status == INTERRUPTED
    assert "Ray's dashboard: http://127.0.0.1:" in output
    assert any("ashboard" in name for name, _ in listening), listening
    assert [entry for entry in listening if entry[1] not in ("127.0.0.1", "::1")] == []


@pytest.mark.slow
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


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_a_clear_error_and_the_sweep_goes_on_after_space_is_made(
    tmp_path: Path, undisturbed: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        with pytest.raises(StoppedError, match=r"No space left.*run the same command to continue"):
            run_here(SWEEP, str(disk), train_limit=TRAIN_LIMIT)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        end_here(str(disk))
        assert_ends_like(undisturbed, str(disk))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


STRIPES = axis("workload", "lenet_synthetic")
SEEDS = Sweep(name="s", question="And if one fails?", grid=STRIPES, lrs=(0.01,), epochs=3, seeds=(1, 2, 3))


def spoil(monkeypatch: pytest.MonkeyPatch, mishaps: Mapping[int, Callable[[], None]]) -> None:
    """Lets a mishap befall each of some seeds in its second epoch."""

    def bad(config: TrialConfig, **arguments: Any) -> Iterator[EpochRecord]:
        for record in train(config, **arguments):
            if config.seed in mishaps and record.epoch == 2:
                mishaps[config.seed]()
            yield record

    monkeypatch.setattr(execution, "run_tree", partial(execution.run_tree, train=bad))


def test_trials_that_fail_or_hang_are_recorded_and_the_others_go_on(
    ray_cluster: None, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def curse() -> None:
        raise RuntimeError("the second seed is cursed")

    def hang() -> None:
        time.sleep(3600)

    spoil(monkeypatch, {2: curse, 3: hang})
    status, text = run_here(SEEDS, storage, trial_timeout=12.0)
    assert status == 1
    assert "2 of 3 trials failed:" in text
    assert statuses(storage, "s") == ["completed", "failed", "failed"]
    cursed, hung = table_of(storage, "s").rows(named=True)[1:]
    place = r"test_faults.py, line \d+, in curse: "
    assert re.fullmatch(place + "RuntimeError: the second seed is cursed", cursed["error"])
    assert "in curse" in cursed["traceback"]
    assert hung["error"] == "no epoch within 12 s (--trial-timeout)"
    assert "in hang" in hung["traceback"]
    assert cursed["epochs_run"] == hung["epochs_run"] == 1
    monkeypatch.undo()
    status, text = run_here(SEEDS, storage)
    assert status == 1, "not tried again unless asked for"
    assert "failed before: 2 trials (--retry-failed runs them again)" in text
    assert "everything is done" not in text
    assert run_here(SEEDS, storage, retry_failed=True)[0] == 0
    assert statuses(storage, "s") == ["completed"] * 3


def test_fail_fast_cancels_the_rest_and_the_same_command_goes_on(
    ray_cluster: None, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def curse() -> None:
        raise RuntimeError("no")

    spoil(monkeypatch, {2: curse})
    sweep = replace(SEEDS, seeds=(2, 1, 3))
    assert run_here(sweep, storage, fail_fast=True, max_concurrent=1)[0] == 1
    assert statuses(storage, "s") == ["failed", "cancelled", "cancelled"]
    assert run_here(sweep, storage)[0] == 1
    assert statuses(storage, "s") == ["failed", "completed", "completed"]


def test_a_divergence_is_a_result_of_all_who_share_it(ray_cluster: None, storage: str) -> None:
    sweep = Sweep(
        name="s",
        question="How far can one go?",
        grid=STRIPES,
        optimizers=("sgd",),
        schedulers=("none", "exponential"),
        lrs=(0.01, 1e6),
        epochs=2,
    )
    status, text = run_here(sweep, storage)
    assert status == 0, text
    trials = table_of(storage, "s")
    assert trials.filter(pl.col("lr") > 1)["status"].to_list() == ["diverged", "diverged"]
    assert trials.filter(pl.col("lr") < 1)["status"].to_list() == ["completed", "completed"]
    assert trials.filter(pl.col("lr") > 1)["error"][0].startswith("training loss is ")


@pytest.mark.slow
def test_a_worker_that_ray_kills_for_lack_of_memory_is_called_so(script: Path, storage: str) -> None:
    scarce = {"RAY_memory_usage_threshold": "0.0001", "RAY_memory_monitor_refresh_ms": "100"}
    _, output, complaints = run_script(script, storage, *FLAGS, **scarce)
    assert complaints == ""
    assert set(statuses(storage, "s")) == {"out_of_memory"}
    assert "its node ran out of memory" in output
    assert "Refer to the documentation" not in output

"""What there is to run on: cores, temporary folders, places for results; and how long it is going to take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sweeps.question.options import Options
from sweeps.tuning import session
from sweeps.tuning.errors import PlacementError
from sweeps.tuning.placement import (
    Placement,
    check_storage_path,
    cpu_quotas,
    fitting,
    placement_of,
    usable_cores,
    usable_gpus,
)
from sweeps.watching.forecast import START_SECONDS, Forecast, _lanes, in_own_process
from tests.sweeps.runs import ROOT, without_ray
from workloads.errors import InputError
from workloads.registry import resolve
from workloads.training import Hardware
from workloads.trial import TrialConfig

# -- cores ----------------------------------------------------------------------------------------------------------

GROUPS: dict[str, tuple[str, dict[str, str], list[float]]] = {
    "version 2, limited above": (
        "0::/slurm/job",
        {"slurm/cpu.max": "150000 100000\n", "slurm/job/cpu.max": "max 100000\n"},
        [1.5],
    ),
    "version 2, a container": ("0::/", {"cpu.max": "200000 100000\n"}, [2.0]),
    "version 1": (
        "3:cpu,cpuacct:/docker/x\n2:memory:/elsewhere\n0::/",
        {"cpu/docker/x/cpu.cfs_quota_us": "50000\n", "cpu/docker/x/cpu.cfs_period_us": "100000\n"},
        [0.5],
    ),
    "version 1, a container": (
        "3:cpu,cpuacct:/docker/x",
        {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        [3.0],
    ),
    "version 1, no limit": ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, []),
    "nothing to read": ("0::/user.slice", {}, []),
}


@pytest.mark.parametrize("case", GROUPS)
def test_control_groups_limit_the_cores(case: str, tmp_path: Path) -> None:
    groups, files, expected = GROUPS[case]
    for name, content in {
        "proc/self/cgroup": f"{groups}\n",
        **{f"sys/fs/cgroup/{n}": c for n, c in files.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert list(cpu_quotas(tmp_path)) == expected


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert list(cpu_quotas(tmp_path)) == []


@pytest.mark.parametrize(("quotas", "cores"), [([0.5], 1), ([1.0, 64.0], 1), ([], None)])
def test_at_least_one_core_and_no_more_than_granted(
    quotas: list[float], cores: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.tuning.placement.cpu_quotas", lambda: quotas)
    assert usable_cores() == cores or cores is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_one_core_of_several() -> None:
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    code += "from sweeps.tuning.placement import usable_cores; print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        (Placement(), 8),
        (Placement(cpus_per_trial=3), 2),
        (Placement(cpus_per_trial=0), 8),
        (Placement(max_concurrent=5), 5),
        (Placement(gpus_per_trial=0.5), 4),
        (Placement(gpus_per_trial=1), 2),
        (Placement(cpus_per_trial=0, gpus_per_trial=0.1), 8),
        (Placement(cpus_per_trial=0, gpus_per_trial=0.6), 2),
    ],
    ids=str,
)
def test_how_many_train_at_once(placement: Placement, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.watching.forecast.usable_cores", lambda: 8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert _lanes(placement) == expected


@pytest.mark.parametrize(
    ("resource", "there", "wanted", "expected"),
    [
        ("GPU", 8, 0.6, 8),  # 13 times 0.6 are less than 8, but no GPU has room for a second
        ("GPU", 8, 0.1, 80),
        ("GPU", 2, 1, 2),
        ("GPU", 0, 0.5, 0),
        ("CPU", 8, 0.6, 13),
        ("CPU", 3, 0.1, 30),
    ],
)
def test_a_part_of_a_gpu_is_of_a_single_one(resource: str, there: float, wanted: float, expected: int) -> None:
    assert fitting(resource, there, wanted) == expected


@pytest.mark.parametrize(
    ("visible", "expected"), [("MIG-1f,MIG-2f, MIG-3f", 3), ("0,1", 2), ("", 2), (None, 2)], ids=str
)
def test_slices_of_gpus_are_counted(visible: str | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert usable_gpus() == expected


def test_the_gpus_of_a_mac_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    with pytest.raises(InputError, match=r"machine has: 0 GPUs \(those of Apple are not used: leave the flag out"):
        placement_of(Options(name="s", gpus_per_trial=1))


SLICED = """
from sweeps.tuning import environment
with environment():
    import os, ray
    from sweeps.tuning.placement import Placement
    from sweeps.tuning.session import ray_session, slots
    with ray_session(Placement()):
        print(slots(Placement(cpus_per_trial=0.1, gpus_per_trial=0.5)))
        look = ray.remote(num_cpus=0, num_gpus=1)(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        print(ray.get(look.remote()))
"""


def test_a_ray_of_ones_own_hands_out_slices_of_gpus() -> None:
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "MIG-1f,MIG-2f"}
    command = [sys.executable, "-c", SLICED]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    fit, visible = done.stdout.split()
    assert fit == "4", done.stderr
    assert visible in ("MIG-1f", "MIG-2f")


def test_a_ray_of_ones_own_has_the_cores_of_this_process_and_a_failed_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def init(**how: Any) -> None:
        told.update(how)
        (Path(how["_temp_dir"]) / f"session_y_{os.getpid()}" / "logs").mkdir(parents=True)
        raise RuntimeError("no sockets\nand much more")

    monkeypatch.setattr(session, "_LONGEST_SOCKET", 1000)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr("sweeps.tuning.session.usable_cores", lambda: 3)
    monkeypatch.setattr("sweeps.tuning.session.ray.is_initialized", lambda: False)
    monkeypatch.setattr("sweeps.tuning.session.ray.init", init)
    with pytest.raises(PlacementError, match=r"^Ray does not start: no sockets$"), session.ray_session(Placement()):
        pass
    assert told["num_cpus"] == 3
    assert list((tmp_path / "ray").iterdir()) == []


INTERRUPTED = """
import os, signal, sys
from sweeps.tuning import environment
with environment():
    from ray._private import worker

connect = worker.connect
worker.connect = lambda *how, **more: (connect(*how, **more), os.kill(os.getpid(), int(sys.argv[1])))
signal.signal(signal.SIGTERM, signal.default_int_handler)
from sweeps.tuning.placement import Placement
from sweeps.tuning.session import ray_session

try:
    with ray_session(Placement()):
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_ray_starts_nothing_stays(number: signal.Signals, places: Mapping[str, str]) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(int(number))]
    done = subprocess.run(command, cwd=ROOT, env=without_ray() | places, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
    assert [path for path in Path(places["RAY_TMPDIR"], "ray").iterdir() if path.is_dir()] == []


# -- how long it takes ----------------------------------------------------------------------------------------------


def test_a_forecast_counts_the_start_too() -> None:
    counts = {"trials": 2, "trial_epochs": 2, "done": 0, "failed": 0, "least": 2, "most": 2}
    ahead = Forecast(**counts, taken_over={}, left_out={}, seconds=0.5)
    assert ahead.lines()[-1] == f"epochs to train: 2, about {START_SECONDS + 1:.0f} s"


def test_an_epoch_measured_in_a_process_of_its_own() -> None:
    trial = resolve(TrialConfig(epochs=1, train_limit=320))
    seconds = in_own_process(trial, Hardware())
    assert seconds is not None
    assert 0 < seconds < 60


def test_what_only_the_script_knows_cannot_be_measured_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: subprocess.CompletedProcess([], 1, stdout=""))
    assert in_own_process(TrialConfig(), Hardware()) is None


def test_gpus_that_only_other_nodes_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert in_own_process(TrialConfig(), Hardware(gpu=True)) is None


# -- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "refused"),
    [("results", True), ("../x", True), ("/mnt/results", False), ("~/results", False), ("s3://bucket/x", False)],
)
def test_results_of_a_job_do_not_go_where_they_are_deleted(
    path: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(name="s", storage_path=path)
    check_storage_path(options)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    if refused:
        with pytest.raises(
            InputError, match=r"--storage-path .* is deleted when the job ends: give an absolute folder"
        ):
            check_storage_path(options)
    else:
        check_storage_path(options)


def test_rays_folder_is_the_usual_one_and_what_it_wrote_there_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_LONGEST_SOCKET", 1000)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    others = tmp_path / "ray" / "session_x_1"
    others.mkdir(parents=True)
    with session._temporary_folder() as folder:
        assert folder == str(tmp_path / "ray")
        (Path(folder) / f"session_y_{os.getpid()}" / "sockets").mkdir(parents=True)
    assert list((tmp_path / "ray").iterdir()) == [others]


def test_a_temporary_folder_with_a_long_path_is_not_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("slurm_jobdir_of_a_long_named_project" * 2)
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(long))
    with session._temporary_folder() as folder:
        assert len(folder) < 40
        (Path(folder) / "session_y").mkdir()
    assert not Path(folder).exists()
    assert list(long.iterdir()) == []
    monkeypatch.setattr(session, "SHORT_FOLDER", str(tmp_path / "not there"))
    with (
        pytest.raises(PlacementError, match=r"set RAY_TMPDIR to a shorter folder, of at most 39 characters$"),
        session._temporary_folder(),
    ):
        pass
    monkeypatch.setattr(session, "SHORT_FOLDER", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(PlacementError, match="set RAY_TMPDIR"), session._temporary_folder():
        pass

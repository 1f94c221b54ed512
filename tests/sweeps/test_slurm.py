"""A sweep as a Slurm job: submitted, interrupted in every way that Slurm has, and gone on with."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.store import LOCK_FILE
from tests.sweeps.faults import FLAGS, RECORDS, SWEEP, TRAIN_LIMIT, assert_ends_like, count_records
from tests.sweeps.runs import ROOT, run_here, table_of
from tests.sweeps.slurm import GPUS, NODES, Slurm, running_slurm, why_not

SCRIPT = ROOT / "docs" / "slurm.sbatch"
PAGE = (ROOT / "docs" / "clusters.md").read_text()
REASON = why_not()

real = pytest.mark.skipif(REASON is not None, reason=f"no Slurm: {REASON}")


# -- the script as text ---------------------------------------------------------------------------------------------


def asked() -> dict[str, str]:
    """Returns what the script asks of Slurm."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", SCRIPT.read_text(), re.MULTILINE))


def test_the_script_is_one() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    if shutil.which("shellcheck"):
        found = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True)
        assert found.returncode == 0, found.stdout
    # What comes after the first command, Slurm does not read.
    before, _, after = SCRIPT.read_text().partition("\nmost_restarts=")
    assert "#SBATCH" in before
    assert "#SBATCH" not in after


def test_the_page_says_what_the_script_does() -> None:
    section = PAGE.partition("## Slurm")[2].partition("\n## ")[0]
    submitted = re.findall(r"^sbatch .*?(\S+\.sbatch)", section, re.MULTILINE)
    assert submitted
    assert {ROOT / path for path in submitted} == {SCRIPT}
    flags, quoted = asked(), dict(re.findall(r"`--([\w-]+)=?([^`\s]*)`", section))
    assert {"signal", "requeue", "dependency"} <= quoted.keys() & flags.keys()
    assert {name: value for name, value in quoted.items() if name in flags and flags[name] != value} == {}


# -- on a real Slurm ------------------------------------------------------------------------------------------------


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    (tmp_path / "jobs").mkdir()
    with running_slurm(tmp_path / "jobs") as slurm:
        yield slurm


def submit(slurm: Slurm, script: Path, storage: str, *flags: str) -> str:
    """Submits the sweep of `tests.sweeps.faults` as a person would; returns the job's number."""
    command = ("python", str(script), *FLAGS, "--storage-path", storage)
    return slurm.submit("--cpus-per-task=1", *flags, str(SCRIPT), *command)


def wait_for_records(slurm: Slurm, job: str, storage: str, count: int) -> None:
    """Waits until a job's sweep has stored that many records."""
    deadline = time.monotonic() + 400
    while count_records(storage) < count:
        assert slurm.job(job)["JobState"] in ("PENDING", "RUNNING"), slurm.output(job)
        assert time.monotonic() < deadline, slurm.output(job)
        time.sleep(0.1)


STAND_INS = {
    "ray": """
for word in "$@"; do [[ $word == --temp-dir=* ]] && folder=${word#*=}; done
mkdir -p "$folder"
echo 127.0.0.1:1 > "$folder/ray_current_cluster"
exec sleep infinity
""",
    "sweep": """
trap 'exit 130' TERM
echo "at work with $*"
((${SLURM_RESTART_COUNT:-0} == 0)) || exit 7
while :; do sleep 0.1; done
""",
}
"""What the script starts, done quickly: a Ray, and a sweep that needs more time than it is given."""


@real
def test_the_job_goes_back_into_the_queue_and_others_of_its_name_wait(slurm: Slurm, tmp_path: Path) -> None:
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (tmp_path / name).chmod(0o755)
    command = ("--nodes=1", "--cpus-per-task=1", str(SCRIPT), "sweep", "--epochs=3")
    path = f"{tmp_path}:{slurm.environment['PATH']}"
    job, other = (slurm.submit(*command, PATH=path) for _ in range(2))
    slurm.wait_for_output(job, "at work with --epochs=3 --address auto")
    slurm.tell("scancel", "--batch", "--signal=USR1", job)  # which Slurm sends before the end, as the script asks
    slurm.wait_for(job, "PENDING")
    waiting = slurm.job(other)
    assert (waiting["JobState"], waiting["Reason"]) == ("PENDING", "Dependency")
    assert "the job is back in the queue" in slurm.output(job)
    done = slurm.wait_for(job, "FAILED")
    assert (done["ExitCode"], done["Restarts"]) == ("7:0", "1"), "the job's exit status is the sweep's"

    slurm.wait_for_output(other, "at work")
    slurm.tell("scancel", other)
    slurm.wait_for(other, "CANCELLED")
    time.sleep(1)
    cancelled = slurm.job(other)
    assert (cancelled["JobState"], cancelled["Restarts"]) == ("CANCELLED", "0"), "who cancels a job means it"


@real
def test_a_sweep_on_two_nodes_equals_one_without_slurm(
    slurm: Slurm, script: Path, undisturbed: str, storage: str
) -> None:
    before = set(Path("/tmp").glob("ray-slurm-*"))
    job = submit(slurm, script, storage)
    done = slurm.wait_for(job, "COMPLETED", "FAILED", seconds=400)
    output = slurm.output(job)
    assert done["ExitCode"] == "0:0", output
    assert_ends_like(undisturbed, storage)
    # Whether the second node gets a trial depends on how soon its first worker has started.
    assert {node.partition("/")[0] for node in table_of(storage, "s")["node"]} <= set(NODES)
    assert "nodes are there" not in output
    assert f"{storage}/s/report.html" in output
    assert [word for word in ("slurmstepd", "srun:", "slurm.sbatch:", "Terminated") if word in output] == []
    assert set(Path("/tmp").glob("ray-slurm-*")) == before


@real
@pytest.mark.slow
@pytest.mark.parametrize("how", ["out of time", "requeued", "preempted", "a node went away", "cancelled"])
def test_interrupted_it_goes_on(slurm: Slurm, script: Path, undisturbed: str, storage: str, how: str) -> None:
    job = submit(slurm, script, storage)
    wait_for_records(slurm, job, storage, 1)
    if how == "out of time":
        slurm.tell("scancel", "--batch", "--signal=USR1", job)
        slurm.wait_for(job, "PENDING")
        assert "interrupted: " in slurm.output(job)
        assert "the job is back in the queue" in slurm.output(job)
        assert not (Path(storage) / "s" / LOCK_FILE).exists(), "stopped in good order"
    elif how == "requeued":
        slurm.tell("scontrol", "requeue", job)
        slurm.wait_for(job, "PENDING")
    elif how == "preempted":
        urgent = slurm.submit("--partition=urgent", "--nodes=2", "--exclusive", "--wrap", "sleep 1")
        slurm.wait_for(urgent, "COMPLETED")
    elif how == "a node went away":
        slurm.tell("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=away")
        slurm.wait_for(job, "PENDING")
        slurm.tell("scontrol", "update", "NodeName=n2", "State=RESUME", check=False)  # it may have come back by itself
    else:
        slurm.tell("scancel", job)
        slurm.wait_for(job, "CANCELLED")
        job = submit(slurm, script, storage)
    assert count_records(storage) < RECORDS
    done = slurm.wait_for(job, "COMPLETED", "FAILED", seconds=400)
    assert done["ExitCode"] == "0:0", slurm.output(job)
    assert done["Restarts"] == ("0" if how == "cancelled" else "1")
    assert_ends_like(undisturbed, storage)


@real
@pytest.mark.slow
@pytest.mark.parametrize("warned", [True, False])
def test_longer_than_its_time_limit(
    slurm: Slurm, ray_cluster: None, script: Path, storage: str, tmp_path: Path, warned: bool
) -> None:
    # Slurm looks at times now and then, so that a job may go on for most of a minute.
    alone, epochs = str(tmp_path / "alone"), 40 if warned else 80
    run_here(SWEEP, alone, train_limit=TRAIN_LIMIT, epochs=epochs)
    command = ("python", str(script), *FLAGS, f"--epochs={epochs}", "--storage-path", storage)
    flags = ("--cpus-per-task=1", *([] if warned else ["--signal=B:CONT@1"]))
    job = slurm.submit(*flags, str(SCRIPT), *command)
    wait_for_records(slurm, job, storage, 1)
    elapsed = int(slurm.job(job)["RunTime"].split(":")[1])
    slurm.tell("scontrol", "update", f"JobId={job}", f"TimeLimit={elapsed + 1}")
    slurm.wait_for(job, "PENDING" if warned else "TIMEOUT")
    assert count_records(storage) < 4 * epochs
    if warned:
        slurm.tell("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    else:
        job = slurm.submit(*flags, str(SCRIPT), *command)
    done = slurm.wait_for(job, "COMPLETED", "FAILED", seconds=400)
    assert done["ExitCode"] == "0:0", slurm.output(job)
    assert_ends_like(alone, storage)


@real
@pytest.mark.slow
def test_two_of_one_sweep_on_one_node(
    slurm: Slurm, ray_cluster: None, script: Path, storage: str, tmp_path: Path
) -> None:
    """Under another name it does not wait: its Ray starts beside the first one's, and the sweep's lock refuses it."""
    alone, epochs = str(tmp_path / "alone"), 80  # so that the first is still at it
    run_here(SWEEP, alone, train_limit=TRAIN_LIMIT, epochs=epochs)
    command = ("python", str(script), *FLAGS, f"--epochs={epochs}", "--storage-path", storage)
    job = slurm.submit("--cpus-per-task=1", "--nodes=1", str(SCRIPT), *command)
    wait_for_records(slurm, job, storage, 1)
    other = slurm.submit("--cpus-per-task=1", "--nodes=1", "--job-name=other", str(SCRIPT), *command)
    refused = slurm.wait_for(other, "COMPLETED", "FAILED", seconds=400)
    assert (refused["JobState"], refused["ExitCode"], refused["BatchHost"]) == ("FAILED", "2:0", "n1")
    (line,) = [line for line in slurm.output(other).splitlines() if "error" in line]
    assert "another run of the sweep" in line
    assert "running; wait for it, or use another --name or --storage-path" in line
    assert slurm.wait_for(job, "COMPLETED", "FAILED", seconds=400)["ExitCode"] == "0:0", slurm.output(job)
    assert_ends_like(alone, storage)


SHOW = """
import os, sys, ray
ray.init("auto", log_to_driver=False, logging_level="error")

@ray.remote(num_gpus=1)
def visible():
    return os.environ["CUDA_VISIBLE_DEVICES"]

nodes = sorted(ray.nodes(), key=lambda node: node["NodeManagerHostname"])
has = [(node["NodeManagerHostname"], *(node["Resources"].get(what) for what in ("CPU", "GPU"))) for node in nodes]
print(has, sorted(ray.get([visible.remote() for _ in range(2)])))
sys.exit(7)
"""


@real
@pytest.mark.slow
def test_ray_is_told_of_the_gpus(slurm: Slurm, tmp_path: Path) -> None:
    """The GPUs are pretended: Slurm grants them, Ray hands them out, nobody computes on them."""
    (tmp_path / "show.py").write_text(SHOW)
    command = (str(SCRIPT), "python", str(tmp_path / "show.py"))
    job = slurm.submit("--cpus-per-task=1", "--gpus-per-node=1", *command)
    other = slurm.submit("--cpus-per-task=1", f"--gres=gpu:{GPUS - 1}", "--job-name=other", *command)
    for number in (job, other):
        done = slurm.wait_for(number, "COMPLETED", "FAILED", seconds=400)
        assert done["ExitCode"] == "7:0", "the job's exit status is the command's"
        assert "[('n1', 1.0, 1.0), ('n2', 1.0, 1.0)]" in slurm.output(number)
    assert "['0', '0']" in slurm.output(job)
    assert "['1', '1']" in slurm.output(other)

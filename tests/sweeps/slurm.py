"""A real Slurm for tests: a controller and two nodes, each with a network of its own, on this machine.

All of it lives in namespaces of one process and ends with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.sweeps.runs import ROOT, without_ray

NEEDED = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "nsenter")
NAMESPACES = ("--mount", "--net", "--pid", "--uts", "--ipc")
NODES = {"n1": "10.78.0.1", "n2": "10.78.0.2"}
CONTROLLER = "10.78.0.254"
CPUS, GPUS = 2, 2
"""That each node says it has."""

_CONF = f"""
ClusterName=pretended
SlurmctldHost=ctl({CONTROLLER})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation={{room}}/state
SlurmctldPidFile={{room}}/slurmctld.pid
SlurmdPidFile={{room}}/slurmd-%n.pid
SlurmdSpoolDir={{room}}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
KillWait=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName={",".join(NODES)} CPUs={CPUS} RealMemory=100000 Gres=gpu:{GPUS} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=2
"""

_START = f"""
set -e
cd "$1"
mount -t tmpfs tmpfs /run
mkdir -p /run/munge
mount --bind hosts /etc/hosts
hostname ctl
for number in $(seq 0 {GPUS - 1}); do mknod nvidia$number c 195 $number; done
ip link set lo up
ip link add br0 type bridge
ip addr add {CONTROLLER}/24 dev br0
ip link set br0 up
export SLURM_CONF=$1/slurm.conf
munged --force --key-file=$1/munge.key --log-file=$1/munged.log --seed-file=$1/munged.seed >/dev/null
for node in {" ".join(f"{name}={address}" for name, address in NODES.items())}; do
    name=${{node%=*}}
    mkdir spool-$name
    ip netns add $name
    ip link add v$name type veth peer name e0 netns $name
    ip link set v$name master br0 up
    ip -n $name addr add ${{node#*=}}/24 dev e0
    ip -n $name link set e0 up
    ip -n $name link set lo up
    ip netns exec $name unshare --uts sh -c "hostname $name; exec slurmd -D -N $name" >slurmd-$name.log 2>&1 &
done
exec slurmctld -c -D >slurmctld.log 2>&1
"""


def why_not() -> str | None:
    """Returns why there can be no Slurm here, None if there can."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (slurm-wlm, munge, iproute2, util-linux)"
    if os.geteuid() != 0:
        return "only root may make networks"
    made = subprocess.run(["unshare", *NAMESPACES, "--fork", "mount", "-t", "tmpfs", "x", "/run"], capture_output=True)
    return None if made.returncode == 0 else f"no namespaces here: {made.stderr.decode().strip()}"


class Slurm:
    """A Slurm that runs.

    Args:
        room: The folder of its files.
        process: The process whose namespaces it lives in.
        folder: Where jobs are submitted, and their outputs are.
    """

    def __init__(self, room: Path, process: psutil.Process, folder: Path) -> None:
        self.room, self.process, self.folder = room, process, folder
        self.environment = without_ray() | {
            "SLURM_CONF": str(room / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def tell(self, *words: str, check: bool = True, **environment: str) -> str:
        """Returns what a command says in there, complaints as well."""
        inside = ("nsenter", f"--target={self.process.pid}", *NAMESPACES, f"--wd={self.folder}")
        done = subprocess.run(
            ["timeout", "60", *inside, *words],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}"
        return done.stdout

    def submit(self, *words: str, **environment: str) -> str:
        """Returns the number of a job that `sbatch` with these words made."""
        return self.tell("sbatch", "--parsable", *words, **environment).strip()

    def job(self, number: str) -> dict[str, str]:
        """Returns what Slurm knows of a job."""
        words = self.tell("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def output(self, number: str) -> str:
        """Returns what a job has printed."""
        return "".join(path.read_text() for path in self.folder.glob(f"*-{number}.out"))

    def wait_for(self, number: str, *states: str, seconds: float = 120) -> dict[str, str]:
        """Waits until a job is in one of some states; returns what Slurm knows of it."""
        deadline = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] not in states:
            assert time.monotonic() < deadline, f"{job}\n{self.output(number)}\n{self.logs()}"
            time.sleep(0.2)
        return job

    def wait_for_output(self, number: str, text: str, seconds: float = 60) -> None:
        """Waits until a job has printed a text."""
        deadline = time.monotonic() + seconds
        while text not in (output := self.output(number)):
            assert time.monotonic() < deadline, f"{self.job(number)}\n{output}\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        """Returns the ends of what the daemons wrote."""
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in self.room.glob("*.log"))


@contextlib.contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    """Yields a Slurm whose nodes are ready, and ends it with all that it runs.

    Args:
        folder: Where jobs are submitted.
    """
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp", ignore_cleanup_errors=True) as name:
        room = Path(name)
        hosts = {"127.0.0.1": "localhost", CONTROLLER: "ctl"} | {address: node for node, address in NODES.items()}
        (room / "hosts").write_text("".join(f"{address} {host}\n" for address, host in hosts.items()))
        (room / "munge.key").write_bytes(os.urandom(128))
        (room / "munge.key").chmod(0o600)
        (room / "state").mkdir()
        (room / "slurm.conf").write_text(_CONF.format(room=room))
        (room / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (room / "gres.conf").write_text(f"Name=gpu File={room}/nvidia[0-{GPUS - 1}]\n")
        with (room / "start.log").open("w") as log:
            outside = subprocess.Popen(
                ["unshare", *NAMESPACES, "--fork", "--mount-proc", "--kill-child", "bash", "-c", _START, "-", name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            deadline = time.monotonic() + 30
            while not (inside := psutil.Process(outside.pid).children()):
                time.sleep(0.05)
            slurm = Slurm(room, inside[0], folder)
            while len(slurm.tell("sinfo", "-h", "-N", "-p", "main", "-t", "idle", check=False).splitlines()) < len(
                NODES
            ):
                assert time.monotonic() < deadline, slurm.logs()
                time.sleep(0.2)
            yield slurm
        finally:
            outside.kill()
            outside.wait()

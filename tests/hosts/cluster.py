"""Three hosts with a Ray of one cluster, a fourth with a bucket, and one that does not belong to them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO

import psutil
import pyarrow.fs
import pytest

from tests.hosts.switch import DEVICE, MTU, TUN, Weather
from tests.sweeps.runs import ROOT, free_port, without_ray

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test-user",
    "AWS_SECRET_ACCESS_KEY": "not-for-anybodys-eyes",
    "AWS_EC2_METADATA_DISABLED": "true",
}
WORKING = ("host1", "host2", "host3")
"""Those with a Ray; the first is the head."""
STORAGE, OUTSIDE = "storage", "outside"
ADDRESSES = {name: f"10.77.0.{number}" for number, name in enumerate((*WORKING, STORAGE, OUTSIDE), start=1)}
GCS = f"{ADDRESSES[WORKING[0]]}:6379"
RAY_FOLDER = "/tmp/ray"
SETTINGS = {
    # How soon a cluster takes a host for dead that does not answer: by default after about half a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    # On a machine that is busy with other things, its processes take long to start.
    "RAY_raylet_start_wait_time_s": "200",
    # On a machine that is busy with other things, workers would wait for ever: by default Ray is very polite.
    "RAY_worker_niceness": "0",
}
"""Of the Ray on the hosts."""

ASK_FOR_NODES = f"""
import socket, sys
from ray._raylet import GcsClient

print("ready", flush=True)
for _ in sys.stdin:
    try:
        socket.create_connection({tuple(GCS.split(":"))!r}, timeout=2).close()  # Ray itself waits for 40 s
        nodes = GcsClient(address={GCS!r}).get_all_node_info(timeout=5).values()
    except Exception:
        nodes = ()
    print(*(node.node_manager_hostname for node in nodes if node.state == 0), flush=True)
"""
"""Asks the head for the nodes that are up, whenever a line comes in."""

Process = subprocess.Popen[str]


def reason_to_skip() -> str | None:
    """Returns why there can be no hosts here; None if there can."""
    if os.geteuid() != 0:
        return "hosts of their own need root"
    for program in ("ip", "unshare", "nsenter", "setpriv"):
        if shutil.which(program) is None:
            return f"hosts of their own need the program {program!r} (Debian: iproute2, util-linux)"
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"hosts of their own need {TUN}"
    tried = subprocess.run(["unshare", "-n", "-u", "-m", "-p", "-f", "true"], capture_output=True, text=True)
    return f"this machine makes no hosts of their own: {tried.stderr.strip()}" if tried.returncode else None


def _tied(*command: str, files: tuple[int, ...] = (), **environment: str) -> Process:
    """Starts a program that is killed when this process ends, however it ends, and waits until it says `ready`."""
    process: Process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command],
        cwd=ROOT,
        env=without_ray() | CREDENTIALS | {"PYTHONPATH": str(ROOT)} | environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=files,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", command
    return process


def _end(process: Process) -> None:
    process.kill()
    process.communicate()


class Host:
    """A machine: its network stays when it is rebooted, its processes and memory do not.

    Args:
        name: Its host name.
    """

    def __init__(self, name: str) -> None:
        self.name, self.address = name, ADDRESSES[name]
        self._network = _tied("unshare", "-n", "sh", "-c", "ip link set lo up && echo ready && exec sleep infinity")
        self._machine: Process | None = None

    @property
    def network(self) -> int:
        """A process in its network."""
        return self._network.pid

    def boot(self) -> None:
        """Turns it on."""
        folders = f"mount -t tmpfs tmpfs {RAY_FOLDER} && mount -t tmpfs tmpfs /dev/shm"
        setup = f"hostname {self.name} && {folders} && echo ready && exec sleep infinity"
        unshare = ("unshare", "-u", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c", setup)
        Path(RAY_FOLDER).mkdir(exist_ok=True)
        self._machine = _tied("nsenter", "-t", str(self.network), "-n", "--", *unshare)

    def turn_off(self) -> None:
        """Ends all that runs on it, at once."""
        if self._machine is not None:
            _end(self._machine)
            self._machine = None

    def plug_in(self) -> None:
        """Gives it its address, once the switch has its cable."""
        device = (f"address add {self.address}/24 dev {DEVICE}", f"link set {DEVICE} mtu {MTU} up")
        for words in device:
            subprocess.run(["nsenter", "-t", str(self.network), "-n", "ip", *words.split()], check=True)

    def start(self, *command: str, output: IO[str] | int = subprocess.PIPE, **environment: str) -> Process:
        """Starts a program on it."""
        assert self._machine is not None, f"{self.name} is turned off"
        init = psutil.Process(self._machine.pid).children()[0].pid
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        settings = {"PYTHONPATH": str(ROOT), "PATH": path, "TMPDIR": RAY_FOLDER}
        return subprocess.Popen(
            ["nsenter", "-t", str(init), "-n", "-u", "-m", "-p", "--", *command],
            cwd=ROOT,
            env=without_ray() | CREDENTIALS | settings | environment,
            text=True,
            stdout=output,
            stderr=subprocess.PIPE if output == subprocess.PIPE else output,
        )

    def run(self, *command: str, seconds: float = 120, **environment: str) -> str:
        """Runs a program on it and returns what it said.

        Raises:
            AssertionError: It failed.
        """
        process = self.start(*command, **environment)
        output, complaints = process.communicate(timeout=seconds)
        assert process.returncode == 0, (command, output, complaints)
        return output

    def processes(self) -> list[psutil.Process]:
        """Returns what runs on it, but its first process."""
        if self._machine is None:
            return []
        namespace = Path(f"/proc/{psutil.Process(self._machine.pid).children()[0].pid}/ns/pid").readlink()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if Path(f"/proc/{process.pid}/ns/pid").readlink() == namespace and process.name() != "sleep":
                    found.append(process)
        return found

    def close(self) -> None:
        """Takes it away."""
        self.turn_off()
        _end(self._network)


def signal_program(process: Process, number: signal.Signals) -> None:
    """Sends a signal to a program that `Host.start` started."""
    for member in psutil.Process(process.pid).children():
        member.send_signal(number)
    if number == signal.SIGCONT:  # nsenter stops with what it has started
        process.send_signal(number)


class Cluster:
    """The hosts, and what connects them.

    Args:
        settings: Environment variables of its Ray and of sweeps on it.
    """

    def __init__(self, settings: Mapping[str, str] = SETTINGS) -> None:
        self.token = secrets.token_hex(32)
        self.settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, **settings}
        self.hosts: dict[str, Host] = {}
        self._stack = contextlib.ExitStack()
        self._port, self._buckets = free_port(), 0
        self._asking: Process | None = None

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as stack:
            environment = stack.enter_context(pytest.MonkeyPatch.context())
            for variable, value in CREDENTIALS.items():
                environment.setenv(variable, value)
            for name in ADDRESSES:
                self.hosts[name] = Host(name)
                stack.callback(self.hosts[name].close)
            cables = [f"{name}={host.network}" for name, host in self.hosts.items()]
            self._switch = _tied(sys.executable, "-m", "tests.hosts.switch", *cables)
            stack.callback(_end, self._switch)
            for host in self.hosts.values():
                host.plug_in()
                host.boot()
            self._log = stack.enter_context(tempfile.TemporaryFile())
            files = (self._log.fileno(),)
            door = (str(self._port), str(self.hosts[STORAGE].network), ADDRESSES[STORAGE], "9000", str(files[0]))
            stack.callback(_end, _tied(sys.executable, "-m", "tests.hosts.bucket", *door, files=files))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self._asking is not None:
            _end(self._asking)
        self._stack.close()

    @property
    def head(self) -> Host:
        """The host with the head."""
        return self.hosts[WORKING[0]]

    def be(self, weather: Weather) -> None:
        """Lets the network be like that from now on."""
        assert self._switch.stdin is not None
        assert self._switch.stdout is not None
        self._switch.stdin.write(json.dumps(asdict(weather)) + "\n")
        self._switch.stdin.flush()
        assert self._switch.stdout.readline() == "ready\n"

    def start_ray(self, *names: str, dashboard: bool = False, **environment: str) -> None:
        """Starts Ray on some hosts, the head's first; its dashboard and job server, if any, are open to all hosts."""
        environment = self.settings | environment
        common = ("--num-cpus=1", "--num-gpus=0", "--object-store-memory=200000000", "--disable-usage-stats")
        first = ("--head", "--port=6379", f"--include-dashboard={dashboard}", "--dashboard-host=0.0.0.0")
        if WORKING[0] in names:
            self.head.run("ray", "start", *first, *self._of(self.head), *common, **environment)
        others = [self.hosts[name] for name in names if name != WORKING[0]]
        join = ("ray", "start", f"--address={GCS}")
        started = [host.start(*join, *self._of(host), *common, **environment) for host in others]
        for process in started:
            output, complaints = process.communicate(timeout=300)
            assert process.returncode == 0, (output, complaints)

    def _of(self, host: Host) -> tuple[str, ...]:
        return (f"--node-ip-address={host.address}",)

    def nodes(self) -> list[str]:
        """Returns the hosts that Ray knows to be up; none if it does not answer."""
        if self._asking is None or self._asking.poll() is not None:  # Ray ends a process that it does not answer
            where = ("nsenter", "-t", str(self.head.network), "-n", "--")
            self._asking = _tied(*where, sys.executable, "-c", ASK_FOR_NODES, **self.settings)
        assert self._asking.stdin is not None
        assert self._asking.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._asking.stdin.write("\n")
            self._asking.stdin.flush()
        return sorted(self._asking.stdout.readline().split())

    def mend(self) -> None:
        """Makes all well again: the network, and Ray on every host that has none."""
        self.be(Weather())
        up = self.nodes()
        missing = [name for name in WORKING if WORKING[0] not in up or name not in up]
        for name in missing:
            self.reboot(name)
        if missing:
            self.start_ray(*missing)

    def reboot(self, name: str) -> None:
        """Turns a host off and on; the others hear nothing of it: its last packets are lost with it."""
        self.be(Weather(cut=(name,)))
        self.hosts[name].turn_off()
        self.be(Weather())
        self.hosts[name].boot()

    def bucket(self) -> tuple[str, str]:
        """Makes a bucket; returns its URI on the hosts, and the URI under which this process sees it."""
        self._buckets += 1
        name, options = f"bucket{self._buckets}", "region=us-east-1"
        inner = f"scheme=http&endpoint_override=127.0.0.1:{self._port}&{options}"
        filesystem, path = pyarrow.fs.FileSystem.from_uri(f"s3://{name}?{inner}&allow_bucket_creation=true")
        filesystem.create_dir(path)
        outer = f"scheme=http&endpoint_override={ADDRESSES[STORAGE]}:9000&{options}"
        return f"s3://{name}/sweeps?{outer}", f"s3://{name}/sweeps?{inner}"

    def requests(self) -> list[tuple[str, str, str]]:
        """Returns what the bucket's server was asked so far: the client's address, method and path."""
        content = os.pread(self._log.fileno(), 1 << 30, 0).decode()
        return [
            (client, method, path) for client, method, path in (line.split(" ", 2) for line in content.splitlines())
        ]

    def sweep(self, script: Path, storage: str, *flags: str, host: str = WORKING[0], **environment: str) -> Process:
        """Starts a sweep script on a host, which joins the cluster."""
        command = (sys.executable, str(script), "--storage-path", storage, "--address", GCS, *flags)
        return self.hosts[host].start(*command, **self.settings | environment)


@contextlib.contextmanager
def cluster(**settings: str) -> Iterator[Cluster]:
    """Makes the hosts with a Ray on each of the first three, and takes them away."""
    with Cluster(SETTINGS | settings) as made:
        made.start_ray(*WORKING)
        yield made


def wait_until(what: Callable[[], object], seconds: float, otherwise: str) -> None:
    """Waits until a question is answered with yes.

    Raises:
        AssertionError: It is not in time.
    """
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)

"""The network between hosts: a switch in user space, on which every cable can be pulled, be slow or lose packets.

Started as `python -m tests.hosts.switch NAME=PID ...`, it makes a network device `e0` (TAP) in the network namespace of
each process, says `ready`, and passes frames between them. Each line of its standard input is JSON, with which the
network is as described from then on (`Weather`), to which it says `ready` again; it ends with its input. The kernel's
own `netem` does the same, where a kernel has it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

DEVICE = "e0"
TUN = Path("/dev/net/tun")
MTU = 9000
"""Bytes of the largest packet."""
_TUNSETIFF = 0x400454CA
_TAP, _NO_HEADER = 0x0002, 0x1000
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How the network is."""

    cut: tuple[str, ...] = ()
    """Hosts whose cable is pulled."""
    apart: tuple[tuple[str, str], ...] = ()
    """Pairs of hosts that do not reach each other."""
    seconds: float = 0.0
    """What each packet takes."""
    loss: float = 0.0
    """The part of all packets that is lost."""

    def passes(self, one: str, other: str) -> bool:
        """Whether packets get from one host to another."""
        pairs = {frozenset(pair) for pair in self.apart}
        return one not in self.cut and other not in self.cut and frozenset((one, other)) not in pairs


def enter_network(pid: int) -> None:
    """Lets this thread open sockets and devices in the network namespace of another process."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET):  # os.setns: since Python 3.12
            raise OSError(ctypes.get_errno(), f"cannot enter the network of process {pid}")
    finally:
        os.close(descriptor)


def _open_device(pid: int) -> int:
    enter_network(pid)
    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", DEVICE.encode(), _TAP | _NO_HEADER))
    return device


def run(devices: dict[str, int]) -> None:
    """Passes frames between devices until the standard input ends.

    Args:
        devices: Host -> the file of its device.
    """
    weather, chance = Weather(), random.Random(0)
    names = {device: name for name, device in devices.items()}
    homes: dict[bytes, int] = {}
    """Hardware address -> the device behind which it is."""
    under_way: list[tuple[float, int, int, bytes]] = []
    sent = 0
    poll = select.poll()
    for source in (sys.stdin.fileno(), *names):
        poll.register(source, select.POLLIN)
    while True:
        wait = None if not under_way else max(0.0, under_way[0][0] - time.monotonic()) * 1000
        for source, _ in poll.poll(wait):
            if source not in names:
                line = sys.stdin.readline()
                if not line:
                    return
                weather = Weather(**json.loads(line))
                print("ready", flush=True)
                continue
            try:
                frame = os.read(source, 65536)
            except OSError:
                continue
            homes[frame[6:12]] = source
            known = homes.get(frame[:6])
            for target in [known] if known is not None else [device for device in names if device != source]:
                if not weather.passes(names[source], names[target]) or chance.random() < weather.loss:
                    continue
                sent += 1
                heapq.heappush(under_way, (time.monotonic() + weather.seconds, sent, target, frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(under_way)
            with contextlib.suppress(OSError):  # its queue is full: lost, as packets are
                os.write(target, frame)


def main() -> None:
    """Makes the devices and is the switch."""
    devices = {}
    for argument in sys.argv[1:]:
        name, _, pid = argument.partition("=")
        devices[name] = _open_device(int(pid))
    print("ready", flush=True)
    run(devices)


if __name__ == "__main__":
    main()

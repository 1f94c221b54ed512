"""From a host that is not of the cluster and has no token: what can be read, submitted or stopped? Nothing but this."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping

import pytest

from tests.hosts.cluster import ADDRESSES, GCS, OUTSIDE, WORKING, Cluster, reason_to_skip
from tests.sweeps.test_clusters import ASK

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip())),
]

WORK = """
import time

import ray

ray.init(address="auto", namespace="work", log_to_driver=False)


@ray.remote(num_cpus=1)
class Worker:
    def work(self):
        return "at work"


workers = [Worker.options(name=f"worker{number}", lifetime="detached").remote() for number in range(2)]
print(*ray.get([worker.work.remote() for worker in workers]), flush=True)
time.sleep(3600)
"""
"""A driver, and a worker on each of two hosts."""
JOIN = f"import ray; ray.init(address={GCS!r}, log_to_driver=False); print(ray.nodes())"
SUBMIT = ("ray", "job", "submit", "--address", f"http://{ADDRESSES[WORKING[0]]}:8265", "--", "true")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Cluster]:
    """A cluster of two hosts at work, whose dashboard and job server listen on the network."""
    with Cluster() as made:
        made.start_ray(*WORKING[:2], dashboard=True)
        driver = made.head.start(sys.executable, "-c", WORK, **made.settings)
        assert driver.stdout is not None
        assert driver.stdout.readline() == "at work at work\n"
        yield made


def doors(hosts: Cluster) -> Mapping[str, str]:
    """Returns all addresses on which a process of the cluster listens for other hosts, and which process it is."""
    found = {}
    for name in WORKING[:2]:
        for line in hosts.hosts[name].run("ss", "-Hltnp").splitlines():
            address, port = line.split()[3].rsplit(":", 1)
            if address not in ("127.0.0.1", "[::1]"):
                found[f"{ADDRESSES[name]}:{port}"] = line.partition('(("')[2].partition('"')[0]
    return found


OPEN_CALLS = {"/grpc.health.v1.Health/Check", "kind"}
OPEN_PAGES = {"/api/gcs_healthz", "/api/healthz", "/api/local_raylet_healthz", "/api/authentication_mode", "kind"}
"""Whether a process is healthy, and that a token is needed."""


def is_harmless(path: str, answer: str) -> bool:
    """Whether a page is shut, says only how Ray fares, or is the dashboard's empty frame."""
    shut = answer[:3] in ("401", "404", "405")
    return (
        shut or path in OPEN_PAGES or answer.startswith("200 # HELP") or (path, answer[:14]) == ("/", "200 <!doctype ")
    )


def test_no_door_opens_without_the_token(hosts: Cluster) -> None:
    """Each port of each host; what is open all the same is what docs/clusters.md says."""
    outside, there = hosts.hosts[OUTSIDE], doors(hosts)
    assert set(there.values()) >= {"gcs_server", "raylet", "ray::DashboardA", "ray::RuntimeEnv"}
    assert {f"{ADDRESSES[WORKING[0]]}:{port}" for port in (6379, 8265, 10001)} <= set(there)
    found = json.loads(outside.run(sys.executable, "-m", "tests.hosts.intruder", *there, seconds=500))
    assert set(found) == set(there)
    assert {answers["kind"] for answers in found.values()} == {"calls", "pages"}
    for door, answers in found.items():
        if answers["kind"] == "calls":
            assert set(answers) <= OPEN_CALLS, (door, there[door], answers)
        else:
            opened = {path: answer for path, answer in answers.items() if not is_harmless(path, answer)}
            assert opened == {}, (door, there[door])
    # The doors are real: with the token, they open.
    outside.run(sys.executable, "-c", ASK, GCS, **hosts.settings)


@pytest.mark.parametrize("token", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}], ids=["none", "wrong"])
@pytest.mark.parametrize("command", [(sys.executable, "-c", JOIN), SUBMIT, ("ray", "start", f"--address={GCS}")])
def test_without_the_token_nobody_joins_or_submits(
    hosts: Cluster, command: tuple[str, ...], token: Mapping[str, str]
) -> None:
    process = hosts.hosts[OUTSIDE].start("timeout", "100", *command, **{"RAY_AUTH_MODE": "disabled", **token})
    output, complaints = process.communicate()
    assert process.returncode != 0, output
    assert "uthenti" in output + complaints, (output, complaints)

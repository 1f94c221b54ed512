"""Tries every door of a Ray without its token, from a host that is not of its cluster, and prints which open.

Started as `python -m tests.hosts.intruder ADDRESS:PORT ...`; prints JSON: door -> what came back.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import grpc
from ray.core import generated

PATHS = (
    "/",
    "/metrics",
    "/api/version",
    "/api/jobs/",
    "/api/cluster_status",
    "/api/v0/nodes",
    "/api/v0/actors",
    "/api/v0/logs",
    "/api/actors/kill?actor_id=0",
    "/api/gcs_healthz",
    "/api/healthz",
    "/api/local_raylet_healthz",
    "/api/authentication_mode",
    "/nodes?view=summary",
    "/logical/actors",
    "/events",
    "/timezone",
    "/worker/traceback?pid=1",
    "/usage_stats_enabled",
    "/logs",
)
SHUT = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}
SECONDS = 5
_NO_DESCRIPTION = ("/ray.rpc.ObjectManagerService/Pull", "/ray.rpc.ObjectManagerService/FreeObjects")
"""Methods of Ray's whose descriptions do not come with it."""


def methods() -> Iterator[str]:
    """Yields all methods of Ray's services, the one that asks for its health first."""
    yield "/grpc.health.v1.Health/Check"
    for module in pkgutil.iter_modules(generated.__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"ray.core.generated.{module.name}").DESCRIPTOR
            for service in file.services_by_name.values():
                yield from (f"/{service.full_name}/{method.name}" for method in service.methods)
    yield from _NO_DESCRIPTION


def call(door: str, metadata: tuple[tuple[str, str], ...] = ()) -> tuple[bool, dict[str, str]]:
    """Calls all methods with empty requests; returns whether the door understands calls, and those that it answered."""
    found: dict[str, str] = {}
    with grpc.insecure_channel(door) as channel:
        for method in methods():
            try:
                channel.unary_unary(method)(b"", timeout=SECONDS, metadata=metadata)
                found[method] = "OK"
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAVAILABLE and not found:
                    return False, {}
                if error.code() not in SHUT:
                    found[method] = error.code().name
    return True, found


def get(door: str) -> dict[str, str]:
    """Asks for pages, and for a job to be run; returns what came back, if anything."""
    found = {}
    job = json.dumps({"entrypoint": "true"}).encode()
    for path, body in [*((path, None) for path in PATHS), ("/api/jobs/ (submit)", job)]:
        request = urllib.request.Request(f"http://{door}{path.partition(' ')[0]}", data=body)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                found[path] = f"{answer.status} {answer.read(200).decode(errors='replace')}"
        except urllib.error.HTTPError as error:
            found[path] = f"{error.code} {error.read(200).decode(errors='replace')}"
        except (OSError, ValueError) as error:
            found.setdefault("nothing", f"{type(error).__name__}")
            return found
    return found


def main() -> None:
    """Tries the doors."""
    found: dict[str, dict[str, str]] = {}
    for door in sys.argv[1:]:
        understands, found[door] = call(door)
        found[door] = {**found[door], "kind": "calls"} if understands else {**get(door), "kind": "pages"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
